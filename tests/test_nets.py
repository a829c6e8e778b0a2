"""Encoders, generators and discriminators: shapes of inputs, outputs and parameters, and where the labels go."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import gan, nets
from vaegan_jax.nets import Normal, Uniform

MLP_SHAPES = [(2,), (8, 8, 1), (28, 28, 1), (5, 7, 3)]
CONV_SHAPES = [  # image, widths of the generator's maps, its fully connected layers
    ((8, 8, 1), (6, 4), ()),
    ((8, 8, 3), (6, 4, 2), (9,)),
    ((28, 28, 1), (6, 4), (9, 8)),
    ((32, 32, 3), (8, 6, 4), ()),
    ((64, 64, 3), (8, 6, 4, 2), ()),
    ((8, 12, 3), (5, 4), (9,)),
]
LABELLED = [
    nets.MLPGenerator((6,), norm="batch"),
    nets.ConvGenerator((6, 4), (), (2, 2)),
    nets.MLPDiscriminator((6, 5)),
    nets.MaxoutDiscriminator((6, 5), 2),
    nets.ConvDiscriminator((4, 6), (9,), (2, 2)),
]


def names(net):
    return f"{type(net).__name__}{getattr(net, 'channels', '')}{net.hidden}{getattr(net, 'norm', '')}"


def shapes(net, *args, **kwargs):
    """(shapes of the outputs, {"layer/kernel": shape}) without computing anything."""
    out, variables = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), *args, **kwargs))
    flat = jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    return jax.tree.map(jnp.shape, out), {"/".join(k.key for k in path): leaf.shape for path, leaf in flat}


def filled(net, *args, **kwargs):
    """Variables with random kernels that keep the scale: Linen's own init takes seconds to compile."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return jnp.float32(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])))
        return (
            jnp.float32(rng.normal(1, 0.1, leaf.shape)) if name == "scale" else jnp.full(leaf.shape, name == "var", "f")
        )

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(lambda: net.init(jax.random.key(0), *args, **kwargs)))


def images(shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).uniform(-1, 1, shape))


def one_hot(labels, n=10):
    return jax.nn.one_hot(jnp.array(labels), n)


@pytest.mark.parametrize("shape", MLP_SHAPES, ids=str)
def test_mlp_nets_take_vectors_and_images(shape):
    x = jnp.zeros((5, *shape))
    assert shapes(nets.MLPEncoder((7, 6)), x, 3)[0] == ((5, 3), (5, 3))
    assert shapes(nets.MLPGenerator((7, 6)), jnp.zeros((5, 3)), shape)[0] == (5, *shape)
    for i, width in enumerate((7, 6)):
        layer = f"hidden{i}"
        assert shapes(nets.MLPDiscriminator((7, 6), feature_layer=layer), x)[0] == ((5,), (5, width))
        assert shapes(nets.MaxoutDiscriminator((7, 6), 2, feature_layer=layer), x)[0] == ((5,), (5, width))


@pytest.mark.parametrize(("shape", "widths", "hidden"), CONV_SHAPES, ids=str)
def test_conv_nets_halve_and_double_the_image_once_a_layer(shape, widths, hidden):
    x, factor = jnp.zeros((5, *shape)), 2 ** len(widths)
    assert shapes(nets.ConvEncoder(widths[::-1], 9), x, 3)[0] == ((5, 3), (5, 3))
    out, params = shapes(nets.ConvGenerator(widths, hidden), jnp.zeros((5, 3)), shape)
    assert out == (5, *shape)
    units = shape[0] // factor * shape[1] // factor * widths[0]
    assert params[f"hidden{len(hidden)}/kernel"] == ((3, *hidden)[-1], units)
    out, _ = shapes(nets.ConvDiscriminator(widths[::-1], hidden, feature_layer=f"conv{len(widths) - 1}"), x)
    assert out == ((5,), (5, shape[0] // factor, shape[1] // factor, widths[0]))


@pytest.mark.parametrize("layer", ["conv0", "conv0_activation", "conv1", "conv1_activation", "hidden0", "hidden1"])
def test_conv_discriminator_returns_the_named_layers_maps(layer):
    net = nets.ConvDiscriminator((4, 6), (9, 7), feature_layer=layer)
    sizes = {"conv0": (4, 6, 4), "conv1": (2, 3, 6), "hidden0": (9,), "hidden1": (7,)}
    assert shapes(net, jnp.zeros((5, 8, 12, 1)))[0] == ((5,), (5, *sizes[layer.removesuffix("_activation")]))


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (nets.MLPDiscriminator((4, 3)), ["hidden0", "hidden1"]),
        (nets.MaxoutDiscriminator((4, 3), 2), ["hidden0", "hidden1"]),
        (nets.ConvDiscriminator((4,), (3,)), ["conv0", "conv0_activation", "hidden0", "hidden0_activation"]),
    ],
    ids=["MLP", "Maxout", "Conv"],
)
def test_unknown_feature_layer_is_refused_with_the_names_there_are(net, layers):
    net = dataclasses.replace(net, feature_layer="conv9")
    with pytest.raises(ValueError, match=f"'conv9'.*{', '.join(layers)}"):
        shapes(net, jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 30, 1), (28, 28), (784,), (2, 28, 28, 1)], ids=str)
def test_sizes_that_do_not_divide_are_refused_and_named(shape):
    named = str(shape).replace("(", r"\(").replace(")", r"\)")
    calls = [
        (nets.ConvEncoder(), jnp.zeros((2, *shape)), 3),
        (nets.ConvGenerator(), jnp.zeros((2, 3)), shape),
        (nets.ConvDiscriminator(), jnp.zeros((2, *shape))),
    ]
    for net, *args in calls:
        with pytest.raises(ValueError, match=f"{type(net).__name__} .*divisible by 4.*{named}"):
            shapes(net, *args)


@pytest.mark.parametrize("net", LABELLED, ids=names)
def test_label_joins_the_input_of_every_layer(net):
    """Ten more inputs a layer, where class 3 alone counts if every label is 3; an output knows its own label only."""
    generator = "Generator" in type(net).__name__
    args = (images((4, 3)), (8, 8, 1)) if generator else (images((4, 8, 8, 1)),)
    plain, variables = shapes(net, *args)[1], filled(net, *args, one_hot([3] * 4))

    @jax.jit
    def run(params, y):
        def total(params):
            out = net.apply({**variables, "params": params}, *args, y)
            out = out if generator else out[0]
            return jnp.sum(jnp.sin(out)), out

        return jax.grad(total, has_aux=True)(params)

    gradient, out = run(variables["params"], one_hot([3] * 4))
    other = run(variables["params"], one_hot([3, 3, 3, 9]))[1]
    np.testing.assert_allclose(out[:3], other[:3], rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(out[3] - other[3])).max() > 1e-3
    kernels = {k: v for k, v in plain.items() if k.endswith("kernel")}
    assert len(kernels) == len(net.hidden) + len(getattr(net, "channels", ())) + 1
    for name, shape in kernels.items():
        kernel = gradient
        for part in name.split("/"):
            kernel = kernel[part]
        assert kernel.shape == (*shape[:-2], shape[-2] + 10, shape[-1]), name
        by_class = np.abs(kernel[..., shape[-2] :, :]).reshape(-1, 10, shape[-1]).sum((0, 2))
        assert by_class[3] > 0, name
        np.testing.assert_array_equal(np.delete(by_class, 3), 0, err_msg=name)


def kernels_and_rest(params):
    kernels = {name.removesuffix("/kernel"): shape for name, shape in params.items() if name.endswith("/kernel")}
    return kernels, {name: shape for name, shape in params.items() if not name.endswith("/kernel")}


def test_radfords_conditional_mnist_nets_have_the_released_shapes():
    """Label at every layer; kernels are all there is: no biases, and batch normalisation without gain and shift."""
    config = gan.dcgan(conditional=True)
    y = jnp.zeros((2, 10))
    out, params = shapes(config.generator, jnp.zeros((2, 100)), (28, 28, 1), y)
    assert out == (2, 28, 28, 1)
    kernels, rest = kernels_and_rest(params)
    assert kernels == {
        "hidden0": (110, 1024),
        "hidden1": (1034, 7 * 7 * 128),
        "conv0": (5, 5, 138, 64),
        "output": (5, 5, 74, 1),
    }
    assert rest == {}

    out, params = shapes(config.discriminator, jnp.zeros((2, 28, 28, 1)), y)
    assert out == ((2,), (2, 7, 7, 128))
    kernels, rest = kernels_and_rest(params)
    assert kernels == {
        "conv0": (5, 5, 11, 64),
        "conv1": (5, 5, 74, 128),
        "hidden0": (7 * 7 * 128 + 10, 1024),
        "output": (1034, 1),
    }
    assert rest == {}


def test_figure_1_of_radford_et_al():
    out, params = shapes(nets.ConvGenerator((1024, 512, 256, 128), ()), jnp.zeros((2, 100)), (64, 64, 3))
    assert out == (2, 64, 64, 3)
    assert kernels_and_rest(params)[0] == {
        "hidden0": (100, 4 * 4 * 1024),
        "conv0": (5, 5, 1024, 512),
        "conv1": (5, 5, 512, 256),
        "conv2": (5, 5, 256, 128),
        "output": (5, 5, 128, 3),
    }


def test_batch_norm_and_biases_stand_where_they_should():
    """Normalised: every hidden layer but D's first, no output. Biases: none under it, but for an encoder's heads."""
    x, z = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 3))

    def split(net, *args):
        params = shapes(net, *args)[1]
        normed = {name.split("/")[0].removesuffix("_norm") for name in params if name.endswith("/scale")}
        return normed, {name.removesuffix("/bias") for name in params if name.endswith("/bias") and "norm" not in name}

    discriminator = nets.ConvDiscriminator((4, 3, 2), (5, 4))
    assert split(discriminator, x) == ({"conv1", "conv2", "hidden0", "hidden1"}, set())
    assert split(nets.ConvGenerator((4, 3), (5,)), z, (8, 8, 1)) == ({"hidden0", "hidden1", "conv0"}, set())
    assert split(nets.ConvEncoder((4, 3), 5), x, 3) == ({"conv0", "conv1", "hidden0"}, {"output"})
    assert split(nets.MLPGenerator((5,), norm="batch"), z, (2,)) == ({"norm0"}, {"output"})
    plain = dataclasses.replace(discriminator, norm="none", output_bias=True)
    assert split(plain, x) == (set(), {"conv0", "conv1", "conv2", "hidden0", "hidden1", "output"})
    plain = nets.ConvGenerator((4, 3), (5,), norm="none")
    assert split(plain, z, (8, 8, 1)) == (set(), {"hidden0", "hidden1", "conv0"})
    assert split(dataclasses.replace(plain, output_bias=True), z, (8, 8, 1))[1] >= {"output"}
    assert split(nets.ConvEncoder((4,), 5, norm="none"), x, 3) == (set(), {"conv0", "hidden0", "output"})
    assert split(nets.MLPGenerator((5,)), z, (2,)) == (set(), {"hidden0", "output"})


def test_nets_hash_and_compare_by_value():
    for net in [*LABELLED, nets.MLPEncoder((4,)), nets.ConvEncoder((2,), 3)]:
        same, other = dataclasses.replace(net), dataclasses.replace(net, dtype="bfloat16")
        assert net == same
        assert hash(net) == hash(same)
        assert net != other
    assert Normal(0.02) == Normal()
    assert hash(Uniform(0.05)) == hash(Uniform())
    assert nets.ConvGenerator(kernel_init=Normal(0.1)) != nets.ConvGenerator()
    assert nets.MLPGenerator(activation=nn.relu) != nets.MLPGenerator()
    traces = []
    count = jax.jit(lambda net, x: traces.append(net) or x, static_argnums=0)
    count(nets.ConvGenerator(), 1.0)
    count(nets.ConvGenerator(), 2.0)
    assert len(traces) == 1
