"""WGAN: algorithm 1 against NumPy, the box, fresh batches and noises, warm-up, penalty, the direction of play."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import adversarial, fit, nets, wgan
from vaegan_jax.optimizer import Optimizer

D, K, B = 3, 2, 5


# Some of the critic's kernels start outside the box of .01, some inside.
NETS = {
    "generator": nets.MLPGenerator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Normal(0.5)),
    "discriminator": nets.MLPDiscriminator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Uniform(0.013)),
}
CONFIG = wgan.Config(latents=K, output="linear", n_critic=2, batch_size=B, **NETS)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def points(n=2, seed=0, shift=0.0):
    return {"x": (np.random.default_rng(seed).normal(size=(n, B, D)) + shift).astype(np.float32)}


@pytest.fixture(scope="module")
def state():
    return wgan.init(CONFIG, jax.random.key(1), (D,))


critic_step = jax.jit(wgan.critic_step, static_argnums=0)
generator_step = jax.jit(adversarial.generator_step, static_argnums=0)


def float64(tree):
    return jax.tree.map(lambda p: np.asarray(p, np.float64), tree)


def differ(a, b):
    return any((p != q).any() for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def latents(key):
    """z of a step with this key: the first of its four."""
    return np.asarray(jax.random.normal(jax.random.split(key, 4)[0], (B, K)))


# Both nets of algorithm 1 in float64 NumPy: one tanh layer each.


def forward(net, x):
    h = np.tanh(x @ net["hidden0"]["kernel"] + net["hidden0"]["bias"])
    return h, h @ net["output"]["kernel"] + net["output"]["bias"]


def backward(net, x, h, g):
    """Gradients of sum(g * output) in the parameters and in x."""
    dh = (g @ net["output"]["kernel"].T) * (1 - h**2)
    grads = {
        "hidden0": {"kernel": x.T @ dh, "bias": dh.sum(axis=0)},
        "output": {"kernel": h.T @ g, "bias": g.sum(axis=0)},
    }
    return grads, dh @ net["hidden0"]["kernel"].T


def rmsprop(net, average, grads):
    average = jax.tree.map(lambda a, g: 0.99 * a + 0.01 * g**2, average, grads)
    return jax.tree.map(lambda p, a, g: p - 5e-5 * g / (np.sqrt(a) + 1e-8), net, average, grads), average


def test_a_step_is_algorithm_1(state):
    f, g = float64(state.discriminator.params), float64(state.generator.params)
    batch, key = points(), jax.random.key(5)
    critic_key, generator_key = jax.random.split(jax.random.clone(key))
    average, gaps = jax.tree.map(np.zeros_like, f), []
    for x, one in zip(batch["x"], jax.random.split(critic_key, 2), strict=True):
        fake = forward(g, latents(one))[1]
        (hr, r), (hf, s) = forward(f, x), forward(f, fake)
        gaps.append((r - s).mean())
        up, down = backward(f, x, hr, np.full((B, 1), -1 / B))[0], backward(f, fake, hf, np.full((B, 1), 1 / B))[0]
        f, average = rmsprop(f, average, jax.tree.map(np.add, up, down))
        f = jax.tree.map(lambda p: np.clip(p, -0.01, 0.01), f)
    z = latents(generator_key)
    h, fake = forward(g, z)
    hf, s = forward(f, fake)
    into = backward(f, fake, hf, np.full((B, 1), -1 / B))[1]
    g, _ = rmsprop(g, jax.tree.map(np.zeros_like, g), backward(g, z, h, into)[0])
    on_the_wall = np.abs(f["hidden0"]["kernel"]) == 0.01
    assert on_the_wall.any() and not on_the_wall.all()

    after, metrics = wgan.train_step(CONFIG, state, batch, key)
    # A first step is 5e-4; gradients of biases nearly cancel between real and fake, in float32.
    chex.assert_trees_all_close(float64(after.discriminator.params), f, rtol=1e-4, atol=5e-6)
    chex.assert_trees_all_close(float64(after.generator.params), g, rtol=1e-4, atol=5e-6)
    np.testing.assert_allclose(metrics["wasserstein"], np.mean(gaps), rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(metrics["critic_loss"], -np.mean(gaps), rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(metrics["generator_loss"], -s.mean(), rtol=1e-3)
    assert set(metrics) == {
        "wasserstein", "critic_loss", "critic_gradient_norm",
        "generator_loss", "generator_gradient_norm", "generator_updated",
    }  # fmt: skip
    assert (int(after.step), int(after.generator_steps), int(after.critic_steps)) == (1, 1, 0)


def test_the_defaults_are_the_papers_and_the_presets_gulrajanis():
    rmsprop, adam = Optimizer("rmsprop", 5e-5, momentum=0.0, b2=0.99), Optimizer("adam", 1e-4, momentum=0.5, b2=0.9)
    for preset, clip, coefficient, size, optimizer in (
        (wgan.Config(), 0.01, 0.0, 64, rmsprop),
        (wgan.gradient_penalty(), None, 10.0, 50, adam),
        (wgan.vectors(2), None, 0.1, 64, adam),
    ):
        assert (preset.clip, preset.gradient_penalty, preset.batch_size) == (clip, coefficient, size)
        assert preset.generator_optimizer == preset.discriminator_optimizer == optimizer
        assert preset.n_critic == preset.batches_per_step == 5 and not preset.warmup


def test_every_critic_parameter_is_in_the_box_after_each_critic_step():
    """Gains of batch normalisation too, which start near 1; at a rate that would leave the box in one step."""
    fast = Optimizer("rmsprop", 0.1, momentum=0.0, b2=0.99)
    critic = nets.ConvDiscriminator(channels=(2,), hidden=(3,), kernel=(3, 3), output_bias=True, feature_layer="conv0")
    images = config(discriminator=critic, output="sigmoid", discriminator_optimizer=fast)
    before = wgan.init(images, jax.random.key(0), (8, 8, 1))
    gains = [v for path, v in jax.tree.leaves_with_path(before.discriminator.params) if "scale" in str(path)]
    assert gains[0].min() > 0.5
    x = np.random.default_rng(0).integers(0, 256, (2, B, 8, 8, 1), np.uint8)
    once, _ = critic_step(images, before, {"x": x[0]}, jax.random.key(1))
    twice, _ = critic_step(images, once, {"x": x[1]}, jax.random.key(2))
    stepped, _ = wgan.train_step(images, before, {"x": x}, jax.random.key(3))
    for after in (once, twice, stepped):
        for p in jax.tree.leaves(after.discriminator.params):
            assert np.isfinite(p).all() and np.abs(p).max() <= np.float32(0.01)
        assert max(np.abs(p).max() for p in jax.tree.leaves(after.generator.params)) > 0.1  # the critic's box alone


@pytest.mark.parametrize("classes", [0, 3])
def test_the_critic_takes_its_n_batches_one_by_one_with_noises_of_their_own(classes):
    """The same batch three times: equal to three single steps under three keys, not to three under one key."""
    both = config(n_critic=3, num_classes=classes)
    start = wgan.init(both, jax.random.key(1), (D,))
    one = {"x": points(1)["x"][0]} | ({"label": np.arange(B, dtype=np.int32) % classes} if classes else {})
    critic_key, generator_key = jax.random.split(jax.random.key(6))
    keys = list(jax.random.split(critic_key, 3))

    def by_hand(order):
        state, gaps = start, []
        for i in order:
            state, metrics = critic_step(both, state, one, jax.random.clone(keys[i]))
            gaps.append(float(metrics["wasserstein"]))
        return state, gaps

    expected, gaps = by_hand((0, 1, 2))
    critic_of_one_noise = by_hand((0, 0, 0))[0].discriminator.params
    assert len(set(gaps)) == 3
    expected, _ = generator_step(both, expected, one, generator_key)
    repeated = {name: np.repeat(v[None], 3, axis=0) for name, v in one.items()}
    after, metrics = wgan.train_step(both, start, repeated, jax.random.key(6))
    chex.assert_trees_all_close(after.discriminator, expected.discriminator, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(after.generator, expected.generator, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["wasserstein"], np.mean(gaps), rtol=1e-4)
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.discriminator.params, critic_of_one_noise)
    assert max(jax.tree.leaves(gap)) > 1e-5


def test_every_batch_counts():
    three = config(n_critic=3)
    state, batch = wgan.init(three, jax.random.key(1), (D,)), points(3)
    base, _ = wgan.train_step(three, state, batch, jax.random.key(3))
    for j in range(3):
        other = {"x": batch["x"] + np.float32(np.arange(3) == j)[:, None, None]}
        after, _ = wgan.train_step(three, state, other, jax.random.key(3))
        assert differ(after.discriminator.params, base.discriminator.params), j


def test_the_critic_raises_the_gap_and_the_generator_lowers_it():
    """The sign bug of a popular repository. A small step of gradient descent moves the gap by rate * |gradient|^2."""
    critic = dataclasses.replace(NETS["discriminator"], kernel_init=nets.Uniform(0.008))
    slow, quick = (Optimizer("sgd", rate, momentum=0.0) for rate in (0.01, 1.0))
    small = config(discriminator=critic, discriminator_optimizer=slow, generator_optimizer=quick)
    start = wgan.init(small, jax.random.key(1), (D,))
    x = points(1, shift=2.0)["x"][0]
    z = latents(jax.random.key(4))

    def gap(state):
        f, g = float64(state.discriminator.params), float64(state.generator.params)
        return (forward(f, x)[1] - forward(f, forward(g, z)[1])[1]).mean()

    moved, metrics = critic_step(small, start, {"x": x}, jax.random.key(4))
    assert max(np.abs(p).max() for p in jax.tree.leaves(moved.discriminator.params)) < 0.01, "no clip in the way"
    np.testing.assert_allclose(gap(moved) - gap(start), 0.01 * metrics["critic_gradient_norm"] ** 2, rtol=0.05)
    chex.assert_trees_all_equal(moved.generator, start.generator)
    moved, metrics = generator_step(small, start, {"x": x}, jax.random.key(4))
    np.testing.assert_allclose(gap(moved) - gap(start), -1.0 * metrics["generator_gradient_norm"] ** 2, rtol=0.05)
    chex.assert_trees_all_equal(moved.discriminator, start.discriminator)


def updates(config, state, n):
    """At which of n steps the generator moved, by its parameters; a waiting one is bit-identical."""
    moved = []
    for i in range(n):
        after, metrics = wgan.train_step(config, state, points(config.n_critic, seed=i), jax.random.key(100 + i))
        assert differ(after.discriminator.params, state.discriminator.params), "the critic never waits"
        moved.append(differ(after.generator.params, state.generator.params))
        assert metrics["generator_updated"] == float(moved[-1])
        if not moved[-1]:
            chex.assert_trees_all_equal(after.generator, state.generator)
        assert int(after.step) == int(state.step) + 1
        state = after
    return moved, state


def test_under_warm_up_the_first_25_generator_steps_come_after_100_critic_steps_each():
    warm = config(warmup=True, n_critic=50, ema_decay=0.9)
    moved, after = updates(warm, wgan.init(warm, jax.random.key(1), (D,)), 53)
    assert moved == [False, True] * 25 + [True] * 3
    assert (int(after.generator_steps), int(after.critic_steps)) == (28, 0)


def test_under_warm_up_every_500th_generator_step_comes_after_100_critic_steps():
    warm = config(warmup=True, n_critic=40)  # 40, 80, 120
    start = wgan.init(warm, jax.random.key(1), (D,)).replace(generator_steps=jnp.int32(499))
    moved, after = updates(warm, start, 6)
    assert moved == [True, False, False, True, True, True]
    assert int(after.generator_steps) == 503
    assert updates(config(n_critic=40), start.replace(generator_steps=jnp.int32(0)), 2)[0] == [True, True]


def test_with_the_penalty_the_critic_descends_both_terms_and_is_not_clipped():
    """Gulrajani et al., eq. 3, written out for single examples."""
    critic = dataclasses.replace(NETS["discriminator"], kernel_init=nets.Normal(0.7))
    sgd = Optimizer("sgd", 0.1, momentum=0.0)
    penalised = config(discriminator=critic, clip=None, gradient_penalty=3.0, discriminator_optimizer=sgd)
    state = wgan.init(penalised, jax.random.key(2), (D,))
    x = points(1)["x"][0]
    latent_key, _, _, penalty_key = jax.random.split(jax.random.key(8), 4)
    e = jax.random.uniform(jax.random.split(penalty_key, 3)[0], (B,))[:, None]
    fake = NETS["generator"].apply({"params": state.generator.params}, jax.random.normal(latent_key, (B, K)), (D,))

    def f(params, x):
        return critic.apply({"params": params}, x[None])[0][0]

    def loss(params):
        slopes = jax.vmap(lambda x: jnp.sqrt((jax.grad(f, 1)(params, x) ** 2).sum()))(e * x + (1 - e) * fake)
        penalty = 3.0 * ((slopes - 1) ** 2).mean()
        of = jax.vmap(lambda x: f(params, x))
        return (of(fake) - of(x)).mean() + penalty, penalty

    gradient, penalty = jax.jit(jax.grad(loss, has_aux=True))(state.discriminator.params)
    after, metrics = critic_step(penalised, state, {"x": x}, jax.random.key(8))
    np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-4)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.discriminator.params, gradient)
    chex.assert_trees_all_close(after.discriminator.params, expected, rtol=1e-4, atol=1e-5)
    assert max(np.abs(p).max() for p in jax.tree.leaves(after.discriminator.params)) > 0.1


def test_the_trained_critics_estimate_is_proportional_to_the_shift():
    """W(theta) = |theta| between N(0, 1) and N(theta, 1); the clipped critic finds K times that."""
    fast = Optimizer("rmsprop", 1e-3, momentum=0.0, b2=0.99)
    still = Optimizer("sgd", 1e-30, momentum=0.0)
    one = config(
        latents=1, generator=nets.MLPGenerator(hidden=(), kernel_init=nets.Constant(1.0)),  # g(z) = z
        discriminator=nets.MLPDiscriminator(hidden=(8,), activation=jnp.tanh), n_critic=300, clip=0.1,
        generator_optimizer=still, discriminator_optimizer=fast,
    )  # fmt: skip
    noise = np.random.default_rng(0).normal(size=(300, 64, 1)).astype(np.float32)
    thetas, estimates = np.array([-2.0, -0.5, 0.0, 1.0, 2.0], np.float32), []
    many = np.random.default_rng(1).normal(size=(5000, 1)).astype(np.float32)
    for i, theta in enumerate(thetas):
        state = wgan.init(one, jax.random.key(1), (1,))
        state, _ = wgan.train_step(one, state, {"x": noise + theta}, jax.random.key(10 + i))
        real, fake = (wgan.discriminate(one, state, v)[0] for v in (many + theta, many))
        estimates.append(float((real - fake).mean()))
    slope = np.dot(np.abs(thetas), estimates) / np.dot(thetas, thetas)
    assert slope > 0.05  # of at most K = 8 * .1 * .1
    np.testing.assert_allclose(estimates, slope * np.abs(thetas), atol=0.1 * slope)


def test_jit_equals_no_jit(state):
    compiled = wgan.train_step(CONFIG, state, points(), jax.random.key(9))
    with jax.disable_jit():
        plain = wgan.train_step(CONFIG, state, points(), jax.random.key(9))
    # RMSprop divides a small gradient by its own size, rounding included; a step moves parameters by 5e-4.
    chex.assert_trees_all_close(compiled, plain, rtol=1e-4, atol=5e-6)


def test_the_average_follows_the_generator_and_is_what_sample_shows():
    averaged = config(ema_decay=0.75)
    start = wgan.init(averaged, jax.random.key(1), (D,))
    after, _ = wgan.train_step(averaged, start, points(), jax.random.key(3))
    expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, start.generator.params, after.generator.params)
    chex.assert_trees_all_close(after.generator.ema, expected, rtol=1e-6)
    assert after.discriminator.ema is None
    shown = after.replace(generator=after.generator.replace(params=after.generator.ema, ema=None))
    drawn = [wgan.sample(averaged, s, jax.random.key(5), 7) for s in (after, shown)]
    chex.assert_shape(drawn, (7, D))
    np.testing.assert_array_equal(*drawn)


def test_sample_decode_discriminate_and_validate_are_the_two_nets(state):
    f, g = float64(state.discriminator.params), float64(state.generator.params)
    u = np.random.default_rng(3).normal(size=(4, K)).astype(np.float32)
    out = wgan.decode_standard(CONFIG, state, u)
    np.testing.assert_allclose(out, forward(g, u)[1], rtol=1e-4, atol=1e-6)  # the prior is N(0, I)
    logits, features = wgan.discriminate(CONFIG, state, out)
    h, expected = forward(f, np.asarray(out))
    np.testing.assert_allclose(logits, expected[:, 0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(features, h, rtol=1e-4, atol=1e-7)
    found = wgan.validate(CONFIG, state, {"x": points(1)["x"][0]}, jax.random.key(2))
    samples = wgan.sample(CONFIG, state, jax.random.key(2), B)
    real, fake = (forward(f, np.asarray(v))[1][:, 0] for v in (points(1)["x"][0], samples))
    chex.assert_trees_all_close(found, {"wasserstein": np.float32(real - fake)}, rtol=1e-4, atol=1e-7)
    images = config(output="sigmoid")
    pictures = wgan.sample(images, wgan.init(images, jax.random.key(2), (4, 4, 1)), jax.random.key(3), 7)
    chex.assert_shape(pictures, (7, 4, 4, 1))
    assert 0 <= pictures.min() < pictures.max() <= 1


BAD = [  # batch, classes, what was given and what is expected
    ({"x": np.zeros((B, D), np.float32)}, 0, r"\(5, 3\).*\[2, B, 3\]"),
    ({"x": np.zeros((3, B, D), np.float32)}, 0, r"\(3, 5, 3\).*batches_per_step = 2"),
    ({"x": np.zeros((2, B, 4), np.float32)}, 0, r"\(2, 5, 4\).*\[2, B, 3\]"),
    ({"x": np.zeros((2, 0, D), np.float32)}, 0, r"\(2, 0, 3\).*empty"),
    ({"x": np.zeros((2, B, D), np.float32)}, 4, r"4 classes.*int32 \[2, B\]"),
    ({"x": np.zeros((2, B, D), np.float32), "label": np.zeros(B, np.int32)}, 4, r"\(5,\).*int32 \[2, B\]"),
]


@pytest.mark.parametrize(("batch", "classes", "sentence"), BAD)
def test_a_batch_that_does_not_fit_is_refused_with_both_shapes(state, batch, classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        wgan.train_step(config(num_classes=classes), state, batch, jax.random.key(0))


BAD_CONFIGS = [
    ({"n_critic": 0}, "n_critic is 0: give"),
    ({"clip": 0.0}, "clip is 0.0: give"),
    ({"clip": -0.01}, "clip is -0.01: give"),
    ({"latents": 0}, "0.*give"),
    ({"prior_scale": 0.0}, "prior_scale is 0.0: give"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0: give"),
    ({"discriminator": nets.ConvDiscriminator(), "clip": None, "gradient_penalty": 1.0}, "norm='none'"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD_CONFIGS)
def test_bad_configs_get_a_sentence(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**bad)


def test_each_critic_step_has_dropout_masks_of_its_own():
    """With all inputs dropped by half, a step leaves half of the rows of the first kernel; five steps, 1 in 32."""
    net = nets.MaxoutDiscriminator(
        hidden=(4,), pieces=2, keep=(0.5, 1.0), kernel_init=nets.Normal(0.1), feature_layer="hidden0"
    )
    nothing = nets.MLPGenerator(hidden=(), kernel_init=nets.Constant(0.0))  # its samples move no first kernel
    slow = Optimizer("sgd", 1e-3, momentum=0.0)
    wide = config(discriminator=net, generator=nothing, discriminator_optimizer=slow, clip=None, n_critic=5)
    start = wgan.init(wide, jax.random.key(1), (400,))
    after, _ = wgan.train_step(wide, start, {"x": np.ones((5, 1, 400), np.float32)}, jax.random.key(2))
    moved, old = (s.discriminator.params["hidden0"]["pieces"]["kernel"] for s in (after, start))
    np.testing.assert_allclose((moved != old).any(axis=1).mean(), 1 - 0.5**5, atol=0.03)


def test_one_critic_step_an_iteration_takes_a_plain_batch(key):
    """`fit` gathers [B, D] then, as batches_per_step is 1; the step is one of the critic, then one of the generator."""
    one = config(n_critic=1)
    init_key, step_key = jax.random.split(key)
    start, batch = wgan.init(one, init_key, (D,)), {"x": points()["x"][0]}
    after, _ = wgan.train_step(one, start, batch, jax.random.clone(step_key))
    critic_key, generator_key = jax.random.split(step_key)
    played, _ = critic_step(one, start, batch, jax.random.split(critic_key, 1)[0])
    played, _ = generator_step(one, played, batch, generator_key)
    for name in ("discriminator", "generator"):
        chex.assert_trees_all_close(getattr(after, name).params, getattr(played, name).params, rtol=1e-5)
    run = fit.fit(wgan, one, batch["x"], steps=2, batch_size=2, progress=False)
    assert int(run.state(0).generator_steps) == 2
