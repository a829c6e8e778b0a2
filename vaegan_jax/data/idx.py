"""The IDX format of MNIST and its relatives: bytes to arrays and back, and folders of such files."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from vaegan_jax.data.dataset import DataError, NoSplit
from vaegan_jax.data.sources import FILES
from vaegan_jax.data.splits import Arrays


def decode(data: bytes, name: str) -> np.ndarray:
    """IDX bytes -> uint8 array. Raises DataError (naming `name`) for another magic number, type or length."""
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(
            f"{name} is not an IDX file: it starts with {data[:4].hex() or 'nothing'}, expected 0000 08 and the rank."
        )
    kind, rank = data[2], data[3]
    if kind != 8 or not 1 <= rank <= 4:
        raise DataError(
            f"{name} holds IDX type {kind:#04x} of rank {rank}; only unsigned bytes (0x08), rank 1 to 4, are read."
        )
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataError(
            f"{name} is truncated: {len(data)} bytes do not hold the header of {start}; fetch the file again."
        )
    shape = struct.unpack(f">{rank}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        what = "truncated" if len(data) < expected else "too long"
        raise DataError(
            f"{name} is {what}: {len(data)} bytes, but shape {list(shape)} needs {expected}; fetch it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def encode(array: np.ndarray) -> bytes:
    """uint8 array -> IDX bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def read(path: Path) -> bytes:
    """The file's bytes, decompressed when it is gzip. Raises DataError when it is missing or damaged."""
    try:
        return decompress(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def decompress(data: bytes, name: str) -> bytes:
    """gzip or plain bytes -> plain bytes. Raises DataError when a gzip is truncated or damaged."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file ({error}); fetch it again.") from error


def split_arrays(files: dict[str, bytes], split: str, name: str) -> Arrays:
    """The decompressed files of one split, by file name -> (uint8 [N, H, W, 1], int32 [N])."""
    images, labels = FILES[split]
    x, label = decode(files[images], f"{name}: {images}"), decode(files[labels], f"{name}: {labels}")
    if x.ndim not in (3, 4) or label.ndim != 1 or len(x) != len(label):
        raise DataError(f"{name}: images {list(x.shape)} and labels {list(label.shape)} do not belong together.")
    return (x[..., None] if x.ndim == 3 else x), label.astype(np.int32)


def check_md5(data: bytes, expected: str, name: str) -> None:
    """Raises DataError unless the bytes have that MD5."""
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{name} has MD5 {found} once decompressed, expected {expected}: damaged, or another file.")


def members_digest(x: np.ndarray, label: np.ndarray) -> str:
    """sha256 over the sorted digests of the examples: equal for two orders of the same examples."""
    one = sorted(hashlib.sha256(bytes([int(y)]) + row.tobytes()).digest() for row, y in zip(x, label, strict=True))
    return hashlib.sha256(b"".join(one)).hexdigest()


def find(folder: Path, name: str) -> Path | None:
    """The file `name`, or `name`.gz, in the folder. (Some publishers write `.idx3` for `-idx3`.)"""
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def load_path(path: Path, split: str) -> Arrays:
    """`idx:PATH`: a folder with the four files of MNIST's names, or one image file (then `train`, without labels)."""
    if path.is_dir():
        if split not in FILES:
            raise NoSplit(f"idx:{path}", FILES, split)
        found = {file: find(path, file) for file in FILES[split]}
        missing = [file for file, where in found.items() if where is None]
        if missing:
            raise DataError(f"idx:{path} lacks {' and '.join(missing)} (or .gz); put the files into that folder.")
        return split_arrays({file: read(where) for file, where in found.items() if where}, split, f"idx:{path}")
    if not path.exists():
        raise DataError(f"idx:{path} does not exist; give a folder of IDX files or one file of images.")
    if split != "train":
        raise NoSplit(f"idx:{path}, a single file,", ("train",), split)
    x = decode(read(path), str(path))
    if x.ndim not in (3, 4):
        raise DataError(f"{path} holds an array {list(x.shape)}; images [N, H, W] are expected.")
    return (x[..., None] if x.ndim == 3 else x), None
