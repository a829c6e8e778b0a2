"""Encoders, generators (a decoder is one) and discriminators: Flax Linen modules and nothing else.

An encoder maps x [B, *shape] to (mean, log_var), both [B, latents]; a generator maps z [B, K] to pre-activations
[B, *shape]; a discriminator maps x to (logits [B], features of `feature_layer` [B, ...]). The sizes at both ends are
arguments of the call, so that an algorithm sets them in one place; the fields hold what lies between. `y` is a one-hot
label or attributes [B, Y], or None, and joins every layer's input (Radford et al.'s conditional nets). All compute in
`dtype` (bfloat16 on an accelerator) and keep their parameters, and return, in float32.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.initializers import Constant, FanIn, Glorot, Normal, Uniform
from vaegan_jax.layers import BatchNorm, Conv, ConvTranspose, Maxout

Activation = Callable[[jax.Array], jax.Array]
Shape = tuple[int, ...]
Dtype = Literal["bfloat16", "float32"] | None


Init = Normal | Uniform | Glorot | FanIn | Constant


def leaky_relu(x: jax.Array) -> jax.Array:
    """Slope 0.2 below zero, as in Radford et al. 2015."""
    return jax.nn.leaky_relu(x, 0.2)


def _with_label(x: jax.Array, y: jax.Array | None) -> jax.Array:
    """Appends the label [B, Y] to vectors, or as constant maps to images."""
    if y is None:
        return x
    maps = jnp.broadcast_to(y.reshape(y.shape[0], *(1,) * (x.ndim - 2), -1), (*x.shape[:-1], y.shape[-1]))
    return jnp.concatenate([x, maps.astype(x.dtype)], axis=-1)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


def _feature(features: dict[str, jax.Array], layer: str) -> jax.Array:
    if layer not in features:
        raise ValueError(f"feature_layer is {layer!r}: this discriminator has {', '.join(features)}.")
    return features[layer].astype(jnp.float32)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _widths(value: Any, least: int = 0, most: float = math.inf) -> bool:
    return isinstance(value, tuple) and least <= len(value) <= most and all(map(_whole, value))


_WIDTH = (_whole, "a whole number of 1 or more")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "hidden": (_widths, "a tuple of widths of 1 or more, or ()"),
    "channels": (lambda v: _widths(v, 1), "a tuple of at least one width of 1 or more"),
    "kernel": (lambda v: _widths(v, 2, 2), "a tuple of height and width, 1 or more"),
    "keep": (
        lambda v: isinstance(v, tuple) and all(0 < p <= 1 for p in v),
        "a tuple of probabilities above 0, at most 1",
    ),
    "norm": (lambda v: v in ("batch", "none"), "'batch' or 'none'"),
    "norm_epsilon": (lambda v: v >= 0, "a number of 0 or more"),
    "norm_momentum": (lambda v: 0 <= v < 1, "a number of at least 0, below 1"),
}


class _Net(nn.Module):
    """Refuses, when it is made, fields that make no net."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            fits, wanted = _WIDTH if field.type is int else _RULES.get(field.name, (lambda _: True, ""))
            if not fits(value := getattr(self, field.name)):
                raise ValueError(f"{field.name} of {type(self).__name__} is {value!r}: give {wanted}.")
        super().__post_init__()


class _Norm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015), its gain, if it has one, from N(1, .02^2) as in DCGAN; or nothing."""

    kind: Literal["batch", "none"]
    epsilon: float
    momentum: float
    affine: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.kind == "none":
            return x
        return BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            use_scale=self.affine,
            use_bias=self.affine,
            scale_init=Normal(0.02, 1.0),
            dtype=self.dtype,
            name="batch",
        )(x)


def _norm(net: Any, name: str) -> _Norm:
    """A net's normalisation layer, as its fields say."""
    return _Norm(net.norm, net.norm_epsilon, net.norm_momentum, net.norm_affine, net.dtype, name=name)


def _hidden(net: Any, i: int, h: jax.Array, y: jax.Array | None, train: bool) -> jax.Array:
    """Hidden layer i of an MLP, activated; no bias where a normalisation follows."""
    dense = nn.Dense(
        net.hidden[i], net.norm == "none", net.dtype, kernel_init=net.kernel_init, bias_init=net.bias_init,
        name=f"hidden{i}",
    )  # fmt: skip
    out: jax.Array = net.activation(_norm(net, f"norm{i}")(dense(_with_label(h, y)), train))
    return out


def _output(net: Any, width: int, h: jax.Array, y: jax.Array | None) -> jax.Array:
    """The last layer of an MLP, float32 [B, width]."""
    dense = nn.Dense(width, True, net.dtype, kernel_init=net.kernel_init, bias_init=net.bias_init, name="output")
    return dense(_with_label(h, y)).astype(jnp.float32)


class MLPEncoder(_Net):
    """Fully connected: x of any shape -> hidden layers -> (mean, log_var). Kingma & Welling 2013, appendix C."""

    hidden: tuple[int, ...] = (500,)
    activation: Activation = nn.tanh
    kernel_init: Init = Glorot()
    bias_init: Init = Constant()
    norm: Literal["batch", "none"] = "none"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, x: jax.Array, latents: int, y: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        h = _flat(x)
        for i in range(len(self.hidden)):
            h = _hidden(self, i, h, y, train)
        # One product for both heads: a half-width matrix leaves a core idle.
        mean, log_var = jnp.split(_output(self, 2 * latents, h, y), 2, axis=1)
        return mean, log_var


class MLPGenerator(_Net):
    """Fully connected: z -> hidden layers -> pre-activations of any shape."""

    hidden: tuple[int, ...] = (500,)
    activation: Activation = nn.tanh
    kernel_init: Init = Glorot()
    bias_init: Init = Constant()
    norm: Literal["batch", "none"] = "none"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    dtype: Dtype = None

    @nn.compact
    def __call__(self, z: jax.Array, shape: Shape, y: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        h = z
        for i in range(len(self.hidden)):
            h = _hidden(self, i, h, y, train)
        return _output(self, math.prod(shape), h, y).reshape(-1, *shape)


class MLPDiscriminator(_Net):
    """Fully connected: x of any shape -> hidden layers -> one logit.

    Layers: input, and the activations hidden0, hidden1, ...
    """

    hidden: tuple[int, ...] = (512, 512)
    activation: Activation = leaky_relu
    kernel_init: Init = Glorot()
    bias_init: Init = Constant()
    norm: Literal["batch", "none"] = "none"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    feature_layer: str = "hidden0"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array | None = None, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        h, features = _flat(x), {"input": x}
        for i in range(len(self.hidden)):
            features[f"hidden{i}"] = h = _hidden(self, i, h, y, train)
        return _output(self, 1, h, y)[:, 0], _feature(features, self.feature_layer)


class MaxoutDiscriminator(_Net):
    """Goodfellow et al. 2014, released code: dropout, maxout, dropout, maxout, dropout, one logit.

    Dropout (rng "dropout", when train) keeps input units with probability keep[0] and units of hidden layer i with
    keep[1 + i], and divides by it. Layers: input, hidden0, hidden1, ...
    """

    hidden: tuple[int, ...] = (240, 240)
    pieces: int = 5
    keep: tuple[float, ...] = (0.8, 0.5, 0.5)
    kernel_init: Init = Uniform(0.005)
    bias_init: Init = Constant()
    feature_layer: str = "hidden1"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array | None = None, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        if len(self.keep) != len(self.hidden) + 1:
            raise ValueError(
                f"keep has {len(self.keep)} entries: give {len(self.hidden) + 1}, the input's and each hidden layer's."
            )
        h, features = _flat(x), {"input": x}
        for i, width in enumerate(self.hidden):
            h = nn.Dropout(1 - self.keep[i], deterministic=not train)(h)
            h = Maxout(
                width,
                self.pieces,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                name=f"hidden{i}",
            )(_with_label(h, y))
            features[f"hidden{i}"] = h
        h = nn.Dropout(1 - self.keep[-1], deterministic=not train)(h)
        logit = nn.Dense(1, True, self.dtype, kernel_init=self.kernel_init, bias_init=self.bias_init, name="output")(
            _with_label(h, y)
        )
        return logit[:, 0].astype(jnp.float32), _feature(features, self.feature_layer)


def _check_image(net: str, shape: Shape, halvings: int) -> None:
    factor = 2**halvings
    if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
        raise ValueError(
            f"{net} with {halvings} stride-2 layers takes images [H, W, C] with H and W divisible by {factor}, "
            f"but the shape is {shape}: use other channels, another size, or an MLP net."
        )


class ConvEncoder(_Net):
    """Strided convolutions, batch normalisation, ReLU; a hidden layer; (mean, log_var). Larsen et al. 2016, table 2."""

    channels: tuple[int, ...] = (64, 128)
    hidden: int = 1024
    kernel: tuple[int, int] = (5, 5)
    activation: Activation = nn.relu
    kernel_init: Init = Normal(0.02)
    norm: Literal["batch", "none"] = "batch"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    dtype: Dtype = None

    @nn.compact
    def __call__(
        self, x: jax.Array, latents: int, y: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        _check_image("ConvEncoder", x.shape[1:], len(self.channels))
        bias, h = self.norm == "none", x
        for i, width in enumerate(self.channels):
            h = Conv(
                width, self.kernel, 2, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=f"conv{i}"
            )(_with_label(h, y))
            h = _norm(self, f"conv{i}_norm")(h, train)
            h = self.activation(h)
        h = _with_label(_flat(h), y)
        h = nn.Dense(self.hidden, bias, self.dtype, kernel_init=self.kernel_init, name="hidden0")(h)
        h = _with_label(self.activation(_norm(self, "hidden0_norm")(h, train)), y)
        heads = nn.Dense(2 * latents, True, self.dtype, kernel_init=self.kernel_init, name="output")(h)
        mean, log_var = jnp.split(heads.astype(jnp.float32), 2, axis=1)
        return mean, log_var


class ConvGenerator(_Net):
    """DCGAN's generator: fully connected layers, then 5x5 fractionally strided convolutions, each doubling the size.

    channels[0] maps at shape / 2^len(channels), the following after each doubling, the image's own channels last. The
    defaults are Radford et al. 2015's MNIST nets: fc 1024, fc 7*7*128, up to 64, up to 1; no biases under batch
    normalisation. The released code has norm_affine=False (no gain, no shift) and norm_epsilon=1e-8 too. 64x64:
    channels=(1024, 512, 256, 128), hidden=() as in figure 1.
    """

    channels: tuple[int, ...] = (128, 64)
    hidden: tuple[int, ...] = (1024,)
    kernel: tuple[int, int] = (5, 5)
    activation: Activation = nn.relu
    kernel_init: Init = Normal(0.02)
    norm: Literal["batch", "none"] = "batch"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    output_bias: bool = False
    dtype: Dtype = None

    @nn.compact
    def __call__(self, z: jax.Array, shape: Shape, y: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        ups = len(self.channels)
        _check_image("ConvGenerator", shape, ups)
        height, width = shape[0] // 2**ups, shape[1] // 2**ups
        bias, h = self.norm == "none", z

        def norm_act(name: str, h: jax.Array) -> jax.Array:
            return self.activation(_norm(self, f"{name}_norm")(h, train))

        for i, features in enumerate((*self.hidden, height * width * self.channels[0])):
            h = nn.Dense(features, bias, self.dtype, kernel_init=self.kernel_init, name=f"hidden{i}")(_with_label(h, y))
            h = norm_act(f"hidden{i}", h)
        h = h.reshape(-1, height, width, self.channels[0])
        for i, features in enumerate(self.channels[1:]):
            h = ConvTranspose(
                features,
                self.kernel,
                (2, 2),
                use_bias=bias,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                name=f"conv{i}",
            )(_with_label(h, y))
            h = norm_act(f"conv{i}", h)
        out = ConvTranspose(
            shape[2],
            self.kernel,
            (2, 2),
            use_bias=self.output_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="output",
        )
        return out(_with_label(h, y)).astype(jnp.float32)


class ConvDiscriminator(_Net):
    """DCGAN's discriminator: 5x5 strided convolutions, leaky ReLU, no batch normalisation on the first; one logit.

    The defaults are Radford et al. 2015's MNIST nets; of the released code's norm_affine and norm_epsilon see
    ConvGenerator. Layers: input; conv0, ... and hidden0, ... are a layer's raw output, before its normalisation (what
    Larsen et al.'s code compares); conv0_activation, ... come after.
    """

    channels: tuple[int, ...] = (64, 128)
    hidden: tuple[int, ...] = (1024,)
    kernel: tuple[int, int] = (5, 5)
    activation: Activation = leaky_relu
    kernel_init: Init = Normal(0.02)
    norm: Literal["batch", "none"] = "batch"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    output_bias: bool = False
    feature_layer: str = "conv1"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array | None = None, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        _check_image("ConvDiscriminator", x.shape[1:], len(self.channels))
        bias, h, features = self.norm == "none", x, {"input": x}

        def layer(name: str, h: jax.Array, *, norm: bool = True) -> jax.Array:
            features[name] = h
            h = _norm(self, f"{name}_norm")(h, train) if norm else h
            features[f"{name}_activation"] = h = self.activation(h)
            return h

        for i, width in enumerate(self.channels):
            h = Conv(
                width, self.kernel, 2, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=f"conv{i}"
            )(_with_label(h, y))
            h = layer(f"conv{i}", h, norm=i > 0)
        h = _flat(h)
        for i, width in enumerate(self.hidden):
            h = nn.Dense(width, bias, self.dtype, kernel_init=self.kernel_init, name=f"hidden{i}")(_with_label(h, y))
            h = layer(f"hidden{i}", h)
        logit = nn.Dense(1, self.output_bias, self.dtype, kernel_init=self.kernel_init, name="output")(
            _with_label(h, y)
        )
        return logit[:, 0].astype(jnp.float32), _feature(features, self.feature_layer)


MLPDecoder = MLPGenerator
ConvDecoder = ConvGenerator
