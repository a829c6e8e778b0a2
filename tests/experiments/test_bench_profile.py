"""The profile of a step: nested times, what an operation is of, one task from end to end, REPORT.md's part."""

import json
import re

import pytest

from experiments.bench import machine, profile

TEXT = """\
HloModule jit_one

FileNames
1 "/a/optax/_src/transform.py"
2 "/b/vaegan_jax/state.py"
3 "/b/vaegan_jax/convolution.py"

FunctionNames
1 "scale_by_adam.<locals>.update_fn"
2 "train_step"
3 "gradient_norm"
4 "_patches"
5 "BatchNorm.__call__"

FileLocations
1 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
3 {file_name_id=2 function_name_id=3 line=1 end_line=1 column=1 end_column=2}
4 {file_name_id=3 function_name_id=4 line=1 end_line=1 column=1 end_column=2}
5 {file_name_id=2 function_name_id=5 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}
4 {file_location_id=4 parent_frame_id=2}
5 {file_location_id=5 parent_frame_id=2}

%fused.1 (a: f32[4,4], b: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  ROOT %dot.9 = f32[4,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused.2 (a: f32[4,4]) -> f32[4,4] {
  ROOT %m = f32[4,4]{1,0} multiply(%a, %a), metadata={op_name="jit(one)/mul" stack_frame_id=2}
}

ENTRY %main (x: f32[4,4]) -> f32[4,4] {
  %ynn = f32[4,4]{1,0} fusion(%x, %x), kind=kCustom, calls=%fused.1, metadata={op_name="jit(one)/adam" stack_frame_id=2}
  %adam = f32[4,4]{1,0} fusion(%x), kind=kLoop, calls=%fused.2, metadata={op_name="jit(one)/mul" stack_frame_id=2}
  %norm = f32[] reduce(%x), metadata={op_name="jit(one)/mul" stack_frame_id=3}
  %gather = f32[4,4]{1,0} concatenate(%x), metadata={op_name="jit(one)/concatenate" stack_frame_id=4}
  %scaled = f32[4,4]{1,0} multiply(%x), metadata={op_name="jit(one)/mul" stack_frame_id=5}
  %rounds = (u32[4]{0}, u32[4]{0}) fusion(%k), kind=kLoop, calls=%fused.2, metadata={op_name="a/closed_call/add"}
  %noise = f32[4,4]{1,0} multiply(%k), metadata={op_name="jit(one)/jit(_normal)/mul" stack_frame_id=1}
  %copied = f32[4,4]{1,0} copy(%x), metadata={op_name="transpose(jvp(ConvNet))/conv1/cond/branch_0_fun/transpose"}
  ROOT %tanh.1 = f32[4,4]{1,0} tanh(%x), metadata={op_name="jit(one)/tanh" stack_frame_id=1}
}
"""


def test_an_operation_is_put_to_where_it_comes_from():
    found = profile.operations(TEXT)
    assert found["adam"].origins[0] == "scale_by_adam.<locals>.update_fn" and "train_step" in found["adam"].origins
    names = ("ynn", "adam", "norm", "gather", "copied", "scaled", "rounds", "noise", "tanh.1")
    assert [found[name].kind for name in names] == [
        "products", "update", "rest", "patches", "patches", "normalisation", "random bits", "random bits", "rest",
    ]  # fmt: skip


def test_time_within_is_not_counted_twice():
    events = [(0, 100, "loop"), (10, 20, "dot"), (40, 30, "dot"), (45, 5, "part"), (100, 7, "dot")]
    assert profile.own_times(events) == {"loop": 50, "dot": 20 + 25 + 7, "part": 5}
    assert profile.own_times([]) == {}


@pytest.mark.optimised
def test_a_task_is_profiled_in_a_process_on_one_core(tmp_path, capsys):
    assert profile.main(["--tasks", "vae", "--seconds", "0.1", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    (row,) = json.loads(file.read_text())["rows"]
    assert row["task"] == "vae" and row["gflop"] == pytest.approx(0.41, rel=1e-3)
    kinds = {kind: min(each) for kind, each in row["kinds"].items()}
    assert all(kinds[kind] > 0 for kind in profile.KINDS if kind not in ("patches", "normalisation"))
    assert 0.3 < sum(kinds.values()) / min(row["milliseconds"]) < 3  # as the machine is free
    assert kinds["products"] > kinds["random bits"]
    assert row["all_cores"]["cores"] == machine.cores() and min(row["all_cores"]["milliseconds"]) > 0
    assert re.search(
        r"of the peak  [\d.]+ times as fast, the peak [\d.]+", capsys.readouterr().out
    ) and "VAE" in profile.page(tmp_path)


def test_the_reports_part_and_bad_flags(tmp_path, capsys):
    assert profile.main(["--check"]) == 0
    assert profile.main(["--seconds", "0"]) == 1
    assert "seconds is 0.0: give more than 0." in capsys.readouterr().err
    assert profile.page(tmp_path) == "Not measured yet."
