"""From a workdir to samples."""

import chex
import jax
import pytest

import vaegan_jax
from vaegan_jax import data, fit, vae


def test_a_run_is_loaded_as_it_was(tmp_path):
    digits = data.load("digits")
    run = fit.fit(vae, vae.Config(latents=3), digits, steps=3, seeds=(4, 5), workdir=tmp_path / "r", progress=False)
    model = vaegan_jax.load(tmp_path / "r", seed=5)
    assert model.config == run.config
    chex.assert_trees_all_equal(model.state, run.state(5))
    assert model.sample(jax.random.key(0), 7).shape == (7, 8, 8, 1)
    assert model.encode(digits.x[:2])[0].shape == (2, 3)
    with pytest.raises(ValueError, match="4, 5"):
        vaegan_jax.load(tmp_path / "r", seed=6)


def test_no_run_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        vaegan_jax.load(tmp_path)
