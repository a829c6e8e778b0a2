"""How often does a GAN collapse, and which modes does it lose? Ten seeds of each adversarial loss, alone and with R1.

On a ring of eight modes, which nearly every loss learns, and on a grid of 25 four units wide, which tells them apart.
The Wasserstein loss needs its Lipschitz bound: alone it is Arjovsky et al.'s recipe with its clipped critic, and beside
it stands Gulrajani et al.'s with a penalty; both have rates, rules and critic steps of their own.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import gan, losses, plots, wgan
from vaegan_jax.data import toy
from vaegan_jax.data.dataset import Dataset

SD = 0.05
SAMPLES = 2_500
SHARE = 0.08
"""Of the samples that a mode would get of a perfect sampler: so many within 3 deviations cover it."""
GOOD = 0.5
"""Of the samples, within 3 deviations of a mode: below, a seed has not learned the modes that it covers."""
R1 = 0.5
"""gamma / 2: the penalty of Mescheder et al. 2018 with gamma 1."""
PLAIN, PENALISED = "plain", "with R1"


@dataclasses.dataclass(frozen=True)
class Mixture:
    name: str
    make: Callable[..., tuple[jax.Array, jax.Array]]
    modes: int
    reach: float
    """Of the figure's axes."""


RING = Mixture("ring", functools.partial(toy.ring, modes=8, radius=1.0, sd=SD), 8, 1.6)
GRID = Mixture("grid", functools.partial(toy.grid, side=5, spacing=2.0, sd=SD), 25, 5.2)
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
    return int((counts >= SHARE / len(centres) * len(x)).sum()), float(near.mean())


def collapsed(found: float, modes: int) -> bool:
    """Half of the modes or fewer."""
    return found <= modes // 2


def collapse(job: Job, mixture: Mixture) -> Outcome:
    """How often does a GAN collapse, and how many modes does it cover?"""
    seeds = job.seeds
    steps = job.choose(50, 10_000, 100_000)
    points, centres = mixture.make(jax.random.key(0), job.choose(1_000, 50_000, 50_000))
    data = Dataset(np.asarray(points), name=mixture.name, split=f"{len(points)} draws")
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

    def row(loss: str, kind: str) -> Measured:
        """One value a seed: on the ring 1 if it collapsed or diverged, on the grid the modes that it covers."""
        if (loss, kind) not in trained:
            return Measured([], note="not part of this budget")
        found, config = modes[loss, kind], trained[loss, kind].config()
        note = "modes: " + " ".join(str(v) for _, v in sorted(found.items()))
        of_ring = mixture is RING
        values = [float(collapsed(found[s], mixture.modes) if of_ring else found[s]) for s in seeds]
        share = [*good[loss, kind].values()]
        note = note if of_ring else f"samples within 3 deviations of a mode: {draw.spread(share)}"
        return Measured(values, seeds, (), steps, config, (data,), note=note)

    rows = {_row(mixture, loss, kind): row(loss, kind) for loss in LOSSES for kind in games(loss)}
    both = [("non_saturating", kind) for kind in (PENALISED, PLAIN)]
    more = [float(modes[both[0]][s] - modes[both[1]][s]) for s in seeds]
    rows[f"{_prefix(mixture)}_r1"] = Measured(
        more, seeds, (), steps, tuple(trained[key].config() for key in both), (data,)
    )
    lines = [
        [
            _title(loss), kind, draw.spread([*modes[loss, kind].values()]),
            f"{sum(collapsed(m, mixture.modes) for m in modes[loss, kind].values())} of {len(seeds)}",
            draw.spread([*good[loss, kind].values()]), sum(v < GOOD for v in good[loss, kind].values()),
            len(one.failed),
        ]
        for (loss, kind), one in trained.items()
    ]  # fmt: skip
    columns = (
        "loss", "", f"modes of {mixture.modes}", "collapsed", "samples within 3 sd of a mode", "not converged",
        "diverged",
    )  # fmt: skip
    title = (
        f"The {mixture.name}: {SAMPLES:,} samples after {steps:,} steps, mean +- sd over {len(seeds)} seeds. A mode is "
        f"covered by {SHARE / mixture.modes:.1%} of the samples within 3 sd; collapsed: half of the modes or "
        f"fewer, or diverged; not converged: under {GOOD:.0%} of the samples so near to any. Wasserstein alone is WGAN "
        "with a clipped critic."
    )
    _draw(job, mixture, modes)
    _draw_samples(job, mixture, shown, np.asarray(centres))
    captions = {
        f"{_prefix(mixture)}.png": f"How often does a GAN collapse? Modes of the {mixture.name}'s {mixture.modes} that "
        f"the samples of each seed cover, a dot a seed, after {steps:,} steps, by loss, alone and with R1; dots in the "
        "grey part count as collapsed, though a net that has not learned the modes yet covers few as well (the table "
        "has the shares of good samples). Wasserstein alone is WGAN with a clipped critic, beside it with a gradient "
        "penalty; both have their own optimiser.",
        _samples(mixture): f"The {mixture.name}: samples of the first seed of each loss, above alone, below with R1; "
        "crosses are the modes.",
    }
    return Outcome(rows, [Table(title, columns, lines)], captions)


def _prefix(mixture: Mixture) -> str:
    return "collapse" if mixture is RING else f"collapse_{mixture.name}"


def _samples(mixture: Mixture) -> str:
    return "samples.png" if mixture is RING else f"samples_{mixture.name}.png"


def _row(mixture: Mixture, loss: str, kind: str) -> str:
    name = f"{_prefix(mixture)}_{loss}"
    return name if kind == PLAIN else f"{name}_r1"


def _title(loss: str) -> str:
    return "wasserstein, penalty" if loss == PENALTY else loss.replace("_", "-")


def _draw(job: Job, mixture: Mixture, modes: dict[tuple[str, str], dict[int, int]]) -> None:
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
    axes.axhspan(-0.3, mixture.modes // 2 + 0.3, color="0.94", zorder=0)
    axes.set_xticks(range(len(names)), [_title(name) for name in names], fontsize=8)
    top, ticks = 1.05 * mixture.modes, range(0, mixture.modes + 1, 2 if mixture is RING else 5)
    axes.set(ylabel="modes covered", ylim=(-0.3, top), yticks=ticks)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    plots.clean(axes)
    plots.render(figure, job.figures / f"{_prefix(mixture)}.png")


def _draw_samples(job: Job, mixture: Mixture, shown: dict[tuple[str, str], np.ndarray], centres: np.ndarray) -> None:
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
            limits = (-mixture.reach, mixture.reach)
            axes.set(xlim=limits, ylim=limits, aspect="equal", xticks=(), yticks=())
            if row == 0:
                axes.set_title(_title(loss), fontsize=8)
        grid[row, 0].set_ylabel(kind, fontsize=8)
    plots.render(figure, job.figures / _samples(mixture))


def _part(mixture: Mixture, of: str, first_seed: int = 0) -> Part:
    return Part(
        _prefix(mixture),
        (*(_row(mixture, loss, kind) for loss in LOSSES for kind in games(loss)), f"{_prefix(mixture)}_r1"),
        functools.partial(collapse, mixture=mixture),
        says(
            f"six losses on a {of}, alone and with R1, and WGAN with a penalty",
            "50 steps of one loss", "10,000 steps, some 20 minutes", "100,000 steps",
        ),
        cpu_seeds=10,
        first_seed=first_seed,
    )  # fmt: skip


PARTS = (_part(RING, "ring of eight"), _part(GRID, "grid of 25", first_seed=10))
"""The grid's first seeds were looked at before its rule was made."""
