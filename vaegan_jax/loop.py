"""The compiled chunk of steps, and the stream of chunks: the next one is dispatched before the last one is read."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vaegan_jax.data.dataset import Dataset
from vaegan_jax.state import DEVICE_AXIS, one_of

CHUNK_SECONDS = 1.0  # a chunk's aim: long enough to hide the host, short enough for progress and Ctrl-C
CAPACITY = 2048  # steps a chunk can hold
ORDERS = 2**24  # entries of all epochs' orders in a chunk: 64 MiB


class Diverged(FloatingPointError):
    """A metric or a parameter became NaN or infinite; the last checkpoint, if there is one, is from before."""


def diverged(name: str, value: Any, step: int, seed: int) -> Diverged:
    """The one sentence for every kind of it."""
    return Diverged(
        f"{name} is {value} at step {step} of seed {seed}: the run stops, what it saved before is kept; try a "
        "lower learning rate."
    )


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Steps first + 1 to first + n on the host. metrics: name -> [S, n]; seconds: None for the one that compiles."""

    first: int
    metrics: dict[str, np.ndarray]
    seconds: float | None

    @property
    def last(self) -> int:
        return self.first + next(iter(self.metrics.values())).shape[1]


@functools.cache
def compiler_options() -> dict[str, str | bool] | None:
    """What XLA is told beside its defaults on a CPU; None elsewhere, or where XLA knows none of it.

    Convolutions and reductions are left to its older kernels: fused with its neighbours by YNNPACK, a convolution runs
    at 3/4 of the speed, 5 to 7 % of a step. And parameters are updated in place: XLA would copy each one first, as it
    does not see that all who read it are done (2 % of a VAE's or GAN's step, 5 % of DCGAN's; same bits).
    """
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, str | bool] = {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
        "xla_cpu_copy_insertion_use_region_analysis": True,
    }
    known = {}
    for name, value in options.items():
        try:
            jax.jit(lambda: jnp.int32(0), compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError:  # another XLA, without this one
            continue
        known[name] = value
    return known or None


class Loop:
    """The program and the states that it moves (donated, so nothing else may hold them)."""

    def __init__(self, algorithm: Any, config: Any, data: Dataset, states: Any, seeds: tuple[int, ...]) -> None:
        self.seeds, self.states = seeds, states
        self.capacity = _capacity(len(data), config)
        devices = len(jax.devices())
        over_seeds = devices > 1 and len(seeds) % devices == 0
        over_batch = devices > 1 and not over_seeds and config.batch_size % devices == 0
        self._mesh = None
        if over_seeds or over_batch:  # else all would do the same work
            self._mesh = jax.make_mesh((devices,), (DEVICE_AXIS,), axis_types=(AxisType.Auto,))
        whole, split = self._sharding(), self._sharding(DEVICE_AXIS)
        arrays = {"x": data.x} if data.label is None else {"x": data.x, "label": data.label}
        self._data = jax.device_put(arrays, whole)
        self._keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
        self._epoch, self._order = -1, jnp.zeros((len(seeds), len(data)), jnp.int32)  # of the last chunk's last step
        if whole:
            moved = (self.states, self._keys, self._order)
            self.states, self._keys, self._order = jax.device_put(moved, split if over_seeds else whole)
        front = (None,) * (config.batches_per_step > 1)
        constraint = self._sharding(*front, DEVICE_AXIS) if over_batch else None
        make = _program if _hashable(config) else _program.__wrapped__  # a caller's own config may not be
        self._program: Any = make(algorithm.train_step, config, len(data), constraint, len(seeds) == 1)
        # Draws that follow no batch are divided too: see state.divide.
        self._context = functools.partial(jax.set_mesh, self._mesh) if over_batch else contextlib.nullcontext
        self._batches = config.batches_per_step, len(data) // config.batch_size

    def _sharding(self, *axes: str | None) -> NamedSharding | None:
        return NamedSharding(self._mesh, PartitionSpec(*axes)) if self._mesh else None

    def advance(self, start: int, count: int) -> dict[str, jax.Array]:
        """Moves the states by `count` <= capacity steps from `start`; metrics [S, capacity], not yet waited for."""
        with self._context():
            self.states, self._order, metrics = self._program(*self._arguments(start, count))
        group, per_epoch = self._batches
        self._epoch = ((start + count) * group - 1) // per_epoch
        return metrics

    def _arguments(self, start: int, count: int) -> tuple[Any, ...]:
        """What the compiled program takes for these steps; states and order are donated to it."""
        numbers = (jnp.int32(n) for n in (self._epoch, start, count))
        return (self._data, self.states, self._keys, self._order, *numbers)

    def compile(self) -> jax.stages.Compiled:
        """Compiles the program now instead of at the first chunk, for a look at its operations and memory."""
        with self._context():
            program = self._program.lower(*self._arguments(0, 1)).compile()
        self._program = program
        return program

    def state(self, i: int) -> Any:
        """The state of seeds[i]."""
        return one_of(self.states, i)

    def chunks(self, start: int, stops: Sequence[int]) -> Iterator[Chunk]:
        """Chunks from step `start` to the last of `stops` (ascending), one ahead of what is yielded.

        A chunk that ends at a stop is yielded with nothing in flight, so `states` are those of that step.

        Raises:
            Diverged: a metric is NaN or infinite; names step, seed and metric.
        """
        flying: tuple[int, int, dict[str, jax.Array]] | None = None
        step, count, compiled, mark = start, 1, False, time.perf_counter()
        for stop in stops:
            while step < stop or flying:
                launched = None
                if step < stop:
                    n = min(count, stop - step, self.capacity)
                    launched = (step, n, self.advance(step, n))
                    step += n
                if flying:
                    metrics, trouble = self._read(*flying)
                    if trouble:
                        if next(iter(metrics.values())).size:
                            yield Chunk(flying[0], metrics, None)  # what went well before it
                        raise trouble
                    seconds, mark = time.perf_counter() - mark, time.perf_counter()
                    rate = flying[1] / max(seconds, 1e-9)
                    # The first chunk compiles: its time says nothing of the next.
                    count = max(1, min(self.capacity, int(rate * CHUNK_SECONDS), 8 * count)) if compiled else 8
                    yield Chunk(flying[0], metrics, seconds if compiled else None)
                    compiled = True
                flying = launched
            mark = time.perf_counter()  # what the host did at the stop is not the steps' time

    def _read(
        self, start: int, count: int, metrics: dict[str, jax.Array]
    ) -> tuple[dict[str, np.ndarray], Diverged | None]:
        """A chunk's metrics on the host, [S, n]: all of them, or those before the first NaN or infinity, and that."""
        values = {name: np.asarray(buffer)[:, :count] for name, buffer in metrics.items()}
        bad = {name: ~np.isfinite(v) for name, v in values.items() if not np.isfinite(v).all()}
        if not bad:
            return values, None
        at = min(int(b.any(axis=0).argmax()) for b in bad.values())
        name, i = next((name, int(b[:, at].argmax())) for name, b in bad.items() if b[:, at].any())
        trouble = diverged(name, values[name][i, at], start + at + 1, self.seeds[i])
        return {name: v[:, :at] for name, v in values.items()}, trouble

    def check_finite(self, step: int) -> None:
        """Refuses states with NaN or infinity in them, which a metric shows one step too late for a checkpoint."""
        for path, leaf in jax.tree.leaves_with_path(self.states):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                continue
            ok = np.isfinite(np.asarray(leaf)).reshape(len(self.seeds), -1).all(axis=1)
            if not ok.all():
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise diverged(f"An entry of {name}", "NaN or infinite", step, self.seeds[int(ok.argmin())])


def _hashable(config: Any) -> bool:
    try:
        hash(config)
    except TypeError:
        return False
    return True


@functools.lru_cache(maxsize=16)
def _program(
    train_step: Callable[..., Any], config: Any, examples: int, constraint: NamedSharding | None, alone: bool
) -> Any:
    """_chunk over the seeds, compiled. Kept, so that a run which goes on or is repeated does not compile again."""
    one = functools.partial(_chunk, train_step, config, examples, constraint)
    # One seed takes no batch axis: a batched product of one is slower than a plain one.
    over = _alone if alone else functools.partial(jax.vmap, in_axes=(None, 0, 0, 0, None, None, None))
    return jax.jit(over(one), donate_argnums=(1, 3), compiler_options=compiler_options())


def _alone(chunk: Callable[..., Any]) -> Callable[..., Any]:
    """`chunk` over a seed axis of length 1, which costs no copy inside the program."""

    def one(data: Any, states: Any, keys: jax.Array, order: jax.Array, *numbers: jax.Array) -> Any:
        out = chunk(data, jax.tree.map(lambda leaf: leaf[0], states), keys[0], order[0], *numbers)
        return jax.tree.map(lambda leaf: leaf[None], out)

    return one


def _capacity(examples: int, config: Any) -> int:
    """Steps in the longest chunk: CAPACITY, or fewer where it would touch too many epochs of a small batch count."""
    per_epoch = examples // config.batch_size
    epochs = max(2, ORDERS // examples)
    return max(1, min(CAPACITY, (epochs - 1) * per_epoch // config.batches_per_step))


def _chunk(
    train_step: Callable[..., Any],
    config: Any,
    examples: int,
    constraint: NamedSharding | None,
    data: dict[str, jax.Array],
    state: Any,
    key: jax.Array,
    order: jax.Array,
    order_epoch: jax.Array,
    start: jax.Array,
    count: jax.Array,
) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
    """`count` training steps of one seed from step `start`, with their metrics in buffers of _capacity.

    `order` [N] is that of epoch `order_epoch` (-1: none yet), so that an epoch which goes on is not shuffled again.
    Returns the state, the last epoch's order and the metrics.

    A loop with a traced bound, so that chunks of every length are one program: one compilation, and no other fusion
    (so no other rounding) for a chunk cut short by a checkpoint.
    """
    order_key, step_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    size, group = config.batch_size, config.batches_per_step
    per_epoch, capacity = examples // size, _capacity(examples, config)

    # The orders of all epochs that the chunk touches, before its loop: a branch on the epoch inside would copy one.
    epoch = start * group // per_epoch
    epochs = ((start + count) * group - 1) // per_epoch - epoch + 1

    def shuffle(j: jax.Array | int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(order_key, epoch + j), examples).astype(jnp.int32)

    first = jax.lax.cond(epoch == order_epoch, lambda: order, lambda: shuffle(0))
    orders = jnp.zeros(((capacity * group - 1) // per_epoch + 2, examples), jnp.int32).at[0].set(first)
    orders = jax.lax.fori_loop(1, epochs, lambda j, orders: orders.at[j].set(shuffle(j)), orders)

    def rows(number: jax.Array) -> jax.Array:
        """The examples of batch `number` of the run: [B]."""
        place = number % per_epoch
        return jax.lax.dynamic_slice(orders, (number // per_epoch - epoch, place * size), (1, size))[0]

    def gather(step: jax.Array) -> dict[str, jax.Array]:
        chosen = rows(step) if group == 1 else jax.vmap(rows)(step * group + jnp.arange(group))
        batch = {name: values[chosen] for name, values in data.items()}
        return batch if constraint is None else jax.lax.with_sharding_constraint(batch, constraint)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, buffers = carry
        state, metrics = train_step(config, state, gather(start + i), jax.random.fold_in(step_key, start + i))
        return state, {name: buffers[name].at[i].set(value) for name, value in metrics.items()}

    batch = jax.eval_shape(gather, start)
    _, metrics = jax.eval_shape(functools.partial(train_step, config), state, batch, step_key)
    buffers = {name: jnp.zeros((capacity,), jnp.float32) for name in metrics}
    state, metrics = jax.lax.fori_loop(0, count, body, (state, buffers))
    return state, orders[epochs - 1], metrics
