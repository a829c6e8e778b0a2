"""Appendix D's estimator where the posterior is a Gaussian known in closed form, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tests.metrics.linear_gaussian import Linear
from vaegan_jax import hmc
from vaegan_jax.metrics import posterior
from vaegan_jax.metrics.likelihood import as_argument

MODEL = Linear(6, 3, 0.3, B=5)
X = MODEL.x.astype(np.float32)


def test_the_samples_are_the_posteriors(key):
    found = posterior.posterior_samples(MODEL.log_likelihood, X, key, latents=3, samples=3000, transitions=120)
    z = np.asarray(found)
    assert z.shape == (3000, 5, 3)
    sd = np.sqrt(np.diag(MODEL.covariance))
    np.testing.assert_allclose((z.mean(axis=0) - MODEL.mean) / sd, 0, atol=0.08)
    for b in range(5):
        np.testing.assert_allclose(np.cov(z[:, b].T) / np.outer(sd, sd), MODEL.covariance / np.outer(sd, sd), atol=0.12)


def test_the_steps_are_frozen_for_the_second_half(key):
    """A step that goes on following its chains would not leave the posterior invariant."""
    z_key, key = jax.random.split(key)
    z = jax.random.normal(z_key, (8, 5, 3))
    x, betas = jnp.asarray(X), jnp.ones(10)
    density = as_argument(MODEL.log_likelihood)
    state = posterior._start(density, x, z, rows=100), jnp.full(5, 0.4), jnp.zeros((8, 5))

    def steps(end):
        return posterior._advance(density, x, state, betas, jax.random.clone(key), 0, end, 5, 4, 100)[1]

    assert (steps(4) != steps(5)).all()
    np.testing.assert_array_equal(steps(5), steps(10))


def test_parts_change_nothing_and_one_program_serves_all(key, monkeypatch):
    traces = []

    def log_likelihood(z, x):
        traces.append(z.shape)
        return MODEL.log_likelihood(z, x)

    def run(parts):
        monkeypatch.setattr(posterior, "PARTS", parts)
        settings = {"latents": 3, "samples": 4, "transitions": 23}
        return posterior.posterior_samples(log_likelihood, X, jax.random.clone(key), **settings)

    whole, first = run(1), len(traces)
    for parts in (2, 7, 1000):
        np.testing.assert_array_equal(run(parts), whole)
    assert len(traces) <= first + 3  # the check of its result's shape may look at it again


def test_the_papers_50_samples_are_near_log_p(key):
    found = posterior.posterior_log_likelihood(MODEL.log_likelihood, X, key, latents=3)
    assert found.shape == (5,)
    np.testing.assert_allclose(found, MODEL.exact(), atol=0.6)
    assert float(np.mean(found - MODEL.exact())) == pytest.approx(0, abs=0.3)


def test_many_samples_are_at_log_p(key):
    found = posterior.posterior_log_likelihood(
        MODEL.log_likelihood, X, key, latents=3, samples=2000, transitions=150, rows=20_000
    )
    np.testing.assert_allclose(found, MODEL.exact(), atol=0.03)


def test_chains_that_ended_in_a_wrong_mode_do_not_count(key):
    """Two narrow modes 60 nats apart that no chain can cross between: half of them are led to the wrong one.

    log p(x | z) = log [N(z; m, s^2 I) + e^-60 N(z; -m, s^2 I)], so p(x) is N(0; m, (1 + s^2) I) to e^-60.
    """
    s, m = 0.05, jnp.float32([1.0, 0.5])

    def log_likelihood(z, x):
        def narrow(centre):
            return -0.5 * ((z - centre[None]) ** 2 / s**2 + jnp.log(2 * jnp.pi * s**2)).sum(axis=1)

        return jnp.logaddexp(narrow(m), narrow(-m) - 60.0) + 0 * x[:, 0]

    exact = -0.5 * (np.sum(np.asarray(m) ** 2) / (1 + s**2) + 2 * np.log(2 * np.pi * (1 + s**2)))
    x = np.zeros((3, 1), np.float32)
    z_key, key = jax.random.split(key)
    z = posterior.posterior_samples(log_likelihood, x, z_key, latents=2, samples=50, transitions=200)
    assert (np.asarray(z) @ np.asarray(m) > 0).all()
    found = posterior.posterior_log_likelihood(log_likelihood, x, key, latents=2, transitions=200)
    np.testing.assert_allclose(found, exact, atol=0.5)


def test_what_is_fitted_and_what_is_averaged_know_of_the_same_modes(key):
    """A narrow mode that few chains find, 8 nats above a wide one that all others are led to; 12 times.

    Halves without a common ancestor could disagree on it, and the estimate then be 46 nats too high.
    """
    wide, narrow, m, gain = 0.3, 0.1, jnp.full(3, 1.5 / 3**0.5), 8.0

    def log_likelihood(z, x):
        def mode(centre, s):
            return -0.5 * ((z - centre[None]) ** 2 / s**2 + jnp.log(2 * jnp.pi * s**2)).sum(axis=1)

        return jnp.logaddexp(mode(m, wide), mode(-m, narrow) + gain) + 0 * x[:, 0]

    of_wide, of_narrow = (multivariate_normal(np.zeros(3), (1 + s**2) * np.eye(3)).logpdf(m) for s in (wide, narrow))
    x = np.zeros((12, 1), np.float32)
    found = posterior.posterior_log_likelihood(
        log_likelihood, x, jax.random.fold_in(key, 1), latents=3, transitions=100
    )
    np.testing.assert_allclose(found, np.logaddexp(of_wide, of_narrow + gain), atol=1)


def test_resampling_draws_by_the_weights(key):
    """Systematic: a chain of share p has floor(n p) or that and one more children, side by side."""
    z = jnp.arange(16.0).reshape(8, 2, 1)
    chains = hmc.Chains(z, z[..., 0], 10 * z, jnp.zeros((8, 2)))
    share = jnp.float32([0.3, 0.03, 0.02, 0.05, 0.01, 0.55, 0.02, 0.02])
    weights = jnp.log(jnp.stack([share, jnp.full(8, 0.125)], axis=1)) + 3.0
    for everyone in (False, True):
        new, left = posterior._resample(chains, weights, jax.random.clone(key), jnp.bool_(everyone))
        of = np.asarray(new.z[:, 0, 0]) // 2
        children = np.bincount(of.astype(int), minlength=8)
        assert children[0] in (2, 3) and children[5] in (4, 5) and (np.diff(of) >= 0).all()
        np.testing.assert_array_equal(new.gradient[..., 0], 10 * np.asarray(new.log_likelihood))
        np.testing.assert_array_equal(left[:, 0], 0)
        # Of even weights all live on; only `everyone` uses them up.
        np.testing.assert_array_equal(new.z[:, 1], z[:, 1])
        assert (np.asarray(left[:, 1]) == 0).all() == everyone


def test_the_density_is_the_gaussian_of_the_samples():
    rng = np.random.default_rng(0)
    fitted, points = rng.normal(size=(9, 2, 3)) * [1, 5, 0.2] + 4, rng.normal(size=(7, 2, 3))
    found = posterior._gaussian(fitted, points)
    for b in range(2):
        reference = multivariate_normal(fitted[:, b].mean(axis=0), np.cov(fitted[:, b].T))
        np.testing.assert_allclose(found[:, b], reference.logpdf(points[:, b]), rtol=1e-8)
    with pytest.raises(ValueError, match="lie in a subspace"):
        posterior._gaussian(np.repeat(fitted[:1], 9, axis=0) * np.arange(9.0).reshape(9, 1, 1), points)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latents": 5}, "latents is 5: a density fitted .* up to 4 dimensions only; take ais_log_likelihood"),
        ({"samples": 4}, "samples is 4: give a whole number of at least 5"),
        ({"transitions": 3}, "transitions is 3: give a whole number of at least 4"),
        ({"leapfrogs": 0}, "leapfrogs is 0"),
        ({"rows": 0}, "rows is 0"),
        ({"x": X.astype(np.uint8)}, "x has dtype uint8"),
        ({"x": np.where(X > 0, np.inf, X)}, "x has NaN or infinite"),
        ({"key": 0}, "typed key"),
        ({"log_likelihood": lambda z, x: z[:, :1]}, r"returns shape \(5, 1\)"),
        ({"log_likelihood": lambda z, x: z[:, 0] * np.nan}, "NaN or infinite where the chains are"),
        ({"log_likelihood": lambda z, x: jnp.where(z[:, 0] > 1, np.nan, z[:, 0])}, "NaN or infinite where the chains"),
    ],
)
def test_bad_input_is_refused(changes, sentence, key):
    good = {"log_likelihood": MODEL.log_likelihood, "x": X, "key": key, "latents": 3}
    with pytest.raises(ValueError, match=sentence):
        posterior.posterior_log_likelihood(**good | changes)


def test_samples_may_have_any_width(key):
    wide = Linear(8, 7, 0.3, B=2)
    z = posterior.posterior_samples(
        wide.log_likelihood, wide.x.astype(np.float32), jax.random.clone(key), latents=7, samples=2, transitions=4
    )
    assert z.shape == (2, 2, 7) and np.isfinite(z).all()
