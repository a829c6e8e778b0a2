"""All the numbers of one run: samples and features are made once a seed, and every row says how it was measured."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaegan_jax import data as data_sets
from vaegan_jax import fit, logs, model
from vaegan_jax.data import cache
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import features, inception, inputs
from vaegan_jax.metrics.measures import MEASURES
from vaegan_jax.metrics.subject import PIXELS, Data, Settings, Subject, Value

DEFAULT = ("frechet", "kernel", "pr", "dc")


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of a run: a value a seed, and all that it is a number of.

    errors: the uncertainty of each value for its one model, over what `over` says; None where there is none. sd over
    seeds is another thing: that of training again.
    """

    metric: str
    values: tuple[float, ...]
    errors: tuple[float, ...] | None
    over: str
    network: str
    n: int
    split: str
    range: str
    statistics: str
    note: str

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        """Standard deviation over training seeds; NaN of one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Rows of one run, and of which one: printed as a table, or `as_json`."""

    run: str
    algorithm: str
    step: int
    seeds: tuple[int, ...]
    data: str
    sha256: str
    """Of the split that it is judged by."""
    key: int
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        """A line a row; +- is the deviation over seeds or, of one seed, the error that the last column names."""
        head = ("metric", "value", "n", "network", "against", "range", "batch norm", "how")
        lines = [head]
        for row in self.rows:
            spread, over = row.sd, f"+- over {len(row.values)} seeds"
            if len(row.values) == 1:
                spread, over = (math.nan, "") if row.errors is None else (row.errors[0], f"+- over {row.over}")
            value = number(row.mean, spread)
            how = "; ".join(text for text in (over, row.note) if text)
            n, where = f"{row.n:,}", (row.network, row.split, row.range, row.statistics)
            lines.append((row.metric.partition("[")[0], value, n, *where, how))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        seeds = "seed" if len(self.seeds) == 1 else "seeds"
        title = f"{self.run}: {self.algorithm} on {self.data}, step {self.step:,}, {seeds} {_listed(self.seeds)}"
        return "\n".join([title, "", text[0], "  ".join("-" * width for width in widths), *text[1:]])

    def as_json(self) -> dict[str, Any]:
        """Numbers and strings; None for the deviation over one seed, and for a value that is infinite."""
        rows = [dataclasses.asdict(row) | {"mean": row.mean, "sd": row.sd} for row in self.rows]
        for row in rows:
            for name in ("values", "errors"):
                row[name] = row[name] and [_finite(value) for value in row[name]]
            row |= {name: _finite(row[name]) for name in ("mean", "sd")}
        return dataclasses.asdict(self) | {"rows": rows}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def number(value: float, spread: float) -> str:
    """`98.61 +- 0.24`: the spread with two digits, the value with as many decimals; without a spread four digits.

    Very small and very large ones are `3.2e-09 +- 4.0e-09`; beside a spread below a millionth the value has six digits.
    """
    if not math.isfinite(spread) or spread == 0:
        return f"{value:.4g}"
    if not 1e-3 <= max(abs(value), spread) < 1e6:
        return f"{value:.1e} +- {spread:.1e}"
    if spread < 1e-6 * abs(value):
        return f"{value:.6g} +- {spread:.1g}"
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return f"{value:.{decimals}f} +- {spread:.{decimals}f}"


def evaluate(
    run: Any,
    *,
    metrics: Sequence[str] = DEFAULT,
    samples: int = 10_000,
    seeds: Sequence[int] | None = None,
    data: Any = None,
    split: str = "test",
    network: features.Extractor | str | Path | None = None,
    examples: int = 1000,
    draws: int = 5000,
    sigma: float | None = None,
    chains: int = 16,
    distributions: int = 1000,
    key: int = 0,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures every seed of a run.

    Args:
        run: what `fit` returned, or a workdir; in the latter's evaluation/ chains of `ais` and `bdmc` are kept, so that
            the same call goes on from them.
        metrics: of frechet, frechet_infinity, kernel, inception, pr (precision and recall), dc (density and coverage),
            prd, classes, modes (of ring and grid), parzen, memory, likelihood (importance weighted), ais, bdmc (its
            gap).
        samples: drawn of each seed.
        seeds: None is all.
        data: a name that data.load takes, or (train, test) Datasets; None is what the run's workdir says.
        split: what samples are compared to, and whose likelihood is estimated.
        network: whose features distances are taken in: an Extractor, "pixels", a file of Inception-v3's weights, or
            the name of a data set with a classifier (see features.RECIPES), which is trained on first use. None: that
            of the run's own data, pixels where there is none.
        examples: of the split, for `likelihood` and `ais`, the first ones.
        draws: k of `likelihood`.
        sigma: deviation of the observation model N(G(z), sigma^2 I) where the algorithm has no likelihood.
        chains, distributions: of `ais` and `bdmc`.
        key: seed of samples and estimators, the same for every model.
        progress: whether to report on stderr.

    Raises:
        ValueError: before anything is measured, a metric that is unknown or that the algorithm lacks what it needs for;
            no data to compare to.
    """
    names = _names(metrics)
    least = {"samples": 2, "examples": 1, "draws": 1, "chains": 1, "distributions": 2}
    counts = {
        "samples": samples,
        "examples": examples,
        "draws": draws,
        "chains": chains,
        "distributions": distributions,
    }
    for name, value in counts.items():
        inputs.count(name, value, least[name])
    ask = Settings(sigma=None if sigma is None else inputs.positive("sigma", sigma), key=key, **counts)
    described, wanted, models = _models(run, seeds)
    first = next(models)
    if not hasattr(first.algorithm, "sample"):
        raise ValueError(f"{first.algorithm.__name__} draws no samples: evaluate is for generative models.")
    judged = _data(described, first, data, split, network, data_dir)
    algorithm, step, statistics = first.algorithm.__name__.rpartition(".")[2], int(first.state.step), _statistics(first)

    def subject(seed: int, one: model.Model) -> Subject:
        folder = _folder(run, seed, step, ask, judged) if isinstance(run, str | Path) else None
        return Subject(one.algorithm, one.config, one.state, judged, ask, folder)

    with contextlib.nullcontext() if progress else logs.quiet():
        _check(names, subject(wanted[0], first))
        each = [
            _measured(names, subject(seed, one), seed, progress)
            for seed, one in zip(wanted, itertools.chain((first,), models), strict=True)
        ]
    scale = "[0, 1]" if judged.reference.x.ndim == 4 else "any"
    rows = tuple(_row(values, scale, statistics, wanted) for values in zip(*each, strict=True))
    title = str(run.workdir or "run") if isinstance(run, fit.Run) else str(run)
    return Evaluation(title, algorithm, step, wanted, judged.train.name, judged.reference.sha256, key, rows)


def _folder(run: str | Path, seed: int, step: int, ask: Settings, judged: Data) -> Path:
    """Where a seed's chains are kept: of this step, these data and what chains are told, so that no others' are met."""
    asked = (judged.reference.sha256, ask.examples, ask.sigma, ask.chains, ask.distributions, ask.key)
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
    return Path(run) / "evaluation" / f"seed{seed}-step{step}-{digest}"


def _names(metrics: Any) -> tuple[str, ...]:
    """The metrics asked for, each once."""
    given = () if isinstance(metrics, str) or not isinstance(metrics, Sequence) else tuple(metrics)
    if not given or any(name not in MEASURES for name in given):
        raise ValueError(f"metrics is {metrics!r}: give a list of some of {', '.join(MEASURES)}.")
    return tuple(dict.fromkeys(given))


def _check(names: Sequence[str], subject: Subject) -> None:
    """All that is missing for these metrics, before the first of them takes its time."""
    missing = [f"{name}: {why}" for name in names if (why := MEASURES[name].missing(subject))]
    if missing:
        raise ValueError(f"{'; '.join(missing)}. Or leave {'it' if len(missing) == 1 else 'them'} out.")


def _measured(names: Sequence[str], subject: Subject, seed: int, progress: bool) -> list[Value]:
    """One seed's values of every metric."""
    found: list[Value] = []
    for i, name in enumerate(names, 1):
        if progress:
            print(f"seed {seed}: {name} ({i} of {len(names)})", file=sys.stderr, flush=True)
        found += MEASURES[name].values(subject)
    return found


def _row(values: Sequence[Value], scale: str, statistics: str, seeds: Sequence[int]) -> Row:
    """One metric's values of all seeds."""
    one = values[0]
    errors = tuple(value.error for value in values if value.error is not None)
    same = len({value.note for value in values}) == 1
    return Row(
        metric=features.metric_name(one.metric, one.network, one.n),
        values=tuple(value.value for value in values),
        errors=errors if len(errors) == len(values) else None,
        over=one.over,
        network=one.network,
        n=one.n,
        split=one.split,
        range=scale,
        statistics=statistics,
        note=one.note if same else "; ".join(f"seed {s}: {v.note}" for s, v in zip(seeds, values, strict=True)),
    )


def _models(
    run: Any, seeds: Sequence[int] | None
) -> tuple[dict[str, Any] | None, tuple[int, ...], Iterator[model.Model]]:
    """(the run's "data" of config.json, the seeds asked for, their models one after the other)."""
    if isinstance(run, fit.Run):
        have, described = run.seeds, _described(run.workdir) if run.workdir else None
    elif isinstance(run, str | Path):
        have, described = tuple(model.stored(run)["seeds"]), _described(Path(run))
    else:
        raise ValueError(f"run is a {type(run).__name__}: give what fit returned, or a workdir.")
    wanted = tuple(have) if seeds is None else tuple(seeds)
    if not wanted or any(seed not in have for seed in wanted):
        raise ValueError(f"seeds is {_listed(wanted) or 'empty'}: the run has {_listed(have)}.")
    if isinstance(run, fit.Run):
        return described, wanted, (model.Model(run.algorithm, run.config, run.state(seed)) for seed in wanted)
    return described, wanted, (model.load(run, seed=seed) for seed in wanted)


def _described(workdir: Path) -> dict[str, Any]:
    described: dict[str, Any] = model.stored(workdir)["data"]
    return described


def _data(
    described: dict[str, Any] | None,
    one: model.Model,
    given: Any,
    split: str,
    network: features.Extractor | str | Path | None,
    data_dir: str | Path | None,
) -> Data:
    validation: Dataset | None = None
    if given is not None and not isinstance(given, str):
        pair = tuple(given) if isinstance(given, Sequence) else ()
        if len(pair) != 2 or not all(isinstance(part, Dataset) for part in pair):
            raise ValueError(f"data is a {type(given).__name__}: give a name, or two Datasets (train, test).")
        train, reference = pair
    else:
        name = given or (described and described["name"])
        if not name or (given is None and name == "array"):
            raise ValueError("The run does not say which data it is of: give data, a name or (train, test).")
        known = described if described and given is None else None
        train = data_sets.load(name, known["split"] if known else one.config.splits[0], data_dir=data_dir)
        if known and known["sha256"] != train.sha256:
            raise ValueError(
                f"The run was trained on {name} {known['split']} with the digest {known['sha256'][:12]}, but what is "
                f"found now has {train.sha256[:12]}: give data_dir or data."
            )
        reference = data_sets.load(name, split, data_dir=data_dir)
        held = one.config.splits[1]
        validation = data_sets.load(name, held, data_dir=data_dir) if not held.endswith("[:0]") else None
    for what, found in (("train", train), (split, reference)):
        if tuple(found.x.shape[1:]) != tuple(one.state.shape):
            raise ValueError(
                f"{what} has examples of {list(found.x.shape[1:])}, but the model's are {list(one.state.shape)}: "
                "give its own data."
            )
    images = reference.x.ndim == 4
    load = functools.partial(_extractor, network, train.name if images else PIXELS, data_dir)
    if network is not None and not isinstance(network, features.Extractor):
        _check_network(network)
    return Data(train, validation, reference, load, cache.root(data_dir) / "features")


def _check_network(network: str | Path) -> None:
    if network != PIXELS and str(network) not in features.RECIPES and not Path(network).is_file():
        raise ValueError(
            f"network is {str(network)!r}, neither a file nor one of {PIXELS}, {', '.join(features.RECIPES)}: give one "
            "of those, or a file that experiments.convert_inception wrote."
        )


def _extractor(
    network: features.Extractor | str | Path | None, name: str, data_dir: str | Path | None
) -> features.Extractor | None:
    if isinstance(network, features.Extractor):
        return network
    if network == PIXELS or (network is None and name not in features.RECIPES):
        return None
    if network is None or str(network) in features.RECIPES:
        return features.classifier(str(network or name), data_dir=data_dir)
    return inception.extractor(network)


def _statistics(one: model.Model) -> str:
    """What the net that draws normalises by: running or batch statistics, or no batch normalisation."""
    player = getattr(one.state, "generator", None) or one.state.model
    return str(one.config.sampling_statistics) if jax.tree.leaves(player.batch_stats) else "none"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
