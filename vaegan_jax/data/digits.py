"""`digits`: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, read from its wheel. No download.

The file is read without importing scikit-learn's own loaders (2.5 s). It knows no test set; ours is every seventh
example (index % 7 == 6: 256 examples, 7 being prime to the period of 10 in the labels), the other 1,541 are `train`.
No image occurs twice. Pixels 0..16 become round(255 * v / 16).
"""

import importlib.util
import io
from pathlib import Path

import numpy as np

from vaegan_jax.data import idx
from vaegan_jax.data.dataset import DataError, NoSplit
from vaegan_jax.data.splits import Arrays

MD5 = "a0339c30a8a5312a1b6f9e5c719dcce5"  # of the decompressed file


def load(split: str) -> Arrays:
    """(uint8 [N, 8, 8, 1], int32 [N]) of `train` or `test`."""
    if split not in ("train", "test"):
        raise NoSplit("digits", ("train", "test"), split)
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("digits is read from scikit-learn's wheel, which is not installed; `pip install scikit-learn`.")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    data = idx.read(file)
    idx.check_md5(data, MD5, "digits.csv from scikit-learn")
    table = np.loadtxt(io.BytesIO(data), delimiter=",")
    test = np.arange(len(table)) % 7 == 6
    table = table[test if split == "test" else ~test]
    x = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return x, table[:, -1].astype(np.int32)
