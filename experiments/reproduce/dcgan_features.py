"""Section 5 of Radford et al. 2015: the discriminator's features under a linear SVM, with 1,000 labels.

The released SVHN protocol: every convolution's activations, max-pooled to 4x4, flattened; C chosen on validation by the
mean of ten draws of 100 labels a class; then 100 draws, judged on the test set; statistics of batch normalisation are
those of the training images.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import dcgan_models as models
from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from experiments.reproduce.pca import rows
from vaegan_jax import classifier, fit, gan, nets
from vaegan_jax import state as players
from vaegan_jax.data.dataset import Dataset

GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Of C, the released code's."""
PIXEL_GRID = (*GRID, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
"""784 pixels in [0, 1] are fewer and smaller than the features that the released grid is for."""
SIDE = 4
DATASETS = ("fashion_mnist", "mnist")
TITLES = {"pixels": "pixels", "untrained": "discriminator, not trained", "trained": "discriminator"}
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
"""Learning rates that the supervised net may take."""


def compare(name: str) -> Callable[[Job], Outcome]:
    """The part that judges three sets of features and a supervised net on one data set."""

    def run(job: Job) -> Outcome:
        train, validation, test = models.splits(job, name)
        if job.budget == "smoke":
            validation, test = (Dataset(d.x[:200], d.label[:200], d.name, d.split) for d in (validation, test))
        data = (train, validation, test)
        per_class, draws, tries = job.choose((5, 2, 2), (100, 100, 10), (100, 100, 10))
        one = models.train(job, name)
        config, labels = one.config(), [d.label for d in data]

        def pixels(seed: int) -> list[np.ndarray]:
            return [rows(d.x) for d in data]

        def features(state: gan.State) -> list[np.ndarray]:
            state = real_statistics(config, state, train.x)
            return [pooled(config, state, d.x) for d in data]

        makers: dict[str, Callable[[int], list[np.ndarray]]] = {
            "pixels": pixels,
            "untrained": lambda seed: features(untrained(config, seed, train)),
            "trained": lambda seed: features(one.state(seed)),
        }

        def protocol(kind: str, seed: int) -> tuple[float, float, float, float]:
            # The draws are the seed's, so that every difference is of the same labels.
            grid = PIXEL_GRID if kind == "pixels" else GRID
            return few_labels(makers[kind](seed), labels, per_class, draws, tries, seed, grid)

        found: dict[str, list[Any]] = {kind: [] for kind in makers}
        supervised, done, failed = [], [], list(one.failed)
        for seed in one.seeds:
            net = _supervised(job, seed, per_class, data)
            if net is None:
                failed.append(seed)
                continue
            done.append(seed)
            supervised.append(net)
            for kind, each in found.items():
                each.append(job.kept(f"{kind}-{seed}", functools.partial(protocol, kind, seed)))
        errors, spread = ({kind: np.array([e[i] for e in each]) for kind, each in found.items()} for i in (0, 1))
        first = np.array([e[3] for e in found["trained"]])

        def row(others: np.ndarray, note: str, ours: np.ndarray = errors["trained"]) -> Measured:
            values, steps = (others - ours).tolist(), models.steps(job.budget)
            return Measured(values, done, sorted(failed), steps, config, data, note=note)

        chosen = "; ".join(
            f"seed {seed}: C {c:g}, +-{sd:.2f} (1.96 sd over draws)"
            for seed, (_, sd, c, _) in zip(done, found["trained"], strict=True)
        )
        blank = "; ".join(f"C {c:g}" for _, _, c, _ in found["untrained"])
        means = {kind: f"{kind} {draw.spread(each)} %" for kind, each in errors.items()}
        measured = {
            f"{name}_over_supervised": row(
                np.array(supervised),
                f"supervised {draw.spread(supervised)} %, SVM {draw.spread(first)} % on the same labels, "
                f"{draw.spread(errors['trained'])} % over all draws; {chosen}",
                first,
            ),
            f"{name}_over_pixels": row(errors["pixels"], means["pixels"]),
            f"{name}_over_random": row(errors["untrained"], f"{means['untrained']}; {blank}"),
        }
        lines = [[TITLES[kind], draw.spread(errors[kind]), draw.spread(spread[kind])] for kind in makers]
        lines.append(["the discriminator's layers, supervised", draw.spread(supervised), "-"])
        title = (
            f"{name}: test error in % of a linear SVM on {per_class} labels a class, mean of {draws} draws; mean +- sd "
            "over seeds."
        )
        return Outcome(
            measured, [Table(title, ("features", "error, %", "1.96 sd over draws, percentage points"), lines)]
        )

    return run


def untrained(config: gan.Config, seed: int, data: Dataset) -> Any:
    """What `fit` began this seed with."""
    return jax.tree.map(lambda leaf: leaf[0], fit.first_states(gan, config, data, (seed,)))


def real_statistics(config: gan.Config, state: gan.State, x: np.ndarray, size: int = 500) -> gan.State:
    """The state whose discriminator's statistics are the means over all batches of x: in training, fakes move them."""
    net: Any = config.discriminator
    net = dataclasses.replace(net, norm_momentum=0.0)  # statistics of one batch, nothing of those before it

    @jax.jit
    def see(variables: Any, batch: jax.Array) -> Any:
        return players.apply(net, variables, players.as_float(batch), None, train=True)[1]

    size = min(size, len(x))
    order = np.random.default_rng(0).permutation(len(x))
    variables = state.discriminator.variables()
    each = [see(variables, jnp.asarray(x[order[i : i + size]])) for i in range(0, len(x) - size + 1, size)]
    stats = jax.tree.map(lambda *leaves: jnp.stack(leaves).mean(axis=0), *each)
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
    x: list[np.ndarray],
    label: list[np.ndarray],
    per_class: int,
    draws: int,
    tries: int,
    seed: int,
    grid: tuple[float, ...] = GRID,
) -> tuple[float, float, float, float]:
    """Of x = [train, validation, test]: (test error in %, mean of draws; 1.96 sd over them; C; error of the first)."""
    rng = np.random.default_rng(seed)
    picks = [pick(label[0], per_class, rng) for _ in range(draws)]
    chosen = [np.mean([_svm(x[0][p], label[0][p], x[1], label[1], c) for p in picks[:tries]]) for c in grid]
    best = grid[int(np.argmin(chosen))]
    errors = [_svm(x[0][p], label[0][p], x[2], label[2], best) for p in picks]
    return float(np.mean(errors)), float(1.96 * np.std(errors)), best, errors[0]


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


class Supervised(nn.Module):
    """The discriminator's own layers, and a logit a class: x [B, H, W, C] -> (logits [B, classes], features [B, F])."""

    body: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, classes: int, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        _, h = self.body(x, train=train)
        return nn.Dense(classes, kernel_init=nets.Normal(0.02), name="classes")(h), h


def _supervised(job: Job, seed: int, per_class: int, data: tuple[Dataset, Dataset, Dataset]) -> float | None:
    """Test error in % of a net that saw so many labels alone, its rate chosen on validation; None: it diverged.

    The paper searches at random over hyperparameters that it does not name; the optimiser is otherwise the GAN's.
    """
    train, validation, test = data
    label = np.asarray(train.label)
    chosen = pick(label, per_class, np.random.default_rng(seed))  # the SVM's first draw
    few = Dataset(train.x[chosen], label[chosen], train.name, train.split)
    steps = job.choose(5, 1_000, 1_000)
    base: Any = models.small(job, gan.dcgan())
    layers = len(base.discriminator.hidden)
    net = Supervised(dataclasses.replace(base.discriminator, feature_layer=f"hidden{layers - 1}_activation"))
    found = []
    for rate in RATES:
        adam = dataclasses.replace(base.discriminator_optimizer, learning_rate=rate, linear_from=0, linear_to=steps)
        config = classifier.Config(net=net, shift=0, optimizer=adam, batch_size=min(100, len(few)))
        run = job.fit(f"supervised-{rate:g}-of-{seed}", classifier, config, few, steps=steps, seeds=(seed,))
        if run.seeds:
            found.append([_error(run.config(), run.state(seed), d) for d in (validation, test)])
    return min(found, key=lambda errors: errors[0])[1] if found else None


def _error(config: classifier.Config, state: Any, dataset: Dataset) -> float:
    return 100 * (1 - fit.validate(classifier, config, state, dataset)["accuracy"])


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
            "700 steps, 100 draws, 25 minutes a seed",
            f"{models.PUBLISHED:,} steps, 100 draws",
        ),
    )
    for name in DATASETS
)
