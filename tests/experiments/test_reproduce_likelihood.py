"""Wu et al.'s target: AIS from an encoder against the exact likelihood of a linear model, rows, a smoke run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from experiments.reproduce import likelihood, likelihood_binary, published
from experiments.reproduce import likelihood_estimates as estimates
from experiments.reproduce import likelihood_models as models
from tests.smoke import smoke
from vaegan_jax import metrics, nets, vae


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in likelihood.PARTS for row in part.rows]
    known = published.entries()["likelihood"]
    assert sorted(rows) == sorted(known)
    assert published.headline("likelihood") in rows
    assert set(estimates.PUBLISHED) == {model.name for model in (*models.MODELS, *models.GMMN)}
    for model in (*models.MODELS, *models.GMMN):
        for what, said in estimates.PUBLISHED[model.name].items():
            if said != "-":
                assert float(said.split()[0]) == pytest.approx(known[f"{what}_{model.row}"].value, abs=0.06)
    names = {"prior": "ais", "encoder": "ais_encoder"}
    for name, (_, value) in likelihood_binary.PUBLISHED.items():
        if value is not None:
            assert known[f"binary_{names.get(name, name)}"].value == value


def test_the_binary_model_has_epochs_of_its_own_split():
    """The released code keeps 10,000 of the fixed bits' 60,000 for validation, 400 of the fresh ones'."""
    config = likelihood_binary.config("paper")
    assert config.splits[0] == "train[:50000]" and config.binarize == "none"
    assert [start for start, _ in config.optimizer.stages][:3] == [0, 2500, 10000]
    assert likelihood_binary.steps("paper") == 8_200_000 == published.entries()["likelihood"]["binary_ais"].steps


def test_ais_from_the_encoder_is_unbiased_where_the_answer_is_known():
    """A linear Gaussian model: log p(x) is a Gaussian's; an encoder that is off costs nothing but variance."""
    config = dataclasses.replace(
        vae.vectors(3), latents=2, encoder=nets.MLPEncoder(hidden=()), decoder=nets.MLPDecoder(hidden=()),
        likelihood="gaussian_fixed", variance=0.5,
    )  # fmt: skip
    state = vae.init(config, jax.random.key(0), (3,))
    decoder = state.model.params["decoder"]["output"]
    w, b = np.asarray(decoder["kernel"], np.float64), np.asarray(decoder["bias"], np.float64)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    exact = multivariate_normal(b, w.T @ w + 0.5 * np.eye(3)).logpdf(x)
    found = metrics.ais_log_likelihood(
        functools.partial(likelihood_binary.from_encoder, config, state), jnp.asarray(x), jax.random.key(1),
        latents=2, chains=64, distributions=100, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(found, exact, atol=0.1)


def test_a_smoke_run(tmp_path, mnist):
    mnist("train")
    found = smoke("likelihood", tmp_path, "binary", "gmmn")
    assert found["binary_ais"]["ours"]["n"] == 2
    assert found["gap_gmmn10"]["verdict"] == "budget too small: 3 of 50,000 steps"
