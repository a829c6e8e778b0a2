"""Rows of pictures with a name to the left of each and, where wanted, above each column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vaegan_jax import plots

_PAPER, _INK = 255, 60


def panels(
    rows: Sequence[tuple[str, np.ndarray]], path: Path, *, columns: int, titles: Sequence[str] = (), scale: int = 2
) -> None:
    """rows: (name, images [n, H, W, C] in [0, 1] or uint8), each on as many lines of `columns` tiles as it needs.

    titles: one a column, turned upright where they do not fit.
    """
    blocks = [plots.grid(images, columns=columns, scale=scale) for _, images in rows]
    font = ImageFont.load_default(13)
    left = max(int(font.getlength(name)) for name, _ in rows) + 12 if any(name for name, _ in rows) else 0
    tile = scale * rows[0][1].shape[2] + 1
    upright = any(font.getlength(title) > tile for title in titles)
    longest = max((int(font.getlength(title)) for title in titles), default=0)
    top = (longest + 8 if upright else 20) if titles else 0
    gap = 6 if any(name for name, _ in rows) else -1  # a grid's border of one pixel is shared
    height = top + sum(len(block) + gap for block in blocks) - gap
    page = Image.new("RGB", (left + max(block.shape[1] for block in blocks), height), (_PAPER,) * 3)
    pen = ImageDraw.Draw(page)
    for i, title in enumerate(titles):
        centre = left + i * tile + tile // 2
        if upright:
            strip = Image.new("RGB", (longest + 4, 18), (_PAPER,) * 3)
            ImageDraw.Draw(strip).text((0, 9), title, fill=(_INK,) * 3, font=font, anchor="lm")
            page.paste(strip.rotate(90, expand=True), (centre - 9, top - longest - 8))
        else:
            pen.text((centre, 10), title, fill=(_INK,) * 3, font=font, anchor="mm")
    y = top
    for (name, _), block in zip(rows, blocks, strict=True):
        page.paste(Image.fromarray(block), (left, y))
        pen.text((left - 7, y + len(block) / 2), name, fill=(_INK,) * 3, font=font, anchor="rm")
        y += len(block) + gap
    colours = np.asarray(page)
    grey = bool((colours[..., :1] == colours).all())
    (page.convert("L") if grey else page).save(path)
