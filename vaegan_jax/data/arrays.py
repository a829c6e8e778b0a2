"""Array files of the user: `npz:PATH`, and `frey_faces`. Nothing is unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vaegan_jax.data.dataset import DataError, NoSplit
from vaegan_jax.data.splits import Arrays

FREY_TRAIN = 1600  # of 1,965, drawn as in Kingma's code, which shuffles them; the rest is `test`
_X, _LABEL = ("x", "images"), ("label", "labels", "y")


def load_npz(path: Path, split: str) -> Arrays:
    """`npz:PATH`: x as it is stored, label (classes [N], or attributes [N, A]) or None.

    Keys: `x` (or `images`) and, if there are labels, `label` (`labels`, `y`): one split, `train`; or the same with
    `_train`, `_test` (or any other split's name) behind them. Raises DataError for a missing key, Python objects
    inside, or a damaged file; NoSplit for a split that it does not have.
    """
    with _open(path) as archive:
        keys = list(archive.keys())
        named = {key.removeprefix(f"{base}_") for base in _X for key in keys if key.startswith(f"{base}_")} - {""}
        splits = named | {"train"} if any(base in keys for base in _X) else named
        if not splits:
            raise DataError(f"npz:{path} has no array 'x': its keys are {keys}; expected 'x', or 'x_train' and so on.")
        if split not in splits:
            raise NoSplit(
                f"npz:{path}",
                sorted(splits, key=_train_first),
                split,
                f" (its keys are {keys}; 'x_{split}' is not among them)",
            )
        suffix = f"_{split}" if split in named else ""
        x = next(_array(archive, f"{base}{suffix}", path) for base in _X if f"{base}{suffix}" in keys)
        label = next((_array(archive, f"{base}{suffix}", path) for base in _LABEL if f"{base}{suffix}" in keys), None)
    return x, label


def load_frey(path: Path, split: str) -> Arrays:
    """`frey_faces`: uint8 [1600, 28, 20, 1] (`train`) or [365, 28, 20, 1] (`test`), no labels.

    They are frames of a film, so the split is of a fixed permutation: its last frames are unlike all before them.

    `path`: an .npz with `images`, the original .mat with `ff` [560, 1965], or a folder that holds one of them.
    """
    if split not in ("train", "test"):
        raise NoSplit("frey_faces", ("train", "test"), split)
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
    order = np.random.default_rng(0).permutation(len(x))
    return x[order[:FREY_TRAIN] if split == "train" else order[FREY_TRAIN:]], None


def _frey_mat(path: Path) -> np.ndarray:
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=["ff"])
    except Exception as error:  # scipy raises many kinds for damaged files
        raise DataError(f"{path} is not a readable .mat file ({error}).") from error
    if "ff" not in content or content["ff"].ndim != 2 or content["ff"].shape[0] != 560:
        raise DataError(f"{path} does not hold 'ff' [560, 1965], one image of 28 x 20 a column.")
    return np.ascontiguousarray(content["ff"].T)


def _train_first(split: str) -> tuple[bool, str]:
    return split != "train", split


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        with open(path, "rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} is a single array, not an .npz; save it with np.savez(path, x=...).")
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the path of an .npz file.") from None
    except DataError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError):  # NumPy's text would advise allow_pickle
        raise DataError(f"{path} is not an npz file (damaged or truncated): write it again with np.savez.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; give the path of an .npz file.") from error
    return archive


def _array(archive: np.lib.npyio.NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = archive[key]
    except (ValueError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: {key!r} holds Python objects, which are refused; save numbers.") from None
        raise DataError(f"{path}: {key!r} cannot be read, it is damaged ({error}); write the file again.") from error
    if not isinstance(array, np.ndarray):  # a member of the zip that is no .npy
        raise DataError(f"{path}: {key!r} is not an array; write the file with np.savez.")
    return array
