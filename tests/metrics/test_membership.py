"""Membership inference: the area under the attack's ROC curve."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vaegan_jax.metrics import membership_auc


def test_it_is_the_share_of_pairs_that_are_in_order():
    assert membership_auc(np.array([3.0, 2.0]), np.array([1.0, 2.5, 2.0])) == pytest.approx((3 + 1.5) / 6)
    assert membership_auc(np.array([5.0]), np.array([1.0, 2.0])) == 1.0
    assert membership_auc(np.array([0.0]), np.array([1.0, 2.0])) == 0.0
    assert membership_auc(np.ones(4), np.ones(3)) == 0.5


def test_it_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 301).round(1), rng.normal(size=200).round(1)  # rounded, so that some tie
    label = np.r_[np.ones(301), np.zeros(200)]
    assert membership_auc(a, b) == pytest.approx(roc_auc_score(label, np.r_[a, b]), abs=1e-12)


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.array([1, 2]), np.array([np.nan])], ids=str)
def test_what_is_no_score_gets_a_sentence(bad):
    with pytest.raises(ValueError, match=r"members are .*give finite floats"):
        membership_auc(bad, np.ones(2))
    with pytest.raises(ValueError, match=r"others are .*give finite floats"):
        membership_auc(np.ones(2), bad)
