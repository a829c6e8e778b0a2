"""Precision and recall, density and coverage: how much of each set lies on the other's manifold of k-NN balls.

Every set is a union of balls around its examples, each as wide as the distance to the k-th nearest other example of
its set. N real and M fake features [., D] of one network, best as many of each. In blocks, exact as in float64.
"""

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax.metrics import distances, inputs


def precision_recall(real: ArrayLike, fake: ArrayLike, k: int = 3) -> tuple[float, float]:
    """(precision, recall), each in [0, 1]: fakes within the real manifold, reals within the fake one.

    Kynkaanniemi et al. 2019, eqs. 1 and 2 (d <= r, so duplicates count: a constant set is a manifold of one point).
    A generator of one good point has precision 1 and recall 0.

    Raises ValueError for k below 1, k or fewer examples, unequal widths, a dtype that is not floating, NaN.
    """
    k = inputs.count("k", k, 1)
    real, fake = inputs.feature_pair("real", real, "fake", fake, least=(k + 1, k + 1))
    precise, _ = distances.within(fake, real, _squared_radius(real, k))
    recalled, _ = distances.within(real, fake, _squared_radius(fake, k))
    return float((precise > 0).mean()), float((recalled > 0).mean())


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of fakes [M, D] among real [N, D]. Naeem et al. 2020, eqs. 3 and 4.

    Density is the mean number of real balls around a fake over k: at least 0, and 1 if the sets are of one law.
    Coverage is the share of real balls that hold a fake, in [0, 1]; of one law its expectation is
    `expected_coverage(N, M, k)`, not 1. An outlier among the fakes harms neither.

    Raises ValueError as `precision_recall`, but one fake is enough.
    """
    k = inputs.count("k", k, 1)
    real, fake = inputs.feature_pair("real", real, "fake", fake, least=(k + 1, 1))
    balls, members = distances.within(fake, real, _squared_radius(real, k))
    return float(balls.mean() / k), float((members > 0).mean())


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """The coverage of N reals by M fakes of the same continuous law, on average. Naeem et al. 2020, appendix C.

    1 - prod_{i=1..k} (N - i) / (N + M - i): of a real's N + M - 1 others, the k nearest are all real.
    """
    k = inputs.count("k", k, 1)
    n, m = inputs.count("n", n, k + 1), inputs.count("m", m, 1)
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def _squared_radius(x: np.ndarray, k: int) -> np.ndarray:
    """[N]: squared distance of each example to its k-th nearest other one."""
    return distances.nearest(x, x, k, same=True)[0][:, -1]
