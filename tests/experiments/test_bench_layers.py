"""The convolutions apart: every contender is timed, the table says what the numbers say, failures are named."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from experiments.bench import layers, machine, tasks


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(layers, "LAYERS", ((4, 1, 2),))
    monkeypatch.setattr(layers, "BATCHES", (128,))
    monkeypatch.setattr(layers, "DCGAN", {(4, 1, 2): (1, 0, 2)})
    monkeypatch.setattr(machine, "gemm_gflops", lambda: 50.0)


@pytest.mark.parametrize("contender", layers.CONTENDERS)
def test_a_turn_times_every_product(tiny, contender):
    if contender == "torch":
        pytest.importorskip("torch", reason="make bench-install")
    row = layers.turn(contender)
    assert len(row["milliseconds"]) == len(layers.cases()) == 3 and min(row["milliseconds"]) > 0
    assert row["gemm_gflops"] == ([50.0, 50.0] if contender == "ours" else [])


def test_the_table_and_the_page(tiny, tmp_path):
    times = {"ours": [[1.0, 2.0, 4.0]] * 3, "torch": [[2.0, 2.0, 2.0], [1.0, 2.0, 2.0], [3.0, 2.0, 2.0]]}
    result = {"device": "here", "date": "2026-01-01", "commit": "abc", "versions": "jax", "milliseconds": times}
    result["gemm_gflops"] = [40.0, 50.0]
    head, *rows = layers.lines(result)
    assert head[-1] == "PyTorch's over ours" and [row[2] for row in rows] == list(layers.PRODUCTS.values())
    assert [row[-1] for row in rows] == ["2.00 (1.00-3.00)", "1.00 (1.00-1.00)", "0.50 (0.50-0.50)"]
    assert layers.gflop(128, 14, 64, 128) == pytest.approx(2 * 128 * 49 * 25 * 64 * 128 / 1e9)
    assert layers.page(tmp_path) == "Not measured yet."
    (tmp_path / "here.json").write_text(json.dumps(result))
    page = layers.page(tmp_path)
    assert page.startswith("here, GEMM peak 50 GFLOP/s (lowest 40), 3 turns, 2026-01-01, commit abc, jax.")
    assert page.endswith("Those of a DCGAN step together: 9 ms of ours, 6 ms of PyTorch's.")
    del times["torch"]
    assert layers.lines(result)[0][-1] == "vaegan_jax, ms"


@pytest.mark.optimised
def test_a_dcgan_step_has_the_products_that_are_added_up():
    algorithm, config = tasks.ours("dcgan")
    state = jax.eval_shape(lambda: algorithm.init(config, jax.random.key(0), (28, 28, 1)))
    batch = {"x": jax.ShapeDtypeStruct((128, 28, 28, 1), jnp.uint8)}
    text = algorithm.train_step.lower(config, state, batch, jax.random.key(0)).compile().as_text()
    shapes = [
        ("dot", "25088,64"), ("dot", "25,64"), ("dot", "25088,25"),  # of images and 14x14x64
        ("convolution", "128,7,7,128"), ("convolution", "64,5,5,128"), ("dot", "6272,1600"),
    ]  # fmt: skip
    found = [len(re.findall(rf"= f32\[{shape}\]\S* {op}\(", text)) for op, shape in shapes]
    assert found == [count for counts in layers.DCGAN.values() for count in counts]


def test_what_fails_is_named_and_what_is_missing_left_out(monkeypatch, capsys):
    monkeypatch.setattr(layers.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="ours failed: no message"):
        layers.measure(1)
    monkeypatch.setattr(layers.sys, "executable", "true")
    done = layers.subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named 'torch'")
    monkeypatch.setattr(layers.subprocess, "run", lambda *_, **__: done)
    assert layers.measure(1, ["torch"])["milliseconds"] == {}
    assert "PyTorch is left out: ModuleNotFoundError" in capsys.readouterr().err


def test_the_reports_part_and_bad_flags(capsys):
    assert layers.main(["--check"]) == 0
    assert layers.main(["--turns", "0"]) == 1
    assert "turns is 0: give 1 or more." in capsys.readouterr().err
