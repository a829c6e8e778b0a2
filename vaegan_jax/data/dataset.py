"""`Dataset`: what `load` returns, and the errors that this room raises on purpose."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


class DataError(ValueError):
    """The data cannot be had as asked; the message says what was given, what is expected and what to do."""


class NoSplit(DataError):
    """The data set is there and whole, but has no such split. `splits`: those that it has."""

    def __init__(self, name: str, splits: Iterable[str], asked: str, hint: str = "") -> None:
        self.splits = tuple(splits)
        listed = " and ".join(map(repr, self.splits)) if len(self.splits) < 3 else ", ".join(map(repr, self.splits))
        if asked == "all":
            hint = f" (for all of it write {'+'.join(self.splits)!r})"
        super().__init__(f"{name} has the split{'s' * (len(self.splits) != 1)} {listed}; got {asked!r}{hint}.")


class NotPrepared(DataError):
    """It may be a set of TFDS, but no folder of it is prepared here."""


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays has no single truth value; compare `sha256`
class Dataset:
    """Examples in memory (perhaps mapped from a file), read-only.

    x: `[N, H, W, C]` images, C 1 or 3, uint8 in 0..255 or float32 in [0, 1], or finite float32 `[N, D]` vectors.
       N is 0 only where an empty slice was asked for; `load` refuses an empty set.
    label: int32 `[N]`, float32 `[N, A]` of attributes, or None.
    name, split: as they were asked for.
    sha256: of the arrays' bytes, shapes and dtypes, so equal digests mean equal data; left out, it is computed.

    Raises DataError when an array has another dtype, shape or range.
    """

    x: np.ndarray
    label: np.ndarray | None = None
    name: str = "array"
    split: str = "train"
    sha256: str = ""

    def __post_init__(self) -> None:
        x, label = check(self.x, self.label, self.name)
        object.__setattr__(self, "x", _read_only(x))
        object.__setattr__(self, "label", None if label is None else _read_only(label))
        if not self.sha256:
            object.__setattr__(self, "sha256", digest(x, label))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:  # the generated one would print the arrays
        labels = "no labels" if self.label is None else "labels"
        return (
            f"Dataset({self.name!r}, {self.split!r}, x={self.x.dtype}{list(self.x.shape)}, {labels}, "
            f"sha256={self.sha256[:12]}...)"
        )


def check(x: np.ndarray, label: np.ndarray | None, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """x and label as `Dataset` wants them: C-ordered, floats as float32, images with a channel axis, labels as int32,
    attributes as float32.

    Raises DataError for another rank or dtype, a side of 0, values that are not finite, float images outside [0, 1],
    labels that do not fit.
    """
    x = np.asarray(x)
    given = f"{x.dtype} {list(x.shape)}"
    floats = x.dtype in (np.float16, np.float32, np.float64)
    if (floats or x.dtype == np.uint8) and x.ndim == 3:
        x = x[..., None]
    images = (floats or x.dtype == np.uint8) and x.ndim == 4 and x.shape[-1] in (1, 3)
    if not (images or (floats and x.ndim == 2)) or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: x is {given}, but images [N, H, W] or [N, H, W, C] with C = 1 or 3, uint8 or float in [0, 1], "
            "or float vectors [N, D], are expected; convert x to one of them."
        )
    if floats:
        with np.errstate(over="ignore"):  # what does not fit is infinite, and refused
            x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise DataError(
                f"{name}: x {given} holds values that are not finite as float32; remove or repair those rows."
            )
        if images and len(x) and (x.min() < 0 or x.max() > 1):
            raise DataError(
                f"{name}: x is {given} with values from {x.min():.6g} to {x.max():.6g}, but float images lie in "
                "[0, 1]; scale them, such as x / 255 or (x + 1) / 2."
            )
    if label is not None and np.ndim(label) == 2 and np.asarray(label).dtype.kind == "f":
        attributes = np.asarray(label, np.float32)
        if len(attributes) != len(x) or not attributes.shape[1] or not np.isfinite(attributes).all():
            raise DataError(
                f"{name}: label is float {list(attributes.shape)}: finite attributes for each of the {len(x)} examples "
                f"are expected, [{len(x)}, A]."
            )
        label = np.ascontiguousarray(attributes)
    elif label is not None:
        label = np.asarray(label)
        if label.ndim == 2 and len(label) == len(x):
            raise DataError(f"{name}: label is {label.dtype} {list(label.shape)}: give attributes [N, A] as floats.")
        if label.shape != (len(x),) or label.dtype.kind not in "iu":
            raise DataError(
                f"{name}: label is {label.dtype} {list(label.shape)}, but one integer for each of the "
                f"{len(x)} examples is expected, [{len(x)}]."
            )
        if len(label) and (label.min() < np.iinfo(np.int32).min or label.max() > np.iinfo(np.int32).max):
            raise DataError(f"{name}: labels from {label.min()} to {label.max()} do not fit in int32; renumber them.")
        label = np.ascontiguousarray(label, np.int32)
    return np.ascontiguousarray(x), label


def digest(x: np.ndarray, label: np.ndarray | None) -> str:
    """sha256 (hex) of dtypes, shapes and bytes of x and label."""
    state = hashlib.sha256()
    for array in (x,) if label is None else (x, label):
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view(np.ndarray)  # a view, so that the caller's own array stays writeable
    view.flags.writeable = False
    return view
