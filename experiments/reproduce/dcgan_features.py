"""Section 5 of Radford et al. 2015: the discriminator's features under a linear SVM, with 1,000 labels.

The released SVHN protocol: every convolution's activations, max-pooled to 4x4, flattened; C chosen on validation by the
mean of ten draws of 100 labels a class; then 100 draws, judged on the test set; statistics of batch normalisation are
those of the training images.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import dcgan_models as models
from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from vaegan_jax import classifier, gan
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer

GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Of C, the released code's."""
SIDE = 4
DATASETS = ("fashion_mnist", "mnist")


def compare(name: str) -> Callable[[Job], Outcome]:
    """The part that judges three sets of features and a supervised net on one data set."""

    def run(job: Job) -> Outcome:
        train, validation, test = models.splits(job, name)
        if job.budget == "smoke":
            validation, test = (dataclasses.replace(d, x=d.x[:200], label=d.label[:200]) for d in (validation, test))
        per_class, draws, tries = job.choose((5, 2, 2), (100, 100, 10), (100, 100, 10))
        one = models.train(job, name)
        fresh = gan.init(one.config(), jax.random.key(0), train.x.shape[1:])
        labels = [d.label for d in (train, validation, test)]

        def protocol(x: list[np.ndarray], seed: int) -> tuple[float, float, float]:
            return few_labels(x, labels, per_class, draws, tries, seed)

        def seen(state: Any) -> list[np.ndarray]:
            state = real_statistics(one.config(), state, train.x)
            return [pooled(one.config(), state, d.x) for d in (train, validation, test)]

        pixels = protocol([d.x.reshape(len(d.x), -1).astype(np.float32) / 255 for d in (train, validation, test)], 0)
        job.tick()
        random = protocol(seen(fresh), 0)
        job.tick()
        ours, supervised, lines = [], [], []
        for seed in one.seeds:
            ours.append(protocol(seen(one.state(seed)), seed))
            job.tick()
            supervised.append(_supervised(job, name, seed, per_class, train, test))
            job.tick()
            lines.append(f"seed {seed}: C {ours[-1][2]:g}, +-{ours[-1][1]:.2f} (1.96 sd over draws)")
        errors = np.array([o[0] for o in ours])
        data, steps = (train, validation, test), models.steps(job.budget)

        def row(values: np.ndarray, note: str) -> Measured:
            return Measured(values.tolist(), one.seeds, one.failed, steps, one.config(), data, note=note)

        found = {
            f"{name}_over_supervised": row(
                np.array(supervised) - errors, f"features {draw.spread(errors)} %; " + "; ".join(lines)
            ),
            f"{name}_over_pixels": row(pixels[0] - errors, f"pixels {pixels[0]:.2f} +- {pixels[1]:.2f} %"),
            f"{name}_over_random": row(random[0] - errors, f"untrained {random[0]:.2f} +- {random[1]:.2f} %"),
        }
        rows = [
            ["pixels", f"{pixels[0]:.2f}", f"{pixels[1]:.2f}"],
            ["discriminator, not trained", f"{random[0]:.2f}", f"{random[1]:.2f}"],
            ["discriminator", draw.spread(errors), f"{np.mean([o[1] for o in ours]):.2f}" if ours else "-"],
            ["supervised net of these widths", draw.spread(supervised), "-"],
        ]
        title = (
            f"{name}: test error in % of a linear SVM on {per_class} labels a class, mean of {draws} draws; "
            "where there are seeds, mean +- sd over them."
        )
        return Outcome(found, [Table(title, ("features", "error", "1.96 sd over draws"), rows)])

    return run


def real_statistics(config: gan.Config, state: gan.State, x: np.ndarray, batches: int = 50, size: int = 500) -> Any:
    """The state with the discriminator's statistics of real images alone: in training, fakes move them too."""

    @jax.jit
    def see(stats: Any, batch: jax.Array) -> Any:
        variables = {"params": state.discriminator.params, "batch_stats": stats}
        return players.apply(config.discriminator, variables, players.as_float(batch), None, train=True)[1]

    stats, order = state.discriminator.batch_stats, np.random.default_rng(0).permutation(len(x))
    for i in range(batches):
        stats = see(stats, jnp.asarray(x[np.resize(np.roll(order, -i * size), size)]))
    return dataclasses.replace(state, discriminator=dataclasses.replace(state.discriminator, batch_stats=stats))


def pooled(config: gan.Config, state: gan.State, x: np.ndarray, block: int = 500) -> np.ndarray:
    """Activations of all convolutions of images [N, H, W, C], max-pooled to SIDE x SIDE: [N, D]."""
    net: Any = config.discriminator
    names = [f"conv{i}_activation" for i in range(len(net.channels))]
    views = [dataclasses.replace(config, discriminator=dataclasses.replace(net, feature_layer=n)) for n in names]
    parts = []
    for start in range(0, len(x), block):
        each = [np.asarray(gan.discriminate(view, state, jnp.asarray(x[start : start + block]))[1]) for view in views]
        parts.append(np.concatenate([shrink(h) for h in each], axis=1))
    return np.concatenate(parts)


def shrink(h: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Max over side x side windows as equal as they can be: [B, H, W, C] -> [B, side * side * C]."""
    side = min(side, *h.shape[1:3])
    rows = [part.max(axis=1) for part in np.array_split(h, side, axis=1)]
    cells = [part.max(axis=1) for row in rows for part in np.array_split(row, side, axis=1)]
    return np.concatenate(cells, axis=1)


def few_labels(
    x: list[np.ndarray], label: list[np.ndarray], per_class: int, draws: int, tries: int, seed: int
) -> tuple[float, float, float]:
    """(test error in %, mean of draws; 1.96 standard deviations over them; C) of x = [train, validation, test]."""
    rng = np.random.default_rng(seed)
    picks = [pick(label[0], per_class, rng) for _ in range(draws)]
    chosen = [np.mean([_svm(x[0][p], label[0][p], x[1], label[1], c) for p in picks[:tries]]) for c in GRID]
    best = GRID[int(np.argmin(chosen))]
    errors = [_svm(x[0][p], label[0][p], x[2], label[2], best) for p in picks]
    return float(np.mean(errors)), float(1.96 * np.std(errors)), best


def pick(label: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of so many random examples of each class."""
    return np.concatenate([rng.choice(np.flatnonzero(label == c), per_class, replace=False) for c in np.unique(label)])


def _svm(x: np.ndarray, label: np.ndarray, y: np.ndarray, wanted: np.ndarray, c: float) -> float:
    """Error in % on y of a linear L2 SVM fitted to x."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as released: its default number of iterations
        model = LinearSVC(C=c, random_state=0).fit(x, label)
    return float(100 * (model.predict(y) != wanted).mean())


def _supervised(job: Job, name: str, seed: int, per_class: int, train: Any, test: Any) -> float:
    """Test error in % of a net of the discriminator's widths that saw only as many labels."""
    chosen = pick(train.label, per_class, np.random.default_rng([seed, 1]))
    few = dataclasses.replace(train, x=train.x[chosen], label=train.label[chosen])
    steps = job.choose(5, 300, 1_000)
    net = classifier.ConvClassifier(
        channels=job.choose((4, 8), (64, 128), (64, 128)), hidden=job.choose(16, 1024, 1024), kernel=(5, 5), dropout=0.5
    )
    adam = Optimizer(rule="adam", learning_rate=1e-3, linear_to=steps)
    config = classifier.Config(net=net, shift=0, optimizer=adam, batch_size=min(100, len(few.x)))
    run = job.fit(f"{name}-supervised-of-{seed}", classifier, config, few, steps=steps, seeds=(seed,))
    if not run.seeds:
        return float("nan")
    blocks = range(0, len(test.x), 500)
    said = [classifier.classify(run.config(), run.state(seed), test.x[i : i + 500])[0] for i in blocks]
    return float(100 * (np.concatenate(said).argmax(axis=1) != test.label).mean())


def _rows(name: str) -> tuple[str, ...]:
    return (f"{name}_over_supervised", f"{name}_over_pixels", f"{name}_over_random")


PARTS = tuple(
    Part(
        f"features_{name}",
        _rows(name),
        compare(name),
        says(
            f"an unconditional DCGAN on {name}, SVMs on its discriminator",
            "10 steps, 2 draws",
            "700 steps, 100 draws, 20 minutes a seed",
            f"{models.PUBLISHED:,} steps, 100 draws",
        ),
    )
    for name in DATASETS
)
