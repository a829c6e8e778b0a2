"""1-nearest-neighbour error against scikit-learn and the published MNIST number; memorised samples."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vaegan_jax import data
from vaegan_jax.metrics import memorisation, nearest_neighbor_error


@pytest.fixture(scope="module")
def digits() -> tuple[data.Dataset, data.Dataset]:
    return data.load("digits"), data.load("digits", "test")


def test_error_is_sklearns(digits) -> None:
    train, test = digits
    model = KNeighborsClassifier(1, algorithm="brute").fit(train.x.reshape(len(train), -1) / 255, train.label)
    expected = 1 - model.score(test.x.reshape(len(test), -1) / 255, test.label)
    assert 0 < expected < 0.1
    assert nearest_neighbor_error(train.x, train.label, test.x, test.label) == pytest.approx(expected)
    floats = test.x.astype(np.float32) / 255
    assert nearest_neighbor_error(train.x, train.label, floats, test.label) == pytest.approx(expected)
    assert nearest_neighbor_error(train.x, train.label, train.x, train.label) == 0
    assert nearest_neighbor_error(train.x, train.label, train.x, (train.label + 1) % 10) == 1


@pytest.mark.slow
@pytest.mark.optimised
def test_error_on_mnist_is_the_known_one(mnist) -> None:
    """3.09 %, 1-NN on all 60,000 pixels, the number of every textbook."""
    train, test = mnist("train"), mnist("test")
    assert nearest_neighbor_error(train.x, train.label, test.x, test.label) == pytest.approx(0.0309, abs=1e-9)


def test_copies_are_told_from_fresh_draws() -> None:
    rng = np.random.default_rng(0)
    train, test, fresh = rng.normal(size=(400, 6)), rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    honest = memorisation(fresh, train, test)
    assert honest.ratio == pytest.approx(1, abs=0.1) and honest.nearer == pytest.approx(0.5, abs=0.07)
    copies = memorisation(train[::-1], train, test)
    assert (copies.ratio, copies.nearer) == (0, 1)
    np.testing.assert_array_equal(copies.row, np.arange(400)[::-1])
    half = memorisation(np.concatenate([train[:150], fresh[:150]]), train, test)
    assert half.nearer == pytest.approx(0.75, abs=0.07)
    assert memorisation(test, train, test).nearer == 0.5  # every tie counts half
    assert memorisation(fresh + 50, train, test).nearer == 0
    pairs = np.linalg.norm(fresh[:, None] - train[None], axis=2)
    np.testing.assert_allclose(honest.sample, pairs.min(axis=1), rtol=1e-12)


def test_bad_input(digits) -> None:
    train, test = digits
    with pytest.raises(ValueError, match=r"test_x has shape .*give examples of one shape"):
        nearest_neighbor_error(train.x, train.label, test.x[:, :4], test.label)
    with pytest.raises(ValueError, match=r"train_y has shape .* one label for each example"):
        nearest_neighbor_error(train.x, train.label[:5], test.x, test.label)
    with pytest.raises(ValueError, match="test_y has dtype float64: give integers"):
        nearest_neighbor_error(train.x, train.label, test.x, test.label.astype(float))
    with pytest.raises(ValueError, match=r"test_x lies in \[0, 255\] and the other set is uint8"):
        nearest_neighbor_error(train.x, train.label, test.x.astype(np.float32), test.label)
    with pytest.raises(ValueError, match="train_x has dtype int64"):
        nearest_neighbor_error(train.x.astype(np.int64), train.label, test.x, test.label)
    with pytest.raises(ValueError, match="samples has NaN"):
        memorisation(np.full((3, 8, 8, 1), np.nan), train.x, test.x)
    with pytest.raises(ValueError, match="Every test example lies in train"):
        memorisation(test.x, train.x, train.x[:9])
    with pytest.raises(ValueError, match="samples has 0 examples"):
        memorisation(test.x[:0], train.x, test.x)
