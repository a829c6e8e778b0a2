"""Kernel distance (KID): the squared maximum mean discrepancy under a cubic kernel. Binkowski et al. 2018.

k(x, y) = (x.y / D + 1)^3, features [N, D] of one network. Unlike Frechet's its estimate has no bias in N, so it may be
negative. In float64 throughout: the value is a small difference of large means.
"""

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import logs
from vaegan_jax.metrics import inputs


def kernel_distance(
    a: ArrayLike, b: ArrayLike, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(mean, standard deviation) of MMD^2 over `subsets` random subsets of each set, drawn without replacement.

    The deviation is that of one subset's estimate (ddof 0), not of the mean. A function of its arguments:
    the same seed gives the same value.

    Raises ValueError for fewer examples than subset_size, unequal widths, a dtype that is not floating, NaN.
    """
    subsets, size = inputs.count("subsets", subsets, 1), inputs.count("subset_size", subset_size, 2)
    a, b = inputs.feature_pair("a", a, "b", b)
    for name, x in (("a", a), ("b", b)):
        if len(x) < size:
            raise ValueError(f"{name} has {len(x)} examples, fewer than a subset's {size}: give a smaller subset_size.")
    rng = np.random.default_rng(seed)
    draws = [
        _squared_mmd(a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)])
        for _ in logs.steps(subsets, "kernel distance, subsets")
    ]
    return float(np.mean(draws)), float(np.std(draws))


def squared_mmd(a: ArrayLike, b: ArrayLike) -> float:
    """The unbiased estimate of MMD^2 from all of a [N, D] and b [M, D]. Gretton et al. 2012, eq. 3.

    Takes N^2 + M^2 + N M numbers of memory: for sets of many thousands use `kernel_distance`.
    """
    return _squared_mmd(*inputs.feature_pair("a", a, "b", b, least=(2, 2)))


def _squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    a, b = _lifted(a), _lifted(b)
    return _mean_off_diagonal(a) + _mean_off_diagonal(b) - 2 * _sum(a, b) / (len(a) * len(b))


def _lifted(x: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, D + 1], float64, such that the product of two rows is x.y / D + 1."""
    return np.append(x.astype(np.float64) / np.sqrt(x.shape[1]), np.ones((len(x), 1)), axis=1)


def _sum(a: np.ndarray, b: np.ndarray) -> float:
    """Of the kernel over all pairs of lifted rows."""
    values = a @ b.T
    return float(np.vdot(values * values, values))  # ** 3 calls pow, 20 times slower


def _mean_off_diagonal(a: np.ndarray) -> float:
    n = len(a)
    return (_sum(a, a) - float(((a * a).sum(axis=1) ** 3).sum())) / (n * (n - 1))
