"""Autoencoding beyond pixels (Larsen, Sonderby, Larochelle & Winther 2016)

The paper compares a VAE, a VAE whose likelihood is of a discriminator's features (Dis_l), the VAE/GAN and a GAN on
faces. Faces cannot be had here, so the four models meet on MNIST and Fashion-MNIST with one encoder, decoder and
discriminator. The judge of attributes is the data set's classifier: the similarity of two images is the cosine between
its logits. A GAN has no encoder, so its reconstructions are images of codes found by descent. Claims that are judged:
the VAE/GAN keeps attributes better than VAE and GAN, and pays for it in pixels; showing reconstructions to the
discriminator helps; class attributes are directions of the code.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.reproduce import draw
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import metrics, plots
from vaegan_jax.data.dataset import Dataset

Numbers = dict[str, dict[int, float]]
"""By metric and seed."""


def compare(name: str) -> Callable[[Job], Outcome]:
    """The part that trains and judges the four models on one data set."""

    def run(job: Job) -> Outcome:
        trained, judge = models.train(job, name, tuple(models.MODELS)), models.judge(job, name)
        n, inverted = job.choose(200, 10_000, 10_000), job.choose(8, 100, 500)
        found = {model: _numbers(job, model, one, judge, n, inverted) for model, one in trained.items()}
        data = (job.load(models.dataset(job, name)), judge.test)

        def said(model: str, metric: str) -> str:
            return f"{models.MODELS[model]}: {draw.spread(list(found[model].get(metric, {}).values()), 4)}"

        def rows(metric: str, sign: int, *pair: str) -> Measured:
            """sign * (first - second) of a metric, seed by seed."""
            a, b = (found[model].get(metric, {}) for model in pair)
            both = [seed for seed in a if seed in b]
            failed = sorted({*trained[pair[0]].failed, *trained[pair[1]].failed})
            return Measured(
                [sign * (a[s] - b[s]) for s in both], both, failed, models.steps(job.budget),
                tuple(trained[model].config() for model in pair), data,
                note="; ".join(said(model, metric) for model in pair),
            )  # fmt: skip

        game = trained["vaegan"]
        works = found["vaegan"].get("works", {}) | dict.fromkeys(game.failed, 0.0)
        measured = {
            f"{name}_similarity_vae": rows("similarity", 1, "vaegan", "vae"),
            f"{name}_similarity_gan": rows("similarity_few", 1, "vaegan", "gan"),
            f"{name}_pixels": rows("pixels", 1, "vaegan", "vae"),
            f"{name}_samples_vae": rows("frechet", -1, "vaegan", "vae"),
            f"{name}_samples_dis_l": rows("frechet", -1, "vaegan", "dis_l"),
            f"{name}_success": Measured(
                [works[s] for s in sorted(works)], sorted(works), (), models.steps(job.budget), game.config(), data,
                note="seeds whose training became NaN count as 0",
            ),
        }  # fmt: skip
        _draw_models(job, name, trained, judge)
        captions = {
            f"{name}_rebuilt.png": f"Reconstructions of test images ({name}): top row data, then "
            f"{', '.join(models.MODELS.values())}; the GAN's by descent. First seed.",
            f"{name}_samples.png": f"Samples ({name}), a row a model: {', '.join(models.MODELS.values())}. First seed.",
        }
        return Outcome(measured, [_table(name, found, judge, n, inverted)], captions)

    return run


def _numbers(job: Job, model: str, one: Trained, judge: models.Judge, n: int, inverted: int) -> Numbers:
    """Reconstructions of the test images (of the first `inverted` for the GAN, and `_few` for all), and n samples."""
    found: Numbers = {}
    config = one.config()

    def put(seed: int, **values: float) -> None:
        for metric, value in values.items():
            found.setdefault(metric, {})[seed] = float(value)

    x, few = judge.test.x, judge.test.x[:inverted]
    for seed in one.seeds:
        state = one.state(seed)
        images = (
            models.inverted(job, config, state, seed, few)
            if model == "gan"
            else models.rebuilt(model, config, state, x)
        )
        said = models.attributes(judge.network.probabilities(images, progress=False))
        alike = models.similarity(said, judge.attributes[: len(said)])
        put(
            seed,
            similarity_few=alike[:inverted].mean(),
            pixels_few=models.squared_error(few, images[:inverted]).mean(),
        )
        if model != "gan":
            keeps = (said.argmax(axis=1) == judge.test.label).mean()
            put(seed, similarity=alike.mean(), pixels=models.squared_error(x, images).mean(), keeps=keeps)
        samples = models.draws(model, config, state, seed, n)
        seen, probabilities = judge.network.both(samples, progress=False)
        share = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / n
        a, b = models.NEAREST
        precision, recall = metrics.precision_recall(judge.features, seen, min(a, n - 1))
        density, coverage = metrics.density_coverage(judge.features, seen, min(b, n - 1))
        size = min(1000, n, len(judge.features))
        put(
            seed,
            frechet=metrics.frechet_distance(seen, judge.features),
            kernel=metrics.kernel_distance(seen, judge.features, subset_size=size)[0],
            precision=precision, recall=recall, density=density, coverage=coverage,
            classes=float((share >= 0.01).sum()),
        )  # fmt: skip
        put(seed, works=float((share >= 0.01).all() and found.get("keeps", {}).get(seed, 1.0) > 0.5))
        job.tick()
    return found


SHOWN = {
    "pixels": "pixel error", "similarity": "similarity", "keeps": "class kept", "pixels_few": "pixel error, few",
    "similarity_few": "similarity, few", "frechet": "Frechet", "kernel": "kernel", "precision": "precision",
    "recall": "recall", "density": "density", "coverage": "coverage", "classes": "classes", "works": "works",
}  # fmt: skip


def _table(name: str, found: Mapping[str, Numbers], judge: models.Judge, n: int, inverted: int) -> Table:
    lines = [
        [models.MODELS[model], *(draw.spread(list(one.get(metric, {}).values()), 4) for metric in SHOWN)]
        for model, one in found.items()
    ]
    title = (
        f"{name}, mean +- sd over seeds. Reconstructions of the {len(judge.test.x):,} test images (few: of the first "
        f"{inverted}): squared error an image, cosine between logits of {judge.network.name}, share with class kept; "
        f"{n:,} samples against the test images in that network's features; classes with 1 % of samples or more."
    )
    return Table(title, ("model", *SHOWN.values()), lines)


def _draw_models(job: Job, name: str, trained: Mapping[str, Trained], judge: models.Judge) -> None:
    shown = [int(np.flatnonzero(judge.test.label == c)[0]) for c in range(10)]
    x = judge.test.x[shown]
    strips, blocks = [x.astype(np.float32) / 255], []
    for model, one in trained.items():
        if not one.seeds:
            continue
        seed = one.seeds[0]
        config, state = one.config(), one.state(seed)
        gan_like = model == "gan"
        strips.append(
            models.inverted(job, config, state, seed, x) if gan_like else models.rebuilt(model, config, state, x)
        )
        blocks.append(models.draws(model, config, state, seed, 20))
    plots.grid(np.concatenate(strips), job.figures / f"{name}_rebuilt.png", columns=10)
    plots.grid(np.concatenate(blocks), job.figures / f"{name}_samples.png", columns=20, scale=1)


def fakes(job: Job) -> Outcome:
    """What the discriminator is shown: algorithm 1's two kinds of fakes, or the authors' samples alone."""
    trained, judge = models.train(job, "mnist", ("vaegan", models.PRIOR_ONLY)), models.judge(job, "mnist")
    n, inverted = job.choose(200, 10_000, 10_000), job.choose(8, 100, 500)
    found = {model: _numbers(job, model, one, judge, n, inverted) for model, one in trained.items()}
    both = [s for s in trained["vaegan"].seeds if s in trained[models.PRIOR_ONLY].seeds]
    failed = sorted({s for one in trained.values() for s in one.failed})
    configs, data = (
        tuple(one.config() for one in trained.values()),
        (job.load(models.dataset(job, "mnist")), judge.test),
    )

    def row(metric: str, sign: int) -> Measured:
        a, b = (found[model].get(metric, {}) for model in ("vaegan", models.PRIOR_ONLY))
        return Measured([sign * (a[s] - b[s]) for s in both], both, failed, models.steps(job.budget), configs, data)

    titles = {"vaegan": "samples and reconstructions", models.PRIOR_ONLY: "samples alone"}
    lines = [
        [titles[model], *(draw.spread(list(one.get(metric, {}).values()), 4) for metric in SHOWN)]
        for model, one in found.items()
    ]
    table = Table("What the discriminator is shown as fakes, MNIST, mean +- sd.", ("fakes", *SHOWN.values()), lines)
    return Outcome({"fakes_samples": row("frechet", -1), "fakes_similarity": row("similarity", 1)}, [table])


def attributes(job: Job) -> Outcome:
    """Figure 5's arithmetic: a class is a direction of the code, the mean code with it less the mean code without."""
    trained, judge = models.train(job, "mnist", ("vae", "vaegan")), models.judge(job, "mnist")
    train = job.load(models.dataset(job, "mnist"))
    first, tested = job.choose(200, 10_000, 10_000), job.choose(50, 1_000, 1_000)
    found: dict[str, list[float]] = {}
    before = float(np.mean([judge.test.label[:tested] == c for c in range(10)]))
    for model, one in trained.items():
        each = []
        for seed in one.seeds:
            vectors = _vectors(model, one.config(), one.state(seed), train, first)
            hits = []
            for c, vector in enumerate(vectors):
                images = _moved(model, one.config(), one.state(seed), judge.test.x[:tested], vector)
                hits.append((judge.network.probabilities(images, progress=False).argmax(axis=1) == c).mean())
            each.append(float(np.mean(hits)))
            job.tick()
        found[model] = each
    _draw_attributes(job, trained["vaegan"], train, judge, first)
    game, data = trained["vaegan"], (train, judge.test)
    measured = Measured(
        [hit - before for hit in found["vaegan"]], game.seeds, game.failed, models.steps(job.budget), game.config(),
        data, note=f"mean over ten classes; before, {before:.3f} are of the class",
    )  # fmt: skip
    lines = [[models.MODELS[model], draw.spread(each, 3)] for model, each in found.items()]
    title = f"Share of {tested:,} test images that the classifier gives a class whose vector was added, ten classes."
    caption = "Figure 5, first seed: a test image, its reconstruction, and with the vectors of 0, 1, ... 9 added."
    return Outcome(
        {"attribute_vectors": measured}, [Table(title, ("model", "share"), lines)], {"attributes.png": caption}
    )


def _vectors(model: str, config: Any, state: Any, train: Dataset, first: int) -> np.ndarray:
    """Mean code of the images of each class less that of the others, of the first so many: [C, K]."""
    codes = np.concatenate(
        [
            np.asarray(models.ALGORITHMS[model].encode(config, state, train.x[i : i + 500])[0])
            for i in range(0, min(first, len(train.x)), 500)
        ]
    )
    label = np.asarray(train.label)[: len(codes)]
    return np.stack([codes[label == c].mean(axis=0) - codes[label != c].mean(axis=0) for c in range(10)])


def _moved(model: str, config: Any, state: Any, x: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Images of the mean codes of x [N, ...] plus a vector [K]."""
    z, _ = models.ALGORITHMS[model].encode(config, state, x)
    return np.asarray(models.ALGORITHMS[model].decode(config, state, z + vector[None]))


def _draw_attributes(job: Job, one: Trained, train: Dataset, judge: models.Judge, first: int) -> None:
    if not one.seeds:
        return
    config, state = one.config(), one.state(one.seeds[0])
    x = judge.test.x[[int(np.flatnonzero(judge.test.label == c)[0]) for c in range(10)]]
    columns = [x.astype(np.float32) / 255, models.rebuilt("vaegan", config, state, x)]
    columns += [_moved("vaegan", config, state, x, v) for v in _vectors("vaegan", config, state, train, first)]
    page = np.stack(columns, axis=1).reshape(-1, *x.shape[1:])
    plots.grid(page, job.figures / "attributes.png", columns=len(columns))


_ROWS = ("similarity_vae", "similarity_gan", "pixels", "samples_vae", "samples_dis_l", "success")
PARTS = (
    *(
        Part(
            name,
            tuple(f"{name}_{row}" for row in _ROWS),
            compare(name),
            says(
                f"four models on {name}",
                "10 steps on 8x8 digits",
                "1,000 steps each, 35 minutes a seed",
                f"{models.PUBLISHED:,} steps each",
            ),
        )
        for name in models.DATASETS
    ),
    Part(
        "fakes",
        ("fakes_samples", "fakes_similarity"),
        fakes,
        says("a VAE/GAN more", "10 steps", "1,000 steps, 12 minutes a seed", f"{models.PUBLISHED:,} steps"),
    ),
    Part(
        "attributes",
        ("attribute_vectors",),
        attributes,
        says("the trained VAE and VAE/GAN", "10 steps", "1,000 steps, trained by the part mnist", "trained by mnist"),
    ),
)
