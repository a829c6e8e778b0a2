"""TFDS builders for the IDX sets, which need no TensorFlow: what they prepare, `tfds.data_source` reads.

TFDS's own MNIST encodes PNG with TensorFlow and shuffles. These store the pixels as they are
(`tfds.features.Tensor`), in the publisher's order, as array_record. `load` reads such a folder but does not need it
(our cache is faster); it is for input pipelines that speak TFDS or Grain:

    tfds.data_source("mnist:1.0.0", data_dir=prepare("mnist").parents[1])

The version is our own. TFDS reads a version that its code does not know from the folder's own description, while
its 3.0.1 would be decoded by TFDS's own features, which are others.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vaegan_jax.data import cache, prepared
from vaegan_jax.data.catalog import load
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.data.sources import FILES, SOURCES

OUR_VERSION = "1.0.0"


def prepare(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The TFDS folder of `mnist` or `fashion_mnist`, made from what `load` brings when it is not there yet (10 s).

    TFDS writes into another folder and renames it; the lock keeps two processes apart. Raises DataError as `load` does.
    """
    place = prepared.folders(data_dir, cache.root(data_dir))[-1]
    with cache.lock(cache.root(data_dir), f"{name}.tfds"):
        folder = place / name / OUR_VERSION
        if not (folder / "dataset_info.json").is_file():
            builder = make_builder(name, {split: load(name, split, data_dir=data_dir) for split in FILES}, place)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself
                builder.download_and_prepare()
    return folder


def make_builder(base: str, splits: dict[str, Dataset], place: Path) -> Any:
    """A `tfds.core.GeneratorBasedBuilder` over labelled images in memory."""
    import tensorflow_datasets as tfds

    shape = next(iter(splits.values())).x.shape[1:]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = base
        VERSION = tfds.core.Version(OUR_VERSION)

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Tensor(shape=shape, dtype=np.uint8),
                "label": tfds.features.Tensor(shape=(), dtype=np.int32),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{SOURCES[base].title}, pixels as published",
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(dataset) for split, dataset in splits.items()}

        def _generate_examples(self, dataset: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
            assert dataset.label is not None
            for index, (image, label) in enumerate(zip(dataset.x, dataset.label, strict=True)):
                yield index, {"image": image, "label": label}

    tfds.disable_progress_bar()
    return Builder(data_dir=str(place), file_format="array_record")
