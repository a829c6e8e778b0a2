"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015)

Table 1 on MNIST: autoencoders of one and of two stochastic layers, trained on the mean of k samples' bounds (VAE) or on
their importance-weighted one (IWAE); the negative log-likelihood is minus the bound of 5,000 samples, and a unit is
active where its posterior mean varies over images. Table 2: a trained model goes on under the other objective. The
published numbers have no error bars and their schedule has 3,280 epochs; differences are paired by seed, on the same
bits of the same images. With k = 1 both objectives are the same, so that IWAE with one sample is the VAE's row. The
bounds of 1 to 5,000 samples of every net stand beside, and which objective leads after equal steps, however few; and
what Rainforth et al. (2018) object, that a tighter bound trains its encoder on noise.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw, iwae_noise, iwae_optimizers
from experiments.reproduce import iwae_models as models
from experiments.reproduce.iwae_models import Model
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import plots

PUBLISHED: dict[str, dict[str, tuple[float, str]]] = {
    "one": {
        "vae_1": (86.76, "19"), "vae_5": (86.47, "20"), "vae_50": (86.35, "20"), "iwae_5": (85.54, "22"),
        "iwae_50": (84.78, "25"),
    },
    "two": {
        "vae_1": (85.33, "16+5"), "vae_5": (85.01, "17+5"), "vae_50": (84.78, "17+5"), "iwae_5": (83.89, "21+5"),
        "iwae_50": (82.90, "26+7"),
    },
}  # fmt: skip
"""Table 1: negative log-likelihood, nats, and active units of each layer."""
SWITCHED = {"vae_to_iwae": (84.88, "22"), "iwae_to_vae": (86.02, "23")}
"""Table 2."""
Numbers = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Model -> seed -> what `iwae_models.measure` finds."""
COLOURS = {"vae_1": draw.GREY, "vae_5": "#e08f9b", "vae_50": draw.RED, "iwae_5": "#7fa8d6", "iwae_50": draw.BLUE}
DRAWN = 20  # samples of each model in the figure


def table1(job: Job, tag: str) -> Outcome:
    """One of the table's halves."""
    trained, found = models.train_and_measure(job, models.MODELS[tag])
    row = functools.partial(over_seeds, trained, found, steps=models.steps(job.budget), data=models.data(job))

    def less(a: str, b: str) -> Measured:
        return row(models.worse, a, b, note=models.paired(found[a], found[b]))

    rows = {
        f"{tag}_{name}": row(
            lambda v: v["nll"], name,
            note=f"standard error over images {draw.standard_error([v['nll_each'] for v in found[name].values()])}",
        )
        for name in PUBLISHED[tag]
    }  # fmt: skip
    layers = {"one": 1, "two": 2}[tag]
    for layer in range(layers):
        for name, (_, units) in PUBLISHED[tag].items():
            if units != "-":
                rows[f"{tag}_{name}_units{layer + 1}"] = row(lambda v, i=layer: v["units"][i], name)
    rows |= {
        f"{tag}_ladder": row(_least_step, *PUBLISHED[tag]),
        f"{tag}_gap": row(lambda *each: float(np.mean([v["gap"] for v in each])), *PUBLISHED[tag]),
        f"{tag}_equal_50": less("vae_50", "iwae_50"),
        f"{tag}_equal_units": row(lambda a, b: a["units"][0] - b["units"][0], "iwae_50", "vae_1"),
        f"{tag}_looser": row(lambda a, b: _looseness(a) - _looseness(b), "iwae_50", "vae_50"),
        f"{tag}_iwae5_over_vae5": less("vae_5", "iwae_5"),
        f"{tag}_iwae50_over_vae50": less("vae_50", "iwae_50"),
        f"{tag}_iwae50_over_iwae5": less("iwae_5", "iwae_50"),
        f"{tag}_more_active": row(lambda a, b: a["units"][0] - b["units"][0], "iwae_50", "vae_1"),
    }
    if tag == "two":
        one, one_found = models.train_and_measure(job, models.MODELS["one"][-1:])
        rows["two_over_one"] = over_seeds(
            {"one": one["iwae_50"], "two": trained["iwae_50"]}, {"one": one_found["iwae_50"], "two": found["iwae_50"]},
            models.worse, "one", "two", steps=models.steps(job.budget), data=models.data(job),
            note=models.paired(one_found["iwae_50"], found["iwae_50"]),
        )  # fmt: skip
    else:
        rows["one_dead_units"] = _dead_units(job, trained)
    _draw(job, tag, found)
    _draw_units(job, tag, found)
    _draw_curves(job, tag, trained)
    _draw_samples(job, tag, trained)
    how = models.evaluation(job.budget)
    lines = []
    for name, (nll, units) in PUBLISHED[tag].items():
        kind, _, count = name.partition("_")
        mine = [v["nll"] for v in found[name].values()]
        active = ["+".join(str(u) for u in v["units"]) for v in found[name].values()]
        lines.append([kind.upper(), int(count), nll, draw.spread(mine, 4), units, ", ".join(active)])
    title = (
        f"Table 1, {tag} stochastic layer{'s' * (layers - 1)}: negative log-likelihood of {how.all:,} test images, "
        f"k {how.samples[-1]:,} on {how.images:,} of them, nats, after {models.steps(job.budget):,} of "
        f"{models.steps('paper'):,} steps, mean +- sd over seeds; active units, a seed each."
    )
    columns = ("objective", "k", "published", "ours", "active, published", "active, ours")
    what = f"{tag} layer{'s' * (layers - 1)}"
    captions = {
        f"table1-{tag}.png": f"Table 1, {what}: hollow, the paper's; full, ours, mean and range over seeds. With k = 1 "
        "IWAE is the VAE.",
        f"units-{tag}.png": f"Variances of the units' posterior means over {models.UNITS} training images, {what}, "
        "largest first, geometric mean and range over seeds; those above the dotted line are active.",
        f"curves-{tag}.png": f"The bound that each model climbs, {what}, on the 400 validation images, mean and range "
        "over seeds. The VAEs' curves are of one quantity, the ELBO; an IWAE's bound rises with its k.",
    }
    if any(one.seeds for one in trained.values()):
        captions[f"samples-{tag}.png"] = f"{what.capitalize()}: means of p(x | h) at draws of the prior, first seed."
    curves = {model.name: trained[model.name].record(f"validation_{model.bound}") for model in models.MODELS[tag]}
    return Outcome(rows, [Table(title, columns, lines), _ladder(job, tag, found)], captions, curves)


def _least_step(*each: Mapping[str, Any]) -> float:
    """From one number of samples to the next, over models."""
    return float(min(np.diff(v["bounds"]).min() for v in each))


def _looseness(v: Mapping[str, Any]) -> float:
    """Of the bound of one sample."""
    return float(v["bounds"][-1] - v["bounds"][0])


def _ladder(job: Job, tag: str, found: Numbers) -> Table:
    how = models.evaluation(job.budget)
    lines = []
    for name, seeds in found.items():
        bounds = np.array([v["bounds"] for v in seeds.values()]).reshape(len(seeds), len(how.samples))
        cells = [draw.spread(bounds[:, i], 5) for i in range(len(how.samples))]
        lines.append([models.label(name), *cells, draw.spread([v["gap"] for v in seeds.values()])])
    title = (
        f"What the number of samples does to the bound on test images, {tag} layer{'' if tag == 'one' else 's'}, nats: "
        f"the same nets, whatever they were trained by. Last, by how much the bound of {how.samples[models.CHEAP - 1]} "
        "samples is higher on as many training images. Mean +- sd over seeds."
    )
    return Table(title, ("objective", *(f"L_{k:,}" for k in how.samples), "training less test"), lines)


def _dead_units(job: Job, trained: Mapping[str, Trained]) -> Measured:
    """The largest change of a seed's five models."""
    names = tuple(trained)
    changes = {
        model.name: {
            seed: models.without_inactive(job, model, trained[model.name], seed) for seed in trained[model.name].seeds
        }
        for model in models.MODELS["one"]
    }
    means = ", ".join(f"{name} {np.mean(list(each.values())):.2g}" for name, each in changes.items() if each)
    return over_seeds(
        trained, changes, lambda *each: max(each), *names, steps=models.steps(job.budget), data=models.data(job),
        note=f"means: {means}",
    )  # fmt: skip


def _units(units: str) -> list[int]:
    """Of each layer, from `16+5`."""
    return [int(n) for n in units.split("+")]


def _draw(job: Job, tag: str, found: Numbers) -> None:
    said = PUBLISHED[tag]
    layers = len(_units(said["vae_1"][1]))
    figure = plots.new_figure(9.6, 3.2)
    left, middle, right = figure.subplots(1, 3)
    for kind, colour in (("vae", draw.RED), ("iwae", draw.BLUE)):
        # With one sample, IWAE is the VAE.
        names = ["vae_1", *(name for name in said if name.startswith(kind) and name != "vae_1")]
        at = [int(name.rpartition("_")[2]) for name in names]
        seeds = [s for s in found[names[0]] if all(s in found[name] for name in names)]
        ours = [[found[name][s] for name in names] for s in seeds]
        curve = functools.partial(_curve, at=at, colour=colour, kind=kind.upper())
        curve(left, theirs=[said[name][0] for name in names], ours=[[v["nll"] for v in one] for one in ours])
        for i in range(layers):
            units = [_units(said[name][1])[i] for name in names]
            curve(right, theirs=units, ours=[[v["units"][i] for v in one] for one in ours], marker="os"[i])
    ks = [5, 50]
    names = [f"{kind}_{k}" for k in ks for kind in ("vae", "iwae")]
    seeds = [s for s in found[names[0]] if all(s in found[name] for name in names)]
    theirs = [said[f"vae_{k}"][0] - said[f"iwae_{k}"][0] for k in ks]
    gained = [[models.worse(found[f"vae_{k}"][s], found[f"iwae_{k}"][s]) for k in ks] for s in seeds]
    _curve(middle, at=ks, theirs=theirs, ours=gained, colour=draw.GREEN, kind="VAE less IWAE")
    middle.axhline(0, color=draw.GREY, linewidth=0.8, linestyle=":")
    active = "active units" + (" (squares: second layer)" if layers > 1 else "")
    labels = {left: "negative log-likelihood, nats", middle: "difference paired by seed, nats", right: active}
    for axes, label in labels.items():
        axes.set(xscale="log", xlabel="k", ylabel=label)
        axes.set_xticks([1, 5, 50], ["1", "5", "50"])
        axes.minorticks_off()
        plots.clean(axes)
    middle.set_xlim(left.get_xlim())
    right.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, middle):
        axes.legend(frameon=False, fontsize=8)
    plots.render(figure, job.figures / f"table1-{tag}.png")


def _curve(
    axes: Any,
    *,
    at: Sequence[int],
    theirs: Sequence[float],
    ours: Sequence[Sequence[float]],
    colour: str,
    kind: str,
    marker: str = "o",
) -> None:
    """theirs [K] at k `at`, hollow; ours [S, K], full."""
    axes.plot(at, theirs, f"{marker}--", color=colour, markerfacecolor="white", markersize=5, linewidth=0.8,
              label=f"{kind}, paper")  # fmt: skip
    draw.band(axes, at, ours, colour, f"{kind}, ours", marker=marker, markersize=4)


def _draw_units(job: Job, tag: str, found: Numbers) -> None:
    layers = len(_units(PUBLISHED[tag]["vae_1"][1]))
    figure = plots.new_figure(4.8 * layers, 3.2)
    for i, axes in enumerate(np.atleast_1d(figure.subplots(1, layers))):
        for name, seeds in found.items():
            values = [np.sort(v["variances"][i])[::-1] for v in seeds.values()]
            if values:
                draw.band(axes, range(1, len(values[0]) + 1), values, COLOURS[name], models.label(name), log=True)
        axes.axhline(models.ACTIVE, color=draw.GREY, linewidth=0.8, linestyle=":")
        which = "" if layers == 1 else f", layer {i + 1}"
        axes.set(yscale="log", xlabel=f"unit{which}", ylabel="variance of its posterior mean")
        plots.clean(axes)
        if i == 0:
            axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)  # of no seeds, no warning
    plots.render(figure, job.figures / f"units-{tag}.png")


def _draw_curves(job: Job, tag: str, trained: Mapping[str, Trained]) -> None:
    figure = plots.new_figure(5.4, 3.4)
    axes = figure.subplots()
    for model in models.MODELS[tag]:
        at, values = trained[model.name].curve(f"validation_{model.bound}")
        draw.band(axes, at, values, COLOURS[model.name], models.label(model.name), marker="o", markersize=3)
    axes.set(xlabel="steps", ylabel="bound, validation images, nats")
    axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)  # of no seeds, no warning
    plots.clean(axes)
    plots.render(figure, job.figures / f"curves-{tag}.png")


def _draw_samples(job: Job, tag: str, trained: Mapping[str, Trained]) -> None:
    pictures = []
    for model in models.MODELS[tag]:
        one = trained[model.name]
        if one.seeds:
            x = model.algorithm.sample(one.config(), one.state(one.seeds[0]), jax.random.key(0), DRAWN)
            pictures.append((models.label(model.name), np.asarray(x)))
    if pictures:
        draw.panels(pictures, job.figures / f"samples-{tag}.png", columns=DRAWN)


def switching(job: Job) -> Outcome:
    """Table 2: trained by one objective, then by the other or by the same, at the last stage's rate."""
    first = {model.name: model for model in models.MODELS["one"]}
    trained: dict[str, Trained] = {}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name, other in itertools.product(("vae_1", "iwae_50"), repeat=2):
        if name not in trained:
            trained[name] = models.train(job, first[name])
            found[name] = {s: models.measure(job, first[name], trained[name], s) for s in trained[name].seeds}
        to = f"{name.partition('_')[0]}_to_{other.partition('_')[0]}"
        trained[to] = models.switch(job, first[name], first[other], trained[name])
        goal = Model("one", to, first[other].bound, first[other].samples)
        found[to] = {s: models.measure(job, goal, trained[to], s) for s in trained[to].seeds}
    row = functools.partial(over_seeds, trained, found, steps=models.switch_steps(job.budget), data=models.data(job))

    def control(before: str, after: str) -> str:
        both = [s for s in found[before] if s in found[after]]
        gains = [models.worse(found[before][s], found[after][s]) for s in both]
        return f"as many steps more of the first objective are worth {draw.spread(gains)} nats"

    def less(a: str, b: str, note: str = "") -> Measured:
        return row(models.worse, a, b, note="; ".join(filter(None, [note, models.paired(found[a], found[b])])))

    rows = {
        "vae_to_iwae": row(lambda v: v["nll"], "vae_to_iwae"),
        "vae_to_iwae_units": row(lambda v: v["units"][0], "vae_to_iwae"),
        "iwae_to_vae": row(lambda v: v["nll"], "iwae_to_vae"),
        "iwae_to_vae_units": row(lambda v: v["units"][0], "iwae_to_vae"),
        "switch_helps": less("vae_1", "vae_to_iwae", control("vae_1", "vae_to_vae")),
        "switch_hurts": less("iwae_to_vae", "iwae_50", control("iwae_50", "iwae_to_iwae")),
        "switch_helps_more": less("vae_to_vae", "vae_to_iwae"),
        "switch_hurts_more": less("iwae_to_vae", "iwae_to_iwae"),
    }
    lines = []
    for name, label in (
        ("vae_1", "VAE"), ("vae_to_iwae", "VAE, then IWAE (k = 50)"), ("vae_to_vae", "VAE, then more of it"),
        ("iwae_50", "IWAE (k = 50)"), ("iwae_to_vae", "IWAE (k = 50), then VAE"),
        ("iwae_to_iwae", "IWAE (k = 50), then more of it"),
    ):  # fmt: skip
        nll, units = SWITCHED.get(name) or PUBLISHED["one"].get(name) or ("-", "-")
        numbers = found[name].values()
        active = ", ".join(str(v["units"][0]) for v in numbers)
        lines.append([label, nll, draw.spread([v["nll"] for v in numbers], 4), units, active])
    title = (
        f"Table 2: {models.steps(job.budget):,} steps by the first objective, {models.switch_steps(job.budget):,} of "
        f"{models.switch_steps('paper'):,} by the second; nats, mean +- sd over seeds."
    )
    columns = ("objective", "published", "ours", "active, published", "active, ours")
    return Outcome(rows, [Table(title, columns, lines)])


def _part(tag: str, cpu: str) -> Part:
    layers = {"one": 1, "two": 2}[tag]
    rows = [f"{tag}_{name}" for name in PUBLISHED[tag]]
    for layer in range(layers):
        rows += [f"{tag}_{n}_units{layer + 1}" for n, (_, units) in PUBLISHED[tag].items() if units != "-"]
    rows += [
        f"{tag}_{claim}"
        for claim in (
            "ladder", "gap", "equal_50", "equal_units", "looser", "iwae5_over_vae5", "iwae50_over_vae50",
            "iwae50_over_iwae5", "more_active",
        )
    ]  # fmt: skip
    rows += ["two_over_one"] if tag == "two" else ["one_dead_units"]
    return Part(
        f"{tag}_layer{'s' * (layers - 1)}",
        tuple(rows),
        functools.partial(table1, tag=tag),
        says(f"VAE and IWAE of {tag} stochastic layer{'s' * (layers - 1)}", "10 steps", cpu, "9,774,400 steps each"),
    )


PARTS = (
    _part("one", "38,740 steps each (13 epochs), some 33 minutes a seed"),
    _part("two", "38,740 steps each (13 epochs), some 45 minutes a seed"),
    Part(
        "switching",
        (
            "vae_to_iwae", "vae_to_iwae_units", "iwae_to_vae", "iwae_to_vae_units", "switch_helps", "switch_hurts",
            "switch_helps_more", "switch_hurts_more",
        ),
        switching,
        says(
            "each objective after each", "10 steps", "26,820 steps more (9 epochs), some 18 minutes a seed",
            "6,517,260 steps more",
        ),
    ),
    iwae_optimizers.PART,
    iwae_noise.PART,
)  # fmt: skip
