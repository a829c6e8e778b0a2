"""Toy mixtures: modes, moments, determinism."""

import jax
import numpy as np
import pytest

from vaegan_jax import data
from vaegan_jax.data import toy


def test_ring_has_its_centres_on_the_circle(key):
    points, centres = toy.ring(key, 100, modes=8, radius=2.0)
    assert points.shape == (100, 2)
    assert centres.shape == (8, 2)
    assert points.dtype == centres.dtype == np.float32
    angles = np.arange(8) * np.pi / 4
    np.testing.assert_allclose(centres, 2 * np.stack([np.cos(angles), np.sin(angles)], 1), atol=1e-6)


def test_grid_is_centred_with_the_spacing(key):
    points, centres = toy.grid(key, 100)
    assert points.shape == (100, 2)
    assert centres.shape == (25, 2)
    assert points.dtype == centres.dtype == np.float32
    assert {tuple(c) for c in np.asarray(centres).tolist()} == {
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }


@pytest.mark.parametrize(("make", "modes", "sd"), [(toy.ring, 8, 0.01), (toy.grid, 25, 0.05)])
def test_mixtures_have_equal_weights_and_the_stated_noise(make, modes, sd, key):
    n = 50_000
    points, centres = (np.asarray(a, np.float64) for a in make(key, n))
    distance = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    nearest = distance.argmin(1)
    noise = points - centres[nearest]
    np.testing.assert_allclose(noise.std(0), sd, rtol=0.02)
    np.testing.assert_allclose(noise.mean(0), 0, atol=5 * sd / np.sqrt(n))
    assert abs(np.mean(noise[:, 0] * noise[:, 1])) < 5 * sd**2 / np.sqrt(n)
    counts = np.bincount(nearest, minlength=modes)
    chi2 = ((counts - n / modes) ** 2 / (n / modes)).sum()
    assert chi2 < modes - 1 + 5 * np.sqrt(2 * (modes - 1))


def test_segments(key):
    points = np.asarray(toy.segments(key, 50_000, theta=0.25))
    assert points.shape == (50_000, 2)
    assert points.dtype == np.float32
    assert (points[:, 0] == 0.25).all()
    assert points[:, 1].min() >= 0
    assert points[:, 1].max() < 1
    np.testing.assert_allclose(np.quantile(points[:, 1], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)


def test_same_key_same_points_other_key_other_points(key):
    one, again = toy.ring(jax.random.clone(key), 50)[0], toy.ring(jax.random.clone(key), 50)[0]
    other = toy.ring(jax.random.key(1), 50)[0]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_under_jit(key):
    draw = jax.jit(lambda k: toy.grid(k, 10, side=3))
    points, centres = draw(jax.random.clone(key))
    np.testing.assert_allclose(points, toy.grid(jax.random.clone(key), 10, side=3)[0], atol=1e-6)
    assert centres.shape == (9, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: toy.ring(k, 0), "n is 0"),
        (lambda k: toy.ring(k, 5, modes=0), "modes is 0"),
        (lambda k: toy.ring(k, 5, sd=-1.0), "sd is -1.0"),
        (lambda k: toy.grid(k, 5, side=0), "side is 0"),
        (lambda k: toy.segments(k, -1, theta=0.0), "n is -1"),
    ],
)
def test_bad_arguments(call, message, key):
    with pytest.raises(ValueError, match=message):
        call(key)


@pytest.mark.parametrize(("name", "modes", "sd"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_mixtures_by_name(name, modes, sd):
    train, test = data.load(name), data.load(name, "test")
    _, centres = getattr(toy, name)(jax.random.key(7), 1)
    for dataset in (train, test):
        assert dataset.x.shape == (10_000, 2)
        assert dataset.x.dtype == np.float32
        assert dataset.label is None
        distance = np.linalg.norm(dataset.x[:, None] - np.asarray(centres)[None], axis=-1)
        assert np.bincount(distance.argmin(1), minlength=modes).min() > 0.8 * 10_000 / modes
        # Squared distance over sd^2 is chi-squared with 2 degrees of freedom: mean 2, sd of our mean 0.02.
        assert abs((distance.min(1) ** 2).mean() / sd**2 - 2) < 0.1
    assert data.load(name).sha256 == train.sha256
    assert not {row.tobytes() for row in train.x} & {row.tobytes() for row in test.x}
    assert np.array_equal(data.load(name, "train[10:20]").x, train.x[10:20])


def test_mixtures_by_name_refusals():
    with pytest.raises(data.DataError, match="ring has the splits 'train' and 'test'; got 'valid'"):
        data.load("ring", "valid")
    with pytest.raises(data.DataError, match="crop and resize are for uint8 images"):
        data.load("grid@resize=4")
    with pytest.raises(data.DataError, match="Did you mean 'grid'"):
        data.load("girds")


def test_float32_even_where_jax_defaults_to_64_bits(key):
    with jax.enable_x64(True):
        for array in (*toy.ring(jax.random.clone(key), 9), *toy.grid(jax.random.clone(key), 9)):
            assert array.dtype == np.float32
        assert toy.segments(jax.random.clone(key), 9, theta=0.5).dtype == np.float32


def test_reachable_from_data():
    assert data.toy is toy
    with pytest.raises(AttributeError, match="no attribute 'toyz'"):
        _ = data.toyz
