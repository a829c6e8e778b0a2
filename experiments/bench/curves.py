"""Whether a peer's losses are ours within noise."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

FEWEST = 64  # steps of a curve that can be judged
BLOCKS = 8


def compare(ours: Sequence[np.ndarray], theirs: np.ndarray | None) -> dict[str, Any]:
    """ours: curves of one or more seeds, theirs: one, [n, 2] each -> {"agrees", "means", "allowed", "steps", "seeds"}.

    agrees: `yes`, `no: ` and both means of the last half of the shortest curve, or `too few steps`. means and allowed:
    of each loss; where theirs has no second one, of the sum. allowed: how far the means may lie apart, four standard
    errors of their difference, and at least 1 % of the level: other draws, another path. The error is that within
    curves (of means of eight blocks about a line, as steps that follow each other are not independent), and where ours
    has several seeds that between them, if it is larger.
    """
    n = min([len(curve) for curve in ours] + [0 if theirs is None else len(theirs)])
    if not ours or theirs is None or n < FEWEST:
        return {"agrees": "too few steps", "means": [], "allowed": [], "steps": n, "seeds": len(ours)}
    if np.isnan(theirs[:, 1]).all():
        ours, theirs = [curve.sum(axis=1, keepdims=True) for curve in ours], theirs[:, :1]
    means, allowed, said = list[list[Any]](), list[Any](), []
    for i in range(theirs.shape[1]):
        halves, other = [curve[n // 2 : n, i] for curve in ours], theirs[n // 2 : n, i]
        each = np.array([half.mean() for half in halves])
        mean, its = float(each.mean()), float(other.mean())
        error = math.hypot(*(_error(half) for half in (halves[0], other)))
        if len(each) > 1:
            error = max(error, each.std(ddof=1) * math.sqrt(1 + 1 / len(each)))
        allowed.append(max(4 * error, 0.01 * max(abs(mean), abs(its))))
        means.append([mean, its])
        if not abs(mean - its) <= allowed[-1]:
            said.append(f"{mean:.3g} and {its:.3g}")
    agrees = "no: " + "; ".join(said) if said else "yes"
    # JSON has no NaN, which a peer that diverged gives.
    means = [[value if math.isfinite(value) else None for value in pair] for pair in means]
    allowed = [value if math.isfinite(value) else None for value in allowed]
    return {"agrees": agrees, "means": means, "allowed": allowed, "steps": n, "seeds": len(ours)}


def _error(values: np.ndarray) -> float:
    """Standard error of the mean of values [n]: what a falling curve has of slope is not noise."""
    blocks, at = np.array([part.mean() for part in np.array_split(values, BLOCKS)]), np.arange(BLOCKS)
    line = np.polynomial.Polynomial.fit(at, blocks, 1)
    return math.sqrt(((blocks - line(at)) ** 2).sum() / (BLOCKS - 2) / BLOCKS)
