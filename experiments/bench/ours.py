"""vaegan_jax itself: the compiled chunk that fit runs, without its files."""

from collections.abc import Callable

import jax
import numpy as np

from experiments.bench import tasks
from vaegan_jax import fit
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.loop import CAPACITY, Loop

METRICS = {
    "vae": ("log_likelihood", "kl"),
    "gan": ("discriminator_loss", "generator_loss"),
    "dcgan": ("discriminator_loss", "generator_loss"),
    "wgan": ("critic_loss", "generator_loss"),
    "vaegan": ("gan", "llike"),
}


def build(task: str, mode: str, x: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """advance(n): n steps in chunks of one program; their losses [n, 2]."""
    algorithm, config = tasks.ours(task)
    loop = make_loop(algorithm, config, Dataset(x), (seed,))
    first, second = METRICS[task]
    sign = -1.0 if task == "vae" else 1.0
    done = 0

    def advance(n: int) -> np.ndarray:
        nonlocal done
        parts = []
        for start in range(0, n, CAPACITY):
            count = min(CAPACITY, n - start)
            metrics = loop.advance(done, count)
            done += count
            parts.append((metrics, count))
        jax.block_until_ready(loop.states)
        columns = [
            np.concatenate([np.asarray(m[name])[0, :c] for m, c in parts]) * s
            for name, s in ((first, sign), (second, 1.0))
        ]
        return np.stack(columns, axis=1)

    return advance


def make_loop(algorithm: object, config: object, data: Dataset, seeds: tuple[int, ...]) -> Loop:
    """As fit makes it."""
    return Loop(algorithm, config, data, fit.fresh_states(algorithm, config, data, seeds, None), seeds)
