"""GAN's target: quadrature against closed forms, k-means, a smoke run."""

import dataclasses
import math
import types

import jax
import numpy as np
import pytest

from experiments.bench import machine
from experiments.reproduce import __main__, gan_table1, job, results
from experiments.reproduce import gan as target
from vaegan_jax import adversarial, metrics


def test_the_games_value_at_the_optimum_is_minus_log_4():
    assert target.best_value(0.0) == pytest.approx(-math.log(4), abs=1e-9)
    assert target.jensen_shannon(0.0) == pytest.approx(0, abs=1e-9)
    assert target.jensen_shannon(40.0) == pytest.approx(math.log(2), abs=1e-9)  # disjoint
    assert target.best_value(40.0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("pair", [(1.0, 1.0), (2.5, 0.3), (0.5, 3.0)])
def test_divergence_and_value_by_sums_on_a_grid(pair):
    x = np.linspace(-40, 40, 400_001)
    p, q = target.norm(0, 1).pdf(x), target.norm(*pair).pdf(x)
    seen = [f > 1e-200 for f in (p, q)]
    kl = [(f[s] * np.log(f[s] / ((p + q)[s] / 2))).sum() * (x[1] - x[0]) for f, s in zip((p, q), seen, strict=True)]
    assert target.jensen_shannon(*pair) == pytest.approx(sum(kl) / 2, abs=1e-6)
    assert target.best_value(*pair) == pytest.approx(sum(kl) - math.log(4), abs=1e-6)


def test_lloyds_rounds_lower_the_distance_and_keep_the_mean(tmp_path):
    one = job.Job("cpu", (0, 1, 2), tmp_path, tmp_path)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.1, (50, 2)) for c in (0, 3, 6)]).astype(np.float32)
    centres = target._centroids(x, 3, np.random.default_rng(3), one, rounds=8)
    own = ((x[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    for i, centre in enumerate(centres):
        np.testing.assert_allclose(centre, x[own == i].mean(axis=0), atol=1e-5)  # a fixed point


def test_gaussian_samples_have_the_datas_moments():
    x = np.random.default_rng(0).uniform(size=(5000, 3)).astype(np.float32) @ np.array(
        [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    )
    drawn = target._gaussian(x, 40_000, np.random.default_rng(1))
    np.testing.assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.01)


def test_the_protocol_by_hand_is_the_protocol():
    rng = np.random.default_rng(0)
    samples, held, test = (rng.uniform(size=(n, 5)).astype(np.float32) for n in (200, 1000, 100))
    ours, theirs = (
        target._by_hand(samples, held, test, target.SIGMAS),
        metrics.parzen_estimate(samples, held, test, count=200),
    )
    np.testing.assert_allclose(ours, (theirs.sigma, theirs.mean, theirs.standard_error), rtol=1e-6)


def test_theorem_1_is_reproduced_by_a_smoke_run(tmp_path):
    flags = ["gan", "--budget", "smoke", "--parts", "theorem", "--workdir", str(tmp_path), "--quiet"]
    (tmp_path / "theorem").mkdir()
    (tmp_path / "theorem" / "commits.json").write_text('["begun"]')
    (tmp_path / "theorem" / "devices.json").write_text('["elsewhere"]')
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("gan", tmp_path / "results")}
    assert rows["gan.theorem1_minimum"]["verdict"] == "reproduced"
    assert rows["gan.theorem1_divergence"]["verdict"] == "claim holds"
    assert rows["gan.tfd"]["verdict"] == "not run: data"
    for row in (rows["gan.theorem1_minimum"], rows["gan.theorem1_divergence"]):
        assert row["commit"] == "begun" and row["note"].endswith("also worked on at smoke")
        assert row["device"] == f"elsewhere; {machine.device_name()}"
    assert (tmp_path / "results" / "gan" / "theorem1.png").exists()


def test_a_seed_counts_where_its_validation_is_best_and_no_later_than_asked():
    metrics_of = {
        "parzen_validation": [[1.0, 5.0, 9.0], [2.0, 1.0, 0.0]],
        "parzen_test": [[10.0, 50.0, 90.0], [20.0, 11.0, 0.5]],
        "parzen_error": [[0.1, 0.5, 0.9], [0.2, 0.1, 0.3]],
    }
    runs = {
        seed: types.SimpleNamespace(
            seeds=(seed,), steps=(10, 20, 30), metrics={k: np.array(v[i : i + 1]) for k, v in metrics_of.items()}
        )
        for i, seed in enumerate((3, 5))
    }
    trained = job.Trained(runs, (4,))
    values, said = gan_table1._chosen(trained, 20)
    assert values == [50.0, 20.0]
    assert said == "seed 3: step 20, standard error 0.5, last 50.0; seed 5: step 10, standard error 0.2, last 11.0"
    assert gan_table1._chosen(trained, 30)[0] == [90.0, 20.0]


def test_variants_differ_from_the_released_recipe_in_one_thing_each():
    fields = [field.name for field in dataclasses.fields(gan_table1.RELEASED)]
    for name, changed in (("table1_margin", {"bias_margin"}), ("table1_normal", {"prior", "prior_scale"})):
        variant = gan_table1.VARIANTS[name]
        assert {field for field in fields if getattr(variant, field) != getattr(gan_table1.RELEASED, field)} == changed
    # Both priors have mean 0 and variance 1.
    for config in (gan_table1.RELEASED, gan_table1.VARIANTS["table1_normal"]):
        z = adversarial.draw_latents(config, jax.random.key(0), 4000)
        np.testing.assert_allclose([z.mean(), z.var()], [0, 1], atol=0.01)
