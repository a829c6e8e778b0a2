"""What the targets' figures share: colours, a line with its band, a band's legend, rows of pictures with names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from experiments.reproduce import results
from vaegan_jax import plots
from vaegan_jax.metrics.evaluation import number

BLUE, GREEN, RED, CYAN, GREY = "#2563a8", "#3a8f5c", "#d1495b", "#2aa7c9", "#8a8f98"
SHADES = ("#8fb8de", "#4b86c2", "#153e6f")
"""Of one quantity at several times, early to late."""
_PAPER, _INK = 255, 60


def band(
    axes: Any, x: ArrayLike, values: ArrayLike, color: str, label: str = "", *, log: bool = False, **style: Any
) -> None:
    """Values [S, T] at x [T]: their mean over seeds as a line, lowest to highest as a band; nothing of no seeds.

    log: the geometric mean, for a logarithmic axis, on which the other one is the largest seed's.
    """
    v = np.asarray(values, np.float64)
    if not len(v):
        return
    middle = np.exp(np.log(v).mean(axis=0)) if log else v.mean(axis=0)
    axes.plot(x, middle, color=color, label=label or None, **({"linewidth": 1.5} | style))
    if len(v) > 1:
        axes.fill_between(x, v.min(axis=0), v.max(axis=0), color=color, alpha=0.2, linewidth=0)


def lines(axes: Any, x: ArrayLike, values: ArrayLike, color: str) -> None:
    """Values [S, T] at x [T]: a thin line a seed on the band from lowest to highest; where seeds part, their mean is
    nobody's. Nothing of no seeds."""
    v = np.asarray(values, np.float64)
    if len(v):
        axes.fill_between(x, v.min(axis=0), v.max(axis=0), color=color, alpha=0.15, linewidth=0)
    for one in v:
        axes.plot(x, one, color=color, linewidth=1.1)


def points(
    axes: Any, x: ArrayLike, values: ArrayLike, color: str, label: str, marker: str = "o", size: float = 4.5
) -> None:
    """Values [S, T] at x [T]: their mean as points, lowest to highest as bars."""
    v = np.asarray(values, np.float64)
    mean = v.mean(axis=0)
    reach = np.stack([mean - v.min(axis=0), v.max(axis=0) - mean])
    axes.errorbar(
        x, mean, reach, fmt=marker, color=color, label=label, markersize=size, markerfacecolor="white",
        markeredgewidth=1.3, elinewidth=1.0, zorder=3,
    )  # fmt: skip


def seeds(figure: Any, n: int, where: str = "") -> None:
    """Says in the corner what line, band and bar are, of those that the figure has; where: of which panels."""
    from matplotlib.collections import PolyCollection

    log = any(axes.get_yscale() == "log" for axes in figure.axes)
    there = {
        "bands": any(isinstance(each, PolyCollection) for axes in figure.axes for each in axes.collections),
        "bars": any(axes.containers for axes in figure.axes),
    }
    mean = f"mean of {n} seeds" + (" (geometric where the vertical axis is logarithmic)" if log else "")
    reach = " and ".join(name for name, drawn in there.items() if drawn)
    text = where + mean + (f"; {reach}: lowest to highest" if reach else "")
    figure.supxlabel(text, fontsize=8, color="0.4", x=0.99, ha="right")


def spread(values: ArrayLike, digits: int = 3) -> str:
    """`0.810 +- 0.021`: mean and deviation over seeds, for a table; of one value so many digits; a few, if they
    deviate by more than their mean, each."""
    v = np.asarray(values, np.float64)
    if not v.size:
        return "-"
    deviation = v.std(ddof=1) if v.size > 1 else 0.0
    if results.speak_for_themselves(v):
        return ", ".join(f"{value:.{digits}g}" for value in v)
    return number(float(v.mean()), float(deviation)) if deviation else f"{v.mean():.{digits}g}"


def standard_error(seeds: Sequence[ArrayLike]) -> str:
    """Over examples, mean over seeds, as text: seeds, each one's values of the examples [N]."""
    each = [np.asarray(values, np.float64) for values in seeds]
    errors = [values.std(ddof=1) / np.sqrt(values.size) for values in each]
    return f"{np.mean(errors):.2g}" if errors else "-"


def paired_error(a: Mapping[int, Any], b: Mapping[int, Any], name: str) -> str:
    """The same of the difference between two models, example by example: a, b, by seed what has `name` [N]."""
    return standard_error([np.subtract(a[seed][name], b[seed][name]) for seed in a if seed in b])


def panels(
    rows: Sequence[tuple[str, np.ndarray]], path: Path, *, columns: int, titles: Sequence[str] = (), scale: int = 2
) -> None:
    """Pictures with a name to the left of each row and, where wanted, above each column.

    rows: (name, images [n, H, W, C] in [0, 1] or uint8), each on as many lines of `columns` tiles as it needs.

    titles: one a column, turned upright where they do not fit.
    """
    blocks = [plots.grid(images, columns=columns, scale=scale) for _, images in rows]
    font = ImageFont.load_default(13)
    left = max(int(font.getlength(name)) for name, _ in rows) + 12 if any(name for name, _ in rows) else 0
    tile = scale * rows[0][1].shape[2] + 1
    upright = any(font.getlength(title) > tile for title in titles)
    longest = max((int(font.getlength(title)) for title in titles), default=0)
    top = (longest + 8 if upright else 20) if titles else 0
    gap = 6 if any(name for name, _ in rows) else -1  # a grid's border of one pixel is shared
    height = top + sum(len(block) + gap for block in blocks) - gap
    page = Image.new("RGB", (left + max(block.shape[1] for block in blocks), height), (_PAPER,) * 3)
    pen = ImageDraw.Draw(page)
    for i, title in enumerate(titles):
        centre = left + i * tile + tile // 2
        if upright:
            strip = Image.new("RGB", (longest + 4, 18), (_PAPER,) * 3)
            ImageDraw.Draw(strip).text((0, 9), title, fill=(_INK,) * 3, font=font, anchor="lm")
            page.paste(strip.rotate(90, expand=True), (centre - 9, top - longest - 8))
        else:
            pen.text((centre, 10), title, fill=(_INK,) * 3, font=font, anchor="mm")
    y = top
    for (name, _), block in zip(rows, blocks, strict=True):
        page.paste(Image.fromarray(block), (left, y))
        pen.text((left - 7, y + len(block) / 2), name, fill=(_INK,) * 3, font=font, anchor="rm")
        y += len(block) + gap
    colours = np.asarray(page)
    grey = bool((colours[..., :1] == colours).all())
    (page.convert("L") if grey else page).save(path)
