"""Modes of mixtures and of stacked MNIST, with the numbers of a perfect sampler."""

import jax
import numpy as np
import pytest

from vaegan_jax import data
from vaegan_jax.metrics import mode_coverage, mode_divergence, modes, stacked_modes


def _one_hot(digits: np.ndarray, sure: float = 1.0) -> np.ndarray:
    return np.eye(10)[digits] * (sure - (1 - sure) / 9) + (1 - sure) / 9


def test_a_perfect_sampler_finds_every_mode() -> None:
    for toy, count, sd in ((data.toy.ring, 8, 0.01), (data.toy.grid, 25, 0.05)):
        points, centres = toy(jax.random.key(count), 20000)
        found, good = mode_coverage(points, centres, sd)
        assert found == count
        assert good == pytest.approx(1 - np.exp(-4.5), abs=3e-3)  # a Rayleigh radius within 3
        assert mode_divergence(points, centres) == pytest.approx((count - 1) / 40000, abs=1e-3)


def test_a_mode_counts_when_a_good_point_hits_it() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    points = np.array([[0.3, 0.0], [0.0, 0.31], [10.0, 0.4], [0.0, 0.0]])  # inside, outside, outside, inside
    assert mode_coverage(points, centres, 0.1) == (1, 0.5)
    assert mode_coverage(points, centres, 0.2) == (2, 1.0)
    assert mode_coverage(points + 100, centres, 0.1) == (0, 0.0)
    assert mode_divergence(points, centres) == pytest.approx(np.log(3) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25))


def test_blocks_change_nothing(key: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centres = data.toy.grid(key, 500)
    whole = mode_coverage(points, centres, 0.03)
    monkeypatch.setattr(modes, "ENTRIES", 333)
    assert mode_coverage(points, centres, 0.03) == whole


def test_stacked_modes_at_both_ends() -> None:
    digits = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=1)
    every = stacked_modes(_one_hot(digits, 0.91))
    assert (every.n, every.modes, every.kl) == (1000, 1000, pytest.approx(0, abs=1e-12))
    assert every.confidence == pytest.approx(0.91)
    one = stacked_modes(_one_hot(np.full((50, 3), 7)))
    assert (one.modes, one.kl, one.confidence) == (1, pytest.approx(np.log(1000)), 1)
    two = stacked_modes(_one_hot(np.array([[0, 0, 1], [1, 0, 0]])))  # the channel matters
    assert two.modes == 2


def test_the_floor_is_that_of_simulated_uniform_draws() -> None:
    for n in (200, 2000):
        rng = np.random.default_rng(n)
        runs = [stacked_modes(_one_hot(rng.integers(0, 10, (n, 3)))) for _ in range(20)]
        found, kl = modes.uniform_floor(n, 1000)
        assert (runs[0].expected_modes, runs[0].expected_kl) == (found, kl)
        assert np.mean([r.modes for r in runs]) == pytest.approx(found, rel=0.01)
        assert np.mean([r.kl for r in runs]) == pytest.approx(kl, rel=0.01)


def test_the_floor_in_closed_form() -> None:
    found, kl = modes.uniform_floor(26000, 1000)
    assert found == pytest.approx(1000, abs=1e-6) and kl == pytest.approx(999 / 52000, rel=0.02)
    assert modes.uniform_floor(1, 1000) == (pytest.approx(1), pytest.approx(np.log(1000)))
    # two draws over two: the same one (KL log 2) half of the time
    assert modes.uniform_floor(2, 2) == (pytest.approx(1.5), pytest.approx(np.log(2) / 2))
    assert modes.uniform_floor(5, 1) == (1, 0)


def test_bad_input() -> None:
    points, centres = np.zeros((4, 2)), np.ones((3, 2))
    for sd in (0, -1, np.nan, np.inf, None):
        with pytest.raises(ValueError, match=f"sd is {sd}: give a finite number above 0"):
            mode_coverage(points, centres, sd)
    with pytest.raises(ValueError, match="centres has 3 features"):
        mode_coverage(points, np.ones((3, 3)), 0.1)
    with pytest.raises(ValueError, match="points has NaN"):
        mode_coverage(points * np.nan, centres, 0.1)
    with pytest.raises(ValueError, match="points has 0 examples"):
        mode_divergence(points[:0], centres)
    with pytest.raises(ValueError, match=r"shape \(4, 10, 3\): give \[N, 3, 10\]"):
        stacked_modes(np.full((4, 10, 3), 1 / 3))
    with pytest.raises(ValueError, match="are no probabilities"):
        stacked_modes(np.zeros((4, 3, 10)))
    with pytest.raises(ValueError, match="n is 0"):
        modes.uniform_floor(0, 10)
