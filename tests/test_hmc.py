"""HMC: the target stays, the leapfrog goes back, steps adapt to the acceptance asked for, bad ends are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import hmc

PRECISION = np.array([1.0, 9.0], np.float32)  # log p(x | z) = -1/2 sum precision (z - 1)^2


def evaluate(z):
    precision = jnp.broadcast_to(PRECISION, z.shape)
    return -0.5 * (precision * (z - 1) ** 2).sum(axis=-1), -precision * (z - 1)


def run(z, step, beta, key, transitions, evaluate=evaluate, adapt=None):
    """Chains [N, 2] after some transitions and their common step; `adapt` is given their mean acceptance."""

    def body(t, state):
        chains, step = state
        each = jnp.full(z.shape[0], step)
        chains = hmc.transition(evaluate, chains, beta, each, jax.random.fold_in(key, t), leapfrogs=5)
        return chains, step if adapt is None else adapt(step, chains.acceptance.mean())

    start = hmc.start(evaluate, z), jnp.float32(step)
    return jax.jit(lambda start: jax.lax.fori_loop(0, transitions, body, start))(start)


def test_likelihoods_and_their_gradients_are_of_full_float32():
    """Both products, as an accelerator's default would keep 10 bits of what goes into them."""
    w = jnp.ones((2, 3))
    found = hmc.evaluator(lambda z, x: -((x - z @ w) ** 2).sum(axis=1), jnp.ones((4, 3)), 8)
    program = str(jax.make_jaxpr(found)(jnp.ones((2, 4, 2))))
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_target_stays(key, beta):
    """Chains that start at the target's own draws are at it after 20 transitions; moments of 20,000 chains."""
    precision = 1 + beta * PRECISION
    mean, sd = beta * PRECISION / precision, precision**-0.5
    start_key, run_key = jax.random.split(key)
    z = mean[None] + sd[None] * jax.random.normal(start_key, (20_000, 2))
    last, _ = run(z, 0.35, beta, run_key, 20)
    assert (np.abs(last.z - z).mean(axis=0) > 0.5 * sd).all()  # they moved
    np.testing.assert_allclose(last.z.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(last.z.std(axis=0), sd, rtol=0.025)
    value, gradient = evaluate(last.z)
    np.testing.assert_allclose(last.log_likelihood, value, rtol=1e-5)
    np.testing.assert_allclose(last.gradient, gradient, rtol=1e-5)


def test_no_step_brings_a_chain_back_to_where_it_began(key):
    """A leapfrog turns a standard normal by arccos(1 - step^2 / 2): here five turn it once, whatever the momentum."""

    def flat(z):
        return jnp.zeros(z.shape[:-1]), jnp.zeros_like(z)

    start_key, run_key = jax.random.split(key)
    z = jax.random.normal(start_key, (4000, 1))
    step = np.sqrt(2 - 2 * np.cos(2 * np.pi / 5))
    last, _ = run(z, step, 1.0, run_key, 4, flat)
    assert abs(np.corrcoef(z[:, 0], last.z[:, 0])[0, 1]) < 0.15


def test_it_finds_the_target_from_afar(key):
    last, _ = run(jnp.full((4000, 2), 5.0), 0.01, 1.0, key, 100, adapt=hmc.adapt)
    np.testing.assert_allclose(last.z.mean(axis=0), PRECISION / (1 + PRECISION), atol=0.05)
    np.testing.assert_allclose(last.z.var(axis=0), 1 / (1 + PRECISION), rtol=0.1)


@pytest.mark.parametrize(("target", "first"), [(0.65, 0.01), (0.9, 0.3)])
def test_steps_adapt_to_the_acceptance(key, target, first):
    """On 50 independent Gaussians of precision 101, so that the step that fits lies inside its bounds."""

    def sharp(z):
        return -50 * (z**2).sum(axis=-1), -100 * z

    z_key, run_key = jax.random.split(key)
    z = 0.1 * jax.random.normal(z_key, (500, 50))
    last, step = run(z, first, 1.0, run_key, 120, sharp, functools.partial(hmc.adapt, target=target))
    assert float(last.acceptance.mean()) == pytest.approx(target, abs=0.05)
    assert 0.05 < float(step) < 0.2


def test_a_step_moves_towards_the_target_and_stays_within_its_bounds():
    steps = hmc.adapt(jnp.array([0.1, 0.1, 0.1, 0.49, 1.05e-4]), jnp.array([1.0, 0.65, 0.0, 1.0, 0.0]))
    expected = [0.1 * np.exp(0.07), 0.1, 0.1 * np.exp(-0.13), hmc.LONGEST, hmc.SHORTEST]
    np.testing.assert_allclose(steps, expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_trajectory_that_ends_badly_is_rejected(key, bad):
    def broken(z):
        value, gradient = evaluate(z)
        return jnp.where(z[:, 0] > 1, bad, value), gradient

    last, _ = run(jnp.zeros((500, 2)), 0.3, 1.0, key, 30, broken)
    assert np.isfinite(last.log_likelihood).all() and (last.z[:, 0] <= 1).all()
    assert (last.z != 0).all()


def test_a_transition_costs_an_evaluation_a_leapfrog(key):
    """beta changes at each, and nothing is evaluated again for it."""
    calls = []

    def counted(z):
        jax.debug.callback(lambda: calls.append(1))
        return evaluate(z)

    chains = hmc.start(evaluate, jnp.zeros((2, 2)))
    for t in range(3):
        chains = hmc.transition(counted, chains, t / 3, jnp.full(2, 0.1), jax.random.fold_in(key, t), leapfrogs=7)
    jax.effects_barrier()
    assert len(calls) == 21
