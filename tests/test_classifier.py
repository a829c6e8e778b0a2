"""The classifier: its loss in closed form, its augmentation, that it learns, and that fit and load take it."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaegan_jax
from vaegan_jax import classifier, data, fit
from vaegan_jax.optimizer import Optimizer

TINY = classifier.Config(net=classifier.ConvClassifier(channels=(4, 6), hidden=8), num_classes=3, shift=1, batch_size=5)
STILL = dataclasses.replace(TINY, shift=0)
SHAPE = (8, 8, 1)


def batch(n: int = 5, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.integers(0, 256, (n, *SHAPE)), jnp.uint8),
        "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
    }


@pytest.fixture(scope="module")
def state() -> classifier.State:
    return classifier.init(STILL, jax.random.key(0), SHAPE)


def test_cross_entropy_is_minus_the_log_of_the_labels_softmax(state):
    given = batch()
    logits, features = classifier.classify(STILL, state, given["x"])
    chex.assert_shape(logits, (5, 3))
    chex.assert_shape(features, (5, 8))
    assert (np.asarray(features) >= 0).all()
    p = np.exp(np.float64(logits))
    p /= p.sum(axis=1, keepdims=True)
    found = classifier.validate(STILL, state, given, jax.random.key(1))
    label = np.asarray(given["label"])
    np.testing.assert_allclose(found["cross_entropy"], -np.log(p[np.arange(5), label]), rtol=1e-5)
    np.testing.assert_array_equal(found["accuracy"], p.argmax(axis=1) == label)


def test_scores_of_extreme_logits_are_finite_with_their_gradient():
    logits, label = jnp.array([[1e4, -1e4, 0.0]]), jnp.array([1])

    def loss(logits):
        return classifier._scores(classifier.Config(), logits, label)["cross_entropy"].sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, 2e4)
    np.testing.assert_allclose(gradient, [[1, -1, 0]], atol=1e-6)


def test_an_image_is_moved_as_a_whole_and_what_comes_in_is_zero():
    """Every result is one of the (2 s + 1)^2 moves, several of them occur, and the images move apart."""
    config = dataclasses.replace(TINY, shift=2)
    x = np.random.default_rng(0).uniform(0.1, 1, (1, 6, 7, 2)).astype(np.float32)
    moved = np.asarray(classifier.augment(config, jnp.repeat(jnp.asarray(x), 200, axis=0), jax.random.key(0)))
    padded = np.pad(x[0], ((2, 2), (2, 2), (0, 0)))
    moves = [padded[i : i + 6, j : j + 7] for i in range(5) for j in range(5)]
    which = [next(k for k, move in enumerate(moves) if np.array_equal(move, image)) for image in moved]
    assert set(which) == set(range(25))  # each is missed with probability (24 / 25)^200 = 3e-4


def test_half_of_the_images_are_mirrored():
    config = dataclasses.replace(STILL, flip=True)
    x = jax.random.uniform(jax.random.key(1), (400, 4, 4, 1))
    found = np.asarray(classifier.augment(config, x, jax.random.key(0)))
    same = np.array([np.array_equal(a, b) for a, b in zip(found, np.asarray(x), strict=True)])
    np.testing.assert_array_equal(found[~same], np.asarray(x)[~same][:, :, ::-1])
    assert 160 <= same.sum() <= 240  # four standard deviations


def test_without_augmentation_the_key_moves_nothing(state):
    x = batch()["x"]
    np.testing.assert_array_equal(classifier.augment(STILL, x, jax.random.key(0)), x)


def test_the_key_decides_shifts_and_dropout(state):
    first, second = (classifier.train_step(TINY, state, batch(), jax.random.key(i))[1] for i in (0, 1))
    assert first["cross_entropy"] != second["cross_entropy"]
    plain = dataclasses.replace(STILL, net=classifier.ConvClassifier(channels=(4, 6), hidden=8, dropout=0.0))
    first, second = (classifier.train_step(plain, state, batch(), jax.random.key(i))[1] for i in (2, 3))
    assert first["cross_entropy"] == second["cross_entropy"]


def test_the_step_goes_down_its_own_loss(state):
    """The gradient is that of the reported cross-entropy: a small step of SGD lowers it by rate times |g|^2."""
    rate = 1e-4
    config = dataclasses.replace(
        STILL,
        net=classifier.ConvClassifier(channels=(4, 6), hidden=8, dropout=0.0),
        optimizer=Optimizer(rule="sgd", learning_rate=rate, momentum=0.0),
    )
    start = classifier.init(config, jax.random.key(5), SHAPE)
    after, before = classifier.train_step(config, start, batch(), jax.random.key(0))
    _, then = classifier.train_step(config, after, batch(), jax.random.key(1))
    assert int(after.step) == 1
    drop = float(before["cross_entropy"] - then["cross_entropy"])
    np.testing.assert_allclose(drop, rate * float(before["gradient_norm"]) ** 2, rtol=0.03)


def test_running_statistics_are_used_outside_training(state):
    """An example's logits do not depend on its neighbours, and training moves the statistics."""
    x = batch(4)["x"]
    whole, alone = classifier.classify(STILL, state, x)[0], classifier.classify(STILL, state, x[:1])[0]
    np.testing.assert_allclose(whole[:1], alone, atol=1e-6)
    after, _ = classifier.train_step(STILL, state, batch(), jax.random.key(0))
    before = state.model.batch_stats["conv0_norm"]["mean"]
    assert (after.model.batch_stats["conv0_norm"]["mean"] != before).any()


def test_it_learns_digits_fast_and_fit_and_load_take_an_algorithm_that_draws_nothing(tmp_path):
    """150 steps: an earlier one stood at 40 % there. The loss starts near log 10, as a net that knows nothing does."""
    train, test = data.load("digits"), data.load("digits", "test")
    config = classifier.Config(net=classifier.ConvClassifier((8, 16)), batch_size=64, shift=0)
    run = fit.fit(classifier, config, train, steps=150, workdir=tmp_path, log_every=1, progress=False)
    assert run.metrics["cross_entropy"][0, 0] < 1.5 * np.log(10)
    assert fit.validate(classifier, run.config, run.state(0), test)["accuracy"] >= 0.95
    assert not (tmp_path / "samples").exists()
    model = vaegan_jax.load(tmp_path)
    chex.assert_trees_all_equal(model.state, run.state(0))
    assert model.config == run.config
    with pytest.raises(ValueError, match="classifier has no sample: it draws nothing"):
        model.sample(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="has no encoder"):
        model.encode(test.x)


def test_vectors():
    config = classifier.vectors(2)
    points = np.random.default_rng(0).normal(size=(128, 2)).astype(np.float32)
    label = (points[:, 0] > 0).astype(np.int32)
    given = data.Dataset(5 * points, label)
    run = fit.fit(classifier, config, given, steps=40, batch_size=64, progress=False)
    assert fit.validate(classifier, run.config, run.state(0), given, block=128)["accuracy"] > 0.9
    with pytest.raises(ValueError, match=r"take classifier.vectors\(2\)"):
        classifier.init(TINY, jax.random.key(0), (2,))


def test_bad_configs_and_batches(state):
    for fields, message in (
        ({"num_classes": 1}, "num_classes, batch_size"),
        ({"batch_size": 1}, "num_classes, batch_size"),
        ({"shift": -1}, "shift is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **fields)
    for fields in ({"channels": [4]}, {"channels": (0,)}, {"hidden": 0}):
        with pytest.raises(ValueError, match="channels and hidden"):
            classifier.ConvClassifier(**fields)
    with pytest.raises(ValueError, match="dropout of ConvClassifier is 1"):
        classifier.ConvClassifier(dropout=1)
    with pytest.raises(ValueError, match="shift is 8"):
        classifier.init(dataclasses.replace(TINY, shift=8), jax.random.key(0), SHAPE)
    with pytest.raises(ValueError, match='has no "label"'):
        classifier.train_step(TINY, state, {"x": batch()["x"]}, jax.random.key(0))
    with pytest.raises(ValueError, match="is expected, as given to init"):
        classifier.classify(TINY, state, jnp.zeros((2, 9, 8, 1)))
    with pytest.raises(ValueError, match=r"channels=\(\)"):
        classifier.ConvClassifier().init(jax.random.key(0), jnp.zeros((2, 9)), 3)
    with pytest.raises(ValueError, match="num_classes 3"):
        fit.fit(classifier, TINY, data.load("digits"), steps=1, progress=False)
