"""Figure 5: attribute vectors. Does an image get an attribute when the attribute's vector is added to its code?"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw, vaegan_judge
from experiments.reproduce import samples as eye
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.draw import spread
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics.subject import as_float

CLASSES = {
    "fashion_mnist": (
        "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
    ),
}  # fmt: skip
ENCODERS = ("vae", "vaegan")
ENCODED = 10_000  # training images whose codes make the vectors, as many as in the released code


def vectors(codes: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Mean code of those with an attribute less that of those without: codes [N, K], has bool [N, A] -> [A, K]."""
    return np.stack([codes[own].mean(axis=0) - codes[~own].mean(axis=0) for own in has.T])


def rises(label: np.ndarray, plain: np.ndarray, moved: np.ndarray) -> dict[str, float]:
    """What adding each class's vector does to images of other classes, by the judge; means over classes.

    Args:
        label: of the images, [N].
        plain, moved: class probabilities of the reconstructions, [N, C], and after vector c was added, [C, N, C].

    Returns:
        before and after: mean probability of the class; taken: share of images that it is then the likeliest of.
    """
    found = []
    for c, after in enumerate(moved):
        others = label != c
        found.append([plain[others, c].mean(), after[others, c].mean(), (after[others].argmax(axis=1) == c).mean()])
    return dict(zip(("before", "after", "taken"), np.mean(found, axis=0).tolist(), strict=True))


def run(job: Job) -> Outcome:
    rows, lines, figures = dict[str, Measured](), [], dict[str, str]()
    for name, tag in (("mnist", "mnist"), ("fashion_mnist", "fashion")):
        data = job.load(eye.dataset(job, name))
        judge = vaegan_judge.judge(job, eye.dataset(job, name))
        trained = models.train(job, data, ENCODERS)
        found = {
            model: {
                seed: job.kept(
                    f"{name}-{model}-{seed}", functools.partial(_measure, job, judge, data, model, one, seed),
                    of=(models.steps(job.budget), _count(job, judge)),
                )
                for seed in one.seeds
            }
            for model, one in trained.items()
        }  # fmt: skip
        for model, each in found.items():
            columns = ([numbers[column] for numbers in each.values()] for column in ("before", "after", "taken"))
            lines.append([name, models.TITLES[model], *map(spread, columns)])
        one, each = trained["vaegan"], found["vaegan"]
        gained = [numbers["after"] - numbers["before"] for numbers in each.values()]
        used = (data, judge.test)
        note = f"vectors of {min(ENCODED, len(data)):,} training images, {_count(job, judge):,} test images"
        rows[f"{tag}_attribute"] = Measured(
            gained, one.seeds, one.failed, models.steps(job.budget), one.config(), used, note=note
        )
        if one.seeds:
            _draw(job, judge, data, one, name, f"fig5-{tag}.png")
            figures[f"fig5-{tag}.png"] = (
                f"Figure 5 on {name}: a test image of each class, its reconstruction by VAE/GAN, and the decoder at "
                "its code plus each class's vector; first seed, images not selected."
            )
    table = Table(
        "Adding a class's vector to the codes of test images of other classes: the judge's probability of that class, "
        "and how often it becomes the likeliest. Mean +- sd over seeds.",
        ("data", "model", "probability before", "after", "share it becomes the class of"),
        lines,
    )
    return Outcome(rows, [table], figures)


def _count(job: Job, judge: vaegan_judge.Judge) -> int:
    return min(job.choose(40, 1_000, 10_000), len(judge.test))


def encoded(algorithm: Any, config: Any, state: Any, x: np.ndarray) -> np.ndarray:
    """Means of q(z | x), [N, K]."""
    size = vaegan_judge.BLOCK
    parts = [
        np.asarray(algorithm.encode(config, state, jnp.asarray(x[i : i + size]))[0]) for i in range(0, len(x), size)
    ]
    return np.concatenate(parts)


def decoded(algorithm: Any, config: Any, state: Any, codes: np.ndarray) -> np.ndarray:
    """Images of codes [N, K], [N, H, W, C]."""
    size = vaegan_judge.BLOCK
    parts = [
        np.asarray(algorithm.decode(config, state, jnp.asarray(codes[i : i + size])))
        for i in range(0, len(codes), size)
    ]
    return np.concatenate(parts)


def _vectors(judge: vaegan_judge.Judge, data: Dataset, one: Trained, seed: int, algorithm: Any) -> np.ndarray:
    assert data.label is not None
    codes = encoded(algorithm, one.config(), one.state(seed), data.x[:ENCODED])
    return vectors(codes, data.label[:ENCODED, None] == np.arange(judge.classes))


def _measure(
    job: Job, judge: vaegan_judge.Judge, data: Dataset, model: str, one: Trained, seed: int
) -> dict[str, float]:
    algorithm, config, state = models.ALGORITHMS[model], one.config(), one.state(seed)
    n = _count(job, judge)
    codes = encoded(algorithm, config, state, judge.test.x[:n])

    def judged(codes: np.ndarray) -> np.ndarray:
        return judge.extractor.probabilities(decoded(algorithm, config, state, codes), progress=False)

    moved = np.stack([judged(codes + vector) for vector in _vectors(judge, data, one, seed, algorithm)])
    job.tick()
    assert judge.test.label is not None
    return rises(judge.test.label[:n], judged(codes), moved)


def _draw(job: Job, judge: vaegan_judge.Judge, data: Dataset, one: Trained, name: str, file: str) -> None:
    algorithm, config, state = models.ALGORITHMS["vaegan"], one.config(), one.state(one.seeds[0])
    added = _vectors(judge, data, one, one.seeds[0], algorithm)
    assert judge.test.label is not None
    first = [int(np.flatnonzero(judge.test.label == c)[0]) for c in range(judge.classes)]
    names = CLASSES.get(name, tuple(str(c) for c in range(judge.classes)))
    figure(algorithm, config, state, judge.test.x[first], added, names, job.figures / file)


def figure(
    algorithm: Any, config: Any, state: Any, x: np.ndarray, added: np.ndarray, names: Sequence[str], path: Path
) -> None:
    """Figure 5: a row an image of x [N, H, W, C]: it, its reconstruction, and the decoder at its code plus each of
    added [A, K]."""
    codes = encoded(algorithm, config, state, x)
    rows = []
    for i, image in enumerate(as_float(x)):
        at = np.concatenate([codes[i : i + 1], codes[i] + added])
        rows.append(("", np.concatenate([image[None], decoded(algorithm, config, state, at)])))
    titles = ["input", "rec.", *(f"+ {name}" for name in names)]
    draw.panels(rows, path, columns=len(titles), titles=titles, scale=max(1, 56 // x.shape[1]))


PART = Part(
    "attributes",
    ("mnist_attribute", "fashion_attribute"),
    run,
    says(
        "attribute vectors of the VAE and of VAE/GAN on both sets",
        "2 steps",
        "the trainings of `models_*`, 10 minutes more",
        "the trainings of `models_*`",
    ),
)
