"""Duplicates among samples, and the support that their frequency tells."""

import numpy as np
import pytest

from vaegan_jax.metrics import collisions, duplicates


def test_the_closest_pairs_are_those_of_all_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[10:14] = x[10] + 1e-4 * np.array([[0], [1], [3], [7.5]])  # a clique of four near ones holds six pairs
    every = np.linalg.norm(x[:, None] - x[None], axis=2)
    i, j = np.triu_indices(60, 1)
    order = np.argsort(every[i, j])[:15]
    found = duplicates(x, candidates=15)
    np.testing.assert_array_equal(found.first, i[order])
    np.testing.assert_array_equal(found.second, j[order])
    np.testing.assert_allclose(found.distance, every[i, j][order], rtol=1e-9)


def test_a_batch_is_drawn_by_the_seed() -> None:
    x = np.arange(100.0)[:, None] ** 2
    found = duplicates(x, 30, candidates=5, seed=1)
    np.testing.assert_allclose(found.distance, (x[found.second] - x[found.first])[:, 0])
    assert (np.diff(found.distance) >= 0).all() and (found.first < found.second).all()
    np.testing.assert_array_equal(duplicates(x, 30, candidates=5, seed=1).first, found.first)
    assert duplicates(x, 30, candidates=5, seed=2).distance.tolist() != found.distance.tolist()
    images = np.repeat(np.arange(4, dtype=np.uint8), 2).reshape(8, 1, 1, 1)
    assert duplicates(images, candidates=4).distance.tolist() == [0, 0, 0, 0]


def test_collisions_are_as_frequent_as_birthdays() -> None:
    """100 equally likely vectors, batches of 12: 1 - prod (1 - i / 100) = 0.5031."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 4))[rng.integers(0, 100, 20000)]
    expected = 1 - np.prod(1 - np.arange(12) / 100)
    found = collisions(x, 12, 0.0, batches=150)
    assert found.probability == pytest.approx(expected, abs=0.1)
    few = collisions(x, 6, 0.0, batches=100)
    assert few.probability < 0.3 and few.support is None
    assert collisions(x, 30, 0.0, batches=20).support == 900
    assert collisions(x, 12, 0.0, batches=150) == found


def test_the_threshold_is_inclusive() -> None:
    x = np.array([[0.0], [0.1], [7.0]])
    assert collisions(x, 3, 0.1, batches=2).probability == 1
    assert collisions(x, 3, 0.0999, batches=2) == type(collisions(x, 3, 0.1))(3, 0.0, None)


def test_bad_input() -> None:
    x = np.random.default_rng(2).normal(size=(10, 3))
    with pytest.raises(ValueError, match="n is 11: give a whole number from 2 to 10, the number of samples"):
        duplicates(x, 11)
    with pytest.raises(ValueError, match="candidates is 4: give a whole number from 1 to 3, the pairs of 3"):
        duplicates(x, 3, candidates=4)
    with pytest.raises(ValueError, match="batch is 1"):
        collisions(x, 1, 0.1)
    for threshold in (-0.1, np.nan):
        with pytest.raises(ValueError, match=f"threshold is {threshold}"):
            collisions(x, 5, threshold)
    with pytest.raises(ValueError, match="samples has NaN"):
        collisions(x * np.nan, 5, 0.1)
    with pytest.raises(ValueError, match="samples has 1 examples"):
        duplicates(x[:1])
