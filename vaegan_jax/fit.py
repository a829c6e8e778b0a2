"""The loop: chunks of steps as one compiled program, many seeds at once, exact resume. Takes any algorithm module.

Everything random is a function of (seed, step): step t uses fold_in(fold_in(key(seed), 1), t), and epoch e visits the
data in the order permutation(fold_in(fold_in(key(seed), 0), e)). So a run is its state and its step, and a resumed one
equals an unbroken one bit for bit on the same device. The last N mod B examples of an epoch's order are left out of it.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vaegan_jax import checkpoint, config as configs, logs
from vaegan_jax.data.dataset import Dataset

CHUNK_SECONDS = 1.0  # a chunk's aim: long enough to hide the host, short enough for progress and Ctrl-C
CAPACITY = 2048  # steps a chunk can hold
Evaluate = Callable[[Any, Any, jax.Array, int], Mapping[str, Any]]


class Diverged(FloatingPointError):
    """A metric became NaN or infinite; the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run. states: every leaf with a leading axis S; metrics: name -> float32 [S, logs], at `steps` [logs]."""

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
        return jax.tree.map(lambda leaf: leaf[self.seeds.index(seed)], self.states)


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
) -> Run:
    """Trains `algorithm` (a module with Config, init, train_step, sample) for `steps` steps on every seed at once.

    Args:
        dataset: a Dataset or an array, uint8 [N, H, W, C] or float [N, D]; it lives on the device.
        batch_size: in place of config.batch_size.
        seeds: distinct ints; several are trained side by side by vmap, over devices where their number allows it.
        workdir: where config.json, metrics.jsonl, samples/ and checkpoints/ go. Started again with the same arguments
            (`steps` may be larger), the run goes on from the last checkpoint; with others it is refused.
        validation: a Dataset or an array on which algorithm.validate is averaged at the log steps in evaluate_at and
            at checkpoints, as validation_<name>.
        initial_states: states with a leading axis S, in place of algorithm.init; copied, so the caller's stay.
        evaluate: evaluate(config, state, key, step) -> dict of numbers, run at the steps in `evaluate_at` for each
            seed, and logged.
        log_every: metrics.jsonl and Run.metrics get the mean of each metric over the steps since the line before.
            Checkpoints and evaluations end such a window too.
        checkpoint_every: None is at the end only.
        keep: how many checkpoints stay; None: all.
        progress: whether to report on stderr.

    Raises:
        ValueError: arguments that do not fit, a workdir of another run.
        Diverged: a metric is NaN or infinite; names step, seed and metric.
    """
    data = _dataset(dataset)
    if batch_size is not None:
        config = dataclasses.replace(config, batch_size=batch_size)
    seeds = tuple(int(s) for s in seeds)
    checkpoint_every = steps if checkpoint_every is None else checkpoint_every
    _check(config, data, steps, seeds, log_every, checkpoint_every, evaluate, evaluate_at)
    held_out = None if validation is None else _dataset(validation)
    if held_out is not None and not hasattr(algorithm, "validate"):
        raise ValueError(f"validation was given, but {algorithm.__name__} has no function `validate`: leave it out.")

    states = _initial(algorithm, config, data, seeds, initial_states)
    arguments = {"log_every": log_every, "checkpoint_every": checkpoint_every, "evaluate_at": sorted(evaluate_at)}
    folder, start, records = None, 0, []
    if workdir is not None:
        folder = Path(workdir)
        _open(folder, _description(algorithm, config, data, seeds, initial_states, arguments), steps)
        done = checkpoint.steps(folder / "checkpoints")
        if done:
            start = done[-1]
            if start > steps:
                raise ValueError(f"steps is {steps}, but {folder} has gone to {start}: give {start} or more.")
            states = checkpoint.restore(folder / "checkpoints", states, start)
            logs.truncate(folder / "metrics.jsonl", start)
            records = logs.read(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
        elif (folder / "metrics.jsonl").exists():
            logs.truncate(folder / "metrics.jsonl", 0)

    loop = _Loop(algorithm, config, data, states, seeds)
    writer = logs.JsonLines(folder / "metrics.jsonl") if folder else None
    events = _events(start, steps, log_every, checkpoint_every, tuple(evaluate_at))
    name = algorithm.__name__.rpartition(".")[2]
    try:
        with logs.progress(steps, initial=start, description=name, stream=None if progress else _Silent()) as bar:
            for window in _windows(loop, start, events, bar):
                step = window.step
                lines = window.lines(seeds)
                if step in evaluate_at and evaluate is not None:
                    for i, seed in enumerate(seeds):
                        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), step)
                        values = evaluate(config, loop.state(i), key, step)
                        lines[i] |= {k: float(v) for k, v in values.items()}
                saving = step % checkpoint_every == 0 or step == steps
                if held_out is not None and (saving or step in evaluate_at):
                    for i in range(len(seeds)):
                        lines[i] |= _validate(algorithm, config, loop.state(i), held_out)
                records += lines
                if writer:
                    for line in lines:
                        writer.write(line)
                if folder and saving:
                    _pictures(algorithm, config, loop, seeds, folder / "samples", step)
                    checkpoint.save(folder / "checkpoints", step, loop.states, keep=keep)
    finally:
        if writer:
            writer.close()
    return _run(algorithm, config, loop.states, seeds, records, folder)


class _Silent:
    """A stream that swallows the progress report."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@dataclasses.dataclass
class _Window:
    """Metrics of the steps since the last event: name -> [S, steps]."""

    step: int
    metrics: dict[str, np.ndarray]
    rate: float

    def lines(self, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
        means = {name: values.mean(axis=1, dtype=np.float64) for name, values in self.metrics.items()}
        return [
            {
                "step": self.step,
                "seed": seed,
                **{k: float(v[i]) for k, v in means.items()},
                "steps_per_second": self.rate,
            }
            for i, seed in enumerate(seeds)
        ]


class _Loop:
    """The compiled chunk and the states that it moves (donated, so nothing else may hold them)."""

    def __init__(self, algorithm: Any, config: Any, data: Dataset, states: Any, seeds: tuple[int, ...]) -> None:
        self.seeds, self.states = seeds, states
        self._single = len(seeds) == 1
        devices = jax.devices()
        self._mesh = jax.make_mesh((len(devices),), ("device",)) if len(devices) > 1 else None
        over_seeds = self._mesh is not None and len(seeds) % len(devices) == 0
        over_batch = self._mesh is not None and not over_seeds and config.batch_size % len(devices) == 0
        whole, split = self._sharding(), self._sharding("device")
        arrays = {"x": data.x} if data.label is None else {"x": data.x, "label": data.label}
        self._data = jax.device_put(arrays, whole) if whole else jax.tree.map(jnp.asarray, arrays)
        self._keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
        if whole:
            self.states = jax.device_put(states, split if over_seeds else whole)
            self._keys = jax.device_put(self._keys, split if over_seeds else whole)
        front = (None,) * (config.batches_per_step > 1)
        constraint = NamedSharding(self._mesh, PartitionSpec(*front, "device")) if over_batch and self._mesh else None
        one = functools.partial(_chunk, algorithm, config, len(data), constraint)
        # One seed takes no batch axis: a batched product of one is slower than a plain one.
        many = jax.vmap(one, in_axes=(None, 0, 0, None, None))
        self._program = jax.jit(one if self._single else many, donate_argnums=1)

    def _sharding(self, *axes: str) -> NamedSharding | None:
        return NamedSharding(self._mesh, PartitionSpec(*axes)) if self._mesh else None

    def advance(self, start: int, count: int) -> dict[str, jax.Array]:
        """Moves the states by `count` <= CAPACITY steps from step `start`; metrics [S, CAPACITY], not yet waited for."""
        states, keys = self.states, self._keys
        if self._single:
            states, keys = jax.tree.map(lambda leaf: leaf[0], states), keys[0]
        states, metrics = self._program(self._data, states, keys, jnp.int32(start), jnp.int32(count))
        if self._single:
            states, metrics = jax.tree.map(lambda leaf: leaf[None], (states, metrics))
        self.states = states
        return metrics

    def state(self, i: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[i], self.states)


def _chunk(
    algorithm: Any,
    config: Any,
    examples: int,
    constraint: NamedSharding | None,
    data: dict[str, jax.Array],
    state: Any,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
) -> tuple[Any, dict[str, jax.Array]]:
    """`count` training steps of one seed from step `start`, with their metrics in buffers of CAPACITY.

    A loop with a traced bound, so that chunks of every length are one program: one compilation, and no other fusion
    (so no other rounding) for a chunk cut short by a checkpoint.
    """
    order_key, step_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    size, group = config.batch_size, config.batches_per_step
    per_epoch = examples // size

    def order(epoch: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(order_key, epoch), examples)

    def next_batch(order_now: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        epoch, place = number // per_epoch, number % per_epoch
        order_now = jax.lax.cond(place == 0, lambda _: order(epoch), lambda now: now, order_now)
        return order_now, jax.lax.dynamic_slice_in_dim(order_now, place * size, size)

    def gather(order_now: jax.Array, step: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        if group == 1:
            order_now, rows = next_batch(order_now, step)
        else:
            order_now, rows = jax.lax.scan(next_batch, order_now, step * group + jnp.arange(group))
        batch = {name: values[rows] for name, values in data.items()}
        if constraint is not None:
            batch = jax.lax.with_sharding_constraint(batch, constraint)
        return order_now, batch

    def body(i: jax.Array, carry: tuple[Any, jax.Array, Any]) -> tuple[Any, jax.Array, Any]:
        state, order_now, buffers = carry
        order_now, batch = gather(order_now, start + i)
        state, metrics = algorithm.train_step(config, state, batch, jax.random.fold_in(step_key, start + i))
        buffers = {name: buffers[name].at[i].set(value) for name, value in metrics.items()}
        return state, order_now, buffers

    order_now = order(start * group // per_epoch)
    _, batch = jax.eval_shape(gather, order_now, start)
    _, metrics = jax.eval_shape(functools.partial(algorithm.train_step, config), state, batch, step_key)
    buffers = {name: jnp.zeros((CAPACITY,), jnp.float32) for name in metrics}
    state, _, buffers = jax.lax.fori_loop(0, count, body, (state, order_now, buffers))
    return state, buffers


def _windows(loop: _Loop, start: int, events: list[int], bar: Any) -> Iterator[_Window]:
    """Runs the chunks, one ahead of the reading of metrics, and yields at every event, when nothing is in flight."""
    count, step, steady = 1, start, False
    for event in events:
        parts: list[dict[str, np.ndarray]] = []
        begun, first = time.perf_counter(), step
        flying: tuple[int, int, dict[str, jax.Array]] | None = None
        while step < event or flying:
            launched = None
            if step < event:
                n = min(count, event - step, CAPACITY)
                launched = (step, n, loop.advance(step, n))
                step += n
            if flying:
                parts.append(_read(loop.seeds, *flying))
                bar.update(flying[0] + flying[1], {k: v[:, -1].mean() for k, v in parts[-1].items()})
            flying = launched
            if flying is None:
                break
            took = time.perf_counter() - begun
            # The first chunk compiles: its time says nothing.
            if parts and steady:
                done = sum(next(iter(p.values())).shape[1] for p in parts)
                count = max(1, min(CAPACITY, int(done / took * CHUNK_SECONDS)))
            elif parts:
                steady, begun, first = True, time.perf_counter(), flying[0]
                count = min(8 * count, CAPACITY)
        joined = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        elapsed = max(time.perf_counter() - begun, 1e-9)
        yield _Window(event, joined, (event - first) / elapsed)


def _read(seeds: tuple[int, ...], start: int, count: int, metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """A chunk's metrics on the host, [S, count]; refuses NaN and infinity."""
    values = {name: np.asarray(buffer)[:, :count] for name, buffer in metrics.items()}
    bad = {name: ~np.isfinite(v) for name, v in values.items() if not np.isfinite(v).all()}
    if bad:
        at = min(int(b.any(axis=0).argmax()) for b in bad.values())
        name, seed = next((n, seeds[int(b[:, at].argmax())]) for n, b in bad.items() if b[:, at].any())
        raise Diverged(
            f"{name} is {values[name][seeds.index(seed), at]} at step {start + at + 1} of seed {seed}: the run stops, "
            "the last checkpoint is from before; try a lower learning rate."
        )
    return values


def _events(start: int, steps: int, log_every: int, checkpoint_every: int, evaluate_at: tuple[int, ...]) -> list[int]:
    """Steps after which the host has something to do, ascending."""
    every = {
        *range(log_every, steps, log_every),
        *range(checkpoint_every, steps, checkpoint_every),
        *evaluate_at,
        steps,
    }
    return sorted(step for step in every if start < step <= steps)


def _dataset(x: Any) -> Dataset:
    return x if isinstance(x, Dataset) else Dataset(np.asarray(x))


def _check(
    config: Any,
    data: Dataset,
    steps: int,
    seeds: tuple[int, ...],
    log_every: int,
    checkpoint_every: int,
    evaluate: Evaluate | None,
    evaluate_at: Sequence[int],
) -> None:
    if steps < 0:
        raise ValueError(f"steps is {steps}: give 0 or more.")
    if log_every < 1 or (checkpoint_every < 1 and steps):
        raise ValueError(f"log_every is {log_every} and checkpoint_every {checkpoint_every}: give 1 or more.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds is {seeds}: give at least one, each once.")
    if len(data) == 0:
        raise ValueError(f"{data.name} {data.split} is empty: give at least one batch of examples.")
    if config.batch_size > len(data):
        raise ValueError(
            f"batch_size is {config.batch_size}, but {data.name} {data.split} has {len(data)} examples: "
            "give a smaller batch or more data."
        )
    if config.num_classes and data.label is None:
        raise ValueError(
            f"The config has {config.num_classes} classes, but {data.name} has no labels: give num_classes 0."
        )
    if evaluate is None and len(evaluate_at):
        raise ValueError("evaluate_at was given without evaluate: give the function too.")
    if any(step < 1 or step > steps for step in evaluate_at):
        raise ValueError(f"evaluate_at is {tuple(evaluate_at)}: give steps between 1 and {steps}.")


def _initial(algorithm: Any, config: Any, data: Dataset, seeds: tuple[int, ...], initial: Any) -> Any:
    """States with a leading axis S, on buffers of their own."""
    if initial is not None:
        leading = {leaf.shape[:1] for leaf in jax.tree.leaves(initial)}
        if leading != {(len(seeds),)}:
            raise ValueError(
                f"initial_states has leading axes {sorted(leading)}: ({len(seeds)},) is expected, the seeds."
            )
        return jax.tree.map(jnp.copy, initial)
    shape = data.x.shape[1:]
    scale = 255.0 if data.x.dtype == np.uint8 else 1.0
    mean = (data.x.mean(axis=0, dtype=np.float64) / scale).astype(np.float32) if len(shape) == 3 else None
    keys = (jax.random.fold_in(jax.random.key(seed), 3) for seed in seeds)
    states = [algorithm.init(config, key, shape, data_mean=mean) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _description(
    algorithm: Any, config: Any, data: Dataset, seeds: tuple[int, ...], initial: Any, arguments: dict[str, Any]
) -> dict[str, Any]:
    digest = None
    if initial is not None:
        digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(initial))).hexdigest()
    return {
        "algorithm": algorithm.__name__,
        "config": configs.to_json(config),
        "shape": list(data.x.shape[1:]),
        "data": {"name": data.name, "split": data.split, "examples": len(data), "sha256": data.sha256},
        "seeds": list(seeds),
        "initial_states": digest,
        **arguments,
    }


def _open(folder: Path, description: dict[str, Any], steps: int) -> None:
    """Makes the workdir, or checks that it is this run's."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"workdir {folder} is a file: give a folder, new or of the same run.")
    path = folder / "config.json"
    if path.exists():
        try:
            stored = json.loads(path.read_text())
        except json.JSONDecodeError:
            raise ValueError(f"{path} is not valid JSON: delete the folder or give another workdir.") from None
        # At the end only means at another step once steps grows: not another run.
        changed = configs.differences(stored, json.loads(json.dumps(description)))
        changed = [c for c in changed if not c.startswith("checkpoint_every")]
        if changed:
            raise ValueError(f"{folder} holds another run; what differs: {'; '.join(changed)}. Give another workdir.")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"workdir {folder} is not empty and has no config.json: give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".config.json"
    aside.write_text(json.dumps(description, indent=2) + "\n")
    aside.replace(path)


def _validate(algorithm: Any, config: Any, state: Any, data: Dataset) -> dict[str, float]:
    """Means of algorithm.validate over the whole of `data`, in blocks, with a fixed key a block."""
    totals: dict[str, float] = {}
    for start in range(0, len(data), 1000):
        batch = {"x": jnp.asarray(data.x[start : start + 1000])}
        if data.label is not None:
            batch["label"] = jnp.asarray(data.label[start : start + 1000])
        values = algorithm.validate(config, state, batch, jax.random.fold_in(jax.random.key(0), start))
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + float(value.sum())
    return {f"validation_{name}": total / len(data) for name, total in totals.items()}


def _pictures(algorithm: Any, config: Any, loop: _Loop, seeds: tuple[int, ...], folder: Path, step: int) -> None:
    """Samples of every seed from noise that is the same at each step."""
    from vaegan_jax import plots

    for i, seed in enumerate(seeds):
        sample = np.asarray(algorithm.sample(config, loop.state(i), jax.random.key(0), 64))
        draw = plots.grid if sample.ndim == 4 else plots.scatter if sample.shape[1] == 2 else plots.vectors
        draw(sample, folder / f"step{step:08d}-seed{seed}.png")


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
