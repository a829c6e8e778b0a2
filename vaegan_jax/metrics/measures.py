"""What `evaluate` can ask of a run: name -> function of one seed's model, whose samples and features are made once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.data import toy
from vaegan_jax.metrics import ais, frechet, kernel, likelihood, manifold, modes, neighbors, parzen, prd, score
from vaegan_jax.metrics.subject import PIXELS, Subject, Value, as_float

MIXTURES: dict[str, tuple[Any, float]] = {"ring": (toy.ring, toy.RING_SD), "grid": (toy.grid, toy.GRID_SD)}
EXAMPLES = 100  # whose likelihoods are estimated at once
VALIDATION = 1000  # images of Parzen's choice of sigma


def frechet_distance(one: Subject) -> list[Value]:
    a, b = frechet.statistics(one.seen.features), one.data.statistics
    value = frechet.frechet_from_statistics(a.mu, a.sigma, b.mu, b.sigma)
    few = min(one.ask.samples, b.n) < frechet.ENOUGH
    return [one.compared("frechet_distance", value, note=f"biased, n < {frechet.ENOUGH:,}" if few else "")]


def frechet_infinity(one: Subject) -> list[Value]:
    found = frechet.frechet_infinity(one.seen.features, one.data.statistics)
    return [one.compared("frechet_infinity", found.value, note="extrapolated to infinitely many samples")]


def kernel_distance(one: Subject) -> list[Value]:
    size = min(1000, one.ask.samples, len(one.data.reference))
    if size == one.ask.samples == len(one.data.reference):  # every subset is the set itself
        return [one.compared("kernel_distance", kernel.squared_mmd(one.seen.features, one.data.seen.features))]
    value, error = kernel.kernel_distance(one.seen.features, one.data.seen.features, subset_size=size)
    return [one.compared("kernel_distance", value, error=error, over=f"100 subsets of {size:,}")]


def inception_score(one: Subject) -> list[Value]:
    value, error = score.inception_score(one.seen.probabilities)
    note = f"of {one.data.reference.split}: {score.inception_score(one.data.seen.probabilities)[0]:.4g}{_accuracy(one)}"
    found = Value("inception_score", value, one.ask.samples, "none", one.data.network, error, "10 splits", note)
    return [found]


def precision_recall(one: Subject) -> list[Value]:
    pair = manifold.precision_recall(one.data.seen.features, one.seen.features)
    return [one.compared(name, v, note="k=3") for name, v in zip(("precision", "recall"), pair, strict=True)]


def density_coverage(one: Subject) -> list[Value]:
    pair = manifold.density_coverage(one.data.seen.features, one.seen.features)
    return [one.compared(name, v, note="k=5") for name, v in zip(("density", "coverage"), pair, strict=True)]


def prd_scores(one: Subject) -> list[Value]:
    n = min(one.ask.samples, len(one.data.reference))  # as many of each: unequal numbers bend the clusters
    curve = prd.prd_curve(one.data.seen.features[:n], one.seen.features[:n])
    return [
        one.compared("f8", curve.f8, note=f"weighs recall, {n:,} of each"),
        one.compared("f1_8", curve.f1_8, note=f"weighs precision, {n:,} of each"),
    ]


def classes(one: Subject) -> list[Value]:
    """What the classifier sees in the samples: how many classes, how far their shares are from the reference's."""
    mine, theirs = one.seen.probabilities, one.data.seen.probabilities
    p, q, width = mine.argmax(axis=1), theirs.argmax(axis=1), mine.shape[1]
    share, usual = (np.bincount(c, minlength=width) / len(c) for c in (p, q))
    seen = share > 0
    with np.errstate(divide="ignore"):
        divergence = float((share[seen] * np.log(share[seen] / usual[seen])).sum())
    return [
        one.compared("classes", int(seen.sum()), note=f"{int((usual > 0).sum())} in the split{_accuracy(one)}"),
        one.compared("class_divergence", divergence, note="KL of class shares to the split's, nats"),
        one.compared("confidence", mine.max(axis=1).mean(), note="mean of the largest class probability"),
    ]


def _accuracy(one: Subject) -> str:
    accuracy = one.data.extractor and one.data.extractor.accuracy
    return f"; the classifier's test accuracy {accuracy:.2%}" if accuracy else ""


def mixture_modes(one: Subject) -> list[Value]:
    centres, sd = _mixture(one)
    found, good = modes.mode_coverage(one.drawn, centres, sd)
    return [
        one.compared("modes", found, PIXELS, note=f"of {len(centres)}"),
        one.compared("high_quality", good, PIXELS, note="within 3 sd of a centre; perfect draws: 0.989"),
        one.compared("mode_divergence", modes.mode_divergence(one.drawn, centres), PIXELS, note="nats"),
    ]


def _mixture(one: Subject) -> tuple[np.ndarray, float]:
    """centres [M, 2] and standard deviation of the mixture that the data are drawn from."""
    make, sd = MIXTURES[one.data.train.name]
    return np.asarray(make(jax.random.key(0), 1)[1]), sd


def parzen_likelihood(one: Subject) -> list[Value]:
    data = one.data
    held, chosen = (data.validation, "validation") if data.validation is not None else (data.train, "training")
    count = min(VALIDATION, len(held))
    images = as_float(held.x[:count]), as_float(data.reference.x)
    found = parzen.parzen_estimate(one.drawn, *images, count=one.ask.samples, validation_count=count)
    note = f"nats; sigma {found.sigma:.3g} by the first {count:,} {chosen} images"
    over = f"{len(data.reference):,} examples"
    return [one.compared("parzen_log_likelihood", found.mean, PIXELS, error=found.standard_error, over=over, note=note)]


def memorisation(one: Subject) -> list[Value]:
    found = neighbors.memorisation(one.drawn, as_float(one.data.train.x), as_float(one.data.reference.x))
    split, n = f"{one.data.train.split} ({len(one.data.train):,})", one.ask.samples
    return [
        Value("distance_ratio", found.ratio, n, split, note="to the nearest example, over test's; copies: 0"),
        Value("nearer", found.nearer, n, split, note="P(nearer than a test example); fresh draws: 0.5, copies: 1"),
    ]


def importance(one: Subject) -> list[Value]:
    """L_k of Burda et al. 2015, eq. 8, and the ELBO's parts, of the first examples of the reference."""
    x, found = one.targets, dict[str, list[np.ndarray]]()
    for start in range(0, len(x), EXAMPLES):
        block = x[start : start + EXAMPLES]
        mean, log_var = one.algorithm.encode(one.config, one.state, block)
        bound_key, elbo_key = (jax.random.fold_in(one.key(purpose), start) for purpose in ("likelihood", "elbo"))
        bound = likelihood.importance_log_likelihood(
            one.density, block, mean, log_var, bound_key, samples=one.ask.draws
        )
        terms = likelihood.elbo_terms(one.density, block, mean, log_var, elbo_key)
        for name, value in {"log_likelihood": bound, "elbo": terms["elbo"], "kl": terms["kl"], "mean": mean}.items():
            found.setdefault(name, []).append(np.asarray(value))
    means = np.concatenate(found.pop("mean"))
    rows = [
        _likelihood(one, name, np.concatenate(each), f"k={one.ask.draws:,}; " if name == "log_likelihood" else "")
        for name, each in found.items()
    ]
    if len(x) > 1:
        units = float(likelihood.active_units(means))
        rows.append(Value("active_units", units, len(x), one.data.reference.split, note=f"of {one.config.latents}"))
    return rows


def annealed(one: Subject) -> list[Value]:
    """Wu et al. 2017: a lower bound by AIS, for any decoder."""
    x, found = one.targets, list[np.ndarray]()
    for start in range(0, len(x), EXAMPLES):
        settings = _annealing(one, f"ais-{start}")
        key = jax.random.fold_in(one.key("ais"), start)
        found.append(np.asarray(ais.ais_log_likelihood(one.density, x[start : start + EXAMPLES], key, **settings)))
    return [_likelihood(one, "ais_log_likelihood", np.concatenate(found), _chains(one))]


def gap(one: Subject) -> list[Value]:
    """BDMC: how far apart AIS's lower and upper bounds are on examples that the model itself made."""
    n = min(EXAMPLES, one.ask.examples)

    def simulate(key: jax.Array, z: jax.Array) -> jax.Array:
        mean: jax.Array = one.algorithm.decode_standard(one.config, one.state, z)
        if one.has_likelihood:
            return jax.random.bernoulli(key, mean).astype(jnp.float32)
        return mean + one.sigma * jax.random.normal(key, mean.shape)

    found = ais.bdmc_gap(one.density, simulate, one.key("bdmc"), n=n, **_annealing(one, "bdmc"))
    return [_likelihood(one, "bdmc_gap", np.asarray(found), _chains(one), split="simulated")]


def _annealing(one: Subject, name: str) -> dict[str, Any]:
    return {
        "latents": one.config.latents,
        "chains": one.ask.chains,
        "distributions": one.ask.distributions,
        "workdir": one.workdir and one.workdir / name,
    }


def _chains(one: Subject) -> str:
    return f"{one.ask.chains} chains, {one.ask.distributions:,} distributions; "


def _likelihood(one: Subject, name: str, values: np.ndarray, how: str, split: str | None = None) -> Value:
    values, n = values.astype(np.float64), len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    where, over = split or one.data.reference.split, f"{n:,} examples"
    return Value(name, float(values.mean()), n, where, error=error, over=over, note=f"nats; {how}{one.observed}")


def _needs(samples: int, reference: int = 1, then: Callable[[Subject], str] = lambda _: "") -> Callable[[Subject], str]:
    """At least so many of each, and what else is asked."""

    def missing(one: Subject) -> str:
        if one.ask.samples < samples:
            return f"samples is {one.ask.samples}, give {samples} or more"
        if len(one.data.reference) < reference:
            return f"{one.data.reference.split} has {len(one.data.reference)} examples, {reference} are needed"
        return then(one)

    return missing


def _needs_classes(one: Subject) -> str:
    return "" if one.data.extractor else f"the network is {PIXELS}, which knows no classes: give a network"


def _needs_images(one: Subject) -> str:
    return (
        "" if one.data.reference.x.ndim == 4 else "the data are vectors, and its grid of widths is for images in [0, 1]"
    )


def _needs_mixture(one: Subject) -> str:
    if one.data.train.name not in MIXTURES:
        return f"the data are no mixture with known modes ({', '.join(MIXTURES)})"
    x = as_float(one.data.reference.x)
    centres, sd = _mixture(one)
    good = modes.mode_coverage(x, centres, sd)[1] if x.shape[1:] == centres.shape[1:] else 0.0
    name = one.data.train.name
    return "" if good > 0.9 else f"{good:.0%} of the data lie at the modes of toy.{name}: use metrics.mode_coverage"


def _needs_density(one: Subject) -> str:
    name = one.algorithm.__name__
    if one.config.num_classes:
        return f"this {name} is told a label, and has a likelihood for each: the measure is of models without"
    if not hasattr(one.algorithm, "decode_standard"):
        return f"{name} has latents in several layers: use {name}.log_weights and metrics.bound_from_weights"
    missing = not one.has_likelihood and one.ask.sigma is None
    return f"{name} has no likelihood of its own: give sigma, the deviation of N(G(z), sigma^2 I)" if missing else ""


def _needs_encoder(one: Subject) -> str:
    if hasattr(one.algorithm, "decode_standard") and not hasattr(one.algorithm, "encode"):
        return f"{one.algorithm.__name__} has no encoder to propose latents: ask for parzen, or for ais with sigma"
    return _needs_density(one)


def _needs_simulation(one: Subject) -> str:
    if one.has_likelihood and one.config.likelihood != "bernoulli":
        return f"examples are simulated of a Bernoulli decoder or with sigma, not of {one.config.likelihood}"
    return _needs_density(one)


@dataclasses.dataclass(frozen=True)
class Measure:
    """values: one seed's; missing: why they cannot be had of it, "" where they can."""

    values: Callable[[Subject], list[Value]]
    missing: Callable[[Subject], str] = lambda _: ""


MEASURES = {
    "frechet": Measure(frechet_distance, _needs(2, 2)),
    "frechet_infinity": Measure(frechet_infinity, _needs(30, 2)),
    "kernel": Measure(kernel_distance, _needs(2, 2)),
    "inception": Measure(inception_score, _needs(10, 10, _needs_classes)),
    "pr": Measure(precision_recall, _needs(4, 4)),
    "dc": Measure(density_coverage, _needs(1, 6)),
    "prd": Measure(prd_scores, _needs(20, 20)),
    "classes": Measure(classes, _needs_classes),
    "modes": Measure(mixture_modes, _needs_mixture),
    "parzen": Measure(parzen_likelihood, _needs(1, 2, _needs_images)),
    "memory": Measure(memorisation),
    "likelihood": Measure(importance, _needs_encoder),
    "ais": Measure(annealed, _needs_density),
    "bdmc": Measure(gap, _needs_simulation),
}
