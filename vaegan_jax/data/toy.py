"""Toy distributions with known modes: pure functions of a typed key (`jax.random.key`), float32 throughout."""

import jax
import jax.numpy as jnp

RING_SD, GRID_SD = 0.01, 0.05


def ring(
    key: jax.Array, n: int, *, modes: int = 8, radius: float = 1.0, sd: float = RING_SD
) -> tuple[jax.Array, jax.Array]:
    """Points `[n, 2]` of a mixture of equal Gaussians on a circle, and its centres `[modes, 2]`; one is (radius, 0)."""
    if modes < 1:
        raise ValueError(f"ring: modes is {modes}, expected at least 1")
    angles = 2 * jnp.pi * jnp.arange(modes, dtype=jnp.float32) / modes
    centres = radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    return _mixture(key, n, centres, sd), centres


def grid(
    key: jax.Array, n: int, *, side: int = 5, spacing: float = 2.0, sd: float = GRID_SD
) -> tuple[jax.Array, jax.Array]:
    """Points `[n, 2]` of a mixture of equal Gaussians on a square grid around 0, and its centres `[side * side, 2]`."""
    if side < 1:
        raise ValueError(f"grid: side is {side}, expected at least 1")
    ticks = spacing * (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2)
    centres = jnp.stack(jnp.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    return _mixture(key, n, centres, sd), centres


def segments(key: jax.Array, n: int, *, theta: float) -> jax.Array:
    """Points `[n, 2]`: (theta, u) with u uniform in [0, 1), the parallel segments of the WGAN paper."""
    _count(n)
    u = jax.random.uniform(key, (n,), jnp.float32)
    return jnp.stack([jnp.full_like(u, theta), u], axis=1)


def _mixture(key: jax.Array, n: int, centres: jax.Array, sd: float) -> jax.Array:
    """n draws: a centre with equal probability, plus Gaussian noise of that standard deviation in each direction."""
    _count(n)
    if sd < 0:
        raise ValueError(f"sd is {sd}, expected at least 0")
    which, noise = jax.random.split(key)
    mode = jax.random.randint(which, (n,), 0, len(centres))
    return centres[mode] + sd * jax.random.normal(noise, (n, 2), jnp.float32)


def _count(n: int) -> None:
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 point")
