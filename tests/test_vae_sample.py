"""vae.sample is the decoder of standard normal draws, block i from fold_in(key, i)."""

import jax
import numpy as np

from vaegan_jax import nets, vae

B, K, D = 5, 3, 4


def test_a_sample_is_decoded_standard_normal_latents_block_by_block():
    config = vae.Config(
        latents=K, encoder=nets.MLPEncoder(hidden=()), batch_size=B,
        decoder=nets.MLPDecoder(hidden=(6,), kernel_init=nets.Normal(0.7)),
    )  # fmt: skip
    state = vae.init(config, jax.random.key(1), (D,))
    found = vae.sample(config, state, jax.random.key(2), B + 2)
    for i, rows in enumerate((found[:B], found[B:])):
        z = jax.random.normal(jax.random.fold_in(jax.random.key(2), i), (B, K))
        np.testing.assert_allclose(rows, vae.decode(config, state, z)[: len(rows)], rtol=1e-5)
    assert np.std(found, axis=0).max() > 0.1  # the latents matter
