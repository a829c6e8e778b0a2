"""Folders that TFDS has prepared, read without TensorFlow; only `make` needs it."""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vaegan_jax.data import images
from vaegan_jax.data.dataset import DataError, NoSplit
from vaegan_jax.data.splits import Arrays

FORMAT = "array_record"


def folders(data_dir: str | os.PathLike[str] | None, cache_root: Path) -> list[Path]:
    """Where prepared folders are looked for: `data_dir` alone when given, else TFDS's own place and our cache."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    return [Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser(), cache_root / "tfds"]


def find(name: str, places: list[Path]) -> Path | None:
    """The folder of `name` (`celeb_a`, `lsun/bedroom`, `celeb_a:2.1.0`), or None.

    Of several: one in a format that we read, in the first of the places, of the newest version.
    """
    if not well_formed(name):
        return None
    base, _, version = name.partition(":")
    ranked = []
    for order, place in enumerate(places):
        # TFDS works in another folder and renames it, so one that holds `dataset_info.json` is complete.
        for file in (place / base).glob(f"{version or '*'}/dataset_info.json"):
            if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name):
                numbers = tuple(map(int, file.parent.name.split(".")))
                ranked.append((_about(file.parent).get("fileFormat") == FORMAT, -order, numbers, file.parent))
    return max(ranked)[-1] if ranked else None


def well_formed(name: str) -> bool:
    """Whether a set of TFDS could have this name: `celeb_a`, `lsun/bedroom`, `celeb_a:2.1.0`."""
    return ".." not in name and re.fullmatch(r"[A-Za-z]\w*(/[\w.-]+)*(:\d+\.\d+\.\d+)?", name) is not None


def recipe(name: str, place: Path) -> str:
    """The shell command that prepares a set in the folder `place`."""
    builder = f"tfds.builder({json.dumps(name)}, data_dir={json.dumps(str(place))}, file_format={json.dumps(FORMAT)})"
    return "python -c " + shlex.quote(f"import tensorflow_datasets as tfds; {builder}.download_and_prepare()")


def make(name: str, place: Path) -> bool:
    """Prepares a set in the folder `place`, as `recipe` would; False where TensorFlow is missing or TFDS lacks the set.

    Raises DataError when TFDS fails (no network, no space, a source that is gone).
    """
    if importlib.util.find_spec("tensorflow") is None:
        return False
    import tensorflow_datasets as tfds

    try:
        with _quiet(), contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself; its progress is on stderr
            tfds.builder(name, data_dir=str(place), file_format=FORMAT).download_and_prepare()
    except tfds.core.DatasetNotFoundError:
        return False
    except Exception as error:  # TFDS and its sources raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"TFDS could not prepare {name!r} in {place} ({type(error).__name__}: {reason}).") from error
    return True


def _about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}/dataset_info.json is damaged ({error}); prepare the set again.") from error


def origin(folder: Path) -> str:
    """A text that changes when the folder is prepared anew."""
    return hashlib.sha256((folder / "dataset_info.json").read_bytes()).hexdigest()


def load(folder: Path, split: str, options: images.Options, name: str) -> Arrays:
    """(uint8 [N, H, W, C], int32 [N] or None) of a whole split.

    The images are the feature `image`, else the only feature that is one; labels the integer feature `label`, if any.
    Raises NoSplit, and DataError for a folder in another format than array_record, or without images.
    """
    about = _about(folder)
    splits = [entry["name"] for entry in about.get("splits", [])]
    if split not in splits:
        raise NoSplit(name, splits, split)
    if about.get("fileFormat") != FORMAT:
        raise DataError(
            f"{folder} was prepared as {about.get('fileFormat', 'tfrecord')}, which needs TensorFlow to read; "
            "prepare it again with file_format='array_record'."
        )
    try:
        with _quiet():
            return _read(folder, split, options, name)
    except DataError:
        raise
    except Exception as error:  # TFDS and array_record raise many kinds for damaged files
        raise DataError(f"{folder} cannot be read ({type(error).__name__}: {error}); prepare it again.") from error


def _read(folder: Path, split: str, options: images.Options, name: str) -> Arrays:
    import tensorflow_datasets as tfds

    # What `tfds.data_source(name)` does once it has found this folder, without looking for a builder's code.
    builder = tfds.builder_from_directory(str(folder))
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    pictures = [k for k, f in features.items() if len(f.shape or ()) == 3 and np.dtype(f.np_dtype) == np.uint8]
    if not pictures or (len(pictures) > 1 and "image" not in pictures):
        raise DataError(f"{name} has no feature 'image' of uint8 [H, W, C]; its features are {list(features)}.")
    key = "image" if "image" in pictures else pictures[0]
    labels = features.get("label")
    numeric = labels is not None and labels.shape == () and np.dtype(labels.np_dtype).kind in "iu"
    source = builder.as_data_source(split=split)
    total = len(source)
    label = np.zeros(total, np.int32) if numeric else None

    def each() -> Iterator[tuple[str, np.ndarray]]:
        for start in range(0, total, 1000):
            rows = range(start, min(start + 1000, total))
            for index, example in zip(rows, source.__getitems__(list(rows)), strict=True):
                if label is not None:
                    label[index] = example["label"]
                yield f"example {index}", np.asarray(example[key])

    return images.stack(each(), total, options, name), label


def attributes(folder: Path, split: str, count: int) -> dict[str, np.ndarray]:
    """CelebA's `attributes`, booleans by name: bool [count] each, of a split's first examples; {} for other sets.

    Raises DataError for a folder that cannot be read, and where there is no first example.
    """
    try:
        import tensorflow_datasets as tfds

        with _quiet():
            builder = tfds.builder_from_directory(str(folder))
            if "attributes" not in builder.info.features:
                return {}
            source = builder.as_data_source(split=split)
            rows = [source[i]["attributes"] for i in range(min(count, len(source)))]
    except Exception as error:  # as in `load`
        raise DataError(f"{folder} cannot be read ({type(error).__name__}: {error}); prepare it again.") from error
    if not rows:
        raise DataError(
            f"{folder} has {len(source)} examples of {split!r}, and attributes of the first {count} were asked for: "
            "give a split with examples, and a count of 1 or more."
        )
    return {name: np.array([bool(row[name]) for row in rows]) for name in rows[0]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS advises OpenCV and announces itself through absl's log; a reader of ours did not ask."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
