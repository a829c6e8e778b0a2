"""Wu et al.'s target: AIS from an encoder against the exact likelihood of a linear model, rows, a smoke run."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from experiments.reproduce import draw, likelihood, likelihood_binary, published
from experiments.reproduce import likelihood_estimates as estimates
from experiments.reproduce import likelihood_models as models
from tests.smoke import smoke
from vaegan_jax import fit, gan, metrics, nets, plots, vae


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


def test_a_short_budget_has_steps_of_its_own_for_each_model():
    steps = {model.name: model.steps("cpu") for model in (*models.MODELS, *models.GMMN)}
    assert steps == {
        "VAE-50": 20_000, "GAN-50": 20_000, "VAE-10": 20_000, "GAN-10": 10_000, "GMMN-50": 1_000, "GMMN-10": 1_000,
    }  # fmt: skip
    known = published.entries()["likelihood"]
    for model in (*models.MODELS, *models.GMMN):
        assert model.steps("paper") == known[f"ais_{model.row}"].steps


def test_errors_of_two_models_are_of_their_difference_image_by_image():
    a = {0: {"ais_each": np.array([0.0, 100.0, 200.0])}, 1: {"ais_each": np.array([0.0, 1.0, 2.0])}}
    b = {0: {"ais_each": np.array([3.0, 103.0, 206.0])}}  # its seed 1 failed
    assert estimates.error(a, "ais") == f"{(100 / 3**0.5 + 1 / 3**0.5) / 2:.2g}"
    assert estimates.paired_error(a, b, "ais") == "1"  # of -3, -3, -6
    assert estimates.paired_error(a, {}, "ais") == "-"


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


def test_parts_share_trainings_and_claims_are_given_the_gaps(tmp_path, mnist, monkeypatch):
    """All but GAN-10's training and the sandwich is made up."""
    mnist("train")

    def evaluate(job, model, trained, seed, data):
        far = 300.0 if model.name == "VAE-50" else 0.0
        each = {
            "ais_each": np.array([1.0, 2.0, 3.0, 6.0]) + far, "train_each": np.array([5.0, 7.0]) + 2 * far,
            "gap_each": np.array([8.0, 12.0]), "is_each": np.zeros(4),
        }  # fmt: skip
        means = {name.removesuffix("_each"): float(values.mean()) for name, values in each.items()}
        kde = {"kde": far - 100 * (model.name == "VAE-50"), "kde_sigma": 0.2, "kde_error": 1.0, "kde_same": far}
        return each | means | kde | {"ais_weights": 1.5, "train_weights": 1.5}

    def blank(name, job, *_):
        (job.figures / name).touch()

    def train(algorithm, config, data, *, workdir, steps, **more):
        asked.append((workdir, steps))
        if workdir.name != "GAN-10":
            bound = {"validation_elbo": np.zeros((2, 1))}
            return SimpleNamespace(config=config, seeds=(0, 1), steps=[10], metrics=bound)
        return real(algorithm, config, data, workdir=workdir, steps=steps, **more)

    asked, real = [], fit.fit
    monkeypatch.setattr(estimates, "evaluate", evaluate)
    for name in ("bounds", "samples"):
        monkeypatch.setattr(likelihood, f"_draw_{name}", functools.partial(blank, f"{name}.png"))
    monkeypatch.setattr(fit, "fit", train)
    found = smoke("likelihood", tmp_path, "continuous", "sandwich")
    assert asked == [(tmp_path / "trainings" / model.name, 10) for model in (*models.MODELS, models.BY_NAME["GAN-10"])]
    assert found["gap_shrinks"]["ours"]["n"] == 2 and found["gap_shrinks"]["steps"] == 10
    assert found["overfit_vae50"]["ours"]["values"] == [600 + 6 - 303 - 10.0] * 2
    assert found["overfit_more_than_gan"]["ours"]["values"] == [293.0 - (6 + 10 - 3)] * 2
    assert found["vae_over_gan_50"]["ours"]["values"] == [303.0 - 3 - 10] * 2
    assert found["vae_over_gan_50"]["note"] == "standard error of the paired difference over images 0"
    assert found["gap_vae50"]["note"].endswith("one reverse chain an image; standard error over images 2")
    assert found["kde_reversed"]["ours"]["values"] == [-200.0] * 2  # both prefer VAE-50
    assert found["ppca_50"]["budget"] == "exact" and found["ppca_50"]["ours"]["n"] == 1
    tables = json.loads((tmp_path / "results" / "likelihood" / "continuous.json").read_text())["tables"]
    ranked = tables[1]["title"].partition("Ours")
    assert "VAE-10 above VAE-50" in ranked[0] and "windows order" in ranked[0]
    assert "none; closer than BDMC's gap" in ranked[2] and "VAE-10 and GAN-10" in ranked[2]


def test_the_orders_contradict_each_other_only_beyond_the_gap():
    narrow, wide = {"ais": 0.0, "gap": 10.0, "kde": 57.0}, {"ais": 300.0, "gap": 2.0, "kde": 0.0}
    assert likelihood._reversed(wide, narrow) == 57
    assert likelihood._reversed(wide | {"ais": 30.0}, narrow) == 20
    assert likelihood._reversed(wide | {"ais": 5.0}, narrow) == -5
    assert likelihood._reversed(wide | {"kde": 60.0}, narrow) == -3


def test_what_chains_are_worth():
    assert estimates.worth(np.zeros((8, 3))) == pytest.approx(8)
    assert estimates.worth(np.array([[0.0, 500.0], [-800.0, 500.0]])) == pytest.approx(1.5)


def test_a_point_below_the_axis_is_marked(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "render", lambda figure, file: drawn.append(figure))
    far = {"ais": -700.0, "gap": 30.0, "kde": 100.0}
    found = {model.name: {0: far if model.name == "GAN-50" else far | {"ais": 100.0}} for model in models.MODELS}
    likelihood._draw(SimpleNamespace(figures=tmp_path), found, {10: 200.0, 50: 500.0})
    axes = drawn[0].axes[0]
    assert [line for line in axes.lines if line.get_marker() == "v"] and "-700" in {t.get_text() for t in axes.texts}
    assert {"AIS, ours", "Parzen window, ours"} <= {t.get_text() for t in axes.get_legend().get_texts()}


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_samples_and_bounds_of_what_is_left(tmp_path, monkeypatch, seeds):
    drawn, rows = {}, []
    monkeypatch.setattr(plots, "render", lambda figure, file: drawn.update({file.name: figure}))
    monkeypatch.setattr(draw, "panels", lambda given, file, columns: rows.extend(name for name, _ in given))
    for algorithm in (vae, gan):
        monkeypatch.setattr(algorithm, "sample", lambda config, state, key, n: np.zeros((n, 28, 28, 1)))
    curve = np.array([1, 10]), np.zeros((len(seeds), 2))
    one = SimpleNamespace(curve=lambda name: curve, seeds=seeds, config=lambda: None, state=lambda seed: None)
    trained, part = {model.name: one for model in models.MODELS}, SimpleNamespace(figures=tmp_path)
    likelihood._draw_bounds(part, trained)
    likelihood._draw_samples(part, trained, {"test": SimpleNamespace(x=np.zeros((30, 28, 28, 1)))})
    assert len(drawn["bounds.png"].axes[0].lines) == (2 if seeds else 0)
    assert rows == ["test images", *(["VAE-50", "GAN-50", "VAE-10", "GAN-10"] if seeds else [])]


def test_a_smoke_run(tmp_path, mnist):
    mnist("train")
    found = smoke("likelihood", tmp_path, "binary", "gmmn")
    assert found["binary_ais"]["ours"]["n"] == 2
    assert found["gap_gmmn10"]["verdict"] == "budget too small: 3 of 50,000 steps"
