"""Likelihoods, bounds and adversarial pairs against scipy, quadrature and closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from vaegan_jax import losses
from vaegan_jax.losses import ADVERSARIAL

RNG = np.random.default_rng
NAMES = sorted(ADVERSARIAL)
N = 100  # one length for most tests: an operation is compiled once for each shape
LOG_D, LOG_1_D = special.log_expit, lambda logit: special.log_expit(-logit)
REFERENCE = {  # (discriminator, generator) in float64, written from the papers
    "minimax": (lambda r, f: -LOG_D(r) - LOG_1_D(f), lambda r, f: LOG_1_D(f)),
    "non_saturating": (lambda r, f: -LOG_D(r) - LOG_1_D(f), lambda r, f: -LOG_D(f)),
    "least_squares": (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda r, f: (f - 1) ** 2 / 2),
    "hinge": (lambda r, f: -np.minimum(0, r - 1) - np.minimum(0, -f - 1), lambda r, f: -f),
    "wasserstein": (lambda r, f: -(r - f), lambda r, f: -f),
    "relativistic": (lambda r, f: -LOG_D(r - f), lambda r, f: -LOG_D(f - r)),
}


def grads(loss, r, f):
    """Derivatives of each example's loss by its own two logits."""
    return jax.grad(lambda r, f: loss(r, f).sum(), (0, 1))(jnp.asarray(r, jnp.float32), jnp.asarray(f, jnp.float32))


def test_bernoulli_equals_scipy_on_images_and_vectors():
    for shape in ((6, 5), (6, 3, 2), (6,)):
        logits = RNG(0).normal(size=shape) * 3
        x = RNG(1).integers(0, 2, shape)
        expected = stats.bernoulli(special.expit(logits)).logpmf(x).reshape(6, -1).sum(1)
        actual = losses.bernoulli_log_prob(jnp.float32(logits), jnp.float32(x))
        chex.assert_shape(actual, (6,))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_bernoulli_on_grey_pixels_is_minus_the_cross_entropy():
    logits, x = RNG(0).normal(size=(4, 7)) * 2, RNG(1).uniform(size=(4, 7))
    expected = (x * LOG_D(logits) + (1 - x) * LOG_1_D(logits)).sum(1)
    np.testing.assert_allclose(losses.bernoulli_log_prob(jnp.float32(logits), jnp.float32(x)), expected, rtol=1e-5)


def test_bernoulli_is_exact_and_its_gradient_finite_at_logits_of_1e4():
    logits = jnp.float32([[1e4], [-1e4], [1e4], [-1e4], [104.0], [-104.0]])
    x = jnp.float32([[1], [0], [0], [1], [0], [1]])
    value, gradient = jax.value_and_grad(lambda s: losses.bernoulli_log_prob(s, x).sum())(logits)
    np.testing.assert_array_equal(losses.bernoulli_log_prob(logits, x), [0, 0, -1e4, -1e4, -104, -104])
    np.testing.assert_array_equal(gradient[:, 0], [0, 0, -1, 1, -1, 1])  # x - sigmoid
    assert np.isfinite(value)


def test_gaussian_equals_scipy():
    mean, log_var, x = (RNG(i).normal(size=(5, 2, 3)) for i in range(3))
    expected = stats.norm(mean, np.exp(log_var / 2)).logpdf(x).sum((1, 2))
    actual = losses.gaussian_log_prob(*map(jnp.float32, (mean, log_var, x)))
    chex.assert_shape(actual, (5,))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    for scalar in (-1.5, jnp.float32(-1.5)):
        expected = stats.norm(mean, np.exp(-0.75)).logpdf(x).sum((1, 2))
        actual = losses.gaussian_log_prob(jnp.float32(mean), scalar, jnp.float32(x))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_kl_equals_the_integral():
    for mean, log_var in ((0.0, 0.0), (1.5, -1.0), (-0.5, 1.2)):
        q, p = stats.norm(mean, np.exp(log_var / 2)), stats.norm()
        expected = integrate.quad(lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -20, 20)[0]
        actual = losses.kl_standard_normal(jnp.float32([[mean]]), jnp.float32([[log_var]]))
        np.testing.assert_allclose(actual, [expected], rtol=1e-5, atol=1e-7)


def test_kl_equals_monte_carlo():
    mean, log_var = RNG(0).normal(size=(3, 4)), RNG(1).normal(size=(3, 4))
    z = mean + np.exp(log_var / 2) * RNG(2).normal(size=(100_000, 3, 4))
    ratio = (stats.norm(mean, np.exp(log_var / 2)).logpdf(z) - stats.norm().logpdf(z)).sum(2)
    error = ratio.std(0) / np.sqrt(len(z))
    actual = np.asarray(losses.kl_standard_normal(jnp.float32(mean), jnp.float32(log_var)))
    assert error.max() < 0.02
    np.testing.assert_array_less(np.abs(ratio.mean(0) - actual), 4 * error)


def test_iwae_equals_log_mean_exp():
    w = RNG(0).normal(size=(4, 7)) * 5
    np.testing.assert_allclose(losses.iwae_bound(jnp.float32(w)), np.log(np.exp(w).mean(1)), rtol=1e-5)


def test_iwae_with_one_sample_is_the_elbo():
    w = jnp.float32(RNG(0).normal(size=(9, 1)) * 100)
    np.testing.assert_array_equal(losses.iwae_bound(w), w[:, 0])


def test_iwae_bounds_grow_with_k_over_groups_of_the_same_weights():
    """Jensen on the sample itself: no noise, so the order is exact for every example."""
    w = jnp.float32(RNG(0).normal(size=(20, 50)) * 3 - 90)
    bounds = [
        np.asarray(losses.iwae_bound(w.reshape(-1, k))).astype(np.float64).reshape(20, -1).mean(1) for k in (1, 5, 50)
    ]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < bounds[2]).all()
    assert (bounds[2] < np.asarray(w).max(1)).all()


def test_iwae_shifts_permutes_and_ignores_zero_weights():
    w = jnp.float32(RNG(0).normal(size=(4, 6)))
    bound = losses.iwae_bound(w)
    np.testing.assert_allclose(losses.iwae_bound(w[:, ::-1]), bound, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses.iwae_bound(jnp.tile(w, (1, 3))), bound, rtol=1e-5, atol=1e-6)
    for shift in (-1e4, 1e4):
        np.testing.assert_allclose(losses.iwae_bound(w + shift), bound + shift, rtol=1e-6)
    padded = jnp.concatenate([w, jnp.full_like(w, -jnp.inf)], 1)
    np.testing.assert_allclose(losses.iwae_bound(padded), bound - np.log(2), rtol=1e-5)


def test_iwae_gradient_is_the_normalised_weights():
    w = jnp.float32(RNG(0).normal(size=(4, 6)) * 3 + 1e3)
    gradient = jax.grad(lambda w: losses.iwae_bound(w).sum())(w)
    np.testing.assert_allclose(gradient, special.softmax(np.asarray(w, np.float64), axis=1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("shape", [(), (4,), (4, 0), (4, 2, 3)])
def test_iwae_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"give \[B, k\]"):
        losses.iwae_bound(jnp.zeros(shape))


def test_likelihoods_and_penalties_refuse_unequal_shapes_and_name_both(key):
    a, b = jnp.zeros((4, 3)), jnp.zeros((4, 1))
    calls = [
        lambda: losses.bernoulli_log_prob(a, b),
        lambda: losses.gaussian_log_prob(a, a, b),
        lambda: losses.gaussian_log_prob(a, b, a),
        lambda: losses.kl_standard_normal(a, b),
        lambda: losses.gradient_penalty(lambda x: x.sum(1), a, b, key),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="give equal shapes") as error:
            call()
        assert "(4, 3)" in str(error.value)
        assert "(4, 1)" in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_adversarial_pair_equals_the_papers_formula_per_example(name):
    r, f = RNG(0).normal(size=N) * 4, RNG(1).normal(size=N) * 4
    for ours, formula in zip(ADVERSARIAL[name], REFERENCE[name], strict=True):
        actual = ours(jnp.float32(r), jnp.float32(f))
        chex.assert_shape(actual, (N,))
        np.testing.assert_allclose(actual, formula(r, f), rtol=2e-5, atol=1e-6)


def test_every_adversarial_pair_is_checked_here():
    assert sorted(REFERENCE) == NAMES


OPTIMA = {
    "minimax": (0.0, 2 * np.log(2)),
    "non_saturating": (0.0, 2 * np.log(2)),
    "least_squares": (0.5, 0.25),
    "hinge": (0.0, 2.0),
    "wasserstein": (0.0, 0.0),
    "relativistic": (0.0, np.log(2)),
}


@pytest.mark.parametrize("name", NAMES)
def test_discriminator_optimum_when_generated_data_are_the_data(name):
    """p_g = p_data: both players see the same logit l, so l* minimises loss(l, l)."""
    best, value = OPTIMA[name]
    loss = ADVERSARIAL[name].discriminator
    at = jnp.full((N,), best, jnp.float32)
    np.testing.assert_allclose(loss(at, at), value, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda v: loss(v, v).sum())(at), 0, atol=1e-7)
    others = jnp.linspace(-6, 6, N)
    assert (np.asarray(loss(others, others)) >= value - 1e-6).all()


def test_cross_entropy_at_the_optimal_discriminator_is_log_4_minus_twice_the_jsd():
    """Goodfellow et al. 2014, theorem 1: C(G) = -log 4 + 2 JSD(p, q), here for N(0, 1) and N(1.5, 1.2^2)."""
    p, q = stats.norm(), stats.norm(1.5, 1.2)

    def half(a):
        return integrate.quad(lambda x: a.pdf(x) * (a.logpdf(x) - np.log((p.pdf(x) + q.pdf(x)) / 2)), -12, 14)[0]

    jsd = (half(p) + half(q)) / 2
    levels = (np.arange(20_000) + 0.5) / 20_000  # the mean over quantiles is the expectation, for each player its own
    real, fake = (p.logpdf(x) - q.logpdf(x) for x in (p.ppf(levels), q.ppf(levels)))  # logits of D* = p / (p + q)
    for name in ("minimax", "non_saturating"):
        loss = ADVERSARIAL[name].discriminator
        at_optimum = np.asarray(loss(jnp.float32(real), jnp.float32(fake)), np.float64).mean()
        np.testing.assert_allclose(-at_optimum, -np.log(4) + 2 * jsd, atol=2e-4)
        for scale, shift in ((0.9, 0.0), (1.1, 0.0), (1.0, 0.1), (1.0, -0.1)):  # any other discriminator does worse
            other = loss(jnp.float32(scale * real + shift), jnp.float32(scale * fake + shift))
            assert np.asarray(other, np.float64).mean() > at_optimum + 1e-4


@pytest.mark.parametrize(
    ("name", "logit"),
    [
        ("minimax", lambda p, q: np.log(p / q)),
        ("non_saturating", lambda p, q: np.log(p / q)),
        ("least_squares", lambda p, q: p / (p + q)),
    ],
)
def test_optimal_discriminator_is_p_over_p_plus_q_at_every_point(name, logit):
    x = np.linspace(-4, 5, N)
    p, q = stats.norm().pdf(x), stats.norm(1.5, 1.2).pdf(x)
    best = logit(p, q)

    def slope(logits):  # of p(x) loss_real(l) + q(x) loss_fake(l) by the logit l at x
        by_real, by_fake = grads(ADVERSARIAL[name].discriminator, logits, logits)
        return np.asarray(p * by_real + q * by_fake) / (p + q)

    np.testing.assert_allclose(slope(best), 0, atol=1e-5)
    assert (slope(best - 0.1) < 0).all()
    assert (slope(best + 0.1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_finite_and_right_at_logits_of_1e4(name):
    r, f = (jnp.float32(np.resize(v, N)) for v in np.meshgrid([-1e4, 0, 1e4], [-1e4, 0, 1e4]))
    for ours, formula in zip(ADVERSARIAL[name], REFERENCE[name], strict=True):
        np.testing.assert_allclose(ours(r, f), formula(np.float64(r), np.float64(f)), rtol=1e-5)
        chex.assert_tree_all_finite(grads(ours, r, f))


@pytest.mark.parametrize("name", NAMES)
def test_players_push_the_logits_their_own_way(name):
    """D raises real and lowers fake logits, G raises fake ones (least squares: on their side of the labels)."""
    values = np.linspace(0.05, 0.95, 10) if name == "least_squares" else np.linspace(-4, 4, 10)
    r, f = (v.ravel() for v in np.meshgrid(values, values))
    by_real, by_fake = map(np.asarray, grads(ADVERSARIAL[name].discriminator, r, f))
    assert (by_real <= 0).all()
    assert (by_fake >= 0).all()
    assert by_real.min() < -0.04
    assert by_fake.max() > 0.04
    assert (np.asarray(grads(ADVERSARIAL[name].generator, r, f)[1]) < 0).all()


def test_saturating_and_non_saturating_gradients_of_section_3():
    f = np.linspace(-9, 9, N)
    D = special.expit(f)
    for name, expected in (("minimax", -D), ("non_saturating", -(1 - D))):
        by_real, by_fake = grads(ADVERSARIAL[name].generator, np.ones_like(f), f)
        np.testing.assert_allclose(by_fake, expected, rtol=1e-5)
        np.testing.assert_array_equal(by_real, 0)


def test_minimax_players_share_one_game():
    """G's loss is minus D's up to what G cannot touch; wasserstein and relativistic are antisymmetric or mirrored."""
    r, f = jnp.float32(RNG(0).normal(size=N)), jnp.float32(RNG(1).normal(size=N))
    for name in ("minimax", "wasserstein"):
        d, g = ADVERSARIAL[name]
        np.testing.assert_allclose(grads(d, r, f)[1], -grads(g, r, f)[1], rtol=1e-6)
    d, g = ADVERSARIAL["relativistic"]
    np.testing.assert_array_equal(g(r, f), d(f, r))
    np.testing.assert_allclose(d(r + 3, f + 3), d(r, f), rtol=1e-5)
