"""Which training methods for GANs do actually converge? (Mescheder, Geiger & Nowozin 2018)

The Dirac-GAN has one parameter a player, so that every statement about convergence can be checked to the digits of a
float: trajectories from (1, 1) with steps of .2, eigenvalues at the equilibrium against closed forms, for each loss of
the library and each regulariser. Losses and penalties are those that the library trains with, and its train_step, with
nets of one parameter, must walk the same path. Nothing is random, so that there are no seeds.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from experiments.reproduce import draw
from experiments.reproduce.dirac_game import (
    SLOPES,
    Game,
    Line,
    Point,
    closed_form,
    eigenvalues,
    factor,
    field,
    jacobian,
    trajectory,
)
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from vaegan_jax import gan, plots
from vaegan_jax.optimizer import Optimizer

H, STEPS, START = 0.2, 500, (1.0, 1.0)
"""The paper's notebook."""
ORDERS = ("simultaneous", "alternating")
PANELS: dict[str, Game] = {
    "GAN": Game(),
    "non-saturating GAN": Game("non_saturating"),
    "WGAN, clip 1": Game("wasserstein", clip=1.0),
    "WGAN-GP": Game("wasserstein", gradient_penalty=0.7),
    "consensus optimisation": Game(consensus=1.0),
    "instance noise, .7": Game(noise=0.7),
    "gradient penalty R1, .3": Game(r1=0.3),
    "R1, critical: 1": Game(r1=1.0),
    "non-saturating with R1, .3": Game("non_saturating", r1=0.3),
}
"""The methods of the paper's figure, with its notebook's settings."""
REGULARISERS: dict[str, dict[str, Any]] = {
    "none": {},
    "R1, .3": {"r1": 0.3},
    "R1, 1": {"r1": 1.0},
    "R2, .3": {"r2": 0.3},
    "noise, .7": {"noise": 0.7},
    "consensus, 1": {"consensus": 1.0},
    "gradient penalty to 1, .7": {
        "gradient_penalty": 0.7
    },  # Gulrajani et al.'s or DRAGAN's: D's slope is one everywhere
    "clip, 1": {"clip": 1.0},
}
GRID = np.round(np.arange(1, 61) * 0.05, 2)
"""Of gamma, and of the noise's deviation."""


def _walk(game: Game, order: str, steps: int = STEPS) -> np.ndarray:
    return np.asarray(trajectory(game, jnp.asarray(START), H, steps=steps, order=order), np.float64)


def _distance(game: Game, order: str) -> np.ndarray:
    """To the equilibrium, [STEPS + 1]."""
    return np.linalg.norm(_walk(game, order), axis=1)


def _off(games: Iterable[Game]) -> float:
    """Largest distance of an eigenvalue of v'(0) from that of the closed form."""
    pairs = ((eigenvalues(jacobian(game)), eigenvalues(closed_form(game))) for game in games)
    return float(max(np.abs(found - by_hand).max() for found, by_hand in pairs))


def crossing(holds: Callable[[float], bool], low: float, high: float, rounds: int = 30) -> float:
    """Where `holds`, true at low and false at high, ceases to hold: bisection."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def _turns(game: Game) -> bool:
    """Whether the flow spirals at 0: eigenvalues that are not real. What float32 makes of 0 is no turn."""
    return bool(abs(eigenvalues(jacobian(game))[0].imag) > 1e-3)


def _exact(value: float, note: str = "") -> Measured:
    return Measured([float(value)], exact=True, note=note)


def trajectories(job: Job) -> Outcome:
    """Figure 3: paths of the two parameters."""
    walks = {(name, order): _walk(game, order) for name, game in PANELS.items() for order in ORDERS}
    radius = {key: np.linalg.norm(walk, axis=1) for key, walk in walks.items()}

    linear = [Game("wasserstein", **REGULARISERS[name]) for name in ("none", "R1, .3", "R1, 1", "R2, .3")]
    off = {(game, order): _off_path(game, order) for game in linear for order in ORDERS}

    def away(name: str) -> Measured:
        """The closest that the last 100 steps come to the equilibrium, of both orders the smaller."""
        nearest = {order: radius[name, order][-100:].min() for order in ORDERS}
        return _exact(min(nearest.values()), ", ".join(f"{order} {value:.3g}" for order, value in nearest.items()))

    rows = {
        "integral_curves": _exact(_drift(Game()), "minimax; an integrator of order 8, time 100"),
        "simultaneous_radius": _exact(radius["GAN", "simultaneous"][-1]),
        "alternating_radius": _exact(
            radius["GAN", "alternating"][-100:].min(), f"largest {radius['GAN', 'alternating'].max():.4g}"
        ),
        "wgan": away("WGAN, clip 1"),
        "wgan_gp": away("WGAN-GP"),
        "linear_paths": _exact(max(off.values()), f"largest of {len(off)} paths"),
        "r1_radius": _exact(radius["gradient penalty R1, .3", "simultaneous"][-1]),
        "noise_converges": _exact(max(radius["instance noise, .7", order][-1] for order in ORDERS)),
        "consensus_converges": _exact(max(radius["consensus optimisation", order][-1] for order in ORDERS)),
    }
    _draw_paths(job, walks)
    caption = (
        "Figure 3 of the paper: gradient descent on the Dirac-GAN from (1, 1) by steps of .2, one player after the "
        "other (red) and, which the paper does not draw, both at once (thin, blue). Arrows are v, the cross is the "
        "equilibrium; psi of the WGAN may not enter the shaded parts."
    )
    lines = [[name, *(f"{radius[name, order][-1]:.3g}" for order in ORDERS)] for name in PANELS]
    table = Table(f"Distance to the equilibrium after {STEPS} steps of {H} from (1, 1).", ("method", *ORDERS), lines)
    return Outcome(rows, [table], {"trajectories.png": caption})


def _off_path(game: Game, order: str) -> float:
    """Largest distance of a path of a linear v from M^t w_0, in units of the distance from 0 where that is above 1."""
    v = closed_form(game)
    M = np.eye(2) + H * v
    if order == "alternating":  # psi sees the new theta
        M[1] = H * v[1, 0] * M[0] + [0, 1 + H * v[1, 1]]
    exact = np.stack([np.linalg.matrix_power(M, t) @ START for t in range(STEPS + 1)])
    off = np.linalg.norm(_walk(game, order) - exact, axis=1)
    return float((off / np.maximum(1, np.linalg.norm(exact, axis=1))).max())


def _drift(game: Game, time: float = 100.0) -> float:
    """Largest relative change of theta^2 + psi^2 along the flow w' = v(w) from START (lemma 2.3: none)."""
    flow = jax.jit(lambda w: field(game, w))

    def slope(_: float, w: np.ndarray) -> np.ndarray:
        return np.asarray(flow(jnp.asarray(w, jnp.float32)), np.float64)

    path = solve_ivp(slope, (0, time), START, method="DOP853", rtol=1e-6, atol=1e-8, max_step=0.25).y
    size = (path**2).sum(axis=0)
    return float(np.abs(size / size[0] - 1).max())


def spectra(job: Job) -> Outcome:
    """Eigenvalues at the equilibrium, of the flow and of the updates: lemmas 2.2 to 2.5, 3.2 and 3.3."""
    h = np.round(np.arange(1, 79) * 0.05, 2)
    plain, weak = Game(), Game(r1=0.3)
    rows = {
        "equilibrium": _exact(eigenvalues(jacobian(plain))[0].imag, f"real part {_real(plain):.1e}"),
        "simultaneous_factor": _exact(factor(plain, H, "simultaneous")),
        "alternating_factor": _exact(
            max(abs(factor(plain, float(x), "alternating") - 1) for x in h), f"{len(h)} step sizes to {h[-1]:g}"
        ),
        "alternating_limit": _exact(crossing(lambda x: factor(plain, x, "alternating") < 1 + 1e-3, 1.0, 10.0)),
        "noise_eigenvalues": _exact(_off(Game(noise=float(s)) for s in GRID), f"{len(GRID)} deviations to {GRID[-1]}"),
        "noise_critical": _exact(crossing(lambda s: _turns(Game(noise=s)), 0.5, 3.0)),
        "r1_eigenvalues": _exact(_off(Game(r1=float(g)) for g in GRID), f"{len(GRID)} gammas to {GRID[-1]}"),
        "r1_critical": _exact(crossing(lambda g: _turns(Game(r1=g)), 0.2, 3.0)),
        "r1_simultaneous": _exact(factor(weak, H, "simultaneous")),
        "r1_alternating": _exact(factor(weak, H, "alternating")),
        "consensus_eigenvalues": _exact(_off(Game(consensus=float(g)) for g in GRID)),
    }
    _draw_spectra(job)
    caption = (
        "Eigenvalues of v'(0) for the regularised Dirac-GAN: lines are closed forms, circles come from the library's "
        "losses by automatic differentiation. Below the critical value the flow spirals in, above it does not turn."
    )
    return Outcome(rows, figures={"eigenvalues.png": caption})


def _real(game: Game) -> float:
    return float(eigenvalues(jacobian(game)).real.max())


def every_loss(job: Job) -> Outcome:
    """The same for every loss of the library and every regulariser: what the paper proves for one f."""
    games = {(loss, name): Game(loss, **kind) for loss in SLOPES for name, kind in REGULARISERS.items()}
    smooth = {key: game for key, game in games.items() if not game.gradient_penalty and not np.isfinite(game.clip)}
    factors = {(*key, order): factor(game, H, order) for key, game in smooth.items() for order in ORDERS}
    distance = {(*key, order): _distance(game, order) for key, game in games.items() for order in ORDERS}
    plain = [factors[loss, "none", order] for loss in SLOPES for order in ORDERS]
    critical = {(loss, order): factors[loss, "R1, 1", order] for loss in SLOPES for order in ORDERS}
    worst = max(critical, key=lambda key: critical[key])
    rows = {
        "every_loss_eigenvalues": _exact(_off(smooth.values()), f"{len(smooth)} games"),
        "every_loss_unregularised": _exact(min(plain)),
        "every_loss_r1": _exact(critical[worst], f"largest of {len(critical)}: {worst[0]}, {worst[1]}"),
    }
    lines = []
    for name in REGULARISERS:
        for order in ORDERS:
            lines.append([name, order, *(f"{distance[loss, name, order][-1]:.2g}" for loss in SLOPES)])
    title = f"Distance to the equilibrium after {STEPS} steps of {H} from (1, 1), for every loss; 1.4 at the start."
    table = Table(title, ("regulariser", "updates", *(loss.replace("_", " ") for loss in SLOPES)), lines)
    spectrum = [[name, *(_spectrum(games[loss, name]) for loss in SLOPES)] for name in REGULARISERS]
    of_flow = Table(
        f"Eigenvalues of v'(0) for every loss and, in brackets, by what a step of {H} multiplies the distance near 0: "
        "both players at once, one after the other. A clip acts away from 0 alone; the penalty on the slope's distance "
        "from 1 has no derivative there.",
        ("regulariser", *(loss.replace("_", " ") for loss in SLOPES)),
        spectrum,
    )
    _draw_distances(job, distance)
    caption = (
        "Distance to the equilibrium, alternating updates: a panel a regulariser with its weight, a line a loss of the "
        "library, cut off below 1e-6. Dashed, as they lie on another: the non-saturating loss on the relativistic one, "
        "hinge on Wasserstein."
    )
    return Outcome(rows, [of_flow, table], {"losses.png": caption})


def _spectrum(game: Game) -> str:
    """`-0.15 +- 0.48i (1.005, 1.000)`."""
    if game.gradient_penalty:
        return "no derivative"
    first, second = sorted(eigenvalues(jacobian(game)), key=lambda value: value.real)
    turns = abs(first.imag) > 1e-3
    text = f"{first.real:.2f} +- {abs(first.imag):.2f}i" if turns else f"{first.real:.2f}, {second.real:.2f}"
    by = ", ".join(f"{factor(game, H, order):.3f}" for order in ORDERS)
    return f"{text.replace('-0.00', '0.00')} ({by})"


def library(job: Job) -> Outcome:
    """gan.train_step with nets of one parameter each, beside the recursion."""
    kinds = ("none", "R1, .3")
    off = {(loss, name): compare(Game(loss, **REGULARISERS[name])) for loss in SLOPES for name in kinds}
    worst = max(off, key=lambda key: off[key])
    note = f"largest of {len(off)}: {worst[0].replace('_', ' ')}, regulariser {worst[1]}"
    lines = [[name, *(f"{off[loss, name]:.1e}" for loss in SLOPES)] for name in kinds]
    title = "Largest distance between a step of gan.train_step and one of the recursion, by loss."
    table = Table(title, ("regulariser", *(loss.replace("_", " ") for loss in SLOPES)), lines)
    return Outcome({"train_step": _exact(off[worst], note)}, [table])


def compare(game: Game, steps: int = STEPS) -> float:
    """Largest distance between a step of gan.train_step and one of the recursion, from each place of its path.

    Simultaneous updates from START; in units of the distance from the equilibrium where that is above 1. Whole paths
    would not do: under the hinge loss, without a regulariser, roundings grow to the size of the path.
    """
    sgd = Optimizer(rule="sgd", learning_rate=H, momentum=0.0)
    loss: Any = game.loss
    config = gan.Config(
        latents=1, prior="normal", prior_scale=1.0, generator=Point(0.0), discriminator=Line(0.0, SLOPES[loss].neutral),
        output="linear", adversarial=loss, discriminator_weight=1.0, r1=game.r1 / 2, generator_optimizer=sgd,
        discriminator_optimizer=sgd, batch_size=2,
    )  # fmt: skip
    first = gan.init(config, jax.random.key(0), (1,))
    path = trajectory(game, jnp.asarray(START), H, steps=steps, order="simultaneous")

    @jax.vmap
    def learn(w: jax.Array) -> jax.Array:
        generator = dataclasses.replace(first.generator, params={"theta": w[0]})
        discriminator = dataclasses.replace(first.discriminator, params={"psi": w[1]})
        state = dataclasses.replace(first, generator=generator, discriminator=discriminator)
        state, _ = gan.train_step(config, state, {"x": jnp.zeros((2, 1))}, jax.random.key(1))
        return jnp.stack([state.generator.params["theta"], state.discriminator.params["psi"]])

    off = np.linalg.norm(np.asarray(learn(path[:-1]) - path[1:], np.float64), axis=1)
    return float((off / np.maximum(1, np.linalg.norm(path[1:], axis=1))).max())


def _draw_paths(job: Job, walks: dict[tuple[str, str], np.ndarray]) -> None:
    figure = plots.new_figure(8.4, 8.6)
    side = np.linspace(-1.9, 1.9, 11)
    at = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    for axes, (name, game) in zip(figure.subplots(3, 3).flat, PANELS.items(), strict=True):
        arrows = np.asarray(jax.jit(jax.vmap(field, in_axes=(None, 0)))(game, jnp.asarray(at, jnp.float32)))
        axes.quiver(*at.T, *arrows.T, color=draw.GREY, alpha=0.7, width=0.004)
        walk = walks[name, "alternating"]
        axes.plot(*walks[name, "simultaneous"].T, color=draw.BLUE, linewidth=0.6, alpha=0.8, label="both at once")
        axes.plot(*walk.T, color=draw.RED, linewidth=0.9, marker=".", markersize=2.5, label="one after the other")
        axes.plot(*walk[0], "o", color=draw.RED, markersize=5)
        axes.plot(0, 0, "x", color="0.15", markersize=7, markeredgewidth=1.6)
        if np.isfinite(game.clip):
            for low, high in ((-2, -game.clip), (game.clip, 2)):
                axes.axhspan(low, high, color="0.9", zorder=0)
        axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        axes.set_title(name, fontsize=9, loc="left")
        plots.clean(axes, grid_lines=False)
    figure.supxlabel(r"$\theta$", fontsize=10)
    figure.supylabel(r"$\psi$", fontsize=10)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    plots.render(figure, job.figures / "trajectories.png")


def _draw_spectra(job: Job) -> None:
    figure = plots.new_figure(8.4, 3.3)
    kinds = (("r1", r"$\gamma$ of R1", 1.0), ("noise", r"$\sigma$ of instance noise", 2**0.5), ("consensus", "", 0.0))
    for axes, (kind, label, critical) in zip(figure.subplots(1, 3), kinds, strict=True):
        games = [Game(**{kind: value}) for value in GRID.tolist()]
        by_hand = np.array([eigenvalues(closed_form(game)) for game in games])
        found = np.array([eigenvalues(jacobian(game)) for game in games[::4]])
        for part, colour, name in ((np.real, draw.BLUE, "real parts"), (np.imag, draw.GREEN, "imaginary parts")):
            axes.plot(GRID, part(by_hand), color=colour, label=[name, None])
            axes.plot(GRID[::4], part(found), "o", color=colour, markersize=3.5, markerfacecolor="white")
        if critical:
            axes.axvline(critical, color=draw.GREY, linewidth=0.8, linestyle=":")
        axes.set(xlabel=label or r"$\gamma$ of consensus optimisation", xlim=(0, 3.05))
        plots.clean(axes)
    figure.axes[0].set_ylabel("eigenvalues of v'(0)")
    figure.axes[0].plot([], [], "o", color="0.3", markersize=3.5, markerfacecolor="white", label="the library's losses")
    figure.axes[0].plot([], [], color="0.3", label="closed form")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    plots.render(figure, job.figures / "eigenvalues.png")


def _draw_distances(job: Job, distance: dict[tuple[str, str, str], np.ndarray]) -> None:
    figure = plots.new_figure(8.4, 4.6)
    colours = (draw.BLUE, draw.CYAN, draw.GREEN, draw.RED, "#7b4ea3", draw.GREY)
    for axes, name in zip(figure.subplots(2, 4, sharex=True, sharey=True).flat, REGULARISERS, strict=True):
        for loss, colour in zip(SLOPES, colours, strict=True):
            label = loss.replace("_", " ") if name == "none" else None
            far = np.maximum(distance[loss, name, "alternating"], 1e-7)
            over = loss in ("non_saturating", "hinge")  # they take another loss's path where the regulariser leads
            style: Any = {"linestyle": (0, (3, 3)), "zorder": 3} if over else {}
            axes.semilogy(far, color=colour, linewidth=1.4, label=label, **style)
        axes.set(xlim=(0, STEPS), ylim=(1e-6, 1e2))
        axes.set_title(name, fontsize=9, loc="left")
        plots.clean(axes)
    figure.supxlabel("iterations", fontsize=9)
    figure.supylabel(r"$\sqrt{\theta^2 + \psi^2}$", fontsize=9)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    plots.render(figure, job.figures / "losses.png")


PARTS = (
    Part(
        "trajectories",
        (
            "integral_curves", "simultaneous_radius", "alternating_radius", "wgan", "wgan_gp", "linear_paths",
            "r1_radius", "noise_converges", "consensus_converges",
        ),
        trajectories,
        says(f"{len(PANELS)} methods, {STEPS} steps, both orders of updates", *["half a minute"] * 3),
    ),
    Part(
        "spectra",
        (
            "equilibrium", "simultaneous_factor", "alternating_factor", "alternating_limit", "noise_eigenvalues",
            "noise_critical", "r1_eigenvalues", "r1_critical", "r1_simultaneous", "r1_alternating",
            "consensus_eigenvalues",
        ),
        spectra,
        says("eigenvalues against closed forms", *["a minute"] * 3),
    ),
    Part(
        "every_loss",
        ("every_loss_eigenvalues", "every_loss_unregularised", "every_loss_r1"),
        every_loss,
        says(f"{len(SLOPES)} losses with {len(REGULARISERS)} regularisers", *["a minute"] * 3),
    ),
    Part("library", ("train_step",), library, says(f"gan.train_step, {STEPS} steps", *["half a minute"] * 3)),
)  # fmt: skip
