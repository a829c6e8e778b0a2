"""Wake-sleep: each phase moves its own network alone, by the gradient of its own density; it learns a linear model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import fit, losses, nets, pca, vae, wake_sleep
from vaegan_jax.optimizer import Optimizer

SGD = Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0)
CONFIG = dataclasses.replace(
    vae.Config(),
    latents=2,
    encoder=nets.MLPEncoder(hidden=(5,)),
    decoder=nets.MLPDecoder(hidden=(5,)),
    binarize="none",
    weight_prior=False,
    optimizer=SGD,
)


def moved(config, state, batch, key):
    """What one step of SGD at rate 1 subtracts: the gradient."""
    after, metrics = wake_sleep.train_step(config, state, batch, key)
    return jax.tree.map(lambda a, b: a - b, state.model.params, after.model.params), metrics


@pytest.fixture
def state(key):
    return wake_sleep.init(CONFIG, jax.random.clone(key), (3, 3, 1))


@pytest.fixture
def x():
    return jax.random.uniform(jax.random.key(5), (8, 3, 3, 1))


@pytest.mark.parametrize("weight_prior", [False, True])
def test_each_network_has_the_gradient_of_its_phase(state, x, weight_prior):
    """And of the prior of all weights, -log N(theta; 0, I) / N, where it is asked for."""
    config = dataclasses.replace(CONFIG, weight_prior=weight_prior, dataset_size=4)
    gradient, metrics = moved(config, state, {"x": x}, jax.random.key(1))
    _, noise_key, z_key, x_key = jax.random.split(jax.random.key(1), 4)
    params = state.model.params
    mean, log_var = vae.encode(CONFIG, state, x)
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(noise_key, (8, 2))

    def wake(decoder):
        heads = CONFIG.decoder.apply({"params": decoder}, z, (3, 3, 1))
        return -losses.bernoulli_log_prob(heads, x).mean()

    dream_z = jax.random.normal(z_key, (8, 2))
    heads = CONFIG.decoder.apply({"params": params["decoder"]}, dream_z, (3, 3, 1))
    dream = wake_sleep.draw(CONFIG, heads, x_key)

    def sleep(encoder):
        return -losses.gaussian_log_prob(*CONFIG.encoder.apply({"params": encoder}, dream, 2), dream_z).mean()

    expected = {"decoder": jax.grad(wake)(params["decoder"]), "encoder": jax.grad(sleep)(params["encoder"])}
    expected = jax.tree.map(lambda g, p: g + weight_prior * p / 4, expected, dict(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), gradient, expected)
    assert float(metrics["sleep"]) == pytest.approx(-float(sleep(params["encoder"])), rel=1e-5)


def test_the_data_do_not_move_the_encoder(state, x):
    one, _ = moved(CONFIG, state, {"x": x}, jax.random.key(1))
    other, _ = moved(CONFIG, state, {"x": 1 - x}, jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one["encoder"], other["encoder"])
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one["decoder"], other["decoder"])
    assert min(jax.tree.leaves(change)) > 1e-4


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian_fixed"])
def test_dreams_are_of_the_model(likelihood):
    config = dataclasses.replace(CONFIG, likelihood=likelihood, variance=0.25, output="linear")
    heads = jnp.broadcast_to(jnp.array([0.3, 0.7]), (60_000, 2))[:, : 2 if likelihood == "gaussian" else 1]
    x = np.asarray(wake_sleep.draw(config, heads, jax.random.key(0)))
    if likelihood == "bernoulli":
        assert set(np.unique(x)) == {0, 1} and x.mean() == pytest.approx(float(jax.nn.sigmoid(0.3)), abs=0.01)
        return
    mean, log_var = vae.mean_log_var(config, heads[:1])
    assert x.mean() == pytest.approx(float(mean.mean()), abs=0.02)
    assert x.std() == pytest.approx(float(np.exp(np.mean(log_var) / 2)), rel=0.02)


def test_it_learns_a_linear_model_through_fit():
    """x = W z + noise: the bound comes near the exact likelihood of probabilistic PCA."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 1)) @ np.array([[2.0, 1.0, -1.0]]) + 0.3 * rng.normal(size=(4000, 3))).astype(
        np.float32
    )
    model = pca.fit(x, 1)
    config = dataclasses.replace(
        CONFIG,
        latents=1,
        encoder=nets.MLPEncoder(hidden=()),
        decoder=nets.MLPDecoder(hidden=()),
        likelihood="gaussian_fixed",
        variance=float(model.noise_variance),
        output="linear",
        optimizer=Optimizer(rule="adam", learning_rate=1e-2),
        batch_size=200,
    )
    run = fit.fit(wake_sleep, config, x, steps=600, progress=False)
    exact = model.log_likelihood(x).mean()
    start = fit.validate(wake_sleep, run.config, wake_sleep.init(config, jax.random.key(0), (3,)), x)["elbo"]
    reached = fit.validate(wake_sleep, run.config, run.state(0), x)["elbo"]
    assert start < exact - 10 and exact - 0.5 < reached < exact + 0.1


def test_what_belongs_to_the_bound_is_refused(state, x):
    config = dataclasses.replace(CONFIG, beta=2.0, kl="monte_carlo")
    with pytest.raises(ValueError, match=r"^beta is 2\.0, kl is 'monte_carlo', but wake-sleep climbs no bound"):
        wake_sleep.train_step(config, state, {"x": x}, jax.random.key(0))
