"""Frechet distance between Gaussians fitted to features (FID, of Inception features). Heusel et al. 2017, eq. 6.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

tr (S1 S2)^(1/2) is the sum of singular values of F1^T F2 for any factors S = F F^T. A factor comes from a symmetric
eigendecomposition, or from the centred features themselves when they are fewer than their width; so nothing is ever
complex, and no square is taken of what is rooted later. In float64. N examples, D features.

A value depends on the network and on the number of examples (`features.metric_name` names both): none without them
compares.
"""

import hashlib
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import logs
from vaegan_jax.metrics import inputs

ENOUGH = 2048  # examples under which a distance says more about their number than about the model


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of N features, float64. n and network are 0 and "" where a file does not say them."""

    mu: np.ndarray  # [D]
    sigma: np.ndarray  # [D, D], divided by N - 1
    n: int = 0
    network: str = ""

    def __post_init__(self) -> None:
        mu, sigma = _gaussian("mu", self.mu, "sigma", self.sigma)
        object.__setattr__(self, "mu", mu)
        object.__setattr__(self, "sigma", sigma)


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """Frechet distances at several numbers of examples, and the line through them over 1 / N."""

    value: float  # at 1 / N = 0; noise may leave it slightly negative
    slope: float
    sizes: np.ndarray  # [sizes], rising
    distances: np.ndarray  # [sizes]


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared Frechet distance between features a [N, D] and b [M, D] of one network, at least 0.

    It is not corrected for its bias: between N and M draws of one law it is about (1 / N + 1 / M) times a constant.
    Under 2,048 examples that is most of it, and a UserWarning says so.

    Raises ValueError for fewer than 2 examples, unequal widths, a dtype that is not floating, NaN.
    """
    a, b = inputs.feature_pair("a", a, "b", b, least=(2, 2))
    _warn(len(a), len(b))
    return _distance(_Gaussian.of(a), _Gaussian.of(b))


def frechet_from_statistics(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """Squared Frechet distance between N(mu1 [D], sigma1 [D, D]) and N(mu2, sigma2).

    Raises ValueError for unequal widths, NaN, and a sigma that is not symmetric or has a negative eigenvalue.
    """
    mu1, sigma1 = _gaussian("mu1", mu1, "sigma1", sigma1)
    mu2, sigma2 = _gaussian("mu2", mu2, "sigma2", sigma2)
    if mu1.shape != mu2.shape:
        raise ValueError(f"mu1 has {mu1.size} features, mu2 {mu2.size}: give both from one network.")
    return _distance(_Gaussian.from_moments(mu1, sigma1), _Gaussian.from_moments(mu2, sigma2))


def frechet_infinity(
    features: ArrayLike,
    reference: Statistics,
    *,
    sizes: int = 15,
    smallest: int | None = None,
    seed: int = 0,
    network: str = "",
) -> Extrapolation:
    """The distance of infinitely many features [N, D] to the reference: the intercept over 1 / N, without the bias.

    Chong and Forsyth 2020, algorithm 1: `sizes` numbers of examples, evenly spaced from `smallest` (default N / 10) to
    N, each a random subset, and a line by least squares. The bias of the reference's own number stays: use all of the
    data for it. network: whose features they are, if it is to be held against the reference's.

    The line holds for many examples only: a UserWarning says if `smallest` is below D or 2,048.

    Raises ValueError for too few examples, unequal widths, another network, a dtype that is not floating, NaN.
    """
    sizes = inputs.count("sizes", sizes, 2)
    if network and reference.network and network != reference.network:
        raise ValueError(
            f"features are of {network!r} and the reference is of {reference.network!r}: take both from one network."
        )
    features = inputs.features("features", features, least=2 * sizes, width=reference.mu.size)
    N = len(features)
    smallest = max(2, N // 10) if smallest is None else inputs.count("smallest", smallest, 2, N - sizes)
    least = max(ENOUGH, reference.mu.size)
    if smallest < least:
        warnings.warn(
            f"The smallest size, {smallest:,}, is below {least:,}: with fewer examples than 2,048, or than features, "
            "the distances leave the line over 1 / N. Give more examples, or a larger `smallest`.",
            stacklevel=2,
        )
    rng = np.random.default_rng(seed)
    target = _Gaussian.from_moments(reference.mu, reference.sigma)
    counts = np.linspace(smallest, N, sizes).astype(int)
    found = np.array(
        [
            _distance(_Gaussian.of(features[rng.permutation(N)[: counts[i]]]), target)
            for i in logs.steps(sizes, "Frechet distances, numbers of examples")
        ]
    )
    slope, value = np.polyfit(1 / counts, found, 1)
    return Extrapolation(float(value), float(slope), counts, found)


def statistics(features: ArrayLike, network: str = "") -> Statistics:
    """Mean and covariance (divided by N - 1) of features [N, D]; `network`: what they are features of."""
    x = inputs.features("features", features, least=2)
    mu, sigma = _moments(x)
    return Statistics(mu, sigma, len(x), network)


def save(path: str | Path, stats: Statistics, digest: str = "") -> None:
    """Writes `mu` and `sigma` as pytorch-fid reads them, with n, network and the data's digest; never half a file."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path} does not end in .npz: give such a name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        try:
            np.savez(file, mu=stats.mu, sigma=stats.sigma, n=stats.n, network=stats.network, digest=digest)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def load(path: str | Path) -> Statistics:
    """Statistics from an npz of `save`, pytorch-fid, or any with `mu` and `sigma`.

    Raises ValueError if there is no such file, or it has other contents.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file: give an npz with mu and sigma.")
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = file["mu"], file["sigma"]
            n, network = (int(file["n"]), str(file["network"])) if "n" in file and "network" in file else (0, "")
    except (KeyError, TypeError, OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no npz with arrays mu and sigma ({error}): write one with `save`.") from error
    return Statistics(mu, sigma, n, network)


def cached(
    folder: str | Path, digest: str, weights: str, network: str, features: Callable[[], ArrayLike]
) -> Statistics:
    """Statistics of a data set from `folder`, or computed from `features()` [N, D] and left there.

    digest: of the data (`Dataset.sha256`); weights: of the network (`Extractor.digest`); network: its name. They key
    the file, so other data or another network never meet it. A damaged file is one warning, and is made anew.
    """
    if not digest or not weights or not network:
        raise ValueError(
            f"digest is {digest!r}, weights {weights!r}, network {network!r}: give all, as they key the cache."
        )
    key = hashlib.sha256(f"{digest}\n{weights}\n{network}".encode()).hexdigest()[:32]
    path = Path(folder) / f"frechet-{key}.npz"
    if path.is_file():
        try:
            return load(path)
        except ValueError as error:
            warnings.warn(f"The cached file {path} is damaged, and is made anew: {error}", stacklevel=2)
    stats = statistics(features(), network)
    save(path, stats, digest)
    return stats


@dataclass(frozen=True, eq=False)
class _Gaussian:
    mu: np.ndarray  # [D]
    factor: np.ndarray  # [D, any]: sigma is factor @ factor.T

    @staticmethod
    def of(x: np.ndarray) -> "_Gaussian":
        if len(x) >= x.shape[1]:
            return _Gaussian.from_moments(*_moments(x))
        x = x.astype(np.float64)
        mu = x.mean(axis=0)
        return _Gaussian(mu, (x - mu).T / np.sqrt(len(x) - 1))

    @staticmethod
    def from_moments(mu: np.ndarray, sigma: np.ndarray) -> "_Gaussian":
        values, vectors = np.linalg.eigh(sigma)
        # eigh is accurate to about D * eps of the largest eigenvalue: what is below is rounding, and its root large.
        rounding = len(mu) * np.finfo(np.float64).eps * np.abs(values).max()
        if values[0] < -1e3 * rounding:
            raise ValueError(
                f"A covariance has the eigenvalue {values[0]:.3g}: give one of features, none is negative."
            )
        return _Gaussian(mu, vectors * np.sqrt(np.where(values > rounding, values, 0)))


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    """|m1 - m2|^2 + |F1|^2 + |F2|^2 - 2 sum of singular values of F1^T F2."""
    shift, cross = a.mu - b.mu, np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + (a.factor**2).sum() + (b.factor**2).sum() - 2 * cross))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, divided by N - 1."""
    mu, scatter = inputs.moments(x)
    return mu, scatter / (len(x) - 1)


def _gaussian(first: str, mu: ArrayLike, second: str, sigma: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    mu, sigma = np.asarray(mu, np.float64), np.asarray(sigma, np.float64)
    if mu.ndim != 1 or mu.size == 0 or sigma.shape != (mu.size, mu.size):
        raise ValueError(f"{first} has shape {mu.shape}, {second} {sigma.shape}: give [D] and [D, D].")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"{first} or {second} has NaN or infinite entries: take them from finite features.")
    if not np.allclose(sigma, sigma.T, rtol=1e-5, atol=1e-6 * np.abs(sigma).max()):
        raise ValueError(f"{second} is not symmetric: give a covariance.")
    return mu, (sigma + sigma.T) / 2


def _warn(*counts: int) -> None:
    if min(counts) < ENOUGH:
        warnings.warn(
            f"A Frechet distance of {min(counts)} examples is biased upwards by their number; give {ENOUGH} or more, "
            "or use frechet_infinity or kernel_distance.",
            stacklevel=3,
        )
