"""Layers that Linen lacks, or has but slowly on a CPU: BatchNorm, Conv, ConvTranspose, Maxout."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vaegan_jax import convolution

Pair = tuple[int, int]


def _pair(value: Any) -> Pair:
    """An int (or None, which is 1) for both axes, or a pair as it is."""
    if value is None or isinstance(value, int):
        value = (1 if value is None else value,) * 2
    first, second = value
    return first, second


def _pads(padding: Any) -> Any:
    """Linen's padding -> "SAME", "VALID" or a pair an axis; None: a kind that is left to Linen."""
    if isinstance(padding, str):
        return padding if padding in ("SAME", "VALID") else None
    if isinstance(padding, int):
        return ((padding, padding),) * 2
    if len(padding) != 2:
        return None
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)


class Conv(nn.Conv):
    """flax.linen.Conv with the same arguments, parameters and values; 2-D ones are matrix products on a CPU.

    x [..., H, W, C] -> [..., OH, OW, features]. Dilation, groups, a precision, circular, reflect or causal padding and
    other ranks take Linen's own path. Reverse mode of any order; forward mode raises a TypeError on the fast path.
    """

    def _fast(self) -> bool:
        return (
            not isinstance(self.kernel_size, int)
            and len(self.kernel_size) == 2
            and _pair(self.input_dilation) == (1, 1)
            and _pair(self.kernel_dilation) == (1, 1)
            and self.feature_group_count == 1
            and _pads(self.padding) is not None
            and self.conv_general_dilated is None
            and self.conv_general_dilated_cls is None
            and self.precision is None
        )

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        if not self._fast() or inputs.size == 0:
            return super().__call__(inputs)
        geo = convolution.geometry(
            inputs.shape[-3:-1], _pair(self.kernel_size), _pair(self.strides), _pads(self.padding)
        )
        if min(geo.out) < 1:  # a kernel beyond the image: Linen's empty result
            return super().__call__(inputs)
        kernel_shape = (*_pair(self.kernel_size), inputs.shape[-1], self.features)
        return _run(self, inputs, kernel_shape, functools.partial(convolution.convolve, geo))


class ConvTranspose(nn.ConvTranspose):
    """flax.linen.ConvTranspose with the same arguments, parameters and values; see Conv."""

    def _fast(self) -> bool:
        return (
            not isinstance(self.kernel_size, int)
            and len(self.kernel_size) == 2
            and _pair(self.kernel_dilation) == (1, 1)
            and _pads(self.padding) is not None
            and self.preferred_element_type is None
            and self.precision is None
        )

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        if not self._fast() or inputs.size == 0:
            return super().__call__(inputs)
        ends = (self.features, inputs.shape[-1]) if self.transpose_kernel else (inputs.shape[-1], self.features)
        return _run(self, inputs, (*_pair(self.kernel_size), *ends), self._spread)

    def _spread(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if not self.transpose_kernel:
            # Linen's default correlates the dilated input with the kernel as it is; an adjoint flips it.
            kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        sizes, kernel_size, strides = x.shape[1:3], _pair(self.kernel_size), _pair(self.strides)
        # `spread` inverts a convolution with these low paddings whose output is x: the high ones follow from the size.
        padding, size = [], []
        for axis, (n, k, s) in enumerate(zip(sizes, kernel_size, strides, strict=True)):
            low, m = self._frame(n, k, s, axis)
            padding.append((low, (n - 1) * s + k - m - low))
            size.append(m)
        geo = convolution.Geometry(kernel_size, strides, (padding[0], padding[1]), (size[0], size[1]))
        return convolution.spread(geo, x, kernel)

    def _frame(self, n: int, k: int, s: int, axis: int) -> Pair:
        """(low padding of the convolution that this transposes, output size) on one axis, as lax.conv_transpose has."""
        pads = _pads(self.padding)
        if pads == "SAME":
            total = k + s - 2
            before = k - 1 if s > k - 1 else -(-total // 2)
            after = total - before
        elif pads == "VALID":
            before, after = k - 1, k - 1 + max(s - k, 0)
        else:
            before, after = pads[axis]
        return k - 1 - before, (n - 1) * s + 1 + before + after - (k - 1)


def _run(module: Any, inputs: jax.Array, kernel_shape: tuple[int, ...], op: Any) -> jax.Array:
    """What both layers do around their product: parameters, mask, dtype, extra batch axes, bias."""
    if module.mask is not None and module.mask.shape != kernel_shape:
        raise ValueError(f"mask has shape {module.mask.shape}: give the kernel's, {kernel_shape}.")
    kernel = module.param("kernel", module.kernel_init, kernel_shape, module.param_dtype)
    if module.mask is not None:
        kernel *= module.mask
    bias = module.param("bias", module.bias_init, (module.features,), module.param_dtype) if module.use_bias else None
    inputs, kernel, bias = module.promote_dtype(inputs, kernel, bias, dtype=module.dtype)
    batch = inputs.shape[:-3]
    y = op(inputs.reshape(-1, *inputs.shape[-3:]), kernel)
    if bias is not None:
        y = lax.platform_dependent(y, bias, cpu=lambda y, b: y + _repeat(b, y), default=lambda y, b: y + _row(b, y))
    return y.reshape(*batch, *y.shape[1:])


# XLA's CPU sums over leading axes in trees of windows, of arrays that it writes out first: 4 to 6 times as long as
# products with rows of ones, in blocks so that float32 stays as exact. A vector that a product repeats has the like as
# its gradient.


def _blocks(x: jax.Array) -> tuple[int, int, int]:
    """(blocks, rows of one, C) of x [..., C]."""
    rows = x.size // x.shape[-1]
    blocks = math.gcd(rows, max(1, min(32, rows // 64)))
    return blocks, rows // blocks, x.shape[-1]


def _totals(x: jax.Array) -> jax.Array:
    """x [..., C] -> its sums over all other axes [C]."""
    x = x.reshape(_blocks(x))
    return jnp.matmul(jnp.ones((x.shape[0], 1, x.shape[1]), x.dtype), x, precision="highest")[:, 0].sum(0)


def _repeat(v: jax.Array, x: jax.Array) -> jax.Array:
    """v [C] -> [..., C], as x is; the gradient is summed in float32 or more."""
    blocks, rows, channels = _blocks(x)
    wide = jnp.promote_types(v.dtype, jnp.float32)
    each = jnp.broadcast_to(v.astype(wide)[None, None], (blocks, 1, channels))
    repeated = jnp.matmul(jnp.ones((blocks, rows, 1), wide), each, precision="highest")
    return repeated.reshape(x.shape).astype(v.dtype)


def _row(v: jax.Array, x: jax.Array) -> jax.Array:
    """v [C] -> [1, ..., C] of x's rank."""
    return v.reshape((1,) * (x.ndim - 1) + (-1,))


def _normalise_cpu(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, ...]:
    count = x.size // x.shape[-1]
    mean, square = _totals(x) / count, _totals(x * x) / count
    var = jnp.maximum(0.0, square - mean * mean)
    gain = lax.rsqrt(var + epsilon) * scale
    return x * _repeat(gain, x) + _repeat(bias - mean * gain, x), mean, var


def _normalise_native(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, ...]:
    axes = tuple(range(x.ndim - 1))
    mean, square = x.mean(axes), (x * x).mean(axes)
    var = jnp.maximum(0.0, square - mean * mean)
    return (x - _row(mean, x)) * _row(lax.rsqrt(var + epsilon) * scale, x) + _row(bias, x), mean, var


class BatchNorm(nn.BatchNorm):
    """flax.linen.BatchNorm with the same arguments, parameters, statistics and values; faster to train on a CPU.

    x [..., C] -> the same shape. A mask, an axis name, other axes, use_fast_variance or force_float32_reductions off
    and running statistics take Linen's own path. Ioffe and Szegedy 2015, algorithm 1.
    """

    def _fast(self, x: jax.Array) -> bool:
        return (
            self.axis in (-1, x.ndim - 1, (-1,), (x.ndim - 1,))
            and self.axis_name is None
            and self.use_fast_variance
            and self.force_float32_reductions
            and x.ndim > 1
            and x.size > 0
            and not jnp.iscomplexobj(x)
        )

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        running = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        if running or mask is not None or not self._fast(x):
            return super().__call__(x, use_running_average, mask=mask)
        width = (x.shape[-1],)
        means = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        scale = self.param("scale", self.scale_init, width, self.param_dtype) if self.use_scale else None
        bias = self.param("bias", self.bias_init, width, self.param_dtype) if self.use_bias else None
        dtype = nn.dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        wide = jnp.promote_types(x.dtype if self.dtype is None else self.dtype, jnp.float32)
        y, mean, var = lax.platform_dependent(
            x.astype(wide),
            jnp.ones(width, wide) if scale is None else scale.astype(wide),
            jnp.zeros(width, wide) if bias is None else bias.astype(wide),
            cpu=functools.partial(_normalise_cpu, epsilon=self.epsilon),
            default=functools.partial(_normalise_native, epsilon=self.epsilon),
        )
        if not self.is_initializing():
            means.value = self.momentum * means.value + (1 - self.momentum) * mean
            variances.value = self.momentum * variances.value + (1 - self.momentum) * var
        return y.astype(dtype)


class Maxout(nn.Module):
    """h_j = max over i < pieces of (x W)_ij + b_ij: x [..., D] -> [..., features]. Goodfellow et al. 2013, eq. 1.

    Parameters: kernel [D, pieces * features], bias [pieces * features], piece-major, so that the maximum is over whole
    contiguous rows.
    """

    features: int
    pieces: int = 5
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = nn.Dense(
            self.pieces * self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="pieces",
        )
        h = dense(x)
        return h.reshape(*h.shape[:-1], self.pieces, self.features).max(axis=-2)
