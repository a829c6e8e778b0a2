"""How cost grows: every axis is measured and drawn, collectives are counted right, nothing is left out in silence."""

import json
import math
import re
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from experiments.bench import collectives, machine, scaling, scaling_page, table

pytestmark = pytest.mark.optimised


class Config(NamedTuple):
    batch_size: int = 4
    batches_per_step: int = 1


def step(config, state, batch, key):
    x = batch["x"].reshape(config.batch_size, -1)[:, :4].astype(jnp.float32)
    return state + 1e-6 * x.mean(), {"loss": state}


TOY = SimpleNamespace(init=lambda config, key, shape: jnp.float32(0), train_step=step)


def toy(at, work=1, **rest):
    return scaling.Point("toy", at, TOY, Config(), work, **{"size": 4, "examples": 40} | rest)


def measured(at, *turns):
    return {"curve": "toy", "at": at, "skipped": "", "turns": list(turns), "steps_per_second": sorted(turns)[1]}


STEP = """HloModule jit_one, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: f32[8]) -> f32[8] {
  %statistics = (f32[1,8]{1,0}, f32[8]{0}) all-reduce(%p, %q), channel_id=1, to_apply=%add
  ROOT %gathered = f32[16]{0} all-gather-start(%p), channel_id=2, dimensions={0}
}

%branch (p: f32[]) -> f32[] {
  ROOT %moved = f32[2]{0} collective-permute(%p), channel_id=3
}

%orders (p: s32[]) -> s32[] {
  ROOT %order = s32[9]{0} all-to-all(%p), metadata={op_name="jit(one)/while/body"}
}

%steps (p: s32[]) -> s32[] {
  %wait = f32[8]{0} while(%p), condition=%add, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
  %either = f32[] conditional(%p, %p), branch_computations={%branch, %add}
  %done = f32[16]{0} all-gather-done(%gathered)
  ROOT %sums = (f32[3,4]{1,0}, f32[4]{0}, /*index=2*/f32[]) all-reduce(%dot.1, %dot.2, /*index=2*/%mean), to_apply=%add, metadata={op_name="jit(one)/while/body/jit(train_step)/x"}
}

ENTRY %main (p: s32[]) -> s32[] {
  %once = f32[7,7]{1,0} all-reduce(%p), to_apply=%add
  %first = s32[] while(%p), condition=%add, body=%orders
  ROOT %last = s32[] while(%first), condition=%add, body=%steps
}
"""  # noqa: E501


def test_the_collectives_of_one_step_are_counted_with_its_loops_and_without_the_chunks():
    found = {(c["kind"], c["operands"]): c for c in collectives.collectives(STEP)}
    assert found == {
        ("all-reduce", 2): {"times": 5, "kind": "all-reduce", "operands": 2, "values": 16, "gradients": False},
        ("all-gather", 1): {"times": 5, "kind": "all-gather", "operands": 1, "values": 16, "gradients": False},
        ("collective-permute", 1): {
            "times": 1,
            "kind": "collective-permute",
            "operands": 1,
            "values": 2,
            "gradients": False,
        },
        ("all-reduce", 3): {"times": 1, "kind": "all-reduce", "operands": 3, "values": 17, "gradients": True},
    }
    assert (
        "1 all-reduce of 3 with gradients (" in scaling_page._talk(list(found.values()))
        and scaling_page._talk([]) == "none"
    )
    with pytest.raises(ValueError, match="0 loops over train_step"):
        collectives.collectives(STEP.replace("train_step", "other"))


def test_two_devices_share_a_vaes_batch_with_one_all_reduce_a_step():
    """Eight gradients and three metrics, in a program of its own with two devices; half of the work on each."""
    row, *rest = scaling.device_rows(("vae",), (2,), 0.01, 300)
    assert not rest and row["skipped"] == "" and len(row["turns"]) == scaling.TURNS["devices"]
    (only,) = row["collectives"]
    assert (only["kind"], only["times"], only["operands"], only["gradients"]) == ("all-reduce", 1, 11, True)
    whole = 2 * 100 * (2 * 784 * 500 + 3 * (500 * 40 + 20 * 500 + 500 * 784)) / 1e9
    assert row["gflop_a_device"] == pytest.approx(whole / 2, rel=1e-6)
    assert "1 all-reduce of 11 with gradients (815,827 values)" in table.text(scaling_page.lines("devices", [row]))


def test_two_devices_share_a_gans_batch_with_one_all_reduce_for_both_players():
    (row,) = scaling.device_rows(("gan",), (2,), 0.01, 300)
    assert row["skipped"] == ""
    (only,) = row["collectives"]
    assert (only["kind"], only["times"], only["gradients"]) == ("all-reduce", 1, True)
    assert only["values"] > 4_900_000  # of both players' parameters


def test_the_reports_part_is_that_of_the_results():
    assert scaling.main(["--check"]) == 0


def test_a_device_count_that_fails_or_takes_too_long_is_recorded(monkeypatch):
    assert scaling.device_rows(("vae",), (2,), 0.01, 0.05)[0]["skipped"] == "stopped at the limit of 0.05 s"
    monkeypatch.setattr(scaling.sys, "executable", "false")
    assert scaling.device_rows(("vae",), (2,), 0.01, 9)[0]["skipped"] == "failed: no message"
    monkeypatch.setattr(scaling.jax, "default_backend", lambda: "gpu")
    assert "only a CPU" in scaling.device_rows(("vae",), (2,), 0.01, 9)[0]["skipped"]


def test_every_axis_is_measured_written_and_drawn(tmp_path, monkeypatch, capsys):
    tiny = {
        "batch": [toy(4), toy(8)],
        "image": [toy(4), toy(6, size=6)],
        "seeds": [toy(1), toy(3, seeds=3)],
        "data": [toy(40), toy(400, examples=400)],
    }
    monkeypatch.setattr(scaling, "points", tiny.__getitem__)
    talk = {"gflop_a_device": 0.1, "collectives": []}
    monkeypatch.setattr(scaling, "device_rows", lambda *_: [measured(1, 1, 2, 3) | talk, measured(2, 2, 3, 4) | talk])
    monkeypatch.setattr(machine, "gemm_gflops", lambda: 50.0)
    assert scaling.main(["--seconds", "0.002", "--out", str(tmp_path)]) == 0
    stem = machine.slug(machine.device_name())
    result = json.loads((tmp_path / f"{stem}.json").read_text())
    assert list(result["axes"]) == list(scaling_page.AXES)
    for axis, rows in result["axes"].items():
        assert len(rows) == 2 and all(row["steps_per_second"] > 0 and not row["skipped"] for row in rows)
        assert (tmp_path / f"{stem}-{axis}.png").read_bytes().startswith(b"\x89PNG")
    assert "25 turns" in result["runs"]["data"] and ", 5 turns" in result["runs"]["image"]
    assert result["axes"]["seeds"][1]["chunk"] >= 1 and result["threads"] == machine.cores()
    assert {"device", "date", "versions", "quiet", "unrest", "gemm_gflops"} <= set(result)
    said = capsys.readouterr().out
    assert result["flat"]["text"] in said and all(axis.title in said for axis in scaling_page.AXES.values())
    # One axis again: the others stay, under the heading of the run that measured them.
    monkeypatch.setattr(machine, "gemm_gflops", lambda: 60.0)
    assert scaling.main(["--seconds", "0.002", "--axes", "image", "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / f"{stem}.json").read_text())
    for axis in ("batch", "seeds", "data", "devices"):
        assert again["axes"][axis] == result["axes"][axis] and "peak 50" in again["runs"][axis]
    assert "peak 60" in again["runs"]["image"] and again["flat"] == result["flat"]


def test_a_point_over_the_limit_is_left_out_with_its_reason(tmp_path, monkeypatch):
    chosen = [toy(1), toy(2, work=10**9), toy(4, work=1)]
    rows = scaling.sweep("batch", chosen, 0.002, 30)
    assert [bool(row["skipped"]) for row in rows] == [False, True, False]
    assert re.fullmatch(r"would take about [\d,]+ s; the limit is 30 s", rows[1]["skipped"])
    monkeypatch.setattr(scaling, "_free_mib", lambda: 0.0)
    rows += scaling.sweep("batch", [toy(1), toy(2)], 0.002, 30)
    assert "MiB are free" in rows[-1]["skipped"]
    assert "not run: would take about" in table.text(scaling_page.lines("batch", rows))
    scaling_page.draw("batch", rows, "here", tmp_path / "skipped.png")
    assert scaling._free_mib() == 0.0 and (tmp_path / "skipped.png").exists()


def test_flat_is_within_ten_percent():
    flat = scaling.flatness([measured(1_000, 99, 100, 101), measured(60_000, 103, 105, 107)])
    assert flat == {
        "ratio": 1.05,
        "within_10_percent": True,
        "text": "Data set size: flat within 10 %: 60,000 examples are 1.05 (middle half of 3 turns: 1.05-1.05) times "
        "as fast as 1,000.",
    }
    steep = scaling.flatness([measured(1_000, 99, 100, 101), measured(60_000, 40, 50, 60)])
    assert steep["within_10_percent"] is False and "NOT flat" in steep["text"] and steep["ratio"] == 2
    noisy = scaling.flatness([measured(1_000, 80, 80, 100, 100, 99), measured(60_000, 100, 100, 100, 101, 98)])
    assert noisy["within_10_percent"] is None and "not decided" in noisy["text"]
    assert scaling.flatness([measured(1_000, 99, 100, 101), {"at": 2, "skipped": "slow"}]) is None


def test_the_points_are_those_of_the_readme_and_their_nets_take_their_images():
    expected = {"batch": 4096, "image": 64, "seeds": 64, "data": 240_000}
    for axis, last in expected.items():
        chosen = scaling.points(axis)
        assert max(point.at for point in chosen) == last
        assert all(math.isfinite(point.work) and point.examples >= point.config.batch_size for point in chosen)
    for point in scaling.points("image"):
        shape = (point.size, point.size, 1)
        jax.eval_shape(lambda key, p=point, s=shape: p.algorithm.init(p.config, key, s), jax.random.key(0))


def test_bad_flags_are_one_sentence(capsys, tmp_path):
    assert scaling.main(["--seconds", "0"]) == 1
    assert "seconds is 0.0: give more than 0." in capsys.readouterr().err
    assert scaling.main(["--limit", "nan"]) == 1
    (tmp_path / "file").touch()
    assert scaling.main(["--out", str(tmp_path / "file")]) == 1
    assert "a file: give a folder." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        scaling.main(["--axes", "colour"])
