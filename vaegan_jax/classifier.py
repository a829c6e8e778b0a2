"""A small convolutional classifier: its penultimate activations and class probabilities are what the metrics look at.

The cross-entropy of its softmax is minimised, in nats: -log p(label | x), averaged over the batch; where labels are
attributes, the squared error of its outputs is. It draws nothing, so of the algorithms' names it lacks `sample`, and
has `classify`.
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import nets
from vaegan_jax import state as players
from vaegan_jax.config import check_fields
from vaegan_jax.layers import BatchNorm, Conv
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.state import Player

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
_ADAM = Optimizer(rule="adam", learning_rate=2e-3, linear_to=3_750)


class ConvClassifier(nn.Module):
    """3x3 convolutions, all but the first of stride 2, a hidden layer, dropout; each with batch normalisation and ReLU.

    x [B, H, W, C] in [0, 1] of any size -> (logits [B, classes], features [B, hidden]: the last hidden layer's output,
    0 or more). channels=() leaves the hidden layer alone, and takes vectors [B, D] too.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    hidden: int = 128
    kernel: tuple[int, int] = (3, 3)
    dropout: float = 0.3
    """The share of features that a training step hides from the output layer."""
    norm_momentum: float = 0.9
    dtype: Literal["bfloat16", "float32"] | None = None

    def __post_init__(self) -> None:
        widths = (*self.channels, self.hidden)
        if not isinstance(self.channels, tuple) or not all(isinstance(n, int) and n >= 1 for n in widths):
            raise ValueError(
                f"channels and hidden of ConvClassifier are {self.channels!r} and {self.hidden!r}: give a tuple of "
                "widths of 1 or more (or none), and one width."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout of ConvClassifier is {self.dropout}: give a number of at least 0, below 1.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, classes: int, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        if self.channels and x.ndim != 4:
            raise ValueError(f"ConvClassifier is given x {tuple(x.shape)}: give images [B, H, W, C], or channels=().")

        def normalise(h: jax.Array, name: str) -> jax.Array:
            # Linen's momentum of .99 would still remember its first statistics after hundreds of steps.
            norm = BatchNorm(not train, momentum=self.norm_momentum, dtype=self.dtype, name=f"{name}_norm")
            return nn.relu(norm(h))

        init, h = nets.Glorot(), x
        for i, width in enumerate(self.channels):
            strides = 1 if i == 0 else 2
            conv = Conv(
                width, self.kernel, strides, use_bias=False, dtype=self.dtype, kernel_init=init, name=f"conv{i}"
            )
            h = normalise(conv(h), f"conv{i}")
        h = nn.Dense(self.hidden, False, self.dtype, kernel_init=init, name="hidden0")(h.reshape(h.shape[0], -1))
        features = normalise(h, "hidden0")
        h = nn.Dropout(self.dropout, deterministic=not train)(features)
        logits = nn.Dense(classes, True, self.dtype, kernel_init=init, name="output")(h)
        return logits.astype(jnp.float32), features.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are for 28x28x1 and ten classes: Adam from 2e-3 to 0 over eight epochs, shifts of up to 2 pixels."""

    net: nn.Module = dataclasses.field(default_factory=ConvClassifier)
    num_classes: int = 10
    labels: Literal["classes", "attributes"] = "classes"
    """int32 [B], or float [B, num_classes], which its outputs then are."""
    shift: int = 2
    """Training images are moved by up to so many pixels along each axis, at random; what comes in is 0."""
    flip: bool = False
    """Half of the training images are mirrored, left to right."""
    optimizer: Optimizer = _ADAM
    batch_size: int = 128
    dataset_size: int = 60_000
    splits: tuple[str, str, str] = ("train", "train[:0]", "test")
    """Train, validation, test."""

    batches_per_step = 1

    def __post_init__(self) -> None:
        check_fields(self)
        least = 1 if players.has_attributes(self) else 2
        if self.num_classes < least or self.batch_size < 2 or self.dataset_size < 1:
            raise ValueError(
                f"num_classes, batch_size and dataset_size are {self.num_classes}, {self.batch_size} and "
                f"{self.dataset_size}: give {least} or more, 2 or more (batch normalisation), and 1 or more."
            )
        if self.shift < 0:
            raise ValueError(f"shift is {self.shift}: give a number of pixels, 0 or more.")


def vectors(dim: int) -> Config:
    """For x [B, dim] of any range: one hidden layer, nothing is moved."""
    if dim < 1:
        raise ValueError(f"dim is {dim}: give the number of features, 1 or more.")
    return Config(net=ConvClassifier(channels=()), shift=0, dataset_size=10_000)


@struct.dataclass
class State:
    step: jax.Array
    model: Player
    shape: tuple[int, ...] = struct.field(pytree_node=False)


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh parameters for examples of `shape`; data_mean is not needed: the first normalisation does its work."""
    shape = players.check_shape(shape)
    if len(shape) == 1 and (config.shift or config.flip):
        raise ValueError(f"shape is {shape}, but shift and flip are for images: take classifier.vectors({shape[0]}).")
    if len(shape) == 3 and config.shift >= min(shape[:2]):
        raise ValueError(f"shift is {config.shift}, but the images are {shape}: give less than a side.")
    variables = players.initialize(config.net, key, players.example(*shape), config.num_classes)
    return State(jnp.int32(0), players.create(variables, config.optimizer), shape)


def augment(config: Config, x: jax.Array, key: jax.Array) -> jax.Array:
    """x [B, H, W, C] float, each image moved and mirrored by a draw of its own; vectors as they are."""
    shift_key, flip_key = jax.random.split(key)
    if config.flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (x.shape[0], 1, 1, 1))
        x = jnp.where(mirrored, x[:, :, ::-1], x)
    if config.shift:
        s = config.shift
        padded = jnp.pad(x, ((0, 0), (s, s), (s, s), (0, 0)))
        corner = jax.random.randint(shift_key, (x.shape[0], 2), 0, 2 * s + 1)

        def window(image: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:])

        x = jax.vmap(window)(padded, corner)
    return x


def _scores(config: Config, logits: jax.Array, label: jax.Array) -> Metrics:
    """cross_entropy = -log p(label | x), nats, and accuracy (1 or 0), of each example: [B].

    Of attributes squared_error, the mean over them.
    """
    if players.has_attributes(config):
        return {"squared_error": ((logits - label) ** 2).mean(axis=1)}
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
    return {"cross_entropy": -log_prob, "accuracy": (logits.argmax(axis=1) == label).astype(jnp.float32)}


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """One step down. batch = {"x": uint8 or float [B, *shape], "label": int32 [B], or attributes [B, num_classes]}.

    Metrics, batch means: cross_entropy (nats), accuracy in [0, 1], or squared_error, of the augmented batch under
    dropout; gradient_norm.
    """
    players.check_batch(batch, state.shape, None, config.num_classes, players.has_attributes(config))
    augment_key, dropout_key = jax.random.split(key)
    x = augment(config, players.as_float(batch["x"]), augment_key)

    def loss(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.model.batch_stats}
        (logits, _), stats = players.apply(
            config.net, variables, x, config.num_classes, train=True, dropout=dropout_key
        )
        metrics = {name: value.mean() for name, value in _scores(config, logits, batch["label"]).items()}
        minimised = "squared_error" if players.has_attributes(config) else "cross_entropy"
        return metrics[minimised], (metrics, stats)

    gradient, (metrics, stats) = jax.grad(loss, has_aux=True)(state.model.params)
    state, norm = players.step_model(config, state, gradient, stats)
    return state, metrics | norm


@functools.partial(jax.jit, static_argnums=0)
def classify(config: Config, state: State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x [B, *shape] uint8 or float -> (logits, or attributes, [B, num_classes], features [B, D]).

    Running statistics, no dropout.
    """
    players.check_batch({"x": x}, state.shape, None, 0)
    variables = state.model.variables()
    return players.apply(config.net, variables, players.as_float(x), config.num_classes, train=False)[0]


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Config, state: State, batch: Batch, key: jax.Array) -> Metrics:
    """cross_entropy (nats) and accuracy, or squared_error, of each example of a batch {"x", "label"}: [B]."""
    players.check_batch(batch, state.shape, None, config.num_classes, players.has_attributes(config))
    return _scores(config, classify(config, state, batch["x"])[0], batch["label"])
