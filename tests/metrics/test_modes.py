"""Modes of mixtures and of stacked MNIST, with the numbers of a perfect sampler."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy

from vaegan_jax import data
from vaegan_jax.metrics import mode_coverage, mode_divergence, modes, stacked_modes
from vaegan_jax.metrics.features import Extractor


def _one_hot(digits: np.ndarray, sure: float = 1.0) -> np.ndarray:
    return np.eye(10)[digits] * (sure - (1 - sure) / 9) + (1 - sure) / 9


def test_a_perfect_sampler_finds_every_mode() -> None:
    for toy, count, sd in ((data.toy.ring, 8, 0.01), (data.toy.grid, 25, 0.05)):
        points, centres = toy(jax.random.key(count), 20000)
        found, good = mode_coverage(points, centres, sd)
        assert found == count
        assert good == pytest.approx(1 - np.exp(-4.5), abs=3e-3)  # a Rayleigh radius within 3
        assert mode_divergence(points, centres) == pytest.approx((count - 1) / 40000, abs=1e-3)


def test_divergence_of_good_points_alone() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    points = np.array([[0.1, 0.0], [0.0, 0.2], [10.0, 0.1], [8.0, 0.0], [7.0, 0.0]])
    assert mode_divergence(points, centres) == pytest.approx(np.log(2) - entropy([0.4, 0.6]))
    assert mode_divergence(points, centres, 0.1) == pytest.approx(np.log(2) - entropy([2 / 3, 1 / 3]))
    assert mode_divergence(points[3:], centres, 0.1) == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="sd"):
        mode_divergence(points, centres, 0.0)


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


def test_the_floor_of_any_shares_is_that_of_all_outcomes() -> None:
    p, n = np.array([0.5, 0.3, 0.2, 0.0]), 4
    outcomes = list(itertools.product(range(4), repeat=n))
    weights = [p[list(outcome)].prod() for outcome in outcomes]
    shares = [np.bincount(outcome, minlength=4) / n for outcome in outcomes]
    found, kl = modes.floor(n, p)
    assert found == pytest.approx(np.dot(weights, [(s > 0).sum() for s in shares]), rel=1e-12)
    assert kl == pytest.approx(np.dot(weights, [np.log(4) - entropy(s) for s in shares]), rel=1e-12)
    assert modes.floor(7, np.array([1.0, 0.0])) == (1, pytest.approx(np.log(2)))
    for bad, sentence in ((p * 2, "are no probabilities"), (p[:, None], r"give \[M\]"), (p - 0.1, "are no probab")):
        with pytest.raises(ValueError, match=sentence):
            modes.floor(n, bad)


def test_the_floor_of_mnists_digits() -> None:
    """PAPERS: .019 of uniform draws, .023 of MNIST's. In the limit the KL of the shares, and (M - 1) / 2n beside it."""
    counts = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    shares = counts / counts.sum()
    rng = np.random.default_rng(3)
    drawn = rng.choice(10, (26_000, 3), p=shares)
    found = stacked_modes(_one_hot(drawn), shares)
    limit = 3 * (np.log(10) - entropy(shares)) + 999 / 52_000
    assert found.data_kl == pytest.approx(limit, rel=0.02) and found.data_kl == pytest.approx(0.0235, abs=5e-4)
    assert found.kl == pytest.approx(found.data_kl, abs=0.003)
    assert (found.expected_modes, found.expected_kl) == modes.uniform_floor(26_000, 1000)
    assert found.expected_kl + 0.003 < found.data_kl
    assert 999 < found.data_modes < found.expected_modes
    plain = stacked_modes(_one_hot(drawn))
    assert plain.data_kl == pytest.approx(plain.expected_kl, rel=1e-9) and plain.kl == found.kl
    few = [stacked_modes(_one_hot(rng.choice(10, (300, 3), p=shares)), shares) for _ in range(40)]
    assert np.mean([f.modes for f in few]) == pytest.approx(few[0].data_modes, rel=0.01)
    assert np.mean([f.kl for f in few]) == pytest.approx(few[0].data_kl, rel=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_stacked_images_are_three_draws(dtype: type) -> None:
    """Every pixel of image i is i; the "classifier" reads it."""
    x = np.repeat(np.arange(10, dtype=dtype), 6).reshape(10, 2, 3, 1) / dtype(1 if dtype == np.uint8 else 10)
    x = x.astype(dtype)
    stacked = modes.stack(x, 0, 400)
    assert stacked.shape == (400, 2, 3, 3) and stacked.dtype == dtype
    np.testing.assert_array_equal(stacked, np.broadcast_to(stacked[:, :1, :1], stacked.shape))
    drawn = np.rint(stacked[:, 0, 0] * (1 if dtype == np.uint8 else 10)).astype(int)  # [400, 3]
    for channel in range(3):
        assert (np.bincount(drawn[:, channel], minlength=10) > 15).all()
    assert abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 0.2
    np.testing.assert_array_equal(modes.stack(x, 0, 50), stacked[:50])
    assert (modes.stack(x, 1, 400) != stacked).any()

    def read(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        digit = jnp.rint(x[:, 0, 0, 0] * (1 if x.dtype == jnp.uint8 else 10)).astype(int)
        return x.reshape(len(x), -1), jax.nn.one_hot(digit, 10)

    reader = Extractor("reader", read, (2, 3, 1), block=64)
    probs = modes.stacked_probabilities(reader, stacked)
    assert probs.shape == (400, 3, 10)
    np.testing.assert_array_equal(probs.argmax(axis=2), drawn)
    assert stacked_modes(probs).modes == len({tuple(digits) for digits in drawn})


def test_bad_images() -> None:
    x = np.zeros((4, 2, 2, 1), np.uint8)
    for bad, sentence in (
        (x[..., 0], r"x has shape \(4, 2, 2\): give images of one channel"),
        (np.repeat(x, 3, axis=3), "give images of one channel"),
        (x.astype(int), "x has dtype int64"),
        (x[:0], "x has 0 examples"),
        (np.full(x.shape, np.nan), "x has NaN"),
    ):
        with pytest.raises(ValueError, match=sentence):
            modes.stack(bad, 0, 5)
    for seed, n, sentence in ((-1, 5, "seed is -1"), (0, 0, "n is 0")):
        with pytest.raises(ValueError, match=sentence):
            modes.stack(x, seed, n)
    with pytest.raises(ValueError, match=r"samples has shape \(4, 2, 2, 1\): give stacked images"):
        modes.stacked_probabilities(Extractor("none", lambda x: (x, x), (2, 2, 1)), x)
    for shares in (np.full(9, 1 / 9), np.full(10, 1.0), np.full((1, 10), 0.1)):
        with pytest.raises(ValueError, match="shares"):
            stacked_modes(np.full((4, 3, 10), 0.1), shares)


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
