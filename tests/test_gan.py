"""GAN beside its steps (test_gan_steps.py) and labels (test_gan_labels.py): defaults, averages, samples, the critic."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaegan_jax import adversarial, fit, gan, nets
from vaegan_jax.optimizer import Optimizer

D, K, B = 3, 2, 6
GENERATOR = nets.MLPGenerator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Normal(0.6))
MAXOUT = nets.MaxoutDiscriminator(hidden=(4, 3), pieces=2, keep=(0.8, 0.5, 0.5), kernel_init=nets.Normal(0.6))
LINEAR = nets.MLPGenerator(hidden=(), kernel_init=nets.Normal(1.0))  # W [z, y] + b: its output shows its input
CONFIG = gan.Config(latents=K, generator=GENERATOR, discriminator=MAXOUT, batch_size=B)
ADAM = Optimizer(rule="adam", learning_rate=0.01, momentum=0.5)
IMAGES = gan.Config(
    latents=K,
    prior_scale=1.0,
    generator=nets.ConvGenerator(channels=(4, 3), hidden=(6,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    discriminator=nets.ConvDiscriminator(channels=(3, 4), hidden=(5,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    generator_optimizer=ADAM,
    discriminator_optimizer=ADAM,
    batch_size=B,
)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def vectors(seed=0):
    return {"x": np.random.default_rng(seed).uniform(size=(B, D)).astype(np.float32)}


def images(seed=0):
    return {"x": np.random.default_rng(seed).integers(0, 256, (B, 8, 8, 1), np.uint8)}


def sigmoid(v):
    return 1 / (1 + np.exp(-np.asarray(v, np.float64)))


@pytest.fixture(scope="module")
def state():
    return gan.init(CONFIG, jax.random.key(1), (D,))


@pytest.fixture(scope="module")
def trained():
    """Two steps on, so that running statistics are neither their initial values nor a batch's."""
    state = gan.init(IMAGES, jax.random.key(1), (8, 8, 1))
    for t in range(2):
        state, _ = gan.train_step(IMAGES, state, images(t), jax.random.key(30 + t))
    return state


def test_the_defaults_are_goodfellows_recipe():
    one = gan.Config()
    assert (one.latents, one.prior, one.discriminator_weight, one.update) == (100, "uniform", 0.5, "simultaneous")
    assert (one.adversarial, one.output, one.batch_size) == ("non_saturating", "sigmoid", 100)
    assert (one.dataset_size, one.splits[0]) == (50_000, "train[:50000]")
    assert one.prior_scale == pytest.approx(np.sqrt(3))
    assert one.discriminator.keep == (0.8, 0.5, 0.5)
    sgd = Optimizer("sgd", 0.1, 0.5, decay=1.000004, floor=1e-6, final_momentum=0.7, momentum_from=1, momentum_to=250)
    assert one.generator_optimizer == one.discriminator_optimizer == sgd


def test_the_default_nets_have_goodfellows_shapes_and_initial_bounds():
    start = gan.init(gan.Config(), jax.random.key(0), (28, 28, 1))
    g, d = start.generator.params, start.discriminator.params
    sizes = {"hidden0": (100, 1200), "hidden1": (1200, 1200), "output": (1200, 784)}
    assert {name: layer["kernel"].shape for name, layer in g.items()} == sizes
    kernels = {"hidden0": d["hidden0"]["pieces"]["kernel"], "hidden1": d["hidden1"]["pieces"]["kernel"]}
    assert [k.shape for k in kernels.values()] == [(784, 240 * 5), (240, 240 * 5)]
    assert d["output"]["kernel"].shape == (240, 1)
    for bound, layers in ((0.05, [layer["kernel"] for layer in g.values()]), (0.005, kernels.values())):
        for kernel in layers:
            np.testing.assert_allclose([kernel.min(), kernel.max()], [-bound, bound], rtol=1e-3)
            np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.01)  # a uniform's
    assert abs(d["output"]["kernel"]).max() <= 0.005
    biases = [layer["bias"] for layer in (*g.values(), d["hidden0"]["pieces"], d["hidden1"]["pieces"], d["output"])]
    assert not any(bias.any() for bias in biases)


def test_dcgan_is_radfords_recipe():
    one = gan.dcgan()
    assert (one.batch_size, one.latents, one.prior, one.prior_scale) == (128, 100, "uniform", 1.0)
    assert (one.discriminator_weight, one.update, one.output) == (1.0, "alternating", "sigmoid")
    assert (one.sampling_statistics, one.num_classes) == ("batch", 0)
    assert one.generator == nets.ConvGenerator(norm_epsilon=1e-8, norm_affine=False)
    assert one.discriminator == nets.ConvDiscriminator(norm_epsilon=1e-8, norm_affine=False)
    adam = one.generator_optimizer
    assert one.discriminator_optimizer == adam
    assert (adam.rule, adam.learning_rate, adam.momentum, adam.b2, adam.l2) == ("adam", 2e-4, 0.5, 0.999, 2.5e-5)
    epochs = jnp.array([0, 100, 150, 200]) * 195  # of 2 * 128 examples of the 50,000: a batch for each player
    np.testing.assert_allclose([adam.rate(t) for t in epochs], [2e-4, 2e-4, 1e-4, 0], rtol=1e-5, atol=1e-12)
    assert gan.dcgan(conditional=True) == dataclasses.replace(one, num_classes=10)


def test_the_output_bias_is_the_logit_of_the_pixel_means():
    mean = np.array([0.0, 0.5, 0.9], np.float32)
    with_mean, without = (gan.init(CONFIG, jax.random.key(1), (D,), data_mean=m) for m in (mean, None))
    released = gan.init(config(bias_margin=1e-7), jax.random.key(1), (D,), data_mean=mean)
    np.testing.assert_allclose(released.generator.params["output"]["bias"][0], np.log(1e-7), rtol=1e-5)
    kept = np.maximum(mean, 1e-3)
    np.testing.assert_allclose(with_mean.generator.params["output"]["bias"], np.log(kept / (1 - kept)), rtol=1e-5)
    np.testing.assert_array_equal(without.generator.params["output"]["bias"], 0)
    for part in ("hidden0", "output"):
        kernels = (s.generator.params[part]["kernel"] for s in (with_mean, without))
        np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_the_prior_has_its_law(prior):
    one = config(prior=prior, prior_scale=np.sqrt(3.0))
    z = np.asarray(adversarial.draw_latents(one, jax.random.key(3), 20_000))
    law = stats.norm(scale=np.sqrt(3)) if prior == "normal" else stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))
    assert stats.kstest(z.ravel(), law.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.03


def test_the_ema_is_the_formula_with_its_own_buffers_and_what_sample_uses():
    averaged = config(ema_decay=0.75)
    state = gan.init(averaged, jax.random.key(1), (D,))
    ema = jax.tree.map(np.asarray, state.generator.params)
    for t in range(3):
        pairs = zip(*map(jax.tree.leaves, (state.generator.ema, state.generator.params)), strict=True)
        assert all(a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer() for a, b in pairs)
        state, _ = gan.train_step(averaged, state, vectors(t), jax.random.key(60 + t))
        ema = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, ema, state.generator.params)
        chex.assert_trees_all_close(state.generator.ema, ema, rtol=1e-5, atol=1e-7)
    swapped, plain = (
        state.replace(generator=state.generator.replace(params=p, ema=None))
        for p in (state.generator.ema, state.generator.params)
    )
    found, expected, other = (gan.sample(averaged, s, jax.random.key(2), 4) for s in (state, swapped, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(found - other).max() > 1e-3
    assert state.discriminator.ema is None


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_a_longer_sample_begins_with_the_shorter_one(trained, statistics):
    one = dataclasses.replace(IMAGES, sampling_statistics=statistics)
    short, long = (gan.sample(one, trained, jax.random.key(2), n) for n in (5, 40))
    chex.assert_shape(long, (40, 8, 8, 1))
    np.testing.assert_array_equal(short, long[:5])
    assert len(np.unique(np.asarray(long).reshape(40, -1), axis=0)) == 40


def test_samples_are_normalised_by_the_statistics_that_the_config_names(trained):
    z_key = jax.random.split(jax.random.fold_in(jax.random.key(2), 0))[0]  # of the first block
    z = jax.random.uniform(z_key, (B, K), minval=-1, maxval=1)
    variables = {"params": trained.generator.params, "batch_stats": trained.generator.batch_stats}
    heads = {
        "running": IMAGES.generator.apply(variables, z, (8, 8, 1), None, train=False),
        "batch": IMAGES.generator.apply(variables, z, (8, 8, 1), None, train=True, mutable=["batch_stats"])[0],
    }
    for statistics, head in heads.items():
        one = dataclasses.replace(IMAGES, sampling_statistics=statistics)
        found = gan.sample(one, trained, jax.random.key(2), B)
        np.testing.assert_allclose(found, sigmoid(head), rtol=1e-4, err_msg=statistics)
    assert abs(sigmoid(heads["running"]) - sigmoid(heads["batch"])).max() > 0.01


def test_samples_are_in_0_1_through_sigmoid_and_tanh(state):
    wide = jax.tree.map(lambda p: 3 * p, state.generator.params)
    state = state.replace(generator=state.generator.replace(params=wide))
    heads, squashed, halved = (
        np.asarray(gan.sample(config(output=o), state, jax.random.key(2), 50), np.float64)
        for o in ("linear", "sigmoid", "tanh")
    )
    assert heads.min() < -0.5 and heads.max() > 1.5
    np.testing.assert_allclose(squashed, sigmoid(heads), rtol=1e-5)
    np.testing.assert_allclose(halved, (np.tanh(heads) + 1) / 2, rtol=1e-5, atol=1e-6)
    assert min(squashed.min(), halved.min()) >= 0 and max(squashed.max(), halved.max()) <= 1


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_decode_standard_goes_through_the_priors_inverse_cdf(prior):
    """G is the identity, so that z shows."""
    one = config(generator=LINEAR, output="linear", prior=prior, prior_scale=2.0)
    start = gan.init(one, jax.random.key(1), (K,))
    params = {"output": {"kernel": jnp.eye(K), "bias": jnp.zeros(K)}}
    start = start.replace(generator=start.generator.replace(params=params))
    u = np.array([[0.0, -0.0], [1.3, -0.2], [9.0, -9.0], [-2.5, 0.01]], np.float32)
    z = np.asarray(gan.decode_standard(one, start, u))
    expected = 2 * (2 * stats.norm.cdf(u.astype(np.float64)) - 1) if prior == "uniform" else 2 * u
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(z[0], 0)
    np.testing.assert_array_equal(z[2], [2, -2] if prior == "uniform" else [18, -18])
    with pytest.raises(ValueError, match=r"\(4, 3\).*\[B, 2\]"):
        gan.decode_standard(one, start, np.zeros((4, K + 1), np.float32))


@pytest.mark.parametrize(("scale", "momentum"), [(1.0, 0.9), (1e4, 0.9), (1.0, 0.0), (1.0, 0.99)])
def test_decode_standard_is_one_function_of_each_u_under_batch_statistics(trained, scale, momentum):
    """On the block that gives the statistics, which `sample` would normalise by itself, it is that block."""
    net = dataclasses.replace(IMAGES.generator, norm_momentum=momentum)
    one = dataclasses.replace(IMAGES, sampling_statistics="batch", generator=net)
    wide = jax.tree.map(lambda leaf: scale * leaf if leaf.ndim > 1 else leaf, trained.generator.params)
    wide |= {"output": trained.generator.params["output"]}
    trained = trained.replace(generator=trained.generator.replace(params=wide))
    z_key, _ = jax.random.split(jax.random.key(0))
    z = adversarial.draw_latents(one, z_key, B)
    u = stats.norm.ppf((np.float64(z) + 1) / 2).astype(np.float32)  # its prior is U(-1, 1)
    variables = {"params": trained.generator.params, "batch_stats": trained.generator.batch_stats}
    heads = IMAGES.generator.apply(variables, z, (8, 8, 1), None, train=True, mutable=["batch_stats"])[0]
    found = gan.decode_standard(one, trained, u)
    np.testing.assert_allclose(found, sigmoid(heads), rtol=1e-3, atol=1e-5)
    for i in (0, 3):
        np.testing.assert_allclose(gan.decode_standard(one, trained, u[i : i + 1])[0], found[i], rtol=1e-4, atol=1e-6)
    assert abs(found[0] - found[3]).max() > 0.01


def test_discriminate_uses_running_statistics_and_shows_the_named_layer(trained):
    x = images(5)["x"]
    variables = {"params": trained.discriminator.params, "batch_stats": trained.discriminator.batch_stats}
    (expected, _), kept = IMAGES.discriminator.apply(
        variables, x / np.float32(255), None, train=False, capture_intermediates=True
    )
    logits, features = gan.discriminate(IMAGES, trained, x)
    chex.assert_shape(logits, (B,))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features, kept["intermediates"]["conv1"]["__call__"][0], rtol=1e-4, atol=1e-6)
    alone, _ = gan.discriminate(IMAGES, trained, x[:1])
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-5)
    other = dataclasses.replace(
        IMAGES, discriminator=dataclasses.replace(IMAGES.discriminator, feature_layer="hidden0")
    )
    same, features = gan.discriminate(other, trained, x)
    np.testing.assert_allclose(same, logits, rtol=1e-5)
    np.testing.assert_allclose(features, kept["intermediates"]["hidden0"]["__call__"][0], rtol=1e-4, atol=1e-6)


def test_discriminate_has_no_dropout(state):
    x = vectors()["x"]
    first, again = (gan.discriminate(CONFIG, state, x) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    dry = config(discriminator=dataclasses.replace(MAXOUT, keep=(1.0, 1.0, 1.0)))
    chex.assert_trees_all_close(first, gan.discriminate(dry, state, x), rtol=1e-6)


def test_validate_is_the_discriminator_on_data_and_on_as_many_samples(trained):
    values = gan.validate(IMAGES, trained, images(5), jax.random.key(3))
    real, _ = gan.discriminate(IMAGES, trained, images(5)["x"])
    fake, _ = gan.discriminate(IMAGES, trained, gan.sample(IMAGES, trained, jax.random.key(3), B))
    assert {name: v.shape for name, v in values.items()} == dict.fromkeys(("d_real", "d_fake", "wasserstein"), (B,))
    np.testing.assert_allclose(values["d_real"], sigmoid(real), rtol=1e-5)
    np.testing.assert_allclose(values["d_fake"], sigmoid(fake), rtol=1e-5)
    np.testing.assert_allclose(values["wasserstein"], real - fake, rtol=1e-4, atol=1e-6)


def test_vectors_move_to_the_data():
    x = np.random.default_rng(2).normal((3.0, -2.0), 0.5, (2000, 2)).astype(np.float32)
    run = fit.fit(gan, gan.vectors(2), x, steps=300, progress=False)
    before = gan.sample(run.config, gan.init(run.config, jax.random.key(0), (2,)), jax.random.key(1), 1000)
    after = gan.sample(run.config, run.state(0), jax.random.key(1), 1000)
    gap = [np.linalg.norm(np.asarray(s).mean(axis=0) - [3, -2]) for s in (before, after)]
    assert gap[0] > 3 and gap[1] < 1


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((B, D + 1), np.float32), r"\(6, 4\): \[B, 3\] is expected"),
        (np.zeros((D,), np.float32), r"\(3,\): \[B, 3\] is expected"),
        (np.zeros((0, D), np.float32), r"\(0, 3\): it is empty, give at least one"),
        (np.zeros((B, D), np.int32), "int32: give uint8.*float"),
    ],
)
def test_bad_batches_are_told_what_was_given_and_what_is_expected(state, x, sentence):
    with pytest.raises(ValueError, match=sentence):
        gan.train_step(CONFIG, state, {"x": x}, jax.random.key(0))
    with pytest.raises(ValueError, match=sentence):
        gan.discriminate(CONFIG, state, x)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"update": "both"}, "update is 'both'.*'simultaneous'.*'alternating'"),
        ({"prior": "gauss"}, "prior is 'gauss'.*'normal'.*'uniform'"),
        ({"adversarial": "gan"}, "adversarial is 'gan'.*'minimax'.*'relativistic'"),
        ({"latents": 0}, "are 0, 6, 50000.*1 or more"),
        ({"batch_size": 0}, "are 2, 0, 50000.*1 or more"),
        ({"dataset_size": 0}, "are 2, 6, 0.*1 or more"),
        ({"num_classes": -1}, "num_classes is -1.*0 or more"),
        ({"prior_scale": 0.0}, "prior_scale is 0.0: give a number above 0"),
        ({"prior_scale": -1.0}, "prior_scale is -1.0: give a number above 0"),
        ({"ema_decay": -0.1}, r"ema_decay is -0.1: give a number in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0: give a number in \[0, 1\)"),
    ],
)
def test_bad_configs_are_told_what_was_given_and_what_is_expected(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**bad)


def test_a_bad_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape is \(4, 4\).*\(H, W, C\).*\(D,\)"):
        gan.init(CONFIG, jax.random.key(0), (4, 4))
