"""Monte Carlo EM: what a step moves and what it leaves, and the likelihood of a linear model that it must reach."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import fit, mcem, nets, pca, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

CONFIG = mcem.Config(
    latents=2,
    decoder=nets.MLPDecoder(hidden=(5,)),
    binarize="none",
    weight_prior=False,
    optimizer=Optimizer(rule="sgd", learning_rate=0.01, momentum=0.0),
    dataset_size=12,
)


def test_a_step_moves_the_batchs_own_latents_and_the_decoder(key):
    state = mcem.init(CONFIG, key, (3, 3, 1))
    assert set(state.model.params) == {"decoder"} and state.z.shape == (12, 2)
    rows = jnp.array([1, 4, 7, 9])
    x = jax.random.uniform(jax.random.key(3), (4, 3, 3, 1))
    after, metrics = mcem.train_step(CONFIG, state, {"x": x, "label": rows}, jax.random.key(4))
    moved = np.flatnonzero(np.abs(after.z - state.z).max(axis=1))
    assert set(moved) <= {1, 4, 7, 9} and len(moved) >= 2
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.model.params, state.model.params)
    assert min(jax.tree.leaves(change)) > 0
    assert 0 <= metrics["acceptance"] <= 1 and all(np.isfinite(v) for v in metrics.values())
    heads = CONFIG.decoder.apply({"params": state.model.params["decoder"]}, after.z[rows], (3, 3, 1))
    expected = (x * jax.nn.log_sigmoid(heads) + (1 - x) * jax.nn.log_sigmoid(-heads)).reshape(4, -1).sum(axis=1)
    assert float(metrics["log_likelihood"]) == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.parametrize("weight_prior", [False, True])
def test_five_updates_are_five_steps_at_one_latent(key, weight_prior):
    config = dataclasses.replace(CONFIG, weight_prior=weight_prior)
    state = mcem.init(config, key, (3, 3, 1))
    batch = {"x": jax.random.uniform(jax.random.key(3), (4, 3, 3, 1)), "label": jnp.arange(4)}
    after, _ = mcem.train_step(config, state, batch, jax.random.key(4))
    params, z = state.model.params["decoder"], after.z[:4]

    def loss(params):
        heads = CONFIG.decoder.apply({"params": params}, z, (3, 3, 1))
        x = batch["x"]
        return -(x * jax.nn.log_sigmoid(heads) + (1 - x) * jax.nn.log_sigmoid(-heads)).reshape(4, -1).sum(axis=1).mean()

    for _ in range(5):
        gradient = jax.tree.map(lambda g, p: g + weight_prior * p / 12, jax.grad(loss)(params), params)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after.model.params["decoder"], params
    )


def test_it_reaches_the_likelihood_of_a_linear_model_through_fit():
    """x = W z + noise: after training, log p(x) of the learned W is that of probabilistic PCA, and acceptance is .9."""
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.normal(size=(500, 3))
    x = (rng.normal(size=(500, 1)) @ np.array([[1.0, 0.5, -0.5]]) + noise).astype(np.float32)
    model = pca.fit(x, 1)
    config = dataclasses.replace(
        CONFIG,
        latents=1,
        decoder=nets.MLPDecoder(hidden=()),
        likelihood="gaussian_fixed",
        variance=float(model.noise_variance),
        output="linear",
        optimizer=Optimizer(rule="adam", learning_rate=3e-3),
        batch_size=100,
    )
    run = fit.fit(mcem, config, mcem.numbered(x), steps=800, progress=False)
    layer = run.state(0).model.params["decoder"]["output"]
    W, b = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
    covariance = W.T @ W + float(model.noise_variance) * np.eye(3)
    centred = x - b
    quadratic = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    reached = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1]).mean()
    best = model.log_likelihood(x).mean()
    assert best - 0.05 < reached <= best + 1e-3
    assert run.metrics["acceptance"][0, -20:].mean() == pytest.approx(0.9, abs=0.05)


def test_numbered_data_keep_the_digest_of_what_they_number():
    """A run's record is of the data set as it is found again, not of its rows."""
    data = Dataset(np.zeros((4, 3, 3, 1), np.uint8), np.int32([1, 1, 0, 2]), name="mine", split="train[:4]")
    rows = mcem.numbered(data)
    np.testing.assert_array_equal(rows.label, range(4))
    assert rows.sha256 == data.sha256 != Dataset(data.x, rows.label).sha256
    assert (rows.name, rows.split) == ("mine", "train[:4]")


def test_a_batch_without_rows_is_refused(key):
    state = mcem.init(CONFIG, key, (3, 3, 1))
    with pytest.raises(ValueError, match=r"mcem\.numbered"):
        mcem.train_step(CONFIG, state, {"x": jnp.zeros((4, 3, 3, 1))}, jax.random.key(0))
    with pytest.raises(ValueError, match=r"leapfrogs, updates and acceptance are 0, 5 and 0\.9"):
        mcem.Config(leapfrogs=0)
    with pytest.raises(ValueError, match=r"batch normalisation.*norm='none'"):
        mcem.Config(decoder=nets.ConvDecoder())


def test_fit_refuses_labels_that_are_not_the_examples_rows():
    """Else all images of a digit would share one chain, and a slice's rows would lie beyond its z."""
    x = np.zeros((24, 3, 3, 1), np.uint8)
    whole = mcem.numbered(x)
    half = Dataset(x[12:], whole.label[12:])
    for data in (Dataset(x, np.arange(24) % 10), half, x):
        with pytest.raises(ValueError, match=r"are not its rows.*mcem\.numbered"):
            fit.fit(mcem, CONFIG, data, steps=1, batch_size=4, progress=False)
    fit.fit(mcem, CONFIG, mcem.numbered(half), steps=1, batch_size=4, progress=False)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"label": jnp.arange(4)}, "give a dict"),
        ({"x": jnp.ones((4, 3, 3, 1))}, "label is missing"),
        ({"x": jnp.ones((4, 3, 3, 1)), "label": jnp.ones((4, 2))}, "label is missing"),
        ({"x": jnp.ones((4, 3, 3, 1)), "label": jnp.ones(4)}, "give int32"),
    ],
)
def test_a_batch_without_its_rows_is_refused(key, batch, says):
    with pytest.raises(ValueError, match=says):
        mcem.train_step(CONFIG, mcem.init(CONFIG, key, (3, 3, 1)), batch, jax.random.key(4))


@pytest.mark.parametrize("change", [{"bound": "iwae"}, {"samples": 5}, {"beta": 2.0}, {"kl": "monte_carlo"}], ids=str)
def test_what_belongs_to_the_bound_is_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .*Monte Carlo EM climbs no bound"):
        dataclasses.replace(CONFIG, **change)


def test_vectors_have_vaes_decoder(key):
    config = dataclasses.replace(mcem.vectors(3), dataset_size=8)
    assert (config.decoder, config.leapfrogs) == (vae.vectors(3).decoder, 10)
    state = mcem.init(config, key, (3,))
    batch = {"x": jax.random.normal(jax.random.key(3), (4, 3)), "label": jnp.arange(4)}
    after, _ = mcem.train_step(config, state, batch, jax.random.key(4))
    assert mcem.sample(config, after, jax.random.key(5), 6).shape == (6, 3)
