"""What the nets compute: normalisation, dropout, maxout, initial values, precision."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_nets import LABELLED, filled, images, names, one_hot, shapes

from vaegan_jax import nets
from vaegan_jax.nets import Constant, FanIn, Glorot, Normal, Uniform


def identity(x):
    return x


def eye(key, shape, dtype=jnp.float32):
    return jnp.eye(*shape, dtype=dtype)


def test_batch_norm_uses_the_batch_in_training_and_the_running_statistics_after():
    assert nets.ConvDiscriminator().norm_momentum == 0.9
    momentum = 0.8
    net = nets.ConvDiscriminator((3, 4), (), (2, 2), activation=identity, norm_momentum=momentum, feature_layer="conv1")
    after = dataclasses.replace(net, feature_layer="conv1_activation")
    x = images((16, 8, 8, 1)) * 50 + 2
    variables = filled(net, x)
    scale = np.asarray(variables["params"]["conv1_norm"]["batch"]["scale"])

    @jax.jit
    def run(x):
        return net.apply(variables, x)[1], after.apply(variables, x, train=True, mutable=["batch_stats"])

    raw, ((_, normed), changed) = run(x)
    raw = np.asarray(raw, np.float64)
    mean, var = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    assert np.abs(mean).max() > 0.01
    np.testing.assert_allclose(normed.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normed, (raw - mean) / np.sqrt(var + 1e-5) * scale, rtol=1e-3, atol=1e-4)
    statistics = changed["batch_stats"]["conv1_norm"]["batch"]  # running ones start at mean 0 and variance 1
    np.testing.assert_allclose(statistics["mean"], (1 - momentum) * mean, rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], momentum + (1 - momentum) * var, rtol=1e-4)
    _, evaluated = jax.jit(after.apply)({**variables, **changed}, x[:1])
    expected = (raw[:1] - np.asarray(statistics["mean"])) / np.sqrt(np.asarray(statistics["var"]) + 1e-5) * scale
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)


def test_conv_discriminator_is_the_stated_sequence_of_layers():
    """Convolution, leaky ReLU of slope .2; convolution, normalisation, leaky ReLU; one logit: with the labels."""
    net = nets.ConvDiscriminator((4, 6), (), (3, 3))
    x, y = images((3, 8, 8, 2)), one_hot([1, 0, 4], 5)
    variables = filled(net, x, y)
    logits, feature = jax.jit(net.apply)(variables, x, y)
    params = variables["params"]

    params, y = jax.tree.map(np.asarray, (params, y))

    def conv(name, h):
        """3x3, stride 2, "SAME" on an even size: one row of zeros, at the end."""
        h = np.concatenate([h, np.broadcast_to(y[:, None, None, :], (*h.shape[:3], 5))], axis=3)
        h, n = np.pad(h, ((0, 0), (0, 1), (0, 1), (0, 0))), h.shape[1]
        kernel = params[name]["kernel"]
        return sum(h[:, i : i + n : 2, j : j + n : 2] @ kernel[i, j] for i in range(3) for j in range(3))

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
    (logits, _), variables = net.init_with_output(jax.random.key(1), x)
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
    laws = {
        Normal(0.3, 2.0): stats.norm(2.0, 0.3),
        Uniform(0.3): stats.uniform(-0.3, 0.6),
        FanIn(0.1): stats.norm(0.0, np.sqrt(0.1 / 100)),
        Glorot(): stats.uniform(-np.sqrt(6 / 180), 2 * np.sqrt(6 / 180)),
    }
    for draw, law in laws.items():
        values = np.asarray(draw(jax.random.key(1), (100, 80)))
        assert values.dtype == np.float32
        assert stats.kstest(values.ravel(), law.cdf).pvalue > 1e-2, draw
    np.testing.assert_array_equal(Constant(0.3)(jax.random.key(0), (2, 2)), np.full((2, 2), 0.3, "f"))


def test_default_initialisers_are_those_of_the_recipes():
    """DCGAN: N(0, .02). Goodfellow: D U(-.005, .005). The MLPs' default is Glorot's."""
    for net in (nets.ConvEncoder, nets.ConvGenerator, nets.ConvDiscriminator):
        assert net().kernel_init == Normal(0.02, 0.0)
    assert nets.MaxoutDiscriminator().kernel_init == Uniform(0.005)
    for net in (nets.MLPEncoder, nets.MLPGenerator, nets.MLPDiscriminator):
        assert net().kernel_init == Glorot()


@pytest.mark.parametrize("net", [*LABELLED, nets.MLPEncoder((4,)), nets.ConvEncoder((2,), 3)], ids=names)
def test_every_kernel_and_bias_takes_the_nets_own_initialiser(net):
    kind, drawn = type(net).__name__, {"kernel": [], "bias": []}

    def recorder(name):
        return lambda key, shape, dtype: drawn[name].append(shape) or jnp.zeros(shape, dtype)

    inits = {f"{k}_init": recorder(k) for k in drawn if hasattr(net, f"{k}_init")}
    args = (jnp.zeros((1, 3)), (8, 8, 1)) if "Generator" in kind else (jnp.zeros((1, 8, 8, 1)),)
    params = shapes(dataclasses.replace(net, **inits), *args, *((3,) if "Encoder" in kind else ()))[1]
    for init in inits:
        part = init.removesuffix("_init")
        expected = [v for k, v in params.items() if k.endswith(part) and "norm" not in k]
        assert sorted(drawn[part], key=str) == sorted(expected, key=str)


def test_gain_of_batch_normalisation_starts_from_a_normal_around_1():
    net = nets.MLPGenerator((400,), norm="batch", kernel_init=Constant())
    variables = jax.jit(lambda: net.init(jax.random.key(0), jnp.zeros((1, 1)), (1,)))()
    assert stats.kstest(variables["params"]["norm0"]["batch"]["scale"], stats.norm(1, 0.02).cdf).pvalue > 1e-2
    np.testing.assert_array_equal(variables["params"]["norm0"]["batch"]["bias"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["norm0"]["batch"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["norm0"]["batch"]["var"], 1)


PRECISION = [  # one compilation of a conv net takes a second, so each is here in one mode
    (nets.MLPEncoder((32,)), (3,), False),
    (nets.MaxoutDiscriminator((16, 16), 3, (1.0, 1.0, 1.0)), (), True),
    (nets.MLPGenerator((32,), norm="batch"), ((8, 8, 1),), True),
    (nets.ConvEncoder((4,), 16, (2, 2)), (3,), True),
    (nets.ConvDiscriminator((4,), (), (2, 2), feature_layer="conv0"), (), False),
    (nets.ConvGenerator((8,), (), (2, 2)), ((8, 8, 1),), False),
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


@pytest.mark.parametrize(
    ("net", "fields", "sentence"),
    [
        (nets.MLPEncoder, {"hidden": (-5,)}, r"hidden of MLPEncoder is \(-5,\): give a tuple of widths"),
        (nets.MLPEncoder, {"hidden": [5]}, r"hidden of MLPEncoder is \[5\]: give a tuple"),
        (nets.MLPDecoder, {"norm": "layer"}, "norm of MLPGenerator is 'layer': give 'batch' or 'none'"),
        (nets.ConvEncoder, {"hidden": 0}, "hidden of ConvEncoder is 0: give a whole number"),
        (nets.ConvGenerator, {"channels": ()}, r"channels of ConvGenerator is \(\): give a tuple of at least one"),
        (nets.ConvGenerator, {"kernel": (0, 0)}, r"kernel of ConvGenerator is \(0, 0\)"),
        (nets.ConvDiscriminator, {"kernel": (3,)}, r"kernel of ConvDiscriminator is \(3,\)"),
        (nets.ConvDiscriminator, {"norm_epsilon": -1.0}, "norm_epsilon of ConvDiscriminator is -1.0"),
        (nets.ConvDiscriminator, {"norm_momentum": 1.0}, "norm_momentum of ConvDiscriminator is 1.0"),
        (nets.MaxoutDiscriminator, {"pieces": 0}, "pieces of MaxoutDiscriminator is 0"),
        (nets.MaxoutDiscriminator, {"keep": (0.0, 0.5, 0.5)}, "keep of MaxoutDiscriminator is"),
        (nets.MaxoutDiscriminator, {"keep": (1.5, 0.5, 0.5)}, "keep of MaxoutDiscriminator is"),
    ],
)
def test_fields_that_make_no_net_are_refused(net, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        net(**fields)


@pytest.mark.parametrize("net", [nets.MLPEncoder, nets.MLPGenerator, nets.MLPDiscriminator])
def test_mlps_normalise_before_the_activation_and_have_no_bias_there(net):
    one = net(hidden=(4,), activation=jnp.tanh, norm="batch", norm_epsilon=1e-3)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    last = {nets.MLPEncoder: (2,), nets.MLPGenerator: ((2,),), nets.MLPDiscriminator: ()}[net]
    variables = one.init(jax.random.key(0), x, *last)
    hidden = variables["params"]["hidden0"]
    assert set(hidden) == {"kernel"}
    h = np.float64(x) @ np.float64(hidden["kernel"])
    gain, output = jax.device_get((variables["params"]["norm0"]["batch"]["scale"], variables["params"]["output"]))
    h = np.tanh((h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-3) * gain)
    out, _ = one.apply(variables, x, *last, train=True, mutable=["batch_stats"])
    expected = h @ output["kernel"] + output["bias"]
    if net is nets.MLPEncoder:
        np.testing.assert_allclose(np.concatenate(out, axis=1), expected, rtol=1e-4, atol=1e-5)
    elif net is nets.MLPGenerator:
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(out[0], expected[:, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out[1], h, rtol=1e-4, atol=1e-5)
