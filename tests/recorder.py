"""What the tests of `fit` train: a small VAE, and an algorithm that only writes down what it is given."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vaegan_jax import nets, vae

SMALL = vae.Config(
    latents=3, encoder=nets.MLPEncoder(hidden=(16,)), decoder=nets.MLPDecoder(hidden=(16,)), batch_size=50
)
NUMBERS = np.arange(10, dtype=np.float32)[:, None]


@struct.dataclass
class Count:
    """The state of `recorder`: a count, and what it saw."""

    step: jax.Array
    seen: jax.Array
    draws: jax.Array


def recorder(batch_size=3, group=1, bad_at=None, steps=20):
    """An algorithm that learns nothing and writes down every batch and its random draw."""

    def init(config, key, shape, *, data_mean=None):
        seen = jnp.full((steps, group, batch_size), -1.0)
        return Count(jnp.int32(0), seen, jnp.zeros(steps) + 0 * jax.random.uniform(key))

    def train_step(config, state, batch, key):
        x = batch["x"].reshape(group, batch_size)
        after = Count(
            state.step + 1,
            state.seen.at[state.step].set(x),
            state.draws.at[state.step].set(jax.random.uniform(key)),
        )
        metric = jnp.where(state.step + 1 == bad_at, jnp.nan, x.mean()) if bad_at else x.mean()
        return after, {"mean": metric, "step_squared": jnp.float32(state.step) ** 2}

    def sample(config, state, key, n, label=None):
        return jnp.zeros((n, 4, 4, 1))

    def validate(config, state, batch, key):
        return {"x": batch["x"][:, 0]}

    class Config(types.SimpleNamespace):
        num_classes = 0

    config = Config(batch_size=batch_size, batches_per_step=group)
    module = types.SimpleNamespace(__name__="recorder", init=init, train_step=train_step, sample=sample)
    module.validate = validate
    return module, config
