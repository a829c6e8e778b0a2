"""Conv and ConvTranspose are flax.linen's in values and gradients of any order."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from vaegan_jax.layers import Conv, ConvTranspose, Maxout

CASES = [
    ((5, 5), 2, "SAME"),
    ((4, 4), 2, "SAME"),
    ((3, 2), (2, 1), "VALID"),
    ((5, 5), 1, ((1, 2), (0, 3))),
    ((1, 1), 1, "SAME"),
    ((3, 3), 2, 1),
]


def pair(kind, kernel, strides, padding):
    if kind == "conv":
        return Conv(4, kernel, strides, padding), nn.Conv(4, kernel, strides, padding)
    strides = (strides, strides) if isinstance(strides, int) else strides
    flip = kind == "adjoint"
    return (
        ConvTranspose(4, kernel, strides, padding, transpose_kernel=flip),
        nn.ConvTranspose(4, kernel, strides, padding, transpose_kernel=flip),
    )


@pytest.mark.parametrize("kind", ["conv", "transpose", "adjoint"])
@pytest.mark.parametrize(("kernel", "strides", "padding"), CASES)
def test_equals_linen(kind, kernel, strides, padding):
    ours, theirs = pair(kind, kernel, strides, padding)
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
    params = theirs.init(jax.random.key(1), x)
    chex.assert_trees_all_equal_shapes(params, ours.init(jax.random.key(1), x))

    def both(net):
        def loss(params, x):
            return jnp.sum(jnp.sin(net.apply(params, x)))

        return jax.jit(lambda p, x: (net.apply(p, x), jax.grad(loss, (0, 1))(p, x)))(params, x)

    chex.assert_trees_all_close(both(ours), both(theirs), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kind", ["conv", "transpose"])
def test_gradient_of_a_gradient_equals_linen(kind):
    ours, theirs = pair(kind, (5, 5), 2, "SAME")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = theirs.init(jax.random.key(1), x)

    def penalty(net):
        def inner(params):
            g = jax.grad(lambda x: jnp.sum(jnp.tanh(net.apply(params, x))))(x)
            return jnp.sum(g**2)

        return jax.jit(jax.grad(inner))(params)

    chex.assert_trees_all_close(penalty(ours), penalty(theirs), atol=1e-4, rtol=1e-4)


def test_a_batch_of_seeds_equals_one_at_a_time():
    net = Conv(4, (5, 5), 2)
    x = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 3))
    params = jax.vmap(lambda k: net.init(k, x[0]))(jax.random.split(jax.random.key(1), 3))
    batched = jax.vmap(net.apply)(params, x)
    for i in range(3):
        one = net.apply(jax.tree.map(lambda p, i=i: p[i], params), x[i])
        chex.assert_trees_all_close(batched[i], one, atol=1e-5)


def test_no_native_convolution_is_left_on_a_cpu():
    net = ConvTranspose(4, (5, 5), (2, 2))
    x = jnp.ones((2, 4, 4, 3))
    params = net.init(jax.random.key(0), x)
    text = jax.jit(jax.grad(lambda p: net.apply(p, x).sum())).lower(params).compile().as_text()
    assert " convolution(" not in text
    native = nn.ConvTranspose(4, (5, 5), (2, 2))
    assert " convolution(" in jax.jit(native.apply).lower(params, x).compile().as_text()


def test_groups_and_dilation_are_linens():
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 4))
    for options in ({"feature_group_count": 2}, {"kernel_dilation": 2}, {"padding": "CIRCULAR"}):
        ours, theirs = Conv(4, (3, 3), **options), nn.Conv(4, (3, 3), **options)
        params = theirs.init(jax.random.key(1), x)
        chex.assert_trees_all_close(ours.apply(params, x), theirs.apply(params, x), atol=1e-5)


def test_forward_mode_is_refused():
    net, x = Conv(4, (3, 3)), jnp.ones((1, 4, 4, 1))
    params = net.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: net.apply(params, x), (x,), (x,))


def test_maxout_is_a_maximum_over_pieces():
    net = Maxout(3, 2)
    x = jax.random.normal(jax.random.key(0), (4, 5))
    params = net.init(jax.random.key(1), x)
    kernel, bias = params["params"]["pieces"]["kernel"], params["params"]["pieces"]["bias"]
    pieces = [x @ kernel[:, i * 3 : i * 3 + 3] + bias[None, i * 3 : i * 3 + 3] for i in range(2)]
    chex.assert_trees_all_close(net.apply(params, x), jnp.maximum(*pieces), atol=1e-6)
