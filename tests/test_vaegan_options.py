"""VAE/GAN: each network has an optimiser of its own, dropout its own masks, the decoder the pixels' mean."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from vaegan_jax import nets, vaegan
from vaegan_jax.optimizer import Optimizer

D, B, K = 5, 6, 2
NAMES = ("encoder", "decoder", "discriminator")
CONFIG = vaegan.Config(
    latents=K, batch_size=B, gamma=0.1, encoder=nets.MLPEncoder(hidden=(4,)), decoder=nets.MLPDecoder(hidden=(4,)),
    discriminator=nets.MLPDiscriminator(hidden=(4,)),
)  # fmt: skip
BATCH = {"x": np.random.default_rng(0).uniform(size=(B, D)).astype(np.float32)}


def softplus(v):
    return np.logaddexp(0, np.asarray(v))


@pytest.mark.parametrize("balance", [False, True])
def test_each_network_moves_by_its_own_optimiser(balance):
    """Descent at three rates; the balance rule's margin is wide enough for both players to move."""
    rates = dict(zip(NAMES, (0.1, 0.02, 0.004), strict=True))
    own = {f"{name}_optimizer": Optimizer("sgd", rate, momentum=0.0) for name, rate in rates.items()}
    one = dataclasses.replace(CONFIG, balance=balance, margin=100.0, **own)
    state = vaegan.init(one, jax.random.key(1), (D,))
    grads, *_ = jax.jit(vaegan.gradients, static_argnums=0)(one, state, BATCH, jax.random.key(2))
    after, _ = vaegan.train_step(one, state, BATCH, jax.random.key(2))
    for name, rate in rates.items():
        wanted = jax.tree.map(lambda p, g, rate=rate: p - rate * g, getattr(state, name).params, grads[name])
        chex.assert_trees_all_close(getattr(after, name).params, wanted, rtol=1e-4, atol=1e-6)


def test_dropout_masks_of_real_rebuilt_and_fake_examples_are_three():
    wet = nets.MaxoutDiscriminator(
        hidden=(4,), pieces=2, keep=(0.5, 0.5), kernel_init=nets.Normal(1.0), feature_layer="hidden0"
    )
    one = dataclasses.replace(CONFIG, discriminator=wet)
    state = vaegan.init(one, jax.random.key(1), (D,))
    *_, metrics = jax.jit(vaegan.gradients, static_argnums=0)(one, state, BATCH, jax.random.key(3))
    noise, prior, *keys = jax.random.split(jax.random.key(3), 5)
    mean, log_var = vaegan.encode(one, state, BATCH["x"])
    rebuilt = vaegan.decode(one, state, mean + np.exp(log_var / 2) * jax.random.normal(noise, (B, K)))
    fake = vaegan.decode(one, state, jax.random.normal(prior, (B, K)))
    real, again, fakes = (
        wet.apply(state.discriminator.variables(), x, train=True, rngs={"dropout": key})
        for x, key in zip((BATCH["x"], rebuilt, fake), keys, strict=True)
    )
    np.testing.assert_allclose(metrics["real_cost"], softplus(-real[0]).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["fake_cost"], np.mean([softplus(fakes[0]), softplus(again[0])]), rtol=1e-5)
    np.testing.assert_allclose(metrics["d_reconstruction"], (1 / (1 + np.exp(-again[0]))).mean(), rtol=1e-5)
    llike = 0.5 * ((np.asarray(real[1] - again[1])) ** 2 + np.log(2 * np.pi)).sum(axis=1).mean()
    np.testing.assert_allclose(metrics["llike"], llike, rtol=1e-5)


def test_the_decoders_output_bias_is_the_logit_of_the_pixel_means():
    mean = np.array([0.1, 0.25, 0.5, 0.75, 0.9], np.float32)
    biases = [
        vaegan.init(CONFIG, jax.random.key(1), (D,), data_mean=m).decoder.params["output"]["bias"] for m in (mean, None)
    ]
    np.testing.assert_allclose(biases[0], np.log(mean / (1 - mean)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(biases[1], 0)


def test_equal_configs_are_one_static_argument():
    again = dataclasses.replace(CONFIG)
    assert again == CONFIG and hash(again) == hash(CONFIG)
    assert dataclasses.replace(CONFIG, gamma=0.2) != CONFIG
