"""Table 1 of Goodfellow et al. 2014 by the released recipe, its figures 2 and 3, and the recipe's variants."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw, inversion, published, results
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from experiments.reproduce.pca import rows
from vaegan_jax import gan, metrics, plots
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics.distances import nearest
from vaegan_jax.metrics.neighbors import Memorisation

ROWS = {"DBN": "dbn", "Stacked CAE": "stacked_cae", "Deep GSN": "deep_gsn", "Adversarial nets": "table1"}
"""The paper's names -> entries of published.toml: MNIST, nats, standard errors over test images."""
RELEASED = gan.Config(bias_margin=1e-7)
VARIANTS = {
    "table1_margin": dataclasses.replace(RELEASED, bias_margin=1e-3),
    "table1_normal": dataclasses.replace(RELEASED, prior="normal", prior_scale=1.0),
}
"""Row -> config."""
TITLES = {
    "maxout": "as released",
    "table1_margin": "output biases of pixel means kept off 0 and 1 by .001",
    "table1_normal": "z from N(0, I), as in the first release",
}
LOST = (
    " A line that stays below 0 is a lost game: the discriminator is sure of every image, and the generator learns "
    "nothing from it."
)


def splits(job: Job) -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test images."""
    return job.load("mnist", "train[:50000]"), job.load("mnist", "train[50000:]"), job.load("mnist", "test")


def whole(job: Job) -> int:
    """Steps of the released recipe."""
    return int(job.choose(20, 40_000, 250_000))


def _train(job: Job, name: str, config: gan.Config, steps: int) -> Trained:
    """In the folder that the parts share. At each mark, a tenth of `whole`, Parzen's estimate is taken on validation
    and test images, so that a choice by the former needs no state but these numbers."""
    train, validation, test = splits(job)
    held, y, n = rows(validation.x), rows(test.x), _count(job)

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        one = metrics.parzen_estimate(_samples(config, state, key, n), held, y, count=n)
        on_held = float(one.validation.max())
        return {"parzen_validation": on_held, "parzen_test": one.mean, "parzen_error": one.standard_error}

    every = whole(job) // 10
    at = tuple(range(every, steps + 1, every))
    return job.beside("trainings").fit(name, gan, config, train, steps=steps, evaluate=evaluate, evaluate_at=at)


def _count(job: Job) -> int:
    return int(job.choose(500, 10_000, 10_000))


def _chosen(trained: Trained, end: int) -> tuple[list[float], str]:
    """The test value at each seed's best mark on validation images up to step `end`, and where that was."""
    where, on_held = trained.curve("parzen_validation")
    on_test, errors = trained.curve("parzen_test")[1], trained.curve("parzen_error")[1]
    early = int((where <= end).sum())
    best = on_held[:, :early].argmax(axis=1)
    said = "; ".join(
        f"seed {seed}: step {where[b]:,}, standard error {errors[i, b]:.2g}, last {on_test[i, early - 1]:.1f}"
        for i, (seed, b) in enumerate(zip(trained.seeds, best, strict=True))
    )
    return [float(on_test[i, b]) for i, b in enumerate(best)], said


def _measured(trained: Trained, steps: int, data: tuple[Dataset, ...]) -> Measured:
    values, note = _chosen(trained, steps)
    return Measured(values, trained.seeds, trained.failed, steps, trained.config(), data, note=note)


def table1(job: Job) -> Outcome:
    """The released recipe; the epoch is chosen on validation images."""
    data = train, _, test = splits(job)
    total = whole(job)
    trained = _train(job, "maxout", RELEASED, total)
    found = {"table1": _measured(trained, total, data)}

    near = []
    for seed in trained.seeds:
        samples = _samples(RELEASED, trained.state(seed), jax.random.key(seed), _count(job))[:2000]
        near.append(metrics.memorisation(samples, rows(train.x), rows(test.x)))
        job.tick()
    ratios = [one.ratio for one in near]
    found["not_copies"] = Measured(ratios, trained.seeds, trained.failed, total, trained.config(), data)
    _draw_curve(job, *trained.curve("parzen_validation"))
    _draw_samples(job, trained, train)
    _draw_distances(job, near)
    known = published.entries()["gan"]
    lost = bool((trained.curve("parzen_validation")[1][:, -1] < 0).any())
    ours = {"table1": ", ".join(f"{v:.1f}" for v in found["table1"].values)}
    lines = [[n, f"{known[row].value:g} +- {known[row].error:g}", ours.get(row, "-")] for n, row in ROWS.items()]
    lines += _no_generators()
    captions = {
        "table1.png": "Parzen log-likelihood of the first 1,000 validation images against steps (500 to an epoch), "
        f"a line each of {len(trained.seeds)} seeds. Dotted, of test images: the paper's generator, and samples that "
        f"no generator made.{LOST if lost else ''}",
        "figure2.png": "Figure 2: samples of the first seed, and below each its nearest training image.",
        "distances.png": "Figure 2 in numbers: distances to the nearest training image, of 2,000 samples of each seed "
        "and of the test images. Copies would lie at 0.",
        "figure3.png": "Figure 3: straight lines between two z, first seed.",
    }
    columns = ("model", "published, nats", "ours, one a seed")
    title = "Table 1, MNIST: +- is the standard error over test images. Below, samples that no generator made."
    curves = {"released recipe": trained.record("parzen_validation", "parzen_test")}
    return Outcome(found, [Table(title, columns, lines)], captions, curves)


def variants(job: Job) -> Outcome:
    """What text, first release and released code leave open, for a part of the schedule: beside it the released recipe
    at the same steps."""
    data, total = splits(job), whole(job)
    end = total // 2 if job.budget == "cpu" else total
    arms = {"maxout": _train(job, "maxout", RELEASED, total)}
    arms |= {name: _train(job, name, config, end) for name, config in VARIANTS.items()}
    found = {name: _measured(arms[name], end, data) for name in VARIANTS}
    lines = []
    for name, one in arms.items():
        each = dict(zip(one.seeds, _chosen(one, end)[0], strict=True))
        lines.append([TITLES[name], *(f"{each[s]:.1f}" if s in each else "failed" for s in job.seeds)])
    title = f"Table 1's recipe and its variants after {end:,} steps: Parzen log-likelihood of the test images, nats."
    curves = {TITLES[name]: one.record("parzen_validation", "parzen_test") for name, one in arms.items()}
    return Outcome(found, [Table(title, ("recipe", *(f"seed {s}" for s in job.seeds)), lines)], curves=curves)


def _no_generators() -> list[list[str]]:
    """What `ceilings` has found, as lines of Table 1."""
    named = {
        "real": "10,000 training images", "kmeans": "10,000 k-means centroids, sigma by .01",
        "gaussian_clipped": "a Gaussian fitted to the images, cut to [0, 1]",
        "gaussian": "the same, not cut",
    }  # fmt: skip
    return [[named[name], "-", f"{mean:.1f}"] for name, mean in _ceilings(named).items()]


def _ceilings(names: Iterable[str]) -> dict[str, float]:
    """Those of the rows that have been run: name -> nats."""
    found = {row["id"]: row["ours"] for row in results.best(results.read("gan"))}
    return {name: ours["mean"] for name in names if (ours := found.get(f"gan.{name}"))}


def _samples(config: gan.Config, state: Any, key: jax.Array, n: int) -> np.ndarray:
    return np.asarray(gan.sample(config, state, key, n)).reshape(n, -1)


def _draw_curve(job: Job, steps: np.ndarray, values: np.ndarray) -> None:
    figure = plots.new_figure(5.2, 3.4)
    axes = figure.subplots()
    for own in values:  # a line each: a mean of games that were won and lost is none of them
        axes.plot(steps, own, color=draw.BLUE, linewidth=1.2, marker="o", markersize=3.5)
    published_value = published.entries()["gan"]["table1"].value
    said = {"real": "10,000 training images", "kmeans": "k-means centroids", "gaussian_clipped": "a Gaussian, cut"}
    levels = {"the paper, test": published_value} | {said[n]: mean for n, mean in _ceilings(said).items()}
    for name, level in levels.items():
        axes.axhline(level, color=draw.GREY, linewidth=0.8, linestyle=":")
        below = name == "the paper, test"  # which is next to the training images
        axes.annotate(
            name, (1, level), (-2, -9 if below else 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=7, color="0.4", ha="right",
        )  # fmt: skip
    axes.set(xlabel="steps", ylabel="validation log-likelihood, nats", ylim=(values.min(initial=-50), 360))
    plots.clean(axes)
    plots.render(figure, job.figures / "table1.png")


def _draw_samples(job: Job, trained: Trained, train: Dataset) -> None:
    if not trained.seeds:
        return
    config, state = trained.config(), trained.state(trained.seeds[0])
    samples = np.asarray(gan.sample(config, state, jax.random.key(0), 20))
    near = nearest(samples.reshape(20, -1), rows(train.x))[1][:, 0]
    plots.nearest(samples, train.x[near] / np.float32(255), job.figures / "figure2.png")

    inversion.lines(config, state, jax.random.key(1), job.figures / "figure3.png")


def _draw_distances(job: Job, near: Sequence[Memorisation]) -> None:
    figure = plots.new_figure(5.2, 3.2)
    axes = figure.subplots()
    edges = np.linspace(0, 12, 81)
    for i, one in enumerate(near):
        label = f"samples, {len(near)} seeds" if i == 0 else None
        axes.hist(one.sample, edges, density=True, histtype="step", color=draw.BLUE, linewidth=1.2, label=label)
    if near:
        axes.hist(near[0].test, edges, density=True, color=draw.GREY, alpha=0.4, label="test images")
    axes.set(xlabel="Euclidean distance to the nearest training image", yticks=[], xlim=(0, 12))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "distances.png")


PARTS = (
    Part(
        "table1",
        ("table1", "not_copies"),
        table1,
        says("the released recipe", "20 steps", "40,000 steps (80 epochs), 25 minutes a seed", "250,000 (500 epochs)"),
    ),
    Part(
        "variants",
        tuple(VARIANTS),
        variants,
        says(
            "other output biases, and a normal z, beside the released recipe",
            "20 steps",
            "20,000 steps of each, 25 minutes a seed, and table1's training",
            "250,000 of each",
        ),
    ),
)
