"""The accelerator's part of the benchmark, on a CPU with tiny models: every part gives rows, and verdicts are right."""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import common
from experiments.bench import accelerator, machine, table
from vaegan_jax import convolution, gan, nets, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

pytestmark = pytest.mark.optimised

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
SGD = Optimizer(rule="sgd", learning_rate=0.01)
SMALL = gan.Config(  # little to compile
    latents=3,
    generator=nets.ConvGenerator(channels=(4,), hidden=(), norm="none"),
    discriminator=nets.ConvDiscriminator(channels=(4,), hidden=(), norm="none", feature_layer="conv0"),
    update="alternating",
    generator_optimizer=SGD,
    discriminator_optimizer=SGD,
    batch_size=8,
)


def lines(rows):
    return table.targets({"tasks": {}, "accelerator": rows})


def models(name):
    if name == "vae":
        net = {"encoder": nets.MLPEncoder(hidden=(8,)), "decoder": nets.MLPDecoder(hidden=(8,))}
        return vae, vae.Config(latents=2, batch_size=8, optimizer=SGD, weight_prior=False, **net)
    return gan, SMALL


PLAN = accelerator.Plan(
    Dataset(IMAGES),
    real=True,
    repeats=2,
    turn=0.01,
    seeds=2,
    quality_steps=8,
    samples=16,
    models=models,
    scripts=lambda name: common.Script(
        name, models(name)[0], recipes={"paper": lambda: models(name)[1]}, steps={"paper": 1000}
    ),
    wide=lambda: SMALL,
    wide_shape=(8, 8, 1),
    gemm=64,
)


def check(rows):
    for row in rows:
        assert row["values"] and all(math.isfinite(v) and v > 0 for v in row["values"]), row
        assert row["text"] and row["met"] in (True, False, None)
    json.dumps(rows, allow_nan=False)
    assert len(table.text(lines(rows)).splitlines()) == 1 + len(rows)


def test_seeds_side_by_side_under_both_lowerings():
    geo = convolution.geometry((8, 8), (5, 5), (2, 2), "SAME")

    def step(config, w, batch, key):  # the least with a convolution in it
        x = batch["x"].astype(jnp.float32) / 255
        value, gradient = jax.value_and_grad(lambda w: (convolution.convolve(geo, x, w) ** 2).mean())(w)
        return w - 0.1 * gradient, {"loss": value}

    one = SimpleNamespace(init=lambda config, key, shape: jax.random.normal(key, (5, 5, 1, 2)), train_step=step)
    rows = accelerator.seeds(dataclasses.replace(PLAN, models=lambda name: (one, SMALL)), "dcgan")
    assert [r["task"].split(", ")[1:] for r in rows] == [["2 seeds", "native"], ["2 seeds", "GEMM"]]
    assert all(r["least"] == "at most 5x" and r["met"] == (sum(r["values"]) / 2 <= 5) for r in rows)
    check(rows)


def test_many_seeds_are_judged_against_the_faster_form_of_one(monkeypatch):
    def in_turns(runs, plan):
        return {name: times[name] for name in runs}, {}

    monkeypatch.setattr(accelerator, "in_turns", in_turns)
    monkeypatch.setattr(accelerator, "Steps", lambda *args: lambda n: None)
    times = {"native 1": [2.0, 2.0], "native 2": [9.0, 9.0], "GEMM 1": [3.0, 3.0], "GEMM 2": [11.0, 11.0]}
    assert [(r["values"][0], r["met"]) for r in accelerator.seeds(PLAN, "dcgan")] == [(4.5, True), (5.5, False)]
    (row,) = accelerator.seeds(PLAN, "vae")
    assert (row["task"], row["least"], row["met"]) == ("VAE 784-500-20, 2 seeds", "at most 2x", False)


def test_each_layer_is_timed_in_its_three_products():
    rows = accelerator.convolutions(dataclasses.replace(PLAN, turn=0.002), "dcgan")
    check(rows)
    assert len(rows) == 3 + 1 and rows[0]["task"] == "8x8, 1-4, forward, GEMM"
    assert rows[-1]["text"].split()[0] in ("native", "GEMM") and "seed after seed" in rows[-1]["text"]


def test_a_lowering_is_what_is_traced_under_it_and_all_is_as_before_after():
    geo = convolution.geometry((8, 8), (5, 5), (2, 2), "SAME")
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((5, 5, 3, 4))

    def traced():
        gradient = jax.grad(lambda x, w: convolution.convolve(geo, x, w).sum(), argnums=(0, 1))
        text = jax.jit(lambda x, w: (convolution.convolve(geo, x, w), gradient(x, w))).lower(x, w).as_text()
        return text.count("stablehlo.convolution"), text.count("dot_general")

    before = convolution._spread_native, traced()
    with accelerator.lowering("native"):
        assert traced() == (3, 0)
    with accelerator.lowering("GEMM"):
        assert traced() == (0, 3)
    assert before == (convolution._spread_native, traced())


def test_chunk_against_host_loop_and_the_papers_schedule():
    rows = [*accelerator.scan(PLAN, "vae"), *accelerator.schedule(PLAN, "vae")]
    check(rows)
    assert "extrapolated from" in rows[1]["text"] and rows[1]["against"] == "1,000 steps"
    assert accelerator.Plan(PLAN.data, False).scripts("dcgan").steps["paper"] == 200 * 195


def test_bfloat16_in_time_and_quality():
    config = accelerator.in_dtype(SMALL, "bfloat16")
    assert config.generator.dtype == config.discriminator.dtype == "bfloat16" and SMALL.generator.dtype is None
    rows = accelerator.bfloat16(PLAN, "vae")
    check(rows)
    assert len(rows[1]["values"]) == 4 and "mean" in rows[1]["text"]  # and variance, and two losses


def test_without_images_quality_is_not_checked(monkeypatch):
    monkeypatch.setattr(accelerator, "in_turns", lambda runs, plan: ({name: [1.0, 2.0] for name in runs}, {}))
    _, quality = accelerator.bfloat16(dataclasses.replace(PLAN, real=False), "vae")
    assert quality["text"] == "not checked: no images" and quality["met"] is None and not quality["values"]


def test_quality_is_judged_by_the_distance_between_seeds():
    def run(mean, loss):
        return {"mean": np.full(4, mean), "variance": np.full(4, mean), "loss": np.float32(loss)}

    full = [run(0.0, 1.0), run(0.1, 1.01), run(-0.1, 0.99)]  # 0.2 between the last two
    good = accelerator.compare("x", full, run(0.3, 1.04))
    assert good["met"] is True and good["values"] == pytest.approx([1.5, 1.5, 0.04 / 0.025])
    assert accelerator.compare("x", full, run(0.5, 1.0))["met"] is False
    assert accelerator.compare("x", full, run(0.0, 1.1))["met"] is False
    with pytest.raises(FloatingPointError, match="loss became NaN"):
        accelerator.compare("x", full, run(0.0, math.nan))


def test_a_ratio_is_judged_by_its_median_where_there_is_a_limit():
    def ratio(limit):
        return accelerator.ratio("t", "a", [1.0, 1.0, 1.0], [1.0, 2.0, 9.0], {"one": [1.0], "all": [2.0]}, limit)

    assert [ratio(limit)["met"] for limit in (2, 1.9, 0)] == [True, False, None]
    assert ratio(2)["text"] == "2.00 (1.00-9.00): one 1, all 2 ms a step" and ratio(0)["least"] == "-"


def test_the_peak_is_of_the_operations_that_the_program_has(monkeypatch):
    state = gan.init(SMALL, jax.random.key(0), (8, 8, 1))
    step = gan.train_step.lower(SMALL, state, {"x": jnp.zeros((8, 8, 8, 1), jnp.uint8)}, jax.random.key(1))
    # The three gradients back through the last layer are outer products, which XLA counts among the elementwise.
    outer = 3 * 2 * 8 * (4 * 4 * 4)
    assert accelerator.dcgan_flops(SMALL, (8, 8, 1)) == machine.flops(step.compile()) + outer
    # 1.25 GFLOP in each net's four wide layers and little beside, as in the paper's figure 1.
    assert 15e12 < accelerator.dcgan_flops(accelerator.figure_1(), (64, 64, 3)) < 16e12

    monkeypatch.setattr(machine, "gemm_gflops", functools.partial(machine.gemm_gflops, seconds=0.0))
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(accelerator.CHIP_TFLOPS, kind, (2.0, 1.0))
    rows = accelerator.peak(PLAN, "float32")
    check(rows)
    assert "of 1 TFLOP/s" in rows[1]["text"] and rows[1]["task"] == "DCGAN 8x8, batch 8, float32"
    monkeypatch.setattr(accelerator, "in_turns", lambda runs, plan: ({"step": [1.0]}, {}))
    assert "of 2 TFLOP/s" in accelerator.peak(PLAN, "bfloat16")[1]["text"]
    monkeypatch.delitem(accelerator.CHIP_TFLOPS, kind)
    sheet = accelerator.peak(PLAN, "float32")[1]
    assert sheet["text"] == f"not known for {kind}" and not sheet["values"]


def test_what_fails_is_a_row_and_the_others_go_on(monkeypatch):
    def part(plan, what):
        if what == "large":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long story")
        return [accelerator.row(what, "-", [1.0], "fine", met=True)]

    monkeypatch.setattr(accelerator, "PARTS", {"a": (part, ("large", "small")), "b": (part, ("last",))})
    said = []
    kept = []
    rows = accelerator.measure(PLAN, ("a", "b"), say=said.append, keep=lambda rows: kept.append(len(rows)))
    assert kept == [1, 2, 3]  # after each, as the machine may be taken away
    assert [r["text"] for r in rows] == ["failed: RuntimeError: RESOURCE_EXHAUSTED: out of memory", "fine", "fine"]
    assert [(r["part"], r["met"]) for r in rows] == [("a", False), ("a", True), ("b", True)]
    assert len(said) == 4 and [line[-1] for line in lines(rows)[1:]] == ["no", "yes", "yes"]
    late = accelerator.measure(PLAN, ("b",), budget=-1)
    assert late[0]["text"].startswith("not run") and late[0]["met"] is None and lines(late)[1][-1] == "-"


def test_the_command_writes_json_and_prints_the_table(monkeypatch, tmp_path, capsys):
    seen = []

    def part(plan, what):
        seen.append(plan)
        return [accelerator.row(what, "-", [1.0], "fine")]

    monkeypatch.setattr(accelerator, "PARTS", {"a": (part, ("x",)), "b": (part, ("y",))})
    monkeypatch.setattr(machine, "gemm_gflops", lambda size: float(size))
    out = tmp_path / "deep" / "here.json"
    np.savez(tmp_path / "some.npz", x=IMAGES)
    flags = ["--only", "b", "--quick", "--images", str(tmp_path / "some.npz"), "--out", str(out)]
    assert accelerator.main(flags) == 0
    assert [r["task"] for r in json.loads(out.read_text())["accelerator"]] == ["y"]
    assert "fine" in capsys.readouterr().out
    assert seen[0].real and seen[0].repeats == 2 and seen[0].data.x.shape == IMAGES.shape
    assert accelerator.main(["--images", str(tmp_path / "none.idx")]) == 1
    assert capsys.readouterr().err.startswith("experiments.bench.accelerator: ")


BLOCKED = """
import importlib.metadata, re, sys

def needed(names):
    found, todo = set(), list(names)
    while todo:
        name = re.sub("[-_.]+", "-", re.split(r"[^\\w.-]", todo.pop())[0]).lower()
        if name not in found:
            found.add(name)
            try:
                requires = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            todo += [r for r in requires if "extra ==" not in r]
    return found

allowed = needed(["jax", "flax", "optax", "numpy", "orbax-checkpoint"]) | {"vaegan-jax"}
allowed |= {"setuptools", "pip"}
owners = importlib.metadata.packages_distributions()
blocked = {m for m, ds in owners.items() if not {re.sub("[-_.]+", "-", d).lower() for d in ds} & allowed}
blocked -= set(sys.stdlib_module_names)
assert {"tyro", "sklearn", "matplotlib", "tensorflow_datasets", "PIL"} <= blocked, blocked
blocked |= {"chex", "torch"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is not needed here")

sys.meta_path.insert(0, Blocker())
import orbax.checkpoint
import numpy as np
from experiments.bench import accelerator
from vaegan_jax import data
for name in accelerator.tasks.TASKS:
    accelerator.Plan(None, False).scripts(name)
assert len(data.load("npz:" + sys.argv[1])) == 64
assert not blocked & {m.split(".")[0] for m in sys.modules}
from experiments.bench import __main__, wholes
(row,) = wholes.rows("random", 1, steps=10)  # fit draws pictures, which need Pillow: a row that says so
assert row["met"] is None and row["text"].startswith("not run: PIL is not needed here"), row
from experiments.bench import ours, worker  # what the processes that __main__ starts import
assert ours.build("vae", "scan", np.tile(np.load(sys.argv[1])["x"], (2, 1, 1, 1)), 0)(2).shape == (2, 2)
assert not blocked & {m.split(".")[0] for m in sys.modules}
"""


def test_nothing_is_imported_but_jax_flax_optax_orbax_numpy_and_what_these_need(tmp_path):
    np.savez(tmp_path / "some.npz", x=IMAGES)
    found = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path / "some.npz")],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=Path(accelerator.__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
