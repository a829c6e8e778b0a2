"""What stands in for the eye: the classifier of a data set looks at samples, as features and as classes."""

from collections.abc import Callable

import numpy as np

from experiments.reproduce.job import Job
from vaegan_jax.metrics import features, frechet

COMMON = 0.01
"""The share of samples from which on a class counts as there."""


def dataset(job: Job, name: str) -> str:
    """The data set itself, or for a smoke the 8x8 digits, as the other classifiers take minutes to train."""
    return "digits" if job.budget == "smoke" else name


def network(job: Job, name: str) -> features.Extractor:
    """The classifier of `dataset`, trained on first use."""
    found = features.classifier(dataset(job, name), data_dir=job.data_dir, progress=job.progress)
    job.judged_by(found)
    return found


def shares(probabilities: np.ndarray) -> np.ndarray:
    """Of the classes among the likeliest ones of N images: [N, C] -> [C]."""
    return np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(probabilities)


def common(share: np.ndarray) -> float:
    """How many of the classes are there."""
    return float((share >= COMMON).sum())


def entropy(share: np.ndarray) -> float:
    """-sum p log p of shares [C], nats."""
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def judge(extractor: features.Extractor, reference: frechet.Statistics) -> Callable[[np.ndarray], dict[str, float]]:
    """Samples [N, H, W, C] -> frechet: the distance to the reference; entropy of the classes' shares, nats; classes:
    how many are there."""

    def measure(x: np.ndarray) -> dict[str, float]:
        if not np.isfinite(x).all():
            return {"frechet": float("nan")}  # `fit` stops there, and the seed counts as failed
        found, probabilities = extractor.both(x, progress=False)
        mine, share = frechet.statistics(found), shares(probabilities)
        return {
            "frechet": frechet.frechet_from_statistics(mine.mu, mine.sigma, reference.mu, reference.sigma),
            "entropy": entropy(share),
            "classes": common(share),
        }

    return measure
