"""Initialisers of parameters that compare, hash and print by value, as a config needs them; jax's own are closures."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Normal:
    """N(mean, sd^2)."""

    sd: float = 0.02
    mean: float = 0.0

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return self.mean + self.sd * jax.random.normal(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """U(-bound, bound)."""

    bound: float = 0.05

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -self.bound, self.bound)


@dataclasses.dataclass(frozen=True)
class Glorot:
    """Glorot & Bengio 2010: U(-a, a), a = sqrt(6 / (fan in + fan out))."""

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return nn.initializers.glorot_uniform()(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class FanIn:
    """N(0, scale / fan in)."""

    scale: float = 1.0

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return nn.initializers.variance_scaling(self.scale, "fan_in", "normal")(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class Constant:
    value: float = 0.0

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jnp.full(shape, self.value, dtype)
