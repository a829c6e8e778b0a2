"""Generative adversarial nets (Goodfellow et al. 2014)

Table 1 is a Parzen-window likelihood of 10,000 samples: 225 nats on MNIST. Beside it stand its ceilings, samples
that no generator made: by the same protocol real images, and k-means centroids, which nobody would call samples and
which beat the images: Theis et al. 2016's point.
Theorem 1 by quadrature, without any net: the game's value for the best discriminator is -log 4 + 2 JSD. Figures 2 and 3
are of the trained generators: nearest training images, and lines between two latents.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from experiments.reproduce import draw, gan_table1
from experiments.reproduce.gan_table1 import splits
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from experiments.reproduce.pca import rows
from vaegan_jax import metrics, plots
from vaegan_jax.metrics.distances import nearest
from vaegan_jax.metrics.parzen import SIGMAS

OFFSETS = np.linspace(0, 8, 33)
"""Distances of the two Gaussians of theorem 1, in standard deviations."""


def jensen_shannon(offset: float, ratio: float = 1.0) -> float:
    """JSD of N(0, 1) and N(offset, ratio^2), nats: entropy of the mixture less the mean of the entropies."""

    def integrand(x: float) -> float:
        m = (math.exp(_log_density(x)) + math.exp(_log_density(x, offset, ratio))) / 2
        return -m * math.log(m) if m > 0 else 0.0

    return _integral(integrand, offset, ratio) - (norm(0, 1).entropy() + norm(offset, ratio).entropy()) / 2


def best_value(offset: float, ratio: float = 1.0) -> float:
    """V(D*, G) = E_p log D* + E_q log(1 - D*) with D* = p / (p + q), proposition 1; p, q as in jensen_shannon."""

    def integrand(x: float) -> float:
        # log D* = -log(1 + q / p), in logarithms: far out both densities are 0.
        p, q = _log_density(x), _log_density(x, offset, ratio)
        return float(-math.exp(p) * np.logaddexp(0, q - p) - math.exp(q) * np.logaddexp(0, p - q))

    return _integral(integrand, offset, ratio)


def _log_density(x: float, mean: float = 0.0, deviation: float = 1.0) -> float:
    """Of N(mean, deviation^2); scipy's takes fifty times as long for one number, of which quadrature asks for many."""
    return -0.5 * ((x - mean) / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)


def _integral(f: Any, offset: float, ratio: float) -> float:
    low, high = min(0, offset) - 12 * max(1, ratio), max(0, offset) + 12 * max(1, ratio)
    return float(quad(f, low, high, points=(0.0, offset / 2, offset), epsabs=1e-11, epsrel=1e-11, limit=500)[0])


def theorem(job: Job) -> Outcome:
    """Theorem 1: C(G) = max_D V = -log 4 + 2 JSD(p_data || p_g), its minimum -log 4 where the two are the same."""
    pairs = [(float(offset), ratio) for ratio in (1.0, 0.3, 3.0) for offset in OFFSETS]
    value = {pair: best_value(*pair) for pair in pairs}
    divergence = {pair: jensen_shannon(*pair) for pair in pairs}
    worst = max(abs(value[pair] - (2 * divergence[pair] - math.log(4))) for pair in pairs)
    at = min(value, key=lambda pair: value[pair])
    figure = plots.new_figure(5.2, 3.4)
    axes = figure.subplots()
    for ratio, colour in ((1.0, draw.BLUE), (0.3, draw.RED), (3.0, draw.GREY)):
        axes.plot(OFFSETS, [value[float(o), ratio] for o in OFFSETS], color=colour, label=f"sd of $p_g$: {ratio:g}")
    axes.axhline(-math.log(4), color="0.6", linewidth=0.8, linestyle=":")
    axes.annotate("-log 4", (8, -math.log(4)), (0, 4), textcoords="offset points", fontsize=8, ha="right")
    axes.set(xlabel="distance of the means", ylabel="C(G), nats", ylim=(-1.5, 0.05))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "theorem1.png")
    caption = "Theorem 1: the value of the game for the best discriminator, p_data = N(0, 1) against other Gaussians."
    found = {
        "theorem1_minimum": Measured([value[at]], exact=True, note=f"at mean {at[0]:g} and deviation {at[1]:g}"),
        "theorem1_divergence": Measured([worst], exact=True, note=f"largest of {len(pairs)} pairs of Gaussians"),
    }
    return Outcome(found, figures={"theorem1.png": caption})


DRAWS = 5
"""Of every kind of samples that no generator made."""
KINDS = {
    "real": "training images", "kmeans_grid": "k-means centroids", "kmeans": "the same, sigma by .01",
    "gaussian": "a Gaussian fitted to the images", "gaussian_clipped": "the same, cut to [0, 1]",
}  # fmt: skip


def ceilings(job: Job) -> Outcome:
    """What the protocol says of samples that need no generator."""
    train, validation, test = splits(job)
    x, held, y = rows(train.x), rows(validation.x), rows(test.x)
    n = job.choose(500, 10_000, 10_000)
    fine = np.linspace(0.1, 0.2, job.choose(2, 11, 11))

    def draw_once(seed: int) -> dict[str, tuple[float, float, float]]:
        """(sigma, mean, standard error) of each kind of samples."""
        rng = np.random.default_rng(seed)
        gaussian = _gaussian(x, n, rng)
        real = x[rng.permutation(len(x))[:n]]
        centroids = _centroids(x, n, rng, job)
        return {
            "real": _parzen(real, held, y),
            "kmeans_grid": _parzen(centroids, held, y),
            # The number of PAPERS.md is of a sigma between two of the grid.
            "kmeans": _by_hand(centroids, held, y, fine),
            # The protocol refuses what leaves [0, 1], which a Gaussian does: by hand, on the same grid.
            "gaussian": _by_hand(gaussian, held, y, SIGMAS),
            "gaussian_clipped": _parzen(np.clip(gaussian, 0, 1), held, y),
        }

    draws = job.choose(2, DRAWS, DRAWS)
    each = [job.kept("draw", functools.partial(draw_once, seed), of=(seed,)) for seed in range(draws)]
    found, means, lines = dict[str, Measured](), dict[str, np.ndarray](), []
    for name in each[0]:
        sigmas, values, errors = np.array([one[name] for one in each]).T
        means[name] = values
        said = ", ".join(f"{s:.3g}" for s in np.unique(sigmas))
        lines.append([KINDS[name], said, draw.spread(values, 5), float(errors.mean())])
        if name != "kmeans_grid":
            note = f"sigma {said}, standard error over test images {errors.mean():.2g}"
            found[name] = Measured(values.tolist(), exact=True, data=(train, validation, test), note=note)
    found["centroids_beat_samples"] = Measured(
        (means["kmeans_grid"] - means["real"]).tolist(), exact=True, data=(train, validation, test),
        note="both by the same grid",
    )  # fmt: skip
    columns = (f"{n:,} samples", "sigma", f"log-likelihood, nats, {draws} draws", "standard error over test images")
    return Outcome(found, [Table("The same protocol on samples that no generator made.", columns, lines)])


def _parzen(samples: np.ndarray, held: np.ndarray, test: np.ndarray) -> tuple[float, float, float]:
    """(sigma, mean, standard error) by the released protocol."""
    found = metrics.parzen_estimate(samples, held, test, count=len(samples))
    return found.sigma, found.mean, found.standard_error


def _by_hand(
    samples: np.ndarray, held: np.ndarray, test: np.ndarray, sigmas: Sequence[float] | np.ndarray
) -> tuple[float, float, float]:
    """The same, for points anywhere and any grid."""
    curve = [metrics.parzen_log_likelihood(samples, held[:1000], sigma).mean() for sigma in sigmas]
    sigma = float(sigmas[int(np.argmax(curve))])
    values = metrics.parzen_log_likelihood(samples, test, sigma)
    return sigma, float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _gaussian(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n draws of the Gaussian with mean and covariance of x [N, D]."""
    mean = x.mean(axis=0, dtype=np.float64)
    centred = x - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    noise = rng.normal(size=(n, x.shape[1])) * np.sqrt(np.maximum(values, 0))
    return (mean + noise @ vectors.T).astype(np.float32)


def _centroids(x: np.ndarray, n: int, rng: np.random.Generator, job: Job, rounds: int = 5) -> np.ndarray:
    """n centroids of x [N, D] after so many Lloyd rounds from n of the examples; one without examples stays."""
    centres = x[rng.permutation(len(x))[:n]].copy()
    for i in range(job.choose(1, rounds, rounds)):
        own = nearest(x, centres)[1][:, 0]
        count = np.bincount(own, minlength=n)
        total = np.zeros_like(centres, np.float64)
        np.add.at(total, own, x)
        there = count > 0
        centres[there] = (total[there] / count[there, None]).astype(np.float32)
        job.say(f"k-means: round {i + 1} of {rounds}")
    return centres


PARTS = (
    Part("theorem", ("theorem1_minimum", "theorem1_divergence"), theorem, says("quadrature", *["seconds"] * 3)),
    Part(
        "ceilings",
        ("real", "kmeans", "gaussian", "gaussian_clipped", "centroids_beat_samples"),
        ceilings,
        says("Parzen windows of samples that no generator made", "500 of each", *["10,000 of each, 5 minutes"] * 2),
    ),
    *gan_table1.PARTS,
)
