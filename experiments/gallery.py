"""Samples of trained models side by side, and a table of what they are worth.

python -m experiments.gallery                               runs/vae-mnist to runs/vaegan-mnist, of `make train-*`
python -m experiments.gallery --out picture.png runs/a runs/b
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import vaegan_jax
from experiments import common
from experiments.neighbours import neighbours
from vaegan_jax import data, fit, plots

TITLES = {"vae": "VAE", "gan": "GAN", "dcgan": "DCGAN", "wgan": "WGAN", "vaegan": "VAE/GAN"}
SHOWN = 36  # of the samples that are judged


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="*", type=Path, default=[Path("runs") / f"{name}-mnist" for name in TITLES])
    parser.add_argument("--out", type=Path, default=Path("runs") / "gallery.png")
    flags = parser.parse_args(argv)
    common.return_freed_memory()
    blocks, rows = [], ["| model | steps | on test images | samples |", "|---|---|---|---|"]
    try:
        for workdir in flags.workdirs:
            print(workdir, file=sys.stderr)
            title, block, row = _one(workdir)
            blocks.append((title, block))
            rows.append(row)
        picture(blocks, flags.out)
    except ValueError as error:
        print(f"experiments.gallery: {error}", file=sys.stderr)
        return 1
    print("\n".join(rows))
    print(f"\n{flags.out}")
    return 0


def _one(workdir: Path) -> tuple[str, np.ndarray, str]:
    """Title, samples to show and table row of one run."""
    model = vaegan_jax.load(workdir)
    name = json.loads((workdir / "config.json").read_text())["data"]["name"]
    train, test = data.load(name), data.load(name, "test")
    samples = np.asarray(model.sample(jax.random.key(4), common.SAMPLES))
    title = TITLES.get(workdir.name.partition("-")[0], workdir.name)
    measured = fit.validate(model.algorithm, model.config, model.state, test)
    numbers = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in measured.items())
    steps = int(model.state.step)
    return title, samples[:SHOWN], f"| {title} | {steps:,} | {numbers} | {neighbours(samples, train, test)} |"


def picture(blocks: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Grids of [n, H, W, C] images next to one another, each below its title."""
    from PIL import Image, ImageDraw, ImageFont

    grids = [plots.grid(images, columns=6, scale=1) for _, images in blocks]
    gap, top, font = 14, 26, ImageFont.load_default(16)
    width = sum(grid.shape[1] for grid in grids) + gap * (len(grids) - 1)
    page = Image.new("RGB", (width, top + max(grid.shape[0] for grid in grids)), (255, 255, 255))
    draw, left = ImageDraw.Draw(page), 0
    for (title, _), grid in zip(blocks, grids, strict=True):
        draw.text((left + grid.shape[1] / 2, top / 2), title, fill=(60, 60, 60), font=font, anchor="mm")
        page.paste(Image.fromarray(grid), (left, top))
        left += grid.shape[1] + gap
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


if __name__ == "__main__":
    sys.exit(main())
