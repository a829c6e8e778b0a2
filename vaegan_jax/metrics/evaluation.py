"""All the numbers of one run: samples and features are made once a seed, and every row says how it was measured."""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaegan_jax import data as data_sets
from vaegan_jax import fit, model
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import features, inception, inputs
from vaegan_jax.metrics.measures import MEASURES, PIXELS, Data, Subject, Value

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
            row["values"] = [_finite(value) for value in row["values"]]
            row |= {name: _finite(row[name]) for name in ("mean", "sd")}
        return dataclasses.asdict(self) | {"rows": rows}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def number(value: float, spread: float) -> str:
    """`98.61 +- 0.24`: the spread with two digits, the value with as many decimals; without a spread four digits."""
    if not math.isfinite(spread) or spread == 0:
        return f"{value:.4g}"
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
    key: int = 0,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures every seed of a run.

    Args:
        run: what `fit` returned, or a workdir.
        metrics: of frechet, frechet_infinity, kernel, inception, pr (precision and recall), dc (density and coverage),
            prd, classes, parzen, memory, likelihood (importance weighted, an encoder's), ais.
        samples: drawn of each seed.
        seeds: None is all.
        data: a name that data.load takes, or (train, test) Datasets; None is what the run's workdir says.
        split: what samples are compared to, and whose likelihood is estimated.
        network: whose features distances are taken in: an Extractor, "pixels", a file of Inception-v3's weights, or
            the name of a data set with a classifier (see features.RECIPES), which is trained on first use. None: that
            of the run's own data, pixels where there is none.
        examples: of the split, for `likelihood` and `ais`, the first ones.
        draws: k of `likelihood`.
        sigma: deviation of the observation model of `ais` where the algorithm has no likelihood.
        key: seed of samples and estimators, the same for every model.
        progress: whether to report on stderr.

    Raises:
        ValueError: a metric that is unknown or that the algorithm lacks what it needs for, no data to compare to.
    """
    unknown = [name for name in metrics if name not in MEASURES]
    if unknown or isinstance(metrics, str) or not len(metrics):
        raise ValueError(f"metrics is {metrics!r}: give some of {', '.join(MEASURES)}.")
    inputs.count("samples", samples, 2)
    inputs.count("examples", examples, 1)
    inputs.count("draws", draws, 1)
    if sigma is not None:
        inputs.positive("sigma", sigma)
    described, models = _models(run, seeds)
    first = models[0][1]
    if not hasattr(first.algorithm, "sample"):
        raise ValueError(f"{first.algorithm.__name__} draws no samples: evaluate is for generative models.")
    judged = _data(described, first, data, split, network, data_dir, progress)

    each: list[list[Value]] = []
    for seed, one in models:
        subject = Subject(
            one.algorithm, one.config, one.state, judged, samples, examples, draws, sigma, jax.random.key(key)
        )
        found: list[Value] = []
        for i, name in enumerate(dict.fromkeys(metrics), 1):
            if progress:
                print(f"seed {seed}: {name} ({i} of {len(metrics)})", file=sys.stderr, flush=True)
            found += MEASURES[name](subject)
        each.append(found)

    statistics = _statistics(first)
    scale = "[0, 1]" if judged.reference.x.ndim == 4 else "any"
    rows = []
    for of_seeds in zip(*each, strict=True):
        one_value = of_seeds[0]
        errors = None if one_value.error is None else tuple(float(v.error) for v in of_seeds if v.error is not None)
        rows.append(
            Row(
                features.metric_name(one_value.metric, one_value.network, one_value.n),
                tuple(float(v.value) for v in of_seeds),
                errors,
                one_value.over if errors else "",
                one_value.network,
                one_value.n,
                one_value.split,
                scale,
                statistics,
                one_value.note if len({v.note for v in of_seeds}) == 1 else f"seed {models[0][0]}: {one_value.note}",
            )
        )
    title = str(run.workdir or "run") if isinstance(run, fit.Run) else str(run)
    name = first.algorithm.__name__.rpartition(".")[2]
    return Evaluation(
        title, name, int(first.state.step), tuple(seed for seed, _ in models), judged.train.name, tuple(rows)
    )


def _models(run: Any, seeds: Sequence[int] | None) -> tuple[dict[str, Any] | None, list[tuple[int, model.Model]]]:
    """(the run's "data" of config.json, its models by seed)."""
    if isinstance(run, fit.Run):
        have, described = run.seeds, _described(run.workdir) if run.workdir else None
    elif isinstance(run, str | Path):
        model.load(run)  # refuses what is no run
        have = tuple(json.loads((Path(run) / "config.json").read_text())["seeds"])
        described = _described(Path(run))
    else:
        raise ValueError(f"run is a {type(run).__name__}: give what fit returned, or a workdir.")
    wanted = tuple(have) if seeds is None else tuple(seeds)
    missing = [seed for seed in wanted if seed not in have]
    if missing or not wanted:
        raise ValueError(f"seeds is {_listed(wanted) or 'empty'}: the run has {_listed(have)}.")
    if isinstance(run, fit.Run):
        return described, [(seed, model.Model(run.algorithm, run.config, run.state(seed))) for seed in wanted]
    return described, [(seed, model.load(run, seed=seed)) for seed in wanted]


def _described(workdir: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((workdir / "config.json").read_text())["data"]
    return described


def _data(
    described: dict[str, Any] | None,
    one: model.Model,
    given: Any,
    split: str,
    network: features.Extractor | str | Path | None,
    data_dir: str | Path | None,
    progress: bool,
) -> Data:
    validation: Dataset | None = None
    if given is not None and not isinstance(given, str):
        train, reference = given
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
    return Data(train, validation, reference, _extractor(network, train.name, reference, data_dir, progress), progress)


def _extractor(
    network: features.Extractor | str | Path | None,
    name: str,
    reference: Dataset,
    data_dir: str | Path | None,
    progress: bool,
) -> features.Extractor | None:
    if isinstance(network, features.Extractor):
        return network
    if network == PIXELS or (network is None and (name not in features.RECIPES or reference.x.ndim != 4)):
        return None
    if network is None or str(network) in features.RECIPES:
        return features.classifier(str(network or name), data_dir=data_dir, progress=progress)
    return inception.extractor(network)


def _statistics(one: model.Model) -> str:
    """What the net that draws normalises by: running or batch statistics, or no batch normalisation."""
    player = getattr(one.state, "generator", None) or one.state.model
    return str(one.config.sampling_statistics) if jax.tree.leaves(player.batch_stats) else "none"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
