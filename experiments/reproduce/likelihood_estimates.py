"""What judges the models of Wu et al. 2017, on the same images: AIS, BDMC, Parzen windows, importance sampling."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Table, Trained, over_seeds
from experiments.reproduce.likelihood_models import Model
from vaegan_jax import losses, metrics, pca
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
WIDTHS = np.arange(10, 30) / 100
"""Of the Parzen window, as in the released code."""
REVERSE_CHAINS = 1
"""Of BDMC, an image; as in the released code. More would lower its upper bound."""
PILOTS = 4
"""Chains of AIS that set an image's step and have no weight."""
Numbers = Mapping[int, Mapping[str, Any]]
"""Of each finished seed: see `evaluate`."""
Data = Mapping[str, Dataset]
"""train, held, test: see `images`."""


def images(job: Job) -> dict[str, Dataset]:
    """x = (byte + U(0, 1)) / 256, one draw for ever; Wu et al.'s code. test: a fixed permutation's first 1,000."""
    rng = np.random.default_rng(0)
    found = {}
    few = {"train": "train[:2000]", "held": "train[50000:52000]", "test": "test"}
    all_of_them = {"train": "train[:50000]", "held": "train[50000:]", "test": "test"}
    for name, split in job.choose(few, all_of_them, all_of_them).items():
        data = job.load("mnist", split)
        x = ((data.x + rng.random(data.x.shape)) / 256).astype(np.float32)
        if name == "test":
            x = x[np.random.default_rng(1).permutation(len(x))[:1000]]
        found[name] = Dataset(x, None, "mnist, dequantised", split)
    return found


def density(model: Model, config: Any, state: Any, z: jax.Array, x: jax.Array) -> jax.Array:
    """log N(x; g(z), sigma^2 I): z [B, K], x [B, ...] -> [B], with the model's own fixed variance."""
    mean = model.algorithm.decode_standard(config, state, z)
    return losses.gaussian_log_prob(mean, float(np.log(model.variance)), x)


def simulate(model: Model, config: Any, state: Any, key: jax.Array, z: jax.Array) -> jax.Array:
    """x ~ N(g(z), sigma^2 I): z [B, K] -> [B, ...]; what `density` is the density of."""
    mean: jax.Array = model.algorithm.decode_standard(config, state, z)
    return mean + np.sqrt(model.variance) * jax.random.normal(key, mean.shape)


def annealing(job: Job) -> dict[str, Any]:
    """What AIS and BDMC are given."""
    return {
        "chains": job.choose(2, 8, 16),
        "distributions": job.choose(8, 500, 10_000),
        "block": job.choose(4, 50, 500),
        "pilots": PILOTS,
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


def evaluate(job: Job, model: Model, trained: Trained, seed: int, data: Data) -> dict[str, Any]:
    """Every estimate of one seed's density, nats, means over images; each is kept when it is there.

    ais_each, train_each, gap_each, is_each: [n], the images' own. ais_weights: how many chains the weights are worth, a
    mean over images. kde_sigma, kde_error: the window's width, and the standard error over images; kde_same: of AIS's
    images alone.
    """
    config, state = trained.config(), trained.state(seed)
    log_p, key = functools.partial(density, model, config, state), jax.random.key(seed)
    name = f"{model.name}-{seed}"
    n_test, n_train, n_made = judged(job)

    def ais(split: str, n: int, fold: int) -> dict[str, Any]:
        x = jnp.asarray(data[split].x[:n])
        folder = job.workdir / f"{name}-{split}"
        found = metrics.ais_log_likelihood(
            log_p, x, jax.random.fold_in(key, fold), latents=model.latents, workdir=folder, **annealing(job)
        )
        with np.load(folder / "ais.npz", allow_pickle=False) as held:
            weights = worth(held["log_weight"][PILOTS:])
        return {"each": np.asarray(found, np.float64).tolist(), "weights": weights}

    def gap() -> dict[str, Any]:
        found = metrics.bdmc(
            log_p, functools.partial(simulate, model, config, state), jax.random.fold_in(key, 3),
            latents=model.latents, n=n_made, workdir=job.workdir / f"{name}-bdmc", reverse_chains=REVERSE_CHAINS,
            **annealing(job),
        )  # fmt: skip
        return {"each": np.asarray(found.gap, np.float64).tolist()}

    def parzen() -> dict[str, float]:
        n = parzen_samples(job)
        made = np.asarray(model.algorithm.sample(config, state, jax.random.fold_in(key, 4), n)).reshape(n, -1)
        held, test = (data[split].x.reshape(len(data[split]), -1) for split in ("held", "test"))
        found = metrics.parzen_estimate(made, held[:1000], test, count=n, sigmas=WIDTHS)
        same = float(metrics.parzen_log_likelihood(made, test[:n_test], found.sigma).mean())
        return {"mean": found.mean, "sigma": found.sigma, "error": found.standard_error, "same": same}

    def importance() -> dict[str, Any]:
        x = jnp.asarray(data["test"].x[:n_test])
        mean, log_var = model.algorithm.encode(config, state, x)
        found = metrics.importance_log_likelihood(
            log_p, x, mean, log_var, jax.random.fold_in(key, 5), samples=importance_draws(job)
        )
        return {"each": np.asarray(found, np.float64).tolist()}

    computed: dict[str, Callable[[], Any]] = {
        "ais": lambda: ais("test", n_test, 1), "train": lambda: ais("train", n_train, 2), "gap": gap, "kde": parzen,
    }  # fmt: skip
    if model.has_encoder:
        computed["is"] = importance
    steps, how = model.steps(job.budget), annealing(job)
    long = (how["chains"], how["distributions"])
    of = {
        "ais": (steps, n_test, *long), "train": (steps, n_train, *long), "gap": (steps, n_made, *long, REVERSE_CHAINS),
        "kde": (steps, parzen_samples(job)), "is": (steps, n_test, importance_draws(job)),
    }  # fmt: skip
    numbers = dict[str, Any]()
    for what, compute in computed.items():
        found = job.kept(f"{name}-{what}-numbers", compute, of=of[what])
        if "each" in found:
            found["each"] = np.asarray(found["each"], np.float64)
            found["mean"] = float(found["each"].mean())
        numbers |= {what if kind == "mean" else f"{what}_{kind}": value for kind, value in found.items()}
    return numbers


def worth(log_weight: np.ndarray) -> float:
    """(sum of weights)^2 / sum of squares over chains [C, B], the mean over examples: 1 to C."""
    w = np.exp(log_weight.astype(np.float64) - log_weight.max(axis=0))
    return float((w.sum(axis=0) ** 2 / (w**2).sum(axis=0)).mean())


def linear(job: Job, data: Data) -> dict[int, dict[str, float]]:
    """Exact mean log-likelihoods, nats, under probabilistic PCA of 10 and of 50 components, by components.

    test: of the 1,000 test images; ais and train: of those test and training images that AIS is asked about.
    """
    flat = {name: one.x.reshape(len(one), -1) for name, one in data.items()}
    n_test, n_train, _ = judged(job)
    x = flat["train"][: job.choose(2000, 50_000, 50_000)]
    asked = {"test": flat["test"], "ais": flat["test"][:n_test], "train": flat["train"][:n_train]}

    def exact(k: int) -> dict[str, float]:
        model = pca.fit(x, k)
        return {name: float(model.log_likelihood(y).mean()) for name, y in asked.items()}

    return {k: job.kept(f"ppca-{k}", functools.partial(exact, k), of=(n_test, n_train)) for k in (10, 50)}


def train(job: Job, chosen: Sequence[Model], data: Data) -> tuple[dict[str, Trained], dict[str, Numbers]]:
    """Trains and judges each of `chosen`: by name, what was trained and what `evaluate` says of each finished seed."""
    trained, found = dict[str, Trained](), dict[str, Numbers]()
    for model in chosen:
        one = trained[model.name] = fit(job, model, data)
        found[model.name] = {seed: evaluate(job, model, one, seed, data) for seed in one.seeds}
    return trained, found


def fit(job: Job, model: Model, data: Data) -> Trained:
    """The parts share trainings, which lie beside their folders."""
    found = job.beside("trainings").fit(
        model.name, model.algorithm, model.config(job.budget), data["train"], steps=model.steps(job.budget),
        side_by_side=True if job.budget == "smoke" else None,
        validation=data["held"] if model.has_encoder else None,  # for curves, nothing is chosen by it
    )  # fmt: skip
    job.tick()
    return found


def columns(model: Model) -> list[str]:
    """The estimates that it has."""
    return [what for what in COLUMNS if what != "is" or model.has_encoder]


def used(data: Data) -> tuple[Dataset, ...]:
    return data["train"], data["held"], data["test"]


def error(numbers: Numbers, what: str) -> str:
    """The standard error over images of `what`, one of ais, train, gap and is, mean over seeds, as text."""
    return draw.standard_error([v[f"{what}_each"] for v in numbers.values()])


def paired_error(a: Numbers, b: Numbers, what: str) -> str:
    """The same of the difference between two models, image by image: both are judged on the same ones."""
    return draw.paired_error(a, b, f"{what}_each")


def rows(
    job: Job, chosen: Sequence[Model], trained: Mapping[str, Trained], found: Mapping[str, Numbers], data: Data
) -> dict[str, Measured]:
    """Every estimate of every model of `chosen`, under its row's name."""
    how = annealing(job)
    chains = f"{how['chains']} chains, {how['distributions']:,} distributions"

    def cell(model: Model, what: str) -> Measured:
        seeds = found[model.name]
        note = {
            "kde": f"{parzen_samples(job):,} samples; width {_listed(seeds, 'kde_sigma', '.2f')}",
            "is": f"k {importance_draws(job):,}", "gap": f"{chains}, one reverse chain an image",
        }.get(what, chains)  # fmt: skip
        if what != "kde":
            note += f"; standard error over images {error(seeds, what)}"
        return over_seeds(
            trained, found, lambda v: v[what], model.name, steps=model.steps(job.budget), data=used(data), note=note
        )

    return {f"{what}_{model.row}": cell(model, what) for model in chosen for what in columns(model)}


def _listed(numbers: Numbers, what: str, spec: str) -> str:
    """One number a seed."""
    return ", ".join(format(v[what], spec) for v in numbers.values()) or "-"


def table(
    job: Job, chosen: Sequence[Model], found: Mapping[str, Numbers], linear: Mapping[int, Mapping[str, float]]
) -> Table:
    """Theirs and ours, and the linear models' exact numbers."""
    lines = []
    for name in (model.name for model in chosen):
        lines.append([name, "Wu et al.", *(PUBLISHED[name][what] for what in COLUMNS)])
        cells = [draw.spread([v[what] for v in found[name].values() if what in v], 4) for what in COLUMNS]
        lines.append([name, "ours", *cells])
    for k, of in linear.items():
        lines.append([f"probabilistic PCA, {k}", "exact, AIS's images", f"{of['ais']:.1f}", f"{of['train']:.1f}", "0"]
                     + ["-"] * 2)  # fmt: skip
        lines.append([f"probabilistic PCA, {k}", "exact, 1,000 test images", f"{of['test']:.1f}", *["-"] * 4])
    how, steps = annealing(job), "; ".join(f"{m.name} {m.steps(job.budget):,}" for m in chosen)
    n_test, n_train, n_made = judged(job)
    title = (
        f"Table 2, continuous MNIST, nats. Ours: {steps} steps; AIS of {n_test:,} test and {n_train:,} training images "
        f"and BDMC of {n_made:,} that the model made, {how['chains']} chains, {how['distributions']:,} distributions "
        f"of 10 leapfrogs; windows of {parzen_samples(job):,} samples on 1,000 test images; importance sampling with "
        f"k = {importance_draws(job):,} on AIS's; mean +- sd over seeds. Theirs: 16 chains, 10,000 distributions, "
        "1,000 test images, a million samples in the window, k = 200,000; +- is a standard error over images."
    )
    return Table(title, ("model", "by", *COLUMNS.values()), lines)


def diagnostics(job: Job, chosen: Sequence[Model], found: Mapping[str, Numbers]) -> Table:
    """How far the estimates themselves can be trusted."""
    lines = []
    for name in (model.name for model in chosen):
        seeds = found[name]
        gaps = np.concatenate([np.zeros(0), *(v["gap_each"] for v in seeds.values())])
        lines.append(
            [
                name, error(seeds, "ais"), error(seeds, "train"), _listed(seeds, "ais_weights", ".1f"),
                f"{gaps.min():.3g} to {gaps.max():.3g}" if gaps.size else "-", _listed(seeds, "kde_sigma", ".2f"),
                draw.spread([v["kde_error"] for v in seeds.values()], 2),
                draw.spread([v["kde_same"] for v in seeds.values()], 4),
            ]
        )  # fmt: skip
    columns = (
        "model", "AIS, test: error over images", "AIS, train: error over images",
        f"chains' worth, of {annealing(job)['chains']}", "BDMC gap, images", "window's width",
        "window: error over images", "window, on AIS's test images",
    )  # fmt: skip
    title = (
        "What the estimates are worth, in nats; several numbers in a cell are one a seed. Chains' worth is (sum of "
        f"weights)^2 / sum of squares, a mean over images; widths go from {WIDTHS[0]:.2f} to {WIDTHS[-1]:.2f}."
    )
    return Table(title, columns, lines)
