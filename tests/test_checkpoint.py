"""Checkpoints: every field makes the round trip, to the byte; nothing half-written is ever seen."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from vaegan_jax import checkpoint


@flax.struct.dataclass
class Player:
    params: Any
    opt_state: Any
    ema: Any = None
    name: str = flax.struct.field(pytree_node=False, default="static")


@flax.struct.dataclass
class State:
    player: Player
    step: jax.Array
    key: jax.Array
    keys: jax.Array
    rest: Any


def everything() -> State:
    """Every kind of leaf and of container that a training state may hold."""
    params = {
        "Dense_0": {"kernel": jax.random.normal(jax.random.key(0), (5, 3)), "bias": jnp.array([0.0, -0.0, jnp.nan])},
        "odd/name.x": jnp.ones((2,), jnp.bfloat16),
        "odd": {"name": {"x": jnp.array([1.0, 1e-45])}},
    }
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1e-3, 0.0, 10)))
    opt_state = transform.update(jax.tree.map(jnp.ones_like, params), transform.init(params))[1]
    rest: tuple = (
        None,
        {},
        [],
        optax.EmptyState(),
        jnp.array(True),
        jnp.zeros((0, 3)),
        jnp.array([2**32 - 1, 0], jnp.uint32),
        jnp.array([1 + 2j]),
        jnp.array([1, -128], jnp.int8),
        jnp.array([1, -3], jnp.int4),
        np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
        np.array([2**62, 1]),
        np.float64(0.1),
        7,
        0.1,
        True,
        jnp.array(3),  # weakly typed
        jax.random.key(3, impl="rbg"),
        jax.random.split(jax.random.key(4), 2)[:0],
    )
    player = Player(params, opt_state, ema=jax.tree.map(lambda p: p + 1, params), name="generator")
    return State(player, jnp.array(3, jnp.int32), jax.random.key(1), jax.random.split(jax.random.key(2), (2, 3)), rest)


def content(leaf: Any) -> tuple:
    """What must survive: type, dtype, weak type, shape and bytes."""
    if isinstance(leaf, (bool, int, float)) and not isinstance(leaf, np.generic):
        return type(leaf), leaf
    dtype, weak = leaf.dtype, getattr(leaf, "weak_type", False)
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return dtype, weak, leaf.shape, np.ascontiguousarray(leaf).tobytes()


def same(a: Any, b: Any) -> None:
    chex.assert_trees_all_equal_structs(a, b)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(a)[0]]
    for path, x, y in zip(paths, jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert content(x) == content(y), path


@pytest.mark.parametrize("abstract", [False, True])
def test_every_field_makes_the_round_trip(tmp_path: Path, abstract: bool) -> None:
    state = everything()
    checkpoint.save(tmp_path, 12, state)
    template = state
    if abstract:
        template = jax.tree.map(
            lambda x: (
                jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False))
                if hasattr(x, "dtype")
                else x
            ),
            state,
        )
    restored = checkpoint.restore(tmp_path, template)
    same(restored, state)
    assert restored.player.name == "generator"
    arrays = [x for x in jax.tree.leaves(restored) if isinstance(x, jax.Array)]
    assert len(arrays) == len(jax.tree.leaves(state)) - 5  # two 64-bit leaves and three Python numbers are none
    assert all(x.devices() == {jax.devices()[0]} for x in arrays)


def test_a_template_of_other_values_gives_the_saved_ones(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 0, {"w": jnp.arange(3.0), "key": jax.random.key(5)})
    restored = checkpoint.restore(tmp_path, {"w": jnp.zeros(3), "key": jax.random.key(0)})
    np.testing.assert_array_equal(restored["w"], [0, 1, 2])
    assert content(restored["key"]) == content(jax.random.key(5))


def test_extended_dtypes(tmp_path: Path) -> None:
    state: list[Any] = [jnp.array([0.5, -2], d) for d in (jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2)]
    state += [np.array([3], ml_dtypes.int4), np.array(2**63 + 1, np.uint64)]
    checkpoint.save(tmp_path, 1, state)
    for got, put in zip(checkpoint.restore(tmp_path, state), state, strict=True):
        assert content(got) == content(put)


@pytest.mark.parametrize("state", [{}, None, (), jnp.arange(3), optax.EmptyState()])
def test_small_states(tmp_path: Path, state: Any) -> None:
    checkpoint.save(tmp_path, 1, state)
    same(checkpoint.restore(tmp_path, state), state)


def test_restored_leaves_may_be_donated(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, jnp.arange(4096.0))
    state = checkpoint.restore(tmp_path, jnp.zeros(4096))
    moved = jax.jit(lambda x: x + 1, donate_argnums=0)(state)
    np.testing.assert_array_equal(moved, np.arange(4096.0) + 1)
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, jnp.zeros(4096)), np.arange(4096.0))


def test_a_restored_state_does_not_retrace(tmp_path: Path) -> None:
    traces = []

    @jax.jit
    def step(state: Any) -> Any:
        traces.append(1)
        return jax.tree.map(lambda x: x + 1, state)

    state = step({"n": jnp.array(0), "w": jnp.zeros(2)})
    checkpoint.save(tmp_path, 1, state)
    step(checkpoint.restore(tmp_path, state))
    assert len(traces) == 1


def test_keeps_the_last(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9, 100):
        checkpoint.save(tmp_path, step, jnp.array(step), keep=2)
    assert checkpoint.steps(tmp_path) == [10, 100]
    checkpoint.save(tmp_path, 3, jnp.array(3), keep=1)  # the one just written stays, and so does the last
    assert checkpoint.steps(tmp_path) == [3, 100]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["100", "3"]
    for step in range(4, 8):
        checkpoint.save(tmp_path, step, jnp.array(step), keep=None)
    assert checkpoint.steps(tmp_path) == [3, 4, 5, 6, 7, 100]
    assert int(checkpoint.restore(tmp_path, jnp.array(0))) == 100
    assert int(checkpoint.restore(tmp_path, jnp.array(0), step=5)) == 5


def test_a_step_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"a": jnp.zeros(2)})
    checkpoint.save(tmp_path, 1, {"b": jnp.ones(3)})
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, {"b": jnp.zeros(3)})["b"], np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path) == checkpoint.steps(tmp_path / "none") == []
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        checkpoint.restore(tmp_path, {})
    checkpoint.save(tmp_path, 4, jnp.zeros(1))
    with pytest.raises(FileNotFoundError, match=r"step 5 .* there are 4"):
        checkpoint.restore(tmp_path, jnp.zeros(1), step=5)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            {"a": jnp.zeros((2, 4)), "b": jnp.zeros(1)},
            r"1 leaves differ\): \['a'\]: saved float32 \[2, 3\], expected float32 \[2, 4\]\.",
        ),
        ({"a": jnp.zeros((2, 3), jnp.int32), "b": jnp.zeros(1)}, "saved float32.*expected int32"),
        ({"a": jnp.zeros((2, 3))}, r"\['b'\]: saved float32 \[1\], expected nothing"),
        ({"a": jnp.zeros((2, 3)), "b": jnp.zeros(1), "c": 1}, r"\['c'\]: saved nothing, expected Python int"),
        ({"a": jnp.zeros((2, 3)), "b": jax.random.split(jax.random.key(0), 1)}, r"expected key<fry> \[1\]"),
        ([jnp.zeros(1)] * 5, r"7 leaves differ.*; and 4 more\."),
        ({"a": jnp.zeros((2, 3)), "b": None}, "expected nothing"),
    ],
)
def test_another_template_is_refused_by_name(tmp_path: Path, template: Any, words: str) -> None:
    checkpoint.save(tmp_path, 1, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(1)})
    with pytest.raises(ValueError, match=words) as caught:
        checkpoint.restore(tmp_path, template)
    assert "\n" not in str(caught.value)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step is -1"):
        checkpoint.save(tmp_path, -1, {})
    with pytest.raises(ValueError, match="keep is 0"):
        checkpoint.save(tmp_path, 1, {}, keep=0)
    for leaf in ("text", object(), np.array("text"), np.array([None])):
        with pytest.raises(ValueError, match=r"leaf \['x'\]"):
            checkpoint.save(tmp_path, 1, {"x": leaf})
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        checkpoint.save(file, 1, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    state = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state)
    file = max((tmp_path / "2" / "arrays").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"2 is damaged .*delete this folder"):
        checkpoint.restore(tmp_path, state)
    same(checkpoint.restore(tmp_path, state, step=1), state)
    record = tmp_path / "1" / "leaves.json"
    description = json.loads(record.read_text())
    description["leaves"][0]["crc32"] ^= 1
    record.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"leaf \['w'\] are not those that were saved"):
        checkpoint.restore(tmp_path, state, step=1)
    record.write_text("{")
    with pytest.raises(ValueError, match="1 is damaged"):
        checkpoint.restore(tmp_path, state, step=1)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, jnp.zeros(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        for step in (1, 2):
            with pytest.raises(OSError, match="disk full"):
                checkpoint.save(tmp_path, step, jnp.ones(2))
    assert checkpoint.steps(tmp_path) == [1]
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, jnp.zeros(2)), np.zeros(2))
    checkpoint.save(tmp_path, 2, jnp.ones(2))  # and removes what the failed ones left
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_killed_at_a_random_moment(tmp_path: Path) -> None:
    """kill -9 in the middle of saving: every step that is visible is complete."""
    script = """
        import sys, jax.numpy as jnp
        from vaegan_jax import checkpoint
        for step in range(1, 10_000):
            checkpoint.save(sys.argv[1], step, {"w": jnp.full((200, 500), step)}, keep=2)
            print(step, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.017)
    process.send_signal(signal.SIGKILL)
    reported = [3, *(int(line) for line in process.stdout.read().split())]
    process.wait()
    found = checkpoint.steps(tmp_path)
    assert found[-1] >= reported[-1]
    for step in found:
        restored = checkpoint.restore(tmp_path, {"w": jnp.zeros((200, 500), jnp.int32)}, step)
        assert (restored["w"] == step).all()


def test_inside_a_running_event_loop(tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> Any:
        checkpoint.save(tmp_path, 1, jnp.arange(3))
        return checkpoint.restore(tmp_path, jnp.zeros(3, jnp.int32))

    np.testing.assert_array_equal(asyncio.run(cell()), [0, 1, 2])


def test_quiet_and_lazy(tmp_path: Path) -> None:
    script = f"""
        import sys
        from vaegan_jax import checkpoint, logs, plots, pca
        heavy = {{"orbax", "matplotlib", "rich", "tensorboardX", "PIL", "wandb", "sklearn"}} & set(sys.modules)
        assert not heavy, heavy
        checkpoint.save({str(tmp_path)!r}, 1, {{"a": 1}})
        checkpoint.restore({str(tmp_path)!r}, {{"a": 0}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
