"""What CelebA says of its faces: from the list beside a user's images, or from TFDS's prepared set."""

from pathlib import Path

import numpy as np

from experiments.reproduce.job import Job
from vaegan_jax.data import cache, images, prepared
from vaegan_jax.data.dataset import DataError

LISTS = ("list_attr_celeba.txt", "list_attr_celeba.csv")
"""As released, and as on Kaggle."""
SELECTED = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Bushy_Eyebrows", "Eyeglasses", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mustache", "Pale_Skin", "Rosy_Cheeks", "Smiling", "Straight_Hair", "Wavy_Hair",
    "Wearing_Lipstick", "Young",
)  # fmt: skip
"""The 18 attributes of Larsen et al.'s released code."""


NAME = "celeb_a"


def attributes(job: Job, count: int) -> dict[str, np.ndarray]:
    """Attribute -> bool [N] of the first `count` images, in the order in which they are loaded.

    {} where there are none. Raises DataError for a list that lacks an image.
    """
    folder = cache.root(job.data_dir) / NAME
    if folder.is_dir():
        found = [f for f in (place / file for place in (folder, folder.parent) for file in LISTS) if f.is_file()]
        return read(found[0], images.training_files(folder)[:count]) if found else {}
    place = prepared.find(NAME, prepared.folders(job.data_dir, cache.root(job.data_dir)))
    return prepared.attributes(place, "train", count) if place else {}


def read(file: Path, pictures: list[Path]) -> dict[str, np.ndarray]:
    """A list's attributes of some pictures: a line of names, then lines of a file's name and 1 or -1 for each."""
    lines = [line.replace(",", " ").split() for line in file.read_text().splitlines()]
    start = next((i for i, words in enumerate(lines) if SELECTED[0] in words), None)
    if start is None:
        raise DataError(f"{file} has no line with the names of attributes ({SELECTED[0]}, ...); give CelebA's own.")
    names = [word for word in lines[start] if word != "image_id"]
    flags = {words[0]: words[1:] for words in lines[start + 1 :] if len(words) == 1 + len(names)}
    if missing := [picture.name for picture in pictures if picture.name not in flags]:
        raise DataError(f"{file} lacks {len(missing):,} of {len(pictures):,} images, {missing[0]} first.")
    table = np.array([flags[picture.name] for picture in pictures]) == "1"
    return dict(zip(names, table.T, strict=True))
