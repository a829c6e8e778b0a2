"""Figure 2: an optimal discriminator and an optimal critic between two Gaussians that hardly overlap."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from experiments.reproduce import draw
from experiments.reproduce import wgan_frozen as frozen
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table
from experiments.reproduce.wgan_frozen import Game
from vaegan_jax import gan, nets, plots, sampling, wgan
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.initializers import Constant
from vaegan_jax.optimizer import Optimizer

PLACE = 5.0  # real N(-5, 1), fake N(5, 1): read off the figure
X = np.linspace(-8, 8, 1_601, dtype=np.float32)
BATCH, UNITS, FAKES = 512, 512, 10_000
STEPS = {"gan": 10_000, "wgan": 3_000}


class Shift(nn.Module):
    """The generator of N(place, 1): z [B, 1] standard normal -> z + place, which is its one parameter."""

    place: float

    @nn.compact
    def __call__(self, z: jax.Array, shape: tuple[int, ...], y: Any = None, *, train: bool = False) -> jax.Array:
        return z + self.param("shift", Constant(self.place), ())


def games() -> dict[str, Game]:
    law: dict[str, Any] = {
        "latents": 1, "prior": "normal", "prior_scale": 1.0, "generator": Shift(PLACE), "output": "linear",
        "batch_size": BATCH,
    }  # fmt: skip
    return {
        "gan": gan.Config(
            discriminator=nets.MLPDiscriminator(hidden=(64, 64)), discriminator_weight=1.0,
            discriminator_optimizer=Optimizer(rule="adam", learning_rate=1e-2), **law,
        ),
        "wgan": wgan.Config(discriminator=nets.MLPDiscriminator(hidden=(UNITS,)), n_critic=1, **law),
    }  # fmt: skip


def optimum(x: np.ndarray) -> dict[str, np.ndarray]:
    """D* = p_r / (p_r + p_g) = sigmoid(-2 place x) and the sizes of its gradients at x [n], float64, closed form."""
    slope = 2 * PLACE
    logit = -slope * np.asarray(x, np.float64)
    return _sizes(logit, slope)


def _sizes(logit: np.ndarray, slope: Any) -> dict[str, np.ndarray]:
    """D = sigmoid(logit), abs(dD/dx) and abs(d log(1 - D)/dx), for slope = abs(d logit/dx).

    In float64: in float32 1 - D is 0 where D is sure.
    """
    D = expit(logit)
    return {"d": D, "d_slope": slope * D * expit(-logit), "log_slope": slope * D}


@functools.partial(jax.jit, static_argnums=0)
def _judged(game: Game, state: Any, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f [n] and its slope [n, 1] at points [n, 1]."""

    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = sampling.discriminate(game, state, x)[0]
        return values.sum(), values

    (_, values), slopes = jax.value_and_grad(f, has_aux=True)(points)
    return values, slopes


def profile(game: Game, state: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """What `optimum` says, of a trained discriminator at x [n]; f and f_slope, signed, of a critic."""
    points = jnp.asarray(x, jnp.float32)[:, None]

    logits, slopes = (np.asarray(each, np.float64) for each in _judged(game, state, points))
    slope = slopes[:, 0]
    if isinstance(game, wgan.Config):
        return {"f": logits, "f_slope": slope}
    return _sizes(logits, np.abs(slope))


def run(job: Job) -> Outcome:
    data = real()
    fakes = np.asarray(PLACE + jax.random.normal(jax.random.key(4), (FAKES,)))
    trained = {
        name: job.fit(name, frozen, game, data, steps=_steps(job.budget, name), side_by_side=True)
        for name, game in games().items()
    }
    lines, at_fakes = (
        {
            name: [profile(one.config(), one.state(seed), x) for seed in one.seeds]
            for name, one in trained.items()
        }
        for x in (X, fakes)
    )  # fmt: skip
    slopes = np.stack([np.abs(line["f_slope"]) for line in lines["wgan"]])
    vanished = {name: [float(at[name].mean()) for at in at_fakes["gan"]] for name in ("d_slope", "log_slope")}
    smallest = slopes.min(axis=1) / slopes.mean(axis=1)
    variation = slopes.std(axis=1) / slopes.mean(axis=1)

    def measured(name: str, values: Any) -> Measured:
        one = trained[name]
        return Measured(
            [float(v) for v in values], one.seeds, one.failed, steps=_steps(job.budget, name), config=one.config(),
            data=(data,),
        )  # fmt: skip

    rows = {
        "fig2_vanishing": measured("gan", np.maximum(vanished["d_slope"], vanished["log_slope"])),
        "fig2_critic_clean": measured("wgan", smallest),
        "fig2_critic_variation": measured("wgan", variation),
    }
    best = optimum(fakes)
    falls = [(line["f_slope"] < 0).mean() for line in lines["wgan"]]
    table = Table(
        f"Gradients of the optimum and of what was trained, over {FAKES:,} draws of the fake law; of the critic at "
        f"{X.size:,} points of [-8, 8].",
        ("quantity", "closed form", "trained, mean +- sd over seeds"),
        [
            ["mean of abs(dD/dx) over fakes", float(best["d_slope"].mean()), draw.spread(vanished["d_slope"])],
            [
                "mean of abs(d log(1 - D)/dx) over fakes", float(best["log_slope"].mean()),
                draw.spread(vanished["log_slope"]),
            ],
            ["abs(dD/dx) at x = 5", float(optimum(np.array([5.0]))["d_slope"][0]), _at_mean(lines["gan"])],
            ["critic: mean of abs(df/dx)", "-", draw.spread(slopes.mean(axis=1))],
            ["critic: smallest over mean of abs(df/dx)", "1 if linear", draw.spread(smallest)],
            ["critic: coefficient of variation of df/dx", "0 if linear", draw.spread(variation)],
            ["critic: share of points where f falls", "1", draw.spread(falls)],
        ],
    )  # fmt: skip
    _draw(job, lines, slopes)
    caption = (
        "Figure 2 of Arjovsky, Chintala & Bottou 2017. Left: the discriminator saturates, the clipped critic does not "
        "(f up to a constant). Right: the sizes of their gradients; dashed: of D*, in closed form. Real is left."
    )
    return Outcome(rows, [table], {"fig2.png": caption})


def real() -> Dataset:
    x = -PLACE + jax.random.normal(jax.random.key(3), (100_000, 1))
    return Dataset(np.asarray(x), name="gaussian", split="N(-5, 1)")


def _at_mean(lines: list[dict[str, np.ndarray]]) -> str:
    i = int(np.abs(X - PLACE).argmin())
    return draw.spread([line["d_slope"][i] for line in lines])


def _draw(job: Job, lines: dict[str, list[dict[str, np.ndarray]]], slopes: np.ndarray) -> None:
    figure = plots.new_figure(9.4, 3.7)
    left, right = figure.subplots(1, 2)
    for place, color, label in ((-PLACE, draw.BLUE, "density of real"), (PLACE, draw.GREEN, "density of fake")):
        density = np.exp(-0.5 * (X - place) ** 2) / np.sqrt(2 * np.pi)
        left.fill_between(X, density, color=color, alpha=0.25, linewidth=0)
        left.plot(X, density, color=color, label=label, linewidth=1.2)
    draw.band(left, X, np.stack([line["d"] for line in lines["gan"]]), draw.RED, "GAN discriminator")
    f = np.stack([line["f"] - line["f"][X.size // 2] for line in lines["wgan"]])
    draw.band(left, X, f, draw.CYAN, "WGAN critic")
    left.set(xlabel="x", xlim=(-8, 8), ylim=(-0.42, 1.05))
    left.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 0.97))

    best = optimum(X)
    floor = 1e-24
    for name, color, label in (
        ("d_slope", draw.RED, r"$|dD/dx|$"), ("log_slope", draw.BLUE, r"$|d\,\log(1-D)/dx|$"),
    ):  # fmt: skip
        right.plot(X, np.maximum(best[name], floor), color=color, linewidth=0.8, linestyle="--")
        draw.band(right, X, np.stack([np.maximum(line[name], floor) for line in lines["gan"]]), color, label, log=True)
    draw.band(right, X, slopes, draw.CYAN, r"$|df/dx|$, critic", log=True)
    right.set(xlabel="x", xlim=(-8, 8), yscale="log", ylim=(floor, 1e3))
    right.legend(frameon=False, fontsize=8, loc="lower center")
    left.set_title("densities, and what the nets say", fontsize=10, loc="left")
    right.set_title("size of the gradient", fontsize=10, loc="left")
    for axes in (left, right):
        plots.clean(axes)
    draw.seeds(figure, len(slopes))
    plots.render(figure, job.figures / "fig2.png")


def _steps(budget: str, name: str) -> int:
    return 20 if budget == "smoke" else STEPS[name]


def _says(budget: str) -> str:
    each = f"a discriminator, {_steps(budget, 'gan'):,} steps, and a critic, {_steps(budget, 'wgan'):,}, of {BATCH}"
    return f"{each}; " + {"smoke": "20 seconds", "cpu": "3 minutes", "paper": "minutes"}[budget]


PART = Part("fig2", ("fig2_vanishing", "fig2_critic_clean", "fig2_critic_variation"), run, _says, cpu_seeds=10)
