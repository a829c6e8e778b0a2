"""Figures 3 and 4: does the estimate of a distance follow the quality of the samples while a generator learns?"""

import math
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from scipy.stats import spearmanr

from experiments.reproduce import draw, samples
from experiments.reproduce import wgan_cells as cells
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained
from vaegan_jax import plots

LOG2 = math.log(2)
FILTER = 101  # steps, as in the released code
PANELS = ("mlp", "dcgan", cells.BOTH_MLP)


RAW = {"wgan": "wasserstein", "gan": "value"}
"""What the estimates are filtered from."""


def estimate(trained: Trained, algorithm: str, every: int) -> tuple[np.ndarray, np.ndarray]:
    """(steps [T], the estimate [S, T]) through a median filter over about FILTER steps, ends repeated.

    wgan: E f(x) - E f(g(z)); gan: V / 2 + log 2, V = E log D(x) + E log(1 - D(g(z))), a lower bound on JS.
    """
    at, values = trained.curve(RAW[algorithm])
    values = np.asarray(values, np.float64) if algorithm == "wgan" else values / 2 + LOG2
    return at, smooth(values, every)


def smooth(values: np.ndarray, every: int) -> np.ndarray:
    """values [S, T], one each `every` iterations, through a median filter over about FILTER of these, ends repeated."""
    return np.asarray(median_filter(values, size=(1, 2 * (FILTER // every // 2) + 1), mode="nearest"))


def follows(at: np.ndarray, curve: np.ndarray, judged: np.ndarray, distance: np.ndarray) -> list[float]:
    """Spearman's rho, one a seed, of the curve [S, T] at `judged` steps and the distance there [S, K]: 1 if it follows.

    0 for a curve that is constant, as it tells nothing.
    """
    pairs = [(c[np.searchsorted(at, judged)], d) for c, d in zip(curve, distance, strict=True)]
    return [float(spearmanr(c, d).statistic) if np.ptp(c) and np.ptp(d) else 0.0 for c, d in pairs]


def falls(at: np.ndarray, curve: np.ndarray, judged: np.ndarray) -> list[float]:
    """Spearman's rho, one a seed, of the steps `judged` [K] and the curve [S, T] there: -1 if it falls all the way."""
    return follows(at, curve, judged, np.broadcast_to(judged, (len(curve), len(judged))))


def run(job: Job) -> Outcome:
    trained = cells.train(job, [(algorithm, name) for algorithm in cells.ALGORITHMS for name in PANELS])
    every, end = cells.log_every(job.budget), cells.steps(job.budget)
    data = job.load(samples.dataset(job, "mnist"))
    there = {cell: one for cell, one in trained.items() if one.seeds}
    curves = {cell: estimate(one, cell[0], every) for cell, one in there.items()}
    quality = {cell: one.curve("frechet") for cell, one in there.items()}
    rho = {cell: follows(*curves[cell], *quality[cell]) for cell in there}

    def measured(cell: cells.Cell, values: Any) -> Measured:
        one = trained[cell]
        return Measured(
            list(values), one.seeds, one.failed, steps=end,
            config=cells.config(cell, cells.width(job), len(data)), data=cells.judged(job),
            note=f"{cells.CHECKPOINTS} checkpoints, {cells.samples(job.budget):,} samples each",
        )  # fmt: skip

    def plateau(name: str) -> list[float]:
        if ("gan", name) not in curves:
            return []
        at, curve = curves["gan", name]
        return [float(v) for v in curve[:, at > 0.9 * end].mean(axis=1)]

    def gain(cell: cells.Cell) -> list[float]:
        """The fall of the estimate from the first to the last checkpoint, as a share of its largest size."""
        if cell not in curves:
            return []
        begin, last = (_at(curves[cell], quality[cell][0][i]) for i in (0, -1))
        largest = np.abs(curves[cell][1]).max(axis=1)
        return [float(v) for v in (begin - last) / np.where(largest > 0, largest, 1.0)]

    fall = {cell: falls(*curves[cell], quality[cell][0]) for cell in there}
    failing = ("wgan", cells.BOTH_MLP)
    rows = {
        "spearman_wgan": measured(("wgan", "dcgan"), rho.get(("wgan", "dcgan"), [])),
        "spearman_wgan_mlp": measured(("wgan", "mlp"), rho.get(("wgan", "mlp"), [])),
        "spearman_gan": measured(("gan", "dcgan"), rho.get(("gan", "dcgan"), [])),
        "spearman_gan_mlp": measured(("gan", "mlp"), rho.get(("gan", "mlp"), [])),
        "js_plateau": measured(("gan", "dcgan"), plateau("dcgan")),
        "js_plateau_mlp": measured(("gan", "mlp"), plateau("mlp")),
        "falls_wgan": measured(("wgan", "dcgan"), fall.get(("wgan", "dcgan"), [])),
        "falls_wgan_mlp": measured(("wgan", "mlp"), fall.get(("wgan", "mlp"), [])),
        "failing_wgan": measured(failing, gain(failing)),
    }
    table = Table(
        f"The filtered estimates and the Frechet distance (mnist-cnn features, n = {cells.samples(job.budget):,}) at "
        "the first and last checkpoint, mean +- sd over seeds; Spearman's rho of the two at all of these, - where the "
        "estimate stays the same.",
        ("algorithm", "nets", "estimate, first", "last", "distance, first", "last", "Spearman"),
        [
            [
                cell[0].upper(), cells.TITLES[cell[1]],
                *(draw.spread(_at(curves[cell], quality[cell][0][i])) for i in (0, -1)),
                *(draw.spread(quality[cell][1][:, i]) for i in (0, -1)),
                draw.spread(rho[cell]) if any(rho[cell]) else "-",
            ]
            for cell in there
        ],
    )  # fmt: skip
    _draw(job, "wgan", "fig3.png", "Wasserstein estimate", curves, quality)
    _draw(job, "gan", "fig4.png", "JS estimate, nats", curves, quality)
    how = (
        "Above: the estimate through a median filter over 101 iterations, a line a seed. Below: Frechet distance of "
        "samples, mnist-cnn features."
    )
    high = f"The MLPs on the right have {cells.HIGH} times algorithm 1's rates, to make training fail as the paper did."
    return Outcome(
        rows,
        [table],
        {
            "fig3.png": f"Figure 3 of Arjovsky, Chintala & Bottou 2017 on MNIST, WGAN. {how} {high}",
            "fig4.png": f"Figure 4 of Arjovsky, Chintala & Bottou 2017 on MNIST, GAN. {how}",
        },
        {
            f"{algorithm.upper()}, {cells.TITLES[name]}": one.record(RAW[algorithm], "frechet")
            for (algorithm, name), one in there.items()
        },
    )


def _at(curve: tuple[np.ndarray, np.ndarray], step: int) -> np.ndarray:
    return curve[1][:, np.searchsorted(curve[0], step)]


def _draw(job: Job, algorithm: str, file: str, label: str, curves: Any, quality: Any) -> None:
    figure = plots.new_figure(11.4, 4.8)
    panels = figure.subplots(2, len(PANELS), sharex=True, height_ratios=(1.4, 1))
    color = draw.BLUE if algorithm == "wgan" else draw.RED
    for column, name in enumerate(PANELS):
        upper, lower = panels[:, column]
        if (algorithm, name) not in curves:
            upper.text(0.5, 0.5, "all seeds diverged", ha="center", fontsize=9, transform=upper.transAxes)
            continue
        (at, said), (judged_at, judged) = curves[algorithm, name], quality[algorithm, name]
        draw.lines(upper, at, said, color)
        upper.set_xlim(left=0)
        if algorithm == "gan":
            upper.axhline(LOG2, color=draw.GREY, linewidth=0.8, linestyle=":")
            upper.annotate("log 2", (0, LOG2), (3, 3), textcoords="offset points", fontsize=8, color="0.4")
            upper.set_ylim(min(-0.05, float(np.nanmin(said)) - 0.02), 0.78)  # V is a bound: a bad D goes below 0
        draw.band(lower, judged_at, judged, draw.GREEN, marker="o", markersize=3)
        upper.set_title(cells.TITLES[name], fontsize=10, loc="left")
        lower.set_xlabel("generator iterations")
        lower.xaxis.set_major_formatter(lambda s, _: plots.thousands(s))
        lower.set_ylim(bottom=0)
        for axes in (upper, lower):
            plots.clean(axes)
    panels[0, 0].set_ylabel(label, fontsize=9)
    panels[1, 0].set_ylabel("Frechet distance", fontsize=9)
    draw.seeds(figure, max((len(curve) for _, curve in curves.values()), default=0), "below: ")
    plots.render(figure, job.figures / file)


def _says(budget: str) -> str:
    time = {"smoke": "a minute", "cpu": "2.5 hours", "paper": "on a GPU, about an hour"}[budget]
    return f"MLP and DCGAN generators, and two MLPs, by WGAN and GAN, {cells.steps(budget):,} iterations of 64; {time}"


PART = Part(
    "curves",
    (
        "spearman_wgan", "spearman_wgan_mlp", "spearman_gan", "spearman_gan_mlp", "js_plateau", "js_plateau_mlp",
        "falls_wgan", "falls_wgan_mlp", "failing_wgan",
    ),
    run,
    _says,
)  # fmt: skip
