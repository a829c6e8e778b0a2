"""Arjovsky & Bottou 2017, figures 1 to 3: a new discriminator on a frozen generator, and the gradient that is left."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw, samples
from experiments.reproduce import wgan_cells as cells
from experiments.reproduce import wgan_frozen as frozen
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table
from vaegan_jax import adversarial, checkpoint, gan, plots
from vaegan_jax import state as players

COSTS = ("saturating", "log_d")
"""What the generator minimises: E log(1 - D(g(z))), and the -log D trick's -E log D(g(z))."""
PROBED = 256  # real test images, and as many samples
BATCHES = 4  # of them, over which the gradient varies


@functools.partial(jax.jit, static_argnums=0)
def probe(config: gan.Config, state: Any, x: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    """What a generator would get from this discriminator. x [M, B, *shape]: M batches of real images.

    cost = -(E log D(x) + E log(1 - D(g(z)))); accuracy of D at 1/2; and for each of COSTS the norm of the gradient in
    the generator's parameters (of the mean over all M B samples) and its variance over batches, E |g - E g|^2. All
    under batch statistics, as in training.
    """
    g, d = state.generator, state.discriminator

    def judge(x: jax.Array) -> jax.Array:
        return players.apply(config.discriminator, d.variables(), x, None, train=True)[0][0]

    def one(total: Any, xs: tuple[jax.Array, jax.Array]) -> tuple[Any, tuple[jax.Array, ...]]:
        x, key = xs
        z = adversarial.draw_latents(config, key, x.shape[0])

        def logits(params: Any) -> jax.Array:
            variables = {"params": params, "batch_stats": g.batch_stats}
            return judge(adversarial.generate(config, variables, z, None, state.shape, train=True)[0])

        f, pull = jax.vjp(logits, g.params)
        r = judge(adversarial.from_unit(config, x))
        slopes = {"saturating": -jax.nn.sigmoid(f), "log_d": -jax.nn.sigmoid(-f)}
        gradients = {name: pull(slope / f.size)[0] for name, slope in slopes.items()}
        total = jax.tree.map(jnp.add, total, gradients)
        squares = jnp.stack([players.gradient_norm(gradients[name]) ** 2 for name in COSTS])
        cost = jax.nn.softplus(-r).mean() + jax.nn.softplus(f).mean()
        return total, (squares, cost, ((r > 0).mean() + (f < 0).mean()) / 2)

    M = x.shape[0]
    zero = {name: jax.tree.map(jnp.zeros_like, g.params) for name in COSTS}
    total, (squares, cost, accuracy) = jax.lax.scan(one, zero, (x, jax.random.split(key, M)))
    found = {"cost": cost.mean(), "accuracy": accuracy.mean()}
    for i, name in enumerate(COSTS):
        norm = players.gradient_norm(total[name]) / M
        found[f"{name}_norm"] = norm
        found[f"{name}_variance"] = jnp.maximum(squares[:, i].mean() - norm**2, 0) * M / max(M - 1, 1)
    return found


def first(at: np.ndarray, accuracy: np.ndarray) -> int:
    """The first of the iterations `at` [T] with accuracy 1; one more than the last if there is none."""
    whole = np.flatnonzero(accuracy >= 1)
    return int(at[whole[0]]) if whole.size else int(at[-1]) + 1


def points(iterations: int) -> list[int]:
    """Where it is probed, beside 0: every 5 up to 50, then evenly in the logarithm."""
    late = np.geomspace(50, max(iterations, 51), 22)[1:].round().astype(int).tolist()
    return sorted({t for t in [*range(5, 51, 5), *late, iterations] if t <= iterations})


def run(job: Job) -> Outcome:
    data, test = job.load(samples.dataset(job, "mnist")), job.load(samples.dataset(job, "mnist"), "test")
    config = cells.config(("gan", "dcgan"), cells.width(job), len(data))
    stages, iterations = _stages(job.budget, len(data) // config.batch_size), _iterations(job.budget)
    x = jnp.asarray(test.x[:PROBED].reshape(BATCHES, -1, *test.x.shape[1:]))
    at = np.array([0, *points(iterations)])
    found, failed = dict[int, dict[str, dict[str, np.ndarray]]](), list[int]()
    for seed in job.seeds:
        generators = _generators(job, seed, config, data, list(stages.values()))
        each = {
            name: _retrain(job, f"after-{step}-steps", seed, config, data, generators[step], x, at)
            for name, step in (stages.items() if generators else ())
        }
        whole = {name: one for name, one in each.items() if one is not None}
        if len(whole) == len(stages):
            found[seed] = whole
        else:
            failed.append(seed)
    seeds = list(found)
    curves = {
        name: {metric: np.stack([found[seed][name][metric] for seed in seeds]) for metric in found[seeds[0]][name]}
        for name in (stages if seeds else ())
    }

    def measured(values: Mapping[str, Sequence[float]], pick: Any, note: str) -> Measured:
        """pick: what one seed's values at the stages become."""
        each = [float(pick(v)) for v in zip(*values.values(), strict=True)]
        steps = max(stages.values()) + iterations  # of a generator, then of its discriminator
        return Measured(each, seeds, failed, steps=steps, config=config, data=(data, test), note=note)

    def one_by_one(values: Mapping[str, Sequence[float]]) -> str:
        return ", ".join(f"{draw.spread(v, 4)} after {name}" for name, v in values.items())

    orders = {n: _orders(c["saturating_norm"]) for n, c in curves.items()}
    quickest = {n: [first(at, a) for a in c["accuracy"]] for n, c in curves.items()}
    norms = {n: [-v for v in _orders(c["log_d_norm"])] for n, c in curves.items()}
    variances = {n: [-v for v in _orders(c["log_d_variance"])] for n, c in curves.items()}
    rows = {
        "iterations_to_accuracy_one": measured(
            quickest, min,
            f"the quickest generator: {one_by_one(quickest)}; {iterations + 1:,} would be: never; looked at every 5 up "
            "to 50",
        ),
        "vanishing_orders": measured(
            orders, max,
            f"the generator for which it vanishes most: {one_by_one(orders)}; iteration {iterations:,} against 0",
        ),
        "log_d_norm": measured(
            norms, np.mean, f"mean over generators: {one_by_one(norms)}; iteration {iterations:,} against 0"
        ),
        "log_d_variance": measured(
            variances, np.mean,
            f"mean over generators: {one_by_one(variances)}; iteration {iterations:,} against 0; {BATCHES} batches",
        ),
    }  # fmt: skip
    table = Table(
        f"A new discriminator after {iterations:,} iterations on frozen generators, mean +- sd over seeds.",
        (
            "generator after", "accuracy 1 at iteration", "cost at the end", "orders lost, log(1 - D)",
            "orders won, -log D", "orders won, variance of -log D",
        ),
        [
            [
                n, draw.spread(quickest[n], 4), draw.spread(c["cost"][:, -1]), draw.spread(orders[n]),
                draw.spread(norms[n]), draw.spread(variances[n]),
            ]
            for n, c in curves.items()
        ],
    )  # fmt: skip
    _draw(job, at, curves, len(seeds))
    caption = (
        "Figures 1 to 3 of Arjovsky & Bottou 2017 on MNIST: a discriminator trained anew on a frozen DCGAN generator, "
        f"its accuracy (of {PROBED} test images and as many samples) and its cost; and the norms of the gradients, in "
        "the generator's parameters, that the generator would get from the cost log(1 - D) and from -log D."
    )
    return Outcome(rows, [table], {"arjovsky_bottou.png": caption})


def _orders(norm: np.ndarray) -> list[float]:
    """log10 of the first over the last of each row [S, T]; a norm that is 0 in float32 counts as the smallest above."""
    tiny = float(np.finfo(np.float32).tiny)
    return [float(v) for v in np.log10(np.maximum(norm[:, 0], tiny) / np.maximum(norm[:, -1], tiny))]


def _generators(job: Job, seed: int, config: gan.Config, data: Any, stages: Sequence[int]) -> dict[int, Any]:
    """The generator's variables after each of the stages (steps) of one training; {} if it diverged."""
    folder = job.workdir / "frozen" / f"seed-{seed}"

    def keep(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        checkpoint.save(folder, step, state.generator.variables(), keep=None)
        return {"kept": 1.0}

    trained = job.fit(
        "generator", gan, config, data, steps=max(stages), seeds=(seed,), evaluate=keep, evaluate_at=stages
    )
    if seed in trained.failed:
        return {}
    template = trained.state(seed).generator.variables()
    return {step: checkpoint.restore(folder, template, step) for step in stages}


def _retrain(
    job: Job, name: str, seed: int, config: gan.Config, data: Any, variables: Any, x: jax.Array, at: np.ndarray
) -> dict[str, np.ndarray] | None:
    """A fresh discriminator on the generator with these variables: what `probe` says at the iterations `at`, [T]."""
    fresh = frozen.init(config, jax.random.fold_in(jax.random.key(seed), 6), data.x.shape[1:])
    state = dataclasses.replace(fresh, generator=dataclasses.replace(fresh.generator, **variables))
    key = jax.random.key(7)  # the same z at all iterations, so that curves are of the discriminator alone

    def look(config: Any, state: Any, _: jax.Array, step: int) -> dict[str, float]:
        return {name: float(v) for name, v in probe(config, state, x, jax.random.clone(key)).items()}

    trained = job.fit(
        name, frozen, config, data, steps=int(at[-1]), seeds=(seed,), evaluate=look, evaluate_at=at[1:].tolist(),
        initial_states=jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], state),
    )  # fmt: skip
    if seed in trained.failed:
        return None
    start = look(config, state, key, 0)
    return {metric: np.concatenate([[value], trained.curve(metric)[1][0]]) for metric, value in start.items()}


def _draw(job: Job, at: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]], seeds: int) -> None:
    figure = plots.new_figure(8.2, 6.4)
    panels = figure.subplots(2, 2).ravel()
    shown = {
        "accuracy": "accuracy of the discriminator",
        "cost": "cost of the discriminator",
        "saturating_norm": r"$\|\nabla_\theta\, E \log(1 - D(g_\theta(z)))\|$",
        "log_d_norm": r"$\|\nabla_\theta\, E\,{-}\log D(g_\theta(z))\|$",
    }
    for axes, (metric, title) in zip(panels, shown.items(), strict=True):
        for (name, curve), color in zip(curves.items(), draw.SHADES[len(draw.SHADES) - len(curves) :], strict=True):
            values = np.maximum(curve[metric], np.finfo(np.float32).tiny)
            draw.band(axes, at, values, color, f"after {name}", log=metric != "accuracy")
        axes.set(xlabel="discriminator iterations", yscale="linear" if metric == "accuracy" else "log")
        axes.set_title(title, fontsize=10, loc="left")
        axes.xaxis.set_major_formatter(lambda s, _: plots.thousands(s))
        axes.locator_params(axis="x", nbins=5)
        plots.clean(axes)
    panels[0].legend(frameon=False, fontsize=8)
    draw.seeds(figure, seeds)
    plots.render(figure, job.figures / "arjovsky_bottou.png")


def _stages(budget: str, epoch: int) -> dict[str, int]:
    """Name of a generator -> its steps of training."""
    if budget == "smoke":
        return {"2 steps": 2, "4 steps": 4}
    return {f"{n} epoch{'s' * (n > 1)}": n * epoch for n in ((1, 3) if budget == "cpu" else (1, 10, 25))}


def _iterations(budget: str) -> int:
    return 12 if budget == "smoke" else 4_000


def _says(budget: str) -> str:
    time = {"smoke": "a minute", "cpu": "50 minutes a seed on one core", "paper": "on a GPU, an hour"}[budget]
    return (
        f"DCGAN frozen after {', '.join(_stages(budget, 937))}, a new discriminator on each for "
        f"{_iterations(budget):,} iterations of 64; {time}"
    )


PART = Part("vanishing", ("iterations_to_accuracy_one", "vanishing_orders", "log_d_norm", "log_d_variance"), run, _says)
