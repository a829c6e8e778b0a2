"""VAE with Dis_l, an algorithm for `fit`: vaegan's step while the discriminator stays what a GAN has made of it."""

import dataclasses
import functools
from typing import Any

import jax

from vaegan_jax import vaegan

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]


def init(
    config: vaegan.Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None
) -> vaegan.State:
    """vaegan's State. A trained discriminator is to be put into it."""
    return vaegan.init(config, key, shape, data_mean=data_mean)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: vaegan.Config, state: vaegan.State, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
    """One step of encoder and decoder on a batch {"x": [B, *shape]}; gan_weight 0 leaves them L_llike and L_prior."""
    after, metrics = vaegan.train_step(config, state, batch, key)
    for name in ("discriminator_gradient_norm", "gan", "d_fake", "fake_cost"):
        del metrics[name]  # nothing else needs that gradient and those passes, so XLA leaves them out
    return dataclasses.replace(after, discriminator=state.discriminator), metrics
