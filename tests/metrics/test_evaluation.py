"""evaluate: the numbers of the functions below it, for each seed, with how they were measured beside them."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_hierarchical import TINY
from vaegan_jax import data, fit, gan, hierarchical, losses, mcem, metrics, nets, vae, wake_sleep
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import evaluation, features
from vaegan_jax.metrics.evaluation import Row, number
from vaegan_jax.metrics.features import Extractor
from vaegan_jax.metrics.measures import MEASURES
from vaegan_jax.metrics.subject import Data, Settings, Subject

N = 60  # samples
GAN = dataclasses.replace(
    gan.Config(),
    latents=3,
    generator=nets.MLPGenerator((8,), norm="batch"),
    discriminator=nets.MLPDiscriminator((8,)),
    batch_size=20,
    splits=("train[:200]", "train[200:300]", "test"),
)
VAE = dataclasses.replace(
    vae.Config(),
    latents=3,
    encoder=nets.MLPEncoder((8,)),
    decoder=nets.MLPDecoder((8,)),
    batch_size=20,
    binarize="fixed",
)


@pytest.fixture(scope="module")
def train():
    return data.load("digits", "train[:200]")


@pytest.fixture(scope="module")
def workdir(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "gan"
    fit.fit(gan, GAN, train, steps=3, seeds=(3, 5), workdir=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def vae_run(train):
    return fit.fit(vae, VAE, train, steps=3, seeds=(0, 1), progress=False)


@pytest.fixture(scope="module")
def rows(workdir):
    """The metrics of pixels, by name, of both seeds."""
    names = ("kernel", "pr", "dc", "parzen", "memory")
    found = metrics.evaluate(workdir, metrics=names, samples=N, network="pixels", progress=False)
    return found, {row.metric.partition("[")[0]: row for row in found.rows}


def samples(workdir, seed):
    from vaegan_jax import load

    return np.asarray(load(workdir, seed=seed).sample(jax.random.fold_in(jax.random.key(0), 0), N))


def test_rows_are_the_metrics_of_each_seeds_samples(workdir, rows, train):
    _, found = rows
    test, validation = data.load("digits", "test").x / np.float32(255), data.load("digits", "train[200:300]").x
    for i, seed in enumerate((3, 5)):
        drawn = samples(workdir, seed)
        flat = drawn.reshape(N, -1), test.reshape(len(test), -1)
        assert found["precision"].values[i] == metrics.precision_recall(flat[1], flat[0])[0]
        assert found["recall"].values[i] == metrics.precision_recall(flat[1], flat[0])[1]
        assert found["density"].values[i] == metrics.density_coverage(flat[1], flat[0])[0]
        assert found["coverage"].values[i] == metrics.density_coverage(flat[1], flat[0])[1]
        value, error = metrics.kernel_distance(*flat, subset_size=N)
        assert (found["kernel_distance"].values[i], found["kernel_distance"].errors[i]) == (value, error)
        window = metrics.parzen_estimate(drawn, validation / np.float32(255), test, count=N, validation_count=100)
        assert found["parzen_log_likelihood"].values[i] == window.mean
        assert found["parzen_log_likelihood"].errors[i] == window.standard_error
        near = metrics.memorisation(drawn, train.x / np.float32(255), test)
        assert found["distance_ratio"].values[i] == pytest.approx(near.ratio)


def test_a_row_says_how_it_was_measured(rows):
    found, by_name = rows
    row = by_name["precision"]
    assert (found.algorithm, found.step, found.seeds, found.data) == ("gan", 3, (3, 5), "digits")
    assert row.metric == f"precision[pixels, n={N}]"
    assert by_name["parzen_log_likelihood"].network == "pixels"
    assert (row.network, row.n, row.range, row.statistics) == ("pixels", N, "[0, 1]", "running")
    assert row.split == f"test ({len(data.load('digits', 'test')):,})"
    assert "k=3" in row.note
    assert "validation" in by_name["parzen_log_likelihood"].note
    assert by_name["distance_ratio"].split == "train[:200] (200)"
    table = str(found)
    for text in ("seeds 3, 5", "+- over 2 seeds", "running", "pixels", "[0, 1]", "test (", "precision", "coverage"):
        assert text in table


def test_deviations_are_over_seeds_and_none_of_one():
    def row(values):
        return Row("m[pixels, n=2]", values, None, "", "pixels", 2, "test", "any", "none", "")

    assert row((1.0, 3.0)).sd == pytest.approx(np.sqrt(2))
    assert np.isnan(row((1.0,)).sd)


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (98.612, 0.2437, "98.61 +- 0.24"),
        (-1234.5, 31.0, "-1234 +- 31"),
        (0.98765, float("nan"), "0.9877"),
        (2.0, 0.0, "2"),
        (3.2e-9, 4e-9, "3.2e-09 +- 4.0e-09"),
    ],
)
def test_numbers_show_the_digits_that_their_spread_leaves(value, spread, text):
    assert number(value, spread) == text


def test_a_networks_name_is_in_the_metric_and_each_set_goes_through_it_once_a_seed(workdir, monkeypatch):
    seen = []

    def forward(x):
        flat = x.reshape(len(x), -1).astype(jnp.float32)
        flat = jnp.where(x.dtype == jnp.uint8, flat / 255, flat)
        return flat, jax.nn.softmax(flat[:, 20:25] * 5)

    network = Extractor("half", forward, (8, 8, 1))
    both = Extractor.both
    monkeypatch.setattr(Extractor, "both", lambda self, x, **kw: seen.append(len(x)) or both(self, x, **kw))
    names = ("frechet", "frechet_infinity", "kernel", "inception", "classes", "pr", "parzen")
    with pytest.warns(UserWarning, match="sample|example|width|size"):
        found = metrics.evaluate(workdir, metrics=names, samples=N, network=network, progress=False)
    assert sorted(seen) == [N, N, len(data.load("digits", "test"))]
    values = {row.metric: row.values for row in found.rows}
    drawn = samples(workdir, 5)
    features, probabilities = both(network, drawn, progress=False)
    assert values[f"inception_score[half, n={N}]"][1] == pytest.approx(metrics.inception_score(probabilities)[0])
    real = both(network, data.load("digits", "test").x, progress=False)
    with pytest.warns(UserWarning, match="biased"):
        expected = metrics.frechet_distance(features, real[0])
    assert values[f"frechet_distance[half, n={N}]"][1] == pytest.approx(expected)
    assert values[f"kernel_distance[half, n={N}]"][1] == metrics.kernel_distance(features, real[0], subset_size=N)[0]
    assert values[f"recall[half, n={N}]"][1] == metrics.precision_recall(real[0], features)[1]
    assert f"parzen_log_likelihood[pixels, n={N}]" in values
    picked, usual = probabilities.argmax(1), real[1].argmax(1)
    assert values[f"classes[half, n={N}]"][1] == len(np.unique(picked))
    shares = [(np.mean(picked == c), np.mean(usual == c)) for c in np.unique(picked)]
    divergence = sum(p * np.log(p / q) for p, q in shares)
    assert values[f"class_divergence[half, n={N}]"][1] == pytest.approx(divergence)


def test_the_runs_own_data_say_whose_classifier_is_the_network(workdir, tmp_path, monkeypatch):
    short = dataclasses.replace(features.RECIPES["digits"], steps=2)
    monkeypatch.setitem(features.RECIPES, "digits", short)
    (row,) = metrics.evaluate(workdir, metrics=("frechet",), samples=N, data_dir=tmp_path, progress=False).rows
    network = features.classifier("digits", data_dir=tmp_path, progress=False)  # trained above, read here
    assert row.metric == f"frechet_distance[digits-cnn, n={N}]"
    test = network.features(data.load("digits", "test").x)
    ours = [metrics.frechet_distance(test, network.features(samples(workdir, seed))) for seed in (3, 5)]
    np.testing.assert_allclose(row.values, ours, rtol=1e-6)


def test_a_vaes_likelihood_is_its_importance_weighted_bound(vae_run, train):
    test = data.load("digits", "test")
    found = metrics.evaluate(
        vae_run, metrics=("likelihood",), data=(train, test), examples=150, draws=40, network="pixels", progress=False
    )
    by_name = {row.metric.partition("[")[0]: row for row in found.rows}
    assert set(by_name) == {"log_likelihood", "elbo", "kl", "active_units"}
    bound, elbo = by_name["log_likelihood"], by_name["elbo"]
    assert (bound.n, elbo.n, bound.over) == (150, 150, "150 examples")
    assert "k=40" in bound.note and "bernoulli, binarised: fixed" in bound.note
    for i, seed in enumerate((0, 1)):
        state, x = vae_run.state(seed), jnp.asarray(test.x[:150])
        target = vae.targets(vae_run.config, x, jax.random.key(7))
        expected = np.asarray(losses.iwae_bound(vae.log_weights(vae_run.config, state, target, jax.random.key(8), 40)))
        # Of 40 draws the deviation over keys is .02; the ELBO lies .5 below.
        assert bound.values[i] == pytest.approx(expected.mean(), abs=0.1)
        assert bound.errors[i] == pytest.approx(expected.std() / np.sqrt(150), rel=0.25)
        assert elbo.values[i] < bound.values[i] - 0.2


def test_annealed_likelihood_of_a_gan_takes_the_observation_model_and_goes_on_from_its_file(workdir):
    settings = {"samples": N, "examples": 2, "network": "pixels", "progress": False, "distributions": 60, "chains": 8}
    call = functools.partial(metrics.evaluate, workdir, metrics=("ais", "bdmc"), seeds=(3,), sigma=1.0, **settings)
    rows = call().rows
    by_name = {row.metric.partition("[")[0]: row for row in rows}
    # The untrained generator's images hardly differ, so p(x) is about N(x; E G(z), I).
    x, G = data.load("digits", "test").x[:2].reshape(2, -1) / 255, samples(workdir, 3).reshape(N, -1)
    log_p = -0.5 * ((x[:, None] - G[None]) ** 2).sum(-1) - 32 * np.log(2 * np.pi)
    expected = np.log(np.exp(log_p - log_p.max()).mean(1)) + log_p.max()
    row = by_name["ais_log_likelihood"]
    assert row.values[0] == pytest.approx(expected.mean(), abs=0.3)
    for text in ("N(G(z), 1^2 I)", "(byte + U) / 256", "8 chains, 60 distributions"):
        assert text in row.note
    assert abs(by_name["bdmc_gap"].values[0]) < 0.3 and by_name["bdmc_gap"].split == "simulated"
    files = list((workdir / "evaluation").rglob("*.npz"))
    assert len(files) == 3  # ais, lower, upper
    before = [file.stat().st_mtime_ns for file in files]
    assert call().rows == rows
    assert [file.stat().st_mtime_ns for file in files] == before
    call(metrics=("ais",), samples=N + 1, draws=7)  # which are nothing to a chain
    assert [file.stat().st_mtime_ns for file in files] == before
    other = call(metrics=("ais",), split="train[:50]").rows[0]  # other examples are another computation
    assert other.values != row.values and other.split.startswith("train[:50]")


def test_a_bernoulli_vaes_gap_is_of_bits_that_it_draws(vae_run, train, monkeypatch):
    made = []
    gap = metrics.ais.bdmc_gap

    def seen(density, simulate, key, **settings):
        z = jnp.broadcast_to(jnp.array([1.0, -2.0, 0.5]), (4000, 3))
        made.append((simulate(jax.random.key(1), z), z))
        return gap(density, simulate, key, **settings)

    monkeypatch.setattr(metrics.ais, "bdmc_gap", seen)
    found = metrics.evaluate(
        vae_run, metrics=("bdmc",), data=(train, train), network="pixels", examples=4, chains=8, distributions=100,
        progress=False, seeds=(0,),
    ).rows[0]  # fmt: skip
    assert found.metric.startswith("bdmc_gap") and found.split == "simulated" and found.n == 4
    assert "bernoulli" in found.note and found.values[0] == pytest.approx(0, abs=0.2)
    ((bits, z),) = made
    np.testing.assert_array_equal(np.unique(bits), [0, 1])
    mean = vae.decode(vae_run.config, vae_run.state(0), z[:1])[0]
    np.testing.assert_allclose(bits.mean(axis=0), mean, atol=0.04)


def test_what_has_no_simulation_or_is_told_labels_is_refused(train):
    few = {"data": (train, train), "network": "pixels", "progress": False}
    config = dataclasses.replace(VAE, likelihood="gaussian_fixed", binarize="none")
    run = fit.fit(vae, config, train, steps=1, progress=False)
    with pytest.raises(ValueError, match="bdmc: examples are simulated of a Bernoulli decoder or with sigma, not of g"):
        metrics.evaluate(run, metrics=("bdmc",), **few)
    run = fit.fit(gan, dataclasses.replace(GAN, num_classes=10), train, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"ais: this vaegan_jax\.gan is told a label"):
        metrics.evaluate(run, metrics=("ais",), sigma=1.0, **few)


def test_a_density_without_sigma_is_none_of_another_sigma(train):
    ask = Settings(samples=N, examples=1, draws=1, sigma=None, chains=1, distributions=2, key=0)
    run = fit.fit(gan, GAN, train, steps=1, progress=False)
    one = Subject(gan, run.config, run.state(0), Data(train, None, train, lambda: None), ask, None)
    with pytest.raises(AssertionError, match="_needs_density has refused"):
        one.density(jnp.zeros((1, 3)), jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(AssertionError, match="_needs_density has refused"):
        MEASURES["bdmc"].values(one)


def test_every_algorithm_with_a_likelihood_is_judged_by_it(train):
    test = data.load("digits", "test")
    few = {"examples": 2, "draws": 5, "chains": 1, "distributions": 3, "network": "pixels", "progress": False}
    run = fit.fit(wake_sleep, VAE, train, steps=1, progress=False)
    found = metrics.evaluate(run, metrics=("ais", "likelihood"), data=(train, test), **few)
    judged = {row.metric.partition("[")[0]: row.values for row in found.rows}
    assert {"ais_log_likelihood", "log_likelihood", "elbo"} <= judged.keys()
    assert all(np.isfinite(values).all() for values in judged.values())
    own = {f.name: getattr(VAE, f.name) for f in dataclasses.fields(VAE)}
    run = fit.fit(mcem, mcem.Config(**own), mcem.numbered(train), steps=1, progress=False)
    found = metrics.evaluate(run, metrics=("ais",), data=(train, test), **few)
    assert np.isfinite(found.rows[0].values).all()


def test_a_kernel_distance_of_whole_sets_has_no_error_over_subsets(vae_run, train):
    small = Dataset(data.load("digits", "test").x[:N], None, "digits", "test[:60]")
    ask = {"metrics": ("kernel",), "network": "pixels", "progress": False}
    whole = metrics.evaluate(vae_run, data=(train, small), samples=N, **ask).rows[0]
    part = metrics.evaluate(vae_run, data=(train, small), samples=N - 1, **ask).rows[0]
    assert whole.errors is None or not any(whole.errors)
    assert all(error > 0 for error in part.errors)


def test_a_vaes_importance_bound_and_ais_are_of_the_same_images(vae_run, train):
    test = data.load("digits", "test")
    run = dataclasses.replace(vae_run, config=dataclasses.replace(vae_run.config, binarize="fresh"))
    settings = {"examples": 3, "draws": 2000, "distributions": 200, "network": "pixels", "progress": False}
    found = metrics.evaluate(run, metrics=("ais", "likelihood"), data=(train, test), seeds=(0,), **settings)
    values = {row.metric.partition("[")[0]: row.values[0] for row in found.rows}
    assert values["ais_log_likelihood"] == pytest.approx(values["log_likelihood"], abs=0.1)


def test_modes_of_a_mixture_are_counted():
    nets_of_two = {"generator": nets.MLPGenerator((4,)), "discriminator": nets.MLPDiscriminator((4,))}
    config = dataclasses.replace(gan.vectors(2), latents=2, **nets_of_two)
    ring = data.load("ring", "train[:500]"), data.load("ring", "test[:500]")
    run = fit.fit(gan, config, ring[0], steps=2, progress=False)
    found = metrics.evaluate(run, metrics=("modes", "pr"), data=ring, samples=200, progress=False)
    values = {row.metric.partition("[")[0]: (row.values[0], row.range) for row in found.rows}
    drawn = gan.sample(run.config, run.state(0), jax.random.fold_in(jax.random.key(0), 0), 200)
    _, centres = data.toy.ring(jax.random.key(1), 1)
    assert (values["modes"][0], values["high_quality"][0]) == metrics.mode_coverage(drawn, centres, 0.01)
    assert values["precision"][1] == "any"
    draw = {"sample": lambda config, state, key, n, label=None: data.toy.ring(key, n)[0]}
    perfect = dataclasses.replace(run, algorithm=types.SimpleNamespace(**vars(gan) | draw))
    found = metrics.evaluate(perfect, metrics=("modes",), data=ring, samples=2000, progress=False)
    modes, good, divergence = (row.values[0] for row in found.rows)
    assert modes == 8 and good == pytest.approx(0.989, abs=0.01) and divergence < 0.01

    wide = Dataset(np.asarray(data.toy.ring(jax.random.key(0), 100, radius=2.0)[0]), name="ring")
    with pytest.raises(ValueError, match="modes: 0% of the data lie at the modes of toy"):
        metrics.evaluate(run, metrics=("modes",), data=(wide, wide), samples=200, progress=False)


def test_several_layers_have_no_importance_bound_or_annealing_here():
    bits = Dataset(np.random.default_rng(0).integers(0, 2, (20, 6)).astype(np.float32))
    run = fit.fit(hierarchical, TINY, bits, steps=1, progress=False)
    for name in ("likelihood", "ais", "bdmc"):
        with pytest.raises(ValueError, match=f"{name}: vaegan_jax.hierarchical has latents in several layers: use"):
            metrics.evaluate(run, metrics=(name,), data=(bits, bits), sigma=0.1, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("fid",)}, "some of frechet"),
        ({"metrics": "frechet"}, "some of frechet"),
        ({"metrics": ()}, "some of frechet"),
        ({"samples": 1}, "samples"),
        ({"examples": 0}, "examples"),
        ({"sigma": 0.0}, "sigma"),
        ({"seeds": (4,)}, "the run has 3, 5"),
        ({"seeds": ()}, "the run has 3, 5"),
        ({"metrics": 3}, "give a list"),
        ({"metrics": ("pr", "likelihood", "ais")}, "likelihood: vaegan_jax.gan has no encoder.*; ais: .*give sigma"),
        ({"metrics": ("bdmc",)}, "bdmc: vaegan_jax.gan has no likelihood of its own: give sigma"),
        ({"metrics": ("inception",)}, "give a network"),
        ({"metrics": ("kernel", "prd"), "samples": 19}, "prd: samples is 19, give 20 or more"),
        ({"metrics": ("inception",), "samples": 9}, "inception: samples is 9, give 10 or more"),
        ({"metrics": ("pr",), "split": "test[:3]"}, r"pr: test\[:3\] has 3 examples, 4 are needed"),
        ({"metrics": ("parzen",), "split": "test[:1]"}, r"parzen: test\[:1\] has 1 examples, 2 are needed"),
        ({"metrics": ("modes",)}, "no mixture"),
        ({"network": "mnsit"}, "digits, mnist"),
        ({"data": data.load("digits")}, "two Datasets"),
        ({"data": (Dataset(np.zeros((5, 4, 4, 1), np.uint8)),) * 2}, "4, 4, 1"),
        ({"split": "nothing"}, "nothing"),
    ],
)
def test_a_wrong_call_is_told_what_to_give(workdir, changes, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(
            workdir, **{"network": "pixels", "progress": False, "samples": N, "metrics": ("pr",)} | changes
        )


def test_what_is_no_run_and_data_that_are_not_known_are_refused(vae_run, workdir, tmp_path):
    with pytest.raises(ValueError, match="no config"):
        metrics.evaluate(tmp_path)
    with pytest.raises(ValueError, match="a workdir"):
        metrics.evaluate(3)
    with pytest.raises(ValueError, match="give data"):
        metrics.evaluate(vae_run)
    described = json.loads((workdir / "config.json").read_text())
    described["data"]["sha256"] = "0" * 64
    other = tmp_path / "other"
    other.mkdir()
    (other / "checkpoints").symlink_to(workdir / "checkpoints")
    (other / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="digest 000000000000"):
        metrics.evaluate(other, metrics=("pr",), network="pixels", samples=N, progress=False)


def test_unusual_values_are_no_invalid_json():
    row = Row("m[pixels, n=2]", (float("inf"),), None, "", "pixels", 2, "test", "any", "none", "")
    found = evaluation.Evaluation("r", "gan", 1, (0,), "digits", "", 0, (row,)).as_json()
    assert json.loads(json.dumps(found, allow_nan=False))["rows"][0]["values"] == [None]
