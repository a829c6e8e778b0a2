"""A trained model read from its workdir: `vaegan_jax.load(workdir).sample(key, n)`."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import jax

from vaegan_jax import checkpoint
from vaegan_jax import config as configs
from vaegan_jax import state as players
from vaegan_jax import workdir as folders


@dataclasses.dataclass(frozen=True)
class Model:
    """One seed of a run. Shapes as in the algorithm's own functions, which these call with config and state."""

    algorithm: Any
    config: Any
    state: Any

    def sample(self, key: jax.Array, n: int, label: jax.Array | None = None) -> jax.Array:
        """[n, *shape], images in [0, 1]; all algorithms but the classifier. label where the config has classes."""
        return self._function("sample")(self.config, self.state, key, n, label)

    def encode(self, x: jax.Array, label: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """(mean, log_var), [B, K] each; algorithms with an encoder only. label where the config has classes."""
        return self._function("encode")(self.config, self.state, x, *self._told(label))

    def reconstruct(self, x: jax.Array, key: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """[B, *shape] -> [B, *shape]; algorithms with an encoder only. label where the config has classes."""
        return self._function("reconstruct")(self.config, self.state, x, key, *self._told(label))

    def _told(self, label: jax.Array | None) -> tuple[jax.Array, ...]:
        if label is None:
            return ()
        if not self.config.num_classes:
            raise ValueError("label was given, but the config has num_classes = 0: leave it out.")
        return (label,)

    def _function(self, name: str) -> Any:
        if not hasattr(self.algorithm, name):
            which = "it draws nothing" if name == "sample" else "it has no encoder with one mean; use vae or vaegan"
            raise ValueError(f"{self.algorithm.__name__} has no {name}: {which}.")
        return getattr(self.algorithm, name)


def stored(workdir: str | Path) -> dict[str, Any]:
    """config.json of a run: what `workdir.describe` said.

    Raises ValueError where there is none, or it is damaged or of something else.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise ValueError(f"{Path(workdir)} has no config.json: give the workdir of a run of fit.")
    return folders.read(path)


def load(workdir: str | Path, *, seed: int | None = None, step: int | None = None, config: Any = None) -> Model:
    """The model that `fit` left in `workdir`: its first seed and last step, unless given.

    config: needed only where the stored one holds modules from outside vaegan_jax.

    Raises:
        ValueError: no run there, no such seed or step, a config that cannot be read back.
    """
    folder, description = Path(workdir), stored(workdir)
    name = description["algorithm"]
    if not name.startswith("vaegan_jax."):
        raise ValueError(f"{folder} is of the algorithm {name}: only those of vaegan_jax are loaded.")
    algorithm = importlib.import_module(name)
    config = configs.from_json(description["config"]) if config is None else config
    seeds, done = description["seeds"], checkpoint.steps(folder / "checkpoints")
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"seed is {seed}: {folder} has {', '.join(map(str, seeds))}.")
    if not done or step not in (None, *done):
        have = ", ".join(map(str, done)) or "none yet"
        raise ValueError(f"step is {step}: the checkpoints in {folder} are {have}.")
    one = jax.eval_shape(lambda key: algorithm.init(config, key, tuple(description["shape"])), jax.random.key(0))
    template = jax.tree.map(lambda a: jax.ShapeDtypeStruct((len(seeds), *a.shape), a.dtype), one)
    states = checkpoint.restore(folder / "checkpoints", template, step)
    return Model(algorithm, config, players.one_of(states, seeds.index(seed)))
