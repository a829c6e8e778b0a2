"""Generative moment matching networks (Li, Swersky & Zemel 2015): a generator and, in place of an opponent, a kernel.

    L = sqrt(MMD^2),  MMD^2 = E k(x, x') - 2 E k(x, G(z)) + E k(G(z), G(z')),  k(x, y) = sum_s exp(-|x - y|^2 / (2 s))

There is no game: one net descends one number, which is 0 where both laws agree. Its estimate takes all pairs of a
batch, so the batch is large. The rest is the generator of `gan`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import adversarial, nets
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.sampling import decode_standard, sample
from vaegan_jax.state import Player

__all__ = ["Config", "State", "decode_standard", "init", "sample", "squared_mmd", "train_step", "validate", "vectors"]

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
LEAST = 1e-12
"""At which MMD^2 is cut before its root, whose gradient at 0 is infinite; an estimate may be rounded to 0 or below."""

# yujiali/gmmn, train.py: both change at iteration 10,000; momentum moves by epochs, and its 183rd begins at 10,010.
_RELEASED = Optimizer(
    rule="sgd",
    learning_rate=2.0,
    stages=((9_999, 0.1),),
    momentum=0.9,
    final_momentum=0.99,
    momentum_from=182,
    momentum_to=183,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are the released MNIST recipe in pixel space, 40,000 steps.

    Its rate falls at an update and its momentum rises at an epoch, which are the same moment with 55,000 images alone:
    for other data give `generator_optimizer` stages that go together.
    """

    latents: int = 10
    prior: Literal["normal", "uniform"] = "uniform"
    prior_scale: float = 1.0
    """N(0, scale^2 I), or U(-scale, scale)."""
    generator: nn.Module = dataclasses.field(
        default_factory=lambda: nets.MLPGenerator(
            hidden=(64, 256, 256, 1024), activation=nn.relu, kernel_init=nets.FanIn(0.1)
        )
    )
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    bandwidths: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
    """s of the kernels, squared lengths in the nets' own range: an MNIST digit is some 100 from another in [0, 1]."""
    root: bool = True
    """Descend MMD rather than its square, whose gradient dies with it (section 3, "L_MMD")."""
    generator_optimizer: Optimizer = _RELEASED
    ema_decay: float | None = None
    """Moving average of the generator's parameters, used by `sample`."""
    sampling_statistics: Literal["running", "batch"] = "running"
    """What the generator's batch normalisation uses in `sample`."""
    batch_size: int = 1_000
    """Of data, and of samples against it."""
    dataset_size: int = 55_000
    """N, which with batch_size makes the epochs of the momentum's schedule; `fit` sets it to its data's."""
    splits: tuple[str, str, str] = ("train[:55000]", "train[55000:]", "test")
    """Train, validation, test."""

    batches_per_step = 1
    num_classes = 0
    least_examples = 2  # which `validate` compares with each other

    @property
    def unit_range(self) -> bool:
        """Whether x must lie in [0, 1]."""
        return self.output != "linear"

    def __post_init__(self) -> None:
        adversarial.check(self)
        if not self.bandwidths or not all(s > 0 for s in self.bandwidths):
            raise ValueError(f"bandwidths are {self.bandwidths}: give at least one number above 0.")


def vectors(dim: int) -> Config:
    """For x [B, dim] of a scale of about 1: an MLP, linear output, Adam 1e-3, batches of 500."""
    return Config(
        latents=max(2, min(dim, 64)),
        prior="normal",
        generator=nets.MLPGenerator(hidden=(128, 128), activation=nn.relu),
        output="linear",
        bandwidths=tuple(dim * s for s in (0.005, 0.05, 0.5, 5.0)),
        generator_optimizer=Optimizer(rule="adam", learning_rate=1e-3, momentum=0.5),
        batch_size=500,
        dataset_size=10_000,
        splits=("train", "train[:0]", "test"),
    )


@struct.dataclass
class State:
    step: jax.Array
    generator: Player
    shape: tuple[int, ...] = struct.field(pytree_node=False)


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """A fresh generator. data_mean is taken for the sake of `fit` and not used: the recipe's biases begin at 0."""
    shape = players.check_shape(shape)
    variables = players.initialize(config.generator, key, players.example(config.latents), shape, None)
    return State(jnp.int32(0), players.create(variables, config.generator_optimizer, config.ema_decay), shape)


def squared_mmd(x: jax.Array, y: jax.Array, bandwidths: Sequence[float], *, biased: bool = True) -> jax.Array:
    """MMD^2 from all pairs: x [N, ...], y [M, ...] -> scalar, at most 2 len(bandwidths). Differentiable in both.

    uint8 counts as [0, 1]. biased: equation 3, which pairs examples with themselves too, so is below 0 by rounding
    alone; else without those pairs (Gretton et al. 2012, eq. 3), whose mean does not depend on N and M.

    Raises:
        ValueError: examples of unequal shapes, none, or a single one where it is to be unbiased; no bandwidths, or not
            above 0.
    """
    least = 1 if biased else 2
    if min(x.shape[0], y.shape[0]) < least:
        raise ValueError(f"x has {x.shape[0]} examples and y {y.shape[0]}: give {least} or more of each.")
    if not bandwidths or not all(s > 0 for s in bandwidths):
        raise ValueError(f"bandwidths are {tuple(bandwidths)}: give at least one number above 0.")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x has examples of shape {x.shape[1:]}, y of {y.shape[1:]}: give equal shapes.")
    x, y = (players.as_float(a).reshape(a.shape[0], -1) for a in (x, y))

    def mean_kernel(a: jax.Array, b: jax.Array) -> jax.Array:
        products = jnp.matmul(a, b.T, precision="highest")  # what is left of them below is a small difference
        squared = jnp.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * products, 0.0)
        return jnp.stack([jnp.exp(-squared / (2 * s)).mean() for s in bandwidths]).sum()

    def within(a: jax.Array) -> jax.Array:
        n, mean = a.shape[0], mean_kernel(a, a)
        return mean if biased else (n * mean - len(bandwidths)) / (n - 1)

    return within(x) - 2 * mean_kernel(x, y) + within(y)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """One update of the generator on as many samples as the batch has. batch = {"x": uint8 or float [B, *shape]}.

    Metrics: mmd, the root of the biased estimate, which is above 0 for equal laws too (of the order of 1 / sqrt(B));
    gradient_norm.
    """
    players.check_batch(batch, state.shape, None, 0)
    x = adversarial.from_unit(config, batch["x"])
    z = adversarial.draw_latents(config, key, x.shape[0])

    def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        variables = {"params": params, "batch_stats": state.generator.batch_stats}
        fake, stats = adversarial.generate(config, variables, z, None, state.shape, train=True)
        squared = squared_mmd(fake, x, config.bandwidths)
        mmd = jnp.sqrt(jnp.maximum(squared, LEAST))
        return mmd if config.root else squared, (mmd, stats)

    gradient, (mmd, stats) = jax.grad(loss, has_aux=True)(state.generator.params)
    generator = adversarial.update_generator(config, state, gradient, stats)
    metrics = {"mmd": mmd, "gradient_norm": players.gradient_norm(gradient)}
    return dataclasses.replace(state, step=state.step + 1, generator=generator), metrics


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Config, state: State, batch: Batch, key: jax.Array) -> Metrics:
    """squared_mmd, unbiased, so around 0 for equal laws, of the batch and as many samples; one value, [B] times."""
    players.check_batch(batch, state.shape, None, 0)
    x = adversarial.from_unit(config, batch["x"])
    fake = adversarial.from_unit(config, sample(config, state, key, x.shape[0]))
    return {"squared_mmd": jnp.full(x.shape[0], squared_mmd(fake, x, config.bandwidths, biased=False))}
