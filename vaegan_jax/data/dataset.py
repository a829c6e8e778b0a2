"""`Dataset`: what `load` returns, and the one error that this room raises on purpose."""

import hashlib
from dataclasses import dataclass

import numpy as np


class DataError(ValueError):
    """The data cannot be had as asked; the message says what was given, what is expected and what to do."""


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays has no single truth value; compare `sha256`
class Dataset:
    """Examples in memory (perhaps mapped from a file), read-only.

    x: uint8 `[N, H, W, C]` images in 0..255, or finite float32 `[N, D]` vectors.
       N is 0 only where an empty slice was asked for; `load` refuses an empty set.
    label: int32 `[N]`, or None.
    name, split: as they were asked for.
    sha256: of the arrays' bytes, shapes and dtypes, so equal digests mean equal data; left out, it is computed.

    Raises DataError when an array has another dtype or shape.
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
    """x and label as `Dataset` wants them: C-ordered, float vectors as float32, integer labels as int32.

    Raises DataError for another rank or dtype, a side of 0, values that are not finite, labels that do not fit.
    """
    x = np.asarray(x)
    given = f"{x.dtype} {list(x.shape)}"
    if x.dtype == np.uint8 and x.ndim == 3:
        x = x[..., None]
    images = x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3)
    vectors = x.dtype in (np.float16, np.float32, np.float64) and x.ndim == 2
    if not (images or vectors) or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: x is {given}, but uint8 images [N, H, W] or [N, H, W, C] with C = 1 or 3, or float vectors "
            "[N, D], are expected; convert images with (255 * x).round().astype('uint8')."
        )
    if vectors:
        x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise DataError(
                f"{name}: x {given} holds values that are not finite as float32; remove or repair those rows."
            )
    if label is not None:
        label = np.asarray(label)
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
