"""Conv, ConvTranspose, BatchNorm are flax.linen's: values, gradients of any order, in scan, under vmap."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import convolution, layers
from vaegan_jax.layers import BatchNorm, Conv, ConvTranspose, Maxout
from vaegan_jax.loop import compiler_options

pytestmark = pytest.mark.optimised

CASES = [
    ((5, 5), 2, "SAME"),
    ((4, 4), 2, "SAME"),
    ((3, 2), (2, 1), "VALID"),
    ((5, 5), 1, ((1, 2), (0, 3))),
    ((1, 1), 1, "SAME"),
    ((3, 3), 2, 1),
]


KINDS = ["conv", "transpose", "adjoint"]


def pair(kind, kernel, strides, padding="SAME", features=4, **options):
    if kind == "conv":
        return tuple(layer(features, kernel, strides, padding, **options) for layer in (Conv, nn.Conv))
    strides = (strides, strides) if isinstance(strides, int) else strides
    options["transpose_kernel"] = kind == "adjoint"
    return tuple(layer(features, kernel, strides, padding, **options) for layer in (ConvTranspose, nn.ConvTranspose))


def normal(*shape, sd=1.0):
    return np.random.default_rng(0).normal(0, sd, shape).astype(np.float32)


def parameters(ours, theirs, x):
    """One tree that both nets take."""
    one, other = (jax.eval_shape(net.init, jax.random.key(0), x) for net in (theirs, ours))
    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    return jax.tree.map(lambda leaf: normal(*leaf.shape, sd=0.3), one)


def value_and_slopes(net, params, x):
    """Output, and the gradients of a smooth function of it in the parameters and in x."""

    def loss(params, x):
        y = net.apply(params, x).astype(jnp.float32)
        return jnp.sin(y).sum(), y

    slopes, y = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    return y, slopes


def penalty_slopes(net, params, x):
    """The gradients of the squared norm of a gradient: every product, differentiated by both of its operands."""

    def penalty(params, x):
        slopes = jax.grad(lambda params, x: jnp.tanh(net.apply(params, x)).sum(), (0, 1))(params, x)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(slopes))

    return jax.grad(penalty, (0, 1))(params, x)


def check(of, ours, theirs, x, rtol=2e-5, atol=2e-5):
    """of(net, params, x) is the same for both nets."""
    params = parameters(ours, theirs, x)
    found, expected = (jax.jit(functools.partial(of, net))(params, x) for net in (ours, theirs))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=rtol, atol=atol)


@pytest.fixture(params=["patches", "plain"])
def form(request, monkeypatch):
    """Both forms that a product takes on a CPU, whatever its size: the first is that of small ones."""
    monkeypatch.setattr(convolution, "_plain_wins", lambda *_: request.param == "plain")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kernel", "strides", "padding"), CASES)
def test_equals_linen(kind, kernel, strides, padding):
    check(value_and_slopes, *pair(kind, kernel, strides, padding), normal(2, 9, 7, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_a_gradient_equals_linen(form, kind):
    check(penalty_slopes, *pair(kind, (5, 4), 2), normal(2, 7, 6, 3), rtol=1e-4, atol=1e-3)  # of values up to 2,000


def test_a_large_product_is_xlas_own_and_equals_linen():
    """Above the threshold of 0.3 GFLOP, where the patches would be memory's work."""
    ours, theirs = pair("conv", (5, 5), 2, features=64)
    x = normal(64, 14, 14, 32)
    params = parameters(ours, theirs, x)
    found, expected = (
        jax.jit(functools.partial(value_and_slopes, net)).lower(params, x).compile() for net in (ours, theirs)
    )
    assert found.as_text().count(" convolution(") == 2  # forward and the kernel's gradient; x's is a matrix product
    chex.assert_trees_all_close(found(params, x), expected(params, x), rtol=1e-4, atol=2e-3)  # of sums over 3136


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_seeds_equals_linen_one_at_a_time(form, kind):
    ours, theirs = pair(kind, (5, 5), 2)
    x = normal(3, 2, 8, 7, 3)
    params = jax.tree.map(lambda p: np.stack([p, p + 0.1, -p]), parameters(ours, theirs, x[0]))
    found = jax.jit(jax.vmap(functools.partial(value_and_slopes, ours)))(params, x)
    one = jax.jit(functools.partial(value_and_slopes, theirs))
    each = [one(jax.tree.map(lambda p, i=i: p[i], params), x[i]) for i in range(3)]
    chex.assert_trees_all_close(found, jax.tree.map(lambda *v: jnp.stack(v), *each), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["conv", "transpose"])
def test_steps_in_a_scan_equal_linen_outside(form, kind):
    """Three steps of gradient descent, each on its own batch."""
    ours, theirs = pair(kind, (3, 3), 2)
    batches = normal(3, 2, 6, 6, 3)

    def step(net, params, x):
        _, (slope, _) = value_and_slopes(net, params, x)
        return jax.tree.map(lambda p, s: p - 0.01 * s, params, slope), net.apply(params, x)

    start = parameters(ours, theirs, batches[0])
    params, outputs = jax.jit(lambda p, xs: jax.lax.scan(functools.partial(step, ours), p, xs))(start, batches)
    one, expected = jax.jit(functools.partial(step, theirs)), []
    for x in batches:
        start, y = one(start, x)
        expected.append(y)
    chex.assert_trees_all_close((params, outputs), (start, jnp.stack(expected)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv", "transpose"])
@pytest.mark.parametrize(
    ("options", "shape", "tolerance"),
    [
        ({"use_bias": False}, (6, 5, 3), 2e-5),
        ({"dtype": jnp.bfloat16}, (2, 1, 1, 6, 5, 3), 0.05),  # 8 bits; below the 256 where Linen stops
        ({"precision": jax.lax.Precision.HIGHEST}, (2, 6, 5, 3), 2e-5),
        ({"kernel_dilation": (2, 3), "strides": 1}, (2, 9, 8, 3), 2e-5),
    ],
    ids=["no bias, no batch axis", "bfloat16, three batch axes", "precision", "dilation"],
)
def test_options_and_batch_axes_are_linens(kind, options, shape, tolerance):
    options = {"kernel": (3, 3), "strides": 2} | options
    check(value_and_slopes, *pair(kind, **options), normal(*shape), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["conv", "transpose"])
def test_a_bias_gradient_in_bfloat16_does_not_stop_at_256(kind):
    """As Linen's does on a CPU: its sum is in bfloat16, where 256 + 1 is 256."""
    ours, _ = pair(kind, (3, 3), 1, dtype=jnp.bfloat16)
    x = normal(8, 16, 16, 3)
    params = ours.init(jax.random.key(0), x)
    slope = jax.jit(jax.grad(lambda params: ours.apply(params, x).astype(jnp.float32).sum()))(params)
    np.testing.assert_array_equal(slope["params"]["bias"], np.full(4, 2048.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_on_the_kernel_is_linens(kind):
    ends = (4, 3) if kind == "adjoint" else (3, 4)
    mask = np.random.default_rng(1).integers(0, 2, (3, 3, *ends)).astype(np.float32)
    check(value_and_slopes, *pair(kind, (3, 3), 2, mask=mask), normal(2, 6, 5, 3))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("conv", {"feature_group_count": 2}),
        ("conv", {"input_dilation": 2, "padding": 1}),
        ("conv", {"padding": "REFLECT"}),
        ("conv", {"padding": "CIRCULAR"}),
        ("transpose", {"padding": "CIRCULAR"}),
    ],
)
def test_groups_and_other_kinds_of_convolution_are_linens(kind, options):
    check(value_and_slopes, *pair(kind, (3, 3), 1, **options), normal(2, 6, 5, 4))


@pytest.mark.parametrize(
    ("kind", "kernel", "padding", "shape"),
    [
        ("conv", (12, 12), "VALID", (2, 9, 7, 3)),  # a kernel beyond the image
        ("conv", (3, 3), "SAME", (2, 0, 7, 3)),
        ("transpose", (3, 3), "SAME", (2, 0, 7, 3)),
        ("transpose", (3, 3), "SAME", (0, 9, 7, 3)),
    ],
)
def test_empty_images_and_batches_are_linens(kind, kernel, padding, shape):
    check(value_and_slopes, *pair(kind, kernel, 1, padding), normal(*shape))


def test_forward_mode_is_refused():
    net, x = Conv(4, (3, 3)), jnp.ones((1, 4, 4, 1))
    params = net.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: net.apply(params, x), (x,), (x,))


def norms(**options):
    return tuple(
        layer(**({"use_running_average": False, "momentum": 0.9} | options)) for layer in (BatchNorm, nn.BatchNorm)
    )


def normalised(net, variables, x, **options):
    """Output, new statistics; gradients of a smooth function of the first in everything."""

    def loss(variables, x):
        y, new = net.apply(variables, x, mutable=["batch_stats"], **options)
        return jnp.sin(y.astype(jnp.float32)).sum(), (y, new)

    slopes, out = jax.grad(loss, (0, 1), has_aux=True)(variables, x)
    return out, slopes


@pytest.mark.parametrize(
    ("options", "shape", "tolerance"),
    [
        ({}, (8, 5, 6, 3), 1e-4),  # gradients of sums over 240, for both 3e-5 from those in float64
        ({}, (40, 7), 2e-5),
        ({"use_scale": False, "use_bias": False}, (2, 3, 5, 6, 3), 2e-5),
        ({"use_scale": False}, (16, 4), 2e-5),
        ({"use_bias": False, "epsilon": 0.5, "momentum": 0.3}, (16, 4), 2e-5),
        ({"dtype": jnp.bfloat16}, (8, 5, 6, 3), 0.05),  # 8 bits
        ({"axis": 1}, (8, 5, 6, 3), 2e-5),
        ({"use_fast_variance": False}, (8, 5, 6, 3), 2e-5),
        ({"use_running_average": True}, (8, 5, 6, 3), 2e-5),
        ({}, (0, 3), 2e-5),
    ],
    ids=[
        "images",
        "vectors",
        "not affine",
        "no scale",
        "no bias",
        "bfloat16",
        "axis",
        "slow variance",
        "test",
        "empty",
    ],
)
def test_batch_norm_is_linens(options, shape, tolerance):
    x = normal(*shape, sd=2.0) + 1
    check(normalised, *norms(**options), x, rtol=tolerance, atol=tolerance)


def test_batch_norm_is_the_same_where_there_is_no_cpu():
    x, scale, bias = normal(8, 5, 6, 3) + 1, normal(3), normal(3)[::-1]
    found, expected = (form(x, scale, bias, 1e-5) for form in (layers._normalise_native, layers._normalise_cpu))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_with_a_mask_is_linens():
    x, mask = normal(16, 4), np.arange(16)[:, None] % 3 > 0
    check(functools.partial(normalised, mask=mask), *norms(), x)


@pytest.mark.parametrize("running", [True, False])
def test_batch_norm_takes_its_mode_in_the_call_too(running):
    x = normal(16, 4)
    variables = parameters(*norms(), x)
    found, expected = (
        jax.jit(functools.partial(normalised, net, use_running_average=running))(variables, x)
        for net in norms(use_running_average=None)
    )
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-5)


def test_batch_norm_gradient_of_a_gradient_and_forward_mode_are_linens():
    x, (ours, theirs) = normal(8, 3, 2, 3), norms()
    variables = parameters(ours, theirs, x)

    def penalty(net, x):
        slope = jax.grad(lambda x: jnp.tanh(net.apply(variables, x, mutable=["batch_stats"])[0]).sum())(x)
        return (slope**2).sum()

    for of in (jax.grad, lambda f: lambda x: jax.jvp(f, (x,), (jnp.cos(x),))):
        found, expected = (jax.jit(of(functools.partial(penalty, net)))(x) for net in (ours, theirs))
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_of_a_batch_of_seeds_is_linens_of_each():
    x, (ours, theirs) = normal(3, 8, 5, 2, 3), norms()
    variables = parameters(ours, theirs, x[0])
    found = jax.jit(jax.vmap(functools.partial(normalised, ours, variables)))(x)
    linens = jax.jit(functools.partial(normalised, theirs, variables))
    each = [linens(one) for one in x]
    chex.assert_trees_all_close(found, jax.tree.map(lambda *v: jnp.stack(v), *each), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("net", [BatchNorm(False), Conv(6, (3, 3))], ids=["norm", "bias"])
def test_sums_over_a_batch_are_products_on_a_cpu(net):
    """By the options that `fit` compiles with, no tree of windows over all pixels is left of a training step."""
    x = normal(40, 40, 40, 6)

    def program(net):
        variables = net.init(jax.random.key(0), x)
        return jax.jit(functools.partial(normalised, net)).lower(variables, x).compile(compiler_options()).as_text()

    linen = nn.Conv(6, (3, 3)) if isinstance(net, Conv) else nn.BatchNorm(False)
    assert "reduce-window" in program(linen)  # which is what to look for
    assert "reduce-window" not in program(net)


def test_maxout_is_a_maximum_over_pieces():
    net = Maxout(3, 2)
    x = jax.random.normal(jax.random.key(0), (4, 5))
    params = net.init(jax.random.key(1), x)
    kernel, bias = params["params"]["pieces"]["kernel"], params["params"]["pieces"]["bias"]
    pieces = [x @ kernel[:, i * 3 : i * 3 + 3] + bias[None, i * 3 : i * 3 + 3] for i in range(2)]
    chex.assert_trees_all_close(net.apply(params, x), jnp.maximum(*pieces), atol=1e-6)
