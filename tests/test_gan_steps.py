"""GAN, one step at a time: Radford's recipe against independent code, who moves and which way, penalties, metrics."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import adversarial, gan, losses, nets
from vaegan_jax.optimizer import Optimizer

D, K, B = 3, 2, 6
GENERATOR = nets.MLPGenerator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Normal(0.6))
MAXOUT = nets.MaxoutDiscriminator(hidden=(4, 3), pieces=2, keep=(1.0, 1.0, 1.0), kernel_init=nets.Normal(0.6))
SMOOTH = nets.MLPDiscriminator(hidden=(5,), activation=jnp.tanh, kernel_init=nets.Normal(0.6))
CONFIG = gan.Config(latents=K, generator=GENERATOR, discriminator=MAXOUT, batch_size=B)  # Goodfellow's, small
SGD = Optimizer(rule="sgd", learning_rate=1e-3, momentum=0.0)
# Radford's, small; its L2 of 2.5e-5 would be below the tolerance.
ADAM = dataclasses.replace(gan.dcgan().generator_optimizer, l2=0.5)
IMAGES = gan.Config(
    latents=K,
    prior_scale=1.0,
    generator=nets.ConvGenerator(channels=(4, 3), hidden=(6,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    discriminator=nets.ConvDiscriminator(channels=(3, 4), hidden=(5,), kernel=(3, 3), kernel_init=nets.Normal(0.2)),
    discriminator_weight=1.0,
    update="alternating",
    generator_optimizer=ADAM,
    discriminator_optimizer=ADAM,
    batch_size=B,
)
GRADIENTS, DISCRIMINATOR_STEP, GENERATOR_STEP = (
    jax.jit(f, static_argnums=0)
    for f in (adversarial.gradients, adversarial.discriminator_step, adversarial.generator_step)
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


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def moved(old, new):
    return any((a != b).any() for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))


def test_three_steps_are_radfords_recipe(image_state):
    """D, then G against the updated D with a fresh z; statistics of the real and of the fake batch apart;

    Adam 2e-4 with beta1 .5 and l2 * parameter added to the gradient (NumPy, float64).
    """

    def make(g, z):
        out, _ = IMAGES.generator.apply(g, z, (8, 8, 1), None, train=True, mutable=["batch_stats"])
        return jax.nn.sigmoid(out)

    def probability(d, x):
        return jax.nn.sigmoid(IMAGES.discriminator.apply(d, x, None, train=True, mutable=["batch_stats"])[0][0])

    @jax.jit
    def d_slope(d, g, x, z):
        def loss(params):
            real, fake = (probability({**d, "params": params}, v) for v in (x, make(g, z)))
            return -jnp.log(real).mean() - jnp.log(1 - fake).mean()

        return jax.grad(loss)(d["params"])

    @jax.jit
    def g_slope(g, d, z):
        return jax.grad(lambda params: -jnp.log(probability(d, make({**g, "params": params}, z))).mean())(g["params"])

    def adam(params, slope, m, v, t):
        slope = jax.tree.map(lambda s, p: s + 0.5 * p, double(slope), params)
        m = jax.tree.map(lambda m, s: 0.5 * m + 0.5 * s, m, slope)
        v = jax.tree.map(lambda v, s: 0.999 * v + 0.001 * s**2, v, slope)
        size = jax.tree.map(lambda v: np.sqrt(v / (1 - 0.999**t)), v)
        step = jax.tree.map(lambda m, s: 2e-4 * m / (1 - 0.5**t) / (s + 1e-8), m, size)
        return jax.tree.map(np.subtract, params, step), m, v, size

    def close(found, expected, size):
        # Where every gradient was about 0 its sign is rounding, and so is Adam's step: leave those out.
        found, expected, size = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(double(tree))])
            for tree in (found, expected, size)
        )
        sure = size > 1e-3
        assert sure.mean() > 0.9
        np.testing.assert_allclose(found[sure], expected[sure], rtol=0, atol=2e-6)  # of steps of 2e-4

    state = image_state
    d_moments, g_moments = (
        [jax.tree.map(np.zeros_like, double(player.params))] * 2 for player in (state.discriminator, state.generator)
    )
    for t in (1, 2, 3):
        first, second = jax.random.split(jax.random.key(80 + t))
        z = [jax.random.uniform(jax.random.split(k, 4)[0], (B, K), minval=-1, maxval=1) for k in (first, second)]
        d, g = state.discriminator.variables(), state.generator.variables()
        slope = d_slope(d, g, images(t)["x"] / np.float32(255), z[0])
        d_after, *d_moments, d_size = adam(double(d["params"]), slope, *d_moments, t)
        new_d = {**d, "params": jax.tree.map(jnp.float32, d_after)}
        g_after, *g_moments, g_size = adam(double(g["params"]), g_slope(g, new_d, z[1]), *g_moments, t)
        state, _ = gan.train_step(IMAGES, state, images(t), jax.random.key(80 + t))
        close(state.discriminator.params, d_after, d_size)
        close(state.generator.params, g_after, g_size)


def test_each_players_step_leaves_the_other_bit_identical(image_state):
    d_moved, d_metrics = DISCRIMINATOR_STEP(IMAGES, image_state, images(), jax.random.key(3))
    g_moved, g_metrics = GENERATOR_STEP(IMAGES, image_state, images(), jax.random.key(3))
    chex.assert_trees_all_equal(d_moved.generator, image_state.generator)
    chex.assert_trees_all_equal(g_moved.discriminator, image_state.discriminator)
    for part in ("params", "batch_stats", "opt_state"):
        assert moved(getattr(image_state.discriminator, part), getattr(d_moved.discriminator, part)), part
        assert moved(getattr(image_state.generator, part), getattr(g_moved.generator, part)), part
    assert int(d_moved.step) == int(g_moved.step) == 0
    assert "generator_loss" not in d_metrics
    assert set(g_metrics) == {"generator_loss", "generator_gradient_norm"}


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_the_discriminator_widens_the_gap_and_the_generator_narrows_it(name):
    """The gap is E f(x) - E f(G(z)), each on the noise that the step saw.

    D starts small, as in the papers: where all its logits are off on one side, a cross-entropy moves both alike first.
    """
    small, rule = (
        dataclasses.replace(SMOOTH, kernel_init=nets.Normal(0.1)),
        dataclasses.replace(SGD, learning_rate=0.05),
    )
    one = config(discriminator=small, adversarial=name, generator_optimizer=rule, discriminator_optimizer=rule)
    start = gan.init(one, jax.random.key(1), (D,))
    if name == "least_squares":  # its targets are 1 and 0, so halfway is what 0 is to the others
        start.discriminator.params["output"]["bias"] += 0.5

    @jax.jit
    def play(state, batch, key):
        def outcome(state):
            *_, m = adversarial.gradients(one, state, batch, jax.random.clone(key))
            return {k: m[k] for k in ("wasserstein", "discriminator_loss", "generator_loss")}

        d_step = adversarial.discriminator_step(one, state, batch, jax.random.clone(key))[0]
        g_step = adversarial.generator_step(one, state, batch, jax.random.clone(key))[0]
        return outcome(state), outcome(d_step), outcome(g_step)

    before, after_d, after_g = play(start, vectors(shift=0.3), jax.random.key(4))
    assert after_d["discriminator_loss"] < before["discriminator_loss"]
    assert after_d["wasserstein"] > before["wasserstein"]
    assert after_g["generator_loss"] < before["generator_loss"]
    assert after_g["wasserstein"] < before["wasserstein"]


def test_simultaneous_uses_the_old_discriminator_and_alternating_the_new():
    """sgd without momentum, so that a generator's step is -0.001 times its gradient: at which D, and which z?"""
    together = config(
        discriminator=SMOOTH,
        generator_optimizer=SGD,
        discriminator_optimizer=dataclasses.replace(SGD, learning_rate=1.0),
    )
    turns = dataclasses.replace(together, update="alternating")
    start = gan.init(together, jax.random.key(1), (D,))
    batch, key = vectors(), jax.random.key(5)
    first, second = jax.random.split(jax.random.clone(key))

    def expected(state, key):
        gradient = GRADIENTS(together, state, batch, jax.random.clone(key))[0][0]
        return jax.tree.map(lambda p, g: p - 1e-3 * g, state.generator.params, gradient)

    found, _ = gan.train_step(together, start, batch, jax.random.clone(key))
    chex.assert_trees_all_close(found.generator.params, expected(start, key), rtol=0, atol=1e-7)
    found, metrics = gan.train_step(turns, start, batch, jax.random.clone(key))
    d_gradient = GRADIENTS(together, start, batch, jax.random.clone(first))[1][0]
    d_params = jax.tree.map(jnp.subtract, start.discriminator.params, d_gradient)
    chex.assert_trees_all_close(found.discriminator.params, d_params, rtol=1e-5, atol=1e-6)
    at_new = start.replace(discriminator=start.discriminator.replace(params=d_params))
    chex.assert_trees_all_close(found.generator.params, expected(at_new, second), rtol=0, atol=1e-7)
    for state, key in ((start, second), (at_new, first)):  # the old D; the old z
        other = expected(state, key)["output"]["kernel"]
        assert abs(found.generator.params["output"]["kernel"] - other).max() > 1e-6
    assert {"discriminator_loss", "generator_loss", "generator_gradient_norm"} <= set(metrics)
    assert int(found.step) == 1


@pytest.mark.parametrize("name", ["gradient_penalty", "r1", "r2", "dragan"])
def test_a_penalty_adds_coefficient_times_its_gradient_to_the_discriminator_alone(name):
    plain = config(discriminator=SMOOTH)
    start = gan.init(plain, jax.random.key(1), (D,))
    x, key = vectors()["x"], jax.random.key(6)
    with_penalty = dataclasses.replace(plain, dragan_scale=0.7, **{name: 3.0})
    g_plain, (d_plain, _), without = GRADIENTS(plain, start, {"x": x}, jax.random.clone(key))
    g_found, (d_found, _), metrics = GRADIENTS(with_penalty, start, {"x": x}, jax.random.clone(key))

    z_key, *_, penalty_key = jax.random.split(key, 4)
    weight_key, noise_key, _ = jax.random.split(penalty_key, 3)
    z = jax.random.uniform(z_key, (B, K), minval=-np.sqrt(3), maxval=np.sqrt(3))
    fake = jax.nn.sigmoid(GENERATOR.apply(start.generator.variables(), z, (D,)))
    e = jax.random.uniform(weight_key, (B,))[:, None]
    noisy = x + 0.7 * jax.random.normal(noise_key, (B, D))
    at = {"gradient_penalty": e * x + (1 - e) * fake, "r1": x, "r2": fake, "dragan": noisy}[name]

    @jax.jit
    def penalty(params):
        def one(x):
            h = jnp.tanh(x @ params["hidden0"]["kernel"] + params["hidden0"]["bias"])
            return (h @ params["output"]["kernel"])[0]

        squared = (jax.vmap(jax.grad(one))(at) ** 2).sum(axis=1)
        return 3 * (squared if name in ("r1", "r2") else (jnp.sqrt(squared) - 1) ** 2).mean()

    value, slope = jax.value_and_grad(penalty)(start.discriminator.params)
    np.testing.assert_allclose(metrics["penalty"], value, rtol=1e-5)
    extra = jax.tree.map(jnp.subtract, d_found, d_plain)
    chex.assert_trees_all_close(extra, slope, rtol=1e-4, atol=1e-6)
    assert abs(extra["hidden0"]["kernel"]).max() > 1e-2
    chex.assert_trees_all_equal(g_found, g_plain)
    np.testing.assert_allclose(metrics["discriminator_loss"], without["discriminator_loss"], rtol=1e-6)
    assert "penalty" not in without


def identity(x):
    return x


@pytest.mark.parametrize("loss", ["non_saturating", "wasserstein"])
def test_metrics_of_a_linear_discriminator_are_closed_form(loss):
    """f(x) = 2 x_0 - x_1 + .5 x_2 + .3, G(z) = z W: every number by hand; `value` is V(D, G) whatever the loss."""
    one = config(
        generator=nets.MLPGenerator(hidden=(), kernel_init=nets.Normal(1.0)),
        discriminator=nets.MLPDiscriminator(hidden=(1,), activation=identity),
        output="linear",
        adversarial=loss,
    )
    start = gan.init(one, jax.random.key(1), (D,))
    w = np.array([2.0, -1.0, 0.5])
    d = {
        "hidden0": {"kernel": jnp.float32(w)[:, None], "bias": jnp.zeros(1)},
        "output": {"kernel": jnp.ones((1, 1)), "bias": jnp.float32([0.3])},
    }
    start = start.replace(discriminator=start.discriminator.replace(params=d))
    x, key = np.random.default_rng(1).normal(size=(B, D)), jax.random.key(7)
    batch = {"x": np.float32(x)}
    (g_gradient, _), (d_gradient, _), metrics = GRADIENTS(one, start, batch, jax.random.clone(key))
    z = np.float64(adversarial.draw_latents(one, jax.random.split(key, 4)[0], B))
    r, f = x @ w + 0.3, z @ np.float64(start.generator.params["output"]["kernel"]) @ w + 0.3
    cross_entropy = np.log1p(np.exp(-r)).mean() + np.log1p(np.exp(f)).mean()
    expected = {
        "value": -cross_entropy,
        "d_real": sigmoid(r).mean(),
        "d_fake": sigmoid(f).mean(),
        "wasserstein": r.mean() - f.mean(),
    }
    if loss == "wasserstein":
        expected |= {"discriminator_loss": 0.5 * (f.mean() - r.mean()), "generator_loss": -f.mean()}
        slope = -z.mean(axis=0)[:, None] * w
        expected["generator_gradient_norm"] = np.sqrt((slope**2).sum() + (w**2).sum())
    else:
        expected |= {"discriminator_loss": 0.5 * cross_entropy, "generator_loss": np.log1p(np.exp(-f)).mean()}
        expected["generator_gradient_norm"] = np.sqrt(sum((v**2).sum() for v in jax.tree.leaves(double(g_gradient))))
    expected["discriminator_gradient_norm"] = np.sqrt(sum((v**2).sum() for v in jax.tree.leaves(double(d_gradient))))
    chex.assert_trees_all_close(double(metrics), expected, rtol=1e-4)


@pytest.mark.parametrize(("examples", "momentum"), [(60, 0.2), (11, 0.5), (5, 0.5)])
def test_momentum_moves_once_in_dataset_size_by_batch_size_updates(examples, momentum):
    """Batches of 6: 10 updates, or 1, are an epoch; the second update is in epoch 1, or 2, of .2 -> .8 over 1..3."""
    rule = Optimizer(rule="sgd", learning_rate=0.1, momentum=0.2, final_momentum=0.8, momentum_from=1, momentum_to=3)
    one = config(discriminator=SMOOTH, generator_optimizer=rule, discriminator_optimizer=rule, dataset_size=examples)
    before = gan.init(one, jax.random.key(1), (D,))
    middle, _ = gan.train_step(one, before, vectors(0), jax.random.key(70))
    after, _ = gan.train_step(one, middle, vectors(1), jax.random.key(71))
    (g_gradient, _), (d_gradient, _), _ = GRADIENTS(one, middle, vectors(1), jax.random.key(71))
    for name, gradient in (("generator", g_gradient), ("discriminator", d_gradient)):
        a, b, c = (getattr(s, name).params for s in (before, middle, after))
        expected = jax.tree.map(lambda a, b, g: b + momentum * (b - a) - 0.1 * g, a, b, gradient)
        chex.assert_trees_all_close(c, expected, rtol=0, atol=1e-6)
        assert abs(b["output"]["kernel"] - a["output"]["kernel"]).max() > 1e-3  # .2 and .5 are told apart


def test_jit_equals_no_jit(state):
    compiled = gan.train_step(CONFIG, state, vectors(), jax.random.key(9))
    with jax.disable_jit():
        plain = gan.train_step(CONFIG, state, vectors(), jax.random.key(9))
    chex.assert_trees_all_close(compiled, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("output", "ends"), [("sigmoid", [0.0, 1.0]), ("tanh", [-1.0, 1.0])])
def test_bytes_and_bytes_by_255_give_the_same_step(output, ends):
    one = config(discriminator=SMOOTH, output=output)
    start = gan.init(one, jax.random.key(1), (2, 2, 1))
    x = np.random.default_rng(0).integers(0, 256, (B, 2, 2, 1), np.uint8)
    as_bytes, as_floats = (gan.train_step(one, start, {"x": v}, jax.random.key(9)) for v in (x, x / np.float32(255)))
    chex.assert_trees_all_close(as_bytes, as_floats, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(adversarial.from_unit(one, jnp.uint8([0, 255])), ends)
