"""Inception score: closed forms and entropies."""

import numpy as np
import pytest
from scipy.stats import entropy

from vaegan_jax.metrics import inception_score


def test_its_ends() -> None:
    assert inception_score(np.full((40, 10), 0.1)) == pytest.approx((1, 0))
    assert inception_score(np.tile(np.eye(10), (20, 1))) == pytest.approx((10, 0))  # sure, and all classes alike
    assert inception_score(np.tile(np.eye(10)[3], (20, 1))) == pytest.approx((1, 0))  # sure, one class


def test_it_is_the_mutual_information() -> None:
    """log of one split's score = H(y) - H(y | x)."""
    probs = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=200)
    assert np.log(inception_score(probs, 1)[0]) == pytest.approx(entropy(probs.mean(0)) - entropy(probs, axis=1).mean())


def test_splits_are_runs_of_the_order_given() -> None:
    probs = np.random.default_rng(1).dirichlet(np.ones(4), size=23)
    parts = [inception_score(part, 1)[0] for part in (probs[:7], probs[7:15], probs[15:])]  # 23 i // 3
    assert inception_score(probs, 3) == pytest.approx((np.mean(parts), np.std(parts)))
    classes = np.repeat(np.eye(2), 10, axis=0)
    assert inception_score(classes, 2)[0] == pytest.approx(1) and inception_score(classes, 1)[0] == pytest.approx(2)


def test_bad_input() -> None:
    good = np.full((20, 4), 0.25)
    for bad, match in (
        (good * 2, "are no probabilities"),
        (good - [0.5, -0.5, 0.5, -0.5], "are no probabilities"),
        (np.log(good), "are no probabilities"),
        (good * np.nan, "NaN"),
        (np.eye(4, dtype=int), "dtype int64"),
        (good[0], r"give \[N, C\]"),
    ):
        with pytest.raises(ValueError, match=match):
            inception_score(bad, 2)
    with pytest.raises(ValueError, match="20 examples for 21 splits"):
        inception_score(good, 21)
    with pytest.raises(ValueError, match="splits is 0"):
        inception_score(good, 0)
