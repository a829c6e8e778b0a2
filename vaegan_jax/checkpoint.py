"""Training states on disk: `save`, `restore`, `steps`. The only file that knows Orbax; nothing is pickled.

    folder/12000/leaves.json   every leaf's path in the tree, dtype, shape and crc32
    folder/12000/arrays/       Orbax's own folder: the leaves as NumPy arrays under these paths

A state is any pytree: flax.struct dataclasses, optax's NamedTuples, dicts, None, empty containers. Its structure is not
stored; it comes from the template given to `restore`, and so do static fields (`pytree_node=False`). One process writes
to a folder at a time, and the whole state is addressable from it.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LEAVES, _ARRAYS = "leaves.json", "arrays"
_ASIDE = ".aside-"  # folders being written or deleted: `steps` never sees them, the next `save` removes them
_SCALARS = (bool, int, float, complex)


def steps(folder: str | Path) -> list[int]:
    """The complete checkpoints in `folder`, ascending; [] when there is none, or no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and (p / _LEAVES).is_file())


def save(folder: str | Path, step: int, state: Any, *, keep: int | None = 3) -> None:
    """Write `state` to `folder/step`, return when it is on disk, and keep only the last `keep` steps (None: all).

    A kill at any moment leaves either the complete step or none: everything is written aside, then renamed. A step that
    is there already is replaced. The step just written is never deleted, even where later ones exist.

    Raises ValueError for a negative step, for keep < 1 and for a leaf that is neither array, key nor number;
    NotADirectoryError when `folder` is a file.
    """
    if step < 0:
        raise ValueError(f"The step is {step}: give a step of 0 or more.")
    if keep is not None and keep < 1:
        raise ValueError(f"keep is {keep}: give 1 or more, or None to keep every checkpoint.")
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: checkpoints need a folder.")
    leaves = _flatten(state)
    for path, leaf in leaves.items():
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, *_SCALARS)):
            raise ValueError(f"The leaf {path or 'state'} is a {type(leaf).__name__}: only arrays, keys and numbers.")
    kinds = {path: _kind(leaf) for path, leaf in leaves.items()}
    data = jax.device_get({path: jax.random.key_data(v) if _is_key(v) else v for path, v in leaves.items()})
    arrays = {path: np.asarray(v) for path, v in data.items()}
    for path, array in arrays.items():
        if array.dtype.kind in "OSUM":
            raise ValueError(f"The leaf {path or 'state'} has dtype {array.dtype}: only numbers are saved.")

    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(_ASIDE + "*"):  # of a run that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    aside, final = folder / f"{_ASIDE}{step}", folder / str(step)
    aside.mkdir()
    with _checkpointer() as (checkpointer, args):
        # Orbax saves neither an empty tree nor an array without elements: a format number is always there.
        tree = {"format": np.array(1), **{path: a for path, a in arrays.items() if a.size}}
        checkpointer.save(aside / _ARRAYS, args=args.PyTreeSave(tree))
    records = [
        {"path": p, "dtype": kinds[p][0], "shape": kinds[p][1], "crc32": _crc32(a), "key": _key_impl(leaves[p])}
        for p, a in arrays.items()
    ]
    lines = ",\n".join(json.dumps(record) for record in records)
    with open(aside / _LEAVES, "w") as file:
        file.write(f'{{"format": 1, "step": {step}, "leaves": [\n{lines}\n]}}\n')
        file.flush()
        os.fsync(file.fileno())
    if final.exists():
        final.rename(folder / f"{_ASIDE}old-{step}")
    aside.rename(final)
    _sync(folder)

    surplus = [] if keep is None else [s for s in steps(folder)[:-keep] if s != step]
    for old in surplus:  # renamed first, so that a half-deleted step is never visible
        (folder / str(old)).rename(folder / f"{_ASIDE}old-{old}")
    for old in {step, *surplus}:
        shutil.rmtree(folder / f"{_ASIDE}old-{old}", ignore_errors=True)


def restore(folder: str | Path, template: Any, step: int | None = None) -> Any:
    """The state saved at `step` (None: the last one), with the structure and the static fields of `template`.

    The template's leaves are arrays, `jax.ShapeDtypeStruct`s or Python numbers; their values do not matter. Leaves come
    back as JAX arrays on the default device, equal in bytes and dtype; a 64-bit leaf that JAX cannot hold (x64 is off)
    as a NumPy array; a Python number as such.

    Raises FileNotFoundError when there is no such checkpoint; ValueError, naming the first leaves that differ (path,
    saved, expected), when the template has other leaves, and when the files are damaged.
    """
    folder = Path(folder).absolute()
    found = steps(folder)
    if not found:
        raise FileNotFoundError(f"There is no checkpoint in {folder}.")
    step = found[-1] if step is None else step
    if step not in found:
        raise FileNotFoundError(f"There is no checkpoint of step {step} in {folder}: there are {_shorten(found)}.")
    path = folder / str(step)
    try:
        records = {r["path"]: r for r in json.loads((path / _LEAVES).read_text())["leaves"]}
        saved = {p: (str(r["dtype"]), tuple(r["shape"])) for p, r in records.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(path, error)) from error

    wanted = _flatten(template)
    expected = {p: _kind(leaf) for p, leaf in wanted.items()}
    differ = [p for p in dict.fromkeys([*expected, *saved]) if saved.get(p) != expected.get(p)]
    if differ:
        shown = "; ".join(
            f"{p or 'state'}: saved {_show(saved.get(p))}, expected {_show(expected.get(p))}" for p in differ[:3]
        )
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise ValueError(
            f"The checkpoint {path} does not fit the template ({len(differ)} leaves differ): {shown}{more}."
        )

    try:
        with _checkpointer() as (checkpointer, args):
            arrays = checkpointer.restore(path / _ARRAYS, args=args.PyTreeRestore())
        leaves = [_revive(arrays, records[p], leaf) for p, leaf in wanted.items()]
    except Exception as error:  # whatever Orbax and TensorStore raise on broken files
        raise ValueError(_damaged(path, error)) from error
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _revive(arrays: dict[str, np.ndarray], record: dict[str, Any], like: Any) -> Any:
    """One leaf as it was; `like` is the template's leaf of the same dtype and shape."""
    dtype, shape = np.dtype(type(like)) if isinstance(like, _SCALARS) else like.dtype, tuple(record["shape"])
    if _is_key(like):
        empty = np.zeros(jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, dtype)).shape, np.uint32)
    else:
        empty = np.zeros(shape, dtype)
    array = arrays[record["path"]] if empty.size else empty
    if (array.shape, array.dtype, _crc32(array)) != (empty.shape, empty.dtype, record["crc32"]):
        raise ValueError(f"the bytes of the leaf {record['path'] or 'state'} are not those that were saved")
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(array), impl=record["key"])
    if isinstance(like, _SCALARS) and not isinstance(like, np.generic):  # np.float64 is a float, too
        return array.item()
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        return array
    if getattr(like, "weak_type", False) and not shape:  # a strong one would make a jitted step trace again
        return jnp.asarray(array.item())
    return jnp.array(array)  # a copy: the state will be donated


def _flatten(state: Any) -> dict[str, Any]:
    """The leaves by their path, such as `.generator.params['Dense_0']['kernel']`."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_impl(leaf: Any) -> str | None:
    return str(jax.random.key_impl(leaf)) if _is_key(leaf) else None


def _kind(leaf: Any) -> tuple[str, tuple[int, ...]]:
    """What must be equal in a template: ("float32", (784, 500)), ("key<fry>", ()), or ("Python int", ())."""
    if isinstance(leaf, _SCALARS) and not isinstance(leaf, np.generic):
        return f"Python {type(leaf).__name__}", ()
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return type(leaf).__name__, ()
    return str(leaf.dtype), tuple(leaf.shape)


def _show(kind: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if kind is None else f"{kind[0]} {list(kind[1])}"


def _shorten(numbers: list[int]) -> str:
    texts = [str(n) for n in numbers]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:2], "...", *texts[-3:]])


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data) if array.size else 0


def _damaged(path: Path, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"The checkpoint {path} is damaged ({reason}): delete this folder to go on from the step before it."


def _sync(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power, where the system lets folders be synchronised."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """Orbax's synchronous checkpointer and its argument classes, with the log of absl quiet meanwhile."""
    import orbax.checkpoint as ocp  # 0.6 s to import

    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        # The zarr 2 driver is the faster one for trees of many small arrays.
        checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False))
        try:
            yield checkpointer, ocp.args
        finally:
            checkpointer.close()
    finally:
        log.setLevel(level)
