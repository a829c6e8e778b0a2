"""The birthday paradox: how many different examples can a generator make? Arora and Zhang 2017.

Among s draws from S equally likely examples a pair is the same with probability about 1 - exp(-s^2 / 2S). So if
batches of s have a duplicate half of the time, the support is about s^2 or smaller.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import logs
from vaegan_jax.metrics import distances, inputs


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The closest pairs of a batch, closest first: what a person looks at."""

    first: np.ndarray  # [candidates]: rows of the samples
    second: np.ndarray  # [candidates]
    distance: np.ndarray  # [candidates], Euclidean


@dataclass(frozen=True)
class Collisions:
    """How often batches of `batch` samples hold a pair nearer than the threshold."""

    batch: int
    probability: float
    support: int | None  # batch^2, the paper's estimate, where the probability is a half or more; else None: larger


def duplicates(samples: ArrayLike, n: int | None = None, *, candidates: int = 20, seed: int = 0) -> Duplicates:
    """The `candidates` closest pairs among n of samples [N, ...] (all if None), drawn by the seed without replacement.

    Pixels say who is near, a person who is the same: look at the pairs. Arora and Zhang 2017, section 3, with its 20.
    Raises ValueError for n or candidates out of range, another dtype, NaN.
    """
    rows = inputs.rows("samples", samples, least=2)
    n = len(rows) if n is None else inputs.count("n", n, 2, len(rows), ", the number of samples")
    candidates = inputs.count("candidates", candidates, 1, n * (n - 1) // 2, f", the pairs of {n}")
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), n, replace=False))
    # Each end of one of the c closest pairs has at most c others at least as near, so c neighbours each are enough.
    squared, row = distances.nearest(rows[chosen], rows[chosen], min(candidates, n - 1), same=True)
    i, j = np.repeat(np.arange(n), squared.shape[1]), row.ravel()
    pairs, at = np.unique(np.minimum(i, j) * n + np.maximum(i, j), return_index=True)
    order = np.lexsort((pairs, squared.ravel()[at]))[:candidates]
    pairs, distance = pairs[order], np.sqrt(squared.ravel()[at][order])
    return Duplicates(chosen[pairs // n], chosen[pairs % n], distance)


def collisions(samples: ArrayLike, batch: int, threshold: float, *, batches: int = 100, seed: int = 0) -> Collisions:
    """How often a batch drawn from samples [N, ...] has a pair at a distance of at most `threshold` (0: equal ones).

    Each of the `batches` is drawn by the seed without replacement; they overlap unless N is well above batch * batches.
    Raises ValueError for a batch out of range, a negative threshold, another dtype, NaN.
    """
    rows = inputs.rows("samples", samples, least=2)
    batch = inputs.count("batch", batch, 2, len(rows), ", the number of samples")
    batches = inputs.count("batches", batches, 1)
    if not (np.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold is {threshold}: give a finite distance of at least 0.")
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in logs.steps(batches, "collisions, batches of samples"):
        chosen = rows[rng.choice(len(rows), batch, replace=False)]
        hits += bool(np.sqrt(distances.nearest(chosen, chosen, same=True)[0].min()) <= threshold)
    return Collisions(batch, hits / batches, batch**2 if 2 * hits >= batches else None)
