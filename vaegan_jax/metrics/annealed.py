"""The state of AIS's chains between two blocks of distributions (see ais.py), and the file that keeps it."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import hmc


class State(NamedTuple):
    """All that changes from one distribution to the next."""

    chains: hmc.Chains  # [pilots + C, B, ...], without pilots in reverse
    steps: jax.Array  # [T, B]: those of the transitions so far, and of the next one; all of them in reverse
    log_weight: jax.Array  # [pilots + C, B]


@dataclasses.dataclass(frozen=True)
class File:
    """The chains' state between blocks, written atomically; it knows the problem that it belongs to."""

    path: Path
    digest: str  # of x, the key, the starts, the steps replayed and the settings that change values
    probe: np.ndarray  # log p(x | z) at the starts: another decoder gives other numbers

    @classmethod
    def of(cls, path: Path, parts: Sequence[Any], start: hmc.Chains) -> "File":
        """parts: arrays, all that decides the values."""
        digest = hashlib.sha256()
        for part in parts:
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        return cls(path, digest.hexdigest(), np.asarray(start.log_likelihood))

    def read(self) -> tuple[int, State] | None:
        """(increments done, state), or None where there is no file."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as held:
                saved = dict(held)
            digest, probe = str(saved["digest"]), saved["probe"]
            chains = hmc.Chains(*(jnp.asarray(saved[field]) for field in hmc.Chains._fields))
            state = State(chains, jnp.asarray(saved["steps"]), jnp.asarray(saved["log_weight"]))
            index = int(saved["index"])
        except Exception as error:  # whatever a damaged archive raises
            raise ValueError(f"{self.path} cannot be read ({error}): remove it to start again.") from error
        # Another machine rounds otherwise; another decoder, even one training step away, differs by more.
        same = digest == self.digest and np.allclose(probe, self.probe, rtol=2e-5, atol=2e-5)
        if not same:
            what = "another decoder" if digest == self.digest else "other examples, another key or other settings"
            raise ValueError(f"{self.path} holds a run of {what}: give another workdir, or remove the file.")
        return index, state

    def write(self, index: int, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        held = state.chains._asdict() | {"steps": state.steps, "log_weight": state.log_weight, "probe": self.probe}
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in held.items()}
        aside = self.path.with_name(self.path.name + ".aside")
        with open(aside, "wb") as file:
            np.savez(file, digest=np.array(self.digest), index=np.array(index), **arrays)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
