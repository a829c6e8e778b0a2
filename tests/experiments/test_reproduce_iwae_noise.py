"""Rainforth et al.'s part: the gradient's moments in closed form, what the ratio is of, slopes, a smoke run."""

import jax
import numpy as np
import pytest

from experiments.reproduce import iwae_noise as part
from tests.smoke import pictures, smoke


def test_moments_of_one_sample_are_those_by_hand():
    """z - mu and x + mu - 2 z are the gradients in mu and b: Gaussian, with known means and deviations."""
    mu, b, x = part.problem(0, 0.5)
    draws = 2**14
    mean, variance = part.moments(mu, b, x, jax.random.key(1), samples=1, draws=draws)
    expected = np.stack([x / 2 + b - mu, mu - 2 * b])
    by_hand = np.array([[part.VARIANCE], [4 * part.VARIANCE]])
    np.testing.assert_allclose(variance, np.broadcast_to(by_hand, variance.shape), rtol=0.06)
    assert np.abs((mean - expected) / np.sqrt(by_hand / draws)).max() < 4.5
    signal = np.sqrt((expected**2 / by_hand).mean(axis=1))
    np.testing.assert_allclose(part.ratios(mean, variance, draws), signal, rtol=0.05)


def test_at_the_optimum_the_encoder_has_no_signal():
    mu, b, x = part.problem(0, 0.0)
    np.testing.assert_allclose(2 * b, mu, rtol=1e-6)
    mean, variance = part.moments(mu, b, x, jax.random.key(1), samples=4, draws=2**12)
    model, encoder = part.ratios(mean, variance, 2**12)
    assert encoder < 0.02 < 1 < model


def test_the_bound_climbs_to_log_p():
    """Of N(x; mu, 2 I), with many samples."""
    mu, b, x = part.problem(3, 0.1)
    exact = -0.5 * (np.log(4 * np.pi) + (np.asarray(x) - np.asarray(mu)) ** 2 / 2).sum()
    noise = jax.random.normal(jax.random.key(0), (20_000, part.DIM))
    ones = jax.vmap(lambda each: part.bound(mu, b, x, each[None]))(noise).mean()
    assert ones < exact - 0.5 and float(part.bound(mu, b, x, noise)) == pytest.approx(exact, abs=0.1)


def test_slopes():
    k = np.array([16, 64, 256])
    assert part.slope(k, 3 * k**-0.5) == pytest.approx(-0.5)
    assert np.isnan(part.slope(k, np.array([1.0, 0.0, 1.0])))


def test_a_smoke_run(tmp_path):
    found = smoke("iwae", tmp_path, "noise")
    assert found["noise_model"]["ours"]["mean"] > 0.2
    assert pictures("iwae", tmp_path) == {"noise.png"}
