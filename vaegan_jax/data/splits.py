"""Splits as TFDS slices: `train`, `train[:50_000]`, `train[10%:]`, `train[-1000:]`, `train+test`.

TFDS's `all` is not taken, since the sets of users may have any splits: the error says which to join.
"""

import re

import numpy as np

from vaegan_jax.data.dataset import DataError

Arrays = tuple[np.ndarray, np.ndarray | None]  # x, label

_NUMBER = r"-?\d+(?:_\d+)*%?"
_PART = re.compile(rf"(?P<name>\w+)(\[(?P<start>{_NUMBER})?:(?P<stop>{_NUMBER})?\])?")


def parse(split: str) -> list[tuple[str, str | None, str | None]]:
    """`"train[10%:]+test"` -> `[("train", "10%", None), ("test", None, None)]`. Raises DataError for nonsense."""
    parts = []
    for text in str(split).split("+"):
        match = _PART.fullmatch(text.strip())
        if match is None:
            raise DataError(
                f"split {split!r} is not understood; expected a name with an optional slice, joined by +, "
                "such as 'train', 'train[:50000]', 'train[10%:]' or 'train+test'."
            )
        parts.append((match["name"], match["start"], match["stop"]))
    return parts


def bounds(part: tuple[str, str | None, str | None], total: int, name: str) -> tuple[int, int]:
    """First and last + 1 index of one part of a split that holds `total` examples; percentages round to the closest.

    An absolute bound beyond the end clips, as in Python, so a part may be empty (`train[:0]`). Raises DataError when
    a percentage is outside of -100..100, or the part runs backwards (`train[20:10]`).
    """
    split, start, stop = part
    first = 0 if start is None else _position(start, total, name)
    last = total if stop is None else _position(stop, total, name)
    if first > last:
        text = f"{split}[{start or ''}:{stop or ''}]"
        raise DataError(f"split {text!r} of {name} runs backwards: it is {first}:{last} of {total} examples.")
    return first, last


def _position(text: str, total: int, name: str) -> int:
    if text.endswith("%"):
        percent = int(text[:-1])
        if abs(percent) > 100:
            raise DataError(f"split bound {text!r} of {name} is outside of -100%..100%.")
        position = round(percent * total / 100)
    else:
        position = max(-total, min(int(text), total))
    return position + total if text.startswith("-") else position


def concatenate(pieces: list[Arrays]) -> Arrays:
    """The pieces one after another; a single piece is not copied."""
    if len(pieces) == 1:
        return pieces[0]
    labels = [label for _, label in pieces if label is not None]
    return np.concatenate([x for x, _ in pieces]), np.concatenate(labels) if len(labels) == len(pieces) else None
