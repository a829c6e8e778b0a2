"""Encoders, generators and discriminators: shapes, labels, normalisation, dropout, initial values, precision."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaegan_jax import nets
from vaegan_jax.nets import Constant, Glorot, Normal, Uniform

MLP_SHAPES = [(2,), (8, 8, 1), (28, 28, 1), (5, 7, 3)]
# Image shape, the widths of a small conv net.
CONV_SHAPES = [  # image, widths of the generator's maps, its fully connected layers
    ((8, 8, 1), (6, 4), ()),
    ((8, 8, 3), (6, 4, 2), (9,)),
    ((28, 28, 1), (6, 4), (9, 8)),
    ((32, 32, 3), (8, 6, 4), ()),
    ((64, 64, 3), (8, 6, 4, 2), ()),
    ((8, 12, 3), (5, 4), (9,)),
]
LABELLED = [
    nets.MLPGenerator((6, 5)),
    nets.MLPGenerator((6, 5), norm="batch"),
    nets.ConvGenerator((6, 4), ()),
    nets.MLPDiscriminator((6, 5)),
    nets.MaxoutDiscriminator((6, 5), 2),
    nets.ConvDiscriminator((4, 6), (9,)),
]


def names(net):
    return f"{type(net).__name__}{getattr(net, 'channels', '')}{net.hidden}{getattr(net, 'norm', '')}"


def identity(x):
    return x


def eye(key, shape, dtype=jnp.float32):
    return jnp.eye(*shape, dtype=dtype)


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
    expected = {"hidden0": (5, 9), "conv0_activation": (5, shape[0] // 2, shape[1] // 2, widths[-1])}
    for i, width in enumerate(widths[::-1]):
        expected[f"conv{i}"] = (5, shape[0] >> i + 1, shape[1] >> i + 1, width)
    for layer, feature in expected.items():
        assert shapes(nets.ConvDiscriminator(widths[::-1], (9,), feature_layer=layer), x)[0] == ((5,), feature)


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


def test_radfords_conditional_mnist_nets_have_the_released_shapes():
    """PAPERS.md section 3: label at every layer, no biases, batch normalisation but on D's input and G's output."""
    y = jnp.zeros((2, 10))
    out, params = shapes(nets.ConvGenerator(), jnp.zeros((2, 100)), (28, 28, 1), y)
    assert out == (2, 28, 28, 1)
    assert params == {
        "hidden0/kernel": (110, 1024),
        "hidden0_norm/batch/scale": (1024,),
        "hidden0_norm/batch/bias": (1024,),
        "hidden1/kernel": (1034, 7 * 7 * 128),
        "hidden1_norm/batch/scale": (7 * 7 * 128,),
        "hidden1_norm/batch/bias": (7 * 7 * 128,),
        "conv0/kernel": (5, 5, 138, 64),
        "conv0_norm/batch/scale": (64,),
        "conv0_norm/batch/bias": (64,),
        "output/kernel": (5, 5, 74, 1),
    }
    out, params = shapes(nets.ConvDiscriminator(), jnp.zeros((2, 28, 28, 1)), y)
    assert out == ((2,), (2, 7, 7, 128))
    assert params == {
        "conv0/kernel": (5, 5, 11, 64),
        "conv1/kernel": (5, 5, 74, 128),
        "conv1_norm/batch/scale": (128,),
        "conv1_norm/batch/bias": (128,),
        "hidden0/kernel": (7 * 7 * 128 + 10, 1024),
        "hidden0_norm/batch/scale": (1024,),
        "hidden0_norm/batch/bias": (1024,),
        "output/kernel": (1034, 1),
    }


def test_figure_1_of_radford_et_al():
    out, params = shapes(nets.ConvGenerator((1024, 512, 256, 128), ()), jnp.zeros((2, 100)), (64, 64, 3))
    kernels = {k.removesuffix("/kernel"): v for k, v in params.items() if k.endswith("kernel")}
    assert out == (2, 64, 64, 3)
    assert kernels == {
        "hidden0": (100, 4 * 4 * 1024),
        "conv0": (5, 5, 1024, 512),
        "conv1": (5, 5, 512, 256),
        "conv2": (5, 5, 256, 128),
        "output": (5, 5, 128, 3),
    }


def test_batch_norm_uses_the_batch_in_training_and_the_running_statistics_after():
    assert nets.ConvDiscriminator().norm_momentum == 0.9
    momentum = 0.8
    net = nets.ConvDiscriminator((3, 4), (), activation=identity, norm_momentum=momentum, feature_layer="conv1")
    after = dataclasses.replace(net, feature_layer="conv1_activation")
    x = images((16, 8, 8, 1)) * 50 + 2
    variables = filled(net, x)
    scale = np.asarray(variables["params"]["conv1_norm"]["batch"]["scale"])
    raw = np.asarray(net.apply(variables, x)[1], np.float64)
    (_, normed), changed = after.apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    assert np.abs(mean).max() > 0.01
    np.testing.assert_allclose(normed.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normed, (raw - mean) / np.sqrt(var + 1e-5) * scale, rtol=1e-3, atol=1e-4)
    statistics = changed["batch_stats"]["conv1_norm"]["batch"]  # running ones start at mean 0 and variance 1
    np.testing.assert_allclose(statistics["mean"], (1 - momentum) * mean, rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], momentum + (1 - momentum) * var, rtol=1e-4)
    _, evaluated = after.apply({**variables, **changed}, x[:1])
    expected = (raw[:1] - np.asarray(statistics["mean"])) / np.sqrt(np.asarray(statistics["var"]) + 1e-5) * scale
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_stands_neither_on_the_discriminators_input_nor_on_any_output():
    x, z = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 3))
    nets_and_norms = [
        (nets.ConvDiscriminator((4, 3, 2), (5, 4)), (x,), {"conv1", "conv2", "hidden0", "hidden1"}),
        (nets.ConvGenerator((4, 3), (5,)), (z, (8, 8, 1)), {"hidden0", "hidden1", "conv0"}),
        (nets.ConvEncoder((4, 3), 5), (x, 3), {"conv0", "conv1", "hidden0"}),
    ]
    for net, args, layers in nets_and_norms:
        variables = jax.eval_shape(lambda net=net, args=args: net.init(jax.random.key(0), *args))
        assert set(variables["batch_stats"]) == {f"{layer}_norm" for layer in layers}, type(net)
        assert "batch_stats" not in jax.eval_shape(
            lambda net=net, args=args: dataclasses.replace(net, norm="none").init(jax.random.key(0), *args)
        )


def test_layers_have_biases_exactly_where_no_batch_norm_follows():
    x, z = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 3))

    def biased(net, *args):
        params = shapes(net, *args)[1]
        return {k.removesuffix("/bias") for k in params if k.endswith("/bias") and "norm" not in k}

    for norm, hidden in (("batch", set()), ("none", {"conv0", "conv1", "hidden0"})):
        assert biased(nets.ConvDiscriminator((4, 3), (5,), norm=norm), x) == hidden
        assert biased(nets.ConvEncoder((4, 3), 5, norm=norm), x, 3) == hidden | {"output"}
        assert biased(nets.ConvDiscriminator((4, 3), (5,), norm=norm, output_bias=True), x) == hidden | {"output"}
    for norm, hidden in (("batch", set()), ("none", {"hidden0", "hidden1", "conv0"})):
        assert biased(nets.ConvGenerator((4, 3), (5,), norm=norm), z, (8, 8, 1)) == hidden
        assert biased(nets.ConvGenerator((4, 3), (5,), norm=norm, output_bias=True), z, (8, 8, 1)) == hidden | {
            "output"
        }
    for norm, hidden in (("batch", set()), ("none", {"hidden0", "hidden1"})):
        assert biased(nets.MLPGenerator((5, 4), norm=norm), z, (2,)) == hidden | {"output"}


def test_conv_discriminator_is_the_stated_sequence_of_layers():
    """Convolution, leaky ReLU of slope .2; convolution, normalisation, leaky ReLU; one logit: with the labels."""
    net = nets.ConvDiscriminator((4, 6), ())
    x, y = images((3, 8, 8, 2)), one_hot([1, 0, 4], 5)
    variables = filled(net, x, y)
    logits, feature = net.apply(variables, x, y)
    params = variables["params"]

    params, y = jax.tree.map(np.asarray, (params, y))

    def conv(name, h):
        """5x5, stride 2, "SAME" on an even size: one row of zeros before and two after."""
        h = np.concatenate([h, np.broadcast_to(y[:, None, None, :], (*h.shape[:3], 5))], axis=3)
        h, n = np.pad(h, ((0, 0), (1, 2), (1, 2), (0, 0))), h.shape[1]
        kernel = params[name]["kernel"]
        return sum(h[:, i : i + n : 2, j : j + n : 2] @ kernel[i, j] for i in range(5) for j in range(5))

    def leaky(h):
        return np.where(h > 0, h, 0.2 * h)

    raw = conv("conv1", leaky(conv("conv0", np.asarray(x))))
    h = leaky(raw / np.sqrt(1 + 1e-5) * params["conv1_norm"]["batch"]["scale"])
    flat = np.concatenate([h.reshape(3, -1), y], axis=1)
    np.testing.assert_allclose(feature, raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, flat @ params["output"]["kernel"][:, 0], rtol=1e-4, atol=1e-5)


def test_maxout_discriminator_equals_a_loop_over_units_and_pieces():
    net = nets.MaxoutDiscriminator((4, 3), 5, feature_layer="hidden1")
    x, rng = images((6, 2, 2, 1)), np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), filled(net, x)["params"])
    logits, feature = net.apply({"params": jax.tree.map(jnp.float32, params)}, x)
    h = np.asarray(x, np.float64).reshape(6, 4)
    for name, width in (("hidden0", 4), ("hidden1", 3)):
        kernel, bias = params[name]["pieces"]["kernel"], params[name]["pieces"]["bias"]
        out = np.zeros((6, width))
        for b in range(6):
            for j in range(width):
                out[b, j] = max(h[b] @ kernel[:, i * width + j] + bias[i * width + j] for i in range(5))
        h = out
    np.testing.assert_allclose(feature, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, h @ params["output"]["kernel"][:, 0] + params["output"]["bias"][0], rtol=1e-4)


def test_dropout_keeps_the_stated_fraction_and_divides_by_it_in_every_layer():
    """Identity weights: a unit is the product of its masks, each 0 or 1 / keep."""
    keep, D = (0.8, 0.5, 0.25), 60
    net = nets.MaxoutDiscriminator((D, D), 1, keep, eye, feature_layer="hidden0")
    x = jnp.ones((1000, D))
    (logits, _), variables = jax.jit(lambda: net.init_with_output(jax.random.key(1), x))()
    np.testing.assert_array_equal(logits, 1)  # evaluation: no dropout and no key for it

    def draw(layer, seed):
        net_at = dataclasses.replace(net, feature_layer=layer)
        return net_at.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})

    for layer, kept in (("hidden0", keep[:1]), ("hidden1", keep[:2])):
        values = np.asarray(draw(layer, 0)[1])
        np.testing.assert_allclose(np.unique(values), [0, 1 / np.prod(kept)], rtol=1e-6)
        np.testing.assert_allclose((values > 0).mean(), np.prod(kept), atol=0.01)  # 5 standard errors
        assert (np.abs((values > 0).mean(0) - np.prod(kept)) < 0.08).all()  # each unit draws its own mask
        assert (np.abs((values > 0).mean(1) - np.prod(kept)) < 0.4).all()
    logits = np.asarray(draw("hidden0", 0)[0])
    np.testing.assert_allclose(np.unique(logits), [0, 10], rtol=1e-6)
    np.testing.assert_allclose((logits > 0).mean(), 0.1, atol=0.04)
    assert (logits != np.asarray(draw("hidden0", 1)[0])).any()


def test_dropout_fractions_are_checked():
    with pytest.raises(ValueError, match="keep has 3 entries: give 2"):
        shapes(nets.MaxoutDiscriminator((4,), 2, feature_layer="hidden0"), jnp.zeros((2, 3)))


def test_initialisers_draw_from_the_stated_distributions():
    bound = np.sqrt(6 / 180)
    for draw, law in (
        (Normal(0.3, 2.0), stats.norm(2.0, 0.3)),
        (Uniform(0.3), stats.uniform(-0.3, 0.6)),
        (Glorot(), stats.uniform(-bound, 2 * bound)),
    ):
        values = np.asarray(jax.jit(lambda draw=draw: draw(jax.random.key(1), (100, 80)))())
        assert values.dtype == np.float32
        assert stats.kstest(values.ravel(), law.cdf).pvalue > 1e-2, draw
    np.testing.assert_array_equal(Constant(0.3)(jax.random.key(0), (2, 2)), np.full((2, 2), 0.3, "f"))


def test_default_initialisers_are_those_of_the_recipes():
    """DCGAN: N(0, .02). Goodfellow: D U(-.005, .005). Kingma: no law is stated for the MLPs' default, Glorot is used."""
    for net in (nets.ConvEncoder, nets.ConvGenerator, nets.ConvDiscriminator):
        assert net().kernel_init == Normal(0.02, 0.0)
    assert nets.MaxoutDiscriminator().kernel_init == Uniform(0.005)
    for net in (nets.MLPEncoder, nets.MLPGenerator, nets.MLPDiscriminator):
        assert net().kernel_init == Glorot()


@pytest.mark.parametrize("net", [*LABELLED, nets.MLPEncoder((4,)), nets.ConvEncoder((2,), 3)], ids=names)
def test_every_kernel_and_bias_takes_the_nets_own_initialiser(net):
    net, bias = dataclasses.replace(net, kernel_init=Constant(0.7)), 0.0
    if hasattr(net, "bias_init"):
        net, bias = dataclasses.replace(net, bias_init=Constant(0.2)), 0.2
    kind = type(net).__name__
    args = (jnp.zeros((1, 3)), (8, 8, 1)) if "Generator" in kind else (jnp.zeros((1, 8, 8, 1)),)
    args += (3,) if "Encoder" in kind else ()
    params = jax.jit(lambda: net.init(jax.random.key(0), *args))()["params"]
    for path, value in jax.tree_util.tree_flatten_with_path(params)[0]:
        if path[-1].key == "scale":
            np.testing.assert_allclose(value, 1, atol=0.11)  # N(1, .02)
            assert len(np.unique(value)) == value.size
        else:
            expected = 0.7 if path[-1].key == "kernel" else 0.0 if "norm" in path[0].key else bias
            np.testing.assert_array_equal(value, np.float32(expected), err_msg=str(path))


def test_gain_of_batch_normalisation_starts_from_a_normal_around_1():
    net = nets.MLPGenerator((400,), norm="batch", kernel_init=Constant())
    variables = jax.jit(lambda: net.init(jax.random.key(0), jnp.zeros((1, 1)), (1,)))()
    assert stats.kstest(variables["params"]["norm0"]["batch"]["scale"], stats.norm(1, 0.02).cdf).pvalue > 1e-2
    np.testing.assert_array_equal(variables["params"]["norm0"]["batch"]["bias"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["norm0"]["batch"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["norm0"]["batch"]["var"], 1)


PRECISION = [  # one compilation of a conv net takes a second, so each is here in one mode
    (nets.MLPEncoder((32,)), (3,), False),
    (nets.MLPDiscriminator((32, 16)), (), False),
    (nets.MaxoutDiscriminator((16, 16), 3, (1.0, 1.0, 1.0)), (), True),
    (nets.MLPGenerator((32,), norm="batch"), ((8, 8, 1),), True),
    (nets.ConvEncoder((4,), 16), (3,), True),
    (nets.ConvDiscriminator((4,), (), feature_layer="conv0"), (), False),
    (nets.ConvGenerator((8,), ()), ((8, 8, 1),), False),
]


@pytest.mark.parametrize(("net", "args", "train"), PRECISION, ids=[names(net) for net, *_ in PRECISION])
def test_bfloat16_keeps_parameters_and_outputs_in_float32_and_the_values(net, args, train):
    x = images((16, 64)) if "Generator" in type(net).__name__ else images((16, 8, 8, 1))
    half = dataclasses.replace(net, dtype="bfloat16")
    variables = filled(net, x, *args)
    chex.assert_trees_all_equal_shapes_and_dtypes(filled(half, x, *args), variables)
    initial = jax.eval_shape(lambda: half.init(jax.random.key(0), x, *args))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {np.dtype("float32")}

    def run(net):
        return jax.jit(lambda x: net.apply(variables, x, *args, train=train, mutable=["batch_stats"]))(x)

    exact, rough = jax.tree.leaves(run(net)), jax.tree.leaves(run(half))
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.04 * np.abs(np.asarray(a)).max())
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(exact, rough, strict=True))


def test_nets_hash_and_compare_by_value():
    for net in [net for net, *_ in PRECISION] + LABELLED:
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
