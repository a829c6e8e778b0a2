"""The paper's own data, where a user has them: figures 3 and 4 on CelebA and LFW, 5 on CelebA, 64x64."""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.reproduce import celeba, draw, vaegan_judge
from experiments.reproduce import vaegan_attributes as vectors
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Outcome, Part, Table, Trained, says
from vaegan_jax import vaegan
from vaegan_jax.data import cache
from vaegan_jax.data.dataset import DataError, Dataset
from vaegan_jax.metrics.subject import as_float

SETS = {"celeb_a": 148, "lfw": 150}
"""Name, which is TFDS's too, and the centre that is cut out, which is then made 64x64."""
HELD = 0.1  # of the images, for reconstructions
SHOWN = 8  # rows of figure 5


def source(job: Job, name: str) -> str:
    """What to load: the images of a folder `name` in the cache of data, else TFDS's prepared set."""
    folder = cache.root(job.data_dir) / name
    options = f"@crop={SETS[name]},resize={job.choose(16, 64, 64)}"
    return f"folder:{folder}{options}" if folder.is_dir() else f"{name}{options}"


def find(job: Job, name: str) -> Dataset | None:
    """The images of `source`; None where there are none."""
    try:
        return job.load(source(job, name))
    except DataError as error:
        job.say(f"{name}: not run, {error}")
        return None


def run(job: Job) -> Outcome:
    """One seed, for the pictures, so no rows; table 1 is vaegan_lfw's."""
    one = dataclasses.replace(job, seeds=job.seeds[:1])
    lines, figures = list[list[Any]](), dict[str, str]()
    for name in SETS:
        found = find(job, name)
        if found is None:
            continue
        x = found.x[: job.choose(80, 20_000, len(found))]
        kept = len(x) - max(1, round(HELD * len(x)))
        data, held = Dataset(x[:kept], name=found.name), as_float(x[kept:])
        # Before the trainings, so that a list that cannot be used is heard of at once.
        known = known_attributes(job, min(vectors.ENCODED, kept)) if name == celeba.NAME else {}
        trained = models.train(one, data, models.COMPARED)
        samples, rebuilt = [], [("input", held[: vaegan_judge.SHOWN])]
        for model, each in trained.items():
            if not each.seeds:
                lines.append([name, models.TITLES[model], "diverged"])
                continue
            algorithm, state = models.ALGORITHMS[model], each.state(each.seeds[0])
            drawn = algorithm.sample(each.config(), state, jax.random.key(5), 2 * vaegan_judge.SHOWN)
            samples.append((models.TITLES[model], np.asarray(drawn)))
            if model == "gan":
                continue
            again = vaegan_judge.reconstruct(algorithm, each.config(), state, held, jax.random.key(6))
            error = float(vaegan_judge.pixel_error(held, again).mean())
            lines.append([name, models.TITLES[model], error])
            rebuilt.append((models.TITLES[model], again[: vaegan_judge.SHOWN]))
        for number, what, rows in ((3, "samples", samples), (4, "reconstructions of held-out images", rebuilt)):
            if rows:
                file = f"fig{number}-{name}.png"
                draw.panels(rows, job.figures / file, columns=vaegan_judge.SHOWN, scale=1)
                steps = f"{models.steps(job.budget):,} steps"
                figures[file] = f"Figure {number} on {name}: {what}, {steps}, first seed, not selected."
        figures |= figure_5(one, data, known, held, trained["vaegan"])
    columns = ("data", "model", "mean squared error a pixel, held-out images")
    tables = [Table("Faces of 64x64 from a user's folder; first seed.", columns, lines)] if lines else []
    return Outcome({}, tables, figures)


def known_attributes(job: Job, count: int) -> dict[str, np.ndarray]:
    """CelebA's of the first images; {}, and why, where its list cannot be used."""
    try:
        return celeba.attributes(job, count)
    except DataError as error:
        job.say(f"{celeba.NAME}: figure 5 will not be drawn, {error}")
        return {}


def figure_5(
    job: Job, data: Dataset, known: dict[str, np.ndarray], held: np.ndarray, trained: Trained
) -> dict[str, str]:
    """Draws figure 5 from the attributes of the first images; file -> caption, {} where there is nothing to draw."""
    x = data.x[: vectors.ENCODED]
    chosen = [a for a in celeba.SELECTED if a in known and 0 < known[a][: len(x)].sum() < len(x)]
    if not chosen or not trained.seeds:
        return {}
    config, state, file = trained.config(), trained.state(trained.seeds[0]), f"fig5-{celeba.NAME}.png"
    added = vectors.vectors(
        vectors.encoded(vaegan, config, state, x), np.stack([known[a][: len(x)] for a in chosen], 1)
    )
    words = [a.replace("_", " ").lower() for a in chosen]
    vectors.figure(vaegan, config, state, held[:SHOWN], added, words, job.figures / file)
    caption = (
        f"Figure 5 on {celeba.NAME}: held-out images, their reconstructions by VAE/GAN, and the decoder at their codes "
        f"plus the mean code of {len(x):,} training images with an attribute less that of those without; "
        f"{models.steps(job.budget):,} steps, first seed, not selected."
    )
    return {file: caption}


PART = Part(
    "faces",
    (),
    run,
    says(
        "figures 3 and 4 on CelebA and LFW, 5 on CelebA, where folders celeb_a and lfw of images lie in the cache of "
        "data (or TFDS has prepared them; figure 5 needs CelebA's list_attr_celeba.txt by the images); else nothing",
        "2 steps of perceptrons",
        "800 steps of four models, hours for each set",
        "37,500 steps of four models",
    ),
)
