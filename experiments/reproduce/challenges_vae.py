"""Two challenges of VAEs: how wide the latent space should be, and how the bound generalises from few examples."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Outcome, Part, Table, Trained, over_seeds, says
from experiments.vae import adam
from vaegan_jax import fit, metrics, plots, vae
from vaegan_jax.data.dataset import Dataset

WIDTHS = (2, 5, 10, 20, 50, 100, 200)
SIZES = (500, 1_000, 2_000, 5_000, 10_000, 50_000)
HELD = 10_000  # images of each split whose bound is measured, where there are so many
MEASURES = 10  # times during a training
Numbers = dict[int, dict[str, float]]
"""Of each finished seed."""


def steps(budget: str) -> int:
    return {"smoke": 20, "cpu": 12_000, "paper": 120_000}[budget]


def config(latents: int) -> vae.Config:
    """784-500-K tanh and Adam, fresh binarisation."""
    return dataclasses.replace(adam(), latents=latents, splits=("train[:50000]", "train[50000:]", "test"))


def _train(job: Job, name: str, latents: int, n: int, new: Dataset) -> Trained:
    """On the first n training images; bound_train is of HELD of them, bound_new of images that it has not seen."""
    train = job.load("mnist", f"train[:{n}]")
    shown = {"train": job.load("mnist", f"train[:{min(n, len(new))}]"), "new": new}
    total = steps(job.budget)

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        return {f"bound_{split}": fit.validate(vae, config, state, x)["elbo"] for split, x in shown.items()}

    every = max(1, total // MEASURES)
    at = tuple(range(every, total + 1, every))
    return job.fit(
        name, vae, config(latents), train, steps=total, evaluate=evaluate, evaluate_at=at,
        side_by_side=True if job.budget == "smoke" else None,
    )  # fmt: skip


def _bounds(one: Trained) -> Numbers:
    """The bound of training and new images at the end, and the best that new ones had on the way."""
    curves = {split: one.curve(f"bound_{split}")[1] for split in ("train", "new")}
    return {
        seed: {"best": float(curves["new"][i].max())} | {split: float(v[i, -1]) for split, v in curves.items()}
        for i, seed in enumerate(one.seeds)
    }


def width(job: Job) -> Outcome:
    """How wide should the latent space be?"""
    widths = WIDTHS if job.budget != "smoke" else (2, 20, 50, 200)
    n = job.choose(500, 50_000, 50_000)
    test = job.load("mnist", f"test[:{job.choose(100, HELD, HELD)}]")
    trained = {k: _train(job, f"latents{k}", k, n, test) for k in widths}
    data = (job.load("mnist", f"train[:{n}]"), test)
    found = {k: _bounds(one) for k, one in trained.items()}
    for k, one in trained.items():
        for seed in one.seeds:
            found[k][seed]["active"] = _active(one, seed, test)
    job.tick()
    row = functools.partial(over_seeds, trained, found, steps=steps(job.budget), data=data)
    rows = {
        "width_narrow": row(lambda a, b: a["new"] - b["new"], 20, 2),
        "width_wide": row(lambda a, b: a["new"] - b["new"], 20, 200),
        "width_active": row(lambda v: v["active"], 200),
        "width_unused": row(lambda a, b: a["active"] - b["active"], 200, 50),
    }
    lines = [[k, _cell(found[k], "train", 5), _cell(found[k], "new", 5), _cell(found[k], "active", 3)] for k in widths]
    columns = ("latents", "train bound", "test bound", "active units")
    title = (
        f"After {steps(job.budget):,} steps: bounds in nats, active units as Burda et al. define them; mean +- sd over "
        "seeds."
    )
    _draw_width(job, widths, found)
    caption = (
        "How wide should the latent space be? Left: the bound against the number of latents, full line on test images, "
        "dotted on training images. Right: how many of them the encoder uses; the grey line is all of them."
    )
    return Outcome(rows, [Table(title, columns, lines)], {"width.png": caption})


def _active(one: Trained, seed: int, test: Dataset) -> int:
    encode = functools.partial(vae.encode, one.config(), one.state(seed))
    parts = [np.asarray(encode(test.x[i : i + 500])[0]) for i in range(0, len(test.x), 500)]
    return metrics.active_units(np.concatenate(parts))


def _draw_width(job: Job, widths: tuple[int, ...], found: Mapping[int, Numbers]) -> None:
    figure = plots.new_figure(8.0, 3.3)
    left, right = figure.subplots(1, 2)
    _bands(left, widths, found, "test images")
    left.set(xscale="log", xlabel="latents", ylabel="bound, nats")
    right.plot(widths, widths, color=draw.GREY, linewidth=0.8)
    counts = _matrix([found[k] for k in widths], "active")
    draw.band(right, widths, counts, draw.GREEN, "active", log=True, marker="o", markersize=3.5)
    right.set(xscale="log", yscale="log", xlabel="latents", ylabel="active units")
    for axes in (left, right):
        axes.set_xticks(widths, [str(k) for k in widths])
        axes.minorticks_off()
        plots.clean(axes)
    right.set_yticks(widths, [str(k) for k in widths])
    left.legend(frameon=False, fontsize=8)
    draw.seeds(figure, len(counts))
    plots.render(figure, job.figures / "width.png")


def _cell(seeds: Numbers, name: str, digits: int) -> str:
    return draw.spread([v[name] for v in seeds.values()], digits)


def _matrix(columns: Sequence[Numbers], name: str) -> np.ndarray:
    """[S, T] of the seeds that every column has."""
    seeds = [s for s in columns[0] if all(s in column for column in columns)]
    values = [[column[s][name] for column in columns] for s in seeds]
    return np.array(values, np.float64).reshape(len(seeds), len(columns))


def _bands(axes: Any, at: Sequence[int], found: Mapping[int, Numbers], new: str) -> None:
    for split, label, style, colour in (("new", new, "-", draw.BLUE), ("train", "training images", ":", draw.RED)):
        values = _matrix([found[k] for k in at], split)
        draw.band(axes, at, values, colour, label, linestyle=style, marker="o", markersize=3.5)


def _gap(v: Mapping[str, float]) -> float:
    return v["train"] - v["new"]


def size(job: Job) -> Outcome:
    """How much data does a VAE need?"""
    sizes, few = (SIZES, 1_000) if job.budget != "smoke" else ((100, 500), 100)
    # Not the test split: MNIST's is of other writers, and easier, which would hide a gap of a nat.
    held = job.load("mnist", f"train[50000:{50_000 + job.choose(100, HELD, HELD)}]")
    trained = {n: _train(job, f"examples{n}", 20, n, held) for n in sizes}
    data = (job.load("mnist", f"train[:{sizes[-1]}]"), held)
    found = {n: _bounds(one) for n, one in trained.items()}
    many = sizes[-1]
    row = functools.partial(over_seeds, trained, found, steps=steps(job.budget), data=data)
    early = f"against the best of the {few:,} images' {MEASURES} measurements, as early stopping would find it"
    rows = {
        "size_gap": row(lambda a, b: _gap(a) - _gap(b), few, many),
        "size_gap_all": row(_gap, many),
        "size_data": row(lambda a, b: a["new"] - b["best"], many, few, note=early),
    }
    lines = [
        [
            f"{n:,}", _cell(found[n], "train", 5), _cell(found[n], "new", 5),
            draw.spread([_gap(v) for v in found[n].values()]), _cell(found[n], "best", 5),
        ]
        for n in sizes
    ]  # fmt: skip
    columns = ("training images", "train bound", "bound of new images", "gap", "best bound of new images on the way")
    title = (
        f"After {steps(job.budget):,} steps, 20 latents: nats, mean +- sd over seeds; new images are {len(held):,} of "
        "the training split that no training saw."
    )
    figure = plots.new_figure(8.4, 3.4)
    left, right = figure.subplots(1, 2)
    _bands(left, sizes, found, "new images")
    stopped = _matrix([found[n] for n in sizes], "best")
    draw.band(left, sizes, stopped, draw.GREY, "new images, stopped in time", linestyle="--")
    left.set(xscale="log", xlabel="training images", ylabel="bound, nats")
    left.legend(frameon=False, fontsize=8)
    gaps = _matrix([found[n] for n in sizes], "train") - _matrix([found[n] for n in sizes], "new")
    draw.band(right, sizes, gaps, draw.GREEN, "gap", marker="o", markersize=3.5)
    right.axhline(0, color=draw.GREY, linewidth=0.8, linestyle=":")
    right.set(xscale="log", xlabel="training images", ylabel="training less new images, nats")
    for axes in (left, right):
        axes.set_xticks(sizes, [f"{n:,}" if n < 1000 else f"{n // 1000}k" for n in sizes])
        axes.minorticks_off()
        plots.clean(axes)
    draw.seeds(figure, len(stopped))
    plots.render(figure, job.figures / "size.png")
    caption = (
        f"How much data does a VAE need? Left: the bound after {steps(job.budget):,} steps, against the number of "
        "training images. Right: by how much the bound of training images lies above that of new ones."
    )
    return Outcome(rows, [Table(title, columns, lines)], {"size.png": caption})


PARTS = (
    Part(
        "width",
        ("width_narrow", "width_wide", "width_active", "width_unused"),
        width,
        says("VAEs of 2 to 200 latents", "20 steps", "12,000 steps each, some 8 minutes a seed", "120,000 steps each"),
    ),
    Part(
        "size",
        ("size_gap", "size_gap_all", "size_data"),
        size,
        says(
            "VAEs on 500 to 50,000 images", "20 steps", "12,000 steps each, some 7 minutes a seed", "120,000 steps each"
        ),
    ),
)
