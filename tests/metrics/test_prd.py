"""The curve of precision against recall: exact on histograms, and through clusters."""

import numpy as np
import pytest

from vaegan_jax.metrics import prd_curve
from vaegan_jax.metrics.prd import curve_of_histograms

TEN, HALF = np.full(10, 0.1), np.repeat([0.2, 0.0], 5)


def test_equal_and_disjoint_histograms() -> None:
    same = curve_of_histograms(TEN, TEN)
    assert (same.f8, same.f1_8) == (pytest.approx(1), pytest.approx(1))
    apart = curve_of_histograms(np.array([1.0, 0]), np.array([0.0, 1]))
    assert (apart.f8, apart.f1_8) == (0, 0)
    assert len(same.precision) == 1001


def test_half_of_the_states_is_precise_and_recalls_half() -> None:
    """Slope t: precision min(t / 2, 1), recall min(1 / 2, 1 / t); the best point is t = 2."""
    curve = curve_of_histograms(TEN, HALF)
    assert curve.precision.max() == pytest.approx(1) and curve.recall.max() == pytest.approx(0.5)
    np.testing.assert_allclose(curve.recall, np.minimum(0.5, curve.precision / np.tan(_angles())), rtol=1e-6)
    assert curve.f8 == pytest.approx(65 * 0.5 / 64.5, rel=2e-3)
    assert curve.f1_8 == pytest.approx((1 + 1 / 64) * 0.5 / (0.5 + 1 / 64), rel=2e-3)
    back = curve_of_histograms(HALF, TEN)
    assert back.precision.max() == pytest.approx(0.5) and back.recall.max() == pytest.approx(1)


def test_at_slope_1_both_are_the_overlap() -> None:
    """Sajjadi et al. 2018: there precision = recall = 1 - total variation."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), size=2)
    curve = curve_of_histograms(p, q)
    overlap = 1 - np.abs(p - q).sum() / 2
    assert (curve.precision[500], curve.recall[500]) == (pytest.approx(overlap), pytest.approx(overlap))
    assert (np.diff(curve.precision) >= 0).all() and (np.diff(curve.recall) <= 1e-12).all()


def test_clusters_of_features() -> None:
    rng = np.random.default_rng(1)
    centres = 100 * rng.normal(size=(4, 5))
    real = (centres[:, None] + rng.normal(size=(4, 60, 5))).reshape(-1, 5)
    fake = (centres[:2, None] + rng.normal(size=(2, 120, 5))).reshape(-1, 5)
    curve = prd_curve(real, fake, clusters=4, runs=2)
    assert curve.recall.max() == pytest.approx(0.5) and curve.precision.max() == pytest.approx(1)
    same = prd_curve(real, real, runs=2)
    assert same.f8 == pytest.approx(1) and same.f1_8 == pytest.approx(1)
    again = prd_curve(real, fake, runs=2)
    np.testing.assert_array_equal(again.precision, prd_curve(real, fake, runs=2).precision)


def test_bad_input() -> None:
    x = np.random.default_rng(2).normal(size=(30, 3))
    with pytest.raises(ValueError, match="fake has 19 examples: 20 or more"):
        prd_curve(x, x[:19])
    with pytest.raises(ValueError, match="real has NaN"):
        prd_curve(x * np.nan, x)
    with pytest.raises(ValueError, match="p has 10 states, q 2"):
        curve_of_histograms(TEN, np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="q are no probabilities"):
        curve_of_histograms(TEN, TEN * 2)
    with pytest.raises(ValueError, match="beta is 0"):
        curve_of_histograms(TEN, TEN).f(0)
    for name in ("clusters", "runs"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            prd_curve(x, x, **{name: 0})


def _angles() -> np.ndarray:
    return np.linspace(1e-10, np.pi / 2 - 1e-10, 1001)
