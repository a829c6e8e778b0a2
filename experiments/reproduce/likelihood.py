"""On the quantitative analysis of decoder-based generative models (Wu, Burda, Salakhutdinov & Grosse 2017)

How likely are real images under a VAE and a GAN? Annealed importance sampling answers for any decoder with a Gaussian
around its output, bidirectional Monte Carlo says how far it can be off, and a Parzen window of samples is what was used
before: the two rank models differently. Probabilistic PCA stands beside them, on the same dequantised pixels, exact: a
linear model, so that a reader sees what 300 nats mean. All estimates of a model are of the same test images.
Table 1 is of one autoencoder on binarised images: AIS from the prior and from the encoder, and its own bound.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw, likelihood_binary
from experiments.reproduce import likelihood_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from experiments.reproduce.likelihood_models import Model
from vaegan_jax import losses, metrics, pca, plots
from vaegan_jax.data.dataset import Dataset

PUBLISHED: dict[str, dict[str, str]] = {
    "VAE-50": {"ais": "991.4 +- 6.5", "train": "1272.6 +- 6.8", "gap": "1.54", "kde": "351.2", "is": "826.3"},
    "GAN-50": {"ais": "627.3 +- 8.8", "train": "620.5 +- 31.0", "gap": "10.05", "kde": "300.3", "is": "-"},
    "GMMN-50": {"ais": "593.5 +- 8.6", "train": "571.8 +- 30.9", "gap": "1.15", "kde": "277.2", "is": "-"},
    "VAE-10": {"ais": "705.4 +- 7.4", "train": "780.2 +- 19.1", "gap": "0.83", "kde": "408.7", "is": "486.5"},
    "GAN-10": {"ais": "328.8 +- 5.5", "train": "318.9 +- 22.5", "gap": "0.93", "kde": "259.7", "is": "-"},
    "GMMN-10": {"ais": "346.7 +- 5.9", "train": "345.2 +- 19.9", "gap": "0.61", "kde": "262.7", "is": "-"},
}
"""Table 2 of the paper, nats; +- is a standard error over images."""
COLUMNS = {
    "ais": "AIS, test", "train": "AIS, train", "gap": "BDMC gap", "kde": "Parzen window", "is": "importance sampling",
}  # fmt: skip
Numbers = Mapping[int, Mapping[str, float]]
"""Of each finished seed."""


def images(job: Job) -> dict[str, Dataset]:
    """x = (byte + U(0, 1)) / 256, one draw for ever; Wu et al.'s code. test: a fixed permutation's first 1,000."""
    rng = np.random.default_rng(0)
    found = {}
    for name, split in (("train", "train[:50000]"), ("held", "train[50000:]"), ("test", "test")):
        data = job.load("mnist", split)
        x = ((data.x + rng.random(data.x.shape)) / 256).astype(np.float32)
        if name == "test":
            x = x[np.random.default_rng(1).permutation(len(x))[:1000]]
        found[name] = Dataset(x, None, "mnist, dequantised", split)
    return found


def density(model: Model, config: Any, state: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """log N(x; g(z), sigma^2 I): z [B, K], x [B, ...] -> [B], with the model's own fixed variance."""

    def log_likelihood(z: jax.Array, x: jax.Array) -> jax.Array:
        mean = model.algorithm.decode_standard(config, state, z)
        return losses.gaussian_log_prob(mean, float(np.log(model.variance)), x)

    return log_likelihood


def simulation(model: Model, config: Any, state: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """x ~ N(g(z), sigma^2 I): key, z [B, K] -> [B, ...]; what `density` is the density of."""

    def simulate(key: jax.Array, z: jax.Array) -> jax.Array:
        mean = model.algorithm.decode_standard(config, state, z)
        return mean + np.sqrt(model.variance) * jax.random.normal(key, mean.shape)

    return simulate


def annealing(job: Job) -> dict[str, Any]:
    """What AIS and BDMC are given."""
    return {
        "chains": job.choose(2, 8, 16),
        "distributions": job.choose(8, 500, 10_000),
        "progress": job.progress,
    }


def judged(job: Job) -> tuple[int, int, int]:
    """Test images, training images, and images that the model makes, which are judged."""
    found: tuple[int, int, int] = job.choose((4, 2, 2), (50, 25, 10), (1000, 100, 100))
    return found


def parzen_samples(job: Job) -> int:
    return int(job.choose(200, 10_000, 1_000_000))


def importance_draws(job: Job) -> int:
    """k of the importance-weighted bound."""
    return int(job.choose(50, 20_000, 200_000))


def evaluate(job: Job, model: Model, trained: Trained, seed: int, data: Mapping[str, Dataset]) -> dict[str, float]:
    """Every estimate of one seed's density, nats, means over images; each is kept when it is there.

    ais_error, train_error: standard errors over the images.
    """
    config, state = trained.config(), trained.state(seed)
    log_p, key = density(model, config, state), jax.random.key(seed)
    name = f"{model.name}-{seed}"
    n_test, n_train, n_made = judged(job)

    def ais(split: str, n: int, fold: int) -> list[float]:
        x = jnp.asarray(data[split].x[:n])
        folder = job.workdir / f"{name}-{split}"
        found = metrics.ais_log_likelihood(
            log_p, x, jax.random.fold_in(key, fold), latents=model.latents, workdir=folder, **annealing(job)
        )
        return [float(v) for v in np.asarray(found)]

    def gap() -> float:
        found = metrics.bdmc_gap(
            log_p, simulation(model, config, state), jax.random.fold_in(key, 3), latents=model.latents, n=n_made,
            workdir=job.workdir / f"{name}-bdmc", **annealing(job),
        )  # fmt: skip
        return float(np.asarray(found, np.float64).mean())

    def parzen() -> float:
        n = parzen_samples(job)
        made = np.asarray(model.algorithm.sample(config, state, jax.random.fold_in(key, 4), n)).reshape(n, -1)
        held, test = (data[split].x.reshape(len(data[split]), -1) for split in ("held", "test"))
        return metrics.parzen_estimate(made, held[:1000], test[:n_test], count=n).mean

    def importance() -> float:
        x = jnp.asarray(data["test"].x[:n_test])
        mean, log_var = model.algorithm.encode(config, state, x)
        found = metrics.importance_log_likelihood(
            log_p, x, mean, log_var, jax.random.fold_in(key, 5), samples=importance_draws(job)
        )
        return float(np.asarray(found, np.float64).mean())

    computed: dict[str, Callable[[], Any]] = {
        "ais": lambda: ais("test", n_test, 1), "train": lambda: ais("train", n_train, 2), "gap": gap, "kde": parzen,
    }  # fmt: skip
    if model.has_encoder:
        computed["is"] = importance
    numbers = {}
    for what, compute in computed.items():
        each = np.asarray(job.kept(f"{name}-{what}", compute), np.float64)
        numbers[what] = float(each.mean())
        if each.ndim:
            numbers[f"{what}_error"] = float(each.std(ddof=1) / np.sqrt(each.size))
    return numbers


def _above(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """By how much AIS prefers a, test images: at least, as it is a lower bound and b is given its gap."""
    return a["ais"] - b["ais"] - b["gap"]


def _overfit(v: Mapping[str, float]) -> float:
    return v["train"] - v["ais"]


def continuous(job: Job) -> Outcome:
    """Table 2: four models by every estimator."""
    data = images(job)
    trained: dict[str, Trained] = {}
    found: dict[str, dict[int, dict[str, float]]] = {}
    for model in models.MODELS:
        one = trained[model.name] = job.fit(
            model.name, model.algorithm, model.config(job.budget), data["train"], steps=model.steps(job.budget)
        )
        found[model.name] = {seed: evaluate(job, model, one, seed, data) for seed in one.seeds}
    used = (data["train"], data["held"], data["test"])
    windows, draws = parzen_samples(job), importance_draws(job)
    linear = _linear(job, data)

    def measured(value: Callable[..., float], *names: str, note: str = "") -> Measured:
        steps = min(models.BY_NAME[name].steps(job.budget) for name in names)
        return over_seeds(trained, found, value, *names, steps=steps, data=used, note=note)

    def error(name: str, what: str) -> str:
        values = [v[f"{what}_error"] for v in found[name].values()]
        return f"{np.mean(values):.2g}" if values else "-"

    def cell(name: str, what: str) -> Measured:
        note = {"kde": f"{windows:,} samples", "is": f"k {draws:,}"}.get(what, chains)
        if what in ("ais", "train"):
            note += f"; standard error over images {error(name, what)}"
        return measured(lambda v: v[what], name, note=note)

    how = annealing(job)
    chains = f"{how['chains']} chains, {how['distributions']:,} distributions"
    rows = {
        f"{what}_{model.row}": cell(model.name, what)
        for model in models.MODELS
        for what in COLUMNS
        if what != "is" or model.has_encoder
    }
    names = [model.name for model in models.MODELS]
    rows |= {
        "vae50_over_vae10": measured(_above, "VAE-50", "VAE-10"),
        "vae10_over_gan50": measured(_above, "VAE-10", "GAN-50"),
        "vae_over_gan_50": measured(_above, "VAE-50", "GAN-50"),
        "vae_over_gan_10": measured(_above, "VAE-10", "GAN-10"),
        "gan50_over_gan10": measured(_above, "GAN-50", "GAN-10"),
        "kde_reversed": measured(lambda a, b: a["kde"] - b["kde"], "VAE-10", "VAE-50"),
        "overfit_vae50": measured(
            _overfit,
            "VAE-50",
            note=f"standard errors over images: {error('VAE-50', 'train')} and {error('VAE-50', 'ais')}",
        ),
        "overfit_more_than_gan": measured(
            lambda a, b: _overfit(a) - _overfit(b),
            "VAE-50",
            "GAN-50",
            note="standard errors over images, training and test: "
            + "; ".join(f"{name} {error(name, 'train')} and {error(name, 'ais')}" for name in ("VAE-50", "GAN-50")),
        ),
        "ppca50_over_gan10": measured(lambda v: linear[50] - v["ais"] - v["gap"], "GAN-10"),
        "ppca50_over_kde": measured(lambda *each: linear[50] - max(v["kde"] for v in each), *names),
    }
    _draw(job, found, linear)
    captions = {
        "rankings.png": "Two rankings at a glance: annealed importance sampling and Parzen windows on the same models. "
        "Hollow, the paper's: 16 chains of 10,000 distributions on 1,000 images, windows of a million samples. Full, "
        f"ours, a point a seed: {how['chains']} chains of {how['distributions']:,} on {judged(job)[0]:,} images, "
        f"windows of {windows:,} samples (fewer give less); the bar above a point is "
        "BDMC's gap. Lines are probabilistic PCA's exact log-likelihood of the same images.",
    }
    return Outcome(rows, [_table(job, found, linear), _rankings(found)], captions)


def _linear(job: Job, data: Mapping[str, Dataset]) -> dict[int, float]:
    """Exact mean log-likelihood of the test images under probabilistic PCA of 10 and of 50 components."""
    flat = {name: one.x.reshape(len(one), -1) for name, one in data.items()}
    x = flat["train"][: job.choose(2000, 50_000, 50_000)]

    def exact(k: int) -> float:
        return float(pca.fit(x, k).log_likelihood(flat["test"][: judged(job)[0]]).mean())

    return {k: float(job.kept(f"ppca-{k}", functools.partial(exact, k))) for k in (10, 50)}


def _table(job: Job, found: Mapping[str, Numbers], linear: Mapping[int, float]) -> Table:
    lines = []
    for name, said in PUBLISHED.items():
        lines.append([name, "Wu et al.", *(said[what] for what in COLUMNS)])
        if name in found:
            cells = [draw.spread([v[what] for v in found[name].values() if what in v], 4) for what in COLUMNS]
            lines.append([name, "ours", *cells])
    lines += [[f"probabilistic PCA, {k}", "exact", f"{value:.1f}", *["-"] * 4] for k, value in linear.items()]
    how, steps = annealing(job), "; ".join(f"{m.name} {m.steps(job.budget):,}" for m in models.MODELS)
    title = (
        f"Table 2, continuous MNIST, nats. Ours: {steps} steps, {how['chains']} chains, {how['distributions']:,} "
        f"distributions of 10 leapfrogs, {judged(job)[0]:,} test images; mean +- sd over seeds. Theirs: 16 chains, "
        "10,000 distributions, 1,000 test images, a million samples in the window; +- is a standard error over images."
    )
    return Table(title, ("model", "by", *COLUMNS.values()), lines)


def _rankings(found: Mapping[str, Numbers]) -> Table:
    """Which model is the best by which estimate, and what the two disagree on."""
    order = [model.name for model in models.MODELS if found[model.name]]
    theirs, ours = dict[str, list[str]](), dict[str, list[str]]()

    def best_first(values: Mapping[str, float]) -> list[str]:
        return sorted(order, key=lambda name: values[name], reverse=True)

    for what in ("ais", "kde"):
        said = {name: float(PUBLISHED[name][what].split()[0]) for name in order}
        mine = {name: float(np.mean([v[what] for v in found[name].values()])) for name in order}
        theirs[what], ours[what] = best_first(said), best_first(mine)

    def swapped(by: Mapping[str, list[str]]) -> str:
        ais, kde = by["ais"], by["kde"]
        pairs = [(a, b) for i, a in enumerate(ais) for b in ais[i + 1 :] if kde.index(b) < kde.index(a)]
        return ", ".join(f"{b} above {a}" for a, b in pairs) or "none"

    lines = [
        [i + 1, *(ranking[what][i] for what in ("ais", "kde") for ranking in (theirs, ours))] for i in range(len(order))
    ]
    title = (
        f"The two rankings, best first. Pairs that Parzen windows order the other way: {swapped(theirs)} (Wu et al.); "
        f"{swapped(ours)} (ours, means over seeds)."
    )
    return Table(title, ("", "AIS, Wu et al.", "AIS, ours", "Parzen, Wu et al.", "Parzen, ours"), lines)


def _draw(job: Job, found: Mapping[str, Numbers], linear: Mapping[int, float]) -> None:
    order = [name for name in PUBLISHED if name in found]
    figure = plots.new_figure(7.0, 3.8)
    axes = figure.subplots()
    for what, colour, shift in (("ais", draw.BLUE, -0.12), ("kde", draw.RED, 0.12)):
        theirs = [float(PUBLISHED[name][what].split()[0]) for name in order]
        label = {"ais": "AIS", "kde": "Parzen window"}[what]
        at = np.arange(len(order)) + shift
        axes.plot(at - 0.05, theirs, "D", color=colour, markerfacecolor="white", markersize=6, label=f"{label}, paper")
        for i, name in enumerate(order):
            mine = [v[what] for v in found[name].values()]
            said = None if i else f"{label}, ours"
            axes.plot([at[i] + 0.05] * len(mine), mine, "o", color=colour, markersize=4, label=said)
            if what == "ais":
                gaps = [v["gap"] for v in found[name].values()]
                axes.vlines([at[i] + 0.05] * len(mine), mine, np.add(mine, gaps), color=colour, linewidth=0.9)
    for k, value in linear.items():
        axes.axhline(value, color=draw.GREY, linewidth=0.9, linestyle=":")
        axes.annotate(f"probabilistic PCA, {k}", (len(order) - 0.55, value), (0, 3), textcoords="offset points",
                      fontsize=7, color="0.4", ha="right")  # fmt: skip
    axes.set_xticks(range(len(order)), order)
    axes.set(ylabel="log-likelihood of test images, nats", xlim=(-0.6, len(order) - 0.4))
    axes.legend(frameon=False, fontsize=8, ncols=2)
    plots.clean(axes)
    plots.render(figure, job.figures / "rankings.png")


def sandwich(job: Job) -> Outcome:
    """How the bounds close with the number of distributions, on images that GAN-10 itself has made."""
    data = images(job)
    model = models.BY_NAME["GAN-10"]
    shared = job.choose(2, model.steps("cpu") // 4, model.steps("paper"))
    trained = job.fit(model.name, model.algorithm, model.config(job.budget), data["train"], steps=shared)
    counts = job.choose((4, 8), (30, 100, 300, 1_000), (100, 300, 1_000, 3_000, 10_000))
    n, chains = job.choose(2, 10, 100), annealing(job)["chains"]
    bounds: dict[str, list[list[float]]] = {"lower": [], "upper": []}
    for seed in trained.seeds:
        config, state = trained.config(), trained.state(seed)
        log_p = density(model, config, state)

        simulate = simulation(model, config, state)

        def both(count: int, seed: int = seed, log_p: Any = log_p, simulate: Any = simulate) -> list[float]:
            one = metrics.bdmc(
                log_p, simulate, jax.random.fold_in(jax.random.key(seed), 7), latents=model.latents, n=n,
                chains=chains, distributions=count, progress=job.progress, workdir=job.workdir / f"{seed}-{count}",
            )  # fmt: skip
            return [float(np.mean(one.lower)), float(np.mean(one.upper))]

        found = np.array([job.kept(f"bounds-{seed}-{count}", functools.partial(both, count)) for count in counts])
        bounds["lower"].append(found[:, 0].tolist())
        bounds["upper"].append(found[:, 1].tolist())
    lower, upper = (np.array(bounds[name]).reshape(len(trained.seeds), len(counts)) for name in ("lower", "upper"))
    figure = plots.new_figure(5.4, 3.4)
    axes = figure.subplots()
    draw.band(axes, counts, lower, draw.BLUE, "lower bound (forward chains)", marker="o", markersize=3.5)
    draw.band(axes, counts, upper, draw.RED, "upper bound (reverse chains)", marker="o", markersize=3.5)
    axes.set(xscale="log", xlabel="intermediate distributions", ylabel="log p(x) of simulated images, nats")
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "sandwich.png")
    gaps = upper - lower
    rows = {
        "gap_shrinks": Measured(
            [float(v) for v in gaps[:, 0] - gaps[:, -1]], trained.seeds, trained.failed, shared, trained.config(),
            (data["train"],), note=f"gap at {counts[0]}: {draw.spread(gaps[:, 0])}; at {counts[-1]:,}: "
            f"{draw.spread(gaps[:, -1])}",
        )
    }  # fmt: skip
    caption = f"BDMC on {n} images that GAN-10 made: both bounds by the number of distributions; mean, range of seeds."
    return Outcome(rows, figures={"sandwich.png": caption})


PARTS = (
    Part(
        "continuous",
        (
            *(f"{w}_{m.row}" for m in models.MODELS for w in COLUMNS if w != "is" or m.has_encoder),
            "vae50_over_vae10", "vae10_over_gan50", "vae_over_gan_50", "vae_over_gan_10", "gan50_over_gan10",
            "kde_reversed", "overfit_vae50", "overfit_more_than_gan", "ppca50_over_gan10", "ppca50_over_kde",
        ),
        continuous,
        says(
            "VAE-10, VAE-50, GAN-10, GAN-50 by AIS, BDMC, importance sampling and Parzen windows", "10 steps",
            "20,000 steps each; AIS of 50 test images with 500 distributions; some 70 minutes a seed",
            "the published epochs (1,000 to 8,000); AIS of 1,000 test images with 10,000 distributions",
        ),
    ),
    Part(
        "sandwich",
        ("gap_shrinks",),
        sandwich,
        says("BDMC against the number of distributions, GAN-10", "10 steps", "5,000 steps, some 6 min a seed", "hours"),
    ),
    likelihood_binary.PART,
)  # fmt: skip
