"""Modes found: of a mixture with known centres, and of the 1000 of stacked MNIST."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy
from scipy.stats import binom

from vaegan_jax.metrics import inputs

ENTRIES = 2**22  # differences of a block of points at once


@dataclass(frozen=True)
class StackedModes:
    """Of n stacked images. A perfect sampler's own numbers lie beside: its KL is not 0, its modes not always all."""

    n: int
    modes: int  # of 1000, hit by at least one image
    kl: float  # of the images' modes to uniform, nats, in [0, log 1000]
    confidence: float  # mean of the classifier's largest probability of a digit; low: it counts what are no digits
    expected_modes: float  # of n uniform draws
    expected_kl: float  # of n uniform draws, nats


def mode_coverage(points: ArrayLike, centres: ArrayLike, sd: float) -> tuple[int, float]:
    """(modes, high_quality): points within 3 sd of their nearest centre are good, modes are centres with a good one.

    points [N, D], centres [M, D] of a mixture of N(centre, sd^2 I); modes in 0..M, high_quality the good fraction.
    Srivastava et al. 2017 (VEEGAN), section 4.1, with Lin et al. 2018's (PacGAN) demand of a good point. Perfect draws
    in 2 dimensions have high_quality 1 - exp(-9 / 2) = 0.989.

    Raises ValueError for no points, unequal widths, sd not above 0, NaN.
    """
    points, centres = inputs.feature_pair("points", points, "centres", centres)
    sd = inputs.positive("sd", sd)
    owner, distance = _owner(points, centres)
    good = distance <= 3 * sd
    return len(np.unique(owner[good])), float(good.mean())


def mode_divergence(points: ArrayLike, centres: ArrayLike) -> float:
    """KL of the points' shares of the nearest centres to uniform, nats, in [0, log M]: PacGAN's "reverse KL".

    points [N, D], centres [M, D]. Raises ValueError as `mode_coverage`.
    """
    points, centres = inputs.feature_pair("points", points, "centres", centres)
    return _kl_to_uniform(np.bincount(_owner(points, centres)[0], minlength=len(centres)))


def stacked_modes(probs: ArrayLike) -> StackedModes:
    """Stacked MNIST: probs [N, 3, 10], a digit classifier's probabilities for each image's three channels.

    An image's mode is its three likeliest digits. Metz et al. 2017; Lin et al. 2018 use N = 26,000.
    Raises ValueError for another shape and for rows that are no probabilities.
    """
    probs = inputs.probabilities("probs", probs, "[N, 3, 10]", 3)
    if probs.shape[1:] != (3, 10):
        raise ValueError(f"probs has shape {probs.shape}: give [N, 3, 10].")
    counts = np.bincount(probs.argmax(axis=2) @ np.array([100, 10, 1]), minlength=1000)
    expected_modes, expected_kl = uniform_floor(len(probs), 1000)
    return StackedModes(
        n=len(probs),
        modes=int((counts > 0).sum()),
        kl=_kl_to_uniform(counts),
        confidence=float(probs.max(axis=2).mean()),
        expected_modes=expected_modes,
        expected_kl=expected_kl,
    )


def uniform_floor(n: int, modes: int) -> tuple[float, float]:
    """(modes found, KL to uniform in nats) expected of n uniform draws over `modes`: exact, not simulated.

    M (1 - (1 - 1 / M)^n), and log M + M E[(c / n) log(c / n)] with c ~ Binomial(n, 1 / M), about (M - 1) / 2n.
    """
    n, M = inputs.count("n", n, 1), inputs.count("modes", modes, 1)
    missed = math.exp(n * math.log1p(-1 / M)) if M > 1 else 0.0
    c = np.arange(n + 1)
    return M * (1 - missed), max(0.0, math.log(M) + M * float((binom.pmf(c, n, 1 / M) * xlogy(c / n, c / n)).sum()))


def _owner(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each point and the distance to it, [N] each, by differences, in blocks."""
    owners, least = [], []
    step = max(1, ENTRIES // centres.size)
    for start in range(0, len(points), step):
        block = points[start : start + step].astype(np.float64)
        distance = np.linalg.norm(block[:, None, :] - centres[None, :, :], axis=2)
        owners.append(distance.argmin(axis=1))
        least.append(distance.min(axis=1))
    return np.concatenate(owners), np.concatenate(least)


def _kl_to_uniform(counts: np.ndarray) -> float:
    share = counts / counts.sum()
    return max(0.0, float(xlogy(share, share).sum() + math.log(len(counts))))
