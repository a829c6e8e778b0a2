"""Precision and recall, density and coverage against the authors' prdc and closed forms."""

import numpy as np
import pytest
from prdc import compute_prdc

from vaegan_jax.metrics import density_coverage, distances, precision_recall
from vaegan_jax.metrics.manifold import expected_coverage


def _normal(seed: int, n: int, width: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, width)) + shift).astype(np.float32)


@pytest.mark.parametrize(("k", "width", "shift"), [(1, 3, 0.0), (3, 20, 0.3), (5, 64, 0.1), (5, 2, 1.0)])
def test_equals_the_authors_code(k: int, width: int, shift: float) -> None:
    real, fake = _normal(0, 400, width), _normal(1, 300, width, shift) * np.float32(1.1)
    reference = compute_prdc(real.astype(np.float64), fake.astype(np.float64), k)
    np.testing.assert_allclose(precision_recall(real, fake, k), (reference["precision"], reference["recall"]))
    np.testing.assert_allclose(density_coverage(real, fake, k), (reference["density"], reference["coverage"]))


def test_one_law_has_density_1_and_the_expected_coverage() -> None:
    """Naeem et al. 2020, section 3: whatever the law is."""
    runs = [density_coverage(_normal(2 * s, 500, 10), _normal(2 * s + 1, 500, 10)) for s in range(8)]
    density, coverage = np.mean(runs, axis=0)
    assert density == pytest.approx(1, abs=0.06)
    assert coverage == pytest.approx(expected_coverage(500, 500), abs=0.01)
    assert expected_coverage(10**9, 10**9) == pytest.approx(1 - 2**-5)
    assert expected_coverage(10, 3, 1) == pytest.approx(3 / 12)  # the nearest of 12 others is one of 3 fakes


def test_a_generator_of_one_good_point_is_precise_and_recalls_nothing() -> None:
    real = _normal(3, 300, 8)
    point = np.repeat(real.mean(axis=0, keepdims=True), 200, axis=0)
    assert precision_recall(real, point) == (1.0, 0.0)
    assert precision_recall(point, real) == (0.0, 1.0)
    assert density_coverage(real, point)[1] < 0.7


def test_equal_and_constant_sets() -> None:
    real, constant = _normal(4, 100, 8), np.full((60, 8), 0.7, np.float32)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert density_coverage(real, real)[1] == 1.0
    assert precision_recall(constant, constant) == (1.0, 1.0)
    assert precision_recall(constant, real + 5) == (0.0, 0.0)


def test_half_of_two_clusters() -> None:
    real = np.concatenate([_normal(5, 200, 4), _normal(6, 200, 4, 100.0)])
    precision, recall = precision_recall(real, _normal(7, 200, 4))
    assert precision > 0.8 and 0.4 < recall <= 0.5


def test_an_outlier_among_the_reals_lifts_precision_and_not_density() -> None:
    """What density is for. Naeem et al. 2020, figure 3: the outlier's ball is as wide as everything."""
    real, fake = _normal(8, 200, 4), _normal(9, 200, 4, 8.0)
    assert density_coverage(real, fake)[0] == 0
    real[0] = 60
    assert precision_recall(real, fake)[0] == 1
    assert density_coverage(real, fake)[0] == pytest.approx(1 / 5)


def test_shift_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = _normal(10, 130, 6).astype(np.float64), _normal(11, 130, 6, 0.2).astype(np.float64)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    assert (precision_recall(real + 1e4, fake + 1e4), density_coverage(real + 1e4, fake + 1e4)) == whole
    monkeypatch.setattr(distances, "ROWS", 65)
    monkeypatch.setattr(distances, "COLUMNS", 65)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_bad_input(function) -> None:
    real, fake = _normal(0, 20, 4), _normal(1, 20, 4)
    for k in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=f"k is {k}: give a whole number of at least 1"):
            function(real, fake, k)
    with pytest.raises(ValueError, match="real has 20 examples: 21 or more"):
        function(real, fake, 20)
    with pytest.raises(ValueError, match="fake has 3 features, the other set 4"):
        function(real, fake[:, :3])
    with pytest.raises(ValueError, match=r"real has shape \(20, 2, 2\)"):
        function(real.reshape(20, 2, 2), fake)
    with pytest.raises(ValueError, match="fake has dtype uint8"):
        function(real, fake.astype(np.uint8))
    with pytest.raises(ValueError, match="fake has 0 examples"):
        function(real, fake[:0])
    for bad in (np.nan, np.inf):
        spoilt = fake.copy()
        spoilt[7, 2] = bad
        with pytest.raises(ValueError, match="fake has NaN or infinite entries, first in example 7"):
            function(real, spoilt)


@pytest.mark.slow
@pytest.mark.optimised
def test_10000_normal_vectors_in_1000_dimensions() -> None:
    """Naeem et al. 2020's README: .4772, .4705, 1.0555, .9735. Here are means and sds over three seeds.

    Of one law, so density is 1 and coverage 1 - 2^-5 in expectation.
    """
    real, fake = _normal(0, 10_000, 1000), _normal(1, 10_000, 1000)
    found = (*precision_recall(real, fake, 5), *density_coverage(real, fake, 5))
    for value, (mean, sd) in zip(found, ((0.475, 0.020), (0.479, 0.006), (0.990, 0.079), (0.966, 0.009)), strict=True):
        assert value == pytest.approx(mean, abs=3 * sd)
