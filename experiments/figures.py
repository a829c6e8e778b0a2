"""The figures of a run: samples, reconstructions, interpolation, latent manifold, curves."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import plots
from vaegan_jax import state as players
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.fit import Run


def draw(run: Run, data: Dataset, folder: Path, *, n: int = 100) -> list[Path]:
    """Writes what this run's algorithm and data allow, for its first seed, and returns the files.

    samples.png always; for images also reconstructions.png where there is an encoder and, without labels,
    interpolation.png, and manifold.png with 2 latents; curves.png of every metric once there are two lines of them.
    """
    algorithm, config, state = run.algorithm, run.config, run.state(run.seeds[0])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "samples.png"]
    classes = jnp.arange(n) % config.num_classes if config.num_classes else None
    labels, *_ = *players.must_be_told(config, data.label, n), classes
    images = np.asarray(algorithm.sample(config, state, jax.random.key(1), n, labels))
    if images.ndim == 2:
        if images.shape[1] == 2:
            plots.scatter(images, paths[0], real=data.x[: 10 * n])
        else:
            plots.vectors(images, paths[0])
        return paths + _curves(run, folder)
    plots.grid(images, paths[0], columns=10, pad=4 if images.shape[1] < 16 else 1)  # tiny digits fill their frames

    if not config.num_classes:
        paths.append(folder / "interpolation.png")
        ends = np.asarray(jax.random.normal(jax.random.key(2), (2, 6, config.latents)))
        plots.interpolation(lambda u: _decode(algorithm, config, state, u), ends[0], ends[1], 10, paths[-1])
        if config.latents == 2:
            paths.append(folder / "manifold.png")
            plots.manifold(lambda u: _decode(algorithm, config, state, u), paths[-1])
    if hasattr(algorithm, "reconstruct"):
        paths.append(folder / "reconstructions.png")
        x = data.x[:20].astype(np.float32) / (255 if data.x.dtype == np.uint8 else 1)
        known = () if not config.num_classes or data.label is None else (data.label[:20],)
        again = algorithm.reconstruct(config, state, x, jax.random.key(3), *known)
        plots.reconstructions(x, np.asarray(again), paths[-1])
    return paths + _curves(run, folder)


def _decode(algorithm: Any, config: Any, state: Any, u: np.ndarray) -> np.ndarray:
    return np.asarray(algorithm.decode_standard(config, state, jnp.asarray(u, jnp.float32)))


def _curves(run: Run, folder: Path) -> list[Path]:
    if len(run.steps) < 2:
        return []
    shown = {
        name: values for name, values in run.metrics.items() if name != "steps_per_second" and np.isfinite(values).all()
    }
    plots.curves(shown, run.steps, folder / "curves.png")
    return [folder / "curves.png"]
