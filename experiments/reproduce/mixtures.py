"""Modes of mixtures: PacGAN (Lin, Khetan, Fanti & Oh 2018), and VEEGAN's numbers beside it (Srivastava et al. 2017)

A ring of 8 Gaussians and a grid of 25; a GAN, and the same with a discriminator that judges 2, 3 or 4 samples at once.
2,500 samples: how many modes have a sample within 3 standard deviations, what share of the samples is that good, and
the KL of their shares of the modes to uniform ("reverse KL"). VEEGAN's table has other nets and other deviations under
the same names, so that its GAN finds 1 mode where PacGAN's finds 6: it is shown, and not compared. A perfect sampler's
own numbers stand below, and those of uniform random points, which hit many modes by chance.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import gan, metrics, plots
from vaegan_jax.data import toy
from vaegan_jax.data.dataset import Dataset

SAMPLES = 2_500
PACKINGS = (1, 2, 3, 4)
PUBLISHED_STEPS = 400_000
COLOURS = {1: draw.RED, 2: draw.BLUE, 3: draw.GREEN, 4: draw.GREY}
METRICS = ("modes", "good", "kl")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One of the two data sets, with both papers' tables: (modes, % good, reverse KL), as they print them."""

    name: str
    make: Callable[..., tuple[jax.Array, jax.Array]]
    sd: float
    reach: float
    """Of the axes of the paper's figure."""
    ticks: tuple[int, ...]
    """Theirs."""
    square: float
    """Half the side of the square that holds the modes and little more."""
    veegan: dict[str, tuple[str, str, str]]
    pacgan: dict[str, tuple[str, str, str]]


MIXTURES = {
    "ring": Mixture(
        "ring of 8", toy.ring, 0.01, 2.0, (-2, -1, 0, 1, 2), 1.2,
        {
            "GAN": ("1", "99.3", "-"), "ALI": ("2.8", "0.13", "-"), "Unrolled GAN": ("7.6", "35.6", "-"),
            "VEEGAN": ("8", "52.9", "-"),
        },
        {
            "GAN": ("6.3 +- .5", "98.2 +- .2", ".45 +- .09"), "ALI": ("6.6 +- .3", "97.6 +- .4", ".36"),
            "PacGAN2": ("7.9 +- .1", "95.6 +- 2.0", ".07 +- .03"), "PacGAN3": ("7.8 +- .1", "97.7 +- .3", ".10"),
            "PacGAN4": ("7.8 +- .1", "95.9 +- 1.4", ".07"),
        },
    ),
    "grid": Mixture(
        "grid of 25", toy.grid, 0.05, 6.0, (-6, -4, -2, 0, 2, 4, 6), 5.0,
        {
            "GAN": ("3.3", "0.5", "-"), "ALI": ("15.8", "1.6", "-"), "Unrolled GAN": ("23.6", "16", "-"),
            "VEEGAN": ("24.6", "40", "-"),
        },
        {
            "GAN": ("17.3 +- .8", "94.8 +- .7", ".70 +- .07"), "ALI": ("24.1 +- .4", "95.7 +- .6", ".14"),
            "PacGAN2": ("23.8 +- .7", "91.3 +- .8", ".13 +- .04"), "PacGAN3": ("24.6 +- .4", "94.2 +- .4", ".06"),
            "PacGAN4": ("24.8 +- .2", "93.6 +- .6", ".04"),
        },
    ),
}  # fmt: skip


def title(packing: int) -> str:
    return "GAN" if packing == 1 else f"PacGAN{packing}"


def steps(budget: str, packing: int) -> int:
    """At budget cpu the claims' two are trained longer than the others, which would take a third of the time."""
    cpu = 20_000 if packing <= 2 else 10_000
    return {"smoke": 20, "cpu": cpu, "paper": PUBLISHED_STEPS}[budget]


def seeds(job: Job, packing: int) -> tuple[int, ...]:
    """The claims are of one sample and of two, which vary most: more packed, three seeds do at budget cpu."""
    return job.seeds[:3] if job.budget == "cpu" and packing > 2 else job.seeds


def measure(points: np.ndarray, centres: np.ndarray, sd: float) -> dict[str, float]:
    """modes, good (a share) and kl of points [N, 2], as PacGAN's code counts: shares of modes are of good points."""
    modes, good = metrics.mode_coverage(points, centres, sd)
    return {"modes": float(modes), "good": good, "kl": metrics.mode_divergence(points, centres, sd)}


def by_chance(mixture: Mixture, centres: np.ndarray, sets: int = 100) -> dict[str, float]:
    """The means of `measure` over sets of SAMPLES points that are uniform on the mixture's square."""
    rng = np.random.default_rng(0)
    drawn = (rng.uniform(-mixture.square, mixture.square, (SAMPLES, 2)) for _ in range(sets))
    found = [measure(points, centres, mixture.sd) for points in drawn]
    return {name: float(np.mean([one[name] for one in found])) for name in METRICS}


def run(job: Job, tag: str) -> Outcome:
    """GAN and PacGAN on one mixture."""
    mixture = MIXTURES[tag]
    found_data, found_centres = mixture.make(jax.random.key(0), job.choose(2_000, 100_000, 100_000))
    points, centres = np.asarray(found_data), np.asarray(found_centres)
    data = Dataset(points, name=mixture.name, split=f"{len(points)} draws")

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        return measure(np.asarray(gan.sample(config, state, key, SAMPLES)), centres, mixture.sd)

    trained: dict[int, Trained] = {}
    for packing in PACKINGS if job.budget != "smoke" else (1, 2):
        total = steps(job.budget, packing)
        every = total // job.choose(4, 20, 20)
        trained[packing] = job.fit(
            f"packing{packing}", gan, gan.pacgan(packing), data, steps=total, evaluate=evaluate,
            evaluate_at=tuple(range(every, total + 1, every)), seeds=seeds(job, packing), side_by_side=True,
            checkpoint_every=every,
        )  # fmt: skip
    found = {
        packing: {
            seed: {name: float(one.curve(name)[1][i, -1]) for name in METRICS} for i, seed in enumerate(one.seeds)
        }
        for packing, one in trained.items()
    }  # fmt: skip

    def row(value: Callable[..., float], *packings: int, note: str = "") -> Measured:
        total = min(steps(job.budget, packing) for packing in packings)
        return over_seeds(trained, found, value, *packings, steps=total, data=(data,), note=note)

    def cell(packing: int, name: str) -> Measured:
        if packing not in trained:
            return Measured([], note="not part of this budget")
        good = [100 * v["good"] for v in found[packing].values()]
        note = f"KL of the good samples alone, which are {draw.spread(good)} %" if name == "kl" and good else ""
        return row(lambda v: (100 if name == "good" else 1) * v[name], packing, note=note)

    perfect = measure(np.asarray(mixture.make(jax.random.key(1), SAMPLES)[0]), centres, mixture.sd)
    rows = {f"{tag}_{name}_{packing}": cell(packing, name) for packing in PACKINGS for name in METRICS}
    rows[f"{tag}_more_modes"] = row(lambda a, b: a["modes"] - b["modes"], 2, 1)
    rows[f"{tag}_less_kl"] = row(lambda a, b: a["kl"] - b["kl"], 1, 2)
    rows[f"{tag}_perfect"] = Measured(
        [perfect["modes"]],
        exact=True,
        data=(data,),
        note=f"good {perfect['good']:.1%}, reverse KL {perfect['kl']:.4f}",
    )
    ranked = {
        packing: sorted(each, key=lambda s: (each[s]["modes"], each[s]["good"]))
        for packing, each in found.items()
        if each
    }
    _draw_samples(job, tag, mixture, centres, points, trained, ranked)
    _draw_curves(job, tag, trained, len(centres))
    captions = {
        f"{tag}-samples.png": f"Figure 2 of PacGAN on the {mixture.name}: {SAMPLES:,} samples of the seed that "
        "finds the most modes, and below of the one that finds the fewest (of equals, those with more and less good "
        "samples), each after the steps that the table names; crosses are the modes.",
        f"{tag}-modes.png": f"The {mixture.name} against steps: modes found, the share of good samples, reverse KL; "
        "mean and range over seeds.",
    }
    curves = {title(packing): one.record(*METRICS) for packing, one in trained.items()}
    return Outcome(rows, [_table(job, mixture, found, perfect, by_chance(mixture, centres))], captions, curves)


def _table(
    job: Job, mixture: Mixture, found: Mapping[int, Any], perfect: dict[str, float], chance: dict[str, float]
) -> Table:
    lines: list[list[Any]] = [["VEEGAN's table", name, *said] for name, said in mixture.veegan.items()]
    lines += [["PacGAN's table", name, *said] for name, said in mixture.pacgan.items()]
    for packing, seeds in found.items():
        values = {name: np.array([v[name] for v in seeds.values()]) for name in METRICS}
        cells = [draw.spread(values["modes"]), draw.spread(100 * values["good"]), draw.spread(values["kl"], 2)]
        lines.append(["ours", title(packing), *cells])
    numbers = [perfect["modes"], f"{100 * perfect['good']:.1f}", f"{perfect['kl']:.4f}"]
    lines.append(["a perfect sampler", f"{SAMPLES:,} draws", *numbers])
    numbers = [f"{chance['modes']:.1f}", f"{100 * chance['good']:.1f}", f"{chance['kl']:.2f}"]
    lines.append(["uniform random points", f"{SAMPLES:,} on a square of {2 * mixture.square:g}", *numbers])
    each = ", ".join(f"{title(packing)} {steps(job.budget, packing):,}" for packing in found)
    return Table(
        f"The {mixture.name}, of {PUBLISHED_STEPS:,} steps: {each}. PacGAN's +- is the standard error over ten runs, "
        "ours the deviation over seeds.",
        ("of", "model", "modes", "good samples, %", "reverse KL, nats"),
        lines,
    )


def _draw_samples(
    job: Job,
    tag: str,
    mixture: Mixture,
    centres: np.ndarray,
    points: np.ndarray,
    trained: dict[int, Trained],
    ranked: Mapping[int, Sequence[int]],
) -> None:
    """ranked: the seeds of each packing that has any, from the worst to the best."""

    def draws(packing: int, seed: int) -> np.ndarray:
        one = trained[packing]
        return np.asarray(gan.sample(one.config(), one.state(seed), jax.random.key(0), SAMPLES))

    panels = [("target", points[:SAMPLES])]
    for which in (-1, 0):
        panels += [(f"{title(k)}, seed {seeds[which]}", draws(k, seeds[which])) for k, seeds in ranked.items()]
        panels += [("", points[:SAMPLES])] if which else []
    columns = len(panels) // 2
    figure = plots.new_figure(2.1 * columns, 4.6)
    for i, (axes, (name, x)) in enumerate(zip(figure.subplots(2, columns, squeeze=False).flat, panels, strict=True)):
        if i == columns:  # the target is above
            axes.axis("off")
            continue
        axes.scatter(*x.T, s=3, color=draw.BLUE, alpha=0.4, linewidths=0)
        axes.plot(*centres.T, "+", color=draw.RED, markersize=4, markeredgewidth=0.8, zorder=0)
        limits = (-mixture.reach, mixture.reach)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xticks=mixture.ticks, yticks=mixture.ticks)
        axes.tick_params(labelsize=7)
        axes.set(xlabel="$x_1$", ylabel="$x_2$" if i in (0, columns + 1) else "")
        axes.set_title(name, fontsize=9)
    plots.render(figure, job.figures / f"{tag}-samples.png")


def _draw_curves(job: Job, tag: str, trained: dict[int, Trained], modes: int) -> None:
    figure = plots.new_figure(8.4, 3.0)
    labels = ("modes", "share of good samples", "reverse KL, nats")
    for axes, name, label in zip(figure.subplots(1, 3), METRICS, labels, strict=True):
        for packing, one in trained.items():
            draw.band(axes, *one.curve(name), COLOURS[packing], title(packing))
        axes.set(xlabel="steps", ylabel=label)
        plots.clean(axes)
    figure.axes[0].axhline(modes, color=draw.GREY, linewidth=0.8, linestyle=":")
    figure.axes[1].legend(frameon=False, fontsize=8)
    plots.render(figure, job.figures / f"{tag}-modes.png")


def _part(tag: str) -> Part:
    cells = [f"{tag}_{name}_{packing}" for packing in PACKINGS for name in METRICS]
    return Part(
        tag,
        (*cells, f"{tag}_more_modes", f"{tag}_less_kl", f"{tag}_perfect"),
        functools.partial(run, tag=tag),
        says(
            f"GAN and PacGAN2 to 4 on the {MIXTURES[tag].name}", "20 steps of two",
            "20,000 steps each, 10 seeds (PacGAN3 and 4: 10,000 steps, 3 seeds), some 80 minutes", "400,000 steps each",
        ),
        cpu_seeds=10,
    )  # fmt: skip


PARTS = tuple(_part(tag) for tag in MIXTURES)
