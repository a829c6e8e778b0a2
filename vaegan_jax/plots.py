"""Pictures: every function returns a uint8 array [h, w, 3], and writes it as a PNG when a path is given.

Images are [n, H, W, C], float in [0, 1] or uint8; one channel is shown in grey, three or more as red, green, blue.
Grids are made with Pillow, curves with matplotlib; both are imported where they are used, and no display or pyplot
is touched. A picture appears under its name only when it is complete (one process at a
time draws it). Bad input: ValueError, one sentence.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Decode = Callable[[np.ndarray], ArrayLike]

_CELL = 56  # pixels a tile should have: legible, and a hundred of them fit on a page
_PAPER, _INK = 255, (60, 60, 60)
_BLUE, _GREY, _RED = "#2563a8", "#b4b8bf", "#d1495b"


def grid(
    images: ArrayLike,
    path: str | Path | None = None,
    *,
    columns: int | None = None,
    scale: int | None = None,
    pad: int = 1,
) -> np.ndarray:
    """Tiles, row by row. `scale` repeats pixels (None: tiles of about 56 pixels); `pad` is the gap in pixels.

    `columns` None: a nearly square grid without empty cells where the number of images has one.
    """
    tiles = _tiles(images, scale)
    n = len(tiles)
    columns = _columns(n) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns is {columns}: give 1 or more.")
    if pad < 0:
        raise ValueError(f"pad is {pad}: give 0 or more pixels.")
    return _finish(_assemble(tiles, min(columns, n), pad), path)


def reconstructions(
    x: ArrayLike, x_hat: ArrayLike, path: str | Path | None = None, *, columns: int = 10, scale: int | None = None
) -> np.ndarray:
    """Rows of examples x [n, H, W, C], each above the row of their reconstructions x_hat (same shape)."""
    return _pairs(x, x_hat, ("data", "model"), path, columns, scale)


def nearest(
    samples: ArrayLike,
    neighbours: ArrayLike,
    path: str | Path | None = None,
    *,
    columns: int = 10,
    scale: int | None = None,
) -> np.ndarray:
    """Rows of samples [n, H, W, C], each above the row of their nearest training examples (same shape)."""
    return _pairs(samples, neighbours, ("sample", "nearest"), path, columns, scale)


def manifold(decode: Decode, path: str | Path | None = None, *, n: int = 20, scale: int | None = None) -> np.ndarray:
    """A two-dimensional latent space as n x n images, with no gaps. Kingma & Welling 2013, figure 4.

    `decode(z [n * n, 2]) -> images`; z is the inverse Gaussian CDF of a regular grid on the unit square: the first
    latent grows to the right, the second upwards.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give 1 or more images a side.")
    quantiles = [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]
    z = np.array([(right, up) for up in reversed(quantiles) for right in quantiles], np.float32)
    images = _decoded(decode, z)
    return _finish(_assemble(_tiles(images, scale, cell=_CELL // 2), n, 0), path)


def interpolation(
    decode: Decode,
    z0: ArrayLike,
    z1: ArrayLike,
    n: int = 10,
    path: str | Path | None = None,
    *,
    scale: int | None = None,
) -> np.ndarray:
    """A row of n images on the straight line from z0 to z1, both included; [K] for one row, [P, K] for P rows."""
    start, end = np.asarray(z0, np.float32), np.asarray(z1, np.float32)
    if start.shape != end.shape or start.ndim not in (1, 2) or 0 in start.shape:
        raise ValueError(f"z0 has shape {start.shape} and z1 {end.shape}: give the same, [K] or [P, K].")
    if n < 2:
        raise ValueError(f"n is {n}: give 2 or more images a row.")
    start, end = np.atleast_2d(start)[:, None], np.atleast_2d(end)[:, None]
    t = np.linspace(0, 1, n, dtype=np.float32)[None, :, None]
    z = ((1 - t) * start + t * end).reshape(-1, start.shape[-1])
    return _finish(_assemble(_tiles(_decoded(decode, z), scale), n, 1), path)


def scatter(
    points: ArrayLike,
    path: str | Path | None = None,
    *,
    centres: ArrayLike | None = None,
    real: ArrayLike | None = None,
) -> np.ndarray:
    """Samples [n, 2] of a model over real points [m, 2] and the centres [k, 2] of their modes.

    The frame is that of the real points and centres, so that a stray sample does not shrink the picture; how many lie
    outside is written in it.
    """
    x = _finite(points, "points", 2)
    data = None if real is None else _finite(real, "real", 2)
    modes = None if centres is None else _finite(centres, "centres", 2)
    frame = [a for a in (data, modes) if a is not None] or [x]
    low, high = np.min([a.min(axis=0) for a in frame], axis=0), np.max([a.max(axis=0) for a in frame], axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) * 0.625, 1e-6)

    figure = new_figure(4.2, 4.2)
    axes = figure.subplots()
    size = float(np.clip(4000 / len(x), 3, 16))
    if data is not None:
        axes.scatter(*data.T, s=size, c=_GREY, linewidths=0, label="data")
    axes.scatter(*x.T, s=size, c=_BLUE, alpha=0.6, linewidths=0, label="model")
    if modes is not None:
        axes.scatter(*modes.T, s=40, c=_RED, marker="+", linewidths=1.2, label="centres")
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    outside = int((np.abs(x - middle) > half).any(axis=1).sum())
    if outside:
        axes.set_title(f"{outside:,} of {len(x):,} samples lie outside", fontsize=9, color="0.35", loc="left")
    if data is not None or modes is not None:
        legend = figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        for handle in legend.legend_handles:
            handle.set(sizes=[36], alpha=1)
    clean(axes, grid_lines=False)
    return render(figure, path)


def vectors(x: ArrayLike, path: str | Path | None = None) -> np.ndarray:
    """Vectors x [n, D] of any kind: points when D is 2, a histogram when D is 1, else the first 16 as lines."""
    array = _finite(x, "x")
    if array.shape[1] == 2:
        return scatter(array, path)
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    if array.shape[1] == 1:
        axes.hist(array[:, 0], bins=min(60, max(10, len(array) // 20)), color=_BLUE)
        axes.set(xlabel="value", ylabel="examples")
    else:
        for i, line in enumerate(array[:16]):
            axes.plot(line, color=_colormap(i / 15), linewidth=1.0, marker="." if len(line) < 20 else None)
        axes.set(xlabel="entry", ylabel="value")
        axes.set_title(f"{min(16, len(array))} of {len(array):,}", fontsize=9, color="0.35", loc="left")
        axes.margins(x=0.02)
    clean(axes)
    return render(figure, path)


def curves(
    metrics: Mapping[str, ArrayLike],
    steps: ArrayLike,
    path: str | Path | None = None,
    *,
    names: Mapping[str, str] | None = None,
    title: str | None = None,
    log_x: bool = False,
    band: str = "range",
) -> np.ndarray:
    """One panel a metric: its mean over seeds as a line, and lowest to highest ("range") or +- sd ("sd") as a band.

    `metrics` maps a name to values [S, T] or [T] at `steps` [T]; `names` gives titles (with the unit) instead of the
    names. Values that are not finite leave gaps.
    """
    at = np.asarray(steps, np.float64)
    if at.ndim != 1 or not at.size:
        raise ValueError(f"steps has shape {at.shape}: give [T] with T at least 1.")
    if not metrics:
        raise ValueError("There are no metrics to draw: give at least one.")
    if band not in ("range", "sd"):
        raise ValueError(f"band is {band!r}: give 'range' or 'sd'.")
    values = {name: np.atleast_2d(np.asarray(v, np.float64)) for name, v in metrics.items()}
    for name, v in values.items():
        if v.ndim != 2 or v.shape[1] != at.size or not v.shape[0]:
            raise ValueError(f"{name} has shape {np.shape(metrics[name])}: give [S, {at.size}], as there are steps.")

    columns = min(len(values), 3 if len(values) != 4 else 2)
    rows = math.ceil(len(values) / columns)
    figure = new_figure(3.3 * columns + 0.3, 2.4 * rows + (0.3 if title else 0.0))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for i, panel in enumerate(panels.flat):
        if i >= len(values):
            panel.remove()
            continue
        name = list(values)[i]
        v = np.where(np.isfinite(values[name]), values[name], np.nan)
        mean, low, high = _summary(v, band)
        panel.plot(at, mean, color=_BLUE, linewidth=1.5, marker="o" if at.size == 1 else None, markersize=4)
        if len(v) > 1:
            panel.fill_between(at, low, high, color=_BLUE, alpha=0.2, linewidth=0)
        panel.set_title((names or {}).get(name, name.replace("_", " ")), fontsize=10, loc="left")
        panel.margins(x=0.02)
        if log_x:
            panel.set_xscale("symlog" if at.min() <= 0 else "log")
        else:
            panel.xaxis.set_major_formatter(lambda s, _: thousands(s))
            panel.locator_params(axis="x", nbins=5)
        clean(panel)
        if i + columns >= len(values):  # the lowest of its column
            panel.set_xlabel("step", fontsize=9)
            panel.tick_params(labelbottom=True)
    seeds = max(len(v) for v in values.values())
    if seeds > 1:
        text = f"mean of {seeds} seeds; band: {'lowest to highest' if band == 'range' else '±1 sd'}"
        figure.supxlabel(text, fontsize=8, color="0.4", x=0.99, ha="right")
    if title:
        figure.suptitle(title, fontsize=11, x=0.012, ha="left", weight="bold")
    return render(figure, path)


def _tiles(images: ArrayLike, scale: int | None, cell: int = _CELL) -> np.ndarray:
    """Images as uint8 [n, h, w, 3], enlarged."""
    x = np.asarray(images)
    if x.ndim != 4 or 0 in x.shape:
        hint = "vectors are drawn by plots.vectors and plots.scatter" if x.ndim == 2 else "one channel is [n, H, W, 1]"
        raise ValueError(f"The images have shape {x.shape}: give [n, H, W, C] with at least one image ({hint}).")
    if x.dtype != np.uint8:
        if x.dtype.kind not in "bf" and "float" not in x.dtype.name:  # bfloat16's kind is V
            raise ValueError(f"The images have dtype {x.dtype}: give float in [0, 1], or uint8.")
        x = x.astype(np.float32)
        if not (x.min() >= -1e-3 and x.max() <= 1 + 1e-3):  # and for NaN
            raise ValueError(f"The images lie in [{x.min():.3g}, {x.max():.3g}]: give values in [0, 1] and no NaN.")
        x = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    x = np.repeat(x[..., :1], 3, axis=3) if x.shape[3] < 3 else x[..., :3]
    scale = max(1, round(cell / max(x.shape[1:3]))) if scale is None else scale
    if scale < 1:
        raise ValueError(f"scale is {scale}: give a whole number of 1 or more.")
    return x.repeat(scale, axis=1).repeat(scale, axis=2)


def _decoded(decode: Decode, z: np.ndarray) -> np.ndarray:
    images = np.asarray(decode(z))
    if len(images) != len(z):
        raise ValueError(f"decode gave {len(images)} images for {len(z)} latents: it must give one each.")
    return images


def _columns(n: int) -> int:
    """The smallest divisor of n from r to 1.6 r, r being its square root rounded up; r where there is none."""
    root = math.ceil(math.sqrt(n))
    return next((c for c in range(root, int(1.6 * root) + 1) if n % c == 0), root)


def _assemble(tiles: np.ndarray, columns: int, pad: int) -> np.ndarray:
    """Tiles [n, h, w, 3] with gaps and a border of `pad` pixels."""
    n, h, w, _ = tiles.shape
    rows = math.ceil(n / columns)
    page = np.full((rows * (h + pad) + pad, columns * (w + pad) + pad, 3), _PAPER, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = pad + i // columns * (h + pad), pad + i % columns * (w + pad)
        page[top : top + h, left : left + w] = tile
    return page


def _pairs(
    above: ArrayLike,
    below: ArrayLike,
    labels: tuple[str, str],
    path: str | Path | None,
    columns: int,
    scale: int | None,
) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    if np.shape(above) != np.shape(below):
        raise ValueError(
            f"The pictures {labels[0]} and {labels[1]} have shapes {np.shape(above)} and {np.shape(below)}."
        )
    if columns < 1:
        raise ValueError(f"columns is {columns}: give 1 or more.")
    tiles = _tiles(above, scale), _tiles(below, scale)
    n, h, w, _ = tiles[0].shape
    columns = min(columns, n)
    bands = []
    for start in range(0, n, columns):
        rows = []
        for row in tiles:
            row = row[start : start + columns]
            blank = np.full((columns - len(row), h, w, 3), _PAPER, np.uint8)
            rows.append(np.concatenate([row, blank]))
        bands.append(_assemble(np.concatenate(rows), columns, 1))
    gap = max(6, h // 8)
    font = ImageFont.load_default(13)
    margin = 12 + math.ceil(max(font.getlength(label) for label in labels))
    page = Image.new("RGB", (margin + bands[0].shape[1], sum(len(b) + gap for b in bands) - gap), (_PAPER,) * 3)
    draw = ImageDraw.Draw(page)
    top = 0
    for block in bands:
        page.paste(Image.fromarray(block), (margin, top))
        for i, label in enumerate(labels):
            draw.text((margin - 7, top + 1 + i * (h + 1) + h / 2), label, fill=_INK, font=font, anchor="rm")
        top += len(block) + gap
    return _finish(np.asarray(page), path)


def _finish(page: np.ndarray, path: str | Path | None) -> np.ndarray:
    """Write the picture aside and rename it; the folder is made when it is missing.

    What a kill leaves aside is written over by the run that goes on, which draws the same picture again.
    """
    if path is None:
        return page
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = (page[..., :1] == page).all()
    aside = path.with_name(f".{path.name}.aside")
    try:
        Image.fromarray(page[..., 0] if grey else page).save(aside, format="PNG")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return page


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of that size in inches, with no pyplot behind it."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Figure(figsize=(width, height), dpi=120, layout=layout, facecolor="white")


def render(figure: Any, path: str | Path | None) -> np.ndarray:
    """The figure as uint8 [H, W, 3], also written to `path` if given."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return _finish(np.asarray(canvas.buffer_rgba())[..., :3].copy(), path)


def clean(axes: Any, *, grid_lines: bool = True) -> None:
    """The look of every panel: no box, grey ticks, faint lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(labelsize=8, color="0.6", labelcolor="0.25")
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    if grid_lines:
        axes.grid(axis="y", color="0.9", linewidth=0.7)
        axes.set_axisbelow(True)


def _colormap(t: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.05 + 0.85 * t)


def thousands(step: float) -> str:
    """20000 -> 20k, 1500 -> 1.5k, 2e6 -> 2M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(step) >= unit:
            return f"{step / unit:g}{letter}"
    return f"{step:g}"


def _summary(v: np.ndarray, band: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper edge over the seeds of v [S, T]; NaN where no seed has a value."""
    masked = np.ma.masked_invalid(v)
    mean = masked.mean(axis=0).filled(np.nan)
    if band == "range":
        return mean, masked.min(axis=0).filled(np.nan), masked.max(axis=0).filled(np.nan)
    sd = masked.std(axis=0, ddof=min(1, len(v) - 1)).filled(np.nan)
    return mean, mean - sd, mean + sd


def _finite(values: ArrayLike, name: str, features: int | None = None) -> np.ndarray:
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or 0 in x.shape or (features is not None and x.shape[1] != features):
        raise ValueError(f"{name} has shape {x.shape}: give [n, {features or 'D'}] with at least one row.")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has NaN or infinite entries: they cannot be drawn.")
    return x
