"""An algorithm for `fit` in which the discriminator learns and the generator does not: gan's or wgan's own step of it.

What is trained to its optimum so is a bound on a distance between the data and the generator's law.
"""

import dataclasses
import functools
from typing import Any

import jax

from vaegan_jax import adversarial, gan, wgan

Game = gan.Config | wgan.Config
Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]


def init(config: Game, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> Any:
    """gan's or wgan's State. A generator's own parameters may be put into it."""
    algorithm = wgan if isinstance(config, wgan.Config) else gan
    return algorithm.init(config, key, shape, data_mean=data_mean)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Game, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
    """One step of the discriminator on one batch {"x": [B, *shape]} and as many samples; a critic's clip after it."""
    if isinstance(config, wgan.Config):
        state, metrics = wgan.critic_step(config, state, batch, key)
    else:
        state, metrics = adversarial.discriminator_step(config, state, batch, key)
    return dataclasses.replace(state, step=state.step + 1), metrics
