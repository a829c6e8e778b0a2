"""The loop: a resumed run is the unbroken one; another run's folder is refused."""

import chex
import jax
import numpy as np
import pytest

from vaegan_jax import data, fit, logs, vae


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_resumed_equals_unbroken_bit_for_bit(digits, tmp_path):
    run = {"log_every": 20, "checkpoint_every": 25, "progress": False}
    whole = fit.fit(vae, vae.Config(), digits, steps=60, workdir=tmp_path / "whole", **run)
    fit.fit(vae, vae.Config(), digits, steps=25, workdir=tmp_path / "broken", **run)
    resumed = fit.fit(vae, vae.Config(), digits, steps=60, workdir=tmp_path / "broken", **run)
    chex.assert_trees_all_equal(whole.states, resumed.states)
    np.testing.assert_array_equal(whole.metrics["elbo"], resumed.metrics["elbo"])
    assert [r["step"] for r in logs.read(tmp_path / "broken" / "metrics.jsonl")] == [20, 25, 40, 50, 60]


def test_learns_and_seeds_differ(digits):
    run = fit.fit(vae, vae.Config(), digits, steps=200, seeds=(0, 1), log_every=50, progress=False)
    assert run.metrics["elbo"].shape == (2, 4)
    assert (run.metrics["elbo"][:, -1] > run.metrics["elbo"][:, 0]).all()
    first, second = (jax.tree.leaves(run.state(seed).model.params)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_another_runs_folder_is_refused_with_the_fields(digits, tmp_path):
    fit.fit(vae, vae.Config(), digits, steps=2, workdir=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"config\.latents: 20 -> 3"):
        fit.fit(vae, vae.Config(latents=3), digits, steps=2, workdir=tmp_path / "run", progress=False)


def test_nan_stops_with_step_seed_and_metric(digits, tmp_path):
    config = vae.Config(optimizer=vae.Optimizer(rule="sgd", learning_rate=1e30, momentum=0.0))
    with pytest.raises(fit.Diverged, match=r"at step \d+ of seed 7"):
        fit.fit(vae, config, digits, steps=50, seeds=(7,), workdir=tmp_path / "run", progress=False)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"steps": 1, "seeds": (1, 1)}, {"steps": 1, "batch_size": 10_000}])
def test_bad_arguments_get_a_sentence(digits, bad):
    with pytest.raises(ValueError, match="give"):
        fit.fit(vae, vae.Config(), digits, **bad)
