"""What a part of a target is given, and what it returns. Training that goes on where it was stopped."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one row measured: values one a finished seed; those of `exact` are no seeds' but a computation's."""

    values: Sequence[float]
    seeds: Sequence[int] = ()
    failed: Sequence[int] = ()
    """Seeds whose training became NaN or infinite."""
    steps: int = 0
    config: Any = None
    """Of the training (a config, a tuple of them, or a dict's items): its digest is in the row."""
    data: Sequence[Any] = ()
    """The Datasets that went in."""
    exact: bool = False
    flat: bool = False
    """Whether a validation curve has gone flat, so that more steps would change nothing."""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """More numbers than the rows, such as a paper's whole table with ours beside it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Text and numbers."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a part found: rows by the names of published.toml, tables, and captions of the figures it drew."""

    rows: Mapping[str, Measured]
    tables: Sequence[Table] = ()
    figures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """File name in the job's `figures` folder -> caption."""
    curves: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the figures' lines go through, name -> Trained.record; kept beside the tables."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One experiment of a target, which fills `rows`.

    says(budget): what it will do, with steps and time on 2 cores. cpu_seeds: how many that budget allows. first_seed:
    above 0 where a rule was made from the seeds before.
    """

    name: str
    rows: tuple[str, ...]
    run: "Callable[[Job], Outcome]"
    says: Callable[[str], str]
    cpu_seeds: int = 3
    first_seed: int = 0

    def seeds(self, budget: str) -> tuple[int, ...]:
        count = {"smoke": 2, "cpu": self.cpu_seeds, "paper": 10}[budget]
        return tuple(range(self.first_seed, self.first_seed + count))


def says(what: str, smoke: str, cpu: str, paper: str) -> Callable[[str], str]:
    """A Part's `says`: what it does, and how much of it at each budget."""
    much = {"smoke": smoke, "cpu": cpu, "paper": paper}
    return lambda budget: f"{what}; {much[budget]}"


@dataclasses.dataclass(frozen=True)
class Trained:
    """The seeds of one training that finished, in order, and those that failed."""

    runs: Mapping[int, Any]
    failed: tuple[int, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.runs)

    def state(self, seed: int) -> Any:
        return self.runs[seed].state(seed)

    def config(self) -> Any:
        """As `fit` ran it, data set's size and all; None where every seed failed."""
        return next((run.config for run in self.runs.values()), None)

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A metric over the steps that have it: (steps [T], values [S, T]); [1] and [0, 1] where every seed failed."""
        if not self.runs:
            return np.zeros(1, np.int64), np.zeros((0, 1))
        first = next(iter(self.runs.values()))
        values = np.stack([run.metrics[name][run.seeds.index(seed)] for seed, run in self.runs.items()])
        there = np.isfinite(values).all(axis=0)
        return np.asarray(first.steps)[there], values[:, there]

    def record(self, *names: str) -> dict[str, Any]:
        """Metrics along training, as JSON: {"seeds": [S], name: {"steps": [T], "values": [S][T], to six digits}}."""
        found: dict[str, Any] = {"seeds": list(self.seeds)}
        for name in names if self.seeds else ():
            at, values = self.curve(name)
            found[name] = {"steps": at.tolist(), "values": [[float(f"{v:.6g}") for v in own] for own in values]}
        return found


def over_seeds(
    trained: Mapping[Any, Trained],
    found: Mapping[Any, Mapping[int, Any]],
    value: Callable[..., float],
    *names: Any,
    steps: int,
    data: Sequence[Any],
    note: str = "",
) -> Measured:
    """value(what was found of each of `names`) for every seed that all of them finished; it failed where one failed.

    trained, found: by name, found by seed below that.
    """
    seeds = [s for s in found[names[0]] if all(s in found[name] for name in names)]
    values = [float(value(*(found[name][s] for name in names))) for s in seeds]
    failed = sorted({s for name in names for s in trained[name].failed})
    configs = tuple(trained[name].config() for name in names)
    return Measured(values, seeds, failed, steps, configs if len(names) > 1 else configs[0], data, note=note)


@dataclasses.dataclass
class Job:
    """One part's run: where it works, with which budget and seeds."""

    budget: str
    seeds: tuple[int, ...]
    workdir: Path
    figures: Path
    data_dir: Path | None = None
    progress: bool = True
    """Whether trainings report on stderr."""
    commit: str = ""
    """What the code is of."""
    owner: "Job | None" = None
    """The part for which a job `beside` it works."""

    def __post_init__(self) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._judges = self.workdir / "judges.json"
        self._worked = self.workdir / "commits.json"
        if self.commit not in (before := self.commits):
            _write(self._worked, [*before, self.commit])
        self._clock = self.workdir / "seconds.json"
        spent = json.loads(self._clock.read_text())["seconds"] if self._clock.exists() else 0.0
        self._begin = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        """Spent on this part, with what it took before it was stopped (but for what came after the last `tick`)."""
        return time.monotonic() - self._begin

    def tick(self, *_: Any) -> None:
        """Keeps the time, so that a kill loses little of it."""
        _write(self._clock, {"seconds": self.seconds})
        if self.owner:
            self.owner.tick()

    @property
    def commits(self) -> list[str]:
        """Those at which this folder was worked on, where it was begun first, and those of folders that it shares."""
        return json.loads(self._worked.read_text()) if self._worked.exists() else []

    def judged_by(self, network: Any) -> None:
        """Keeps the digest of the weights of an Extractor (metrics.features) for the rows' notes."""
        said = f"{network.name} of weights {network.digest[:12]}"
        if said not in self.judges:
            _write(self._judges, [*self.judges, said])
        if self.owner:
            self.owner.judged_by(network)

    @property
    def judges(self) -> list[str]:
        """Trained networks that this part's numbers hang on."""
        return json.loads(self._judges.read_text()) if self._judges.exists() else []

    def beside(self, name: str) -> "Job":
        """The same job in a folder next to this part's, for what parts share; its time and commits are this part's."""
        shared = dataclasses.replace(self, workdir=self.workdir.parent / name, owner=self)
        _write(self._worked, list(dict.fromkeys([*self.commits, *shared.commits])))
        if shared.judges:
            _write(self._judges, list(dict.fromkeys([*self.judges, *shared.judges])))
        return shared

    def kept(self, name: str, compute: Callable[[], Any], *, of: Sequence[Any] = ()) -> Any:
        """What `compute` returns, as JSON has it: from this part's folder where it was computed before a stop.

        of: the settings that the value hangs on, so that one of others is computed anew.
        """
        file = self.workdir / f"{'-'.join(map(str, (name, *of)))}.json"
        if not file.exists():
            _write(file, compute())
        self.tick()
        return json.loads(file.read_text())

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def choose(self, smoke: Any, cpu: Any, paper: Any) -> Any:
        """The one of this job's budget."""
        return {"smoke": smoke, "cpu": cpu, "paper": paper}[self.budget]

    def load(self, name: str, split: str = "train") -> Any:
        from vaegan_jax import data

        return data.load(name, split, data_dir=self.data_dir)

    def fit(
        self,
        name: str,
        algorithm: Any,
        config: Any,
        dataset: Any,
        *,
        steps: int,
        seeds: Sequence[int] | None = None,
        side_by_side: bool | None = None,
        **arguments: Any,
    ) -> Trained:
        """fit.fit in this part's folder `name`, so that it goes on after a stop; a seed that diverges is a failed one.

        On an accelerator seeds are trained side by side, on a CPU one after the other unless told otherwise (small
        nets gain); if one of several diverges, each is trained alone. `initial_states` has an entry for each seed.
        """
        import jax

        from vaegan_jax import fit

        seeds = self.seeds if seeds is None else tuple(seeds)
        together = jax.default_backend() != "cpu" if side_by_side is None else side_by_side
        every = max(1, min(steps, arguments.pop("log_every", max(1, steps // 100))))
        saves = self.choose(1, 10, 10)  # a checkpoint with its picture costs more than a smoke's steps
        arguments = {"checkpoint_every": every * max(1, steps // (saves * every)), "keep": 1} | arguments
        initial = arguments.pop("initial_states", None)

        def train(folder: str, seeds: Sequence[int], which: slice = slice(None)) -> Any:
            run = fit.fit(
                algorithm, config, dataset, steps=steps, seeds=seeds, workdir=self.workdir / folder, log_every=every,
                initial_states=jax.tree.map(lambda leaf: leaf[which], initial), progress=self.progress,
                write=[self.tick], **arguments,
            )  # fmt: skip
            self.tick()
            return run

        lost = self.workdir / f"{name}.failed.json"  # what a stopped run need not find out again
        failed: list[int] = json.loads(lost.read_text()) if lost.exists() else []
        apart = self.workdir / f"{name}.apart"  # there once training side by side has failed
        if together and not failed and len(seeds) > 1 and not apart.exists():
            try:
                run = train(name, seeds)
                return Trained(dict.fromkeys(seeds, run), ())
            except fit.Diverged as error:
                self.say(f"{name}: {error} Each seed is trained alone now.")
                apart.touch()
        runs = {}
        for i, seed in enumerate(seeds):
            if seed in failed:
                continue
            try:
                runs[seed] = train(f"{name}-{seed}", (seed,), slice(i, i + 1))
            except fit.Diverged as error:
                self.say(f"{name}: {error} Seed {seed} counts as failed.")
                failed.append(seed)
                lost.write_text(json.dumps(failed))
        return Trained(runs, tuple(s for s in seeds if s in failed))


def _write(file: Path, value: Any) -> None:
    """JSON, never half of it."""
    part = file.with_suffix(f".{os.getpid()}.part")  # parts that run at once may share a folder
    part.write_text(json.dumps(value))
    part.replace(file)


def flat(steps: np.ndarray, values: np.ndarray, *, share: float = 0.2, tolerance: float) -> bool:
    """Whether a validation curve (values [S, T], or [T], at steps [T]) has gone flat.

    That is: the mean over seeds moves by less than `tolerance` from the first to the second half of its last `share`.
    """
    curve = np.asarray(values, np.float64)
    curve = curve.mean(axis=0) if curve.ndim == 2 else curve
    last = curve[np.asarray(steps) >= (1 - share) * np.max(steps)]
    if last.size < 4:
        return False
    return bool(abs(last[: last.size // 2].mean() - last[last.size // 2 :].mean()) < tolerance)
