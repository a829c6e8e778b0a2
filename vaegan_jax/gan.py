"""Generative adversarial nets (Goodfellow et al. 2014), with every loss of losses.ADVERSARIAL; `dcgan()`, `pacgan()`.

    V(D, G) = E_x log D(x) + E_z log(1 - D(G(z))),  D = sigmoid(logit): D maximises it; -log 4 is its optimum's value.

What it shares with wgan and vaegan is in adversarial.py.
"""

import dataclasses
import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import adversarial, nets
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.sampling import decode_standard, discriminate, sample, validate
from vaegan_jax.state import Player

__all__ = [
    "Config",
    "State",
    "dcgan",
    "decode_standard",
    "discriminate",
    "init",
    "pacgan",
    "sample",
    "train_step",
    "validate",
    "vectors",
]

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]

# goodfeli/adversarial, mnist.yaml; epochs are of dataset_size / batch_size updates, 500 there.
_GOODFELLOW_SGD = Optimizer(
    rule="sgd",
    learning_rate=0.1,
    decay=1.000004,
    floor=1e-6,
    momentum=0.5,
    final_momentum=0.7,
    momentum_from=1,
    momentum_to=250,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are the released MNIST recipe of Goodfellow et al. 2014."""

    latents: int = 100
    prior: Literal["normal", "uniform"] = "uniform"
    prior_scale: float = math.sqrt(3.0)
    """N(0, scale^2 I), or U(-scale, scale)."""
    generator: nn.Module = dataclasses.field(
        default_factory=lambda: nets.MLPGenerator(
            hidden=(1200, 1200), activation=nn.relu, kernel_init=nets.Uniform(0.05)
        )
    )
    discriminator: nn.Module = dataclasses.field(default_factory=nets.MaxoutDiscriminator)
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    bias_margin: float = 1e-3
    """How far the pixel means that the output bias is set from are kept off 0 and 1; 1e-7 in Goodfellow's pylearn2."""
    adversarial: Literal["minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"] = (
        "non_saturating"
    )
    discriminator_weight: float = 0.5
    """Factor of the discriminator's loss: Goodfellow's code halves it."""
    update: Literal["simultaneous", "alternating"] = "simultaneous"
    """simultaneous: both gradients from one z batch at the same parameters; alternating: D, then G with a fresh z."""
    gradient_penalty: float = 0.0
    """Coefficients of losses.gradient_penalty, r1 and r2 (gamma / 2 of Mescheder et al.) and dragan; 0 is off."""
    r1: float = 0.0
    r2: float = 0.0
    dragan: float = 0.0
    dragan_scale: float = 0.5
    generator_optimizer: Optimizer = _GOODFELLOW_SGD
    discriminator_optimizer: Optimizer = _GOODFELLOW_SGD
    ema_decay: float | None = None
    """Moving average of the generator's parameters, used by `sample`."""
    sampling_statistics: Literal["running", "batch"] = "running"
    """What the generator's batch normalisation uses in `sample`."""
    num_classes: int = 0
    """Above 0: both nets take the label, int32 [B]; or, where labels are attributes, float [B, num_classes]."""
    labels: Literal["classes", "attributes"] = "classes"
    packing: int = 1
    """PacGAN (Lin et al. 2018): the discriminator judges so many examples at once, side by side on the last axis."""
    dp_clip: float | None = None
    """DP-SGD for the discriminator (Xie et al. 2018): the norm that each example's gradient is cut to; None: off."""
    dp_noise: float = 1.0
    """And the deviation of the noise on their sum, over dp_clip. privacy.epsilon says what that promises."""
    batch_size: int = 100
    dataset_size: int = 50_000
    """N, which with batch_size makes the epochs of the momentum's schedule; `fit` sets it to its data's."""
    splits: tuple[str, str, str] = ("train[:50000]", "train[50000:]", "test")
    """Train, validation, test."""

    batches_per_step = 1

    @property
    def unit_range(self) -> bool:
        """Whether x must lie in [0, 1]."""
        return self.output != "linear"

    @property
    def least_examples(self) -> int:
        """How many `validate` needs."""
        return self.packing

    def __post_init__(self) -> None:
        adversarial.check(self)
        if not 0 < self.bias_margin < 0.5:
            raise ValueError(f"bias_margin is {self.bias_margin}: give a number above 0 and below a half.")
        if (self.dp_clip is not None and self.dp_clip <= 0) or self.dp_noise < 0:
            raise ValueError(f"dp_clip is {self.dp_clip} and dp_noise {self.dp_noise}: give above 0, and 0 or more.")
        if self.dp_clip is not None:
            _check_private(self)


def _check_private(config: Config) -> None:
    """Refuses what would let the data out beside the discriminator's private gradient, or has no gradient for each."""
    usual = {"gradient_penalty": 0, "r1": 0, "r2": 0, "dragan": 0, "num_classes": 0, "packing": 1}
    other = [f"{name} is {getattr(config, name)}" for name, value in usual.items() if getattr(config, name) != value]
    if config.adversarial == "relativistic":
        other.append("adversarial is 'relativistic', whose generator sees real examples")
    if other:
        raise ValueError(
            f"dp_clip is {config.dp_clip}, but {', '.join(other)}: nothing is private with it, leave it out."
        )


def dcgan(conditional: bool = False) -> Config:
    """Radford et al. 2015 on MNIST, the released train_cond_dcgan.py: Adam 2e-4, beta1 .5, L2 2.5e-5, batch 128.

    One of its iterations serves either D or G; a step here does both, so its 200 epochs are 200 * 195 steps, the rate
    falling to 0 over the second half. Batch normalisation has no gain and no shift, and the batch's statistics in
    sampling too.
    """
    adam = Optimizer(
        rule="adam", learning_rate=2e-4, momentum=0.5, l2=2.5e-5, linear_from=100 * 195, linear_to=200 * 195
    )
    return Config(
        prior_scale=1.0,
        generator=nets.ConvGenerator(norm_epsilon=1e-8, norm_affine=False),
        discriminator=nets.ConvDiscriminator(norm_epsilon=1e-8, norm_affine=False),
        discriminator_weight=1.0,
        update="alternating",
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        sampling_statistics="batch",
        num_classes=10 if conditional else 0,
        batch_size=128,
    )


def pacgan(packing: int = 2) -> Config:
    """Lin et al. 2018 on the ring and the grid, the released code; packing 1 is its GAN. 400 epochs of 1,000 steps.

    A batch is 100 packs. Weights from N(0, .02^2), no bias before a batch normalisation, Adam 1e-4 with beta1 .8.
    """
    adam = Optimizer(rule="adam", learning_rate=1e-4, momentum=0.8)
    normal = nets.Normal(0.02)
    return Config(
        latents=2,
        prior="normal",
        prior_scale=1.0,
        generator=nets.MLPGenerator(
            hidden=(400,) * 4, activation=nn.relu, kernel_init=normal, norm="batch", norm_epsilon=1e-4,
            norm_momentum=0.95,
        ),
        discriminator=nets.MaxoutDiscriminator(
            hidden=(200,) * 3, pieces=5, keep=(1.0,) * 4, kernel_init=normal, feature_layer="hidden2"
        ),
        output="linear",
        discriminator_weight=1.0,
        packing=packing,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        batch_size=100 * packing,
        dataset_size=100_000,
        splits=("train", "train[:0]", "test"),
    )  # fmt: skip


def vectors(dim: int) -> Config:
    """For x [B, dim] of any range: MLPs, linear output, Adam 1e-3 with beta1 .5."""
    adam = Optimizer(rule="adam", learning_rate=1e-3, momentum=0.5)
    return Config(
        latents=max(2, min(dim, 64)),
        prior="normal",
        prior_scale=1.0,
        generator=nets.MLPGenerator(hidden=(128, 128), activation=nn.relu),
        discriminator=nets.MLPDiscriminator(hidden=(128, 128)),
        output="linear",
        discriminator_weight=1.0,
        update="alternating",
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        dataset_size=10_000,
        splits=("train", "train[:0]", "test"),
    )


@struct.dataclass
class State:
    step: jax.Array
    generator: Player
    discriminator: Player
    shape: tuple[int, ...] = struct.field(pytree_node=False)


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh players. data_mean [*shape] in [0, 1] sets the bias of a sigmoid output that has one (Goodfellow's).

    With dp_clip it does not: it is of the data.
    """
    shape = players.check_shape(shape)
    private = config.dp_clip is not None
    generator, discriminator = adversarial.init_players(config, key, shape, None if private else data_mean)
    if private and jax.tree.leaves(discriminator.batch_stats):
        raise ValueError(
            f"dp_clip is {config.dp_clip}, but the discriminator keeps statistics of the data: give one without batch "
            "normalisation."
        )
    return State(jnp.int32(0), generator, discriminator, shape)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """One update of each player. batch = {"x": uint8 or float [B, *shape], "label" where conditional}.

    Metrics (batch means): discriminator_loss and generator_loss as minimised, less the penalty; penalty where one is
    on; value = V(D, G), d_real = E D(x), d_fake = E D(G(z)), wasserstein = E f(x) - E f(G(z)) on logits; both gradient
    norms.
    """
    players.check_batch(batch, state.shape, None, config.num_classes, players.has_attributes(config))
    if config.update == "alternating":
        first, second = jax.random.split(key)
        state, metrics = adversarial.discriminator_step(config, state, batch, first)
        state, more = adversarial.generator_step(config, state, batch, second)
        metrics |= more
    else:
        (g_gradient, g_stats), (d_gradient, d_stats), metrics = adversarial.gradients(config, state, batch, key)
        state = dataclasses.replace(
            state,
            generator=adversarial.update_generator(config, state, g_gradient, g_stats),
            discriminator=adversarial.update_discriminator(config, state, d_gradient, d_stats),
        )
    return dataclasses.replace(state, step=state.step + 1), metrics
