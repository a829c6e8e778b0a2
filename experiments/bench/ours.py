"""vaegan_jax itself: the compiled chunk that fit runs, without its files."""

from collections.abc import Callable

import jax
import numpy as np

from experiments.bench import tasks
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.loop import Loop

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
    # No output bias from the data's mean, which fit would set: the others start from their nets' own initialisers.
    state = algorithm.init(config, jax.random.key(seed), x.shape[1:])
    loop = Loop(algorithm, config, Dataset(x), jax.tree.map(lambda leaf: leaf[None], state), (seed,))
    first, second = METRICS[task]
    sign = -1.0 if task == "vae" else 1.0
    done = 0

    def advance(n: int) -> np.ndarray:
        nonlocal done
        parts = []
        for start in range(0, n, loop.capacity):
            count = min(loop.capacity, n - start)
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
