"""Table 3 of Radford et al. 2015: the 1-NN error of test digits whose neighbours are generated, by number of them."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from experiments.reproduce import dcgan_models as models
from experiments.reproduce import draw, published
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from experiments.reproduce.pca import rows
from vaegan_jax import gan, metrics, plots
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics.distances import nearest
from vaegan_jax.metrics.subject import as_float

BLOCK = 50_000  # generated images at a time
SHUFFLES = 5
TITLES = {"dcgan": "DCGAN", "gan": "GAN"}


def real(job: Job) -> Outcome:
    """What real digits reach: no training, so exact."""
    first, train, test = job.load("mnist", "train[:50000]"), job.load("mnist"), job.load("mnist", "test")

    def error(among: Dataset, chosen: Any = slice(None)) -> float:
        job.tick()
        return 100 * metrics.nearest_neighbor_error(
            among.x[chosen], np.asarray(among.label)[chosen], test.x, test.label
        )

    shuffled = [error(train, np.random.default_rng(i).permutation(len(train))[: len(first)]) for i in range(SHUFFLES)]
    said = f"{SHUFFLES} permutations: {', '.join(f'{e:.2f}' for e in shuffled)}"
    found = {
        "real_50k": Measured([error(first)], exact=True, data=(first, test)),
        "real_50k_shuffled": Measured([float(np.mean(shuffled))], exact=True, data=(train, test), note=said),
        "real_60k": Measured([error(train)], exact=True, data=(train, test)),
    }
    names = ("the first 50,000", f"50,000 of all after a shuffle, mean of {SHUFFLES}", "all 60,000")
    lines = [[name, one.values[0]] for name, one in zip(names, found.values(), strict=True)]
    return Outcome(found, [Table("1-NN on real digits, MNIST.", ("training images", "test error, %"), lines)])


def table3(job: Job) -> Outcome:
    """Both conditional nets; more generated digits only add neighbours to those that were there."""
    train, validation, test = models.splits(job, "mnist")
    numbers = job.choose((100, 300), (1_000, 10_000, 50_000, 100_000), (1_000, 10_000, 50_000, 100_000, 1_000_000))
    recipes = {
        "dcgan": (models.small(job, gan.dcgan(conditional=True)), job.choose(10, 2_000, models.PUBLISHED)),
        "gan": (dataclasses.replace(gan.Config(), num_classes=10), job.choose(10, 20_000, 250_000)),
    }
    errors, held = dict[str, np.ndarray](), dict[str, np.ndarray]()
    trained: dict[str, Trained] = {}
    for name, (config, steps) in recipes.items():
        one = trained[name] = job.fit(name, gan, config, train, steps=steps)
        each = [
            job.kept(f"{name}-errors-{seed}", functools.partial(_errors, job, one, seed, numbers, (test, validation)))
            for seed in one.seeds
        ]
        errors[name], held[name] = 100 * np.array(each).reshape(len(each), 2, len(numbers)).swapaxes(0, 1)
    at = int(np.argmin([abs(n - 50_000) for n in numbers]))
    count = min(numbers[at], len(train))
    base = 100 * metrics.nearest_neighbor_error(train.x[:count], train.label[:count], test.x, test.label)
    both = [s for s in trained["dcgan"].seeds if s in trained["gan"].seeds]
    a, b = (errors[name][[trained[name].seeds.index(s) for s in both], at] for name in recipes)
    failed = sorted({s for one in trained.values() for s in one.failed})
    data, steps = (train, validation, test), {name: recipe[1] for name, recipe in recipes.items()}

    def one_row(name: str, values: np.ndarray) -> Measured:
        one = trained[name]
        note = f"validation images (the released code's choice): {draw.spread(held[name][:, at])}"
        return Measured(values.tolist(), one.seeds, one.failed, steps[name], one.config(), data, note=note)

    found = {
        "dcgan_50k": one_row("dcgan", errors["dcgan"][:, at]),
        "gan_50k": one_row("gan", errors["gan"][:, at]),
        "as_real": dataclasses.replace(one_row("dcgan", errors["dcgan"][:, at] - base), note=f"real: {base:.2f} %"),
        "dcgan_below_gan": Measured(
            (a - b).tolist(),
            both,
            failed,
            steps["dcgan"],
            tuple(one.config() for one in trained.values()),
            data,
            note=f"the GAN had {steps['gan']:,} of its 250,000 steps",
        ),
    }
    _draw_errors(job, numbers, errors, base)
    captions = {
        "table3.png": "Table 3: 1-NN error of MNIST's test set on generated digits, mean and range over seeds; dotted: "
        f"{count:,} real ones; crosses: the paper's numbers for 50,000 and 10 million, from memory, unconfirmed.",
    }
    digits = [("MNIST", _real_by_class(train))]
    digits += [(TITLES[name], _by_class(one, one.seeds[0])) for name, one in trained.items() if one.seeds]
    draw.panels(digits, job.figures / "digits.png", columns=20, scale=1)
    captions["digits.png"] = "The paper's figure of conditional samples: two columns a digit, first seed, not selected."
    lines: list[list[Any]] = [
        [f"{n:,}", *(draw.spread(by[name][:, i]) for name in recipes for by in (errors, held))]
        for i, n in enumerate(numbers)
    ]
    lines.append([f"{count:,} real", base, "", "", ""])
    title = "Table 3: 1-NN error in %, by the number of generated digits, mean +- sd over seeds."
    columns = ("generated", "DCGAN, test", "DCGAN, validation", "GAN, test", "GAN, validation")
    return Outcome(found, [Table(title, columns, lines)], captions)


def _errors(
    job: Job, one: Trained, seed: int, numbers: tuple[int, ...], judged: tuple[Dataset, Dataset]
) -> list[list[float]]:
    """The errors of both data sets with the first n generated digits for each n, [2, len(numbers)].

    In parts of BLOCK: only the nearest so far is kept.
    """
    y, known = np.concatenate([rows(d.x) for d in judged]), np.concatenate([d.label for d in judged])
    best, label = np.full(len(y), np.inf), np.full(len(y), -1)
    errors, done = [], 0
    for n in numbers:
        while done < n:
            size = min(BLOCK, n - done)
            rng = np.random.default_rng([seed, done])
            mixed = rng.permutation(np.resize(np.arange(10), size)).astype(np.int32)
            key = jax.random.fold_in(jax.random.key(seed), done)
            x = np.asarray(gan.sample(one.config(), one.state(seed), key, size, mixed)).reshape(size, -1)
            distance, near = (found[:, 0] for found in nearest(y, x))
            closer = distance < best
            best[closer], label[closer] = distance[closer], mixed[near[closer]]
            done += size
            job.tick()
        wrong, first = label != known, len(judged[0].x)
        errors.append([float(wrong[:first].mean()), float(wrong[first:].mean())])
    return np.transpose(errors).tolist()


def _real_by_class(train: Dataset) -> np.ndarray:
    """The first four of each class, laid out as _by_class."""
    four = np.stack([train.x[train.label == digit][:4] for digit in range(10)]).reshape(10, 2, 2, *train.x.shape[1:])
    return as_float(four.swapaxes(0, 1).reshape(40, *train.x.shape[1:]))


def _by_class(one: Trained, seed: int) -> np.ndarray:
    """Two rows of twenty: each digit in two columns."""
    labels = np.tile(np.repeat(np.arange(10), 2), 2).astype(np.int32)
    return models.draws(one, seed, 40, labels)


def _draw_errors(job: Job, numbers: tuple[int, ...], errors: dict[str, np.ndarray], base: float) -> None:
    figure = plots.new_figure(5.2, 3.6)
    axes = figure.subplots()
    for (name, each), colour in zip(errors.items(), (draw.RED, draw.BLUE), strict=True):
        if len(each):
            draw.band(axes, numbers, each, colour, TITLES[name], marker="o", markersize=3.5)
    axes.axhline(base, color=draw.GREY, linewidth=0.8, linestyle=":")
    said = published.entries()["dcgan"]
    for name, colour in (("dcgan", draw.RED), ("gan", draw.BLUE)):
        axes.plot([5e4, 1e7], [said[f"{name}_50k"].value, said[f"{name}_10m"].value], "x", color=colour)
    axes.plot([], [], "x", color=draw.GREY, label="the paper's [M]")
    axes.set(xscale="log", xlabel="generated digits", ylabel="1-NN error, %", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "table3.png")


PARTS = (
    Part(
        "real",
        ("real_50k", "real_50k_shuffled", "real_60k"),
        real,
        says("1-NN on real digits", *["a minute"] * 3),
    ),
    Part(
        "nearest",
        ("dcgan_50k", "gan_50k", "as_real", "dcgan_below_gan"),
        table3,
        says(
            "conditional DCGAN and GAN, 1-NN on what they generate",
            "10 steps each",
            "2,000 and 20,000 steps, up to 100,000 digits, 35 minutes a seed",
            "39,000 and 250,000 steps, up to a million digits",
        ),
    ),
)
