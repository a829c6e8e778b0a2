"""VAE: gradients of every bound against its definition written out, binarisation within a step, the Gaussian heads."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vaegan_jax import nets, vae
from vaegan_jax.optimizer import Optimizer

D, K, B = 4, 2, 6
TANH = {"hidden": (5,), "activation": jnp.tanh, "kernel_init": nets.Normal(0.5), "bias_init": nets.Normal(0.1)}
CONFIG = vae.Config(
    latents=K, encoder=nets.MLPEncoder(**TANH), decoder=nets.MLPDecoder(**TANH), binarize="none", weight_prior=False,
    optimizer=Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0), batch_size=B,
)  # fmt: skip
X = np.random.default_rng(0).uniform(size=(B, D)).astype(np.float32)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture(scope="module")
def state():
    return vae.init(CONFIG, jax.random.key(1), (D,))


def gradient(config, state, x, key):
    """By a step of plain descent at rate 1: before - after."""
    after, metrics = vae.train_step(config, state, {"x": x}, key)
    assert int(after.step) == int(state.step) + 1
    return jax.tree.map(jnp.subtract, state.model.params, after.model.params), metrics


def densities(params, e, *, through_z):
    """log p(x|z), log p(z), log q(z|x), each [B, k], and the KL [B], from the two nets and e [B, k, K]."""

    def layer(p, h):
        return jnp.einsum("...i,ij->...j", h, p["kernel"]) + jnp.broadcast_to(
            p["bias"], (*h.shape[:-1], p["bias"].size)
        )

    enc, dec = params["encoder"], params["decoder"]
    heads = layer(enc["output"], jnp.tanh(layer(enc["hidden0"], X)))
    mean, sd = (jnp.broadcast_to(v[:, None], e.shape) for v in (heads[:, :K], jnp.exp(heads[:, K:] / 2)))
    z = mean + sd * e
    z = z if through_z else jax.lax.stop_gradient(z)
    p = jax.nn.sigmoid(layer(dec["output"], jnp.tanh(layer(dec["hidden0"], z))))
    x = jnp.broadcast_to(X[:, None], p.shape)
    kl = 0.5 * (sd**2 + mean**2 - 1 - 2 * jnp.log(sd))[:, 0].sum(axis=-1)
    return (
        (x * jnp.log(p) + (1 - x) * jnp.log(1 - p)).sum(axis=-1),
        jax.scipy.stats.norm.logpdf(z).sum(axis=-1),
        jax.scipy.stats.norm.logpdf(z, mean, sd).sum(axis=-1),
        kl,
    )


def expected(state, key, samples, loss, *, through_z=True):
    e = jax.random.normal(jax.random.split(key)[1], (B, samples, K))
    value = jax.jit(jax.grad(lambda p: loss(*densities(p, e, through_z=through_z))))
    return value(state.model.params)


def close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-3, atol=5e-6)


def test_the_iwae_gradient_is_that_of_the_log_of_the_mean_weight(state):
    k = 5

    def loss(log_likelihood, log_prior, log_posterior, _):
        weights = jnp.exp(log_likelihood + log_prior - log_posterior)
        return -jnp.log(weights.mean(axis=1)).mean()

    found, metrics = gradient(config(bound="iwae", samples=k), state, X, jax.random.key(2))
    close(found, expected(state, jax.random.key(2), k, loss))
    e = jax.random.normal(jax.random.split(jax.random.key(2))[1], (B, k, K))
    value = loss(*densities(state.model.params, e, through_z=True))
    np.testing.assert_allclose(metrics["iwae"], -value, rtol=1e-4)


@pytest.mark.parametrize("kl", ["analytic", "monte_carlo"])
def test_the_elbo_gradient_has_beta_and_the_mean_over_samples(kl, state):
    def loss(log_likelihood, log_prior, log_posterior, exact):
        divergence = exact if kl == "analytic" else (log_posterior - log_prior).mean(axis=1)
        return -(log_likelihood.mean(axis=1) - 2.5 * divergence).mean()

    found, _ = gradient(config(kl=kl, beta=2.5, samples=3), state, X, jax.random.key(3))
    close(found, expected(state, jax.random.key(3), 3, loss))


@pytest.mark.parametrize("kl", ["analytic", "monte_carlo"])
def test_the_score_function_gradient_is_f_grad_log_q_plus_grad_f(kl, state):
    """With f = log p(x|z), and - beta (log q - log p) in it where the KL is sampled; z is a constant."""

    def loss(log_likelihood, log_prior, log_posterior, exact):
        sampled = log_posterior - log_prior
        f = log_likelihood - 2.5 * sampled * (kl == "monte_carlo")
        rest = 2.5 * exact * (kl == "analytic")
        return -((jax.lax.stop_gradient(f) * log_posterior + f).mean(axis=1) - rest).mean()

    one = config(gradient="score_function", kl=kl, beta=2.5, samples=3)
    found, _ = gradient(one, state, X, jax.random.key(4))
    close(found, expected(state, jax.random.key(4), 3, loss, through_z=False))


def test_a_step_on_fresh_pixels_is_a_step_on_the_draw_of_its_own_key(state):
    fresh = config(binarize="fresh")
    steps = []
    for seed in (5, 6):
        drawn = vae.targets(fresh, X, jax.random.split(jax.random.key(seed))[0])
        assert set(np.unique(drawn)) == {0.0, 1.0}
        found, metrics = gradient(fresh, state, X, jax.random.key(seed))
        wanted, wanted_metrics = gradient(CONFIG, state, drawn, jax.random.key(seed))
        close((found, metrics), (wanted, wanted_metrics))
        bound = vae.elbo(fresh, state, {"x": X}, jax.random.key(seed))["elbo"]
        np.testing.assert_allclose(bound.mean(), metrics["elbo"], rtol=1e-5)  # the same draw without learning
        steps.append(np.asarray(drawn))
    assert (steps[0] != steps[1]).any()


@pytest.mark.parametrize("likelihood", ["gaussian", "gaussian_fixed"])
def test_the_gaussian_mean_is_squashed(likelihood):
    one = config(likelihood=likelihood, output="sigmoid", variance=0.04, min_log_var=-3.0)
    state = vae.init(one, jax.random.key(1), (D,))
    z = np.random.default_rng(1).normal(size=(B, K)).astype(np.float32)
    dec = jax.tree.map(lambda p: np.asarray(p, np.float64), state.model.params["decoder"])
    heads = np.tanh(z @ dec["hidden0"]["kernel"] + dec["hidden0"]["bias"]) @ dec["output"]["kernel"]
    heads = heads + dec["output"]["bias"]
    variance = np.exp(-3 + np.logaddexp(0, heads[:, D:] + 3)) if likelihood == "gaussian" else np.full((B, D), 0.04)
    mean = special.expit(heads[:, :D])
    np.testing.assert_allclose(vae.decode(one, state, z), mean, rtol=1e-4, atol=1e-6)
    density = stats.norm(mean, np.sqrt(variance)).logpdf(X).sum(axis=1)
    np.testing.assert_allclose(vae.log_likelihood(one, state, z, X), density, rtol=1e-4)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"variance": 0.0}, "variance is 0.0"),
        ({"batch_size": 0}, "batch_size"),
        ({"dataset_size": 0}, "dataset_size"),
        ({"bound": "iwae", "gradient": "score_function"}, "iwae"),
    ],
)
def test_bad_configs_are_refused(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**bad)


def test_equal_configs_are_one_static_argument():
    assert hash(config(beta=2.0)) == hash(config(beta=2.0)) and config(beta=2.0) == config(beta=2.0)
    assert config(beta=2.0) != CONFIG
