"""GAN: D's running statistics take real, then fake; tanh trains in [-1, 1]; real and fake share their labels."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import adversarial, gan, nets
from vaegan_jax.optimizer import Optimizer

B, K, SHAPE = 6, 2, (8, 8, 1)
X = np.random.default_rng(0).integers(0, 256, (B, *SHAPE), np.uint8)


def test_the_discriminators_statistics_average_the_real_and_then_the_fake_batch():
    """One step is two updates at momentum m: m (m s + (1 - m) real) + (1 - m) fake, of raw hidden0."""
    m = 0.75
    critic = nets.ConvDiscriminator(
        channels=(3,), hidden=(5,), kernel=(3, 3), kernel_init=nets.Normal(0.3), norm_momentum=m,
        feature_layer="hidden0",
    )  # fmt: skip
    config = gan.Config(
        latents=K, generator=nets.MLPGenerator(hidden=(4,), kernel_init=nets.Normal(1.0)), discriminator=critic,
        batch_size=B, prior="normal",
    )  # fmt: skip
    start = gan.init(config, jax.random.key(1), SHAPE)
    z = config.prior_scale * jax.random.normal(jax.random.split(jax.random.key(2), 4)[0], (B, K))
    fake = jax.nn.sigmoid(config.generator.apply(start.generator.variables(), z, SHAPE))
    real, made = (
        np.asarray(critic.apply(start.discriminator.variables(), x)[1], np.float64) for x in (X / np.float32(255), fake)
    )
    after, _ = gan.train_step(config, start, {"x": X}, jax.random.key(2))
    found = after.discriminator.batch_stats["hidden0_norm"]["batch"]
    mean = m * (1 - m) * real.mean(axis=0) + (1 - m) * made.mean(axis=0)
    var = m * (m + (1 - m) * real.var(axis=0)) + (1 - m) * made.var(axis=0)
    chex.assert_trees_all_close(found, {"mean": np.float32(mean), "var": np.float32(var)}, rtol=1e-4, atol=1e-6)


def test_under_tanh_the_discriminator_learns_from_2x_minus_1():
    """A linear D and Wasserstein's loss: its gradient in the kernel is E G(z) - E x, both in [-1, 1]."""
    config = gan.Config(
        latents=K, generator=nets.MLPGenerator(hidden=()), adversarial="wasserstein", output="tanh", batch_size=B,
        discriminator=nets.MaxoutDiscriminator(hidden=(1,), pieces=1, keep=(1.0, 1.0), feature_layer="hidden0"),
        discriminator_weight=1.0, discriminator_optimizer=Optimizer("sgd", 1.0, momentum=0.0), prior="normal",
    )  # fmt: skip
    start = gan.init(config, jax.random.key(1), SHAPE)
    # logit = x . k w + b with w = 1, so that the kernel's gradient is the difference of means.
    params = {**start.discriminator.params, "output": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}
    start = dataclasses.replace(start, discriminator=start.discriminator.replace(params=params))
    z = config.prior_scale * jax.random.normal(jax.random.split(jax.random.key(2), 4)[0], (B, K))
    fake = np.tanh(config.generator.apply(start.generator.variables(), z, SHAPE))
    after, _ = gan.train_step(config, start, {"x": X}, jax.random.key(2))
    before, moved = (s.discriminator.params["hidden0"]["pieces"]["kernel"] for s in (start, after))
    expected = (2 * (X / 255.0) - 1).mean(axis=0).ravel() - fake.mean(axis=0).ravel()
    np.testing.assert_allclose((moved - before)[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_fake_is_judged_under_the_label_that_it_was_made_from():
    """Both conditional losses written out on the nets, y beside each x and its G(z, y)."""
    config = gan.Config(
        latents=K, generator=nets.MLPGenerator(hidden=(4,)), discriminator=nets.MLPDiscriminator(hidden=(4,)),
        num_classes=4, batch_size=B, prior="normal", prior_scale=1.0,
    )  # fmt: skip
    start = gan.init(config, jax.random.key(1), SHAPE)
    label = jnp.array([0, 1, 2, 3, 3, 1], jnp.int32)
    y = jnp.asarray(np.eye(4, dtype=np.float32)[np.asarray(label)])
    z = jax.random.normal(jax.random.split(jax.random.key(2), 4)[0], (B, K))

    def sure(d, g):
        fake = jax.nn.sigmoid(config.generator.apply({"params": g}, z, SHAPE, y))
        return [jax.nn.sigmoid(config.discriminator.apply({"params": d}, v, y)[0]) for v in (X / np.float32(255), fake)]

    def d_loss(d, g):
        real, fake = sure(d, g)
        return -0.5 * (jnp.log(real) + jnp.log(1 - fake)).mean()

    def g_loss(d, g):
        return -jnp.log(sure(d, g)[1]).mean()

    d, g = start.discriminator.params, start.generator.params
    expected = jax.jit(lambda d, g: (jax.grad(g_loss, 1)(d, g), jax.grad(d_loss)(d, g)))(d, g)
    step = jax.jit(adversarial.gradients, static_argnums=0)
    (g_found, _), (d_found, _), _ = step(config, start, {"x": X, "label": label}, jax.random.key(2))
    chex.assert_trees_all_close((g_found, d_found), expected, rtol=1e-3, atol=1e-6)
