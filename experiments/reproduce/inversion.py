"""Latents of a generator: the image of one, lines between two, and the code of an image, which needs a search."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import norm

from vaegan_jax import adversarial, gan, plots

STARTS = 8
BLOCK = 50  # images a program


def images(config: gan.Config, state: Any, z: np.ndarray, block: int = 500) -> np.ndarray:
    """G(z) for z [N, K] on the prior's own scale, a uniform one's cut to its cube: [N, H, W, C] in [0, 1]."""
    z = np.asarray(z, np.float64) / config.prior_scale
    u = norm.ppf((np.clip(z, -0.9999, 0.9999) + 1) / 2) if config.prior == "uniform" else z
    u = u.astype(np.float32)
    blocks = [np.resize(u[i : i + block], (block, u.shape[1])) for i in range(0, len(u), block)]
    return np.concatenate([np.asarray(gan.decode_standard(config, state, jnp.asarray(b))) for b in blocks])[: len(u)]


def lines(config: gan.Config, state: Any, key: jax.Array, path: Path, n: int = 5) -> None:
    """Draws n straight lines between two latents of the prior."""
    a, b = (np.asarray(adversarial.draw_latents(config, k, n)) for k in jax.random.split(key))
    plots.interpolation(functools.partial(images, config, state), a, b, path=path)


def invert(
    algorithm: Any, config: Any, state: Any, key: jax.Array, x: Any, *, steps: int = 300, rate: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """argmin over u of ||G(u) - x||^2 by Adam from STARTS draws of N(0, I), the best of them for each image.

    u goes through algorithm.decode_standard, so that a uniform prior's range is kept to.

    Args:
        x: images uint8 or in [0, 1], [N, H, W, C].

    Returns: u [N, K] and G(u) [N, H, W, C], float32.
    """
    x = np.asarray(x)
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    codes, images = [], []
    for i, start in enumerate(range(0, len(x), BLOCK)):
        block = x[start : start + BLOCK]
        padded = np.resize(block, (BLOCK, *block.shape[1:]))  # one program for all blocks
        u, rebuilt = _descend(algorithm, config, state, jax.random.fold_in(key, i), jnp.asarray(padded), steps, rate)
        codes.append(np.asarray(u)[: len(block)])
        images.append(np.asarray(rebuilt)[: len(block)])
    return np.concatenate(codes), np.concatenate(images)


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _descend(
    algorithm: Any, config: Any, state: Any, key: jax.Array, x: jax.Array, steps: int, rate: float
) -> tuple[jax.Array, jax.Array]:
    """x [B, H, W, C] -> the best u [B, K] and its image."""
    B = x.shape[0]
    adam = optax.adam(rate)
    starts = jax.random.normal(key, (STARTS * B, config.latents))
    wanted = jnp.tile(x, (STARTS, 1, 1, 1))

    def errors(u: jax.Array) -> jax.Array:
        rebuilt = algorithm.decode_standard(config, state, u)
        return ((rebuilt - wanted) ** 2).reshape(STARTS * B, -1).sum(axis=1)

    def move(_: int, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        u, opt_state = carry
        gradient = jax.grad(lambda u: errors(u).sum())(u)
        updates, opt_state = adam.update(gradient, opt_state, u)
        return optax.apply_updates(u, updates), opt_state

    u, _ = jax.lax.fori_loop(0, steps, move, (starts, adam.init(starts)))
    best = errors(u).reshape(STARTS, B).argmin(axis=0)
    u = u.reshape(STARTS, B, -1)[best, jnp.arange(B)]
    return u, algorithm.decode_standard(config, state, u)
