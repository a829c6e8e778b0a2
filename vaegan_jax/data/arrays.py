"""Array files of the user: `npz:PATH`, and `frey_faces`. Nothing is unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vaegan_jax.data.dataset import DataError
from vaegan_jax.data.splits import Arrays

FREY_TRAIN = 1600  # of 1,965, as in the authors' code; the rest is `test`
_X, _LABEL = ("x", "images"), ("label", "labels", "y")


def load_npz(path: Path, split: str) -> Arrays:
    """`npz:PATH`: x as it is stored, label or None.

    Keys: `x` (or `images`) and, if there are labels, `label` (`labels`, `y`): one split, `train`; or the same with
    `_train`, `_test` (or any other split's name) behind them. Raises DataError for a missing key, Python objects
    inside, or a damaged file.
    """
    with _open(path) as archive:
        keys = list(archive.keys())
        splits = sorted({key.removeprefix(f"{base}_") for base in _X for key in keys if key.startswith(f"{base}_")})
        plain = any(base in keys for base in _X)
        if split not in ([*splits, "train"] if plain else splits):
            raise DataError(
                f"npz:{path} has no split {split!r}: its keys are {keys}; "
                f"expected 'x' (for the split 'train') or 'x_{split}'."
            )
        suffix = f"_{split}" if split in splits else ""
        x = next(_array(archive, f"{base}{suffix}", path) for base in _X if f"{base}{suffix}" in keys)
        label = next((_array(archive, f"{base}{suffix}", path) for base in _LABEL if f"{base}{suffix}" in keys), None)
    return x, label


def load_frey(path: Path, split: str) -> Arrays:
    """`frey_faces`: uint8 [1600, 28, 20, 1] (`train`: the first 1,600 frames) or [365, 28, 20, 1] (`test`), no labels.

    `path`: an .npz with `images`, the original .mat with `ff` [560, 1965], or a folder that holds one of them.
    """
    if split not in ("train", "test"):
        raise DataError(f"frey_faces has the splits 'train' and 'test'; got {split!r}.")
    if path.is_dir():
        names = ("frey_faces.npz", "frey_rawface.mat", "frey_faces.mat")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise DataError(
                f"frey_faces is not shipped and not in {path}; put {' or '.join(names[:2])} there, or give data_dir."
            )
        path = found[0]
    if not path.exists():
        raise DataError(
            f"frey_faces is not shipped, and {path} does not exist; give the file or its folder as data_dir."
        )
    if path.suffix == ".mat":
        x = _frey_mat(path)
    else:
        with _open(path) as archive:
            if "images" not in archive:
                raise DataError(f"{path} lacks the key 'images'; it has {list(archive.keys())}.")
            x = _array(archive, "images", path)
    if x.dtype != np.uint8 or x.size != len(x) * 560 or len(x) <= FREY_TRAIN:
        raise DataError(f"{path} holds {x.dtype} {list(x.shape)}; Frey faces are uint8 [1965, 28, 20, 1].")
    x = x.reshape(-1, 28, 20, 1)
    return x[:FREY_TRAIN] if split == "train" else x[FREY_TRAIN:], None


def _frey_mat(path: Path) -> np.ndarray:
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=["ff"])
    except Exception as error:  # scipy raises many kinds for damaged files
        raise DataError(f"{path} is not a readable .mat file ({error}).") from error
    if "ff" not in content or content["ff"].ndim != 2 or content["ff"].shape[0] != 560:
        raise DataError(f"{path} does not hold 'ff' [560, 1965], one image of 28 x 20 a column.")
    return np.ascontiguousarray(content["ff"].T)


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of an .npz file.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}).") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is a single array, not an .npz; save it with np.savez(path, x=...).")
    return archive


def _array(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: {key!r} cannot be read ({error}); Python objects are refused.") from error
