"""The parallel segments of the WGAN paper's example 1, and an algorithm for `fit` that trains on many at once.

P_0 is the law of (0, u), Q_theta that of (theta, u), u uniform in [0, 1].
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import rel_entr

from experiments.reproduce import wgan_frozen
from experiments.reproduce.wgan_frozen import Batch, Game, Metrics
from vaegan_jax.data import toy
from vaegan_jax.initializers import Constant


class Segment(nn.Module):
    """The generator of Q_theta: z [B, 1] uniform in [-1, 1] -> (theta, (z + 1) / 2); theta is its one parameter."""

    @nn.compact
    def __call__(self, z: jax.Array, shape: tuple[int, ...], y: Any = None, *, train: bool = False) -> jax.Array:
        theta = self.param("theta", Constant(), ())
        return jnp.concatenate([jnp.broadcast_to(theta, z.shape), (z + 1) / 2], axis=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """`game`, whose generator is a Segment, once for every theta: side by side, from the same discriminator."""

    game: Game
    thetas: tuple[float, ...]

    num_classes = 0
    batches_per_step = 1

    @property
    def batch_size(self) -> int:
        return self.game.batch_size


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> Any:
    """A state of the game whose every leaf has a leading axis, the thetas."""
    one = wgan_frozen.init(config.game, key, shape)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(config.thetas)), one)
    law = dataclasses.replace(states.generator, params={"theta": jnp.asarray(config.thetas, jnp.float32)})
    return dataclasses.replace(states, generator=law)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
    """One step of every theta's discriminator; metrics are means over them."""
    learn = functools.partial(wgan_frozen.train_step, config.game)
    state, metrics = jax.vmap(learn, in_axes=(0, None, 0))(state, batch, jax.random.split(key, len(config.thetas)))
    return state, {name: values.mean() for name, values in metrics.items()}


def common(theta: float, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws of P_0 and Q_theta with the same heights, [n, 2] float64 each."""
    key = jax.random.key(seed)
    zero, other = (toy.segments(jax.random.clone(key), n, theta=t) for t in (0.0, theta))
    return np.asarray(zero, np.float64), np.asarray(other, np.float64)


def transport(x: np.ndarray, y: np.ndarray) -> float:
    """W of the uniform laws on x and y, [n, D] each: an optimal plan between equal weights is an assignment."""
    cost = cdist(x, y)
    return float(cost[linear_sum_assignment(cost)].mean())


def divergences(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Of the uniform laws p and q on the points x and y, [n, D] each: tv, kl = KL(p || q) and js, in nats.

    js = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2. The paper's equation lacks the halves, but its value, log 2
    for laws that do not overlap, is that of this one.
    """
    _, place = np.unique(np.concatenate([x, y]), axis=0, return_inverse=True)
    at_x, at_y = np.split(place.reshape(-1), [len(x)])
    p, q = (np.bincount(at, minlength=place.max() + 1) / at.size for at in (at_x, at_y))
    m = (p + q) / 2
    return {
        "tv": float(np.abs(p - q).sum() / 2),
        "kl": float(rel_entr(p, q).sum()),
        "js": float((rel_entr(p, m).sum() + rel_entr(q, m).sum()) / 2),
    }
