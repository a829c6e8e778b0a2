"""What the targets' figures share: colours, a line with its band, a band's legend."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax.metrics.evaluation import number

BLUE, GREEN, RED, CYAN, GREY = "#2563a8", "#3a8f5c", "#d1495b", "#2aa7c9", "#8a8f98"
SHADES = ("#8fb8de", "#4b86c2", "#153e6f")
"""Of one quantity at several times, early to late."""


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


def points(axes: Any, x: ArrayLike, values: ArrayLike, color: str, label: str, marker: str = "o") -> None:
    """Values [S, T] at x [T]: their mean as points, lowest to highest as bars."""
    v = np.asarray(values, np.float64)
    mean = v.mean(axis=0)
    reach = np.stack([mean - v.min(axis=0), v.max(axis=0) - mean])
    axes.errorbar(
        x, mean, reach, fmt=marker, color=color, label=label, markersize=4.5, markerfacecolor="white",
        markeredgewidth=1.3, elinewidth=1.0, zorder=3,
    )  # fmt: skip


def seeds(figure: Any, n: int) -> None:
    """Says in the corner what line and band are."""
    text = f"mean of {n} seeds (geometric where the vertical axis is logarithmic); bands and bars: lowest to highest"
    figure.supxlabel(text, fontsize=8, color="0.4", x=0.99, ha="right")


def spread(values: ArrayLike, digits: int = 3) -> str:
    """`0.810 +- 0.021`: mean and deviation over seeds, for a table; of one value so many digits."""
    v = np.asarray(values, np.float64)
    if not v.size:
        return "-"
    deviation = v.std(ddof=1) if v.size > 1 else 0.0
    return number(float(v.mean()), float(deviation)) if deviation else f"{v.mean():.{digits}g}"
