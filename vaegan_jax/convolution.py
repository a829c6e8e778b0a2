"""Strided 2-D convolution and its adjoints: on a CPU whichever form is fast there, native elsewhere.

XLA's CPU convolutions are slow for strided or transposed gradients, 15 to 25 times inside a loop, so the gradient in x
is always a matrix product here. The other two are one too while they are small or of few channels; else XLA's own
convolution, which gathers patches as it goes, is better, if it is asked for a plain one in NHWC order (the weight
gradient then is one of channels by pixels) and compiled as in `loop`. Milliseconds in a loop on two cores (GEMM peak
200 GFLOP/s), 5x5, stride 2, as patches | plain:

    batch, size, channels   64, 28, 1-64   128, 14, 64-128   16, 32, 128-256   16, 16, 256-512   16, 8, 512-1024
    convolve                 .8 | 1.1          30 | 14           54 | 34           40 | 32           37 | 35
    correlate                .9 | 1.0          35 | 16           56 | 38           42 | 33           43 | 37
    at the GEMM peak            .2               12.9              33.6              33.6              33.6

More, beside PyTorch's: `python -m experiments.bench.layers`. With AVX-512 `spread` stays behind oneDNN's. Four plain
convolutions, a phase each, are faster from a batch of 128 on when timed apart, and gain nothing within DCGAN's step;
products by tap, a sub-pixel form, batches in parts and overlap-add in blocks of the batch are slower.

The three products of a convolution are bilinear, and closed under reverse-mode differentiation:

    convolve(x, w) = y        patches of x times w
    spread(g, w) = dx         g times w', overlap-added: the transposed convolution
    correlate(x, g) = dw      patches of x, transposed, times g

so each is a custom_vjp whose rule is the other two, and gradients of any order in reverse mode stay on the fast path.
Shapes: x [B, H, W, C], y and g [B, OH, OW, F], w [KH, KW, C, F].
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_DIMS = ("NHWC", "HWIO", "NHWC")
TAPS = 64  # of a kernel that is written out tap by tap: beyond, compilation takes longer than is ever won


class Geometry(NamedTuple):
    """What is static about one convolution: kernel, strides, (low, high) padding a side, the size of x."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    size: tuple[int, int]

    @property
    def out(self) -> tuple[int, int]:
        """(OH, OW)."""
        sizes = zip(self.size, self.padding, self.kernel, self.strides, strict=True)
        h, w = ((n + lo + hi - k) // s + 1 for n, (lo, hi), k, s in sizes)
        return h, w


def geometry(
    size: tuple[int, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str | tuple[tuple[int, int], tuple[int, int]],
) -> Geometry:
    """`padding` as in lax: "SAME", "VALID" or a pair a side."""
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(size, kernel, strides, padding)
        padding = ((pads[0][0], pads[0][1]), (pads[1][0], pads[1][1]))
    return Geometry(kernel, strides, padding, (size[0], size[1]))


# The operations, each for a CPU (matrix products) and elsewhere (native).


def _crop_pad(x: jax.Array, low: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """x placed at `low` (may be negative: cropped) in a frame of `size`, zeros around."""
    config = [(0, 0, 0)]
    config += [(lo, n - lo - have, 0) for lo, n, have in zip(low, size, x.shape[1:3], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])


def _patches(geo: Geometry, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, OH, OW, KH * KW * C], by shifted slices of the stride's phases."""
    (kh, kw), (sh, sw), (oh, ow) = geo.kernel, geo.strides, geo.out
    batch, channels = x.shape[0], x.shape[3]
    low = (geo.padding[0][0], geo.padding[1][0])
    rows, cols = (kh - 1) // sh + oh, (kw - 1) // sw + ow
    x = _crop_pad(x, low, (rows * sh, cols * sw))
    if (sh, sw) == (1, 1):
        taps = [x[:, u : u + oh, v : v + ow] for u in range(kh) for v in range(kw)]
        return jnp.concatenate(taps, axis=3) if len(taps) > 1 else taps[0]
    # Space to depth first: every tap is then a dense slice (a strided one is gathered element by element).
    x = x.reshape(batch, rows, sh, cols, sw, channels).transpose(2, 4, 0, 1, 3, 5)
    taps = [x[u % sh, v % sw, :, u // sh : u // sh + oh, v // sw : v // sw + ow] for u in range(kh) for v in range(kw)]
    return jnp.concatenate(taps, axis=3) if len(taps) > 1 else taps[0]


def _plain_wins(geo: Geometry, x: jax.Array, features: int) -> bool:
    """Whether the product is large enough for XLA's own convolution: 0.3 GFLOP, and rows of channels to vectorise."""
    products = x.shape[0] * math.prod(geo.out) * math.prod(geo.kernel) * x.shape[3] * features
    return x.shape[3] >= 16 and 2 * products >= 3e8


def _convolve_cpu(geo: Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    return (_convolve_plain if _plain_wins(geo, x, w.shape[3]) else _convolve_patches)(geo, x, w)


def _convolve_patches(geo: Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    patches = _patches(geo, x)
    y = patches.reshape(-1, patches.shape[3]) @ w.reshape(-1, w.shape[3])
    return y.reshape(x.shape[0], *geo.out, w.shape[3])


def _convolve_native(geo: Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, w, geo.strides, geo.padding, dimension_numbers=_DIMS)


def _spread_cpu(geo: Geometry, g: jax.Array, w: jax.Array) -> jax.Array:
    if math.prod(geo.kernel) > TAPS:
        return _spread_native(geo, g, w)
    (kh, kw), (sh, sw), (oh, ow) = geo.kernel, geo.strides, geo.out
    batch, channels = g.shape[0], w.shape[2]
    rows, cols = -(-geo.size[0] // sh), -(-geo.size[1] // sw)
    # One product for every tap, then each phase of x, its rows i = m * stride + phase, is a sum of shifted slices: no
    # zeros are multiplied. Tap u of output row o falls on i = o * stride + u - low.
    taps = g.reshape(-1, g.shape[3]) @ w.transpose(3, 0, 1, 2).reshape(w.shape[3], -1)
    taps = taps.reshape(batch, oh, ow, kh, kw, channels)
    phases = []
    for p in range(sh):
        for q in range(sw):
            parts = [
                _crop_pad(taps[:, :, :, u, v], (low_u, low_v), (rows, cols))
                for u, low_u in _on_phase(p, kh, sh, geo.padding[0][0])
                for v, low_v in _on_phase(q, kw, sw, geo.padding[1][0])
            ]
            zero = jnp.zeros((batch, rows, cols, channels), g.dtype)
            phases.append(functools.reduce(jnp.add, parts) if parts else zero)
    x = phases[0]
    if len(phases) > 1:
        x = jnp.stack(phases).reshape(sh, sw, batch, rows, cols, channels).transpose(2, 3, 0, 4, 1, 5)
        x = x.reshape(batch, rows * sh, cols * sw, channels)
    return x[:, : geo.size[0], : geo.size[1]]


def _on_phase(phase: int, kernel: int, stride: int, low: int) -> list[tuple[int, int]]:
    """(tap, how far the outputs are shifted to the right) of the taps that fall on rows m * stride + phase."""
    return [(u, (u - low - phase) // stride) for u in range(kernel) if (u - low - phase) % stride == 0]


def _spread_native(geo: Geometry, g: jax.Array, w: jax.Array) -> jax.Array:
    x = jax.ShapeDtypeStruct((g.shape[0], *geo.size, w.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: _convolve_native(geo, x, w), x)(g)[0]


def _correlate_cpu(geo: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    return (_correlate_plain if _plain_wins(geo, x, g.shape[3]) else _correlate_patches)(geo, x, g)


def _correlate_patches(geo: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    patches = _patches(geo, x)
    dw = patches.reshape(-1, patches.shape[3]).T @ g.reshape(-1, g.shape[3])
    return dw.reshape(*geo.kernel, x.shape[3], g.shape[3])


def _correlate_native(geo: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    w = jax.ShapeDtypeStruct((*geo.kernel, x.shape[3], g.shape[3]), g.dtype)
    return jax.linear_transpose(lambda w: _convolve_native(geo, x, w), w)(g)[0]


# vmap over both operands would make a grouped convolution of these, four times slower than one after the other.


def _convolve_plain(geo: Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.custom_batching.sequential_vmap(functools.partial(_convolve_native, geo))(x, w)


def _correlate_plain(geo: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    """As a convolution of C images with B channels, the gradient its kernel: [C, H, W, B] by [OH, OW, B, F]."""

    def plain(x: jax.Array, g: jax.Array) -> jax.Array:
        dw = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            g.transpose(1, 2, 0, 3),
            (1, 1),
            geo.padding,
            rhs_dilation=geo.strides,
            dimension_numbers=_DIMS,
        )
        # Where the strides leave a remainder of x out, the product goes on beyond the kernel.
        return dw.transpose(1, 2, 0, 3)[: geo.kernel[0], : geo.kernel[1]]

    return jax.custom_batching.sequential_vmap(plain)(x, g)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def convolve(geo: Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    """y [B, OH, OW, F] = sum over the kernel of x [B, H, W, C], strided, times w [KH, KW, C, F] (not flipped)."""
    return lax.platform_dependent(
        x, w, cpu=functools.partial(_convolve_cpu, geo), default=functools.partial(_convolve_native, geo)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def spread(geo: Geometry, g: jax.Array, w: jax.Array) -> jax.Array:
    """The adjoint of `convolve` in x, also called transposed convolution: g [B, OH, OW, F] -> [B, H, W, C]."""
    return lax.platform_dependent(
        g, w, cpu=functools.partial(_spread_cpu, geo), default=functools.partial(_spread_native, geo)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def correlate(geo: Geometry, x: jax.Array, g: jax.Array) -> jax.Array:
    """The adjoint of `convolve` in w: x [B, H, W, C], g [B, OH, OW, F] -> [KH, KW, C, F]."""
    return lax.platform_dependent(
        x, g, cpu=functools.partial(_correlate_cpu, geo), default=functools.partial(_correlate_native, geo)
    )


def _keep(op):
    def forward(geo: Geometry, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return op(geo, a, b), (a, b)

    return forward


convolve.defvjp(_keep(convolve), lambda geo, ab, t: (spread(geo, t, ab[1]), correlate(geo, ab[0], t)))
spread.defvjp(_keep(spread), lambda geo, ab, t: (convolve(geo, t, ab[1]), correlate(geo, t, ab[0])))
correlate.defvjp(_keep(correlate), lambda geo, ab, t: (spread(geo, ab[1], t), convolve(geo, ab[0], t)))
