"""Player, its updates and moving average; output biases; checks of a batch; sampling in blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import nets, state
from vaegan_jax.optimizer import Optimizer

SGD = Optimizer("sgd", 0.1, momentum=0.5)
FLAT = {"w": jnp.float32([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.float32([0.25, -0.75])}
SLOPE = {"w": jnp.float32([[0.3, 0.1], [-1.0, 2.0]]), "b": jnp.float32([1.0, -4.0])}


def variables(**extra):
    return {"params": jax.tree.map(jnp.copy, FLAT), **extra}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_player_starts_from_linens_variables():
    stats = {"norm": {"mean": jnp.ones(2)}}
    player = state.create(variables(batch_stats=stats), SGD)
    equal(player.params, FLAT)
    equal(player.batch_stats, stats)
    equal(player.opt_state, SGD.transformation().init(FLAT))
    equal(player.variables(), {"params": FLAT, "batch_stats": stats})
    assert state.create(variables(), SGD).batch_stats == {}


def test_update_is_one_step_of_the_optimiser_and_leaves_the_old_player_alone():
    old = state.create(variables(batch_stats={"m": jnp.zeros(2)}), SGD)
    new = state.update(old, SGD, SLOPE)
    newer = state.update(new, SGD, SLOPE, {"m": jnp.ones(2)})
    for name in FLAT:
        np.testing.assert_allclose(new.params[name], FLAT[name] - 0.1 * SLOPE[name], rtol=1e-6)
        np.testing.assert_allclose(newer.params[name], FLAT[name] - 0.25 * SLOPE[name], rtol=1e-5)  # .1 + .1 + .5 * .1
    equal(old.params, FLAT)
    equal(new.batch_stats, {"m": np.zeros(2)})  # none given: kept
    equal(newer.batch_stats, {"m": np.ones(2)})


def test_update_hands_the_epochs_length_to_the_momentum_schedule():
    optimizer = Optimizer("sgd", 0.1, 0.0, final_momentum=0.8, momentum_from=1, momentum_to=3)
    for per_epoch in (1, 4):
        player, velocity, w = state.create(variables(), optimizer), 0.0, np.asarray(FLAT["b"], np.float64)
        for t in range(6):
            player = state.update(player, optimizer, SLOPE, updates_per_epoch=per_epoch)
            velocity = float(optimizer.momentum_at(jnp.int32(t), per_epoch)) * velocity - 0.1 * np.asarray(SLOPE["b"])
            w = w + velocity
        np.testing.assert_allclose(player.params["b"], w, rtol=1e-5)


def test_ema_is_a_copy_with_its_own_buffers():
    player = state.create(variables(), SGD, 0.9)
    equal(player.ema, player.params)
    for a, b in zip(jax.tree.leaves(player.ema), jax.tree.leaves(player.params), strict=True):
        assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
    step = jax.jit(lambda p: state.update(p, SGD, SLOPE, None, 0.9), donate_argnums=0)  # one buffer twice would crash
    assert np.isfinite(np.asarray(step(step(player)).ema["w"])).all()


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_ema_is_d_times_itself_plus_1_minus_d_times_the_new_parameters(decay):
    player = state.create(variables(), SGD, decay)
    expected = jax.tree.map(np.asarray, FLAT)
    for _ in range(5):
        player = state.update(player, SGD, SLOPE, None, decay)
        new = jax.tree.map(np.asarray, player.params)
        expected = {k: np.float32(decay) * expected[k] + np.float32(1 - decay) * new[k] for k in expected}
        equal(player.ema, expected)
    assert (np.asarray(player.ema["w"]) == np.asarray(player.params["w"])).all() == (decay == 0.0)
    equal(player.variables(averaged=True)["params"], expected)
    equal(player.variables()["params"], player.params)


def test_ema_has_batch_statistics_of_its_own():
    """Those of the last parameters are of other activations than the averaged parameters give."""
    stats = {"mean": jnp.zeros(2)}
    player = state.create({"params": FLAT, "batch_stats": stats}, SGD, 0.75)
    moved = state.update(player, SGD, SLOPE, {"mean": jnp.ones(2)}, 0.75)
    equal(moved.variables()["batch_stats"], {"mean": np.ones(2, np.float32)})
    equal(moved.variables(averaged=True)["batch_stats"], {"mean": np.full(2, 0.25, np.float32)})


def test_without_a_decay_there_is_no_ema():
    player = state.update(state.create(variables(), SGD), SGD, SLOPE)
    assert player.ema is None
    equal(player.variables(averaged=True)["params"], player.params)


class Net(nn.Module):
    """One batch normalisation and a dropout, to see what apply does with them."""

    @nn.compact
    def __call__(self, x, shift=0.0, *, train):
        x = nn.BatchNorm(not train, momentum=0.9, name="norm")(x)
        return nn.Dropout(0.5, deterministic=not train)(x) + shift


def test_apply_trains_on_the_batchs_statistics_and_evaluates_on_the_running_ones(key):
    x = np.random.default_rng(0).normal(3, 2, (500, 2)).astype(np.float32)
    v = state.initialize(Net(), key, x)
    out, stats = state.apply(Net(), v, x, train=False)
    np.testing.assert_allclose(out, x, rtol=1e-4)  # running mean 0, variance 1
    equal(stats, v["batch_stats"])
    out, stats = state.apply(Net(), v, x, train=True, dropout=jax.random.key(1), shift=7.0)
    kept = np.asarray(out) != 7
    normed = (np.asarray(x) - np.mean(x, 0)) / np.std(x, 0)
    np.testing.assert_allclose((np.asarray(out) - 7)[kept], 2 * normed[kept], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(kept.mean(), 0.5, atol=0.06)
    np.testing.assert_allclose(stats["norm"]["mean"], 0.1 * np.mean(x, 0), rtol=1e-4)
    plain = state.initialize(nets.MLPDiscriminator((3,)), jax.random.key(2), x)
    assert state.apply(nets.MLPDiscriminator((3,)), plain, x, train=True)[1] == {}


def test_output_bias_is_set_per_unit_or_averaged_over_positions_per_channel():
    mean = jnp.float32(np.random.default_rng(0).uniform(size=(2, 3, 2)))
    for size, p in ((12, mean.reshape(-1)), (2, np.mean(mean, (0, 1)))):
        old = {
            "params": {"output": {"kernel": jnp.ones((4, size)), "bias": jnp.zeros(size)}, "h": {"bias": jnp.ones(3)}}
        }
        new = state.set_output_bias({**old, "batch_stats": {"m": jnp.ones(1)}}, mean, mean.shape)
        np.testing.assert_allclose(new["params"]["output"]["bias"], np.log(p / (1 - p)), rtol=1e-4, atol=1e-6)
        assert new["params"]["output"]["bias"].dtype == jnp.float32
        equal(new["params"]["output"]["kernel"], old["params"]["output"]["kernel"])
        equal(new["params"]["h"], old["params"]["h"])
        equal(new["batch_stats"], {"m": np.ones(1)})
        np.testing.assert_array_equal(old["params"]["output"]["bias"], 0)


@pytest.mark.parametrize("params", [{"output": {"kernel": jnp.ones((2, 2))}}, {"hidden0": {"bias": jnp.ones(2)}}])
def test_output_bias_of_a_net_that_has_none_is_refused(params):
    with pytest.raises(ValueError, match=r"data_mean.*'output'.*none"):
        state.set_output_bias({"params": params}, jnp.zeros(2), (2,))


@pytest.mark.parametrize("shape", [(2, 2), (4, 2, 1), (2, 1, 2)])
def test_a_mean_of_another_shape_is_refused_even_where_its_size_would_do(shape):
    params = {"output": {"bias": jnp.zeros(4)}}
    with pytest.raises(ValueError, match=r"data_mean has shape .* expected, \(2, 2, 1\)"):
        state.set_output_bias({"params": params}, jnp.full(shape, 0.5), (2, 2, 1))


def test_output_bias_reaches_the_nets_pre_activations():
    """With output kernels of 0 the decoder's output is the bias alone: the mean image."""
    mean = jnp.float32(np.random.default_rng(0).uniform(size=(2, 2, 1)))
    net = nets.MLPGenerator((3,), kernel_init=nets.Constant())
    v = state.initialize(net, jax.random.key(0), jnp.ones((4, 2)), (2, 2, 1))
    out = net.apply(state.set_output_bias(v, mean, (2, 2, 1)), jnp.ones((4, 2)), (2, 2, 1))
    np.testing.assert_allclose(jax.nn.sigmoid(out), np.broadcast_to(mean, (4, 2, 2, 1)), rtol=1e-5)


def test_probabilities_are_kept_off_0_and_1_by_the_margin():
    p = np.array([0.0, 0.01, 0.3, 0.99, 1.0])
    clipped = np.clip(p, 0.02, 0.98)
    found = state.set_output_bias({"params": {"output": {"bias": jnp.zeros(5)}}}, jnp.float32(p), (5,), 0.02)
    np.testing.assert_allclose(found["params"]["output"]["bias"], np.log(clipped / (1 - clipped)), rtol=1e-5)


X, LABEL = jnp.zeros((6, 4, 4, 1), jnp.uint8), jnp.zeros(6, jnp.int32)
BAD = [  # batch, leading, classes, what was given, what is expected
    (X, None, 0, "ArrayImpl", r"\[B, 4, 4, 1\]"),
    ({"image": X}, None, 0, "image", r"\[B, 4, 4, 1\]"),
    ({"x": X[0]}, None, 0, r"\(4, 4, 1\)", r"\[B, 4, 4, 1\]"),
    ({"x": X.reshape(6, 16)}, None, 0, r"\(6, 16\)", r"\[B, 4, 4, 1\]"),
    ({"x": X[..., 0]}, None, 0, r"\(6, 4, 4\)", r"\[B, 4, 4, 1\]"),
    ({"x": X[:, :3]}, None, 0, r"\(6, 3, 4, 1\)", r"\[B, 4, 4, 1\]"),
    ({"x": X[None]}, None, 0, r"\(1, 6, 4, 4, 1\)", r"\[B, 4, 4, 1\]"),
    ({"x": X}, 5, 0, r"\(6, 4, 4, 1\)", r"\[5, B, 4, 4, 1\]"),
    ({"x": X[None]}, 5, 0, r"\(1, 6, 4, 4, 1\)", "batches_per_step = 5"),
    ({"x": X[:0]}, None, 0, r"\(0, 4, 4, 1\)", "at least one"),
    ({"x": jnp.zeros((5, 0, 4, 4, 1))}, 5, 0, r"\(5, 0, 4, 4, 1\)", "at least one"),
    ({"x": X.astype(jnp.int32)}, None, 0, "int32", "uint8.*float"),
    ({"x": X.astype(bool)}, None, 0, "bool", "uint8.*float"),
    ({"x": X}, None, 10, 'no "label"', r"int32 \[B\]"),
    ({"x": X, "label": LABEL[:5]}, None, 10, r"\(5,\)", r"int32 \[B\]"),
    ({"x": X, "label": LABEL[:, None]}, None, 10, r"\(6, 1\)", r"int32 \[B\]"),
    ({"x": X, "label": LABEL.astype(jnp.float32)}, None, 10, "float32", r"int32 \[B\]"),
    ({"x": X[None], "label": LABEL}, 1, 10, r"\(6,\)", r"int32 \[1, B\]"),
]


@pytest.mark.parametrize(("batch", "leading", "classes", "given", "expected"), BAD)
def test_bad_batch_is_refused_with_what_was_given_and_what_is_expected(batch, leading, classes, given, expected):
    def step(batch):
        state.check_batch(batch, (4, 4, 1), leading, classes)

    with pytest.raises(ValueError, match=f"(?s){expected}") as error:
        step(batch)
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    with pytest.raises(ValueError, match=given):
        step(batch)
    with pytest.raises(ValueError):  # while tracing: shapes are known there, values are not
        jax.eval_shape(step, batch)


def test_good_batches_pass():
    for x in (X, X.astype(jnp.float32), X.astype(jnp.bfloat16), np.zeros((1, 4, 4, 1))):
        state.check_batch({"x": x}, (4, 4, 1), None, 0)
    state.check_batch({"x": X, "label": None}, (4, 4, 1), None, 0)
    state.check_batch({"x": X, "label": LABEL.astype(jnp.uint8)}, (4, 4, 1), None, 10)
    state.check_batch({"x": X[None], "label": LABEL[None]}, (4, 4, 1), 1, 10)
    state.check_batch({"x": jnp.zeros((3, 2))}, (2,), None, 0)


@pytest.mark.parametrize("shape", [(), (4, 4), (0,), (4, -1, 1), (4.0,), (2, 4, 4, 1)], ids=str)
def test_bad_shape_of_an_example_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape is \(.*\(H, W, C\).*\(D,\)"):
        state.check_shape(shape)


def test_shape_of_an_example_becomes_a_tuple():
    assert state.check_shape([28, 28, 1]) == (28, 28, 1)
    assert state.check_shape((2,)) == (2,)


def test_one_hot_is_float32_or_none():
    np.testing.assert_array_equal(state.one_hot(jnp.array([2, 0]), 3), np.float32([[0, 0, 1], [1, 0, 0]]))
    assert state.one_hot(jnp.array([1]), 3).dtype == jnp.float32
    assert state.one_hot(None, 0) is None
    assert state.one_hot(jnp.array([1]), 0) is None


def test_as_float_maps_bytes_to_0_1_and_keeps_floats():
    np.testing.assert_allclose(state.as_float(jnp.arange(256).astype(jnp.uint8)), np.arange(256) / 255, rtol=1e-6)
    assert state.as_float(jnp.uint8([255]))[0] == 1.0
    for x in (np.float32([-1.5, 200.0]), np.float64([-1.5, 200.0]), jnp.bfloat16([-1.5, 200.0])):
        np.testing.assert_array_equal(state.as_float(jnp.asarray(x)), np.float32([-1.5, 200]))
        assert state.as_float(jnp.asarray(x)).dtype == jnp.float32


def draw(key, label):
    """4 rows that know their own noise, their block's mean (as batch statistics do) and their label."""
    noise = jax.random.normal(key, (4, 2))
    noise -= noise.mean(axis=0, keepdims=True)
    return noise if label is None else jnp.concatenate([noise, label[:, None].astype(jnp.float32)], axis=1)


def test_a_longer_sample_begins_with_the_shorter_one(key):
    longest = state.blocks(draw, jax.random.clone(key), 14, 4, None)
    assert longest.shape == (14, 2)
    for n in (3, 4, 9):
        shorter = state.blocks(draw, jax.random.clone(key), n, 4, None)
        np.testing.assert_array_equal(shorter, longest[:n], err_msg=str(n))
    assert len(np.unique(longest)) == 28  # no block repeats another
    assert (np.asarray(state.blocks(draw, jax.random.key(1), 14, 4, None)) != np.asarray(longest)).all()


def test_every_row_has_its_own_label_and_the_noise_does_not_depend_on_it(key):
    plain = state.blocks(draw, jax.random.clone(key), 10, 4, None)
    label = jnp.arange(10, dtype=jnp.int32) * 3
    out = state.blocks(draw, key, 10, 4, label)
    np.testing.assert_array_equal(out[:, 2], label)
    np.testing.assert_allclose(out[:, :2], plain, rtol=1e-6, atol=1e-6)  # two programs: another rounding


def test_nothing_can_be_drawn_too(key):
    assert state.blocks(draw, jax.random.clone(key), 0, 4, None).shape == (0, 2)
    assert state.blocks(draw, jax.random.clone(key), 0, 4, jnp.zeros(0, jnp.int32)).shape == (0, 3)


@pytest.mark.optimised
@pytest.mark.parametrize("n", [3, 1001])
def test_memory_is_that_of_one_block(n, key):
    """draw is traced for `size` rows, whatever n is; the compiled program holds some blocks beside the sample."""
    seen = []

    def wide(key, label):
        seen.append(label.shape)
        return jnp.tanh(jax.random.normal(key, (8, 1000)))  # 32 kB a block, 4 MB for n = 1001

    label = jnp.zeros(n, jnp.int32)
    compiled = jax.jit(lambda key: state.blocks(wide, key, n, 8, label)).lower(key).compile()
    assert set(seen) == {(8,)}
    assert compiled.memory_analysis().temp_size_in_bytes < 200_000
    assert compiled(key).shape == (n, 1000)


def test_bad_requests_for_samples_are_refused(key):
    with pytest.raises(ValueError, match="n is -1"):
        state.blocks(draw, key, -1, 4, None)
    for label in (jnp.zeros(5, jnp.int32), jnp.zeros((3, 1), jnp.int32), jnp.zeros(3)):
        with pytest.raises(ValueError, match=r"label is (int|float)32 \(.*\(3,\)"):
            state.blocks(draw, key, 3, 4, label)


def test_gradient_norm_is_over_the_whole_tree():
    expected = np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in SLOPE.values()))
    np.testing.assert_allclose(state.gradient_norm(SLOPE), expected, rtol=1e-6)
