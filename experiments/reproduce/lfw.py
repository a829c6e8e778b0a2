"""Labeled Faces in the Wild with Kumar et al. 2009's attributes, where a user has both: scores of 73 classifiers."""

import re
from pathlib import Path

import numpy as np

from experiments.reproduce import vaegan_faces
from experiments.reproduce.job import Job
from vaegan_jax.data import cache, images
from vaegan_jax.data.dataset import DataError, Dataset

NAME, LIST = "lfw", "lfw_attributes.txt"
HELD = 0.1
"""Of the people, as one of the data set's own ten folds."""


def load(job: Job) -> tuple[Dataset, Dataset]:
    """Training and test images of different people with their attributes, float32 [N, A]; of `train` where that is.

    Images without attributes are left out, as in the released code.

    Raises:
        DataError: no images, no list, or a list that fits none of the images.
    """
    folder = cache.root(job.data_dir) / NAME
    found = [place / LIST for place in (folder, folder.parent) if (place / LIST).is_file()]
    if not folder.is_dir() or not found:
        raise DataError(f"{folder} with LFW's images and {LIST} in it or beside it are needed: put both there.")
    x = job.load(vaegan_faces.source(job, NAME)).x
    return split(x, [file.stem for file in images.training_files(folder)], read(found[0]))


def read(file: Path) -> dict[str, np.ndarray]:
    """Aaron_Eckhart_0001 -> scores [A]: a line of names, `person` and `imagenum` first, then a line an image; tabs."""
    lines = [line.lstrip("#").split("\t") for line in file.read_text("utf-8", "replace").splitlines()]
    lines = [[word.strip() for word in words if word.strip()] for words in lines]
    start = next((i for i, words in enumerate(lines) if words[:2] == ["person", "imagenum"]), None)
    if start is None:
        raise DataError(f"{file} has no line that begins with person and imagenum: give LFW's own list.")
    width, scores = len(lines[start]), {}
    for person, number, *values in (words for words in lines[start + 1 :] if len(words) == width):
        try:
            scores[f"{person.replace(' ', '_')}_{int(number):04}"] = np.array(values, np.float32)
        except ValueError:
            raise DataError(
                f"{file} has {' '.join(values)[:40]!r} for {person} {number}: numbers are expected."
            ) from None
    return scores


def split(x: np.ndarray, names: list[str], scores: dict[str, np.ndarray]) -> tuple[Dataset, Dataset]:
    """x [N, ...] of `names`; a tenth of the people, by a fixed permutation, are the test set's.

    Raises DataError where fewer than two people have scores.
    """
    rows = [i for i, name in enumerate(names) if name in scores]
    people = np.array([re.sub(r"_\d+$", "", names[i]) for i in rows])
    known = np.unique(people)
    if len(known) < 2:
        raise DataError(
            f"{LIST} has scores of {len(rows)} of {len(names)} images, {len(known)} people: two are needed."
        )
    held = np.random.default_rng(0).permutation(known)[: max(1, round(HELD * len(known)))]
    test = np.isin(people, held)
    y = np.stack([scores[names[i]] for i in rows])

    def part(chosen: np.ndarray, name: str) -> Dataset:
        return Dataset(x[np.array(rows)[chosen]], y[chosen], NAME, name)

    return part(~test, "nine tenths of the people"), part(test, "a tenth of the people")
