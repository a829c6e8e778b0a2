"""Checks of what the metrics are given, one clear ValueError instead of a silent NaN, and sums over it in blocks.

N examples, D features.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

_BLOCK = 8192  # examples looked at together


def features(name: str, x: ArrayLike, *, least: int = 1, width: int | None = None) -> np.ndarray:
    """x as an array [N, D] of floating point, finite, with `least` examples and, if given, `width` features."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}: give [N, D] (flatten images: x.reshape(len(x), -1)).")
    if width is not None and x.shape[1] != width:
        raise ValueError(f"{name} has {x.shape[1]} features, the other set {width}: give both from one network.")
    if x.dtype.kind != "f":
        raise ValueError(f"{name} has dtype {x.dtype}: give float32 or float64 (uint8 images: x / 255).")
    return _enough(name, _finite(name, x), least)


def feature_pair(
    first: str, a: ArrayLike, second: str, b: ArrayLike, *, least: tuple[int, int] = (1, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features of one width, with at least so many examples each."""
    a = features(first, a, least=least[0])
    return a, features(second, b, least=least[1], width=a.shape[1])


def rows(name: str, x: ArrayLike, *, least: int = 1, uint8: bool = True) -> np.ndarray:
    """Examples [N, ...], finite floating point or, where allowed, uint8 images, as a view [N, D] of their own dtype."""
    x = np.asarray(x)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(f"{name} has shape {x.shape}: give [N, ...], one example a row.")
    if x.dtype.kind != "f" and not (uint8 and x.dtype == np.uint8):
        allowed = "uint8 images, or float32 or float64" if uint8 else "float32 or float64 (uint8 images: x / 255)"
        raise ValueError(f"{name} has dtype {x.dtype}: give {allowed}.")
    flat = x.reshape(len(x), math.prod(x.shape[1:]))  # -1 is unknown where N is 0
    return _enough(name, flat if x.dtype == np.uint8 else _finite(name, flat), least)


def row_pair(
    first: str, a: ArrayLike, second: str, b: ArrayLike, *, least: tuple[int, int] = (1, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of examples of one shape; where one is uint8, which counts as [0, 1], floats must lie there too."""
    shapes = np.shape(a), np.shape(b)
    a, b = rows(first, a, least=least[0]), rows(second, b, least=least[1])
    if shapes[0][1:] != shapes[1][1:]:
        raise ValueError(f"{second} has shape {shapes[1]}, {first} {shapes[0]}: give examples of one shape.")
    if (a.dtype == np.uint8) != (b.dtype == np.uint8):
        name, x = (second, b) if a.dtype == np.uint8 else (first, a)
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"{name} lies in [{low:.3g}, {high:.3g}] and the other set is uint8, read as [0, 1]: "
                "give images in [0, 1]."
            )
    return a, b


def probabilities(name: str, p: ArrayLike, shape: str, axes: int) -> np.ndarray:
    """p as float64 with `axes` axes (`shape` in words), at least 0 and summing to 1 over the last one."""
    p = np.asarray(p)
    if p.ndim != axes or 0 in p.shape:
        raise ValueError(f"{name} has shape {p.shape}: give {shape}, at least one of each.")
    if p.dtype.kind != "f":
        raise ValueError(f"{name} has dtype {p.dtype}: give probabilities in floating point.")
    p = p.astype(np.float64)
    if not np.isfinite(p).all():
        raise ValueError(f"{name} has NaN or infinite entries: drop those examples first.")
    off = float(np.abs(p.sum(axis=-1) - 1).max())
    if p.min() < 0 or off > 1e-3:
        raise ValueError(
            f"{name} are no probabilities (least {p.min():.3g}, sums off 1 by up to {off:.3g}): "
            "give a softmax's output."
        )
    return p


def labels(name: str, y: ArrayLike, n: int) -> np.ndarray:
    """y as integers [n]."""
    y = np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"{name} has shape {y.shape}: give [{n}], one label for each example.")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {y.dtype}: give integers.")
    return y


def count(name: str, value: int, least: int, most: int | None = None, because: str = "") -> int:
    """value as an int in least..most; `because` says what sets the upper limit."""
    bounds = f"from {least} to {most}{because}" if most is not None else f"of at least {least}"
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {value}: give a whole number {bounds}.")
    return int(value)


def positive(name: str, value: float) -> float:
    """value as a finite float above 0."""
    if not (isinstance(value, (int, float, np.number)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}: give a finite number above 0.")
    return float(value)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and scatter [D, D], the sum of (x - mean)(x - mean)^T: float64, centred before it is squared."""
    mean = sum(block.sum(axis=0) for block in blocks(x)) / len(x)
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for block in blocks(x):
        centred = block - mean
        scatter += centred.T @ centred
    return mean, scatter


def blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    """x in float64, some thousand rows at a time."""
    return (x[start : start + _BLOCK].astype(np.float64) for start in range(0, len(x), _BLOCK))


def _finite(name: str, x: np.ndarray) -> np.ndarray:
    for start in range(0, len(x), _BLOCK):
        good = np.isfinite(x[start : start + _BLOCK]).all(axis=1)
        if not good.all():
            raise ValueError(
                f"{name} has NaN or infinite entries, first in example {start + int(good.argmin())}: drop those first."
            )
    return x


def _enough(name: str, x: np.ndarray, least: int) -> np.ndarray:
    if len(x) < least:
        raise ValueError(f"{name} has {len(x)} examples: {least} or more are needed here.")
    return x
