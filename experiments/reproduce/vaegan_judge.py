"""What a classifier says of one seed of a model: of its reconstructions of test images, and of its samples.

An attribute is a class; the attributes of an image are the judge's logits, less their mean.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import inversion
from experiments.reproduce import samples as eye
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Trained
from vaegan_jax import losses, metrics
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import features
from vaegan_jax.metrics.subject import as_float

SHOWN = 12  # reconstructions that are kept for a figure
BLOCK = 250  # images that go through a model at once
CLASSES, SAME_CLASS = 0.8, 0.5
"""A run succeeds if so many of the classes are there (see samples.common), and so many of its reconstructions keep
their class."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    extractor: features.Extractor
    test: Dataset
    features: np.ndarray  # [N, D] of test
    probabilities: np.ndarray  # [N, C] of test

    @property
    def classes(self) -> int:
        return int(self.probabilities.shape[1])


def judge(job: Job, name: str) -> Judge:
    """The classifier of the data set, trained on first use, and its test images."""
    extractor = features.classifier(name, data_dir=job.data_dir, progress=job.progress)
    job.judged_by(extractor)
    test = job.load(name, job.choose("test[:128]", "test", "test"))
    return Judge(extractor, test, *extractor.both(test.x, progress=job.progress))


SOUGHT = ("vaegan", "gan")
"""Models whose codes of a few images are sought by descent: a GAN has no encoder, and what is compared with it none
that is used."""


def few(budget: str) -> int:
    """Test images that codes are sought for."""
    return {"smoke": SHOWN, "cpu": 100, "paper": 1_000}[budget]


def attributes(probabilities: np.ndarray) -> np.ndarray:
    """Class probabilities [N, C] -> the logits less their mean, [N, C]."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    return logs - logs.mean(axis=1, keepdims=True)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rows of [N, C] and [N, C] -> [N]."""
    return (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)


def pixel_error(x: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Mean squared error a pixel, in [0, 1]: [N, H, W, C] and [N, H, W, C] -> [N]."""
    return ((as_float(x) - rebuilt) ** 2).reshape(len(x), -1).mean(axis=1)


def reconstruct(algorithm: Any, config: Any, state: Any, x: np.ndarray, key: jax.Array) -> np.ndarray:
    """Dec(z) for one z ~ q(z | x) an image, in blocks: [N, H, W, C], float32."""
    blocks = [
        np.asarray(algorithm.reconstruct(config, state, jnp.asarray(x[i : i + BLOCK]), jax.random.fold_in(key, i)))
        for i in range(0, len(x), BLOCK)
    ]
    return np.concatenate(blocks)


def rate(algorithm: Any, config: Any, state: Any, x: np.ndarray) -> float:
    """Mean of KL(q(z | x) || N(0, I)) over x [N, H, W, C], nats: how much the codes may say of an image."""
    starts = range(0, len(x), BLOCK)
    codes = (algorithm.encode(config, state, jnp.asarray(x[i : i + BLOCK])) for i in starts)
    return float(np.concatenate([np.asarray(losses.kl_standard_normal(*code)) for code in codes]).mean())


def of_reconstructions(judge: Judge, rebuilt: np.ndarray) -> dict[str, float]:
    """rebuilt: of the first n test images. Means over them."""
    n = len(rebuilt)
    found, probabilities = judge.extractor.both(rebuilt, progress=False)
    before = judge.probabilities[:n]
    return {
        "pixel_error": float(pixel_error(judge.test.x[:n], rebuilt).mean()),
        "similarity": float(cosine(attributes(before), attributes(probabilities)).mean()),
        "feature_similarity": float(cosine(judge.features[:n], found).mean()),
        "same_class": float((before.argmax(axis=1) == probabilities.argmax(axis=1)).mean()),
    }


def of_samples(judge: Judge, samples: np.ndarray) -> dict[str, float]:
    """Distances to the test images, and how many classes are there."""
    found, probabilities = judge.extractor.both(samples, progress=False)
    size = min(1000, len(samples), len(judge.features))
    ours, theirs = metrics.statistics(found), metrics.statistics(judge.features)
    precision, recall = metrics.precision_recall(judge.features, found)
    return {
        "frechet": metrics.frechet_from_statistics(ours.mu, ours.sigma, theirs.mu, theirs.sigma),
        "kernel": metrics.kernel_distance(found, judge.features, subset_size=size)[0],
        "precision": precision,
        "recall": recall,
        "classes": eye.common(eye.shares(probabilities)),
    }


def numbers(job: Job, judge: Judge, model: str, trained: Trained, seed: int) -> dict[str, float]:
    """of_samples; of_reconstructions and kl (see rate) of all test images, where there is an encoder; success.

    few_*: of_reconstructions of the first few(budget) by the best code of each (see inversion), of those in SOUGHT.
    Kept beside the trainings, with the first SHOWN reconstructions, by the encoder where there is one.
    """
    name = f"{judge.test.name}-{model}-{seed}.sought"
    found: dict[str, float] = models.shared(job).kept(
        name, lambda: _numbers(job, judge, model, trained, seed), of=(models.steps(job.budget), *_sought(job))
    )
    return found


def _sought(job: Job) -> tuple[int, int]:
    """Images whose codes are sought, and the steps of each search."""
    return few(job.budget), job.choose(2, 200, 300)


def _numbers(job: Job, judge: Judge, model: str, trained: Trained, seed: int) -> dict[str, float]:
    algorithm, config, state = models.ALGORITHMS[model], trained.config(), trained.state(seed)
    key, n = jax.random.key(seed), len(judge.test)
    found = of_samples(judge, np.asarray(algorithm.sample(config, state, jax.random.fold_in(key, 10), n)))
    if model in SOUGHT:
        images, descent = _sought(job)
        x = judge.test.x[:images]
        _, rebuilt = inversion.invert(algorithm, config, state, jax.random.fold_in(key, 11), x, steps=descent)
        found |= {f"few_{name}": value for name, value in of_reconstructions(judge, rebuilt).items()}
    if model != "gan":
        rebuilt = reconstruct(algorithm, config, state, judge.test.x, jax.random.fold_in(key, 12))
        found |= of_reconstructions(judge, rebuilt) | {"kl": rate(algorithm, config, state, judge.test.x)}
    found["success"] = float(succeeds(found, judge.classes))
    np.save(_pictures(job, judge, model, seed), rebuilt[:SHOWN])
    return found


def shown(job: Job, judge: Judge, model: str, seed: int) -> np.ndarray:
    """The first SHOWN reconstructions of a seed whose `numbers` were taken."""
    return np.load(_pictures(job, judge, model, seed), allow_pickle=False)


def _pictures(job: Job, judge: Judge, model: str, seed: int) -> Any:
    return models.shared(job).workdir / f"{judge.test.name}-{model}-{seed}.rebuilt.npy"


def succeeds(found: dict[str, float], classes: int) -> bool:
    """Whether a run that stayed finite is of use: neither samples nor codes have collapsed."""
    return found["classes"] >= CLASSES * classes and found.get("same_class", 1.0) >= SAME_CLASS
