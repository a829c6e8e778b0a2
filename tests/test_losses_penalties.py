"""Gradient penalties against closed forms and finite differences; the law of the points where they are taken."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from vaegan_jax import losses

RNG = np.random.default_rng
W, A = RNG(3).normal(size=4), RNG(4).normal(size=(4, 4))
PENALTIES = {
    "gradient_penalty": lambda f, x, key: losses.gradient_penalty(f, x, -x, key, target=0.3),
    "r1": lambda f, x, key: losses.r1(f, x),
    "r2": lambda f, x, key: losses.r2(f, x),
    "dragan": lambda f, x, key: losses.dragan(f, x, key, scale=2.0),
}


def test_penalties_of_a_linear_critic_are_exact_on_vectors_and_images(key):
    norm = np.linalg.norm(W)
    expected = {"gradient_penalty": (norm - 0.3) ** 2, "r1": norm**2, "r2": norm**2, "dragan": (norm - 1) ** 2}
    for shape in ((5, 4), (5, 2, 2, 1)):
        for name, penalty in PENALTIES.items():
            x = jnp.float32(RNG(0).normal(size=shape))
            actual = penalty(lambda x: x.reshape(5, 4) @ jnp.float32(W), x, jax.random.clone(key))
            chex.assert_shape(actual, (5,))
            np.testing.assert_allclose(actual, expected[name], rtol=1e-5, err_msg=name)


def test_gradient_penalty_targets_1_by_default(key):
    x = jnp.ones((3, 4))
    actual = losses.gradient_penalty(lambda x: x @ jnp.float32(W), x, x, key)
    np.testing.assert_allclose(actual, (np.linalg.norm(W) - 1) ** 2, rtol=1e-5)


def test_penalties_of_a_quadratic_critic_are_taken_at_the_right_points(key):
    """f = x'Ax / 2 + w.x has the gradient Sx + w, S = (A + A') / 2, of each example by itself."""
    x = RNG(0).normal(size=(6, 4))
    gradient = x @ (A + A.T) / 2 + W

    def critic(x):
        return jnp.einsum("bi,ij,bj->b", x, jnp.float32(A), x) / 2 + x @ jnp.float32(W)

    squared, x = (gradient**2).sum(1), jnp.float32(x)
    np.testing.assert_allclose(losses.r1(critic, x), squared, rtol=1e-5)
    np.testing.assert_allclose(losses.r2(critic, x), squared, rtol=1e-5)
    np.testing.assert_allclose(losses.dragan(critic, x, key, scale=0.0), (np.sqrt(squared) - 1) ** 2, rtol=1e-4)
    between = losses.gradient_penalty(critic, x, x, jax.random.clone(key), target=2.0)  # x^ = x when real = fake
    np.testing.assert_allclose(between, (np.sqrt(squared) - 2) ** 2, rtol=1e-4)


def half_square(x):
    """|x|^2 / 2, whose gradient is the point itself."""
    return (x**2).sum(axis=1) / 2


def test_interpolation_weight_is_uniform_and_one_per_example(key):
    """With real = 1 and fake = 0 the gradient at x^ is e in every coordinate, and the penalty for target 0 is D e^2."""
    ones, zeros = jnp.ones((2000, 3)), jnp.zeros((2000, 3))
    e = np.sqrt(losses.gradient_penalty(half_square, ones, zeros, key, target=0.0) / 3)
    assert e.min() >= 0
    assert e.max() <= 1 + 1e-6
    assert stats.kstest(e, "uniform").pvalue > 0.01
    for i in range(3):
        alone = losses.gradient_penalty(
            lambda x, i=i: half_square(x[:, i : i + 1]), ones, zeros, jax.random.clone(key), target=0.0
        )
        np.testing.assert_allclose(np.sqrt(alone), e, rtol=1e-4)
    other = losses.gradient_penalty(half_square, ones, zeros, jax.random.key(1), target=0.0)
    assert abs(np.corrcoef(np.sqrt(other), e)[0, 1]) < 0.1


def test_interpolation_lies_on_the_segment_between_each_pair(key):
    real, fake = jnp.full((500, 1), 3.0), jnp.full((500, 1), 2.0)
    x = np.sqrt(losses.gradient_penalty(half_square, real, fake, key, target=0.0))
    assert (x >= 2).all()
    assert (x <= 3).all()
    assert stats.kstest(x - 2, "uniform").pvalue > 0.01


def test_dragan_noise_is_normal_with_the_given_scale_in_each_coordinate(key):
    x = np.sqrt(losses.dragan(half_square, jnp.full((2000, 1), 10.0), key, scale=0.5)) + 1  # |x + d|
    assert stats.kstest(x - 10, stats.norm(0, 0.5).cdf).pvalue > 0.01
    x = np.sqrt(losses.dragan(half_square, jnp.full((2000, 2), 10.0), jax.random.key(1), scale=0.5)) + 1
    np.testing.assert_allclose(x.std(), 0.5, rtol=0.05)  # one d for both coordinates would give .5 sqrt 2


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_penalties_have_exact_gradients_by_the_critics_parameters(name):
    with jax.enable_x64(True):
        params = {"W": jnp.asarray(RNG(0).normal(size=(3, 5))), "v": jnp.asarray(RNG(1).normal(size=5))}
        x = jnp.asarray(RNG(2).normal(size=(4, 3)))

        @jax.jit
        def loss(params):
            return PENALTIES[name](lambda x: jnp.tanh(x @ params["W"]) @ params["v"], x, jax.random.key(5)).mean()

        check_grads(loss, (params,), order=1, modes=["rev"], rtol=1e-5)
        chex.assert_tree_all_finite(jax.grad(loss)(params))
        assert abs(jax.grad(loss)(params)["W"]).min() > 1e-6


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_penalties_of_a_flat_critic_have_finite_gradients(name, key):
    def loss(w, x):
        return PENALTIES[name](lambda x: x @ w, x, key).sum()

    value, gradient = jax.value_and_grad(loss, (0, 1))(jnp.zeros(4), jnp.ones((2, 4)))
    np.testing.assert_allclose(value, {"gradient_penalty": 2 * 0.3**2, "dragan": 2}.get(name, 0), rtol=1e-6)
    chex.assert_trees_all_equal(gradient, (jnp.zeros(4), jnp.zeros((2, 4))))
