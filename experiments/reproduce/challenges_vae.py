"""Two challenges of VAEs: how wide the latent space should be, and how the bound generalises from few examples."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from experiments.vae import adam
from vaegan_jax import fit, metrics, plots, vae
from vaegan_jax.data.dataset import Dataset

WIDTHS = (2, 5, 10, 20, 50, 100, 200)
SIZES = (500, 1_000, 2_000, 5_000, 10_000, 50_000)
HELD = 2000  # images of each split whose bound is measured, where there are so many
MEASURES = 10  # times during a training


def steps(budget: str) -> int:
    return {"smoke": 20, "cpu": 12_000, "paper": 120_000}[budget]


def config(latents: int) -> vae.Config:
    """784-500-K tanh and Adam, fresh binarisation."""
    return dataclasses.replace(adam(), latents=latents, splits=("train[:50000]", "train[50000:]", "test"))


def _train(job: Job, name: str, latents: int, n: int) -> Trained:
    """On the first n training images; bound_train and bound_test are of HELD images."""
    train = job.load("mnist", f"train[:{n}]")
    held = job.choose(100, HELD, HELD)
    shown = {"train": _first(train, held), "test": _first(job.load("mnist", "test"), held)}
    total = steps(job.budget)

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        return {f"bound_{split}": fit.validate(vae, config, state, x)["elbo"] for split, x in shown.items()}

    every = max(1, total // MEASURES)
    at = tuple(range(every, total + 1, every))
    return job.fit(
        name, vae, config(latents), train, steps=total, evaluate=evaluate, evaluate_at=at,
        side_by_side=True if job.budget == "smoke" else None,
    )  # fmt: skip


def _first(dataset: Dataset, n: int) -> Dataset:
    label = None if dataset.label is None else dataset.label[:n]
    return Dataset(dataset.x[:n], label, dataset.name, dataset.split)


def _end(one: Trained, split: str) -> dict[int, float]:
    """The bound at the end, of each seed that finished."""
    return dict(zip(one.seeds, one.curve(f"bound_{split}")[1][:, -1].tolist(), strict=True))


def _paired(job: Job, one: Trained, other: Trained, values: Mapping[int, float], data: Any, note: str = "") -> Measured:
    """A value a seed that finished in both."""
    failed = sorted({*one.failed, *other.failed})
    configs = (one.config(), other.config())
    return Measured([*values.values()], [*values], failed, steps(job.budget), configs, data, note=note)


def _less(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def width(job: Job) -> Outcome:
    """How wide should the latent space be?"""
    widths = WIDTHS if job.budget != "smoke" else (2, 20, 200)
    n = job.choose(500, 50_000, 50_000)
    trained = {k: _train(job, f"latents{k}", k, n) for k in widths}
    test = job.load("mnist", "test")
    data = (job.load("mnist", f"train[:{n}]"), test)
    used = {k: {s: _active(one, s, test) for s in one.seeds} for k, one in trained.items()}
    job.tick()
    bound = {k: {split: _end(one, split) for split in ("train", "test")} for k, one in trained.items()}
    last, middle, first = trained[200], trained[20], trained[2]
    active = used[200]
    rows = {
        "width_narrow": _paired(job, middle, first, _less(bound[20]["test"], bound[2]["test"]), data),
        "width_wide": _paired(job, middle, last, _less(bound[20]["test"], bound[200]["test"]), data),
        "width_unused": _paired(
            job, last, last, {s: count / 200 for s, count in active.items()}, data,
            "active: " + ", ".join(f"{count}" for count in active.values()),
        ),
    }  # fmt: skip
    lines = [
        [
            k, *(draw.spread([*bound[k][split].values()], 5) for split in ("train", "test")),
            draw.spread([*used[k].values()]),
        ]
        for k in widths
    ]  # fmt: skip
    columns = ("latents", "train bound", "test bound", "active units")
    title = (
        f"After {steps(job.budget):,} steps: bounds in nats, active units as Burda et al. define them; mean +- sd over "
        "seeds."
    )
    _draw_width(job, widths, bound, used)
    caption = (
        "How wide should the latent space be? Left: the bound against the number of latents, full line on test images, "
        "dotted on training images. Right: how many of them the encoder uses; the grey line is all of them."
    )
    return Outcome(rows, [Table(title, columns, lines)], {"width.png": caption})


def _active(one: Trained, seed: int, test: Dataset) -> int:
    encode = functools.partial(vae.encode, one.config(), one.state(seed))
    parts = [np.asarray(encode(test.x[i : i + 500])[0]) for i in range(0, len(test.x), 500)]
    return metrics.active_units(np.concatenate(parts))


def _draw_width(job: Job, widths: tuple[int, ...], bound: Any, used: Any) -> None:
    figure = plots.new_figure(8.0, 3.3)
    left, right = figure.subplots(1, 2)
    _bands(left, widths, bound)
    left.set(xscale="log", xlabel="latents", ylabel="bound, nats")
    right.plot(widths, widths, color=draw.GREY, linewidth=0.8)
    counts = _matrix([used[k] for k in widths])
    draw.band(right, widths, counts, draw.GREEN, "active", marker="o", markersize=3.5)
    right.set(xscale="log", yscale="log", xlabel="latents", ylabel="active units")
    for axes in (left, right):
        axes.set_xticks(widths, [str(k) for k in widths])
        axes.minorticks_off()
        plots.clean(axes)
    right.set_yticks(widths, [str(k) for k in widths])
    left.legend(frameon=False, fontsize=8)
    draw.seeds(figure, len(counts))
    plots.render(figure, job.figures / "width.png")


def _matrix(columns: list[dict[int, float]]) -> np.ndarray:
    """[S, T] of the seeds that every column has."""
    seeds = [s for s in columns[0] if all(s in column for column in columns)]
    return np.array([[column[s] for column in columns] for s in seeds], np.float64).reshape(len(seeds), len(columns))


def _bands(axes: Any, at: tuple[int, ...], bound: Any) -> None:
    for split, style, colour in (("test", "-", draw.BLUE), ("train", ":", draw.RED)):
        values = _matrix([bound[k][split] for k in at])
        draw.band(axes, at, values, colour, f"{split} images", linestyle=style, marker="o", markersize=3.5)


def size(job: Job) -> Outcome:
    """How much data does a VAE need?"""
    sizes, few = (SIZES, 1_000) if job.budget != "smoke" else ((100, 500), 100)
    trained = {n: _train(job, f"examples{n}", 20, n) for n in sizes}
    test = job.load("mnist", "test")
    data = (job.load("mnist", f"train[:{sizes[-1]}]"), test)
    bound = {n: {split: _end(one, split) for split in ("train", "test")} for n, one in trained.items()}
    gap = {n: _less(bound[n]["train"], bound[n]["test"]) for n in sizes}
    many = sizes[-1]
    best = {n: _best(one) for n, one in trained.items()}
    rows = {
        "size_gap": _paired(job, trained[few], trained[many], _less(gap[few], gap[many]), data),
        "size_gap_all": _paired(job, trained[many], trained[many], gap[many], data),
        "size_data": _paired(
            job, trained[many], trained[few], _less(bound[many]["test"], best[few]), data,
            f"against the best of the {few:,} images' {MEASURES} measurements, as early stopping would find it",
        ),
    }  # fmt: skip
    lines = [
        [
            f"{n:,}", *(draw.spread([*bound[n][split].values()], 5) for split in ("train", "test")),
            draw.spread([*gap[n].values()]), draw.spread([*best[n].values()], 5),
        ]
        for n in sizes
    ]  # fmt: skip
    columns = ("training images", "train bound", "test bound", "gap", "best test bound on the way")
    title = f"After {steps(job.budget):,} steps, 20 latents: nats, mean +- sd over seeds."
    figure = plots.new_figure(5.2, 3.4)
    axes = figure.subplots()
    _bands(axes, sizes, bound)
    stopped = _matrix([best[n] for n in sizes])
    draw.band(axes, sizes, stopped, draw.GREY, "test images, stopped in time", linestyle="--")
    axes.set(xscale="log", xlabel="training images", ylabel="bound, nats")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    draw.seeds(figure, len(stopped))
    plots.render(figure, job.figures / "size.png")
    caption = "How much data does a VAE need? The bound after as many steps, against the number of training images."
    return Outcome(rows, [Table(title, columns, lines)], {"size.png": caption})


def _best(one: Trained) -> dict[int, float]:
    """The largest test bound of a training's measurements."""
    return dict(zip(one.seeds, one.curve("bound_test")[1].max(axis=1).tolist(), strict=True))


PARTS = (
    Part(
        "width",
        ("width_narrow", "width_wide", "width_unused"),
        width,
        says("VAEs of 2 to 200 latents", "20 steps", "12,000 steps each, 8 minutes a seed", "120,000 steps each"),
    ),
    Part(
        "size",
        ("size_gap", "size_gap_all", "size_data"),
        size,
        says("VAEs on 500 to 50,000 images", "20 steps", "12,000 steps each, 7 minutes a seed", "120,000 steps each"),
    ),
)
