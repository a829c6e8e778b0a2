"""The Dirac-GAN (Mescheder et al. 2018, definition 2.1): two numbers, the library's losses, and closed forms beside.

Data is a point at 0, the generator a point at theta, the discriminator linear: D(x) = neutral - psi x. The sign is the
paper's, whose discriminator is positive on fakes, so that its pictures are ours. w = (theta, psi); equilibrium: 0.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vaegan_jax import losses
from vaegan_jax.initializers import Constant


class Slopes(NamedTuple):
    """A loss at its neutral logit: r of real, f of fake, both `neutral`; all that the Jacobian at 0 can depend on."""

    discriminator: float
    """d loss_D / df."""
    generator: float
    """-d loss_G / df."""
    curvature: float
    """(d2/dr2 + d2/df2) loss_D: what noise of variance 1 on independent real and fake adds along psi."""
    neutral: float = 0.0
    """Where the two players are at rest; a net would find it by its bias, which the Dirac discriminator lacks."""


SLOPES = {
    "minimax": Slopes(0.5, 0.5, 0.5),
    "non_saturating": Slopes(0.5, 0.5, 0.5),
    "least_squares": Slopes(0.5, 0.5, 2.0, neutral=0.5),
    "hinge": Slopes(1.0, 1.0, 0.0),
    "wasserstein": Slopes(1.0, 1.0, 0.0),
    "relativistic": Slopes(0.5, 0.5, 0.5),
}
"""By hand. Mescheder et al.'s f'(0) is the first of the first, f''(0) minus half of its curvature."""
NODES = 24
"""Of Gauss and Hermite, for each of the two noises."""


@struct.dataclass
class Game:
    """One loss of losses.ADVERSARIAL with any regulariser; a pytree, so that a loss is compiled once."""

    loss: str = struct.field(pytree_node=False, default="minimax")
    r1: float = 0.0
    """gamma of Mescheder et al. 2018, eq. 9: gamma / 2 times the squared gradient norm at real data."""
    r2: float = 0.0
    """The same at generated data, eq. 10."""
    gradient_penalty: float = 0.0
    """gamma / 2 of (||gradient|| - 1)^2, Gulrajani et al. 2017."""
    noise: float = 0.0
    """Deviation of the Gaussian added to real and generated points (instance noise)."""
    consensus: float = 0.0
    """gamma of Mescheder et al. 2017: both players also descend gamma / 2 ||v||^2."""
    clip: float = math.inf
    """psi stays in [-clip, clip] (Arjovsky et al. 2017)."""


@jax.jit
def field(game: Game, w: jax.Array) -> jax.Array:
    """v(w) [2]: what each player descends, from the losses themselves; w [2]."""

    def size(w: jax.Array) -> jax.Array:
        return 0.5 * (_field(game, w) ** 2).sum()

    return _field(game, w) - game.consensus * jax.grad(size)(w)


def _field(game: Game, w: jax.Array) -> jax.Array:
    theta, psi = w
    of_generator = jax.grad(lambda theta: _losses(game, theta, psi)[1])(theta)
    of_discriminator = jax.grad(lambda psi: _losses(game, theta, psi)[0])(psi)
    return -jnp.stack([of_generator, of_discriminator])


def _losses(game: Game, theta: jax.Array, psi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(discriminator's, generator's), expectations over the noise."""
    pair, neutral = losses.ADVERSARIAL[game.loss], SLOPES[game.loss].neutral
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    real, fake = (jnp.asarray(n.reshape(-1), jnp.float32) for n in np.meshgrid(nodes, nodes))
    both = jnp.asarray(np.outer(weights, weights).reshape(-1), jnp.float32)
    r, f = neutral - psi * game.noise * real, neutral - psi * (theta + game.noise * fake)
    loss = (both * pair.discriminator(r, f)).sum()

    def critic(x: jax.Array) -> jax.Array:
        return neutral - psi * x[:, 0]

    at_real, at_fake = jnp.zeros((1, 1)), jnp.broadcast_to(theta, (1, 1))
    loss += game.r1 / 2 * losses.r1(critic, at_real)[0] + game.r2 / 2 * losses.r2(critic, at_fake)[0]
    # The gradient of a linear D is the same everywhere: where on the line the penalty looks does not matter.
    loss += game.gradient_penalty / 2 * losses.gradient_penalty(critic, at_real, at_fake, jax.random.key(0))[0]
    return loss, (both * pair.generator(r, f)).sum()


def step(game: Game, w: jax.Array, h: float, order: str) -> jax.Array:
    """One update of both players by h v: "simultaneous", or "alternating" with the generator first, as in the paper."""
    theta, psi = w + h * field(game, w)
    if order == "alternating":
        first = jnp.stack([theta, w[1]])
        psi = w[1] + h * field(game, first)[1]
    return jnp.stack([theta, jnp.clip(psi, -game.clip, game.clip)])


@functools.partial(jax.jit, static_argnames=("steps", "order"))
def trajectory(game: Game, start: jax.Array, h: float, *, steps: int, order: str) -> jax.Array:
    """[steps + 1, 2], from start [2]."""

    def go(w: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        new = step(game, w, h, order)
        return new, new

    return jnp.concatenate([start[None], jax.lax.scan(go, start, None, length=steps)[1]])


@jax.jit
def jacobian(game: Game) -> jax.Array:
    """v'(0), [2, 2]: of theta and psi."""
    return jax.jacfwd(lambda w: field(game, w))(jnp.zeros(2))


@functools.partial(jax.jit, static_argnames=("order",))
def update_jacobian(game: Game, h: float, *, order: str) -> jax.Array:
    """F'(0) of the update operator F of `step`, [2, 2]."""
    return jax.jacfwd(lambda w: step(game, w, h, order))(jnp.zeros(2))


def eigenvalues(matrix: Any) -> np.ndarray:
    """Both, complex [2], the one with the larger imaginary (then real) part first."""
    found = np.linalg.eigvals(np.asarray(matrix, np.float64))
    return np.array(sorted(found, key=lambda v: (-round(v.imag, 6), -v.real)), np.complex128)


def factor(game: Game, h: float, order: str) -> float:
    """By what each step multiplies the distance near 0: the spectral radius of F'(0). Below 1: it converges."""
    return float(np.abs(eigenvalues(update_jacobian(game, h, order=order))).max())


def closed_form(game: Game) -> np.ndarray:
    """v'(0) [2, 2] by hand: lemmas 2.2, 3.2 and 3.3 of the paper, for every loss.

    Without regulariser [[0, -b], [a, 0]], eigenvalues +- i sqrt(a b); penalties and noise only add to its last entry,
    consensus subtracts gamma v'^T v'.

    Raises:
        ValueError: a penalty whose target is not 0, or clipping: they have no derivative at 0 that would matter.
    """
    if game.gradient_penalty or math.isfinite(game.clip):
        raise ValueError(f"{game}: no closed form at 0, give r1, r2, noise or consensus.")
    a, b, curvature, _ = SLOPES[game.loss]
    v = np.array([[0.0, -b], [a, -game.r1 - game.r2 - curvature * game.noise**2]])
    return v - game.consensus * v.T @ v


class Point(nn.Module):
    """The generator: z [B, K] -> theta, its one parameter, [B, 1]."""

    start: float

    @nn.compact
    def __call__(self, z: jax.Array, shape: tuple[int, ...], y: Any = None, *, train: bool = False) -> jax.Array:
        return jnp.broadcast_to(self.param("theta", Constant(self.start), ()), (z.shape[0], 1))


class Line(nn.Module):
    """The discriminator: x [B, 1] -> neutral - psi x, [B], and x as its features."""

    start: float
    neutral: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, y: Any = None, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        return self.neutral - self.param("psi", Constant(self.start), ()) * x[:, 0], x
