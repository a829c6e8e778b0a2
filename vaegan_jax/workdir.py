"""A run's folder: config.json, metrics.jsonl, samples/, checkpoints/; whose run it is, and what lies in it."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaegan_jax import checkpoint, logs, plots
from vaegan_jax import config as configs
from vaegan_jax.data.dataset import Dataset

LOCK = ".lock"
ASIDE = ".config.json"
"""What a run that was stopped while it began may leave."""


def describe(
    algorithm: Any, config: Any, data: Dataset, seeds: tuple[int, ...], initial: Any, arguments: dict[str, Any]
) -> dict[str, Any]:
    """What makes a run this run and no other, as JSON values."""
    digest = None
    if initial is not None:
        digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(initial))).hexdigest()
    return {
        "algorithm": algorithm.__name__,
        "config": configs.to_json(config),
        "shape": list(data.x.shape[1:]),
        "data": {"name": data.name, "split": data.split, "examples": len(data), "sha256": data.sha256},
        "seeds": list(seeds),
        "initial_states": digest,
        **arguments,
    }


def read(path: Path) -> dict[str, Any]:
    """What `describe` said, from a run's config.json. Raises ValueError where it is damaged, or no run's."""
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:  # of JSON, or of the encoding
        raise ValueError(
            f"{path} is damaged ({error}): put back the file of the run, or delete the folder and train again."
        ) from None
    parts = {"algorithm", "config", "shape", "data", "seeds"}
    if not isinstance(stored, dict) or not parts <= stored.keys():
        raise ValueError(f"{path} is of no run of fit, which says {', '.join(sorted(parts))}: give another folder.")
    return stored


@contextlib.contextmanager
def claim(folder: Path, description: dict[str, Any]) -> Iterator[None]:
    """Makes the folder, or checks that it is this run's, and keeps other processes out while the context lasts.

    The folder of another run that never came to a checkpoint is taken over.

    Raises:
        ValueError: it is a file, holds something else, another process trains there, or it is another run's: then the
            fields that differ.
    """
    _check(folder, description)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"workdir {folder} lies below a file: give another place.") from None
    with _lock(folder):
        _check(folder, description)  # again: another process may have been here in between
        aside = folder / ASIDE
        aside.write_text(json.dumps(description, indent=2) + "\n")
        aside.replace(folder / "config.json")
        yield


def _check(folder: Path, description: dict[str, Any]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"workdir {folder} is a file: give a folder, new or of the same run.")
    path = folder / "config.json"
    if path.exists():
        stored = read(path)
        current = stored | {"config": configs.with_defaults(stored["config"])}  # older runs go on
        changed = configs.differences(json.loads(json.dumps(current)), json.loads(json.dumps(description)))
        if changed and checkpoint.steps(folder / "checkpoints"):
            raise ValueError(f"{folder} holds another run; what differs: {'; '.join(changed)}. Give another workdir.")
    elif folder.exists() and any(entry.name not in (LOCK, ASIDE) for entry in folder.iterdir()):
        raise ValueError(f"workdir {folder} is not empty and has no config.json: give a new folder.")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Until the process ends, in whatever way. A file system without locks keeps nobody out."""
    with open(folder / LOCK, "w") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another process trains in {folder}: wait for it, or give another workdir.") from None
        except (ImportError, OSError):
            pass
        yield


def resume(folder: Path, states: Any, steps: int) -> tuple[int, Any, list[dict[str, Any]]]:
    """(step, states, lines of metrics.jsonl) of the last checkpoint, the log cut back to it; (0, states, []) at first.

    Raises:
        ValueError: the run has gone further than `steps`.
    """
    done, log = checkpoint.steps(folder / "checkpoints"), folder / "metrics.jsonl"
    start = done[-1] if done else 0
    if start > steps:
        raise ValueError(f"steps is {steps}, but {folder} has gone to {start}: give {start} or more.")
    if log.exists():
        logs.truncate(log, start)
    if not done:
        return 0, states, []
    return start, checkpoint.restore(folder / "checkpoints", states, start), logs.read(log) if log.exists() else []


def picture(sample: jax.Array, folder: Path, step: int, seed: int) -> None:
    """Samples [n, *shape] as samples/step...-seed....png."""
    x = np.asarray(sample)
    draw = plots.grid if x.ndim == 4 else plots.vectors
    draw(x, folder / "samples" / f"step{step:08d}-seed{seed}.png")
