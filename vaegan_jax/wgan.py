"""Wasserstein GAN (Arjovsky, Chintala & Bottou 2017), algorithm 1; with gradient penalty on request.

max over ||f||_L <= K of E_x f(x) - E_z f(g(z)) = K W(p_data, p_g): the critic f climbs it, g descends -E f(g(z)).
"""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import adversarial, nets, sampling
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.sampling import decode_standard, discriminate, sample
from vaegan_jax.state import Player

__all__ = [
    "Config",
    "State",
    "critic_step",
    "decode_standard",
    "discriminate",
    "gradient_penalty",
    "init",
    "sample",
    "train_step",
    "validate",
    "vectors",
]

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]

# The paper gives the rate; the averaging factor is that of the authors' framework (torch, alpha .99).
_RMSPROP = Optimizer(rule="rmsprop", learning_rate=5e-5, momentum=0.0, b2=0.99)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are algorithm 1 on Radford et al.'s unconditional 28x28 nets."""

    latents: int = 100
    prior: Literal["normal", "uniform"] = "normal"
    prior_scale: float = 1.0
    generator: nn.Module = dataclasses.field(default_factory=nets.ConvGenerator)
    discriminator: nn.Module = dataclasses.field(default_factory=nets.ConvDiscriminator)
    """The critic."""
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    n_critic: int = 5
    clip: float | None = 0.01
    """The box [-clip, clip] that holds all critic parameters after each of its steps; None with a gradient penalty."""
    warmup: bool = False
    """The authors' code, not the paper: 100 critic steps before generator steps 0 to 24 and every 500th."""
    gradient_penalty: float = 0.0
    """Coefficient lambda of Gulrajani et al. 2017, eq. 3 (10 there), in place of the clip."""
    generator_optimizer: Optimizer = _RMSPROP
    discriminator_optimizer: Optimizer = _RMSPROP
    ema_decay: float | None = None
    sampling_statistics: Literal["running", "batch"] = "batch"
    num_classes: int = 0
    """Above 0: both nets take the label, int32 [B]; or, where labels are attributes, float [B, num_classes]."""
    labels: Literal["classes", "attributes"] = "classes"
    batch_size: int = 64
    dataset_size: int = 60_000
    splits: tuple[str, str, str] = ("train", "train[:0]", "test")

    # What the shared adversarial code reads, fixed by this paper.
    adversarial = "wasserstein"
    discriminator_weight = 1.0
    r1 = r2 = dragan = 0.0

    @property
    def batches_per_step(self) -> int:
        return self.n_critic

    @property
    def unit_range(self) -> bool:
        """Whether x must lie in [0, 1]."""
        return self.output != "linear"

    def __post_init__(self) -> None:
        adversarial.check(self)
        if self.n_critic < 1:
            raise ValueError(f"n_critic is {self.n_critic}: give 1 or more.")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is {self.clip}: give a number above 0, or none.")
        if self.gradient_penalty and self.clip is not None:
            raise ValueError(
                f"gradient_penalty is {self.gradient_penalty} and clip {self.clip}: give clip none, which it replaces."
            )


def gradient_penalty() -> Config:
    """WGAN-GP (Gulrajani et al. 2017): no clip, no critic normalisation, lambda 10, Adam 1e-4 (.5, .9), batch 50."""
    adam = Optimizer(rule="adam", learning_rate=1e-4, momentum=0.5, b2=0.9)
    return Config(
        discriminator=nets.ConvDiscriminator(norm="none"),
        clip=None,
        gradient_penalty=10.0,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        batch_size=50,
    )


def vectors(dim: int) -> Config:
    """For x [B, dim] of any range: MLPs, linear output, gradient penalty .1 and Adam 1e-4 as in WGAN-GP's toys."""
    adam = Optimizer(rule="adam", learning_rate=1e-4, momentum=0.5, b2=0.9)
    return Config(
        latents=max(2, min(dim, 64)),
        generator=nets.MLPGenerator(hidden=(128, 128), activation=nn.relu),
        discriminator=nets.MLPDiscriminator(hidden=(128, 128), activation=nn.relu),
        output="linear",
        clip=None,
        gradient_penalty=0.1,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        dataset_size=10_000,
    )


@struct.dataclass
class State:
    step: jax.Array
    generator: Player
    discriminator: Player
    generator_steps: jax.Array
    """Generator updates made: fewer than `step` under warm-up."""
    critic_steps: jax.Array
    """Critic steps since the last of them."""
    shape: tuple[int, ...] = struct.field(pytree_node=False)


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh players. data_mean [*shape] in [0, 1] sets the bias of a sigmoid output that has one."""
    shape = players.check_shape(shape)
    return State(
        jnp.int32(0), *adversarial.init_players(config, key, shape, data_mean), jnp.int32(0), jnp.int32(0), shape
    )


def critic_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """One step of the critic on one batch [B, ...], then the clip (algorithm 1, lines 3 to 7). Not jitted."""
    state, metrics = adversarial.discriminator_step(config, state, batch, key)
    if (box := config.clip) is not None:
        params = jax.tree.map(lambda p: jnp.clip(p, -box, box), state.discriminator.params)
        state = dataclasses.replace(state, discriminator=dataclasses.replace(state.discriminator, params=params))
    # The other metrics read the critic's output as a probability's logit, which it is not.
    kept = {"wasserstein": metrics["wasserstein"], "critic_loss": metrics["discriminator_loss"]}
    kept |= {"penalty": metrics["penalty"]} if "penalty" in metrics else {}
    kept["critic_gradient_norm"] = metrics["discriminator_gradient_norm"]
    return dataclasses.replace(state, critic_steps=state.critic_steps + 1), kept


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """n_critic critic steps, each with its own batch and noise, then one generator step.

    batch = {"x": uint8 or float [n_critic, B, *shape], "label" [n_critic, B] or [n_critic, B, num_classes]}, without
    the leading axis where n_critic is 1.

    Under warm-up the generator waits, masked, until its critic steps have passed: generator_updated is then 0.

    Metrics: wasserstein = E f(x) - E f(g(z)), critic_loss as minimised, less the penalty, penalty where it is on,
    critic_gradient_norm: means over the critic's steps; generator_loss = -E f(g(z)); generator_gradient_norm;
    generator_updated.
    """
    attributes = players.has_attributes(config)
    leading = config.n_critic if config.n_critic > 1 else None
    players.check_batch(batch, state.shape, leading, config.num_classes, attributes)
    if leading is None:
        batch = jax.tree.map(lambda leaf: leaf[None], dict(batch))
    critic_key, generator_key = jax.random.split(key)

    def critic(state: State, xs: tuple[Batch, jax.Array]) -> tuple[State, Metrics]:
        return critic_step(config, state, *xs)

    state, metrics = jax.lax.scan(critic, state, (batch, jax.random.split(critic_key, config.n_critic)))
    metrics = {name: values.mean() for name, values in metrics.items()}

    last = {name: values[-1] for name, values in batch.items()}
    moved, more = adversarial.generator_step(config, state, last, generator_key)
    moved = dataclasses.replace(moved, generator_steps=state.generator_steps + 1, critic_steps=jnp.int32(0))
    if not config.warmup:
        return dataclasses.replace(moved, step=state.step + 1), metrics | more | {"generator_updated": jnp.float32(1)}
    slow = (state.generator_steps < 25) | (state.generator_steps % 500 == 0)
    go = state.critic_steps >= jnp.where(slow, 100, config.n_critic)
    state = jax.tree.map(lambda new, old: jnp.where(go, new, old), moved, state)
    return dataclasses.replace(state, step=state.step + 1), metrics | more | {
        "generator_updated": go.astype(jnp.float32)
    }


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Config, state: State, batch: Batch, key: jax.Array) -> Metrics:
    """wasserstein = f(x) - f(g(z)) on examples held out and as many samples, running statistics: [B]."""
    return {"wasserstein": sampling.validate(config, state, batch, key)["wasserstein"]}
