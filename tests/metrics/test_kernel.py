"""Kernel distance against scikit-learn's kernel, and its lack of bias."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from vaegan_jax.metrics import kernel_distance, squared_mmd


def _normal(seed: int, n: int, width: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)) + shift


def _reference(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return polynomial_kernel(x, y, degree=3, gamma=1 / x.shape[1], coef0=1)

    off = [kernel(x, x)[~np.eye(len(x), dtype=bool)].mean() for x in (a, b)]
    return sum(off) - 2 * kernel(a, b).mean()


def test_equals_sklearns_kernel() -> None:
    a, b = _normal(0, 60), _normal(1, 80, shift=0.4)
    assert squared_mmd(a, b) == pytest.approx(_reference(a, b), rel=1e-10)
    mean, sd = kernel_distance(a, b[:60], subsets=3, subset_size=60)  # every subset is the set
    assert mean == pytest.approx(_reference(a, b[:60]), rel=1e-10) and sd == pytest.approx(0, abs=1e-12)


def test_one_dimension_in_closed_form() -> None:
    """x.y + 1 cubed, D = 1: MMD^2 = sum of binom(3, p) (E x^p - E y^p)^2, p = 1..3. N(0, 1) against N(1, 1)."""
    a, b = _normal(2, 30000, 1), _normal(3, 30000, 1, shift=1.0)
    # moments 0, 1, 0 and 1, 2, 4: 3 * 1 + 3 * 1 + 1 * 16
    assert kernel_distance(a, b, subsets=60, subset_size=500)[0] == pytest.approx(22, rel=0.1)


def test_no_bias_and_both_signs() -> None:
    a, b = _normal(4, 4000), _normal(5, 4000)
    single = [squared_mmd(a[i : i + 50], b[i : i + 50]) for i in range(0, 4000, 50)]
    assert min(single) < 0 < max(single)
    assert abs(np.mean(single)) < 3 * np.std(single) / np.sqrt(len(single))


def test_the_seed_decides() -> None:
    a, b = _normal(6, 300), _normal(7, 200, shift=0.5)
    first = kernel_distance(a, b, subsets=5, subset_size=50, seed=1)
    np.random.seed(0)  # nothing reads NumPy's global generator
    assert kernel_distance(a, b, subsets=5, subset_size=50, seed=1) == first
    assert kernel_distance(a, b, subsets=5, subset_size=50, seed=2) != first


def test_bad_input() -> None:
    a, b = _normal(8, 30), _normal(9, 20)
    with pytest.raises(ValueError, match="b has 20 examples, fewer than a subset's 25: give a smaller subset_size"):
        kernel_distance(a, b, subset_size=25)
    with pytest.raises(ValueError, match="subsets is 0"):
        kernel_distance(a, b, subsets=0, subset_size=5)
    with pytest.raises(ValueError, match="subset_size is 1"):
        kernel_distance(a, b, subset_size=1)
    with pytest.raises(ValueError, match="b has 5 features"):
        kernel_distance(a, b[:, :5], subset_size=5)
    with pytest.raises(ValueError, match="a has NaN"):
        kernel_distance(a * np.nan, b, subset_size=5)
    with pytest.raises(ValueError, match="a has 1 examples"):
        squared_mmd(a[:1], b)
