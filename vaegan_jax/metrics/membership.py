"""Membership inference: does a score of a model tell the examples that it was trained on from others?

The score is the attacker's: a discriminator's output (Hayes et al. 2019, LOGAN), a VAE's bound.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def membership_auc(members: ArrayLike, others: ArrayLike) -> float:
    """How often a member's score [N] is above one of another example's [M], in [0, 1]; ties count half.

    The area under the attack's ROC curve (Mann and Whitney's U over N M): 1/2 says that the score tells nothing.

    Raises ValueError for no scores, another shape or dtype, NaN.
    """
    a, b = _scores("members", members), _scores("others", others)
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def _scores(name: str, x: ArrayLike) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1 or not len(x) or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise ValueError(f"{name} are {x.dtype} {x.shape}: give finite floats, one score for each example, [N].")
    return x
