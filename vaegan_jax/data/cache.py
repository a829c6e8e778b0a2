"""Our own cache: one file a split, mapped into memory, checked by its digest on every load.

A file holds three arrays in NumPy's format, one after another: a JSON text, the labels, and x last, so that x can be
mapped. It is written under another name and renamed when it is complete: who sees it, sees all of it.
"""

import contextlib
import json
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vaegan_jax.data.dataset import DataError, Dataset, digest
from vaegan_jax.data.splits import Arrays


def root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """`data_dir`, else `$VAEGAN_JAX_DATA`, else `$XDG_CACHE_HOME/vaegan_jax`, else `~/.cache/vaegan_jax`."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if own := os.environ.get("VAEGAN_JAX_DATA"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vaegan_jax"


def path(folder: Path, name: str, split: str) -> Path:
    """Where a split lives, under the cache's root; the name is reduced to what every file system takes."""
    safe = "".join(c if c.isalnum() or c in "-_.=,@" else "-" for c in name)
    return folder / "arrays" / f"{safe}.{split}.arrays"


def write(file: Path, arrays: Arrays, origin: str = "") -> None:
    """Writes beside `file`, then renames. `origin` is any text by which a later reader sees what it was made from."""
    x, label = arrays
    x, label = np.ascontiguousarray(x), None if label is None else np.ascontiguousarray(label)
    about = {"sha256": digest(x, label), "labelled": label is not None, "origin": origin}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.parent / f".{file.name}.{os.getpid()}.{uuid.uuid4().hex}"  # not mkstemp: others may read the cache
    try:
        with open(temporary, "xb") as stream:
            for array in (np.array(json.dumps(about)), np.zeros(0, np.int32) if label is None else label, x):
                np.save(stream, array, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read(file: Path, name: str, split: str) -> tuple[Dataset, str] | None:
    """(the full split, its origin); None when the file is not there.

    Raises DataError when it is damaged: unreadable, of another length, or not the bytes that were written.
    """
    try:
        with open(file, "rb") as stream:
            about = json.loads(str(np.load(stream, allow_pickle=False)))
            label = np.load(stream, allow_pickle=False)
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            start = stream.tell()
        x = np.memmap(file, dtype, "r", start, shape)
        if os.path.getsize(file) != start + x.nbytes:
            raise ValueError("it has another length than its header says")
        dataset = Dataset(x, label if about["labelled"] else None, name, split)
        if dataset.sha256 != about["sha256"]:
            raise ValueError("its digest does not match")
        return dataset, about["origin"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise DataError(f"the cached file {file} is damaged ({error}).") from error


def remember(file: Path, arrays: Arrays, origin: str = "") -> None:
    """`write`, but a folder that cannot be written costs a warning, not the data that are already here."""
    try:
        write(file, arrays, origin)
    except OSError as error:
        warnings.warn(
            f"{file} was not cached ({error.strerror or error}); set VAEGAN_JAX_DATA or data_dir.", stacklevel=3
        )


@contextlib.contextmanager
def lock(folder: Path, name: str) -> Iterator[None]:
    """One process at a time prepares `name`. Without file locks two may work, and the rename keeps them apart."""
    stream = None
    try:
        import fcntl

        (folder / "arrays").mkdir(parents=True, exist_ok=True)
        stream = open(folder / "arrays" / f".{name}.lock", "w")  # noqa: SIM115
        fcntl.flock(stream, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if stream is not None:
            stream.close()
