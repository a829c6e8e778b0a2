"""Parzen-window likelihood of samples: the number of the first GAN papers, by their own protocol.

p(x) = (1/M) sum_m N(x; sample_m, sigma^2 I), Breuleux et al. 2011; the protocol is Goodfellow et al. 2014, section 5
with the released `parzen_ll.py`. It ranks models badly in many dimensions (Theis et al. 2016): the training images
themselves are beaten by their k-means centroids. NumPy in float64, log-sum-exp in blocks. Shapes: M samples, N points,
D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import logs
from vaegan_jax.metrics import inputs

SIGMAS = tuple(np.logspace(-1, 0, 10).tolist())
"""The released grid: .1, .129, .167, .215, .278, .359, .464, .599, .774, 1."""
_POINTS, _SAMPLES = 1024, 2048  # 16 MiB of squared distances at a time


@dataclass(frozen=True, eq=False)
class ParzenEstimate:
    """What the protocol reports; nats."""

    sigma: float  # the best of the grid on validation images
    mean: float  # of the test images' log-likelihoods
    standard_error: float  # their standard deviation / sqrt(N): over test images, not over trainings or samples
    sigmas: np.ndarray  # [S], the grid
    validation: np.ndarray  # [S], mean log-likelihood of the validation images at each


def parzen_log_likelihood(samples: ArrayLike, points: ArrayLike, sigma: float) -> np.ndarray:
    """log p(x) under Gaussian windows of width sigma around samples [M, ...] of points [N, ...]: [N] float64, nats.

    Examples may have any shape, the same in both. Time O(M N D), memory that does not grow with M N.

    Raises ValueError for shapes that differ, no examples, integers, NaN or infinity, and sigma not above 0.
    """
    samples, points = _rows(samples=samples, points=points)
    return _log_likelihoods(samples, points, np.array([inputs.positive("sigma", sigma)]))[0]


def parzen_estimate(
    samples: ArrayLike,
    validation: ArrayLike,
    test: ArrayLike,
    *,
    sigmas: ArrayLike = SIGMAS,
    count: int = 10_000,
    validation_count: int = 1_000,
) -> ParzenEstimate:
    """Goodfellow et al.'s protocol: 10,000 samples, sigma from the first 1,000 validation images, then the test set.

    All three are images in [0, 1], [., ...]: the grid of widths is made for that range. `count` is the number of
    samples expected and `validation_count` that of validation images used; to change either is another protocol, whose
    values are not comparable (50,000 samples in place of 10,000 add 76 nats on MNIST).

    Raises ValueError for another number of samples, too few validation images, fewer than 2 test images, values
    outside [0, 1], sigmas that are not distinct numbers above 0, and what parzen_log_likelihood refuses.
    """
    widths = _widths(sigmas)
    count = inputs.count("count", count, 1)
    validation_count = inputs.count("validation_count", validation_count, 1)
    samples, validation, test = _rows(samples=samples, validation=validation, test=test)
    if len(samples) != count:
        raise ValueError(
            f"{len(samples):,} samples were given, but the protocol takes {count:,}: give as many, or say count="
            f"{len(samples)} (values at another number are not comparable)."
        )
    if len(validation) < validation_count:
        raise ValueError(
            f"{len(validation):,} validation images were given, but sigma is chosen on the first {validation_count:,}: "
            "give as many."
        )
    if len(test) < 2:
        raise ValueError(f"{len(test)} test images were given: a standard error needs 2 or more.")
    for name, images in (("samples", samples), ("validation", validation), ("test", test)):
        low, high = images.min(), images.max()
        if low < 0 or high > 1:
            raise ValueError(f"{name} goes from {low:.3g} to {high:.3g}: give images in [0, 1].")
    curve = _log_likelihoods(samples, validation[:validation_count], widths).mean(axis=1)
    sigma = float(widths[curve.argmax()])
    values = _log_likelihoods(samples, test, np.array([sigma]))[0]
    return ParzenEstimate(sigma, float(values.mean()), float(values.std() / np.sqrt(len(values))), widths, curve)


def _log_likelihoods(samples: np.ndarray, points: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """samples [M, D], points [N, D], sigmas [S] -> [S, N]. The squared distances are computed once for all widths."""
    M, D = samples.shape
    # Squared distances from products lose digits to a common offset, so it is taken out first.
    offset = samples.mean(axis=0, dtype=np.float64)
    log_density = np.empty((len(sigmas), len(points)))
    starts = range(0, len(points), _POINTS)
    for at in logs.steps(len(starts), "Parzen windows, blocks of points"):
        first = starts[at]
        x = points[first : first + _POINTS].astype(np.float64) - offset
        x_norm = np.einsum("nd,nd->n", x, x)
        top = np.full((len(sigmas), len(x)), -np.inf)  # the running log-sum-exp: top + log(total)
        total = np.zeros_like(top)
        for start in range(0, M, _SAMPLES):
            y = samples[start : start + _SAMPLES].astype(np.float64) - offset
            squared = x @ y.T
            squared *= -2
            squared += x_norm[:, None]
            squared += np.einsum("md,md->m", y, y)
            np.maximum(squared, 0, out=squared)  # rounding may go below
            nearest = squared.min(axis=1)
            squared -= nearest[:, None]
            for i, sigma in enumerate(sigmas):
                largest = -nearest / (2 * sigma**2)
                new = np.maximum(top[i], largest)
                windows = squared * (-0.5 / sigma**2)
                inside = np.exp(windows, out=windows).sum(axis=1)
                total[i] = total[i] * np.exp(top[i] - new) + inside * np.exp(largest - new)
                top[i] = new
        log_density[:, first : first + _POINTS] = top + np.log(total)
    return log_density - np.log(M) - 0.5 * D * np.log(2 * np.pi * sigmas**2)[:, None]


def _rows(**named: ArrayLike) -> list[np.ndarray]:
    """Every array checked, of the first one's shape of examples, and flattened: [., D] in its own floating dtype."""
    flat = {name: inputs.rows(name, array, uint8=False) for name, array in named.items()}
    shapes = {name: np.shape(array)[1:] for name, array in named.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise ValueError(
                f"{first} holds examples of {list(shapes[first])}, but {name} of {list(shape)}: give one shape."
            )
    return list(flat.values())


def _widths(sigmas: ArrayLike) -> np.ndarray:
    """[S] float64, each finite, above 0 and given once."""
    try:
        widths = np.asarray(sigmas, np.float64)
    except (TypeError, ValueError):
        widths = np.empty(0)
    good = widths.ndim == 1 and widths.size > 0 and bool((np.isfinite(widths) & (widths > 0)).all())
    if not good or len(np.unique(widths)) < len(widths):
        raise ValueError(f"sigmas is {sigmas!r}: give finite numbers above 0, each once.")
    return widths
