"""Every form of the three products of a convolution is the sum over the taps, written out in NumPy."""

import functools

import jax
import numpy as np
import pytest

from vaegan_jax import convolution
from vaegan_jax.convolution import geometry

pytestmark = pytest.mark.optimised

B, C, F, S = 2, 3, 4, 2
FORMS = {
    "convolve": ("_convolve_patches", "_convolve_plain", "_convolve_native"),
    "spread": ("_spread_cpu", "_spread_native"),
    "correlate": ("_correlate_patches", "_correlate_plain", "_correlate_native"),
}
GEOMETRIES = {
    "unit": geometry((6, 7), (3, 3), (1, 1), "SAME"),
    "even kernel": geometry((6, 8), (4, 4), (2, 2), "SAME"),
    "odd size": geometry((9, 7), (5, 5), (2, 2), "SAME"),
    "a stride for each axis": geometry((9, 7), (3, 2), (2, 1), "VALID"),
    "asymmetric padding": geometry((5, 7), (5, 4), (1, 2), ((1, 2), (0, 3))),
    "a remainder": geometry((10, 9), (3, 4), (3, 3), "VALID"),  # 1 row and 2 columns are never read
    "stride above the kernel": geometry((8, 9), (2, 1), (3, 3), ((0, 1), (2, 0))),
    "cropping": geometry((9, 8), (3, 2), (2, 3), ((-1, 0), (1, -2))),
}


def taps(geo):
    """(tap, where it reads the padded x): for all taps."""
    for u in range(geo.kernel[0]):
        for v in range(geo.kernel[1]):
            (sh, sw), (oh, ow) = geo.strides, geo.out
            yield (u, v), (slice(None), slice(u, u + (oh - 1) * sh + 1, sh), slice(v, v + (ow - 1) * sw + 1, sw))


def frame(geo):
    """Padded size, and where x lies in it: (of the frame, of x), as negative padding leaves some of x out."""
    size, inside, part = [], [slice(None)], [slice(None)]
    for n, (low, high) in zip(geo.size, geo.padding, strict=True):
        size.append(n + low + high)
        inside.append(slice(max(low, 0), low + n + min(high, 0)))
        part.append(slice(max(-low, 0), n + min(high, 0)))
    return size, tuple(inside), tuple(part)


def expected(product, geo, a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size, inside, part = frame(geo)
    padded = np.zeros((B, *size, C))
    if product == "spread":
        for tap, window in taps(geo):
            padded[window] += a @ b[tap].T
        x = np.zeros((B, *geo.size, C))
        x[part] = padded[inside]
        return x
    padded[inside] = a[part]
    if product == "convolve":
        return sum(padded[window] @ b[tap] for tap, window in taps(geo))
    dw = np.zeros((*geo.kernel, C, F))
    for tap, window in taps(geo):
        dw[tap] = np.einsum("bijc,bijf->cf", padded[window], b)
    return dw


def operands(product, geo):
    """S pairs of small integers: float32 sums are then exact, in any order."""
    x, y, w = (B, *geo.size, C), (B, *geo.out, F), (*geo.kernel, C, F)
    rng = np.random.default_rng(0)
    shapes = {"convolve": (x, w), "spread": (y, w), "correlate": (x, y)}[product]
    return [rng.integers(-4, 5, (S, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("product", FORMS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_form_is_the_sum_over_the_taps_alone_and_under_vmap(product, name):
    geo = GEOMETRIES[name]
    a, b = operands(product, geo)

    def all_of_them(a, b):
        ops = {form: functools.partial(getattr(convolution, form), geo) for form in FORMS[product]}
        return {form: (op(a[0], b[0]), jax.vmap(op)(a, b)) for form, op in ops.items()}

    each = np.stack([expected(product, geo, *pair) for pair in zip(a, b, strict=True)])
    for form, (one, all_pairs) in jax.jit(all_of_them)(a, b).items():
        np.testing.assert_array_equal(one, each[0], err_msg=form)
        np.testing.assert_array_equal(all_pairs, each, err_msg=f"{form} under vmap")
