"""Figure 3 by the released code: 100 critic steps before each of the first 25 generator iterations and every 500th.

Algorithm 1 does not say so. With it the estimate is of a critic that has caught up from the first iterations on.
"""

import dataclasses

import jax
import numpy as np

from experiments.reproduce import draw, samples
from experiments.reproduce import wgan_cells as cells
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained
from experiments.reproduce.wgan_curves import falls, follows, smooth
from vaegan_jax import plots, sampling, wgan

GENERATORS = ("mlp", "dcgan")
SLOW = 20  # steps of `fit`, of five of the critic each, before a generator step that waits for 100


def passes(iterations: int) -> int:
    """Steps of `fit` that so many generator iterations take, see wgan.Config.warmup."""
    slow = sum(1 for g in range(iterations) if g < 25 or g % 500 == 0)
    return iterations + (SLOW - 1) * slow


def train(job: Job, name: str) -> tuple[Trained, wgan.Config]:
    """As wgan_cells.train has it, with the same judge after as many generator iterations."""
    data, end = job.load(samples.dataset(job, "mnist")), cells.steps(job.budget)
    extractor, reference = cells.network(job)
    measure = samples.judge(extractor, reference)
    config = dataclasses.replace(cells.config(("wgan", name), cells.width(job), len(data)), warmup=True)

    def evaluate(config: wgan.Config, state: wgan.State, key: jax.Array, step: int) -> dict[str, float]:
        job.tick()
        return measure(np.asarray(sampling.sample(config, state, key, cells.samples(job.budget))))

    trained = job.beside("cells").fit(
        f"wgan-{name}-warmup", wgan, config, data, steps=passes(end), log_every=cells.log_every(job.budget),
        evaluate=evaluate, evaluate_at=[passes(g) for g in cells.marks(job.budget)],
    )  # fmt: skip
    return trained, config


def estimate(trained: Trained, iterations: np.ndarray) -> np.ndarray:
    """The filtered estimate [S, G] after generator iterations [G] that are evenly spaced, as wgan_curves.estimate."""
    at, values = trained.curve("wasserstein")
    there = np.array([passes(int(g)) for g in iterations])
    raw = np.stack([np.interp(there, at, v) for v in values.astype(np.float64)])
    return smooth(raw, int(iterations[1] - iterations[0]))


def run(job: Job) -> Outcome:
    end, every = cells.steps(job.budget), cells.log_every(job.budget)
    iterations, marks = np.arange(every, end + 1, every), np.array(cells.marks(job.budget))
    rows, lines, curves = dict[str, Measured](), [], {}
    figure = plots.new_figure(7.8, 4.8)
    panels = figure.subplots(2, len(GENERATORS), sharex=True, height_ratios=(1.4, 1))
    for column, name in enumerate(GENERATORS):
        plain = cells.train(job, [("wgan", name)])["wgan", name]
        warm, config = train(job, name)
        curve = estimate(warm, iterations) if warm.seeds else np.zeros((0, len(iterations)))
        distance = warm.curve("frechet")[1] if warm.seeds else np.zeros((0, len(marks)))
        tag = "" if name == "dcgan" else f"_{name}"
        last = draw.spread(list(cells.last(plain, "frechet").values()))
        note = f"Frechet distance at the end {draw.spread(distance[:, -1])}; without the warm-up {last}"
        found = {
            f"spearman_wgan{tag}_warm": follows(iterations, curve, marks, distance),
            f"falls_wgan{tag}_warm": falls(iterations, curve, marks),
        }
        rows |= {
            row: Measured(each, warm.seeds, warm.failed, steps=end, config=config, data=cells.judged(job), note=note)
            for row, each in found.items()
        }
        lines.append(
            [cells.TITLES[name], *(draw.spread(v) for v in found.values()), draw.spread(distance[:, -1]), last]
        )
        curves[cells.TITLES[name]] = warm.record("wasserstein", "frechet")
        upper, lower = panels[:, column]
        draw.lines(upper, iterations, curve, draw.BLUE)
        draw.band(lower, marks, distance, draw.GREEN, "critic's warm-up", marker="o", markersize=3)
        if plain.seeds:
            draw.band(lower, *plain.curve("frechet"), draw.GREY, "algorithm 1", marker="o", markersize=3)
        upper.set_title(cells.TITLES[name], fontsize=10, loc="left")
        upper.set_xlim(left=0)
        lower.set_xlabel("generator iterations")
        lower.xaxis.set_major_formatter(lambda s, _: plots.thousands(s))
        for axes in (upper, lower):
            plots.clean(axes)
    panels[0, 0].set_ylabel("Wasserstein estimate")
    panels[1, 0].set_ylabel("Frechet distance")
    panels[1, 0].legend(frameon=False, fontsize=8)
    draw.seeds(figure, len(job.seeds), "below: ")
    plots.render(figure, job.figures / "fig3-warmup.png")
    caption = (
        "Figure 3 by the released code's schedule: the critic takes 100 steps before each of the first 25 generator "
        "iterations and every 500th. Above: the estimate of each seed through a median filter over 101 iterations. "
        "Below: Frechet distance of samples, beside that without the warm-up."
    )
    columns = ("nets", "rho with quality", "rho with iterations", "Frechet distance, end", "without the warm-up")
    title = f"The critic's warm-up after {end:,} generator iterations; Spearman's rho at ten checkpoints, mean +- sd."
    return Outcome(rows, [Table(title, columns, lines)], {"fig3-warmup.png": caption}, curves)


def _says(budget: str) -> str:
    time = {
        "smoke": "a minute",
        "cpu": "2 hours, and 80 minutes more where curves has not run",
        "paper": "on a GPU, an hour",
    }[budget]
    return f"figure 3's two WGANs with the critic's warm-up, {cells.steps(budget):,} iterations of 64; {time}"


PART = Part(
    "warmup",
    ("spearman_wgan_warm", "spearman_wgan_mlp_warm", "falls_wgan_warm", "falls_wgan_mlp_warm"),
    run,
    _says,
)
