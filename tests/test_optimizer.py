"""Every update rule and schedule against the papers' formulas in float64 NumPy."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaegan_jax.optimizer import Optimizer

STEPS = 10
CURVATURE = np.array([0.5, 1.0, 3.0, 0.0])


def gradient(theta, t):
    """Of a quadratic bowl whose centre moves; the last coordinate's gradient is always 0."""
    return CURVATURE * (theta - np.array([1.0, -2.0, 0.5, 0.0]) * (1 + 0.1 * t))


def ours(optimizer, steps=STEPS, updates_per_epoch=1, gradient=gradient):
    """theta after each update, [steps, 4]: the parameters are a tree of two arrays."""
    rule = optimizer.transformation(updates_per_epoch)
    step = jax.jit(rule.update)
    params = {"a": jnp.float32([0.3, 0.1]), "b": jnp.float32([[-0.7, 0.2]])}
    state, path = rule.init(params), []
    for t in range(steps):
        g = jnp.float32(gradient(np.concatenate([params["a"], params["b"][0]]).astype(np.float64), t))
        updates, state = step({"a": g[:2], "b": g[2:][None]}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.concatenate([params["a"], params["b"][0]]))
    return np.array(path)


def reference(advance, steps=STEPS, gradient=gradient):
    """The same path in float64; advance(gradient, memory, t) -> what is added, memory a dict that starts empty."""
    theta, memory, path = np.array([0.3, 0.1, -0.7, 0.2]), {}, []
    for t in range(steps):
        theta = theta + advance(gradient(theta, t), memory, t)
        path.append(theta)
    return np.array(path)


def sgd(rate, momentum):
    """Pylearn2's Momentum: inc := m inc - lr g; theta := theta + inc."""

    def advance(g, memory, t):
        memory["v"] = momentum(t) * memory.get("v", 0) - rate(t) * g
        return memory["v"]

    return advance


def adam(lr, b1, b2, eps):
    """Kingma & Ba 2015, algorithm 1."""

    def advance(g, memory, t):
        memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * g
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * g**2
        m, v = memory["m"] / (1 - b1 ** (t + 1)), memory["v"] / (1 - b2 ** (t + 1))
        return -lr * m / (np.sqrt(v) + eps)

    return advance


def adagrad(lr, eps):
    """Duchi et al. 2011, figure 1: H = eps I + diag(s), s the root of the sum of squares from 0."""

    def advance(g, memory, t):
        memory["s"] = memory.get("s", 0) + g**2
        return -lr * g / (np.sqrt(memory["s"]) + eps)

    return advance


def rmsprop(lr, b2, eps, momentum=0.0):
    """Tieleman & Hinton 2012, from 0, eps outside the root as in Torch's rmsprop; velocity as for sgd."""

    def advance(g, memory, t):
        memory["r"] = b2 * memory.get("r", 0) + (1 - b2) * g**2
        memory["v"] = momentum * memory.get("v", 0) - lr * g / (np.sqrt(memory["r"]) + eps)
        return memory["v"]

    return advance


CASES = {
    "sgd without momentum": (Optimizer("sgd", 0.1, momentum=0.0), sgd(lambda t: 0.1, lambda t: 0.0)),
    "sgd with momentum": (Optimizer("sgd", 0.05, momentum=0.8), sgd(lambda t: 0.05, lambda t: 0.8)),
    "adam": (Optimizer("adam", 0.1), adam(0.1, 0.9, 0.999, 1e-8)),
    "adam with other numbers": (
        Optimizer("adam", 0.02, momentum=0.5, b2=0.9, eps=0.1),
        adam(0.02, 0.5, 0.9, 0.1),
    ),
    "adam without momentum": (Optimizer("adam", 0.02, momentum=0.0), adam(0.02, 0.0, 0.999, 1e-8)),
    "adagrad": (Optimizer("adagrad", 0.1, eps=1e-10), adagrad(0.1, 1e-10)),
    "rmsprop": (Optimizer("rmsprop", 0.05, momentum=0.0, b2=0.99), rmsprop(0.05, 0.99, 1e-8)),
    "rmsprop with momentum": (Optimizer("rmsprop", 0.01, momentum=0.7, b2=0.9), rmsprop(0.01, 0.9, 1e-8, 0.7)),
    "rmsprop with a large eps": (
        Optimizer("rmsprop", 0.05, momentum=0.0, b2=0.9, eps=0.3),
        rmsprop(0.05, 0.9, 0.3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rule_follows_the_papers_formula(case):
    optimizer, advance = CASES[case]
    path = ours(optimizer)
    np.testing.assert_allclose(path, reference(advance), rtol=2e-5, atol=1e-5)  # 1 - .999 in float32 is 6e-5 off
    assert np.abs(path[-1, :3] - [0.3, 0.1, -0.7]).min() > 1e-2  # it went somewhere
    assert path[-1, 3] == np.float32(0.2)  # a gradient that was always 0 moves nothing, and is no 0/0


@pytest.mark.parametrize("case", ["sgd with momentum", "adam", "adagrad", "rmsprop"])
def test_l2_adds_l2_times_theta_to_the_gradient_before_the_rule(case):
    optimizer, advance = CASES[case]
    path = ours(dataclasses.replace(optimizer, l2=0.3))
    np.testing.assert_allclose(
        path, reference(advance, gradient=lambda theta, t: gradient(theta, t) + 0.3 * theta), rtol=2e-5, atol=1e-5
    )
    assert np.abs(path - ours(optimizer)).max() > 1e-2


@pytest.mark.parametrize("rule", ["adam", "adagrad", "rmsprop"])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_first_step_does_not_depend_on_the_gradients_scale(rule, scale):
    """eps stands outside the root: gradients far above eps = 1e-8 but below its root 1e-4 still give a whole step."""
    optimizer = Optimizer(rule, 0.1, momentum=0.0, b2=0.99)
    path = ours(optimizer, 1, gradient=lambda theta, t: scale * np.array([1.0, -1.0, 2.0, -0.5]))
    whole = {"adam": 0.1, "adagrad": 0.1, "rmsprop": 1.0}[rule]  # rmsprop has no bias correction: 0.1 / sqrt(1 - b2)
    np.testing.assert_allclose(
        path[0] - np.float32([0.3, 0.1, -0.7, 0.2]), whole * np.float32([-1, 1, -1, 1]), rtol=0.03
    )


def test_rate_is_divided_by_decay_at_each_update_down_to_the_floor():
    """Goodfellow's recipe: 0.1 / 1.000004^t, not below 1e-6."""
    optimizer = Optimizer("sgd", 0.1, decay=1.000004, floor=1e-6)
    counts = np.array([0, 1, 2, 500, 25_000, 250_000, 1_000_000, 2_878_000, 2_879_000, 4_000_000])
    expected = np.maximum(0.1 / 1.000004 ** counts.astype(np.float64), 1e-6)
    actual = np.array([optimizer.rate(jnp.int32(t)) for t in counts])
    np.testing.assert_allclose(actual, expected, rtol=2e-6)
    assert expected[-3] > 1e-6 == expected[-2] == expected[-1]
    assert actual.dtype == np.float32


def test_rate_falls_linearly_to_0():
    optimizer = Optimizer("adam", 2e-4, linear_from=100, linear_to=300)
    counts = [0, 100, 150, 200, 299, 300, 10_000]
    expected = 2e-4 * np.array([1, 1, 0.75, 0.5, 0.005, 0, 0])
    np.testing.assert_allclose([optimizer.rate(t) for t in counts], expected, rtol=1e-5, atol=1e-12)
    both = dataclasses.replace(optimizer, decay=1.01, floor=1e-4)
    expected = [2e-4 / 1.01**10, 1e-4, 1e-4 * 0.5]
    np.testing.assert_allclose([both.rate(t) for t in (10, 100, 200)], expected, rtol=1e-5)


def test_rate_is_constant_by_default_and_traceable():
    optimizer = Optimizer("adam", 0.25)
    np.testing.assert_array_equal(jax.vmap(optimizer.rate)(jnp.arange(0, 100_000, 9_999)), np.float32(0.25))


@pytest.mark.parametrize("rule", ["sgd", "adam", "adagrad", "rmsprop"])
def test_schedules_reach_the_updates_from_count_0(rule):
    constant = {
        "sgd": sgd(lambda t: 0.1, lambda t: 0.0),
        "adam": adam(0.1, 0.0, 0.999, 1e-8),
        "adagrad": adagrad(0.1, 1e-10),
        "rmsprop": rmsprop(0.1, 0.999, 1e-8),
    }[rule]

    def advance(g, memory, t):
        return constant(g, memory, t) * max(1.5**-t, 0.2) * (1 - np.clip((t - 3) / 5, 0, 1))

    eps = 1e-10 if rule == "adagrad" else 1e-8
    optimizer = Optimizer(rule, 0.1, 0.0, eps=eps, decay=1.5, floor=0.02, linear_from=3, linear_to=8)
    path = ours(optimizer)
    np.testing.assert_allclose(path, reference(advance), rtol=5e-5, atol=5e-6)
    np.testing.assert_array_equal(path[8], path[7])  # the rate is 0 from update 8 on


def test_velocity_keeps_the_rates_of_its_past():
    """v <- m v - lr_t g, not lr_t (m v + g)."""
    optimizer = Optimizer("sgd", 0.1, momentum=0.9, decay=1.3)
    expected = reference(sgd(lambda t: 0.1 / 1.3**t, lambda t: 0.9))
    np.testing.assert_allclose(ours(optimizer), expected, rtol=2e-5, atol=2e-6)


def adjustor(epoch, initial, final, start, saturate):
    """Pylearn2's MomentumAdjustor during the epoch (0, 1, ...): Train calls it once before the first epoch too."""
    count = epoch + 1
    if saturate == start:
        return final if count >= start else initial
    alpha = min(max((count - start) / (saturate - start), 0.0), 1.0)
    return initial * (1 - alpha) + alpha * final


@pytest.mark.parametrize("per_epoch", [1, 500])
@pytest.mark.parametrize(("start", "saturate"), [(1, 250), (5, 6), (0, 10)])
def test_momentum_follows_pylearn2s_adjustor_epoch_by_epoch(per_epoch, start, saturate):
    optimizer = Optimizer("sgd", 0.1, momentum=0.5, final_momentum=0.7, momentum_from=start, momentum_to=saturate)
    for epoch in (0, 1, 2, 3, 4, 5, 6, 9, 100, 248, 249, 250, 1000):
        expected = adjustor(epoch, 0.5, 0.7, start, saturate)
        for count in {epoch * per_epoch, epoch * per_epoch + per_epoch // 2, (epoch + 1) * per_epoch - 1}:
            actual = optimizer.momentum_at(jnp.int32(count), per_epoch)
            np.testing.assert_allclose(actual, expected, rtol=1e-6, err_msg=f"epoch {epoch}, update {count}")


def test_momentum_is_constant_within_an_epoch_and_ends_at_its_final_value():
    optimizer = Optimizer("sgd", 0.1, momentum=0.5, final_momentum=0.7)
    values = np.array([optimizer.momentum_at(jnp.int32(t), 20) for t in range(60)]).reshape(3, 20)
    np.testing.assert_array_equal(values, values[:, :1] * np.ones((1, 20), np.float32))
    assert values[2, 0] > values[0, 0] == np.float32(0.5)
    np.testing.assert_allclose(optimizer.momentum_at(jnp.int32(20 * 5000), 20), 0.7, rtol=1e-6)
    assert Optimizer("sgd", 0.1, momentum=0.5).momentum_at(jnp.int32(10**6)) == 0.5


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_momentum_schedule_reaches_the_updates(initial):
    """The path uses momentum_at(t, updates_per_epoch), the schedule that is tested above."""
    optimizer = Optimizer("sgd", 0.05, initial, final_momentum=0.9, momentum_from=1, momentum_to=4)
    values = [float(optimizer.momentum_at(jnp.int32(t), 2)) for t in range(STEPS)]
    assert len(set(values)) > 3
    path = ours(optimizer, updates_per_epoch=2)
    np.testing.assert_allclose(path, reference(sgd(lambda t: 0.05, lambda t: values[t])), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "field",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1e-3},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"b2": 1.0},
        {"b2": -0.1},
        {"decay": 0.99},
        {"rule": "adamw"},
        {"final_momentum": 1.0},
        {"momentum_from": 9, "momentum_to": 5, "final_momentum": 0.7, "rule": "sgd"},
        {"momentum_from": 3, "momentum_to": 3, "final_momentum": 0.7, "rule": "sgd"},
        {"eps": -1e-8},
        {"l2": -1e-4},
    ],
    ids=str,
)
def test_bad_values_are_refused_and_named(field):
    with pytest.raises(ValueError) as error:
        Optimizer(**field)
    assert next(iter(field)) in str(error.value)
    assert f"{next(iter(field.values()))}" in str(error.value)


def test_equal_optimizers_are_one_static_argument():
    traces = []

    def rate(optimizer, t):
        traces.append(optimizer)
        return optimizer.rate(t)

    rate = jax.jit(rate, static_argnums=0)
    assert rate(Optimizer("sgd", 0.1), 0) == rate(Optimizer("sgd", 0.1), 1)
    assert len(traces) == 1
    assert rate(Optimizer("sgd", 0.2), 0) == np.float32(0.2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Optimizer().l2 = 1.0


def test_state_does_not_depend_on_updates_per_epoch():
    """So that a checkpoint can be read with another data set's size."""
    params = {"w": jnp.ones(3)}
    for optimizer, _ in CASES.values():
        states = [optimizer.transformation(n).init(params) for n in (1, 500)]
        chex.assert_trees_all_equal(*states)


def test_stages_multiply_the_rate_from_their_update_on():
    optimizer = Optimizer(rule="sgd", learning_rate=0.5, momentum=0.0, stages=((0, 1.0), (3, 0.5), (5, 0.1)))
    rates = [float(optimizer.rate(jnp.int32(t))) for t in range(7)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.5, 0.25, 0.25, 0.05, 0.05], rtol=1e-6)


def test_a_second_moment_that_begins_at_one_is_burdas_adam():
    """The released code: gradient of the sum over 20 images, second moment from 1, eps 1e-4; ours takes the mean."""
    b1, b2, lr, n = 0.99, 0.999, 1e-3, 20
    ours = Optimizer(rule="adam", learning_rate=lr, momentum=b1, b2=b2, eps=1e-4 / n, second_moment=1 / n**2)
    rule = ours.transformation()
    theta = jnp.array([0.3, -0.2])
    state = rule.init(theta)
    p, m, v = np.array([0.3, -0.2]), np.zeros(2), np.ones(2)
    rng = np.random.default_rng(0)
    for t in range(1, 30):
        g = rng.normal(size=2)
        m, v = b1 * m + (1 - b1) * n * g, b2 * v + (1 - b2) * (n * g) ** 2
        p = p - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + 1e-4)
        updates, state = rule.update(jnp.asarray(g, jnp.float32), state, theta)
        theta = theta + updates
    np.testing.assert_allclose(theta - jnp.array([0.3, -0.2]), p - np.array([0.3, -0.2]), rtol=1e-3)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"second_moment": -1.0}, "second_moment is -1"),
        ({"rule": "sgd", "second_moment": 1.0}, "adam alone"),
        ({"stages": ((3, 1.0), (2, 0.5))}, "rising updates"),
        ({"stages": ((0, 0.0),)}, "factors above 0"),
    ],
)
def test_bad_stages_and_moments_get_a_sentence(bad, said):
    with pytest.raises(ValueError, match=said):
        Optimizer(**bad)
