"""`load`: a name to a `Dataset`, by the first route that has the bytes."""

import difflib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from vaegan_jax.data import arrays, cache, digits, fetch, idx, images, prepared
from vaegan_jax.data.dataset import DataError, Dataset, NoSplit, NotPrepared
from vaegan_jax.data.sources import FILES, SOURCES
from vaegan_jax.data.splits import Arrays, bounds, concatenate, parse

TFDS_NAMES = (  # the common ones, for `names` and "did you mean"; any other is taken as well, once it is prepared
    "cifar10", "cifar100", "svhn_cropped", "celeb_a", "celeb_a_hq", "lfw", "lsun/bedroom", "lsun/church_outdoor",
    "omniglot", "kmnist", "emnist", "stl10", "stanford_dogs", "oxford_flowers102", "imagenet_resized/64x64",
)  # fmt: skip
TOYS, TOY_POINTS, TOY_SEEDS = ("ring", "grid"), 10_000, {"train": 0, "test": 1}
SCHEMES = ("folder:", "npz:", "idx:")
PathLike = str | os.PathLike[str]


def names() -> tuple[str, ...]:
    """The names that `load` knows: built-in sets, common TFDS sets, and the prefixes of your own files."""
    return ("digits", *SOURCES, "frey_faces", *TOYS, *TFDS_NAMES, *(f"{scheme}PATH" for scheme in SCHEMES))


def load(name: str, split: str = "train", *, data_dir: PathLike | None = None) -> Dataset:
    """The data set `name`, in memory. See `vaegan_jax.data` for names, options, splits and routes.

    Returns uint8 images `[N, H, W, C]` or float32 vectors `[N, D]`, int32 labels `[N]`, float32 attributes `[N, A]`
    (npz) or None, a digest.
    Raises DataError: an unknown name or option, a damaged file, a set that no route can deliver (NotPrepared: perhaps
    one of TFDS), a split that the set does not have (NoSplit).
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"name is {name!r}; expected one of {', '.join(names())}.")
    parts = parse(split)
    base, options = images.parse(name)
    loaded: dict[str, Dataset] = {}
    for wanted, _, _ in parts:
        if wanted not in loaded:
            loaded[wanted] = _whole(base, wanted, options, name, data_dir)
    if len(parts) == 1 and parts[0][1:] == (None, None):
        whole = loaded[parts[0][0]]
        return Dataset(whole.x, whole.label, name, split, whole.sha256)
    pieces: list[Arrays] = []
    for part in parts:
        whole = loaded[part[0]]
        first, last = bounds(part, len(whole), name)
        pieces.append((whole.x[first:last], None if whole.label is None else whole.label[first:last]))
    return Dataset(*concatenate(pieces), name, split)


def splits_of(name: str, *, data_dir: PathLike | None = None) -> tuple[str, ...]:
    """The splits of the data set `name`, nothing fetched. Raises DataError as `load` does."""
    base, options = images.parse(name)
    try:
        _whole(base, "", options, name, data_dir)  # no set has a split without a name
    except NoSplit as error:
        return error.splits
    raise AssertionError(f"{name} has a split without a name")


def _whole(base: str, split: str, options: images.Options, name: str, data_dir: PathLike | None) -> Dataset:
    """A full split, options applied."""
    if base in SOURCES:
        found = _idx_set(base, split, data_dir)
        return _made(images.transform((found.x, found.label), options, name), name, split) if options else found
    simple: dict[str, Callable[[], Arrays]] = {
        "digits": lambda: digits.load(split),
        "frey_faces": lambda: arrays.load_frey(cache.root(data_dir), split),
        **{toy: lambda: _mixture(base, split) for toy in TOYS},
    }
    if base in simple:
        return _made(images.transform(simple[base](), options, name), name, split)
    scheme, colon, rest = base.partition(":")
    if colon and f"{scheme}:" in SCHEMES:
        if not rest:
            raise DataError(f"{name!r} lacks a path; write {scheme}:PATH.")
        path = Path(rest).expanduser()
        if scheme == "folder":
            return _made(images.load_folder(path, split, options, name), name, split)
        one = _made(idx.load_path(path, split) if scheme == "idx" else arrays.load_npz(path, split), name, split)
        return _made(images.transform((one.x, one.label), options, name), name, split) if options else one
    return _tfds_set(base, split, options, name, data_dir)


def _mixture(base: str, split: str) -> Arrays:
    """float32 [10000, 2] of `toy.ring` or `toy.grid` with their defaults; a fixed seed for each split, no labels."""
    if split not in TOY_SEEDS:
        raise NoSplit(base, TOY_SEEDS, split)
    import jax  # late: a load of images needs no JAX
    import numpy as np

    from vaegan_jax.data import toy

    points, _ = getattr(toy, base)(jax.random.key(TOY_SEEDS[split]), TOY_POINTS)
    return np.asarray(points), None


def _made(found: Arrays, name: str, split: str) -> Dataset:
    """Raises DataError for an empty set (an empty slice is cut later, from one that is not)."""
    if found[0].ndim and len(found[0]) == 0:
        raise DataError(
            f"{name} is empty: x is {found[0].dtype} {list(found[0].shape)}, and at least one example is needed."
        )
    return Dataset(found[0], found[1], name, split)


def _tfds_set(base: str, split: str, options: images.Options, name: str, data_dir: PathLike | None) -> Dataset:
    root = _folder(data_dir)
    places = prepared.folders(data_dir, root)
    folder = prepared.find(base, places)
    file = cache.path(root, f"{base}@{options.text}" if options else base, split)
    origin = prepared.origin(folder) if folder else None
    kept = _cached(file, name, split)
    if kept and (origin is None or kept[1] == origin):
        return kept[0]
    if folder is None or origin is None:
        raise (NotPrepared if prepared.well_formed(base) else DataError)(_unknown(base, name, places))
    made = _made(prepared.load(folder, split, options, name), name, split)
    cache.remember(file, (made.x, made.label), origin)
    return made


def _unknown(base: str, name: str, places: list[Path]) -> str:
    where = " or ".join(str(place / base) for place in places)
    prepare = f"with a network and `pip install tensorflow`, run: {prepared.recipe(base, places[-1])}"
    if base in TFDS_NAMES:
        return f"{name!r} is a TFDS set, and no prepared one is in {where}; {prepare}"
    known = [*names(), *SCHEMES]
    close = difflib.get_close_matches(base, known, 1, 0.5) or difflib.get_close_matches(
        base.partition(":")[0] + ":", SCHEMES, 1
    )
    hint = f" Did you mean {close[0]!r}?" if close else ""
    known_ones = f"Known are {', '.join(names())}, and any set that TFDS has prepared in {where}"
    other = f"; to prepare one of TFDS, {prepare}" if prepared.well_formed(base) else "."
    return f"Unknown data set {name!r}.{hint} {known_ones}{other}"


def _folder(data_dir: PathLike | None) -> Path:
    root = cache.root(data_dir)
    if root.is_file():
        raise DataError(f"{root} is a file; data_dir (or VAEGAN_JAX_DATA) is to be a folder, existing or not.")
    return root


def _cached(file: Path, name: str, split: str) -> tuple[Dataset, str] | None:
    """The cache's answer; a damaged file is one warning, and is made anew."""
    try:
        return cache.read(file, name, split)
    except DataError as error:
        warnings.warn(f"{error} It is made anew.", stacklevel=2)
        return None


def _idx_set(base: str, split: str, data_dir: PathLike | None) -> Dataset:
    """MNIST or Fashion-MNIST: cache, else (one process at a time) `prepare`."""
    if split not in FILES:
        raise NoSplit(base, FILES, split)
    root = _folder(data_dir)
    file = cache.path(root, base, split)
    kept = _cached(file, base, split)
    if kept:
        return kept[0]
    with cache.lock(root, base):
        kept = _cached(file, base, split)  # another process may have brought it while we waited
        if kept:
            return kept[0]
        found, route = bring(base, data_dir)
        made = {each: _made(one, base, each) for each, one in found.items()}
        for each, one in made.items():
            cache.remember(cache.path(root, base, each), (one.x, one.label), route)
    return made[split]


def bring(base: str, data_dir: PathLike | None = None) -> tuple[dict[str, Arrays], str]:
    """Both splits of an IDX set by the first route that works, with that route's description; digests checked.

    Raises DataError with every route's reason, and with what to do by hand.
    """
    source, root = SOURCES[base], cache.root(data_dir)
    reasons = []

    folder = prepared.find(base, prepared.folders(data_dir, root))
    if folder is None:
        places = " or ".join(str(place / base) for place in prepared.folders(data_dir, root))
        reasons.append(f"prepared TFDS folder: none in {places}")
    else:
        try:
            return {each: _from_prepared(base, folder, each) for each in FILES}, f"prepared TFDS folder {folder}"
        except DataError as error:
            reasons.append(f"prepared TFDS folder: {error}")

    routes = [(f"files in {place}", lambda place=place: _from_folder(place)) for place in (root / base, root)]
    for route, get in [*routes, *fetch.routes(source)]:
        try:
            files = fetch.checked(source, get(), route)
            return {each: idx.split_arrays(files, each, base) for each in FILES}, route
        except fetch.FAILURES as error:
            reasons.append(f"{route}: {error}")
    raise DataError(
        f"{source.title} could not be had. Tried:\n"
        + "\n".join(f"  {number}. {reason}" for number, reason in enumerate(reasons, 1))
        + f"\nTo do it by hand, put {', '.join(fetch.NAMES)} (or the same with .gz) into {root / base}. On a slow "
        "network set VAEGAN_JAX_PATIENCE to more seconds."
    )


def _from_folder(folder: Path) -> dict[str, bytes]:
    found = {name: idx.find(folder, name) for name in fetch.NAMES}
    missing = [name for name, file in found.items() if file is None]
    if missing:
        raise OSError("none of the files" if len(missing) == len(found) else f"lacks {', '.join(missing)}")
    return {name: idx.read(file) for name, file in found.items() if file}


def _from_prepared(base: str, folder: Path, split: str) -> Arrays:
    """The split, in the publisher's order (our own builder) or in TFDS's (its builder shuffles); digests checked."""
    source = SOURCES[base]
    x, label = prepared.load(folder, split, images.Options(), base)
    if label is None:
        raise DataError(f"{folder} has no labels.")
    pair = (idx.encode(x[..., 0]), idx.encode(label.astype("uint8")))
    try:
        for file, data in zip(FILES[split], pair, strict=True):
            idx.check_md5(data, source.md5[file], f"{file} from {folder}")
    except DataError:
        if idx.members_digest(x, label) != source.members[split]:
            raise
    return x, label
