"""Pictures: the right pixels in the right places, and complete files only."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from vaegan_jax import plots


@pytest.fixture
def images() -> np.ndarray:
    """[6, 4, 5, 1]: image i is i / 5 everywhere."""
    return np.broadcast_to(np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1) / 5, (6, 4, 5, 1))


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(c) for c in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_grid_puts_every_pixel_in_its_place() -> None:
    x = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3)).astype(np.uint8)
    page = plots.grid(x, columns=3, scale=2, pad=2)
    assert (page.shape, page.dtype) == ((3 * 8 + 4 * 2, 3 * 10 + 4 * 2, 3), np.uint8)
    for i in range(7):
        top, left = 2 + i // 3 * 10, 2 + i % 3 * 12
        np.testing.assert_array_equal(page[top : top + 8 : 2, left : left + 10 : 2], x[i])
        np.testing.assert_array_equal(page[top + 1 : top + 8 : 2, left + 1 : left + 10 : 2], x[i])
    page[2:30, 2:36][np.ix_([r for r in range(28) if r % 10 < 8], [c for c in range(34) if c % 12 < 10])] = 255
    assert colours(page) == {(255, 255, 255)}  # gaps, border and empty cells are paper


def test_float_and_uint8_agree() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for same in (x / 255, (x / 255).astype(np.float32), jnp.asarray(x / 255), jnp.asarray(x)):
        np.testing.assert_array_equal(plots.grid(same, scale=1, pad=0)[..., 0], x[0, ..., 0])
    assert plots.grid(np.full((1, 8, 8, 1), 1.0005), pad=0).max() == 255  # rounding beyond 1 does not wrap


@pytest.mark.parametrize(
    ("channels", "shown"),
    [(1, (10, 10, 10)), (2, (10, 10, 10)), (3, (10, 20, 30)), (4, (10, 20, 30)), (7, (10, 20, 30))],
)
def test_channels(channels: int, shown: tuple[int, ...]) -> None:
    x = np.broadcast_to(10 * np.arange(1, channels + 1, dtype=np.uint8), (2, 3, 3, channels))
    assert colours(plots.grid(x, pad=0)) == {shown}


@pytest.mark.parametrize(("side", "cell"), [(8, 56), (28, 56), (32, 64), (64, 64), (300, 300), (1, 56)])
def test_small_images_are_enlarged(side: int, cell: int) -> None:
    assert plots.grid(np.zeros((1, side, side, 1)), pad=0).shape == (cell, cell, 3)


@pytest.mark.parametrize(
    ("n", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (7, 3, 3), (10, 2, 5), (20, 4, 5), (64, 8, 8), (100, 10, 10)]
)
def test_the_grid_is_nearly_square(n: int, rows: int, columns: int) -> None:
    assert plots.grid(np.zeros((n, 8, 8, 1)), scale=1, pad=0).shape == (8 * rows, 8 * columns, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_file_holds_the_array(tmp_path: Path, channels: int) -> None:
    x = np.random.default_rng(0).random((4, 8, 8, channels))
    path = tmp_path / "new" / "grid.png"
    page = plots.grid(x, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == ("L" if channels == 1 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), page)
    assert os.listdir(path.parent) == ["grid.png"]
    np.testing.assert_array_equal(plots.grid(x), page)


def test_a_failed_write_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    page = plots.grid(np.zeros((1, 8, 8, 1)), path)

    def torn(self: Image.Image, file: Any, **_: Any) -> None:
        Path(file).write_bytes(b"torn")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        plots.grid(np.ones((1, 8, 8, 1)), path)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), page)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((5, 2)), r"shape \(5, 2\).*plots.vectors"),
        (np.zeros((5, 8, 8)), r"one channel is \[n, H, W, 1\]"),
        (np.zeros((0, 8, 8, 1)), "at least one image"),
        (np.zeros((1, 8, 8, 1), np.int32), "dtype int32"),
        (np.full((1, 8, 8, 1), 1.2), r"lie in \[1.2, 1.2\]"),
        (np.full((1, 8, 8, 1), -1.0), "values in"),
        (np.full((1, 8, 8, 1), np.nan), "no NaN"),
    ],
)
def test_what_is_no_image_is_refused(bad: np.ndarray, words: str, tmp_path: Path) -> None:
    for draw in (plots.grid, lambda x, path: plots.reconstructions(x, x, path)):
        with pytest.raises(ValueError, match=words):
            draw(bad, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_bad_options(images: np.ndarray) -> None:
    cases: list[tuple[Any, str]] = [
        ({"columns": 0}, "columns is 0"),
        ({"scale": 0}, "scale is 0"),
        ({"pad": -1}, "pad is -1"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            plots.grid(images, **options)
    with pytest.raises(ValueError, match="shapes"):
        plots.reconstructions(images, images[:3])
    with pytest.raises(ValueError, match="columns is 0"):
        plots.nearest(images, images, columns=0)


@pytest.mark.parametrize("draw", [plots.reconstructions, plots.nearest])
def test_pairs_stand_one_above_the_other(draw: Callable[..., np.ndarray]) -> None:
    """Eight pairs, three a row: the second row of a pair of rows holds the partners; labels lie in the left margin."""
    above = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1) * np.ones((1, 20, 20, 1), np.uint8)
    page = draw(above, above + 100, columns=3, scale=1)
    margin = page.shape[1] - (3 * 21 + 1)
    for i in range(8):
        left, top = margin + 1 + i % 3 * 21, i // 3 * (2 * 21 + 1 + 6) + 1
        assert (page[top : top + 20, left : left + 20] == i).all()
        assert (page[top + 21 : top + 41, left : left + 20] == i + 100).all()
    assert (page[-41:, -20:] == 255).all()  # no ninth pair
    label = page[:, :margin]
    assert label.min() < 100  # ink
    assert (label[:, 0] == 255).all()
    assert (label[:, -1] == 255).all()


def test_manifold_asks_for_the_inverse_cdf_of_a_regular_grid() -> None:
    asked = []

    def decode(z: np.ndarray) -> np.ndarray:
        asked.append(z)
        return np.broadcast_to(norm.cdf(z)[:, None, None, :], (len(z), 4, 4, 2))[..., [0, 1, 1]]

    page = plots.manifold(decode, n=5, scale=1)
    (z,) = asked
    assert (z.shape, z.dtype) == ((25, 2), np.float32)
    np.testing.assert_allclose(np.unique(np.round(norm.cdf(z), 6)), [0.1, 0.3, 0.5, 0.7, 0.9], atol=1e-6)
    assert page.shape == (20, 20, 3)  # no gaps
    np.testing.assert_allclose(page[0, ::4, 0] / 255, [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.003)  # to the right
    np.testing.assert_allclose(page[::4, 0, 1] / 255, [0.9, 0.7, 0.5, 0.3, 0.1], atol=0.003)  # upwards


def test_interpolation_is_linear_with_both_ends() -> None:
    def decode(z: np.ndarray) -> jnp.ndarray:
        return jnp.broadcast_to(z[:, None, None, :1], (len(z), 8, 8, 1))

    z0, z1 = np.array([[0.0, 9], [1.0, 9]]), np.array([[1.0, 9], [0.5, 9]])
    page = plots.interpolation(decode, z0, z1, 5, scale=1)
    assert page.shape == (2 * 9 + 1, 5 * 9 + 1, 3)
    np.testing.assert_allclose(page[1, 1::9, 0] / 255, [0, 0.25, 0.5, 0.75, 1], atol=0.003)
    np.testing.assert_allclose(page[10, 1::9, 0] / 255, [1, 0.875, 0.75, 0.625, 0.5], atol=0.003)
    np.testing.assert_array_equal(plots.interpolation(decode, z0[0], z1[0], 5, scale=1), page[:10])


def test_bad_latents() -> None:
    with pytest.raises(ValueError, match=r"z0 has shape \(3,\) and z1 \(4,\)"):
        plots.interpolation(lambda z: z, np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="n is 1"):
        plots.interpolation(lambda z: z, np.zeros(3), np.zeros(3), 1)
    with pytest.raises(ValueError, match="n is 0"):
        plots.manifold(lambda z: z, n=0)
    with pytest.raises(ValueError, match="decode gave 1 images for 4 latents"):
        plots.manifold(lambda z: np.zeros((1, 8, 8, 1)), n=2)


def blue(page: np.ndarray) -> np.ndarray:
    """[h, w] bool: where the model's colour or a tint of it is."""
    r, b = page[..., 0].astype(int), page[..., 2].astype(int)
    return b - r > 60


def test_scatter_shows_points_where_they_are() -> None:
    corner = np.array([[1.0, 1.0]]) + 0.02 * np.random.default_rng(0).normal(size=(200, 2))
    real = np.array([[-1.0, -1], [1, 1]])
    rows, columns = np.nonzero(blue(plots.scatter(corner, real=real))[:420])  # above the legend
    page = plots.scatter(corner, real=real)
    assert rows.max() < page.shape[0] / 2 < columns.min()  # top right
    assert page.shape == (504, 504, 3)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the functions give to matplotlib: (name of the method, positional arguments or else those by name)."""
    from matplotlib.axes import Axes

    calls: list[tuple[str, Any]] = []
    for name in ("plot", "fill_between", "set_title", "set_xscale", "set"):

        def record(self: Any, *args: Any, _name: str = name, _real: Any = getattr(Axes, name), **kwargs: Any) -> Any:
            calls.append((_name, args or kwargs))
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(Axes, name, record)
    return calls


def test_scatter_keeps_its_frame_and_counts_what_lies_outside(drawn: list[tuple[str, Any]]) -> None:
    centres = np.array([[-1.0, 0], [1, 0]])
    plots.scatter(np.array([[0.0, 0], [50, 0], [0, -2]]), centres=centres)
    assert [args for name, args in drawn if name == "set_title"] == [("2 of 3 samples lie outside",)]
    assert [args["xlim"] for name, args in drawn if name == "set"] == [(-1.25, 1.25)]
    drawn.clear()
    plots.scatter(np.array([[0.0, 0], [50, 0]]))  # nothing to compare with: the frame is the samples' own
    assert [args["xlim"] for name, args in drawn if name == "set"] == [(-6.25, 56.25)]
    assert not [args for name, args in drawn if name == "set_title"]


@pytest.mark.parametrize("D", [1, 2, 3, 40])
def test_vectors_of_any_length(D: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, D))
    page = plots.vectors(x, tmp_path / "v.png")
    if D == 2:
        np.testing.assert_array_equal(page, plots.scatter(x))
    assert (page != 255).any(axis=2).sum() > 1000  # something is drawn
    with Image.open(tmp_path / "v.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), page)


def test_vectors_shows_sixteen(drawn: list[tuple[str, Any]]) -> None:
    x = np.random.default_rng(0).normal(size=(30, 5))
    plots.vectors(x)
    np.testing.assert_array_equal([args[0] for name, args in drawn if name == "plot"], x[:16])


@pytest.mark.parametrize("band", ["range", "sd"])
def test_curves_draw_the_mean_and_the_band(drawn: list[tuple[str, Any]], band: str) -> None:
    v, steps = np.random.default_rng(0).normal(size=(5, 30)), np.arange(30) * 100
    v[1, 3] = np.inf
    v[:, 7] = np.nan
    page = plots.curves({"elbo": v, "grad_norm": v[0]}, steps, names={"elbo": "ELBO (nats)"}, title="t", band=band)
    (_, (x, mean)), (_, (_, low, high)), (_, title), (_, (_, single)), (_, other) = drawn
    clean = np.where(np.isinf(v), np.nan, v)
    kept = np.arange(30) != 7
    np.testing.assert_array_equal(x, steps)
    np.testing.assert_allclose(mean[kept], np.nanmean(clean[:, kept], axis=0))
    assert np.isnan(mean[7])
    if band == "range":
        np.testing.assert_array_equal(low[kept], np.nanmin(clean[:, kept], axis=0))
        np.testing.assert_array_equal(high[kept], np.nanmax(clean[:, kept], axis=0))
    else:
        np.testing.assert_allclose((high - mean)[kept], np.nanstd(clean[:, kept], axis=0, ddof=1))
        np.testing.assert_allclose((mean - low)[kept], np.nanstd(clean[:, kept], axis=0, ddof=1))
    np.testing.assert_array_equal(single[kept], clean[0, kept])
    assert title + other == ("ELBO (nats)", "grad norm")
    assert blue(page).sum() > 300


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_one_panel_a_metric(drawn: list[tuple[str, Any]], count: int, tmp_path: Path) -> None:
    metrics = {f"m{i}": np.arange(4.0) for i in range(count)}
    page = plots.curves(metrics, [1, 2, 3, 4], tmp_path / "c.png", log_x=True)
    assert [args[0] for name, args in drawn if name == "set_title"] == list(metrics)
    assert {args[0] for name, args in drawn if name == "set_xscale"} == {"log"}
    with Image.open(tmp_path / "c.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), page)


def test_curves_with_one_step_or_nothing_finite() -> None:
    assert blue(plots.curves({"a": np.ones((3, 1))}, [100])).sum() > 10  # a dot
    assert blue(plots.curves({"a": np.full((2, 3), np.nan)}, [1, 2, 3])).sum() == 0


@pytest.mark.parametrize(
    ("metrics", "steps", "options", "words"),
    [
        ({}, [1], {}, "no metrics"),
        ({"a": [1.0]}, [], {}, "steps has shape"),
        ({"a": np.ones((2, 3))}, [1, 2], {}, r"a has shape \(2, 3\): give \[S, 2\]"),
        ({"a": [1.0]}, [1], {"band": "se"}, "band is 'se'"),
    ],
)
def test_bad_curves(metrics: Any, steps: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plots.curves(metrics, steps, **options)


def test_bad_points() -> None:
    with pytest.raises(ValueError, match=r"points has shape \(4, 3\): give \[n, 2\]"):
        plots.scatter(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"centres has shape \(2,\)"):
        plots.scatter(np.zeros((4, 2)), centres=np.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        plots.vectors(np.full((4, 3), np.nan))


def test_no_global_state_of_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    assert blue(plots.curves({"a": [1.0, 2.0]}, [1, 2])).sum() > 100


@pytest.mark.parametrize(("step", "text"), [(0, "0"), (500, "500"), (1500, "1.5k"), (20_000, "20k"), (2e6, "2M")])
def test_steps_are_short(step: float, text: str) -> None:
    assert plots.thousands(step) == text
