"""AEVB's target: where curves are measured, variances of gradients against a closed form, a smoke run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce import __main__, job, results
from experiments.reproduce import vae as target
from vaegan_jax import nets, vae


def test_curves_are_measured_evenly_in_the_logarithm():
    assert target.stops(10_000) == (1000, 1778, 3162, 5623, 10_000)
    assert target.stops(20) == (20,)
    assert target.stops(1_000_000)[-1] == 1_000_000 and len(target.stops(1_000_000)) == 13


def test_the_variance_is_that_of_the_gradients(key):
    config = dataclasses.replace(
        target.config(2),
        encoder=nets.MLPEncoder((3,)),
        decoder=nets.MLPDecoder((3,)),
        binarize="none",
        weight_prior=False,
    )
    state = vae.init(config, key, (2, 2, 1))
    x = jax.random.uniform(jax.random.key(1), (4, 2, 2, 1))
    keys = jax.random.split(jax.random.key(2), 30)
    gradients = []
    unit = dataclasses.replace(config, optimizer=target._UNIT)
    plain = vae.init(unit, jax.random.key(0), (2, 2, 1))
    plain = dataclasses.replace(plain, model=dataclasses.replace(plain.model, params=state.model.params))
    for each in keys:
        after, _ = vae.train_step(unit, plain, {"x": x}, each)
        moved = jax.tree.map(jnp.subtract, state.model.params["encoder"], after.model.params["encoder"])
        gradients.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)]))
    found = target._variance(config, state, x, jax.random.split(jax.random.key(2), 30))
    assert float(found) == pytest.approx(np.var(gradients, axis=0, ddof=1).sum(), rel=1e-2)


def test_differences_are_paired_by_seed_and_failures_counted():
    a = job.Measured([1.0, 5.0, 3.0], seeds=(0, 1, 2))
    b = job.Measured([2.0, 4.0], seeds=(0, 1), failed=(2,))
    found = target._smallest([a, b])
    assert found.values == [1.0, 4.0] and found.seeds == [0, 1] and found.failed == [2]


def test_a_smoke_run_measures_variances(tmp_path, mnist):
    mnist("train")
    flags = ["vae", "--budget", "smoke", "--parts", "gradients", "--workdir", str(tmp_path), "--quiet"]
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("vae", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    assert rows["vae.gradient_variance"]["ours"]["n"] == 2
    assert rows["vae.fig3"]["verdict"] == "not run: Monte Carlo EM is not written yet"
