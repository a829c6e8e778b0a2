"""AEVB's target: where curves are measured, variances of gradients against a closed form, a smoke run."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce import __main__, job, published, results, vae_fig2, vae_fig3, vae_gradients, vae_rate
from experiments.reproduce import vae as target
from vaegan_jax import nets, vae


def test_curves_are_measured_evenly_in_the_logarithm():
    assert vae_fig2.stops(10_000) == (1000, 1334, 1778, 2371, 3162, 4217, 5623, 7499, 10_000)
    assert vae_fig2.stops(20) == (20,)
    assert vae_fig2.stops(1_000_000)[-1] == 1_000_000 and len(vae_fig2.stops(1_000_000)) == 25


def test_the_rate_is_the_best_of_those_that_train(tmp_path, monkeypatch):
    """By the sum of the metrics over the second half; a rate that diverges is out; what was chosen is kept."""
    reached = {0.01: [-9.0, -9.0, -8.0, -8.0], 0.02: [0.0, 0.0, -9.0, -9.0]}
    trained = []

    def fit(self, name, algorithm, config, dataset, *, steps, seeds):
        rate = config.optimizer.learning_rate
        trained.append((rate, seeds, steps))
        values = reached.get(rate)
        run = SimpleNamespace(config=config, seeds=(3,), steps=(1, 2, 3, 4))
        run.metrics = {"elbo": np.array([values]), "log_prior": np.full((1, 4), -1.0)}
        return job.Trained({3: run}, ()) if values else job.Trained({}, seeds)

    monkeypatch.setattr(job.Job, "fit", fit)
    one = job.Job("smoke", (3, 4), tmp_path, tmp_path / "figures")
    for _ in range(2):
        found = vae_rate.chosen(one, "a", vae, vae.Config(), None, ("elbo", "log_prior"))
        assert found == vae_rate.at_rate(vae.Config(), 0.01)
    assert trained == [(rate, (3,), 4) for rate in vae_rate.RATES]
    reached.clear()
    with pytest.raises(ValueError, match="b diverges within 4 steps at every rate"):
        vae_rate.chosen(one, "b", vae, vae.Config(), None)


def test_the_bounds_variance_is_that_of_draws(key):
    config = dataclasses.replace(vae.vectors(3), kl="monte_carlo")
    state, x = vae.init(config, key, (3,)), jax.random.normal(jax.random.key(1), (5, 3))
    keys = jax.random.split(jax.random.key(2), 20)
    each = np.array([vae.elbo(config, state, {"x": x}, k)["elbo"] for k in jax.random.clone(keys)])
    expected = (each.mean(axis=1).var(ddof=1), np.mean([np.var(one, ddof=1) for one in each.T]))
    np.testing.assert_allclose(vae_gradients.bound_variance(config, state, x, keys), expected, rtol=1e-4)


def test_the_variance_is_that_of_the_gradients(key):
    config = dataclasses.replace(
        vae_fig2.config(2),
        encoder=nets.MLPEncoder((3,)),
        decoder=nets.MLPDecoder((3,)),
        binarize="none",
        weight_prior=False,
    )
    state = vae.init(config, key, (2, 2, 1))
    x = jax.random.uniform(jax.random.key(1), (4, 2, 2, 1))
    keys = jax.random.split(jax.random.key(2), 30)
    gradients = []
    unit = dataclasses.replace(config, optimizer=vae_gradients._UNIT)
    plain = vae.init(unit, jax.random.key(0), (2, 2, 1))
    plain = dataclasses.replace(plain, model=dataclasses.replace(plain.model, params=state.model.params))
    for each in keys:
        after, _ = vae.train_step(unit, plain, {"x": x}, each)
        moved = jax.tree.map(jnp.subtract, state.model.params["encoder"], after.model.params["encoder"])
        gradients.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)]))
    found = vae_gradients._variance(config, state, x, jax.random.split(jax.random.key(2), 30))
    assert float(found) == pytest.approx(np.var(gradients, axis=0, ddof=1).sum(), rel=1e-2)


def curves(values, failed=()):
    """A Trained whose bound on test images is `values`, seed -> [T], at steps 10, 20, ..."""
    steps = tuple(10 * (i + 1) for i in range(len(next(iter(values.values())))))
    runs = {
        seed: SimpleNamespace(
            seeds=(seed,), steps=steps, config=vae.Config(), metrics={"bound_test": np.array([own], np.float64)}
        )
        for seed, own in values.items()
    }
    return job.Trained(runs, failed)


def test_leads_are_paired_by_seed_and_failures_counted():
    sleep = curves({0: [0, 0, 0], 1: [0, 0, 0], 2: [0, 0, 0]})
    pairs = {2: curves({0: [3, 1, 2], 1: [9, 8, 7], 2: [1, 1, 1]}), 5: curves({0: [4, 4, 4], 1: [5, 8, 9]}, (2,))}
    trained = {(name, w): t for w, one in pairs.items() for name, t in (("AEVB", one), ("wake-sleep", sleep))}
    found = vae_fig2._smallest(trained, 30, ())
    assert found.values == [1.0, 5.0] and found.seeds == [0, 1] and found.failed == [2]
    assert found.note == "seed 0: 2 latents, step 20; seed 1: 5 latents, step 10" and not found.flat
    at_end = vae_fig2._difference(pairs[2], sleep, steps=30, data=())
    assert at_end.values == [2.0, 7.0, 1.0] and "at step 10" in at_end.note and "at step 30" in at_end.note


def test_a_least_lead_below_0_is_final():
    trained = {("AEVB", 2): curves({0: [-1, 1], 1: [1, 1]}), ("wake-sleep", 2): curves({0: [0, 0], 1: [0, 0]})}
    assert vae_fig2._smallest(trained, 20, ()).flat


def test_a_record_has_each_seeds_values_along_training():
    found = curves({3: [1.23456789, 2.0], 5: [3.0, 4.0]}).record("bound_test")
    assert found == {"seeds": [3, 5], "bound_test": {"steps": [10, 20], "values": [[1.23457, 2.0], [3.0, 4.0]]}}
    assert job.Trained({}, (3,)).record("bound_test") == {"seeds": []}


def test_a_smoke_run_measures_variances(tmp_path, mnist):
    mnist("train")
    flags = ["vae", "--budget", "smoke", "--parts", "gradients", "--workdir", str(tmp_path), "--quiet"]
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("vae", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    assert rows["vae.gradient_variance"]["ours"]["n"] == 2
    assert rows["vae.fig2_nz3"]["verdict"] == "not run: its part has not been run yet"


def test_every_row_of_the_parts_has_its_entry():
    entries = published.entries()["vae"]
    named = [row for part in target.PARTS for row in part.rows]
    assert len(named) == len(set(named))
    assert set(named) == {name for name, entry in entries.items() if entry.rule or entry.not_comparable}


def test_a_part_without_its_data_is_named_and_fails_who_asked_for_it(tmp_path, monkeypatch, capsys):
    flags = ["vae", "--budget", "smoke", "--data-dir", str(tmp_path / "nothing"), "--workdir", str(tmp_path / "w")]
    assert __main__.main([*flags, "--parts", "frey"]) == 1
    capsys.readouterr()
    monkeypatch.setattr(target, "PARTS", [part for part in target.PARTS if part.name == "frey"])
    assert __main__.main(flags) == 0
    said = capsys.readouterr()
    assert "frey: not run: frey_faces is not shipped" in said.err and "written:" in said.out
    rows = {row["id"]: row["verdict"] for row in results.read("vae", tmp_path / "w" / "results")}
    assert rows["vae.fig2_frey_nz2"] == "not run: data" and rows["vae.fig2_nz3"].startswith("not run: its part")


def test_the_estimate_of_a_decoder_that_ignores_z_is_its_likelihood(tmp_path, key):
    """p(x|z) = p(x) then; what is left is the error of the density that is fitted to ten samples."""
    config = vae.Config(latents=3, decoder=nets.MLPDecoder((4,)), encoder=nets.MLPEncoder((4,)))
    state = vae.init(config, key, (3, 3, 1))
    params = jax.tree.map(jnp.zeros_like, state.model.params)
    state = dataclasses.replace(state, model=dataclasses.replace(state.model, params=params))
    x = jax.random.bernoulli(jax.random.key(1), 0.5, (4, 3, 3, 1)).astype(jnp.float32)
    work = job.Job("smoke", (0,), tmp_path, tmp_path)
    found = vae_fig3._estimates(work, {"test": x}, config, state, jax.random.key(2), 1)
    assert found["test"] == pytest.approx(-9 * np.log(2), abs=0.8)
    one = job.Trained({0: SimpleNamespace(state=lambda seed: state, config=config)}, ())
    assert vae_fig3._importance(work, one, x)[0] == pytest.approx(-9 * np.log(2), abs=0.3)


def test_seconds_are_of_ten_thousand_steps_at_the_median_rate():
    def run(seeds, rates):
        return SimpleNamespace(
            seeds=seeds, steps=(10, 20, 30), config=None, metrics={"steps_per_second": np.array(rates)}
        )

    apart = job.Trained({3: run((3,), [[100.0, 1.0, 200.0]]), 5: run((5,), [[50.0, 50.0, 40.0]])}, (4,))
    found = vae_fig2._seconds(apart, 30, None)
    assert (list(found.values), found.seeds, found.failed) == ([100.0, 200.0], (3, 5), (4,))
    assert "1 seeds at a time" in found.note
    both = run((3, 5), [[100.0, 1.0, 200.0], [100.0, 1.0, 200.0]])
    assert "2 seeds at a time" in vae_fig2._seconds(job.Trained({3: both, 5: both}, ()), 30, None).note
    assert not vae_fig2._seconds(job.Trained({}, (3, 4, 5)), 30, None).values
