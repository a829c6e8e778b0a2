"""Player: one network's parameters, batch statistics, optimiser state and optional moving average.

Also what every algorithm does with one: apply it, update it, check the batch that it is given.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import PartitionSpec

from vaegan_jax.optimizer import Optimizer

Tree = Any
Shape = tuple[int, ...]
DEVICE_AXIS = "device"  # of the mesh over which `fit` divides seeds, or the batch of one


@struct.dataclass
class Player:
    """One network. `ema` is a moving average of params with its own buffers, or None."""

    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState
    ema: Tree = None
    """Moving average of the parameters."""
    ema_stats: Tree = None
    """And of their batch statistics: those of the last parameters would fit the averaged ones ill."""

    def variables(self, *, averaged: bool = False) -> dict[str, Tree]:
        """What Linen's apply takes; `averaged` takes the moving averages if there are any."""
        if averaged and self.ema is not None:
            return {"params": self.ema, "batch_stats": self.ema_stats}
        return {"params": self.params, "batch_stats": self.batch_stats}


def create(variables: Mapping[str, Tree], optimizer: Optimizer, ema_decay: float | None = None) -> Player:
    """A player from Linen's init: {"params": ..., "batch_stats": ... if the net normalises}."""
    params, stats = variables["params"], variables.get("batch_stats", {})
    averages = (None, None) if ema_decay is None else jax.tree.map(jnp.copy, (params, stats))
    return Player(params, stats, _start(optimizer, params), *averages)


@functools.partial(jax.jit, static_argnums=0)
def _start(optimizer: Optimizer, params: Tree) -> optax.OptState:
    """One program, not one a shape of a parameter."""
    return optimizer.transformation().init(params)


def updates_per_epoch(config: Any) -> int:
    """Batches in a pass through the data set, of which schedules by epochs are told: 1 or more."""
    return max(1, config.dataset_size // config.batch_size)


def update(
    player: Player,
    optimizer: Optimizer,
    gradient: Tree,
    batch_stats: Tree = None,
    ema_decay: float | None = None,
    *,
    updates_per_epoch: int = 1,
) -> Player:
    """One step of the optimiser on `gradient` (of what is minimised); new batch statistics if given."""
    rule = optimizer.transformation(updates_per_epoch)
    updates, opt_state = rule.update(gradient, player.opt_state, player.params)
    params = optax.apply_updates(player.params, updates)
    stats = player.batch_stats if batch_stats is None else batch_stats
    averages = (player.ema, player.ema_stats)
    if ema_decay is not None:
        averages = jax.tree.map(lambda a, p: ema_decay * a + (1 - ema_decay) * p, averages, (params, stats))
    return Player(params, stats, opt_state, *averages)


def step_model(config: Any, state: Any, gradient: Tree, batch_stats: Tree) -> tuple[Any, dict[str, jax.Array]]:
    """The state after one update of its only player, `model`, and the metric gradient_norm."""
    every = updates_per_epoch(config)
    model = update(state.model, config.optimizer, gradient, batch_stats, updates_per_epoch=every)
    return dataclasses.replace(state, step=state.step + 1, model=model), {"gradient_norm": gradient_norm(gradient)}


def apply(
    net: nn.Module,
    variables: Mapping[str, Tree],
    *args: Any,
    train: bool,
    dropout: jax.Array | None = None,
    **kwargs: Any,
) -> tuple[Any, Tree]:
    """net(*args) and its batch statistics: when train, normalised by this batch and updated; else the running ones."""
    rngs = None if dropout is None else {"dropout": dropout}
    if not train:
        return net.apply(variables, *args, train=False, rngs=rngs, **kwargs), variables["batch_stats"]
    out, changed = net.apply(variables, *args, train=True, rngs=rngs, mutable=["batch_stats"], **kwargs)
    return out, changed.get("batch_stats", {})


def apply_part(net: nn.Module, variables: Mapping[str, Tree], name: str, *args: Any, train: bool) -> tuple[Any, Tree]:
    """`apply` of one of several nets, whose variables lie under `name` in each collection."""
    return apply(net, {kind: tree[name] for kind, tree in variables.items()}, *args, train=train)


def example(*shape: int) -> jax.ShapeDtypeStruct:
    """What a batch of a single example looks like, [1, *shape]: all that `initialize` needs of one."""
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def initialize(net: nn.Module, key: jax.Array, *args: Any) -> Mapping[str, Tree]:
    """Linen's init in evaluation mode (so no dropout key), as one compiled program for every key.

    Arrays may be given by their likeness, as of `example`: only shape and dtype count.
    """
    return _initialize(net, tuple(_likeness(a) for a in args), key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initialize(net: nn.Module, args: tuple[Any, ...], key: jax.Array) -> Mapping[str, Tree]:
    given = (jnp.zeros(a.shape, a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else a for a in args)
    return net.init(key, *given, train=False)


def _likeness(value: Any) -> Any:
    return jax.ShapeDtypeStruct(value.shape, value.dtype) if isinstance(value, jax.Array | np.ndarray) else value


@jax.jit
def one_of(states: Tree, i: int | jax.Array) -> Tree:
    """One seed's of the states of several: entry i of every leaf [S, ...]."""
    return jax.tree.map(lambda leaf: leaf[i], states)


def set_output_bias(variables: Mapping[str, Tree], data_mean: jax.Array, shape: Shape, margin: float = 1e-3) -> Any:
    """Sets the bias of the layer "output", before a sigmoid, so that a net which says nothing else gives `data_mean`.

    data_mean: [*shape] in [0, 1], kept in [margin, 1 - margin], averaged over positions where the bias is per channel.

    Raises:
        ValueError: another shape, or a net without that bias.
    """
    params = dict(variables["params"])
    if tuple(data_mean.shape) != tuple(shape):
        raise ValueError(f"data_mean has shape {tuple(data_mean.shape)}: one example's is expected, {tuple(shape)}.")
    if "bias" not in params.get("output", {}):
        raise ValueError("data_mean sets the bias of the layer named 'output', but this net has none: give it one.")
    bias = params["output"]["bias"]
    p = data_mean.reshape(-1) if bias.size == data_mean.size else data_mean.reshape(-1, bias.size).mean(axis=0)
    p = jnp.clip(p, margin, 1 - margin)
    value = (jnp.log(p) - jnp.log1p(-p)).astype(bias.dtype)
    return {**variables, "params": {**params, "output": {**params["output"], "bias": value}}}


def as_float(x: jax.Array) -> jax.Array:
    """uint8 [0, 255] -> float32 [0, 1]; floats as float32."""
    if x.dtype != jnp.uint8:
        return x.astype(jnp.float32)
    return (x.reshape(x.shape[0], -1).astype(jnp.float32) / 255).reshape(x.shape)  # flat: see losses


def check_batch(
    batch: Mapping[str, jax.Array], shape: Shape, leading: int | None, num_classes: int, attributes: bool = False
) -> None:
    """Refuses, while tracing, a batch that does not fit.

    Args:
        batch: {"x": [B, *shape] uint8 or float, "label": int [B] where num_classes > 0, or float [B, num_classes] where
            those are attributes}; all with one more leading axis of length `leading` where that is given.

    Raises:
        ValueError: what was given, and what is expected.
    """
    if not isinstance(batch, Mapping) or "x" not in batch:
        raise ValueError(f'The batch is {_describe(batch)}: give a dict {{"x": [B, {_dims(shape)}]}}.')
    x = batch["x"]
    if not hasattr(x, "dtype"):
        raise ValueError(f'batch["x"] is a {type(x).__name__}: give an array [B, {_dims(shape)}].')
    front = "B" if leading is None else f"{leading}, B"
    expected = f"[{front}, {_dims(shape)}]"
    given = tuple(x.shape)
    if len(given) != (1 if leading is None else 2) + len(shape) or given[len(given) - len(shape) :] != tuple(shape):
        raise ValueError(f'batch["x"] has shape {given}: {expected} is expected, as given to init.')
    if leading is not None and given[0] != leading:
        raise ValueError(f'batch["x"] has shape {given}: its first axis must hold config.batches_per_step = {leading}.')
    if 0 in given:
        raise ValueError(f'batch["x"] has shape {given}: it is empty, give at least one example.')
    if x.dtype != jnp.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f'batch["x"] is {x.dtype}: give uint8 in [0, 255] or float (images in [0, 1]).')
    label = batch.get("label")
    wanted = describe_label(front, num_classes, attributes)
    if num_classes and label is None:
        what = "attributes" if attributes else "classes"
        raise ValueError(f'The config has {num_classes} {what}, but the batch has no "label": give {wanted}.')
    if label is not None:
        if not hasattr(label, "dtype"):
            raise ValueError(f'batch["label"] is a {type(label).__name__}: give an int32 array [{front}].')
        if not label_fits(label, given[: len(given) - len(shape)], num_classes, attributes):
            raise ValueError(f'batch["label"] is {label.dtype} {tuple(label.shape)}: give {wanted}.')


def has_attributes(config: Any) -> bool:
    """Whether its labels are float [B, num_classes], not int [B]."""
    return getattr(config, "labels", "classes") == "attributes"


def describe_label(rows: str, num_classes: int, attributes: bool) -> str:
    """What is expected, for a sentence: int32 [rows], or float [rows, num_classes]."""
    return f"attributes float [{rows}, {num_classes}]" if attributes else f"int32 [{rows}]"


def label_fits(label: jax.Array, rows: tuple[int, ...], num_classes: int, attributes: bool) -> bool:
    """Whether label is int [*rows], or float [*rows, num_classes]; where num_classes is 0 nobody looks: either."""
    if attributes or (not num_classes and label.ndim == len(rows) + 1):
        width = num_classes or label.shape[-1]
        return label.shape == (*rows, width) and bool(jnp.issubdtype(label.dtype, jnp.floating))
    return label.shape == rows and bool(jnp.issubdtype(label.dtype, jnp.integer))


def check_shape(shape: Shape) -> Shape:
    """The shape of one example as a tuple of positive ints."""
    shape = tuple(shape)
    if len(shape) not in (1, 3) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape is {shape}: give one example's shape, (H, W, C) for images or (D,) for vectors.")
    return shape


def divide(z: jax.Array) -> jax.Array:
    """Divides the rows of z over the devices that share a batch, if `fit` has some: a draw has no batch to follow."""
    shared = DEVICE_AXIS in jax.sharding.get_abstract_mesh().axis_names
    return jax.lax.with_sharding_constraint(z, PartitionSpec(DEVICE_AXIS)) if shared else z


def one_hot(label: jax.Array | None, num_classes: int) -> jax.Array | None:
    """What the nets are told, float32 [B, num_classes]: labels [B] as one-hot, attributes as they are; None if 0."""
    if not num_classes:
        return None
    if label is not None and label.ndim == 2:
        return label.astype(jnp.float32)
    return jax.nn.one_hot(label, num_classes)


def must_be_told(config: Any, label: Any, n: int) -> tuple[jax.Array, ...]:
    """What an algorithm's `sample` of n cannot do without: () but for attributes, of which label [N, A] are an example.

    Raises ValueError where a config has attributes and label is None.
    """
    if not has_attributes(config):
        return ()
    if label is None:
        raise ValueError("The config has attributes, of which there is no law: give data that have some.")
    return (jnp.asarray(np.resize(label, (n, label.shape[1])), jnp.float32),)


def blocks(
    draw: Callable[[jax.Array, jax.Array | None], jax.Array], key: jax.Array, n: int, size: int, label: jax.Array | None
) -> jax.Array:
    """The first n rows of draw(key of block i, its `size` labels or None) for i = 0, 1, ...: memory of one block.

    Row j depends on j // size and j % size alone, so a longer sample begins with the shorter one (with labels and batch
    statistics: up to the last whole block; it is filled up with the labels from the first on).
    """
    if n < 0:
        raise ValueError(f"n is {n}: give how many to sample, 0 or more.")
    count = max(-(-n // size), 1)
    if label is not None:
        if not label_fits(label, (n,), 0, attributes=False):
            raise ValueError(
                f"label is {label.dtype} {tuple(label.shape)}: int32 ({n},), or attributes float ({n}, A), is expected."
            )
        label = jnp.resize(label, (count * size, *label.shape[1:])).reshape(count, size, *label.shape[1:])

    def block(i: jax.Array | int) -> jax.Array:
        return draw(jax.random.fold_in(key, i), None if label is None else label[i])

    rows = max(n, size)

    def place(j: jax.Array, out: jax.Array) -> jax.Array:
        # The last block first: it is moved to end with `out`, and what it leaves before its own rows is overwritten.
        i = count - 1 - j
        start = jnp.minimum(i * size, rows - size)
        return jax.lax.dynamic_update_slice_in_dim(out, jnp.roll(block(i), i * size - start, axis=0), start, axis=0)

    one = jax.eval_shape(block, 0)
    return jax.lax.fori_loop(0, count, place, jnp.zeros((rows, *one.shape[1:]), one.dtype))[:n]


def gradient_norm(gradient: Tree) -> jax.Array:
    """The Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(_squares(leaf) for leaf in jax.tree.leaves(gradient)))


def _squares(x: jax.Array) -> jax.Array:
    """The sum of the squares of x, of any shape, first of 16 parts beside each other.

    Of the whole, XLA's CPU reduction would write all squares out before it sums them.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(-1)
    part = x.size // 16
    parts = [jnp.square(x[i * part : (i + 1) * part]) for i in range(16)]
    return functools.reduce(jnp.add, parts).sum() + jnp.square(x[16 * part :]).sum()


def _dims(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def _describe(value: Any) -> str:
    return f"a dict with {sorted(value)}" if isinstance(value, Mapping) else f"{type(value).__name__}"
