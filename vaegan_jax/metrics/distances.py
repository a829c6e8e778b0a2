"""Nearest neighbours and points within balls, in blocks on the device, without the matrix of all distances.

|a|^2 - 2 a.b + |b|^2 in float32 is fast, and wrong by about 1e-6 of |a|^2 + |b|^2: enough to move a duplicate off
distance 0, or a neighbour out of its own ball. So the products only sort the pairs into those that are certain and
those within the error; the latter are measured by differences in float64. The results are those of float64
throughout: an exact duplicate is at 0, and equal distances compare as equal.

Examples are rows [N, D] of float32 or float64, or of uint8, which is read as [0, 1]. Callers check them (`inputs`).
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import logs

ENTRIES = 2**22  # numbers of a block of examples, and of differences, at once
ROWS, COLUMNS = 1024, 8192  # a block of distances at most
_SPARE = 4  # candidates beyond k: their distance shows that none was missed
_ROUNDING = 2.0**-24


def nearest(queries: np.ndarray, x: np.ndarray, k: int = 1, *, same: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Squared Euclidean distances and rows of the k examples of x [M, D] nearest to each query [N, D]: [N, k] twice.

    Nearest first, float64 and int64; of equally near ones the lower row comes first, save among more than k + 4.
    same: queries are x itself, and none is its own neighbour. k at most M (M - 1 if same).
    """
    others = len(x) - same
    kept = min(k + _SPARE, others)
    scale = _Scale(queries, x)
    values = [np.full((len(rows), kept), -np.inf, np.float32) for rows in _ranges(len(queries), ROWS)]
    best = [(jnp.asarray(v), jnp.full(v.shape, -1, jnp.int32)) for v in values]
    waiting = [
        (*scale(queries, rows), jnp.asarray(rows if same else np.full(len(rows), -1), jnp.int32))
        for rows in _ranges(len(queries), ROWS)
    ]
    blocks = list(_ranges(len(x), _columns(x)))
    for at in logs.steps(len(blocks), "nearest neighbours, blocks of examples"):
        b, nb = scale(x, blocks[at])
        before = best
        best = [
            _merge(a, na, b, nb, own, blocks[at].start, *found, slack=scale.slack)
            for (a, na, own), found in zip(waiting, best, strict=True)
        ]
        jax.block_until_ready(before)  # one block behind: a step is then over, and the device does not wait
    bound = np.concatenate([-np.asarray(v)[:, -1] for v, _ in best]).astype(np.float64)
    row = np.concatenate([np.asarray(r) for _, r in best]).astype(np.int64)
    i = np.repeat(np.arange(len(queries)), kept)
    squared = _measure(queries, i, x, row.ravel()).reshape(-1, kept)
    order = np.lexsort((row, squared), axis=1)[:, :k]
    squared, row = np.take_along_axis(squared, order, axis=1), np.take_along_axis(row, order, axis=1)
    if kept < others:
        # A candidate left out is no nearer than the last one's lower bound, unless that is below the k-th distance.
        doubtful = np.flatnonzero((squared[:, -1] > bound * scale.unit**2) & (squared[:, -1] > 0))
        step = max(1, ENTRIES // len(x))
        for start in range(0, len(doubtful), step):
            some = doubtful[start : start + step]
            squared[some], row[some] = _all_pairs(queries, some, x, k, same)
    return squared, row


def within(queries: np.ndarray, centres: np.ndarray, squared_radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which balls (centres [M, D], squared_radius [M]) hold which queries [N, D], the boundary included.

    Returns ([N] the number of balls that hold each query, [M] the number of queries in each ball), int64.
    """
    scale = _Scale(queries, centres)
    balls, members = np.zeros(len(queries), np.int64), np.zeros(len(centres), np.int64)
    waiting = [(rows, *scale(queries, rows)) for rows in _ranges(len(queries), ROWS)]
    blocks = list(_ranges(len(centres), _columns(centres)))
    for at in logs.steps(len(blocks), "balls, blocks of centres"):
        columns = blocks[at]
        b, nb = scale(centres, columns)
        squares = (squared_radius[columns.start : columns.stop] / scale.unit**2).astype(np.float32)
        for rows, a, na in waiting:
            in_row, in_column, doubtful, any_doubt = _inside(a, na, b, nb, squares, slack=scale.slack)
            balls[rows.start : rows.stop] += np.asarray(in_row)
            members[columns.start : columns.stop] += np.asarray(in_column)
            if any_doubt:
                i, j = np.nonzero(np.asarray(doubtful))
                i, j = i + rows.start, j + columns.start
                held = _measure(queries, i, centres, j) <= squared_radius[j]
                balls += np.bincount(i[held], minlength=len(queries))
                members += np.bincount(j[held], minlength=len(centres))
    return balls, members


class _Scale:
    """Rows as float32 around the reference set's mean, in a unit in which no square overflows; with their norms."""

    def __init__(self, queries: np.ndarray, x: np.ndarray) -> None:
        self.centre = _double(x[:COLUMNS]).mean(axis=0)
        largest = max(1.0 if part.dtype == np.uint8 else float(np.abs(part).max()) for part in (queries, x))
        self.unit = (largest + float(np.abs(self.centre).max())) or 1.0
        # Rounding of the entries and norms, and a walk of D roundings in the product, of |a|^2 + |b|^2 >= 2 |a.b|.
        self.slack = _ROUNDING * (16 + 4 * float(np.sqrt(x.shape[1])))

    def __call__(self, x: np.ndarray, rows: range) -> tuple[jax.Array, jax.Array]:
        centred = (_double(x[rows.start : rows.stop]) - self.centre) / self.unit
        norms = np.einsum("nd,nd->n", centred, centred)
        return jnp.asarray(centred, jnp.float32), jnp.asarray(norms, jnp.float32)


def _estimate(a: jax.Array, na: jax.Array, b: jax.Array, nb: jax.Array, slack: float) -> tuple[jax.Array, jax.Array]:
    """Squared distances [n, m] in float32 and their largest error."""
    norms = na[:, None] + nb[None, :]
    # The highest precision: the default of a GPU or TPU keeps 10 bits or fewer.
    return norms - 2 * jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST), slack * norms


@partial(jax.jit, static_argnames="slack")
def _merge(
    a: jax.Array,
    na: jax.Array,
    b: jax.Array,
    nb: jax.Array,
    own: jax.Array,
    start: int,
    values: jax.Array,
    rows: jax.Array,
    *,
    slack: float,
) -> tuple[jax.Array, jax.Array]:
    """The candidates so far (minus lower bounds, largest first, and rows) with those of one more block."""
    squared, error = _estimate(a, na, b, nb, slack)
    here = start + jnp.arange(len(b), dtype=jnp.int32)
    lower = jnp.where(own[:, None] == here[None, :], jnp.inf, squared - error)
    found, at = jax.lax.top_k(-lower, min(values.shape[1], len(b)))
    values, at_merged = jax.lax.top_k(jnp.concatenate([values, found], axis=1), values.shape[1])
    return values, jnp.take_along_axis(jnp.concatenate([rows, start + at], axis=1), at_merged, axis=1)


@partial(jax.jit, static_argnames="slack")
def _inside(
    a: jax.Array, na: jax.Array, b: jax.Array, nb: jax.Array, squares: jax.Array, *, slack: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Of one block: balls that surely hold each query, queries surely in each ball, the doubtful pairs, if any."""
    squared, error = _estimate(a, na, b, nb, slack)
    error = error + 2 * _ROUNDING * squares[None, :]
    beyond = squared - squares[None, :]
    inside, doubtful = beyond < -error, jnp.abs(beyond) <= error
    return inside.sum(axis=1), inside.sum(axis=0), doubtful, doubtful.any()


def _measure(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2 of pairs of rows [P], [P] in float64, by differences and always summed in the same order."""
    out = np.empty(len(i))
    step = max(1, ENTRIES // a.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        difference = _double(a[i[part]]) - _double(b[j[part]])
        out[part] = np.einsum("pd,pd->p", difference, difference)
    return out


def _all_pairs(
    queries: np.ndarray, some: np.ndarray, x: np.ndarray, k: int, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` of a few queries by differences alone: where more than k + 4 examples are near within the error."""
    columns = np.arange(len(x))
    squared = _measure(queries, np.repeat(some, len(x)), x, np.tile(columns, len(some))).reshape(-1, len(x))
    if same:
        squared[np.arange(len(some)), some] = np.inf
    row = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, row, axis=1), row


def _double(x: np.ndarray) -> np.ndarray:
    """float64; uint8 by way of float32, so that an image equals its own float32 copy in [0, 1]."""
    return (x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x).astype(np.float64)


def _columns(x: np.ndarray) -> int:
    return max(1, min(COLUMNS, ENTRIES // x.shape[1]))


def _ranges(n: int, step: int) -> Iterator[range]:
    return (range(start, min(start + step, n)) for start in range(0, n, step))
