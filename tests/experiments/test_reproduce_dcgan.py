"""DCGAN's target: pooling, draws of labels, sums of exemplars against hand-made cases, errors in parts, a smoke run."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce import (
    __main__,
    dcgan,
    dcgan_arithmetic,
    dcgan_features,
    dcgan_models,
    dcgan_nearest,
    inversion,
    job,
    published,
    results,
)
from vaegan_jax import adversarial, gan, metrics, nets
from vaegan_jax.data.dataset import Dataset


def test_pooling_takes_the_largest_of_each_window():
    h = np.arange(2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    found = dcgan_features.shrink(h).reshape(2, 4, 4, 3)
    np.testing.assert_array_equal(found, h[:, 1::2, 1::2])  # values grow along both axes
    assert dcgan_features.shrink(np.zeros((1, 14, 14, 5))).shape == (1, 80)
    assert dcgan_features.shrink(np.zeros((1, 2, 2, 5))).shape == (1, 20)


def test_statistics_are_those_of_all_real_images(key):
    config = dcgan_models.small(SimpleNamespace(budget="smoke"), gan.dcgan())
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    state = gan.init(config, key, (8, 8, 1))
    view = dataclasses.replace(config, discriminator=dataclasses.replace(config.discriminator, feature_layer="conv1"))
    raw = np.asarray(gan.discriminate(view, state, x)[1])  # before its normalisation, so of no statistics
    one = dcgan_features.real_statistics(config, state, x).discriminator.batch_stats["conv1_norm"]["batch"]
    np.testing.assert_allclose(one["mean"], raw.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one["var"], raw.var(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    parts = dcgan_features.real_statistics(config, state, x, size=20).discriminator.batch_stats["conv1_norm"]["batch"]
    np.testing.assert_allclose(parts["mean"], one["mean"], rtol=1e-4, atol=1e-6)


def test_the_supervised_net_is_the_discriminator_with_a_logit_a_class(key):
    config = dcgan_models.small(SimpleNamespace(budget="smoke"), gan.dcgan())
    body = dataclasses.replace(config.discriminator, feature_layer="hidden0_activation")
    x = np.zeros((2, 8, 8, 1), np.float32)
    net = dcgan_features.Supervised(body)
    (logits, features), variables = net.init_with_output(key, x, 10)
    assert logits.shape == (2, 10) and features.shape == (2, 16)
    mine = {name: leaf.shape for name, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]["body"])}
    state = gan.init(config, key, (8, 8, 1))
    assert mine == {name: leaf.shape for name, leaf in jax.tree_util.tree_leaves_with_path(state.discriminator.params)}


def test_numbers_are_computed_once(tmp_path):
    one, seen = job.Job("smoke", (0, 1), tmp_path, tmp_path), []
    for _ in range(2):
        assert one.kept("a", lambda: seen.append(0) or [1.5, 2]) == [1.5, 2]
    assert len(seen) == 1


def test_draws_have_as_many_of_each_class():
    label = np.repeat([3, 5, 9], 20)
    chosen = dcgan_features.pick(label, 4, np.random.default_rng(0))
    assert len(set(chosen)) == 12 and np.bincount(label[chosen]).tolist() == [0, 0, 0, 4, 0, 4, 0, 0, 0, 4]


def test_an_svm_separates_what_can_be_separated_and_guesses_otherwise():
    rng = np.random.default_rng(0)
    label = [np.tile([0, 1], 100)] * 3
    apart = [10 * (y[:, None] - 0.5) + rng.normal(size=(200, 2)) for y in label]
    error, spread, c, first = dcgan_features.few_labels(apart, label, 10, 3, 2, 0)
    assert error == spread == first == 0 and c in dcgan_features.GRID
    noise = [rng.normal(size=(200, 2)) for _ in label]
    error, _, c, first = dcgan_features.few_labels(noise, label, 10, 8, 2, 0)
    picked = dcgan_features.pick(label[0], 10, np.random.default_rng(0))
    assert 35 < error < 65
    assert first == dcgan_features._svm(noise[0][picked], label[0][picked], noise[2], label[2], c)


def test_sums_are_of_the_exemplars_of_their_pair():
    """Latents are (class, boldness), so a sum must land on the wanted class, and bold."""
    label = np.repeat([0, 1, 2], 8)
    ink = np.tile(np.arange(8.0), 3)
    z = np.stack([label, ink], axis=1)
    pool = dcgan_arithmetic.Pool(z, label, ink, np.full(3, 3.5))
    assert pool.ink[pool.exemplars(1, True)].tolist() == [6, 7] and pool.ink[pool.exemplars(1, False)].tolist() == [
        0,
        1,
    ]
    sums, wanted = dcgan_arithmetic.sums(pool, 2, np.random.default_rng(0))
    assert len(sums) == 6
    np.testing.assert_array_equal(sums[:, 0], wanted)
    np.testing.assert_array_equal(sums[:, 1], 6.5 - 0.5 + 0.5)
    assert len(dcgan_arithmetic.sums(pool, 3, np.random.default_rng(0))[0]) == 0  # a quarter is two
    assert len(dcgan_arithmetic.sums(pool, 1, np.random.default_rng(0), enough=3)[0]) == 0  # the same pairs as three


def test_lines_go_between_different_classes_that_are_sure():
    a, b = dcgan_arithmetic.apart(np.array([3, -1, 5, 2, 2, 7, -1, 1, 4]), 10)
    assert a.tolist() == [0, 5] and b.tolist() == [2, 7]  # 3 and 5, 7 and 1; 2 and 2 are alike, 4 is alone
    assert len(dcgan_arithmetic.apart(np.array([3, 5, 2, 7]), 1)[0]) == 1
    assert len(dcgan_arithmetic.apart(np.array([-1, 5]), 1)[0]) == 0


def test_halfway_on_latents_is_near_what_is_known_and_on_pixels_not(tmp_path, monkeypatch):
    """Images are squares of latents, so that halves of both images lie off the curve that the images lie on."""
    monkeypatch.setattr(inversion, "images", lambda config, state, z: np.square(z))
    judge = SimpleNamespace(both=lambda x, progress: (x.astype(np.float32), np.stack([x[:, 0], 1 - x[:, 0]], axis=1)))
    z = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.6], [0.8, 0.4]])
    pool = dcgan_arithmetic.Pool(z, np.array([0, 1, 0, 1]), np.zeros(4), np.zeros(2))
    trained = SimpleNamespace(config=lambda: None)
    one = job.Job("cpu", (0, 1, 2), tmp_path, tmp_path)
    known = np.concatenate([np.square((z[::2] + z[1::2]) / 2), [[9.0, 9.0]]]).astype(np.float32)
    sure, far = dcgan_arithmetic._smoothness(one, trained, None, pool, judge, known)
    np.testing.assert_allclose(far[:2], [0, np.mean([np.hypot(0.25, 0.25), np.hypot(0.09, 0.01)])], atol=1e-5)
    np.testing.assert_allclose(sure[:2], [0.75, np.mean([0.5, 0.66])], atol=1e-6)
    nobody = dataclasses.replace(pool, label=np.full(4, -1))
    np.testing.assert_array_equal(dcgan_arithmetic._smoothness(one, trained, None, nobody, judge, known), 0)


@pytest.mark.parametrize("prior", ["uniform", "normal"])
def test_images_are_those_of_the_priors_latents(key, prior):
    """Of z itself, on the prior's scale; beyond a uniform prior's cube, of its face."""
    net = nets.MLPGenerator(hidden=(8,))
    config = dataclasses.replace(gan.Config(), latents=3, prior=prior, prior_scale=1.5, generator=net)
    state = gan.init(config, key, (4, 4, 1))
    z = np.array([[0.3, -0.2, 1.1], [-0.5, 0.0, 0.4], [2.0, -3.0, 0.1]], np.float32)
    found = inversion.images(config, state, z, block=2)
    inside = np.clip(z, -1.4998, 1.4998) if prior == "uniform" else z
    variables = state.generator.variables()
    expected, _ = adversarial.generate(config, variables, jnp.asarray(inside), None, (4, 4, 1), train=False)
    np.testing.assert_allclose(found, adversarial.to_unit(config, expected), rtol=1e-3, atol=1e-5)
    assert found.shape == (3, 4, 4, 1) and np.abs(found[0] - found[1]).max() > 1e-4


def test_variants_change_one_thing():
    base = gan.dcgan()
    changed = {name: make(base) for name, make in dcgan_models.VARIANTS.items()}
    assert changed.pop("dcgan") == base
    assert len({*changed.values(), base}) == 5
    assert changed["no_batchnorm"].generator.norm == changed["no_batchnorm"].discriminator.norm == "none"
    assert changed["beta1"].generator_optimizer.momentum == changed["beta1"].discriminator_optimizer.momentum == 0.9


def test_errors_by_number_are_those_of_the_first_images(monkeypatch):
    """In parts, against one call with all of them, for each of two sets that are judged."""
    rng = np.random.default_rng(0)
    judged = [Dataset(rng.integers(0, 256, (n, 4, 4, 1), np.uint8), rng.integers(0, 10, n)) for n in (30, 20)]
    made: list[tuple[np.ndarray, np.ndarray]] = []

    def sample(config, state, key, n, label):
        made.append((rng.random((n, 4, 4, 1), np.float32), label))
        return made[-1][0]

    monkeypatch.setattr(gan, "sample", sample)
    monkeypatch.setattr(dcgan_nearest, "BLOCK", 40)
    one = SimpleNamespace(config=lambda: None, state=lambda seed: None)
    found = dcgan_nearest._errors(SimpleNamespace(tick=lambda: None), one, 0, (25, 100), judged)
    x, y = (np.concatenate(parts) for parts in zip(*made, strict=True))
    assert len(x) == 100 and np.bincount(y).min() >= 9
    for test, errors in zip(judged, found, strict=True):
        for n, error in zip((25, 100), errors, strict=True):
            expected = metrics.nearest_neighbor_error(x[:n], y[:n], test.x.astype(np.float32) / 255, test.label)
            assert error == pytest.approx(expected)


def test_every_row_of_the_parts_has_its_entry():
    entries = published.entries()["dcgan"]
    named = [row for part in dcgan.PARTS for row in part.rows]
    assert len(named) == len(set(named))
    assert set(named) == {name for name, entry in entries.items() if not entry.not_run}


@pytest.mark.slow
def test_a_smoke_run_does_arithmetic(tmp_path):
    flags = ["dcgan", "--budget", "smoke", "--parts", "arithmetic", "--workdir", str(tmp_path), "--quiet"]
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("dcgan", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    assert rows["dcgan.interpolation"]["ours"]["n"] == 2 and rows["dcgan.svhn"]["verdict"] == "not run: data"
    drawn = {path.name for path in (tmp_path / "results" / "dcgan").glob("*.png")}
    assert drawn == {"arithmetic.png", "interpolation.png"}
