"""What `evaluate` can ask of a run: name -> function of one seed's model, whose samples and features are made once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import logs, losses
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import ais, frechet, kernel, likelihood, manifold, neighbors, parzen, prd, score
from vaegan_jax.metrics.features import Extractor

PIXELS = "pixels"  # in place of a network's name: distances of the data themselves
BLOCK = 1000  # images that go through the network between two updates of the progress
EXAMPLES = 100  # whose likelihoods are estimated at once
VALIDATION = 1000  # images of Parzen's choice of sigma


@dataclasses.dataclass(frozen=True)
class Value:
    """One number. error: its uncertainty for this one model, over what `over` says; None where there is none.

    n: how many samples or examples it is of; network: what the distances are of; split: of the data beside it.
    """

    metric: str
    value: float
    n: int
    split: str
    network: str = PIXELS
    error: float | None = None
    over: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What a run is judged by. reference: the split that samples are compared to, and whose likelihood is estimated."""

    train: Dataset
    validation: Dataset | None
    reference: Dataset
    extractor: Extractor | None  # None: pixels
    progress: bool

    @property
    def network(self) -> str:
        return self.extractor.name if self.extractor else PIXELS

    @functools.cached_property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """(features, class probabilities) of the reference."""
        return self.look(self.reference.x, f"{self.network} on {self.reference.split}")

    def look(self, x: np.ndarray, doing: str) -> tuple[np.ndarray, np.ndarray]:
        """(features [N, D], class probabilities [N, classes]); of pixels the latter is empty."""
        if self.extractor is None:
            return as_float(x).reshape(len(x), -1), np.zeros((len(x), 0), np.float32)
        parts = [
            self.extractor.both(x[rows.start : rows.stop], progress=False)
            for rows in steps(len(x), BLOCK, doing, self.progress)
        ]
        features, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
        return features, probabilities


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One seed of a run, and how it is asked. key: of samples and estimators, the same for each seed."""

    algorithm: Any
    config: Any
    state: Any
    data: Data
    samples: int
    examples: int
    draws: int
    sigma: float | None
    key: jax.Array

    @functools.cached_property
    def drawn(self) -> np.ndarray:
        """samples [n, *shape], float32."""
        return np.asarray(self.algorithm.sample(self.config, self.state, self.key, self.samples))

    @functools.cached_property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """(features, class probabilities) of the samples."""
        return self.data.look(self.drawn, f"{self.data.network} on samples")

    def compared(self, metric: str, value: float, **more: Any) -> Value:
        """A value of the samples' features against the reference's."""
        split = f"{self.data.reference.split} ({len(self.data.reference):,})"
        return Value(metric, float(value), self.samples, split, self.data.network, **more)


def as_float(x: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]; floats stay."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)


def steps(n: int, size: int, doing: str, progress: bool) -> Iterator[range]:
    """Ranges of at most `size` that make up n, with progress on stderr where there are several."""
    ranges = [range(start, min(start + size, n)) for start in range(0, n, size)]
    if not progress or len(ranges) < 2:
        yield from ranges
        return
    with logs.progress(len(ranges), description=doing) as bar:
        for done, rows in enumerate(ranges, 1):
            yield rows
            bar.update(done)


def frechet_distance(one: Subject) -> list[Value]:
    value = frechet.frechet_distance(one.both[0], one.data.both[0])
    return [one.compared("frechet_distance", value)]


def frechet_infinity(one: Subject) -> list[Value]:
    found = frechet.frechet_infinity(one.both[0], frechet.statistics(one.data.both[0]))
    return [one.compared("frechet_infinity", found.value, note="extrapolated to infinitely many samples")]


def kernel_distance(one: Subject) -> list[Value]:
    size = min(1000, one.samples, len(one.data.reference))
    value, error = kernel.kernel_distance(one.both[0], one.data.both[0], subset_size=size)
    return [one.compared("kernel_distance", value, error=error, over=f"100 subsets of {size:,}")]


def inception_score(one: Subject) -> list[Value]:
    _need_classes(one, "inception_score")
    value, error = score.inception_score(one.both[1])
    note = f"of {one.data.reference.split}: {score.inception_score(one.data.both[1])[0]:.4g}"
    return [
        Value("inception_score", value, one.samples, "none", one.data.network, error=error, over="10 splits", note=note)
    ]


def precision_recall(one: Subject) -> list[Value]:
    pair = manifold.precision_recall(one.data.both[0], one.both[0])
    return [one.compared(name, v, note="k=3") for name, v in zip(("precision", "recall"), pair, strict=True)]


def density_coverage(one: Subject) -> list[Value]:
    pair = manifold.density_coverage(one.data.both[0], one.both[0])
    return [one.compared(name, v, note="k=5") for name, v in zip(("density", "coverage"), pair, strict=True)]


def prd_scores(one: Subject) -> list[Value]:
    curve = prd.prd_curve(one.data.both[0], one.both[0])
    return [
        one.compared("f8", curve.f8, note="weighs recall, of the PRD curve"),
        one.compared("f1_8", curve.f1_8, note="weighs precision"),
    ]


def classes(one: Subject) -> list[Value]:
    """What the classifier sees in the samples: how many classes, how far their shares are from the reference's."""
    _need_classes(one, "classes")
    p, q = (probabilities.argmax(axis=1) for probabilities in (one.both[1], one.data.both[1]))
    width = one.both[1].shape[1]
    share, usual = (np.bincount(c, minlength=width) / len(c) for c in (p, q))
    seen = share > 0
    with np.errstate(divide="ignore"):
        divergence = float((share[seen] * np.log(share[seen] / usual[seen])).sum())
    return [
        one.compared("classes", int(seen.sum()), note=f"{int((usual > 0).sum())} in {one.data.reference.split}"),
        one.compared("class_divergence", divergence, note="KL of class shares to the split's, nats"),
        one.compared("confidence", one.both[1].max(axis=1).mean(), note="mean of the largest class probability"),
    ]


def parzen_likelihood(one: Subject) -> list[Value]:
    data = one.data
    held, chosen = (data.validation, "validation") if data.validation is not None else (data.train, "training")
    found = parzen.parzen_estimate(
        one.drawn,
        as_float(held.x[:VALIDATION]),
        as_float(data.reference.x),
        count=one.samples,
        validation_count=min(VALIDATION, len(held)),
    )
    note = f"nats; sigma {found.sigma:.3g} by the first {min(VALIDATION, len(held)):,} {chosen} images"
    return [
        one.compared(
            "parzen_log_likelihood",
            found.mean,
            error=found.standard_error,
            over=f"{len(data.reference):,} examples",
            note=note,
        )
    ]


def memorisation(one: Subject) -> list[Value]:
    found = neighbors.memorisation(one.drawn, as_float(one.data.train.x), as_float(one.data.reference.x))
    split = f"{one.data.train.split} ({len(one.data.train):,})"
    note = f"distance to the nearest training example over that of {one.data.reference.split}; copies: 0"
    return [Value("distance_ratio", found.ratio, one.samples, split, note=note)]


def importance(one: Subject) -> list[Value]:
    """-L_k of Burda et al. 2015, section 5, and the ELBO's parts, of the first examples of the reference."""
    module, config, state = one.algorithm, one.config, one.state
    if not hasattr(module, "log_weights"):
        raise ValueError(
            f"likelihood needs an encoder's proposal, which {module.__name__} lacks: ask for parzen, or for ais "
            "with sigma."
        )
    x = one.data.reference.x[: one.examples]
    binarize, draw = jax.random.split(one.key)
    bounds, parts, means = [], [], []
    for rows in steps(len(x), EXAMPLES, f"likelihood, {one.draws:,} draws", one.data.progress):
        block = jnp.asarray(x[rows.start : rows.stop])
        target = module.targets(config, block, jax.random.fold_in(binarize, rows.start))
        weights_key, elbo_key = jax.random.split(jax.random.fold_in(draw, rows.start))
        bounds.append(losses.iwae_bound(module.log_weights(config, state, target, weights_key, one.draws)))
        parts.append(module.elbo(config, state, {"x": target}, elbo_key))
        means.append(module.encode(config, state, target)[0])
    columns = {"log_likelihood": bounds} | {n: [p[n] for p in parts] for n in ("elbo", "kl")}
    n, found = len(x), []
    for name, each in columns.items():
        values = np.concatenate([np.asarray(v) for v in each]).astype(np.float64)
        note = f"nats; importance weighted, k={one.draws:,}" if name == "log_likelihood" else "nats"
        split = one.data.reference.split
        error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        found.append(Value(name, float(values.mean()), n, split, error=error, over=f"{n:,} examples", note=note))
    if n > 1:
        units = likelihood.active_units(np.concatenate([np.asarray(m) for m in means]))
        found.append(Value("active_units", float(units), n, one.data.reference.split, note=f"of {config.latents}"))
    return found


def annealed(one: Subject) -> list[Value]:
    """Wu et al. 2017: AIS for any decoder; those without a likelihood of their own get N(G(z), sigma^2 I)."""
    module, config, state = one.algorithm, one.config, one.state
    x = one.data.reference.x[: one.examples]
    target_key, key = jax.random.split(one.key)
    if hasattr(module, "log_likelihood"):
        target, what = module.targets(config, jnp.asarray(x), target_key), "the model's own likelihood"

        def density(z: jax.Array, x: jax.Array) -> jax.Array:
            return module.log_likelihood(config, state, z, x)
    else:
        if one.sigma is None:
            raise ValueError(f"{module.__name__} has no likelihood of its own: give sigma, that of N(G(z), sigma^2 I).")
        target, what = jnp.asarray(as_float(x)), f"N(G(z), {one.sigma:g}^2 I)"
        log_var = 2 * float(np.log(one.sigma))

        def density(z: jax.Array, x: jax.Array) -> jax.Array:
            return losses.gaussian_log_prob(module.decode_standard(config, state, z), log_var, x)

    values = []
    for rows in steps(len(x), EXAMPLES, "ais, blocks of examples", one.data.progress):
        own = jax.random.fold_in(key, rows.start)
        block = target[rows.start : rows.stop]
        found = ais.ais_log_likelihood(density, block, own, latents=config.latents, progress=one.data.progress)
        values.append(np.asarray(found))
    value = np.concatenate(values).astype(np.float64)
    n, note = len(x), f"nats; a stochastic lower bound, 16 chains, 1,000 distributions; {what}"
    error = float(value.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    split = one.data.reference.split
    return [Value("ais_log_likelihood", float(value.mean()), n, split, error=error, over=f"{n:,} examples", note=note)]


def _need_classes(one: Subject, metric: str) -> None:
    if one.data.extractor is None:
        raise ValueError(f"{metric} needs a classifier's probabilities, but the network is {PIXELS}: give a network.")


MEASURES: dict[str, Callable[[Subject], list[Value]]] = {
    "frechet": frechet_distance,
    "frechet_infinity": frechet_infinity,
    "kernel": kernel_distance,
    "inception": inception_score,
    "pr": precision_recall,
    "dc": density_coverage,
    "prd": prd_scores,
    "classes": classes,
    "parzen": parzen_likelihood,
    "memory": memorisation,
    "likelihood": importance,
    "ais": annealed,
}
