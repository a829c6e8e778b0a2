"""GAN: the recipes step by step against independent code, who moves and which way, sampling, the options."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaegan_jax import fit, gan, losses, nets
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer

D, K, B = 3, 2, 6
GENERATOR = nets.MLPGenerator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Normal(0.6))
MAXOUT = nets.MaxoutDiscriminator(hidden=(4, 3), pieces=2, keep=(1.0, 1.0, 1.0), kernel_init=nets.Normal(0.6))
CONFIG = gan.Config(latents=K, generator=GENERATOR, discriminator=MAXOUT, batch_size=B)  # Goodfellow's, small
SGD = Optimizer(rule="sgd", learning_rate=1e-3, momentum=0.0)
IMAGES = gan.Config(
    latents=K,
    prior_scale=1.0,
    generator=nets.ConvGenerator(channels=(4, 3), hidden=(6,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    discriminator=nets.ConvDiscriminator(channels=(3, 4), hidden=(5,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    discriminator_weight=1.0,
    update="alternating",
    generator_optimizer=gan.dcgan().generator_optimizer,
    discriminator_optimizer=gan.dcgan().discriminator_optimizer,
    batch_size=B,
)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def vectors(seed=0, shift=0.0):
    return {"x": (np.random.default_rng(seed).uniform(size=(B, D)) + shift).astype(np.float32)}


def images(seed=0):
    return {"x": np.random.default_rng(seed).integers(0, 256, (B, 8, 8, 1), np.uint8)}


@pytest.fixture(scope="module")
def state():
    return gan.init(CONFIG, jax.random.key(1), (D,))


@pytest.fixture(scope="module")
def image_state():
    return gan.init(IMAGES, jax.random.key(1), (8, 8, 1))


def jitted(function, *args):
    return jax.jit(function, static_argnums=0)(*args)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


# Goodfellow's step in float64 NumPy: G tanh-sigmoid, D maxout-maxout-linear.


def maxout(layer, x):
    p = (x @ layer["pieces"]["kernel"] + layer["pieces"]["bias"]).reshape(len(x), 2, -1)
    return p.max(axis=1), p.argmax(axis=1)


def maxout_back(layer, x, chosen, g):
    gp = np.zeros((len(x), 2, g.shape[1]))
    np.put_along_axis(gp, chosen[:, None], g[:, None], axis=1)
    gp = gp.reshape(len(x), -1)
    return {"pieces": {"kernel": x.T @ gp, "bias": gp.sum(axis=0)}}, gp @ layer["pieces"]["kernel"].T


def judge(d, x):
    h0, c0 = maxout(d["hidden0"], x)
    h1, c1 = maxout(d["hidden1"], h0)
    return (h1 @ d["output"]["kernel"] + d["output"]["bias"])[:, 0], (h0, c0, h1, c1)


def judge_back(d, x, kept, g):
    h0, c0, h1, c1 = kept
    g = g[:, None]
    grads = {"output": {"kernel": h1.T @ g, "bias": g.sum(axis=0)}}
    grads["hidden1"], g = maxout_back(d["hidden1"], h0, c1, g @ d["output"]["kernel"].T)
    grads["hidden0"], g = maxout_back(d["hidden0"], x, c0, g)
    return grads, g


def goodfellow(g, d, x, z):
    """Both gradients at the same parameters from one z batch: 0.5 * BCE for D, -log D(G(z)) for G."""
    h = np.tanh(z @ g["hidden0"]["kernel"] + g["hidden0"]["bias"])
    fake = sigmoid(h @ g["output"]["kernel"] + g["output"]["bias"])
    (r, kept_r), (f, kept_f) = judge(d, x), judge(d, fake)
    up, _ = judge_back(d, x, kept_r, 0.5 * (sigmoid(r) - 1) / B)
    down, _ = judge_back(d, fake, kept_f, 0.5 * sigmoid(f) / B)
    _, into = judge_back(d, fake, kept_f, (sigmoid(f) - 1) / B)
    into = into * fake * (1 - fake)
    dh = (into @ g["output"]["kernel"].T) * (1 - h**2)
    g_grads = {
        "hidden0": {"kernel": z.T @ dh, "bias": dh.sum(axis=0)},
        "output": {"kernel": h.T @ into, "bias": into.sum(axis=0)},
    }
    value = (np.log(sigmoid(r)) + np.log(1 - sigmoid(f))).mean()
    return g_grads, jax.tree.map(np.add, up, down), value


def test_two_steps_are_goodfellows_recipe(state):
    """v <- m v - lr g, m = .5, lr = .1 / 1.000004^t; one update of both from the same parameters."""
    g, d = (jax.tree.map(lambda p: np.asarray(p, np.float64), p.params) for p in (state.generator, state.discriminator))
    speed = jax.tree.map(np.zeros_like, (g, d))
    after = state
    for t in range(2):
        x = vectors(seed=t)["x"]
        z_key = jax.random.split(jax.random.key(50 + t), 4)[0]
        z = np.asarray(jax.random.uniform(z_key, (B, K), minval=-np.sqrt(3), maxval=np.sqrt(3)), np.float64)
        *grads, value = goodfellow(g, d, x, z)
        rate = 0.1 / 1.000004**t
        speed = jax.tree.map(lambda v, gr, rate=rate: 0.5 * v - rate * gr, speed, tuple(grads))
        (g, d) = jax.tree.map(np.add, (g, d), speed)
        after, metrics = gan.train_step(CONFIG, after, {"x": x}, jax.random.key(50 + t))
        np.testing.assert_allclose(metrics["value"], value, rtol=1e-4)
    chex.assert_trees_all_close(after.generator.params, g, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(after.discriminator.params, d, rtol=1e-4, atol=1e-6)


def test_dropout_in_the_discriminator_is_on_while_the_generator_trains(state):
    """no_drop_in_d_for_g=False: with the same z, D's dropout keys change G's gradient."""
    wet = config(discriminator=dataclasses.replace(MAXOUT, keep=(0.8, 0.5, 0.5)))
    (dry_g, _), _, _ = jitted(gan.gradients, CONFIG, state, vectors(), jax.random.key(2))
    (wet_g, _), _, _ = jitted(gan.gradients, wet, state, vectors(), jax.random.key(2))
    assert (dry_g["output"]["kernel"] != wet_g["output"]["kernel"]).any()


def test_a_step_is_radfords_recipe(image_state):
    """D then G against the updated D with a fresh z; Adam, beta1 .5, with L2 2.5e-5 in the gradient; statistics of

    the real and of the fake batch apart.
    """
    key, x = jax.random.key(8), images()["x"] / np.float32(255)
    first, second = jax.random.split(jax.random.clone(key))
    z = [jax.random.uniform(jax.random.split(k, 4)[0], (B, K), minval=-1, maxval=1) for k in (first, second)]
    g, d = image_state.generator, image_state.discriminator

    def make(params, z):
        variables = {"params": params, "batch_stats": g.batch_stats}
        return jax.nn.sigmoid(players.apply(IMAGES.generator, variables, z, (8, 8, 1), None, train=True)[0])

    def logits(params, x):
        variables = {"params": params, "batch_stats": d.batch_stats}
        return players.apply(IMAGES.discriminator, variables, x, None, train=True)[0][0]

    def d_loss(params):
        real, fake = jax.nn.sigmoid(logits(params, x)), jax.nn.sigmoid(logits(params, make(g.params, z[0])))
        return -jnp.log(real).mean() - jnp.log(1 - fake).mean()

    def adam(params, grads):
        def one(p, g):
            g = g + 2.5e-5 * p
            return p - 2e-4 * g / (np.abs(g) + 1e-8)  # both corrected moments of a first step

        return jax.tree.map(one, params, grads)

    d_after = adam(d.params, jax.jit(jax.grad(d_loss))(d.params))
    g_grads = jax.jit(jax.grad(lambda p: -jnp.log(jax.nn.sigmoid(logits(d_after, make(p, z[1])))).mean()))(g.params)
    after, _ = gan.train_step(IMAGES, image_state, images(), key)
    # Where a gradient is about 0 its sign is noise, and Adam's first step is that sign: compare the others.
    for found, expected, grads in (
        (after.discriminator.params, d_after, jax.jit(jax.grad(d_loss))(d.params)),
        (after.generator.params, adam(g.params, g_grads), g_grads),
    ):
        for a, b, gr in zip(*map(jax.tree.leaves, (found, expected, grads)), strict=True):
            sure = np.abs(gr) > 1e-4
            np.testing.assert_allclose(np.where(sure, a, 0), np.where(sure, b, 0), atol=4e-6)


def test_each_players_step_leaves_the_other_bit_identical(image_state):
    d_moved, d_metrics = jitted(gan.discriminator_step, IMAGES, image_state, images(), jax.random.key(3))
    g_moved, g_metrics = jitted(gan.generator_step, IMAGES, image_state, images(), jax.random.key(3))
    chex.assert_trees_all_equal(d_moved.generator, image_state.generator)
    chex.assert_trees_all_equal(g_moved.discriminator, image_state.discriminator)
    for moved, name in ((d_moved, "discriminator"), (g_moved, "generator")):
        for part in ("params", "batch_stats", "opt_state"):
            pairs = zip(*(jax.tree.leaves(getattr(getattr(s, name), part)) for s in (moved, image_state)), strict=True)
            assert any((a != b).any() for a, b in pairs), (name, part)
    assert "generator_loss" not in d_metrics
    assert set(g_metrics) == {"generator_loss", "generator_gradient_norm"}


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_the_direction_of_play(name, state):
    """D widens the gap E f(x) - E f(G(z)), G narrows it, each on the noise that it saw."""
    one = config(adversarial=name, generator_optimizer=SGD, discriminator_optimizer=SGD)
    start = gan.init(one, jax.random.key(1), (D,))
    batch, key = vectors(shift=0.3), jax.random.key(4)

    def outcome(state):
        *_, metrics = jitted(gan.gradients, one, state, batch, jax.random.clone(key))
        return {k: float(metrics[k]) for k in ("wasserstein", "discriminator_loss", "generator_loss")}

    before = outcome(start)
    after_d = outcome(jitted(gan.discriminator_step, one, start, batch, jax.random.clone(key))[0])
    after_g = outcome(jitted(gan.generator_step, one, start, batch, jax.random.clone(key))[0])
    assert after_d["discriminator_loss"] < before["discriminator_loss"]
    assert after_g["generator_loss"] < before["generator_loss"]
    assert after_g["wasserstein"] < before["wasserstein"]
    if name != "least_squares":  # whose D pulls the logits to 1 and 0, wherever they are
        assert after_d["wasserstein"] > before["wasserstein"]


def test_simultaneous_uses_the_old_discriminator_and_alternating_the_new(state):
    fast = config(discriminator_optimizer=dataclasses.replace(SGD, learning_rate=1.0))
    start = gan.init(fast, jax.random.key(1), (D,))
    key = jax.random.key(5)
    together, _ = gan.train_step(fast, start, vectors(), key)
    (g_gradient, _), _, _ = jitted(gan.gradients, fast, start, vectors(), jax.random.clone(key))
    moved = players.update(start.generator, fast.generator_optimizer, g_gradient)
    chex.assert_trees_all_close(together.generator.params, moved.params, rtol=1e-5, atol=1e-7)
    turns = dataclasses.replace(fast, update="alternating")
    in_turn, _ = gan.train_step(turns, start, vectors(), jax.random.clone(key))
    first, second = jax.random.split(jax.random.clone(key))
    by_hand, _ = jitted(gan.discriminator_step, turns, start, vectors(), first)
    by_hand, _ = jitted(gan.generator_step, turns, by_hand, vectors(), second)
    chex.assert_trees_all_close(in_turn.generator.params, by_hand.generator.params, rtol=1e-5, atol=1e-7)
    assert (in_turn.generator.params["output"]["kernel"] != together.generator.params["output"]["kernel"]).any()


@pytest.mark.parametrize("name", ["gradient_penalty", "r1", "r2", "dragan"])
def test_a_penalty_reaches_the_discriminator_alone_in_proportion(name, state):
    found = {}
    for weight in (0.0, 1.0, 3.0):
        found[weight] = jitted(gan.gradients, config(**{name: weight}), state, vectors(), jax.random.key(6))
    chex.assert_trees_all_equal(found[0.0][0], found[3.0][0])
    extra = [jax.tree.map(jnp.subtract, found[w][1][0], found[0.0][1][0]) for w in (1.0, 3.0)]
    chex.assert_trees_all_close(extra[1], jax.tree.map(lambda v: 3 * v, extra[0]), rtol=1e-3, atol=1e-6)
    assert float(players.gradient_norm(extra[0])) > 1e-6
    np.testing.assert_allclose(found[3.0][2]["penalty"], 3 * found[1.0][2]["penalty"], rtol=1e-5)
    assert "penalty" not in found[0.0][2]


def test_the_ema_is_the_formula_and_what_sample_uses():
    averaged = config(ema_decay=0.9)
    start = gan.init(averaged, jax.random.key(1), (D,))
    ema, state = start.generator.params, start
    for t in range(3):
        state, _ = gan.train_step(averaged, state, vectors(t), jax.random.key(60 + t))
        ema = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, ema, state.generator.params)
    chex.assert_trees_all_close(state.generator.ema, ema, rtol=1e-5)
    swapped = state.replace(generator=state.generator.replace(params=ema, ema=None))
    np.testing.assert_allclose(
        gan.sample(averaged, state, jax.random.key(2), 4),
        gan.sample(averaged, swapped, jax.random.key(2), 4),
        rtol=1e-5,
    )


@pytest.mark.parametrize("output", ["sigmoid", "tanh"])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_a_longer_sample_begins_with_the_shorter_one(image_state, output, statistics):
    one = dataclasses.replace(IMAGES, output=output, sampling_statistics=statistics)
    short, long = (gan.sample(one, image_state, jax.random.key(2), n) for n in (5, 3 * B + 1))
    chex.assert_shape(long, (3 * B + 1, 8, 8, 1))
    np.testing.assert_array_equal(short, long[:5])
    assert 0 <= long.min() < long.max() <= 1
    assert len(np.unique(np.asarray(long).reshape(len(long), -1), axis=0)) == len(long)


def test_batch_and_running_statistics_differ(image_state):
    one, two = (dataclasses.replace(IMAGES, sampling_statistics=s) for s in ("running", "batch"))
    a, b = (gan.sample(c, image_state, jax.random.key(2), B) for c in (one, two))
    assert abs(a - b).max() > 1e-4


def test_labels_are_honoured_or_refused(state):
    """A generator without hidden layers shows its input: sigmoid(W [z, y])."""
    linear = nets.MLPGenerator(hidden=(), kernel_init=nets.Normal(1.0))
    conditional = config(generator=linear, num_classes=4, output="linear")
    start = gan.init(conditional, jax.random.key(1), (D,))
    label = jnp.array([0, 3, 1, 1, 2])
    kernel = start.generator.params["output"]["kernel"]
    chex.assert_shape(kernel, (K + 4, D))
    assert kernel.shape[0] == start.discriminator.params["hidden0"]["pieces"]["kernel"].shape[0] + K - D
    found = gan.sample(conditional, start, jax.random.key(2), 5, label)
    other = gan.sample(conditional, start, jax.random.key(2), 5, jnp.zeros(5, jnp.int32))
    np.testing.assert_allclose(found - other, kernel[K:][label] - kernel[K : K + 1], atol=1e-5)
    with pytest.raises(ValueError, match="leave it out"):
        gan.sample(CONFIG, state, jax.random.key(2), 5, label)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        gan.sample(conditional, start, jax.random.key(2), 4, label)
    with pytest.raises(ValueError, match='no "label"'):
        gan.train_step(conditional, start, vectors(), jax.random.key(2))


def test_decode_standard_goes_through_the_priors_inverse_cdf():
    u = np.array([[0, 0], [1.3, -0.2], [9, -9]], np.float32)
    linear = nets.MLPGenerator(hidden=(), kernel_init=nets.Normal(1.0))
    for prior, z in (("uniform", 2 * (2 * stats.norm.cdf(u) - 1)), ("normal", 2 * u)):
        one = config(generator=linear, output="linear", prior=prior, prior_scale=2.0)
        start = gan.init(one, jax.random.key(1), (D,))
        expected = z @ np.asarray(start.generator.params["output"]["kernel"])
        np.testing.assert_allclose(gan.decode_standard(one, start, u), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_the_prior_has_its_law(prior):
    one = config(prior=prior, prior_scale=np.sqrt(3.0))
    z = np.asarray(gan.draw_latents(one, jax.random.key(3), 20_000)).ravel()
    law = stats.norm(scale=np.sqrt(3)) if prior == "normal" else stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))
    assert stats.kstest(z, law.cdf).pvalue > 1e-3


def test_discriminate_is_deterministic_and_names_its_layer(image_state):
    logits, features = gan.discriminate(IMAGES, image_state, images()["x"])
    chex.assert_shape(logits, (B,))
    chex.assert_shape(features, (B, 2, 2, 4))
    alone, _ = gan.discriminate(IMAGES, image_state, images()["x"][:1])
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-5)
    wet = config(discriminator=dataclasses.replace(MAXOUT, keep=(0.8, 0.5, 0.5)))
    start = gan.init(wet, jax.random.key(1), (D,))
    np.testing.assert_array_equal(*(gan.discriminate(wet, start, vectors()["x"])[0] for _ in range(2)))


def test_validate_is_the_discriminator_on_data_and_samples(state):
    values = gan.validate(CONFIG, state, vectors(), jax.random.key(3))
    real, _ = gan.discriminate(CONFIG, state, vectors()["x"])
    fake, _ = gan.discriminate(CONFIG, state, gan.sample(CONFIG, state, jax.random.key(3), B))
    np.testing.assert_allclose(values["d_real"], sigmoid(np.asarray(real)), rtol=1e-5)
    np.testing.assert_allclose(values["d_fake"], sigmoid(np.asarray(fake)), rtol=1e-5)
    np.testing.assert_allclose(values["wasserstein"], real - fake, rtol=1e-4, atol=1e-6)


def test_the_defaults_are_the_released_recipes():
    good, rad = gan.Config(), gan.dcgan()
    start = jax.eval_shape(lambda key: gan.init(good, key, (28, 28, 1)), jax.random.key(0))
    shapes = jax.tree.map(lambda a: a.shape, start.generator.params)
    assert [shapes[k]["kernel"] for k in ("hidden0", "hidden1", "output")] == [(100, 1200), (1200, 1200), (1200, 784)]
    assert start.discriminator.params["hidden0"]["pieces"]["kernel"].shape == (784, 1200)
    assert (good.prior, good.discriminator_weight, good.update, good.batch_size) == (
        "uniform",
        0.5,
        "simultaneous",
        100,
    )
    assert good.prior_scale == pytest.approx(np.sqrt(3))
    assert (rad.batch_size, rad.prior_scale, rad.sampling_statistics) == (128, 1.0, "batch")
    adam = rad.generator_optimizer
    assert (adam.rule, adam.learning_rate, adam.momentum, adam.l2) == ("adam", 2e-4, 0.5, 2.5e-5)
    assert gan.dcgan(conditional=True).num_classes == 10


def test_the_output_bias_is_the_logit_of_the_pixel_means():
    mean = np.array([0.1, 0.5, 0.9], np.float32)
    with_mean, without = (gan.init(CONFIG, jax.random.key(1), (D,), data_mean=m) for m in (mean, None))
    np.testing.assert_allclose(with_mean.generator.params["output"]["bias"], np.log(mean / (1 - mean)), rtol=1e-5)
    np.testing.assert_array_equal(without.generator.params["output"]["bias"], 0)


def test_momentum_moves_once_an_epoch_of_dataset_size():
    """Ten steps are one epoch of 60 examples in batches of 6, and ten epochs of 6."""
    rule = Optimizer(rule="sgd", learning_rate=0.1, momentum=0.0, final_momentum=0.9, momentum_from=1, momentum_to=3)
    after = {}
    for size in (60, 6):
        one = config(generator_optimizer=rule, discriminator_optimizer=rule, dataset_size=size)
        state = gan.init(one, jax.random.key(1), (D,))
        for t in range(2):
            state, _ = gan.train_step(one, state, vectors(t), jax.random.key(70 + t))
        after[size] = state.generator.params["output"]["kernel"]
    plain = config(generator_optimizer=dataclasses.replace(rule, final_momentum=None), discriminator_optimizer=rule)
    state = gan.init(plain, jax.random.key(1), (D,))
    for t in range(2):
        state, _ = gan.train_step(plain, state, vectors(t), jax.random.key(70 + t))
    np.testing.assert_allclose(after[60], state.generator.params["output"]["kernel"], rtol=1e-5)
    assert abs(after[6] - after[60]).max() > 1e-5


def test_jit_equals_no_jit_and_bytes_equal_floats(state, image_state):
    compiled = gan.train_step(CONFIG, state, vectors(), jax.random.key(9))
    with jax.disable_jit():
        plain = gan.train_step(CONFIG, state, vectors(), jax.random.key(9))
    chex.assert_trees_all_close(compiled, plain, rtol=1e-4, atol=1e-6)
    floats = {"x": images()["x"] / np.float32(255)}
    one, two = (gan.train_step(IMAGES, image_state, batch, jax.random.key(9)) for batch in (images(), floats))
    chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-6)


def test_vectors_move_to_the_data():
    x = np.random.default_rng(2).normal((3.0, -2.0), 0.5, (2000, 2)).astype(np.float32)
    run = fit.fit(gan, gan.vectors(2), x, steps=500, progress=False)
    samples = gan.sample(run.config, run.state(0), jax.random.key(1), 1000)
    assert np.linalg.norm(np.asarray(samples).mean(axis=0) - [3, -2]) < 1.0


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((B, D + 1), np.float32), r"\(6, 4\): \[B, 3\] is expected"),
        (np.zeros((0, D), np.float32), "empty"),
        (np.zeros((B, D), np.int32), "int32"),
    ],
)
def test_bad_batches_get_a_sentence(state, x, sentence):
    with pytest.raises(ValueError, match=sentence):
        gan.train_step(CONFIG, state, {"x": x}, jax.random.key(0))


@pytest.mark.parametrize("bad", [{"latents": 0}, {"prior_scale": 0.0}, {"ema_decay": -0.1}, {"num_classes": -1}])
def test_bad_configs_get_a_sentence(bad):
    with pytest.raises(ValueError, match="give"):
        config(**bad)
