"""Options in a name, `@crop=148,resize=64`, and what they do to an image; folders of images."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaegan_jax.data.dataset import DataError, NoSplit
from vaegan_jax.data.splits import Arrays

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16-bit grey
_NO_RANGE = ("I", "F")  # 32 bits, which have no known white: Pillow would clip them at 255


@dataclass(frozen=True)
class Options:
    """crop, resize: (height, width) or None. `text` is the canonical spelling, "" for none."""

    crop: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.crop is not None or self.resize is not None

    @property
    def text(self) -> str:
        pairs = (("crop", self.crop), ("resize", self.resize))
        return ",".join(f"{key}={size[0]}x{size[1]}" for key, size in pairs if size)

    def apply(self, image: np.ndarray, where: str) -> np.ndarray:
        """uint8 [H, W, C] -> uint8 [H', W', C]: centre crop, then a bicubic, antialiased resize.

        A resize to another aspect ratio trims the image first, around its centre: nothing is ever stretched.
        Raises DataError when the crop is larger than the image.
        """
        if self.crop:
            image = _centre(image, self.crop, where)
        if self.resize and image.shape[:2] != self.resize:
            from PIL import Image

            (height, width), (h, w) = self.resize, image.shape[:2]
            trimmed = (
                (h, max(1, round(h * width / height)))
                if w * height > h * width
                else (max(1, round(w * height / width)), w)
            )
            image = _centre(image, trimmed, where)
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            image = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, -1)
        return image


def parse(name: str) -> tuple[str, Options]:
    """`"celeb_a@crop=148,resize=64"` -> `("celeb_a", Options)`; a size is `N` or `HxW`. Raises DataError for others."""
    base, at, text = name.rpartition("@")
    if not at or "=" not in text or "/" in text:
        return name, Options()  # an @ without = belongs to a path
    sizes: dict[str, tuple[int, int]] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)
        if key not in ("crop", "resize") or match is None or key in sizes:
            close = difflib.get_close_matches(key, ["crop", "resize"], 1) if key not in ("crop", "resize") else []
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{name!r}: option {item!r} is not crop=N, crop=HxW, resize=N or resize=HxW (once each).{hint}"
            )
        sizes[key] = (int(match[1]), int(match[2] or match[1]))
    return base, Options(**sizes)


def stack(images: Iterable[tuple[str, np.ndarray]], total: int, options: Options, name: str) -> np.ndarray:
    """(where, uint8 [H, W, C]) pairs -> [total, H', W', C], filled one by one, so that the originals need not fit.

    Raises DataError when two have different shapes.
    """
    x, first = np.zeros((0,), np.uint8), ""
    for index, (where, image) in enumerate(images):
        image = options.apply(image, where)
        if not first:
            x, first = np.empty((total, *image.shape), np.uint8), where
        if image.shape != x.shape[1:]:
            raise DataError(
                f"{name}: {where} is {_size(image)}, but {first} is {_size(x[0])}; give them one size with an option, "
                f"such as '{name.partition('@')[0]}@resize=64'."
            )
        x[index] = image
    return x


def transform(arrays: Arrays, options: Options, name: str) -> Arrays:
    """Options applied to a set that is in memory. Raises DataError for vectors."""
    x, label = arrays
    if not options:
        return arrays
    if x.ndim != 4 or x.dtype != np.uint8:
        raise DataError(f"{name!r}: crop and resize are for uint8 images; the set holds {x.dtype} {list(x.shape)}.")
    return stack(((f"image {i}", image) for i, image in enumerate(x)), len(x), options, name), label


def load_folder(path: Path, split: str, options: Options, name: str) -> Arrays:
    """`folder:PATH`: (uint8 [N, H, W, C], int32 [N] or None), in sorted order.

    Sub-folders `train` and `test` are splits; without them everything is `train`. Within a split, sub-folders are
    classes (label = position among their sorted names), images directly in it have no labels. C is 1 when every image
    is grey, else 3 (transparency is dropped). 16-bit grey becomes 8-bit, round(v / 257). Raises DataError when there is
    nothing to read, a file is damaged, or its pixels have 32 bits; NoSplit for another split.
    """
    from PIL import Image

    if not path.is_dir():
        raise DataError(f"{name}: {path} is not a folder; give the folder that holds the images.")
    splits = [folder for folder in ("train", "test") if (path / folder).is_dir()]
    if split not in (splits or ["train"]):
        raise NoSplit(name, splits or ("train",), split)
    folder = path / split if splits else path
    found = files(folder)
    if not found:
        raise DataError(f"{name}: no image in {folder}; expected files that end in {', '.join(SUFFIXES)}.")
    classes = [f.relative_to(folder).parts[0] if f.parent != folder else None for f in found]
    # Numbered over all splits, so that a label means the same class in each of them.
    roots = [path / s for s in splits] or [path]
    names = sorted({f.relative_to(r).parts[0] for r in roots for f in files(r) if f.parent != r})
    if names and None in classes:
        raise DataError(
            f"{name}: {folder} holds both images and sub-folders of images; move the images into a sub-folder."
        )

    def opened(file: Path) -> Any:
        try:
            return Image.open(file)
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{name}: {file} is not a readable image ({error}).") from error

    def mode(file: Path) -> str:
        with opened(file) as image:
            if image.mode in _NO_RANGE:
                raise DataError(f"{name}: {file} has pixels of 32 bits (mode {image.mode}); save it with 8 or 16 bits.")
            return image.mode

    grey = {mode(file) for file in found} <= {"1", "L", "LA", *_DEEP}

    def pixels(file: Path) -> np.ndarray:
        with opened(file) as image:
            try:
                if image.mode in _DEEP:
                    image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
                array = np.asarray(image.convert("L" if grey else "RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{name}: {file} is a damaged image ({error}).") from error
        return array[..., None] if grey else array

    x = stack(((str(file.relative_to(path)), pixels(file)) for file in found), len(found), options, name)
    return x, np.array([names.index(c) for c in classes if c], np.int32) if names else None


def files(folder: Path) -> list[Path]:
    """The images in a folder and those below it, sorted."""
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())


def training_files(folder: Path) -> list[Path]:
    """What `load_folder` reads as the split `train`, in that order."""
    return files(folder / "train" if (folder / "train").is_dir() else folder)


def _centre(image: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    (h, w), (height, width) = image.shape[:2], size
    if height > h or width > w:
        raise DataError(f"{where} is {h}x{w}, smaller than the crop of {height}x{width}; give a smaller crop.")
    top, left = (h - height) // 2, (w - width) // 2
    return image[top : top + height, left : left + width]


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape))
