"""Moment matching: the estimate of MMD^2 against closed forms, one step by hand, and laws that training must reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaegan_jax
from vaegan_jax import fit, gmmn, nets
from vaegan_jax.optimizer import Optimizer

RNG = np.random.default_rng
TINY = gmmn.Config(
    latents=2,
    generator=nets.MLPGenerator(hidden=(5,), activation=jnp.tanh),
    bandwidths=(0.5, 2.0),
    generator_optimizer=Optimizer(rule="sgd", learning_rate=0.1, momentum=0.0),
    batch_size=6,
    dataset_size=12,
)


def _kernel(a, b, bandwidths):
    squared = ((a[:, None] - b[None]) ** 2).reshape(len(a), len(b), -1).sum(axis=2)
    return sum(np.exp(-squared / (2 * s)) for s in bandwidths)


def test_the_estimate_is_equation_3():
    x, y = RNG(0).normal(size=(5, 3, 2, 1)), RNG(1).normal(1.0, 2.0, size=(7, 3, 2, 1))
    s = (0.5, 2.0, 9.0)
    expected = _kernel(x, x, s).mean() - 2 * _kernel(x, y, s).mean() + _kernel(y, y, s).mean()
    found = gmmn.squared_mmd(jnp.float32(x), jnp.float32(y), s)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(gmmn.squared_mmd(jnp.float32(y), jnp.float32(x), s)) == pytest.approx(expected, rel=1e-4)
    assert abs(float(gmmn.squared_mmd(jnp.float32(x), jnp.float32(x[::-1]), s))) < 1e-5
    off = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (_kernel(x, x, s), _kernel(y, y, s))]
    unbiased = sum(off) - 2 * _kernel(x, y, s).mean()
    assert float(gmmn.squared_mmd(jnp.float32(x), jnp.float32(y), s, biased=False)) == pytest.approx(unbiased, abs=1e-5)
    with pytest.raises(ValueError, match="give equal shapes"):
        gmmn.squared_mmd(jnp.float32(x), jnp.zeros((7, 6)), s)
    with pytest.raises(ValueError, match="at least one number above 0"):
        gmmn.squared_mmd(jnp.float32(x), jnp.float32(y), ())
    whole = jnp.arange(12, dtype=jnp.uint8).reshape(4, 3) * 20
    unit = whole / jnp.float32(255)
    found, expected = (float(gmmn.squared_mmd(each, unit[:2], s)) for each in (whole, unit))
    assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="give 2 or more of each"):
        gmmn.squared_mmd(jnp.float32(x), jnp.float32(y[:1]), s, biased=False)


def test_the_estimate_tends_to_the_closed_form_of_two_gaussians():
    """E exp(-(x - y)^2 / 2s) over x - y ~ N(m, v) is sqrt(s / (s + v)) exp(-m^2 / (2 (s + v)))."""
    n, s, m = 2_000, 1.5, 1.0
    x = jnp.float32(RNG(0).normal(size=(n, 1)))
    y = jnp.float32(RNG(1).normal(m, 2.0, size=(n, 1)))

    def law(mean, variance):
        return np.sqrt(s / (s + variance)) * np.exp(-(mean**2) / (2 * (s + variance)))

    expected = law(0, 2) - 2 * law(m, 5) + law(0, 8)
    few = [float(gmmn.squared_mmd(x[i : i + 20], y[i : i + 20], (s,), biased=False)) for i in range(0, n, 20)]
    assert np.mean(few) == pytest.approx(expected, abs=3 * np.std(few) / 10)
    assert float(gmmn.squared_mmd(x, y, (s,))) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("root", [True, False])
def test_a_step_descends_the_mmd_of_its_own_samples(key, root):
    config = dataclasses.replace(TINY, root=root)
    state = gmmn.init(config, key, (2, 2, 1))
    x, step_key = jax.random.uniform(jax.random.key(1), (6, 2, 2, 1)), jax.random.key(2)
    z = jax.random.uniform(jax.random.clone(step_key), (6, 2), minval=-1, maxval=1)

    def loss(params):
        fake = jax.nn.sigmoid(config.generator.apply({"params": params}, z, (2, 2, 1), train=True))
        squared = gmmn.squared_mmd(fake, x, config.bandwidths)
        return jnp.sqrt(squared) if root else squared

    value, gradient = jax.value_and_grad(loss)(state.generator.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.generator.params, gradient)
    after, metrics = gmmn.train_step(config, state, {"x": x}, step_key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.generator.params, expected)
    assert float(metrics["mmd"]) == pytest.approx(float(value) if root else float(jnp.sqrt(value)), rel=1e-4)
    assert float(metrics["gradient_norm"]) > 0 and int(after.step) == 1
    assert float(loss(after.generator.params)) < float(value)


def test_samples_that_are_the_data_leave_the_generator_finite_and_where_it_is(key):
    """A net that ignores z makes one point: against copies of it the root's gradient is 0, not NaN."""
    state = gmmn.init(TINY, key, (3,))
    params = jax.tree.map(jnp.zeros_like, state.generator.params)
    state = dataclasses.replace(state, generator=dataclasses.replace(state.generator, params=params))
    after, metrics = gmmn.train_step(TINY, state, {"x": jnp.full((6, 3), 0.5)}, jax.random.key(1))
    assert float(metrics["gradient_norm"]) == 0 and float(metrics["mmd"]) == pytest.approx(1e-6)
    jax.tree.map(np.testing.assert_array_equal, after.generator.params, params)


def test_the_defaults_are_the_released_recipe(key):
    config = gmmn.Config()
    assert config.bandwidths == (2, 5, 10, 20, 40, 80) and config.batch_size == 1_000
    shapes = jax.eval_shape(lambda k: gmmn.init(config, k, (28, 28, 1)), key).generator.params
    widths = [layer["kernel"].shape for layer in shapes.values()]
    assert sorted(widths) == sorted([(10, 64), (64, 256), (256, 256), (256, 1024), (1024, 784)])
    optimizer = config.generator_optimizer
    rates = [float(optimizer.rate(jnp.int32(i - 1))) for i in (1, 9_999, 10_000, 40_000)]  # iterations count from 1
    np.testing.assert_allclose(rates, [2, 2, 0.2, 0.2], rtol=1e-5)
    momenta = [float(optimizer.momentum_at(jnp.int32(i), 55)) for i in (0, 9_990, 10_020, 40_000)]
    np.testing.assert_allclose(momenta, [0.9, 0.9, 0.99, 0.99], rtol=1e-5)
    for layer in gmmn.init(config, jax.random.clone(key), (28, 28, 1)).generator.params.values():
        assert np.std(layer["kernel"]) == pytest.approx(np.sqrt(0.1 / layer["kernel"].shape[0]), rel=0.1)
        assert not np.any(layer["bias"])


@pytest.mark.optimised
def test_it_learns_two_far_modes_and_a_run_is_read_back(tmp_path):
    """Half of the mass at each of two points, which the mean between them does not have."""
    rng = RNG(0)
    x = np.float32(rng.choice([-1.0, 1.0], (2_000, 1)) + 0.1 * rng.normal(size=(2_000, 2)))
    run = fit.fit(
        gmmn, gmmn.vectors(2), x, steps=500, workdir=tmp_path / "run", progress=False, validation=x[:501],
        log_every=100,
    )  # fmt: skip
    end = run.metrics["validation_squared_mmd"][0, -1]
    assert abs(end) < 0.05 < 0.2 < run.metrics["mmd"][0, 0] ** 2, end
    model = vaegan_jax.load(tmp_path / "run")
    made = np.asarray(model.sample(jax.random.key(1), 1_000))
    near = np.abs(np.abs(made) - 1).max(axis=1) < 0.5
    assert near.mean() > 0.8
    assert 0.35 < (made[near, 0] > 0).mean() < 0.65
    u = jax.random.normal(jax.random.key(2), (500, 2))
    again = np.asarray(gmmn.decode_standard(model.config, model.state, u))
    assert np.abs(again.mean(axis=0) - made.mean(axis=0)).max() < 0.2  # one generator, one law of z


def test_validate_sees_images_as_the_nets_do(key):
    """Under tanh the estimate is of images in [-1, 1], where squared distances are four times those of [0, 1]."""
    config = dataclasses.replace(TINY, output="tanh")
    state, x = gmmn.init(config, key, (2, 2, 1)), jax.random.uniform(jax.random.key(1), (6, 2, 2, 1))
    fake = gmmn.sample(config, state, jax.random.key(2), 6)
    found = gmmn.validate(config, state, {"x": x}, jax.random.key(2))["squared_mmd"]
    assert found.shape == (6,)
    expected = gmmn.squared_mmd(fake, x, tuple(s / 4 for s in config.bandwidths), biased=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(found[0] - gmmn.squared_mmd(fake, x, config.bandwidths, biased=False)) > 1e-3


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"bandwidths": ()}, "at least one number above 0"),
        ({"bandwidths": (1.0, 0.0)}, "at least one number above 0"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"prior": "cauchy"}, "give one of"),
    ],
)
def test_bad_configs_get_a_sentence(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(TINY, **bad)


def test_the_kernels_of_vectors_see_as_far_in_many_dimensions():
    x, y = (jax.random.normal(jax.random.key(i), (200, 300)) for i in range(2))
    found = gmmn.squared_mmd(x, y + 1, gmmn.vectors(300).bandwidths, biased=False)
    assert float(found) > 0.1
