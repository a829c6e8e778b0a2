"""Nearest neighbours and balls in blocks: those of all differences in float64."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vaegan_jax import data
from vaegan_jax.metrics import distances


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "ROWS", 32)
    monkeypatch.setattr(distances, "COLUMNS", 41)
    monkeypatch.setattr(distances, "ENTRIES", 500)


def _sets(seed: int, n: int, m: int, width: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) + shift, rng.normal(size=(m, width)) + shift


def _balls(queries: np.ndarray, centres: np.ndarray, squared_radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = ((queries[:, None] - centres[None]) ** 2).sum(axis=2) <= squared_radius
    return inside.sum(axis=1), inside.sum(axis=0)


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_nearest_are_those_of_all_differences(shift: float) -> None:
    a, b = _sets(0, 100, 300, 16, shift)
    squared, row = distances.nearest(a, b, 4)
    every = cdist(a, b, "sqeuclidean")
    np.testing.assert_array_equal(row, every.argsort(axis=1)[:, :4])
    np.testing.assert_allclose(squared, np.sort(every, axis=1)[:, :4], rtol=1e-12)


def test_blocks_change_nothing(request: pytest.FixtureRequest) -> None:
    a, b = _sets(1, 70, 90, 5)
    squared, row = distances.nearest(a, b, 3)
    own, _ = distances.nearest(b, b, 50, same=True)  # more than a block holds
    radius = distances.nearest(b, b, 5, same=True)[0][:, -1]
    balls, members = distances.within(a, b, radius)
    request.getfixturevalue("small_blocks")
    np.testing.assert_array_equal(distances.nearest(a, b, 3), (squared, row))
    np.testing.assert_array_equal(distances.nearest(b, b, 50, same=True)[0], own)
    for ours, whole in zip(distances.within(a, b, radius), (balls, members), strict=True):
        np.testing.assert_array_equal(ours, whole)
    for ours, whole in zip((balls, members), _balls(a, b, radius), strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_none_is_its_own_neighbour_but_its_copy_is() -> None:
    a, _ = _sets(2, 30, 1, 8)
    a[7] = a[20]
    squared, row = distances.nearest(a, a, 1, same=True)
    assert (row[:, 0] != np.arange(30)).all()
    assert (row[7, 0], row[20, 0]) == (20, 7)
    assert squared[7, 0] == squared[20, 0] == 0 and (np.delete(squared[:, 0], [7, 20]) > 0).all()
    assert (distances.nearest(a, a, 1)[0] == 0).all()


@pytest.mark.parametrize("spread", [3e-3, 1e-5, 1e-12])
def test_neighbours_far_below_float32s_error(spread: float) -> None:
    """Tight clusters far apart: |a|^2 - 2 a.b + |b|^2 in float32 sees every cluster as one point."""
    rng = np.random.default_rng(3)
    x = np.repeat(10 * rng.normal(size=(5, 6)), 60, axis=0) + spread * rng.normal(size=(300, 6))
    squared, _ = distances.nearest(x, x, 3, same=True)
    every = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(every, np.inf)
    np.testing.assert_allclose(squared, np.sort(every, axis=1)[:, :3], rtol=1e-12)
    radius = squared[:, -1] * (1 + 1e-9)  # off the boundary, where the order of a sum decides
    for ours, exact in zip(distances.within(x, x, radius), _balls(x, x, radius), strict=True):
        np.testing.assert_array_equal(ours, exact)


def test_the_boundary_is_inside() -> None:
    """Points of a lattice off the binary grid: distances that tie in mathematics tie here."""
    ticks = np.arange(6) * 0.1
    x = np.stack(np.meshgrid(ticks, ticks, ticks), axis=-1).reshape(-1, 3)
    radius = distances.nearest(x, x, 3, same=True)[0][:, -1]
    balls, members = distances.within(x, x, radius)
    exact = _balls(x, x, radius)
    np.testing.assert_array_equal(balls, exact[0])
    np.testing.assert_array_equal(members, exact[1])
    assert (members >= 4).all()  # itself and its three neighbours, the last on the boundary


@pytest.mark.parametrize(("width", "n"), [(2, 500), (37, 200), (1000, 60)])
def test_a_ball_holds_the_neighbour_that_it_reaches_to(width: int, n: int) -> None:
    """Radius and distance are one number, though measured among other pairs; so of float32's errors none is seen."""
    x, _ = _sets(6, n, 1, width)
    squared, row = distances.nearest(x, x, 3, same=True)
    _, members = distances.within(x, x, squared[:, -1])
    assert (members == 4).all()  # itself and its three neighbours
    every = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(row, every.argsort(axis=1)[:, 1:4])


def test_constant_sets() -> None:
    x = np.full((50, 12), 0.3)
    squared, _ = distances.nearest(x, x, 3, same=True)
    assert (squared == 0).all()
    balls, members = distances.within(x[:20], x, squared[:, -1])
    assert (balls == 50).all() and (members == 20).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale(scale: float) -> None:
    a, b = _sets(4, 40, 60, 7)
    np.testing.assert_array_equal(distances.nearest(a * scale, b * scale)[1], distances.nearest(a, b)[1])
    radius = distances.nearest(b, b, 3, same=True)[0][:, -1]
    expected = distances.within(a, b, radius)
    scaled = distances.within(a * scale, b * scale, radius * scale**2)
    np.testing.assert_array_equal(scaled[0], expected[0])


def test_equally_near_ones_come_in_their_order() -> None:
    x = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [5.0, 5.0]])
    assert distances.nearest(np.zeros((1, 2)), x, 3)[1].tolist() == [[0, 1, 2]]


def test_an_outlier_spoils_no_other_neighbour() -> None:
    a, b = _sets(5, 40, 60, 7)
    b[13] = 1e9
    np.testing.assert_array_equal(
        distances.nearest(a, b, 2)[1], cdist(a, b, "sqeuclidean").argsort(axis=1, kind="stable")[:, :2]
    )


def test_images_are_read_as_unit_floats() -> None:
    train, test = (data.load("digits", split).x.reshape(-1, 64) for split in ("train", "test"))
    squared, row = distances.nearest(test[:50], train)
    pairs = cdist(test[:50] / 255, train / 255)
    np.testing.assert_array_equal(row[:, 0], pairs.argmin(axis=1))
    np.testing.assert_allclose(np.sqrt(squared[:, 0]), pairs.min(axis=1), rtol=1e-6)
    copies = train[:20].astype(np.float32) / np.float32(255)
    assert (distances.nearest(copies, train)[0] == 0).all()
