"""Networks that metrics look through: images to features and class probabilities, in blocks.

A distance between features is one of a network and of n: `metric_name` puts both into its name, and numbers of two
networks are never compared. `classifier` is a small network for each data set, trained here on first use;
`inception.extractor` is the one of the published FID values.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import checks, data, fit, logs, model
from vaegan_jax import classifier as classifiers
from vaegan_jax import config as configs
from vaegan_jax.data import cache
from vaegan_jax.optimizer import Optimizer

_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
    """A network that is not trained any more."""

    name: str
    """What its metrics are called by: see `metric_name`."""
    forward: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    """x [B, H, W, C], uint8 or float32 in [0, 1] -> (features [B, D], probabilities [B, classes])."""
    shape: tuple[int | None, int | None, int | None]
    """(H, W, C) that it takes; None: any height or width, one channel or three."""
    block: int = 250
    """Images that go through the network at once."""
    accuracy: float | None = None
    """On its data set's test images, in [0, 1], where it was trained here."""
    digest: str = ""
    """sha256 of its weights, for keys of caches: the same weights, the same digest; "" if it is not known."""

    def features(self, x: ArrayLike, *, progress: bool = True) -> np.ndarray:
        """x [N, H, W, C], uint8 in [0, 255] or float in [0, 1] -> float32 [N, D].

        progress: whether what takes long is reported on stderr (`logs.steps`).

        Raises:
            ValueError: another shape, dtype or range, NaN, no images.
        """
        return self.both(x, progress=progress)[0]

    def probabilities(self, x: ArrayLike, *, progress: bool = True) -> np.ndarray:
        """x as for `features` -> float32 [N, classes], each row sums to 1."""
        return self.both(x, progress=progress)[1]

    def both(self, x: ArrayLike, *, progress: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """(features, probabilities) of one pass through the network."""
        x = self._check(x)
        N, size = len(x), min(self.block, len(x))
        starts = range(0, N, size)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        with logs.quiet(not progress):
            for i in logs.steps(len(starts), f"{self.name}, blocks of {size} images"):
                block = x[starts[i] : starts[i] + size]
                block = block if block.dtype == np.uint8 else block.astype(np.float32)
                missing = size - len(block)  # filled up, so that every block is one compiled program
                if missing:
                    block = np.concatenate([block, np.repeat(block[-1:], missing, axis=0)])
                found = self.forward(jax.device_put(block))
                parts.append((np.asarray(found[0])[: size - missing], np.asarray(found[1])[: size - missing]))
        features, probabilities = (np.concatenate(each).astype(np.float32) for each in zip(*parts, strict=True))
        return features, probabilities

    def _check(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x)
        sides = [str(n) if n else letter for n, letter in zip(self.shape, "HWC", strict=True)]
        fits = x.ndim == 4 and all(want in (None, n) for want, n in zip(self.shape, x.shape[1:], strict=True))
        if not fits or 0 in x.shape or (self.shape[2] is None and x.shape[3] not in (1, 3)):
            expected = f"[N, {', '.join(sides)}]" + (" with C = 1 or 3" if self.shape[2] is None else "")
            raise ValueError(f"x has shape {x.shape}: {self.name} takes {expected}, at least one image.")
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise ValueError(f"x has dtype {x.dtype}: give images as uint8 in [0, 255] or floating point in [0, 1].")
        if x.dtype != np.uint8:
            low, high = x.min(), x.max()
            if not (low >= 0 and high <= 1):  # NaN too
                raise ValueError(
                    f"x goes from {low:.4g} to {high:.4g}: give floating point in [0, 1] without NaN, such as "
                    "x / 255 or (x + 1) / 2, or uint8 in [0, 255]."
                )
        return x


def metric_name(metric: str, network: str, n: int) -> str:
    """`frechet_distance[mnist-cnn, n=10000]`: the name of a number that depends on a network and on n samples."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n is {n}: give the number of samples, 1 or more.")
    if not metric or not network:
        raise ValueError(f"metric is {metric!r} and network {network!r}: give the names of both.")
    return f"{metric}[{network}, n={int(n)}]"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a data set's classifier is trained; the config's splits say on what, and on what it is judged."""

    config: classifiers.Config
    steps: int


def _recipe(steps: int, channels: tuple[int, ...] = (16, 32, 64, 128), **fields: Any) -> Recipe:
    adam = Optimizer(rule="adam", learning_rate=2e-3, linear_to=steps)
    net = classifiers.ConvClassifier(channels=channels)
    return Recipe(classifiers.Config(net=net, optimizer=adam, **fields), steps)


RECIPES = {
    "digits": _recipe(400, channels=(16, 32, 64), batch_size=64, shift=1),
    "mnist": _recipe(3_750),
    "fashion_mnist": _recipe(5_600, shift=1, flip=True),
}
"""Eight epochs of MNIST, twelve of Fashion-MNIST. Test accuracies measured with them, one seed each: MNIST 99.50 %,
Fashion-MNIST 93.67 %, digits 98.83 % (of 256 images)."""


def classifier(
    dataset_name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    recipe: Recipe | None = None,
    progress: bool = True,
) -> Extractor:
    """The classifier of a data set, `mnist-cnn` for mnist: features are its last hidden layer's, [N, 128] by default.

    It is trained on first use, which stderr says, and kept in `features` of the cache (`cache_dir`, else `data_dir`,
    else the data's: see data.cache) under the digest of training data and recipe, with its test accuracy. A training
    that was cut off goes on where it stopped.

    Args:
        dataset_name: one of RECIPES, or with `recipe` any labelled image set that data.load takes.
        recipe: in place of the data set's own; the name then ends in its digest, `mnist-cnn-1a2b3c4d`.
        progress: whether to report on stderr while it trains.

    Raises:
        ValueError: no recipe for these data, vectors, no labels; another process trains the same one.
    """
    if recipe is None and dataset_name not in RECIPES:
        raise ValueError(f"dataset_name is {dataset_name!r}: give one of {', '.join(RECIPES)}, or a recipe for it.")
    chosen = RECIPES[dataset_name] if recipe is None else recipe
    train = data.load(dataset_name, chosen.config.splits[0], data_dir=data_dir)
    if train.x.ndim != 4:
        raise ValueError(f"{dataset_name} holds vectors {list(train.x.shape[1:])}: give a data set of images.")
    about = {"data": train.sha256, "config": configs.to_json(chosen.config), "steps": chosen.steps, "seed": _SEED}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in dataset_name)
    name = f"{safe}-cnn" + ("" if chosen == RECIPES.get(dataset_name) else f"-{digest[:8]}")
    folder = cache.root(data_dir if cache_dir is None else cache_dir) / "features" / f"{safe}-cnn-{digest[:16]}"
    result = folder / "accuracy.json"
    if not result.exists():
        _train(name, chosen, train, folder, data_dir, progress)
    config = dataclasses.replace(chosen.config, dataset_size=len(train))
    trained = model.load(folder, config=config)
    H, W, C = train.x.shape[1:]
    return Extractor(
        name,
        functools.partial(_forward, config, trained.state),
        (H, W, C),
        accuracy=float(json.loads(result.read_text())["accuracy"]),
        digest=weights_digest(trained.state.model.variables()),
    )


def weights_digest(weights: Any) -> str:
    """sha256 over every array of a tree: its name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(weights):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


@functools.partial(jax.jit, static_argnums=0)
@jax.default_matmul_precision("highest")  # or features would hang on the device: an accelerator's default has 10 bits
def _forward(config: classifiers.Config, state: classifiers.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = classifiers.classify(config, state, x)
    return features, jax.nn.softmax(logits)


def _train(
    name: str,
    recipe: Recipe,
    train: data.Dataset,
    folder: Path,
    data_dir: str | os.PathLike[str] | None,
    progress: bool,
) -> None:
    """Trains into `folder`, and writes accuracy.json last: where it is, the training is complete."""
    test = data.load(train.name, recipe.config.splits[2], data_dir=data_dir)
    if train.label is not None and train.label.ndim == 2:
        raise ValueError(f"{train.name} has attributes for labels: give images of one class each.")
    checks.held_out(recipe.config, train, test)

    def say(text: str) -> None:
        if progress:
            print(f"{name}: {text}", file=sys.stderr, flush=True)

    say(f"not trained yet, so {recipe.steps:,} steps on {train.name} {train.split}, once; kept in {folder}")
    run = fit.fit(
        classifiers,
        recipe.config,
        train,
        steps=recipe.steps,
        seeds=(_SEED,),
        workdir=folder,
        checkpoint_every=max(1, recipe.steps // 10),
        keep=1,
        progress=progress,
    )
    values = fit.validate(classifiers, run.config, run.state(_SEED), test)
    say(f"test accuracy {100 * values['accuracy']:.2f} % of {len(test):,}")
    aside = folder / ".accuracy.json"
    aside.write_text(json.dumps(values | {"test": {"split": test.split, "sha256": test.sha256}}, indent=2) + "\n")
    aside.replace(folder / "accuracy.json")
