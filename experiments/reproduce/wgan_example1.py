"""Example 1 and figure 1: distances of parallel segments, exact, and as critics and discriminators estimate them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce import wgan_segments as segments
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained
from experiments.reproduce.wgan_frozen import Game
from vaegan_jax import gan, losses, nets, plots, sampling, wgan
from vaegan_jax import state as players
from vaegan_jax.data import toy
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

GRID = np.round(np.arange(-40, 41) * 0.025, 3)
THETAS = tuple(float(t) for t in np.round(np.arange(-5, 6) * 0.2, 1))
"""Where critics are trained: eleven of the grid."""
ATOMS = 200  # of each law in the exact distances
UNITS, CLIP, PENALTY, BATCH = 512, 0.01, 10.0, 256
LOG2 = math.log(2)


def games() -> dict[str, Game]:
    """A clipped critic (algorithm 1), a penalised one (Gulrajani et al. 2017), a discriminator; the first's rate."""
    law: dict[str, Any] = {
        "latents": 1, "prior": "uniform", "prior_scale": 1.0, "generator": segments.Segment(), "output": "linear",
        "batch_size": BATCH,
    }  # fmt: skip
    adam = Optimizer(rule="adam", learning_rate=1e-3, momentum=0.5, b2=0.9)
    return {
        "clip": wgan.Config(discriminator=nets.MLPDiscriminator(hidden=(UNITS,)), n_critic=1, clip=CLIP, **law),
        "penalty": wgan.Config(
            discriminator=nets.MLPDiscriminator(hidden=(64, 64)), n_critic=1, clip=None, gradient_penalty=PENALTY,
            discriminator_optimizer=adam, **law,
        ),
        "gan": gan.Config(
            discriminator=nets.MLPDiscriminator(hidden=(64, 64)), discriminator_weight=1.0,
            discriminator_optimizer=adam, **law,
        ),
    }  # fmt: skip


def estimates(game: Game, states: Any, n: int = 4096) -> np.ndarray:
    """What the discriminators of `states` (leading axis T) say of their laws on n fresh points with common heights: [T]

    E f(x) - E f(g(z)) of critics; (E log D(x) + E log(1 - D(g(z)))) / 2 + log 2 of discriminators, a bound on JS.
    """
    found = []
    for i, theta in enumerate(np.asarray(states.generator.params["theta"])):
        state = players.one_of(states, i)
        points = segments.common(float(theta), n, seed=1)
        real, fake = (sampling.discriminate(game, state, jnp.asarray(x, jnp.float32))[0] for x in points)
        if isinstance(game, wgan.Config):
            found.append(float(real.mean() - fake.mean()))
        else:
            found.append(float(LOG2 - losses.ADVERSARIAL["minimax"].discriminator(real, fake).mean() / 2))
    return np.array(found)


def proportional(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(K, R^2) of the least-squares line y = K x through the origin, x and y [T]; R^2 against the mean of y."""
    slope = float(x @ y / (x @ x))
    return slope, float(1 - ((y - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def run(job: Job) -> Outcome:
    exact = {t: {"w": segments.transport(*pair)} | segments.divergences(*pair) for t, pair in _laws().items()}
    apart = [t for t in exact if t]
    trained, said = _train(job)
    W = np.abs(THETAS)
    slopes, fits = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name in ("clip", "penalty"):
        slopes[name], fits[name] = np.array([proportional(W, e) for e in said[name]]).reshape(-1, 2).T
    far = W >= 0.2

    def measured(name: str, values: Any, note: str = "") -> Measured:
        one = trained[name]
        return Measured(
            [float(v) for v in values], one.seeds, one.failed, steps=_steps(job.budget), config=one.config(),
            data=(_data(),), note=note,
        )  # fmt: skip

    js = max((exact[t]["js"] for t in apart), key=lambda v: abs(v - LOG2))
    tv = max((exact[t]["tv"] for t in apart), key=lambda v: abs(v - 1))
    largest = CLIP**2 * UNITS
    rows = {
        "example1_w": Measured(
            [max(abs(exact[t]["w"] - abs(t)) for t in exact)], exact=True, note=f"{len(exact)} thetas, float32 points"
        ),
        "example1_js": Measured([js], exact=True, note=f"at theta = 0: {exact[0.0]['js']:g}"),
        "example1_tv": Measured(
            [tv], exact=True, note=f"at theta = 0: {exact[0.0]['tv']:g}; KL there {exact[0.0]['kl']:g}, else infinite"
        ),
        "example1_critic": measured(
            "clip", fits["clip"],
            f"K = {draw.spread(slopes['clip'])}; the box lets no f have a slope above c^2 {UNITS} = {largest:.3g}",
        ),
        "example1_critic_penalty": measured(
            "penalty", fits["penalty"],
            f"K = {draw.spread(slopes['penalty'])}; the penalty's own optimum is |theta| + theta^2 / {2 * PENALTY:g}",
        ),
        "example1_gan_flat": measured("gan", np.ptp(said["gan"][:, far], axis=1)),
    }  # fmt: skip
    shown = {name: said[name] / slopes[name][:, None] for name in slopes} | {"gan": said["gan"]}
    table = Table(
        "Distances of the segments at 0 and at theta, exact (nats), and as trained: critics over their K, mean +- sd "
        "over seeds.",
        ("theta", "W", "TV", "KL", "JS", "clipped critic / K", "penalised critic / K", "discriminator's JS"),
        [
            [
                t, exact[t]["w"], exact[t]["tv"], _finite(exact[t]["kl"]), exact[t]["js"],
                *(draw.spread(one[:, i]) for one in shown.values()),
            ]
            for i, t in enumerate(THETAS)
        ],
    )  # fmt: skip
    _draw(job, exact, shown)
    caption = (
        "Figure 1 of Arjovsky, Chintala & Bottou 2017: W and JS of two parallel segments at distance theta; lines are "
        "exact, points what nets trained at that theta say (critics over their K, the least-squares slope)."
    )
    return Outcome(rows, [table], {"fig1.png": caption})


def _laws() -> dict[float, tuple[np.ndarray, np.ndarray]]:
    return {float(t): segments.common(float(t), ATOMS) for t in GRID}


def _data() -> Dataset:
    return Dataset(np.asarray(toy.segments(jax.random.key(2), 65_536, theta=0.0)), name="segments", split="theta=0")


def _train(job: Job) -> tuple[dict[str, Trained], dict[str, np.ndarray]]:
    """The trainings, and what each says: [S, T]."""
    trained, said = dict[str, Trained](), dict[str, np.ndarray]()
    for name, game in games().items():
        trained[name] = one = job.fit(
            name, segments, segments.Config(game, THETAS), _data(), steps=_steps(job.budget), side_by_side=True
        )
        said[name] = np.stack([estimates(game, one.state(seed)) for seed in one.seeds])
    return trained, said


def _draw(job: Job, exact: dict[float, dict[str, float]], said: dict[str, np.ndarray]) -> None:
    figure = plots.new_figure(8.4, 3.5)
    left, right = figure.subplots(1, 2)
    at = np.array(list(exact))
    left.plot(at, [exact[t]["w"] for t in at], color=draw.BLUE, label="exact")
    draw.points(left, THETAS, said["clip"], draw.GREEN, "critic, clipped", size=9)
    draw.points(left, THETAS, said["penalty"], draw.RED, "critic, gradient penalty", marker="s")
    left.set_title("Wasserstein distance", fontsize=10, loc="left")
    apart = at != 0
    for side in (at < 0, at > 0):
        right.plot(at[side], [exact[t]["js"] for t in at[side]], color=draw.BLUE, label="exact" if side[0] else None)
    right.plot(at[~apart], [exact[t]["js"] for t in at[~apart]], ".", color=draw.BLUE, markersize=8)
    draw.points(right, THETAS, said["gan"], draw.RED, "discriminator")
    right.axhline(LOG2, color=draw.GREY, linewidth=0.7, linestyle=":", zorder=0)
    right.annotate("log 2", (1.0, LOG2), (0, -10), textcoords="offset points", fontsize=8, color="0.4", ha="right")
    right.set_title("Jensen-Shannon divergence, nats", fontsize=10, loc="left")
    for axes in (left, right):
        axes.set(xlabel=r"$\theta$", ylabel=r"$\rho(P_0, Q_\theta)$", xlim=(-1.06, 1.06))
        axes.legend(frameon=False, fontsize=8, loc="upper center" if axes is left else "center right")
        plots.clean(axes)
    left.set_ylim(-0.05, 1.15)
    draw.seeds(figure, len(said["clip"]))
    plots.render(figure, job.figures / "fig1.png")


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "+inf"


def _steps(budget: str) -> int:
    return 10 if budget == "smoke" else 3_000


def _says(budget: str) -> str:
    time = {"smoke": "half a minute", "cpu": "17 minutes", "paper": "minutes"}[budget]
    return (
        f"exact distances at {len(GRID)} thetas; two critics and a discriminator at {len(THETAS)} thetas, "
        f"{_steps(budget):,} steps of {BATCH}; {time}"
    )


PART = Part(
    "example1",
    (
        "example1_w", "example1_js", "example1_tv", "example1_critic", "example1_critic_penalty", "example1_gan_flat",
    ),
    run,
    _says,
    cpu_seeds=10,
)  # fmt: skip
