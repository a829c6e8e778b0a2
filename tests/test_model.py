"""From a workdir to samples."""

import chex
import jax
import pytest

import vaegan_jax
from vaegan_jax import data, fit, nets, vae


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
    again = model.reconstruct(digits.x[:2], jax.random.key(1))
    chex.assert_trees_all_equal(again, vae.reconstruct(run.config, run.state(5), digits.x[:2], jax.random.key(1)))


def test_an_earlier_step_and_modules_of_ones_own(tmp_path):
    digits, folder = data.load("digits"), tmp_path / "r"

    class Own(nets.MLPDecoder):
        pass

    config = vae.Config(latents=3, decoder=Own((4,)))
    run = fit.fit(vae, config, digits, steps=4, checkpoint_every=2, workdir=folder, progress=False)
    with pytest.raises(ValueError, match="config"):
        vaegan_jax.load(folder)
    at = {step: vaegan_jax.load(folder, step=step, config=run.config).state for step in (2, 4)}
    assert [int(at[step].step) for step in at] == [2, 4]
    chex.assert_trees_all_equal(at[4], run.state(0))
    with pytest.raises(ValueError, match=r"step is 3: .* 2, 4"):
        vaegan_jax.load(folder, step=3, config=run.config)


@pytest.mark.parametrize("content", ['{"hidden_size": 768}', "[1]"])
def test_another_programs_description_is_one_sentence(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is of no run of fit"):
        vaegan_jax.load(tmp_path)


def test_a_damaged_description_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        vaegan_jax.load(tmp_path)


def test_no_run_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        vaegan_jax.load(tmp_path)
