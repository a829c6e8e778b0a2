"""Modes found: of a mixture with known centres, and of the 1000 of stacked MNIST."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlog1py, xlogy

from vaegan_jax.metrics import inputs

if TYPE_CHECKING:
    from vaegan_jax.metrics.features import Extractor

ENTRIES = 2**22  # differences of a block of points at once


@dataclass(frozen=True)
class StackedModes:
    """Of n stacked images. A perfect sampler's own numbers lie beside: its KL is not 0, its modes not always all."""

    n: int
    modes: int  # of 1000, hit by at least one image
    kl: float  # of the images' modes to uniform, nats, in [0, log 1000]
    confidence: float  # mean of the classifier's largest probability of a digit; low: it counts what are no digits
    expected_modes: float  # of n draws with uniform digits
    expected_kl: float  # of these, nats
    data_modes: float  # of n draws with the digits' own shares
    data_kl: float  # of these, nats: what a perfect model of the data comes to


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


def mode_divergence(points: ArrayLike, centres: ArrayLike, sd: float | None = None) -> float:
    """KL of the points' shares of the nearest centres to uniform, nats, in [0, log M]: PacGAN's "reverse KL".

    points [N, D], centres [M, D]. With `sd` points farther than 3 of it from every centre do not count, as in PacGAN's
    code; where none is left it is log M, as if all lay in one mode. Raises ValueError as `mode_coverage`.
    """
    points, centres = inputs.feature_pair("points", points, "centres", centres)
    owner, distance = _owner(points, centres)
    if sd is not None:
        owner = owner[distance <= 3 * inputs.positive("sd", sd)]
    return _kl_to_uniform(np.bincount(owner, minlength=len(centres))) if len(owner) else math.log(len(centres))


def stacked_modes(probs: ArrayLike, shares: ArrayLike | None = None) -> StackedModes:
    """Stacked MNIST: probs [N, 3, 10], a digit classifier's probabilities for each image's three channels.

    An image's mode is its three likeliest digits. Metz et al. 2017; Lin et al. 2018 use N = 26,000.

    shares [10]: of the digits in the data (np.bincount(labels) / len(labels)); None: uniform. Divergences are to the
    uniform distribution all the same, as in the papers, so a perfect model of MNIST, whose digits are not uniform,
    comes to .0235 at 26,000 and not to .0194.

    Raises ValueError for another shape, for rows that are no probabilities, and shares that are none.
    """
    probs = inputs.probabilities("probs", probs, "[N, 3, 10]", 3)
    if probs.shape[1:] != (3, 10):
        raise ValueError(f"probs has shape {probs.shape}: give [N, 3, 10].")
    counts = np.bincount(probs.argmax(axis=2) @ np.array([100, 10, 1]), minlength=1000)
    share = np.full(10, 0.1) if shares is None else inputs.probabilities("shares", shares, "[10]", 1)
    if share.shape != (10,):
        raise ValueError(f"shares has shape {share.shape}: give [10], one for each digit.")
    share = share / share.sum()
    # Of sorted digits, so that modes of the same three have the same probability to the last bit.
    digits = np.sort(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=0)
    expected_modes, expected_kl = uniform_floor(len(probs), 1000)
    data_modes, data_kl = floor(len(probs), share[digits].prod(axis=0))
    return StackedModes(
        n=len(probs),
        modes=int((counts > 0).sum()),
        kl=_kl_to_uniform(counts),
        confidence=float(probs.max(axis=2).mean()),
        expected_modes=expected_modes,
        expected_kl=expected_kl,
        data_modes=data_modes,
        data_kl=data_kl,
    )


def stack(x: ArrayLike, seed: int, n: int) -> np.ndarray:
    """Stacked MNIST: n images [n, H, W, 3] of x [N, H, W, 1], three draws with replacement each; of x's own dtype.

    Metz et al. 2017, section 3.3.1. x is uint8 or floating point. A function of its arguments: the first images are
    the same for any n. Raises ValueError for another shape or dtype, no images, NaN, a negative seed, n below 1.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[3] != 1:
        raise ValueError(f"x has shape {x.shape}: give images of one channel, [N, H, W, 1].")
    inputs.rows("x", x)
    seed, n = inputs.count("seed", seed, 0), inputs.count("n", n, 1)
    chosen = np.random.default_rng(seed).integers(0, len(x), (n, 3))
    return np.stack([x[chosen[:, channel], :, :, 0] for channel in range(3)], axis=-1)


def stacked_probabilities(classifier: "Extractor", samples: ArrayLike, *, progress: bool = True) -> np.ndarray:
    """The class probabilities [N, 3, classes] of each channel of samples [N, H, W, 3], for `stacked_modes`.

    classifier: of images of one channel, such as features.classifier("mnist"). Raises ValueError for another shape,
    and what the classifier refuses.
    """
    x = np.asarray(samples)
    if x.ndim != 4 or x.shape[3] != 3:
        raise ValueError(f"samples has shape {x.shape}: give stacked images, [N, H, W, 3].")
    N, H, W, _ = x.shape
    channels = x.transpose(0, 3, 1, 2).reshape(3 * N, H, W, 1)
    return classifier.probabilities(channels, progress=progress).reshape(N, 3, -1)


def uniform_floor(n: int, modes: int) -> tuple[float, float]:
    """`floor` of uniform draws over so many modes; its KL is about (M - 1) / 2n."""
    modes = inputs.count("modes", modes, 1)
    return floor(n, np.full(modes, 1 / modes))


def floor(n: int, probabilities: ArrayLike) -> tuple[float, float]:
    """(modes found, KL to uniform in nats) expected of n draws over modes of these probabilities [M]; not simulated.

    The sum of 1 - (1 - p)^n, and log M + the sum of E[(c / n) log(c / n)] with c ~ Binomial(n, p).
    Raises ValueError for n below 1 and for what are no probabilities.
    """
    n, each = inputs.count("n", n, 1), inputs.probabilities("probabilities", probabilities, "[M]", 1)
    c = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    value = xlogy(c / n, c / n)
    found, kl = 0.0, math.log(len(each))
    for p, modes in zip(*np.unique(each, return_counts=True), strict=True):
        found -= modes * math.expm1(xlog1py(n, -p))
        kl += modes * float(np.exp(ways + xlogy(c, p) + xlog1py(n - c, -p)) @ value)
    return found, max(0.0, kl)


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
