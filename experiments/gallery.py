"""Samples of trained models side by side, and a table of what they are worth.

python -m experiments.gallery                       the README's picture and table, from the runs of its commands:
                                                    samples.png and mnist.json in results/gallery
python -m experiments.gallery --check               whether the README's table is that of results/gallery/mnist.json
python -m experiments.gallery --out DIR runs/a runs/b       of any runs, without the README
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vaegan_jax
from experiments import common, pages
from experiments.bench import machine
from experiments.neighbours import neighbours
from vaegan_jax import data, fit, plots

RESULTS = Path(__file__).parent / "results" / "gallery"
RUNS = {
    "runs/vae-mnist": "make train-vae",
    "runs/vae-adam": "python -m experiments.vae --recipe adam --steps 6000 --workdir runs/vae-adam",
    "runs/gan-mnist": "make train-gan",
    "runs/dcgan-mnist": "make train-dcgan",
    "runs/wgan-mnist": "make train-wgan",
    "runs/vaegan-mnist": "make train-vaegan",
}
"""Workdir -> the command that filled it."""
TITLES = {"vae": "VAE", "gan": "GAN", "dcgan": "DCGAN", "wgan": "WGAN", "vaegan": "VAE/GAN"}
SHOWN = 36  # of the samples that are judged


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="*", type=Path, default=[])
    parser.add_argument("--out", type=Path, default=None, help="a folder; default experiments/results/gallery")
    parser.add_argument("--check", action="store_true")
    flags = parser.parse_args(argv)
    if flags.check:
        if not (RESULTS / "mnist.json").exists():
            print(f"experiments.gallery: {RESULTS / 'mnist.json'} is missing: run it without --check.", file=sys.stderr)
            return 1
        return pages.put("experiments.gallery", table(json.loads((RESULTS / "mnist.json").read_text())), check=True)
    if flags.workdirs and not flags.out:
        print("experiments.gallery: runs were given without --out: give a folder for their picture.", file=sys.stderr)
        return 1
    common.return_freed_memory()
    out = flags.out or RESULTS
    blocks: list[tuple[str, np.ndarray]] = []
    rows: list[dict[str, Any]] = []
    try:
        for workdir in flags.workdirs or map(Path, RUNS):
            print(workdir, file=sys.stderr)
            images, row = _one(workdir)
            rows.append(row)
            if row["title"] not in [title for title, _ in blocks]:  # one picture of a model
                blocks.append((row["title"], images))
        out.mkdir(parents=True, exist_ok=True)
        picture(blocks, out / "samples.png")
    except (ValueError, OSError) as error:
        print(f"experiments.gallery: {error}", file=sys.stderr)
        return 1
    result = {"device": machine.device_name(), "versions": machine.versions("jax", "flax", "optax"), "rows": rows}
    (out / "mnist.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(table(result))
    print(f"\n{out / 'samples.png'}, {out / 'mnist.json'}", file=sys.stderr)
    return 0 if flags.workdirs else pages.put("experiments.gallery", table(result), check=False)


def _one(workdir: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples to show and row of one run."""
    model = vaegan_jax.load(workdir)
    described = json.loads((workdir / "config.json").read_text())
    name, examples = described["data"]["name"], described["data"]["examples"]
    train, test = data.load(name), data.load(name, "test")
    samples = np.asarray(model.sample(jax.random.key(4), common.SAMPLES))
    steps, config = int(model.state.step), model.config
    row = {
        "title": TITLES.get(workdir.name.partition("-")[0], workdir.name),
        "command": RUNS.get(str(workdir), ""),
        "seeds": described["seeds"],
        "steps": steps,
        "epochs": steps * config.batch_size * config.batches_per_step / examples,
        "config": described["config"],
        "data": described["data"],
        "test": fit.validate(model.algorithm, config, model.state, test),
        "samples": dataclasses.asdict(neighbours(samples, train, test)),
    }
    return samples[:SHOWN], row


NAMES = {
    "elbo": "ELBO",
    "kl": "KL",
    "log_likelihood": "E log p(x given z)",
    "d_real": "D(x)",
    "d_fake": "D(G(z))",
    "wasserstein": "real less fake output",
    "llike": "L_llike",
    "prior": "L_prior",
    "pixel_error": "squared error a pixel",
}
"""Metrics as the papers have them."""


def table(result: dict[str, Any]) -> str:
    """Markdown: a line a run."""
    lines = [
        "| model | command | steps (epochs) | test split | samples: classes, largest share, distance |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        named = {NAMES.get(name, name.replace("_", " ")): value for name, value in row["test"].items()}
        test = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
        found = row["samples"]
        ratio = "-" if found["distance_ratio"] is None else f"{found['distance_ratio']:.2f}"
        judged = f"{found['classes']}, {found['largest_share']:.0%}, {ratio}"
        lines.append(
            f"| {row['title']} | `{row['command']}` | {row['steps']:,} ({row['epochs']:.3g}) | {test} | {judged} |"
        )
    return "\n".join([*lines, "", f"{result['device']}; {result['versions']}."])


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
