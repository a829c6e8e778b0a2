"""The loop: chunks of steps as one compiled program, many seeds at once, exact resume. Takes any algorithm module.

Everything random is a function of (seed, step): step t uses fold_in(fold_in(key(seed), 1), t), and epoch e visits the
data in the order permutation(fold_in(fold_in(key(seed), 0), e)). So a run is its state and its step, and a resumed one
equals an unbroken one bit for bit on the same device; on a GPU if XLA_FLAGS has --xla_gpu_deterministic_ops=true, as
kernels are else chosen by timing them and may add up in any order. The last N mod B examples of an epoch's order are
left out of it.
"""

import contextlib
import dataclasses
import io
import itertools
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import checkpoint, checks, logs
from vaegan_jax import state as players
from vaegan_jax import workdir as folders
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.loop import Chunk, Diverged, Loop, diverged

__all__ = ["Diverged", "Run", "fit", "validate"]

Evaluate = Callable[[Any, Any, jax.Array, int], Mapping[str, Any]]
SAMPLES = 64  # in each picture of samples/
LARGEST = 2**31 - 1  # what a step's counter and a seed can hold on the device


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run. states: every leaf with a leading axis S; metrics: name -> float32 [S, logs], at `steps` [logs].

    A metric that a line lacks (validation between checkpoints) is NaN there.
    """

    algorithm: Any
    config: Any
    states: Any
    seeds: tuple[int, ...]
    steps: np.ndarray
    metrics: dict[str, np.ndarray]
    workdir: Path | None

    def state(self, seed: int) -> Any:
        """One seed's state."""
        if seed not in self.seeds:
            raise ValueError(f"seed is {seed}: this run has {', '.join(map(str, self.seeds))}.")
        return players.one_of(self.states, self.seeds.index(seed))


def fit(
    algorithm: Any,
    config: Any,
    dataset: Any,
    *,
    steps: int,
    batch_size: int | None = None,
    seeds: Sequence[int] = (0,),
    workdir: str | Path | None = None,
    validation: Any = None,
    initial_states: Any = None,
    evaluate: Evaluate | None = None,
    evaluate_at: Sequence[int] = (),
    log_every: int = 100,
    checkpoint_every: int | None = None,
    keep: int | None = 3,
    progress: bool = True,
    write: Sequence[logs.Writer] = (),
) -> Run:
    """Trains `algorithm` (a module with Config, init, train_step) for `steps` steps on every seed at once.

    Args:
        config: algorithm.Config; its dataset_size becomes N.
        dataset: a Dataset or an array, uint8 [N, H, W, C] or float [N, D]; it lives on the device.
        batch_size: in place of config.batch_size.
        seeds: distinct ints; several are trained side by side by vmap, over devices where their number allows it.
        workdir: where config.json, metrics.jsonl, checkpoints/ and, if the algorithm has `sample`, samples/ go. Started
            again with the same arguments (`steps`, `checkpoint_every` and `evaluate_at` may change), the run goes on
            from the last checkpoint; with others it is refused, or takes the folder over where there is no checkpoint
            yet.
        validation: a Dataset or an array; the means of algorithm.validate over it are logged as validation_<name> at
            checkpoints and at the steps in evaluate_at.
        initial_states: states with a leading axis S, in place of algorithm.init; copied, so the caller's stay.
        evaluate: evaluate(config, state, key, step) -> dict of numbers, run at the steps in `evaluate_at` for each
            seed, and logged; not at steps that a run has passed before it goes on. Its names are new ones: neither of
            a metric of training nor validation_<name>. Its numbers are finite.
        log_every: metrics.jsonl and Run.metrics get the mean of each metric over the steps since the line before.
            Checkpoints and evaluations end such a window too.
        checkpoint_every: None is at the end only.
        keep: how many checkpoints stay; None: all.
        progress: whether to report on stderr.
        write: functions (step, metrics) such as logs.tensorboard(...), called with every line of the first seed.

    Raises:
        ValueError: arguments that do not fit, a workdir of another run, what `evaluate` returned.
        Diverged: a metric, a state or a number of `evaluate` is NaN or infinite; names step, seed and metric.
    """
    _check_algorithm(algorithm, config)
    data = _dataset(dataset)
    changes = {} if batch_size is None else {"batch_size": batch_size}
    if len(data) and hasattr(config, "dataset_size"):
        changes["dataset_size"] = len(data)
    config = dataclasses.replace(config, **changes) if changes else config
    if isinstance(seeds, int | np.integer):
        raise ValueError(f"seeds is {seeds}: give several, such as ({seeds},) or range({max(seeds, 1)}).")
    seeds = tuple(seeds)
    if not all(hasattr(seed, "__index__") for seed in seeds):
        raise ValueError(f"seeds is {seeds}: give whole numbers.")
    seeds = tuple(int(seed) for seed in seeds)
    every = max(steps, 1) if checkpoint_every is None else checkpoint_every
    _check(config, data, steps, seeds, log_every, every, keep, evaluate, evaluate_at)
    if hasattr(algorithm, "check_data"):
        algorithm.check_data(config, data)
    held_out = None if validation is None else _dataset(validation, "validation")
    if held_out is not None:
        if not hasattr(algorithm, "validate"):
            raise ValueError(f"validation was given, but {algorithm.__name__} has no `validate`: leave it out.")
        checks.held_out(config, data, held_out)

    states = _initial(algorithm, config, data, seeds, initial_states)
    folder = None if workdir is None else Path(workdir)
    start, records = 0, list[dict[str, Any]]()
    with contextlib.ExitStack() as held:
        if folder:
            arguments = {"log_every": log_every, "validation": held_out and held_out.sha256}
            described = folders.describe(algorithm, config, data, seeds, initial_states, arguments)
            held.enter_context(folders.claim(folder, described))
            start, states, records = folders.resume(folder, states, steps)

        loop = Loop(algorithm, config, data, states, seeds)
        del states  # the loop donates them
        saves = {*range(every, steps, every), steps}
        stops = sorted(step for step in {*saves, *evaluate_at} if start < step <= steps)
        lines_at = sorted({*range(log_every, steps, log_every), *stops})
        name = algorithm.__name__.rpartition(".")[2]
        writer = held.enter_context(logs.JsonLines(folder / "metrics.jsonl")) if folder else None
        stream = None if progress else io.StringIO()
        bar = held.enter_context(logs.progress(steps, initial=start, description=name, stream=stream))
        window = _Window(seeds)
        told = players.must_be_told(config, data.label, SAMPLES)
        for chunk in loop.chunks(start, stops):
            bar.update(chunk.last, {k: v[:, -1].mean() for k, v in chunk.metrics.items()})
            for step in (s for s in lines_at if chunk.first < s <= chunk.last):
                window.add(chunk, step)
                lines = window.close(step)
                if step in stops:
                    loop.check_finite(step)  # before a caller's `evaluate` meets it
                    more = _at_stop(loop, algorithm, config, step, evaluate, evaluate_at, held_out, set(lines[0]))
                    lines = [line | extra for line, extra in zip(lines, more, strict=True)]
                records += lines
                for line in lines:
                    if writer:
                        writer.write(line)
                for each in write:
                    each(step, {k: v for k, v in lines[0].items() if k not in ("step", "seed")})
                if folder and step in saves:
                    for i, seed in enumerate(seeds if hasattr(algorithm, "sample") else ()):
                        sample = algorithm.sample(config, loop.state(i), jax.random.key(0), SAMPLES, *told)
                        folders.picture(sample, folder, step, seed)
                    if writer:
                        writer.sync()  # or a power cut leaves a checkpoint ahead of its log
                    checkpoint.save(folder / "checkpoints", step, loop.states, keep=keep)
            window.add(chunk, chunk.last)
    return _run(algorithm, config, loop.states, seeds, records, folder)


@jax.default_matmul_precision("highest")
def validate(algorithm: Any, config: Any, state: Any, dataset: Any, *, block: int = 250) -> dict[str, float]:
    """Means of algorithm.validate(config, state, batch, key) over all of `dataset`, with a fixed key for each block.

    In full float32, of which an accelerator's products keep 10 bits in training. Raises ValueError for data that are
    empty, out of the config's range, or without the labels that it needs.
    """
    data = _dataset(dataset)
    if len(data) == 0:
        raise ValueError(f"{data.name} {data.split} is empty: give at least one example.")
    if not isinstance(block, int | np.integer) or block < 1:
        raise ValueError(f"block is {block}: give how many examples are judged at once, 1 or more.")
    checks.labels(config, data)
    checks.value_range(config, data)
    sums: dict[str, list[jax.Array]] = {}  # a block's, fetched at the end: the host does not wait for each
    starts = [*range(0, len(data), block), len(data)]
    if len(starts) > 2 and starts[-1] - starts[-2] < block / 2:
        del starts[-2]  # no block of a few examples, too few to pack or to compare with each other
    for start, end in itertools.pairwise(starts):
        batch = {"x": jax.device_put(data.x[start:end])}
        if data.label is not None:
            batch["label"] = jax.device_put(data.label[start:end])
        values = algorithm.validate(config, state, batch, jax.random.fold_in(jax.random.key(0), start))
        for name, value in values.items():
            sums.setdefault(name, []).append(value.sum(dtype=jnp.float32))
    return {name: sum(map(float, blocks)) / len(data) for name, blocks in sums.items()}


class _Window:
    """The mean of every metric since the line before."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        self.seeds = seeds
        self._clear(0)

    def _clear(self, step: int) -> None:
        self.step = step
        self.parts: list[dict[str, np.ndarray]] = []  # name -> [S, n], one dict a chunk
        self.timed, self.seconds = 0, 0.0

    def add(self, chunk: Chunk, step: int) -> None:
        """The chunk's steps up to `step` that are not in yet."""
        first = max(self.step, chunk.first)
        if first >= step:
            return
        self.parts.append({k: v[:, first - chunk.first : step - chunk.first] for k, v in chunk.metrics.items()})
        if chunk.seconds is not None:
            self.timed += step - first
            self.seconds += chunk.seconds * (step - first) / (chunk.last - chunk.first)
        self.step = step

    def close(self, step: int) -> list[dict[str, Any]]:
        """One line a seed, and a new window. steps_per_second leaves out what was compiled in."""
        joined = {name: np.concatenate([part[name] for part in self.parts], axis=1) for name in self.parts[0]}
        means = {name: values.mean(axis=1, dtype=np.float64) for name, values in joined.items()}
        rate = {"steps_per_second": self.timed / self.seconds} if self.seconds else {}
        self._clear(step)
        return [
            {"step": step, "seed": seed} | {name: float(mean[i]) for name, mean in means.items()} | rate
            for i, seed in enumerate(self.seeds)
        ]


def _at_stop(
    loop: Loop,
    algorithm: Any,
    config: Any,
    step: int,
    evaluate: Evaluate | None,
    evaluate_at: Sequence[int],
    held_out: Dataset | None,
    taken: set[str],
) -> list[dict[str, float]]:
    """What evaluate and validate say at this step, for each seed, under names that the line does not have yet."""
    found: list[dict[str, float]] = []
    for i, seed in enumerate(loop.seeds):
        values: dict[str, float] = {}
        if evaluate is not None and step in evaluate_at:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)
            values |= _numbers(evaluate(config, loop.state(i), key, step), taken)
        if held_out is not None:
            more = validate(algorithm, config, loop.state(i), held_out)
            values |= {f"validation_{name}": value for name, value in more.items()}
        for name, value in values.items():
            if not np.isfinite(value):
                raise diverged(name, value, step, loop.seeds[i])
        found.append(values)
    return found


def _numbers(evaluated: Any, taken: set[str]) -> dict[str, float]:
    """What the caller's evaluate returned, once it is fit for a line."""
    if not isinstance(evaluated, Mapping):
        raise ValueError(f"evaluate returned a {type(evaluated).__name__}: return a dict of name to number.")
    for name, value in evaluated.items():
        if not isinstance(name, str) or name in taken or name.startswith("validation_"):
            raise ValueError(f"evaluate returned {name!r}, which the line has already or keeps: give another name.")
        if np.ndim(value) or not isinstance(value, numbers.Real | np.ndarray | np.generic | jax.Array):
            raise ValueError(f"evaluate returned {name} = {value!r}: give one number.")
    return {name: float(value) for name, value in evaluated.items()}


def _dataset(x: Any, split: str = "train") -> Dataset:
    return x if isinstance(x, Dataset) else Dataset(np.asarray(x), split=split)


def _check_algorithm(algorithm: Any, config: Any) -> None:
    missing = [n for n in ("init", "train_step", "__name__") if not hasattr(algorithm, n)]
    if missing:
        raise ValueError(f"algorithm is {algorithm!r}, without {missing[0]}: give a module such as vaegan_jax.vae.")
    own = getattr(algorithm, "Config", None)
    if own is not None and not isinstance(config, own):
        raise ValueError(
            f"config is a {type(config).__module__}.{type(config).__qualname__}: {algorithm.__name__} takes its own "
            "Config."
        )


def _check(
    config: Any,
    data: Dataset,
    steps: int,
    seeds: tuple[int, ...],
    log_every: int,
    checkpoint_every: int,
    keep: int | None,
    evaluate: Evaluate | None,
    evaluate_at: Sequence[int],
) -> None:
    counts = {"steps": steps, "log_every": log_every, "checkpoint_every": checkpoint_every}
    for name, value in (counts if keep is None else counts | {"keep": keep}).items():
        least = 0 if name == "steps" else 1
        if not isinstance(value, int | np.integer) or not least <= value <= LARGEST:
            raise ValueError(f"{name} is {value}: give a whole number of {least} or more, at most {LARGEST:,}.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds is {seeds}: give at least one, each once.")
    if not all(0 <= seed <= LARGEST for seed in seeds):
        raise ValueError(f"seeds is {seeds}: give numbers from 0 to {LARGEST:,}.")
    if len(data) == 0:
        raise ValueError(f"{data.name} {data.split} is empty: give at least one batch of examples.")
    if config.batch_size > len(data):
        raise ValueError(
            f"batch_size is {config.batch_size}, but {data.name} {data.split} has {len(data)} examples: "
            "give a smaller batch or more data."
        )
    checks.labels(config, data)
    checks.value_range(config, data)
    if (evaluate is None) != (not len(evaluate_at)):
        given, missing = ("evaluate_at", "evaluate") if evaluate is None else ("evaluate", "evaluate_at")
        raise ValueError(f"{given} was given without {missing}: give both, or neither.")
    if not all(isinstance(step, int | np.integer) and 1 <= step <= steps for step in evaluate_at):
        raise ValueError(f"evaluate_at is {tuple(evaluate_at)}: give whole steps between 1 and {steps}.")


def _initial(algorithm: Any, config: Any, data: Dataset, seeds: tuple[int, ...], initial: Any) -> Any:
    """States with a leading axis S, on buffers of their own."""
    if initial is not None:
        leading = {leaf.shape[:1] for leaf in jax.tree.leaves(initial)}
        if leading != {(len(seeds),)}:
            raise ValueError(
                f"initial_states has leading axes {sorted(leading)}: ({len(seeds)},) is expected, the seeds."
            )
        return jax.tree.map(jnp.copy, initial)
    return first_states(algorithm, config, data, seeds)


def first_states(algorithm: Any, config: Any, data: Dataset, seeds: tuple[int, ...]) -> Any:
    """What `fit` begins with where no initial_states are given: leading axis S. config: as `fit` runs it."""
    shape = data.x.shape[1:]
    scale = 255.0 if data.x.dtype == np.uint8 else 1.0
    pixels = len(shape) == 3 or getattr(config, "unit_range", False)  # or vectors of them
    mean = (data.x.mean(axis=0, dtype=np.float64) / scale).astype(np.float32) if pixels else None
    keys = (jax.random.fold_in(jax.random.key(seed), 3) for seed in seeds)
    return _stack([algorithm.init(config, key, shape, data_mean=mean) for key in keys])


@jax.jit
def _stack(states: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _run(
    algorithm: Any, config: Any, states: Any, seeds: tuple[int, ...], records: list[dict[str, Any]], folder: Path | None
) -> Run:
    steps = sorted({r["step"] for r in records})
    of = {(r["step"], r["seed"]): r for r in records}
    names = [n for n in dict.fromkeys(k for r in records for k in r) if n not in ("step", "seed")]
    metrics = {
        name: np.array([[_number(of[step, seed].get(name)) for step in steps] for seed in seeds], np.float32)
        for name in names
    }
    return Run(algorithm, config, states, seeds, np.array(steps, np.int64), metrics, folder)


def _number(value: Any) -> float:
    return float("nan") if value is None else value
