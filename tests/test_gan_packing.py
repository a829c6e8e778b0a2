"""Packing (Lin et al. 2018): what the discriminator is shown, by hand; nobody in a pack is left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import adversarial, fit, gan, nets
from vaegan_jax import state as players
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

D, B = 3, 6
SGD = Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0)
CONFIG = gan.Config(
    latents=2,
    generator=nets.MLPGenerator(hidden=(4,), kernel_init=nets.Normal(0.6)),
    discriminator=nets.MLPDiscriminator(hidden=(5,), kernel_init=nets.Normal(0.6)),
    output="linear",
    packing=2,
    generator_optimizer=SGD,
    discriminator_optimizer=SGD,
    batch_size=B,
)


def batch(n=B):
    return {"x": np.random.default_rng(0).normal(size=(n, D)).astype(np.float32)}


def test_neighbours_lie_side_by_side():
    x = jnp.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(adversarial.pack(CONFIG, x), x.reshape(2, 6))
    images = jnp.arange(4 * 2 * 2 * 3).reshape(4, 2, 2, 3)
    packed = adversarial.pack(CONFIG, images)
    assert packed.shape == (2, 2, 2, 6)
    np.testing.assert_array_equal(packed[1], np.concatenate([images[2], images[3]], axis=-1))
    assert adversarial.pack(gan.Config(), x) is x


@pytest.mark.parametrize("penalty", [{}, {"r1": 0.3, "gradient_penalty": 0.7}])
def test_a_step_is_that_of_a_gan_of_packs(penalty, key):
    """The loss written out: means over packs, of a discriminator that sees them whole."""
    config = dataclasses.replace(CONFIG, **penalty)
    state = gan.init(config, key, (D,))
    assert state.discriminator.params["hidden0"]["kernel"].shape == (2 * D, 5)
    x = batch()["x"]
    after, metrics = gan.train_step(config, state, {"x": x}, jax.random.key(1))

    latent_key, _, _, penalty_key = jax.random.split(jax.random.key(1), 4)
    z = adversarial.draw_latents(config, latent_key, B)
    fake = players.apply(config.generator, {"params": state.generator.params}, z, (D,), None, train=True)[0]

    def d(params, pairs):
        return players.apply(config.discriminator, {"params": params}, pairs, None, train=True)[0][0]

    def loss(params):
        real, made = x.reshape(B // 2, 2 * D), fake.reshape(B // 2, 2 * D)
        value = 0.5 * (jax.nn.softplus(-d(params, real)) + jax.nn.softplus(d(params, made))).mean()
        if penalty:
            slope = jax.vmap(jax.grad(lambda pair: d(params, pair[None])[0]))
            share = jax.random.uniform(jax.random.split(penalty_key, 3)[0], (B // 2, 1))
            norm = jnp.linalg.norm(slope(share * real + (1 - share) * made), axis=1)
            value += 0.3 * (slope(real) ** 2).sum(axis=1).mean() + 0.7 * ((norm - 1) ** 2).mean()
        return value

    gradient = jax.grad(loss)(state.discriminator.params)
    moved = jax.tree.map(lambda old, new: old - new, state.discriminator.params, after.discriminator.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, gradient)
    if not penalty:
        assert metrics["discriminator_loss"] == pytest.approx(float(loss(state.discriminator.params)), abs=1e-6)


def test_every_member_of_a_pack_teaches_the_generator(key):
    """The cotangent that reaches the samples is nowhere zero."""
    state = gan.init(CONFIG, key, (D,))

    def loss(fake):
        logits = players.apply(
            CONFIG.discriminator, state.discriminator.variables(), adversarial.pack(CONFIG, fake), None, train=True
        )[0][0]
        return jax.nn.softplus(-logits).mean()

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(batch()["x"])))
    assert (np.abs(gradient).sum(axis=1) > 0).all()


def test_judging_is_of_packs_and_validation_of_examples(key):
    state = gan.init(CONFIG, key, (D,))
    logits, _ = gan.discriminate(CONFIG, state, batch()["x"])
    assert logits.shape == (B // 2,)
    found = gan.validate(CONFIG, state, batch(5), jax.random.key(1))
    real, _ = gan.discriminate(CONFIG, state, batch(5)["x"][:4])
    assert found["d_real"].shape == (5,)
    np.testing.assert_allclose(found["d_real"], jax.nn.sigmoid(real).mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="1 examples: give 2 or more"):
        gan.validate(CONFIG, state, batch(1), jax.random.key(1))


def test_no_block_of_validation_is_smaller_than_a_pack(key):
    config = dataclasses.replace(CONFIG, packing=3, batch_size=6)
    state, data = gan.init(config, key, (D,)), np.ones((12, D), np.float32)
    assert np.isfinite(fit.validate(gan, config, state, data, block=5)["d_real"])  # not 5, 5 and 2
    with pytest.raises(ValueError, match="has 2 examples, of which this config judges 3 at once: give 3 or more"):
        fit.fit(gan, config, data, steps=1, validation=data[:2], progress=False)


def test_fit_trains_seeds_with_packs():
    data = Dataset(np.random.default_rng(0).normal(size=(60, D)).astype(np.float32))
    run = fit.fit(gan, CONFIG, data, steps=4, seeds=(0, 1), validation=data, log_every=2)
    assert np.isfinite(run.metrics["generator_loss"]).all()
    assert gan.sample(CONFIG, run.state(1), jax.random.key(0), 7).shape == (7, D)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"packing": 0}, "packing is 0"),
        ({"packing": 4}, "packing is 4 and batch_size 6"),
        ({"num_classes": 3}, "packing is 2 with 3 classes"),
    ],
)
def test_bad_packing_gets_a_sentence(bad, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(CONFIG, **bad)


def test_a_batch_of_broken_packs_gets_a_sentence(key):
    state = gan.init(CONFIG, key, (D,))
    with pytest.raises(ValueError, match="packing is 2, but there are 5 examples"):
        gan.train_step(CONFIG, state, batch(5), jax.random.key(1))


def test_pacgan_is_lins_recipe():
    config = gan.pacgan(3)
    state = gan.init(config, jax.random.key(0), (2,))
    shapes = jax.tree.map(jnp.shape, state.discriminator.params)
    assert shapes["hidden0"]["pieces"]["kernel"] == (6, 1000) and shapes["output"]["kernel"] == (200, 1)
    assert shapes["hidden2"]["pieces"]["kernel"] == (200, 1000)
    generator = state.generator.params
    assert generator["hidden3"]["kernel"].shape == (400, 400) and "bias" not in generator["hidden3"]
    assert generator["output"]["bias"].shape == (2,)
    assert np.std(generator["hidden3"]["kernel"]) == pytest.approx(0.02, rel=0.02)
    assert (config.batch_size, config.generator_optimizer.momentum) == (300, 0.8)
    assert config.update == "simultaneous" and config.adversarial == "non_saturating"
