"""How often does a GAN collapse? Ten seeds of each adversarial loss on a ring of eight modes, with R1 and without.

The Wasserstein loss needs its Lipschitz bound: alone it is Arjovsky et al.'s recipe with its clipped critic, and beside
it stands Gulrajani et al.'s with a penalty; both have rates, rules and critic steps of their own.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import gan, losses, plots, wgan
from vaegan_jax.data import toy
from vaegan_jax.data.dataset import Dataset

MODES, RADIUS, SD = 8, 1.0, 0.05
SAMPLES = 2_500
SHARE = 0.01
"""Of the samples, that a mode needs within 3 deviations of it; each has an eighth of the data."""
GOOD = 0.5
"""Of the samples, within 3 deviations of a mode: below, a seed has not learned the modes that it covers."""
R1 = 0.5
"""gamma / 2: the penalty of Mescheder et al. 2018 with gamma 1."""
PLAIN, PENALISED = "plain", "with R1"
PENALTY = "wasserstein_gp"
LOSSES = (*losses.ADVERSARIAL, PENALTY)


def games(loss: Any) -> dict[str, tuple[Any, Any]]:
    """(algorithm, config) of a loss as it is used alone, and with R1."""
    if loss == PENALTY:
        return {PLAIN: (wgan, wgan.vectors(2))}
    one = dataclasses.replace(gan.vectors(2), adversarial=loss)
    paper = wgan.Config()
    clipped = dataclasses.replace(
        wgan.vectors(2), clip=paper.clip, gradient_penalty=0.0, generator_optimizer=paper.generator_optimizer,
        discriminator_optimizer=paper.discriminator_optimizer,
    )  # fmt: skip
    alone = (wgan, clipped) if loss == "wasserstein" else (gan, one)
    return {PLAIN: alone, PENALISED: (gan, dataclasses.replace(one, r1=R1))}


def covered(x: np.ndarray, centres: np.ndarray) -> tuple[int, float]:
    """(modes that SHARE of the samples [N, 2] lie within 3 deviations of, share that lies so near to any)."""
    distance = np.linalg.norm(x[:, None] - centres, axis=2)
    near = distance.min(axis=1) <= 3 * SD
    counts = np.bincount(distance.argmin(axis=1)[near], minlength=len(centres))
    return int((counts >= SHARE * len(x)).sum()), float(near.mean())


def collapsed(modes: float) -> bool:
    """Half of the modes or fewer."""
    return modes <= MODES // 2


def collapse(job: Job) -> Outcome:
    """How often does a GAN collapse?"""
    seeds = job.seeds
    steps = job.choose(50, 10_000, 100_000)
    points, centres = toy.ring(jax.random.key(0), job.choose(1_000, 50_000, 50_000), modes=MODES, radius=RADIUS, sd=SD)
    data = Dataset(np.asarray(points), name="ring", split=f"{len(points)} draws")
    trained: dict[tuple[str, str], Trained] = {}
    modes: dict[tuple[str, str], dict[int, int]] = {}
    good: dict[tuple[str, str], dict[int, float]] = {}
    shown: dict[tuple[str, str], np.ndarray] = {}
    for loss in LOSSES if job.budget != "smoke" else ("non_saturating",):
        for kind, (algorithm, config) in games(loss).items():
            key = loss, kind
            one = trained[key] = job.fit(
                f"{loss}-{kind.split()[-1]}", algorithm, config, data, steps=steps, seeds=seeds, side_by_side=True
            )
            modes[key], good[key] = {}, {}
            for seed in one.seeds:
                x = np.asarray(algorithm.sample(one.config(), one.state(seed), jax.random.key(seed), SAMPLES))
                modes[key][seed], good[key][seed] = covered(x, np.asarray(centres))
                if seed == one.seeds[0]:
                    shown[key] = x
            job.tick()

            modes[key] |= dict.fromkeys(one.failed, 0)  # what diverged covers nothing

    def rate(loss: str, kind: str) -> Measured:
        """One value a seed, 1 if it collapsed or diverged."""
        if (loss, kind) not in trained:
            return Measured([], note="not part of this budget")
        found, config = modes[loss, kind], trained[loss, kind].config()
        note = "modes: " + " ".join(str(v) for _, v in sorted(found.items()))
        return Measured([float(collapsed(found[s])) for s in seeds], seeds, (), steps, config, (data,), note=note)

    rows = {_row(loss, kind): rate(loss, kind) for loss in LOSSES for kind in games(loss)}
    both = [("non_saturating", kind) for kind in (PENALISED, PLAIN)]
    more = [float(modes[both[0]][s] - modes[both[1]][s]) for s in seeds]
    rows["collapse_r1"] = Measured(more, seeds, (), steps, tuple(trained[key].config() for key in both), (data,))
    lines = [
        [
            _title(loss), kind, draw.spread([*modes[loss, kind].values()]),
            f"{sum(map(collapsed, modes[loss, kind].values()))} of {len(seeds)}",
            draw.spread([*good[loss, kind].values()]), sum(v < GOOD for v in good[loss, kind].values()),
            len(one.failed),
        ]
        for (loss, kind), one in trained.items()
    ]  # fmt: skip
    columns = (
        "loss", "", f"modes of {MODES}", "collapsed", "samples within 3 sd of a mode", "not converged", "diverged",
    )  # fmt: skip
    title = (
        f"{SAMPLES:,} samples after {steps:,} steps, mean +- sd over {len(seeds)} seeds. A mode is covered by "
        f"{SHARE:.0%} of the samples within 3 sd; collapsed: half of the modes or fewer, or diverged; not converged: "
        f"under {GOOD:.0%} of the samples so near to any. Wasserstein alone is WGAN with a clipped critic."
    )
    _draw(job, modes)
    _draw_samples(job, shown, np.asarray(centres))
    captions = {
        "collapse.png": "How often does a GAN collapse? Modes of eight that the samples of each seed cover, a dot a "
        f"seed, after {steps:,} steps, by loss, alone and with R1; dots in the grey part count as collapsed. "
        "Wasserstein alone is WGAN with a clipped critic, beside it with a gradient penalty; both have their own "
        "optimiser.",
        "samples.png": "Samples of the first seed of each loss, above alone, below with R1; crosses are the modes.",
    }
    return Outcome(rows, [Table(title, columns, lines)], captions)


def _row(loss: str, kind: str) -> str:
    return f"collapse_{loss}" if kind == PLAIN else f"collapse_{loss}_r1"


def _title(loss: str) -> str:
    return "wasserstein, penalty" if loss == PENALTY else loss.replace("_", "-")


def _draw(job: Job, modes: dict[tuple[str, str], dict[int, int]]) -> None:
    figure = plots.new_figure(8.0, 3.3)
    axes = figure.subplots()
    names = list(dict.fromkeys(loss for loss, _ in modes))
    for kind, colour, shift in ((PLAIN, draw.RED, -0.17), (PENALISED, draw.BLUE, 0.17)):
        for i, loss in enumerate(names):
            found = sorted(modes.get((loss, kind), {}).values())
            # Dots of equal height side by side.
            aside = [0.022 * (found[:j].count(v) - (found.count(v) - 1) / 2) for j, v in enumerate(found)]
            label = kind if i == 0 else None
            axes.plot(i + shift + np.array(aside), found, "o", color=colour, markersize=4, alpha=0.8, label=label)
    axes.axhspan(-0.3, MODES // 2 + 0.3, color="0.94", zorder=0)
    axes.set_xticks(range(len(names)), [_title(name) for name in names], fontsize=8)
    axes.set(ylabel="modes covered", ylim=(-0.3, MODES + 0.4), yticks=range(0, MODES + 1, 2))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plots.clean(axes)
    plots.render(figure, job.figures / "collapse.png")


def _draw_samples(job: Job, shown: dict[tuple[str, str], np.ndarray], centres: np.ndarray) -> None:
    names = list(dict.fromkeys(loss for loss, _ in shown))
    figure = plots.new_figure(1.5 * len(names), 3.2)
    grid = np.asarray(figure.subplots(2, len(names), sharex=True, sharey=True)).reshape(2, -1)
    for row, kind in enumerate((PLAIN, PENALISED)):
        for axes, loss in zip(grid[row], names, strict=True):
            if (loss, kind) not in shown:
                axes.set_axis_off()
                continue
            axes.scatter(*shown[loss, kind].T, s=1.5, color=draw.BLUE, alpha=0.5, linewidths=0)
            axes.plot(*centres.T, "+", color=draw.RED, markersize=5)
            axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=(), yticks=())
            if row == 0:
                axes.set_title(_title(loss), fontsize=8)
        grid[row, 0].set_ylabel(kind, fontsize=8)
    plots.render(figure, job.figures / "samples.png")


PART = Part(
    "collapse",
    (*(_row(loss, kind) for loss in LOSSES for kind in games(loss)), "collapse_r1"),
    collapse,
    says(
        "six losses on a ring of eight, alone and with R1, and WGAN with a penalty",
        "50 steps of one loss", "10,000 steps, some 20 minutes", "100,000 steps",
    ),
    cpu_seeds=10,
)  # fmt: skip
