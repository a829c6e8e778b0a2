"""Table 1 of Larsen et al. 2016: do faces that are made for a vector of attributes show them? VAE, GAN, VAE/GAN on LFW.

All nets are told the attributes of a face (section 4.2). For those of each test face ten faces are made, a regressor
that was trained on real ones says what it sees in them, and the best of the ten counts. Figure 6 shows them.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw, lfw, vaegan_judge
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import classifier, gan, vaegan
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

COMPARED = {"vae": vaegan, "gan": gan, "vaegan": vaegan}
DRAWS = 10
METRICS = ("similarity", "error")


def config(model: str, base: vaegan.Config, attributes: int) -> Any:
    """The same nets for all three. The VAE is VAE/GAN without L_GAN and with the pixels as Dis_l: N(Dec(z), I)."""
    if model == "vae":
        pixels = base.discriminator.clone(feature_layer="input")
        found = dataclasses.replace(base, gan_weight=0.0, gamma=1.0, discriminator=pixels)
    else:
        found = models.config(model, base, ())
    return dataclasses.replace(found, num_classes=attributes, labels="attributes")


def regressor(job: Job, attributes: int) -> classifier.Config:
    """A convolutional net whose outputs are the scores; faces are mirrored and moved."""
    net = classifier.ConvClassifier(
        channels=job.choose((4, 4), (16, 32, 64, 128), (32, 64, 128, 256)), hidden=job.choose(8, 256, 512)
    )
    steps = regressor_steps(job.budget)
    return classifier.Config(
        net=net,
        num_classes=attributes,
        labels="attributes",
        flip=True,
        batch_size=job.choose(16, 128, 128),
        optimizer=Optimizer(learning_rate=2e-3, linear_to=steps),
    )


def regressor_steps(budget: str) -> int:
    return {"smoke": 5, "cpu": 1_500, "paper": 10_000}[budget]


def similarity(y: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Cosine of rows: [N, A] twice -> [N]."""
    return vaegan_judge.cosine(y.astype(np.float64), seen.astype(np.float64))


def error(y: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Squared error, summed over attributes, as the sizes of the table's two columns say: [N, A] twice -> [N]."""
    return ((y.astype(np.float64) - seen) ** 2).sum(axis=1)


def best(y: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Means over faces of the best of the draws: y [N, A], seen [K, N, A]."""
    return {
        "similarity": float(np.max([similarity(y, each) for each in seen], axis=0).mean()),
        "error": float(np.min([error(y, each) for each in seen], axis=0).mean()),
    }


def run(job: Job) -> Outcome:
    train, test = lfw.load(job)
    if job.budget == "smoke":
        train, test = _first(train, 80), _first(test, 20)
    assert test.label is not None
    y, shape = test.label, train.x.shape[1:]
    steps, base = models.steps(job.budget), models.base(job, shape)
    eyes = job.fit("regressor", classifier, regressor(job, y.shape[1]), train, steps=regressor_steps(job.budget))
    trained = {"test": eyes}
    for name, algorithm in COMPARED.items():
        one = job.fit(name, algorithm, config(name, base, y.shape[1]), train, steps=steps)
        judged = {seed: run for seed, run in one.runs.items() if seed in eyes.seeds}
        trained[name] = Trained(judged, tuple(sorted({*one.failed, *eyes.failed})))  # a seed needs both

    def see(seed: int, x: np.ndarray) -> np.ndarray:
        blocks = (x[i : i + vaegan_judge.BLOCK] for i in range(0, len(x), vaegan_judge.BLOCK))
        return np.concatenate([np.asarray(classifier.classify(eyes.config(), eyes.state(seed), b)[0]) for b in blocks])

    found: dict[str, dict[int, Mapping[str, float]]] = {
        "test": {seed: best(y, see(seed, test.x)[None]) for seed in eyes.seeds}
    }
    shown = [("test images", test.x[: vaegan_judge.SHOWN])]
    for name, algorithm in COMPARED.items():
        one, found[name] = trained[name], {}
        for seed in one.seeds:
            seen, first = list[np.ndarray](), list[np.ndarray]()
            for key in jax.random.split(jax.random.key(9), DRAWS):
                made = np.asarray(algorithm.sample(one.config(), one.state(seed), key, len(y), y))
                seen.append(see(seed, made))
                first.append(made[: vaegan_judge.SHOWN])
            found[name][seed] = best(y, np.stack(seen))
            if seed == one.seeds[0]:
                likest = np.argmax([similarity(y, each)[: vaegan_judge.SHOWN] for each in seen], axis=0)
                shown.append((models.TITLES[name], np.stack(first)[likest, np.arange(len(likest))]))
        job.tick()
    row = functools.partial(over_seeds, trained, found, data=(train, test))
    rows: dict[str, Measured] = {}
    for name in found:
        for metric in METRICS:
            value = operator.itemgetter(metric)
            rows[f"lfw_{name}_{metric}"] = row(
                value, name, steps=regressor_steps(job.budget) if name == "test" else steps
            )
    for other in ("vae", "gan"):
        rows[f"lfw_over_{other}"] = row(
            lambda a, b: a["similarity"] - b["similarity"], "vaegan", other, steps=steps,
        )  # fmt: skip
    draw.panels(shown, job.figures / "fig6-lfw.png", columns=min(vaegan_judge.SHOWN, len(test)), scale=1)
    lines = [
        ["test images" if name == "test" else models.TITLES[name],
         *(draw.spread([v[metric] for v in each.values()], 4) for metric in METRICS)]
        for name, each in found.items()
    ]  # fmt: skip
    title = (
        f"Attributes that a regressor sees in {len(test):,} test faces, and in the best of {DRAWS} faces made for the "
        f"attributes of each; {steps:,} steps. Mean +- sd over seeds."
    )
    caption = (
        "Figure 6: test faces, and of ten that each model made for their attributes the one in which the regressor "
        f"sees them best; {steps:,} steps, first seed, not selected otherwise."
    )
    columns = ("faces", "cosine similarity", "squared error, sum over attributes")
    return Outcome(rows, [Table(title, columns, lines)], {"fig6-lfw.png": caption})


def _first(data: Dataset, n: int) -> Dataset:
    assert data.label is not None
    return Dataset(data.x[:n], data.label[:n], data.name, data.split)


PART = Part(
    "lfw",
    (*(f"lfw_{name}_{metric}" for name in ("test", *COMPARED) for metric in METRICS), "lfw_over_vae", "lfw_over_gan"),
    run,
    says(
        f"VAE, GAN and VAE/GAN that are told attributes, where a folder lfw of images and {lfw.LIST} lie in the cache "
        "of data; else nothing",
        "2 steps of perceptrons",
        "800 steps each, and a regressor; hours",
        "37,500 steps each",
    ),
)
