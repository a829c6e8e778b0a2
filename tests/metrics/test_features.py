"""Extractors: blocks, checks, names, and the classifiers that train on first use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import classifier, data, fit, logs
from vaegan_jax.data import cache
from vaegan_jax.metrics import features

RECIPE = features.Recipe(
    classifier.Config(net=classifier.ConvClassifier(channels=(4,), hidden=6), shift=0, batch_size=32), 3
)


def flat(x):
    """A "network": the pixels, and one class for each half of the image."""
    assert len(x) <= 4
    h = x.astype(jnp.float32).reshape(len(x), -1) / (255 if x.dtype == jnp.uint8 else 1)
    share = h.mean(axis=1, keepdims=True)
    return h, jnp.concatenate([share, 1 - share], axis=1)


PLAIN = features.Extractor("plain", flat, (2, 3, 1), block=4)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 2, 3, 1)).astype(np.uint8)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
def test_blocks_change_nothing(x, n):
    found, probabilities = PLAIN.both(x[:n])
    assert found.dtype == probabilities.dtype == np.float32
    np.testing.assert_allclose(found, x[:n].reshape(n, -1) / 255, rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(PLAIN.features(x[:n]), found)
    np.testing.assert_array_equal(PLAIN.probabilities(x[:n]), probabilities)


def test_every_block_has_one_size_so_that_one_program_is_compiled(x):
    sizes = []

    def forward(block):
        sizes.append(len(block))
        return flat(block)

    assert features.Extractor("sizes", forward, (2, 3, 1), block=4).features(x).shape == (11, 6)
    assert sizes == [4, 4, 4]


def test_bytes_and_floats_of_any_width_are_the_same_images(x):
    expected = PLAIN.features(x)
    for dtype in (np.float64, np.float32):
        np.testing.assert_allclose(PLAIN.features((x / 255).astype(dtype)), expected, rtol=1e-6)
    np.testing.assert_allclose(PLAIN.features((x / 255).astype(np.float16)), expected, atol=1e-3)
    np.testing.assert_allclose(PLAIN.features(jnp.float32(x / 255)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"shape \(2, 3, 1\): plain takes \[N, 2, 3, 1\]"),
        (lambda x: x[:, :, :2], r"shape \(11, 2, 2, 1\)"),
        (lambda x: x[:0], "at least one image"),
        (lambda x: x.astype(np.int32), "dtype int32: give images as uint8"),
        (lambda x: x.astype(np.float32), r"goes from \d+ to \d+: give floating point in \[0, 1\]"),
        (lambda x: x / 127.5 - 1, r"\(x \+ 1\) / 2"),
        (lambda x: np.where(x == x.max(), np.nan, x / 255), "from nan to nan"),
        (lambda x: np.where(x == x.max(), np.inf, x / 255), "to inf"),
    ],
)
def test_bad_images(x, change, message):
    with pytest.raises(ValueError, match=message):
        PLAIN.features(change(x))


def test_any_size_still_has_one_or_three_channels(x):
    free = features.Extractor("free", flat, (None, None, None), block=4)
    assert free.features(x).shape == (11, 6)
    assert free.features(np.repeat(x, 3, axis=3)).shape == (11, 18)
    with pytest.raises(ValueError, match=r"free takes \[N, H, W, C\] with C = 1 or 3"):
        free.features(np.repeat(x, 2, axis=3))


def test_progress_comes_with_patience_alone(x, monkeypatch, capsys):
    PLAIN.features(x)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logs, "PATIENCE", -1.0)
    PLAIN.features(x, progress=False)
    assert capsys.readouterr().err == ""
    PLAIN.features(x)
    err = capsys.readouterr().err
    assert "plain, blocks of 4 images  step 1/3" in err and "step 3/3" in err


def test_metric_name():
    assert features.metric_name("frechet_distance", "mnist-cnn", 10_000) == "frechet_distance[mnist-cnn, n=10000]"
    assert features.metric_name("kernel_distance", "net", np.int64(5)) == "kernel_distance[net, n=5]"
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"n is {n}"):
            features.metric_name("frechet_distance", "mnist-cnn", n)
    with pytest.raises(ValueError, match="give the names of both"):
        features.metric_name("frechet_distance", "", 5)


def test_it_is_trained_once_and_kept_under_its_digest(tmp_path, capsys, monkeypatch):
    first = features.classifier("digits", cache_dir=tmp_path, recipe=RECIPE)
    err = capsys.readouterr().err
    assert "not trained yet, so 3 steps on digits train, once" in err and "step 3/3" in err and "test accuracy" in err
    test = data.load("digits", "test")
    found, probabilities = first.both(test.x)
    assert found.shape == (256, 6) and probabilities.shape == (256, 10)
    np.testing.assert_allclose(first.accuracy, (probabilities.argmax(axis=1) == test.label).mean(), atol=1e-6)
    assert len(list((tmp_path / "features").iterdir())) == 1

    with monkeypatch.context() as patched:
        patched.setattr(fit, "fit", lambda *_, **__: pytest.fail("it is trained again"))
        second = features.classifier("digits", cache_dir=tmp_path, recipe=RECIPE)
    assert (second.name, second.accuracy) == (first.name, first.accuracy)
    assert second.digest == first.digest and len(first.digest) == 64
    np.testing.assert_array_equal(second.features(test.x), found)
    assert capsys.readouterr().err == ""

    def stop(name, *_):
        raise LookupError(name)

    monkeypatch.setattr(features, "_train", stop)
    with pytest.raises(LookupError, match="digits-cnn-") as other:
        features.classifier("digits", cache_dir=tmp_path, recipe=features.Recipe(RECIPE.config, 4))
    assert first.name not in str(other.value)


def test_the_digest_is_of_names_shapes_and_numbers():
    weights = {"a": np.arange(4.0), "b": {"c": np.zeros((2, 2), np.float32)}}
    first = features.weights_digest(weights)
    assert features.weights_digest(jax.tree.map(np.copy, weights)) == first
    assert features.weights_digest({"b": weights["b"], "a": weights["a"]}) == first
    others = (
        weights | {"a": np.arange(4.0) + 1e-12},
        weights | {"a": np.arange(4.0).reshape(2, 2)},
        weights | {"a": np.arange(4.0).astype(np.float32)},
        {"d": weights["a"], "b": weights["b"]},
    )
    assert len({features.weights_digest(other) for other in others} | {first}) == 5


def test_a_training_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    """Without accuracy.json it is not complete; its checkpoint of step 3 stays, and only the rest is done."""
    features.classifier("digits", cache_dir=tmp_path, recipe=RECIPE, progress=False)
    (folder,) = (tmp_path / "features").iterdir()
    (folder / "accuracy.json").unlink()
    stamp = (folder / "checkpoints" / "3" / "leaves.json").stat().st_mtime_ns
    assert features.classifier("digits", cache_dir=tmp_path, recipe=RECIPE, progress=False).accuracy is not None
    assert (folder / "checkpoints" / "3" / "leaves.json").stat().st_mtime_ns == stamp


def test_names_and_recipes_of_the_known_sets(tmp_path, monkeypatch):
    assert set(features.RECIPES) == {"digits", "mnist", "fashion_mnist"}
    for recipe in features.RECIPES.values():
        assert recipe.config.optimizer.linear_to == recipe.steps  # the rate comes to 0 with the last step
    monkeypatch.setitem(features.RECIPES, "digits", RECIPE)
    monkeypatch.setenv("VAEGAN_JAX_DATA", str(tmp_path))
    extractor = features.classifier("digits", progress=False)
    assert extractor.name == "digits-cnn"
    assert extractor.shape == (8, 8, 1)
    assert (cache.root() / "features").is_dir() and tmp_path in (cache.root() / "features").parents


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dataset_name is 'celeb_a': give one of digits, mnist, fashion_mnist"):
        features.classifier("celeb_a", cache_dir=tmp_path)
    with pytest.raises(ValueError, match="ring holds vectors"):
        features.classifier("ring", cache_dir=tmp_path, recipe=RECIPE)
    x = np.zeros((40, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "bare.npz", x_train=x, x_test=x)
    with pytest.raises(ValueError, match="has no labels"):
        features.classifier(f"npz:{tmp_path / 'bare.npz'}", cache_dir=tmp_path, recipe=RECIPE, progress=False)
    assert not (tmp_path / "features").exists()
    two = dataclasses.replace(RECIPE.config, num_classes=2)
    with pytest.raises(ValueError, match="num_classes 2"):
        features.classifier("digits", cache_dir=tmp_path, recipe=features.Recipe(two, 3))
