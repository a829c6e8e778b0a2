"""On the quantitative analysis of decoder-based generative models (Wu, Burda, Salakhutdinov & Grosse 2017)

How likely are real images under a VAE and a GAN? Annealed importance sampling answers for any decoder with a Gaussian
around its output, bidirectional Monte Carlo says how far it can be off, and a Parzen window of samples is what was used
before: the two rank models differently. Probabilistic PCA stands beside them, on the same dequantised pixels, exact: a
linear model, so that a reader sees what 300 nats mean. Windows are asked about 1,000 test images, and AIS about as many
of them as the budget allows.
Table 1 is of one autoencoder on binarised images: AIS from the prior and from the encoder, and its own bound.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw, likelihood_binary
from experiments.reproduce import likelihood_estimates as estimates
from experiments.reproduce import likelihood_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from experiments.reproduce.likelihood_models import Model
from vaegan_jax import metrics, plots

LOWEST = -500
"""Nats, of the figure's axis: a GAN may be anywhere below."""


def _above(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """By how much AIS prefers a, test images: at least, as it is a lower bound and b is given its gap."""
    return a["ais"] - b["ais"] - b["gap"]


def _overfit(v: Mapping[str, float]) -> float:
    """At least, as the test images' lower bound is given its gap."""
    return v["train"] - v["ais"] - v["gap"]


def _overfit_more(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """By how much a overfits more than b: at least, as b's training images are given their gap too."""
    return _overfit(a) - (b["train"] + b["gap"] - b["ais"])


def _reversed(wide: Mapping[str, float], narrow: Mapping[str, float]) -> float:
    """Above 0 where Parzen windows prefer the narrow model and AIS the wide one: the lesser of the two margins."""
    return min(narrow["kde"] - wide["kde"], _above(wide, narrow))


def continuous(job: Job) -> Outcome:
    """Table 2: four models by every estimator."""
    data = estimates.images(job)
    trained, found = estimates.train(job, models.MODELS, data)
    windows, how = estimates.parzen_samples(job), estimates.annealing(job)
    linear = estimates.linear(job, data)

    def measured(value: Callable[..., float], *names: str, note: str = "") -> Measured:
        steps = min(models.BY_NAME[name].steps(job.budget) for name in names)
        return over_seeds(trained, found, value, *names, steps=steps, data=estimates.used(data), note=note)

    def error(name: str, what: str) -> str:
        return estimates.error(found[name], what)

    def paired(a: str, b: str, what: str) -> str:
        return estimates.paired_error(found[a], found[b], what)

    def above(a: str, b: str) -> Measured:
        return measured(_above, a, b, note=f"standard error of the paired difference over images {paired(a, b, 'ais')}")

    rows = estimates.rows(job, models.MODELS, trained, found, data)
    names = [model.name for model in models.MODELS]
    rows |= {
        "vae50_over_vae10": above("VAE-50", "VAE-10"),
        "vae10_over_gan50": above("VAE-10", "GAN-50"),
        "vae_over_gan_50": above("VAE-50", "GAN-50"),
        "vae_over_gan_10": above("VAE-10", "GAN-10"),
        "gan50_over_gan10": above("GAN-50", "GAN-10"),
        "kde_reversed": measured(_reversed, "VAE-50", "VAE-10"),
        "overfit_vae50": measured(
            _overfit,
            "VAE-50",
            note=f"standard errors over images: {error('VAE-50', 'train')} and {error('VAE-50', 'ais')}",
        ),
        "overfit_more_than_gan": measured(
            _overfit_more,
            "VAE-50",
            "GAN-50",
            note="standard errors of the paired differences over images: training "
            f"{paired('VAE-50', 'GAN-50', 'train')}, test {paired('VAE-50', 'GAN-50', 'ais')}",
        ),
        "ppca50_over_gan10": measured(lambda v: linear[50]["ais"] - v["ais"] - v["gap"], "GAN-10"),
        "ppca50_over_kde": measured(lambda *each: linear[50]["test"] - max(v["kde"] for v in each), *names),
    }
    for k, exact in linear.items():
        rows[f"ppca_{k}"] = Measured([exact["test"]], exact=True, data=(data["train"], data["test"]))
    _draw(job, found, {k: exact["ais"] for k, exact in linear.items()})
    _draw_bounds(job, trained)
    _draw_samples(job, trained, data)
    captions = {
        "rankings.png": "Two rankings at a glance: annealed importance sampling and Parzen windows on the same models. "
        "Hollow, the paper's: 16 chains of 10,000 distributions on 1,000 images, windows of a million samples. Full, "
        f"ours, a point a seed: {how['chains']} chains of {how['distributions']:,} on {estimates.judged(job)[0]:,} "
        f"images, windows of {windows:,} samples (fewer give less) on 1,000; the bar above a point is BDMC's gap. "
        "Lines are probabilistic PCA's exact log-likelihood of AIS's images. A triangle at the edge, and a number: a "
        f"point below {LOWEST}.",
        "samples.png": "What the numbers are about: outputs g(z) at draws of the prior, first seed, not selected.",
        "bounds.png": "The VAEs' bound on 10,000 validation images along training, mean and range over seeds; nothing "
        "is chosen by it.",
    }
    tables = [
        estimates.table(job, models.MODELS, found, linear), _rankings(found),
        estimates.diagnostics(job, models.MODELS, found),
    ]  # fmt: skip
    curves = {m.name: trained[m.name].record("validation_elbo") for m in models.MODELS if m.has_encoder}
    return Outcome(rows, tables, captions, curves)


def gmmn(job: Job) -> Outcome:
    """Table 2's other two models: trained by a kernel, with no opponent and no encoder."""
    data = estimates.images(job)
    trained, found = estimates.train(job, models.GMMN, data)
    tables = [
        estimates.table(job, models.GMMN, found, estimates.linear(job, data)),
        estimates.diagnostics(job, models.GMMN, found),
    ]
    return Outcome(estimates.rows(job, models.GMMN, trained, found, data), tables)


def _rankings(found: Mapping[str, estimates.Numbers]) -> Table:
    """Which model is the best by which estimate, and what the two disagree on."""
    order = [model.name for model in models.MODELS if found[model.name]]
    theirs, ours = dict[str, dict[str, float]](), dict[str, dict[str, float]]()
    for what in ("ais", "kde", "gap"):
        theirs[what] = {name: float(estimates.PUBLISHED[name][what].split()[0]) for name in order}
        ours[what] = {name: float(np.mean([v[what] for v in found[name].values()])) for name in order}

    def best_first(values: Mapping[str, float]) -> list[str]:
        return sorted(order, key=lambda name: values[name], reverse=True)

    def pairs(by: Mapping[str, Mapping[str, float]]) -> str:
        """AIS is a lower bound: it prefers a to b where a is above b with b's gap."""
        ais, kde, gap = by["ais"], by["kde"], by["gap"]
        ranked = best_first(ais)
        each = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
        other = [f"{b} above {a}" for a, b in each if kde[b] > kde[a] and ais[a] > ais[b] + gap[b]]
        open_ = [f"{a} and {b}" for a, b in each if ais[a] <= ais[b] + gap[b]]
        return (", ".join(other) or "none") + (f"; closer than BDMC's gap: {', '.join(open_)}" if open_ else "")

    lines = [
        [i + 1, *(best_first(by[what])[i] for what in ("ais", "kde") for by in (theirs, ours))]
        for i in range(len(order))
    ]
    title = (
        f"The two rankings, best first. Pairs that Parzen windows order the other way. Wu et al.: {pairs(theirs)}. "
        f"Ours, means over seeds: {pairs(ours)}."
    )
    return Table(title, ("", "AIS, Wu et al.", "AIS, ours", "Parzen, Wu et al.", "Parzen, ours"), lines)


def _draw(job: Job, found: Mapping[str, estimates.Numbers], linear: Mapping[int, float]) -> None:
    order = [name for name in estimates.PUBLISHED if name in found]
    figure = plots.new_figure(7.0, 3.8)
    axes = figure.subplots()
    for what, colour, shift in (("ais", draw.BLUE, -0.12), ("kde", draw.RED, 0.12)):
        theirs = [float(estimates.PUBLISHED[name][what].split()[0]) for name in order]
        label = {"ais": "AIS", "kde": "Parzen window"}[what]
        at = np.arange(len(order)) + shift
        axes.plot(at - 0.05, theirs, "D", color=colour, markerfacecolor="white", markersize=6, label=f"{label}, paper")
        axes.plot([], [], "o", color=colour, markersize=4, label=f"{label}, ours")
        for i, name in enumerate(order):
            mine = [v[what] for v in found[name].values()]
            axes.plot([at[i] + 0.05] * len(mine), mine, "o", color=colour, markersize=4)
            if what == "ais":
                gaps = [v["gap"] for v in found[name].values()]
                axes.vlines([at[i] + 0.05] * len(mine), mine, np.add(mine, gaps), color=colour, linewidth=0.9)
            if below := [value for value in mine if value < LOWEST]:
                axes.plot(at[i] + 0.05, LOWEST, "v", color=colour, markersize=6, clip_on=False)
                said, side = ", ".join(f"{value:,.0f}" for value in below), -1 if what == "ais" else 1
                axes.annotate(said, (at[i] + 0.05, LOWEST), (6 * side, 4), textcoords="offset points", fontsize=7,
                              color=colour, ha="right" if side < 0 else "left")  # fmt: skip
    for k, value in linear.items():
        axes.axhline(value, color=draw.GREY, linewidth=0.9, linestyle=":")
        axes.annotate(f"probabilistic PCA, {k}", (1.5, value), (0, 3), textcoords="offset points", fontsize=7,
                      color="0.4", ha="center")  # between two models' marks  # fmt: skip
    axes.set_xticks(range(len(order)), order)
    axes.set(ylabel="log-likelihood of test images, nats", xlim=(-0.6, len(order) - 0.4))
    axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST))
    axes.legend(frameon=False, fontsize=8, ncols=2)
    plots.clean(axes)
    plots.render(figure, job.figures / "rankings.png")


def _draw_bounds(job: Job, trained: Mapping[str, Trained]) -> None:
    figure = plots.new_figure(5.2, 3.2)
    axes = figure.subplots()
    for model, colour in zip((m for m in models.MODELS if m.has_encoder), (draw.BLUE, draw.GREEN), strict=True):
        at, values = trained[model.name].curve("validation_elbo")
        draw.band(axes, at, values, colour, model.name, marker="o", markersize=3.5)
    axes.set(xlabel="steps", ylabel="bound, validation images, nats")
    axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)  # of no seeds, no warning
    plots.clean(axes)
    plots.render(figure, job.figures / "bounds.png")


def _draw_samples(job: Job, trained: Mapping[str, Trained], data: estimates.Data) -> None:
    pictures = [("test images", data["test"].x[:20])]
    for model in models.MODELS:
        one = trained[model.name]
        if one.seeds:
            x = model.algorithm.sample(one.config(), one.state(one.seeds[0]), jax.random.key(0), 20)
            pictures.append((model.name, np.asarray(x)))
    draw.panels(pictures, job.figures / "samples.png", columns=20)


def sandwich(job: Job) -> Outcome:
    """How the bounds close with the number of distributions, on images that GAN-10 itself has made."""
    data = estimates.images(job)
    model = models.BY_NAME["GAN-10"]
    steps, trained = model.steps(job.budget), estimates.fit(job, model, data)
    counts = job.choose((4, 8), (30, 100, 300, 1_000), (100, 300, 1_000, 3_000, 10_000))
    n, chains = job.choose(2, 10, 100), estimates.annealing(job)["chains"]
    bounds: dict[str, list[list[float]]] = {"lower": [], "upper": []}
    for seed in trained.seeds:
        config, state = trained.config(), trained.state(seed)
        log_p = functools.partial(estimates.density, model, config, state)
        simulate = functools.partial(estimates.simulate, model, config, state)

        def both(count: int, seed: int = seed, log_p: Any = log_p, simulate: Any = simulate) -> list[float]:
            one = metrics.bdmc(
                log_p, simulate, jax.random.fold_in(jax.random.key(seed), 7), latents=model.latents, n=n,
                chains=chains, reverse_chains=estimates.REVERSE_CHAINS, distributions=count, progress=job.progress,
                workdir=job.workdir / f"{seed}-{count}",
            )  # fmt: skip
            return [float(np.mean(one.lower)), float(np.mean(one.upper))]

        of = (steps, n, chains, estimates.REVERSE_CHAINS)
        found = np.array(
            [job.kept(f"bounds-{seed}-{count}", functools.partial(both, count), of=of) for count in counts]
        )
        bounds["lower"].append(found[:, 0].tolist())
        bounds["upper"].append(found[:, 1].tolist())
    lower, upper = (np.array(bounds[name]).reshape(len(trained.seeds), len(counts)) for name in ("lower", "upper"))
    gaps = upper - lower
    figure = plots.new_figure(8.6, 3.4)
    left, right = figure.subplots(1, 2)
    draw.band(left, counts, lower, draw.BLUE, "lower bound (forward chains)", marker="o", markersize=3.5)
    draw.band(left, counts, upper, draw.RED, "upper bound (one reverse chain an image)", marker="o", markersize=3.5)
    left.set(ylabel="log p(x) of simulated images, nats")
    left.legend(frameon=False, fontsize=8)
    positive = gaps.size > 0 and bool((gaps > 0).all())
    draw.band(right, counts, gaps, draw.GREEN, log=positive, marker="o", markersize=3.5)
    right.set(ylabel="upper less lower bound, nats", yscale="log" if positive else "linear")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="intermediate distributions")
        plots.clean(axes)
    plots.render(figure, job.figures / "sandwich.png")
    lines = [
        [f"{count:,}", *(draw.spread(each[:, i], 5) for each in (lower, upper, gaps))] for i, count in enumerate(counts)
    ]
    title = f"BDMC by the number of distributions, {n} images that GAN-10 made, nats; mean +- sd over seeds."
    table = Table(title, ("distributions", "lower bound", "upper bound", "gap"), lines)
    rows = {
        "gap_shrinks": Measured(
            [float(v) for v in gaps[:, 0] - gaps[:, -1]], trained.seeds, trained.failed, steps, trained.config(),
            (data["train"],), note=f"gap at {counts[0]}: {draw.spread(gaps[:, 0])}; at {counts[-1]:,}: "
            f"{draw.spread(gaps[:, -1])}",
        )
    }  # fmt: skip
    caption = f"BDMC on {n} images that GAN-10 made: both bounds and their gap by the number of distributions; "
    caption += "mean and range of seeds (the gap's mean is geometric where its axis is logarithmic)."
    return Outcome(rows, [table], {"sandwich.png": caption})


def _names(chosen: Sequence[Model]) -> tuple[str, ...]:
    return tuple(f"{what}_{model.row}" for model in chosen for what in estimates.columns(model))


PARTS = (
    Part(
        "continuous",
        (
            *_names(models.MODELS),
            "vae50_over_vae10", "vae10_over_gan50", "vae_over_gan_50", "vae_over_gan_10", "gan50_over_gan10",
            "kde_reversed", "overfit_vae50", "overfit_more_than_gan", "ppca50_over_gan10", "ppca50_over_kde",
            "ppca_10", "ppca_50",
        ),
        continuous,
        says(
            "VAE-10, VAE-50, GAN-10, GAN-50 by AIS, BDMC, importance sampling and Parzen windows", "10 steps",
            "20,000 steps, GAN-10 10,000; AIS of 50 test images with 500 distributions; some 55 minutes a seed",
            "the published epochs (1,000 to 8,000); AIS of 1,000 test images with 10,000 distributions",
        ),
    ),
    Part(
        "sandwich",
        ("gap_shrinks",),
        sandwich,
        says(
            "BDMC against the number of distributions, GAN-10 as in continuous", "10 steps",
            "10,000 steps, some 3 minutes a seed beside continuous", "the published epochs (8,000)",
        ),
    ),
    likelihood_binary.PART,
    Part(
        "gmmn",
        _names(models.GMMN),
        gmmn,
        says(
            "GMMN-10 and GMMN-50 by AIS, BDMC and Parzen windows", "3 steps",
            "1,000 steps of 1,000 images each; AIS as in continuous; an estimated 25 minutes a seed",
            "50,000 steps; AIS as in continuous",
        ),
    ),
)  # fmt: skip
