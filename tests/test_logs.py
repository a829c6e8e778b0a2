"""JSON lines survive a kill and read back exactly; progress tells the true rate."""

import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still: `clock.now = seconds`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock.now)
    return clock


def test_numbers_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    values = [0.1, 1e-45, 3.4028235e38, -0.0, 1 / 3, -104.31]
    single = [np.float32(v) for v in values]
    record = {
        "step": 3,
        "float64": values,
        "float32": single,
        "jax": jnp.float32(0.1),
        "half": jnp.bfloat16(0.1),
        "array": np.arange(4, dtype=np.uint8).reshape(2, 2),
        "flag": np.bool_(True),
        "text": "é\n",
        "none": None,
        "path": Path("a/b"),
        "nested": {"n": np.int64(2**62), 1: jnp.array(7)},
    }
    with logs.JsonLines(path) as log:
        log.write(record)
    (back,) = logs.read(path)
    assert back["float64"] == values
    assert [math.copysign(1, v) for v in back["float64"]] == [math.copysign(1, v) for v in values]
    assert [np.float32(v).tobytes() for v in back["float32"]] == [v.tobytes() for v in single]
    assert np.float32(back["jax"]) == np.float32(0.1)
    assert back["half"] == float(jnp.bfloat16(0.1))
    assert back["array"] == [[0, 1], [2, 3]]
    assert back["flag"] is True
    assert back["nested"] == {"n": 2**62, "1": 7}
    assert (back["step"], back["text"], back["none"], back["path"]) == (3, "é\n", None, "a/b")


def test_nan_and_infinity_are_null_in_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with logs.JsonLines(path) as log:
        log.write({"a": math.nan, "b": np.float32("inf"), "c": jnp.array([-jnp.inf, 1.0])})

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse) == {"a": None, "b": None, "c": [None, 1.0]}


@pytest.mark.parametrize("value", [object(), 1j, np.array("text"), jnp.array(1j)])
def test_what_json_cannot_hold_is_refused_before_writing(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "m.jsonl"
    with logs.JsonLines(path) as log:
        with pytest.raises(ValueError, match=r"The value of outer.x is a"):
            log.write({"ok": 1, "outer": {"x": value}})
        log.write({"ok": 2})
    assert logs.read(path) == [{"ok": 2}]


def test_each_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    log = logs.JsonLines(tmp_path / "m.jsonl")
    for step in range(3):
        log.write({"step": step})
        assert logs.read(tmp_path / "m.jsonl")[-1] == {"step": step}
    log.close()


def test_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    whole = b'{"step": 1}\n{"step": 2}\n'
    for torn in (b"", b"{", b'{"step": 3', b'{"step": 3}', b'{"name": "\xc3'):
        path.write_bytes(whole + torn)
        assert logs.read(path) == [{"step": 1}, {"step": 2}]
        logs.truncate(path, 5)
        assert path.read_bytes() == whole
        path.write_bytes(whole + torn)
        with logs.JsonLines(path) as log:
            log.write({"step": 4})
        assert logs.read(path) == [{"step": 1}, {"step": 2}, {"step": 4}]
    path.write_bytes(b'{"step')
    with logs.JsonLines(path):
        assert path.read_bytes() == b""
    assert logs.read(path) == []


@pytest.mark.parametrize("line", [b"{", b"[1]", b"", b"\xff"])
def test_damage_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"m.jsonl, line 2, is not a JSON object"):
        logs.read(path)


def test_truncate_drops_later_steps_only(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = ['{"step": 1, "a": 0.10}', '{"note":  "kept as it is"}', '{"step": 3}', '{"step": 2}', '{"step": 4}']
    path.write_text("\n".join(lines) + "\n")
    logs.truncate(path, 2)
    assert path.read_text().splitlines() == [lines[0], lines[1], lines[3]]
    logs.truncate(path, 0)
    assert path.read_text().splitlines() == [lines[1]]
    assert os.listdir(tmp_path) == ["m.jsonl"]
    logs.truncate(tmp_path / "none.jsonl", 3)
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_truncate_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        logs.truncate(path, 1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_plain_lines(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    with logs.progress(20_000, stream=stream) as bar:
        clock.now += 60  # compilation
        bar.update(0, {"elbo": -200.0})
        for second in range(1, 26):
            clock.now += 1
            bar.update(800 * second, {"elbo": -104.31234, "kl": 25.1})
    assert stream.getvalue().splitlines() == [
        "step 0/20,000  elbo -200",
        "step 8,000/20,000  elbo -104.31  kl 25.1  800 steps/s  15 s left",
        "step 16,000/20,000  elbo -104.31  kl 25.1  800 steps/s  5 s left",
        "step 20,000/20,000  elbo -104.31  kl 25.1  800 steps/s",
    ]


def test_the_rate_follows_the_last_half_minute_and_a_resumed_run(clock: SimpleNamespace) -> None:
    with logs.progress(10_000, initial=5000, description="vae", stream=io.StringIO()) as bar:
        clock.now += 100
        bar.update(5010)
        assert bar.rate is None
        clock.now += 10
        bar.update(5020)
        assert bar.rate == pytest.approx(1.0)  # neither the 5,000 steps nor the compilation count
        for _ in range(40):
            clock.now += 1
            bar.update(5020 + 100)
        assert bar.rate is None or bar.rate < 1
        for step in range(6000, 10_000, 100):
            clock.now += 1
            bar.update(step)
        assert bar.rate == pytest.approx(100.0)
        assert bar.line(9900, {}) == "vae  step 9,900/10,000  100 steps/s  1 s left"


def test_a_slow_run_and_one_that_is_interrupted(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), logs.progress(100, stream=stream) as bar:  # noqa: PT012
        bar.update(1)
        clock.now += 40
        bar.update(2)
        clock.now += 1
        bar.update(3, {"loss": float("nan")})
        raise KeyboardInterrupt
    assert stream.getvalue().splitlines() == [
        "step 1/100",
        "step 2/100  40 s/step  1 h 05 min left",
        "step 3/100  loss nan  20.5 s/step  33 min 08 s left",
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize(("total", "initial"), [(0, 0), (5, 5), (5, 7)])
@pytest.mark.parametrize("updates", [0, 1, 3])
def test_nothing_left_to_do(stream: type[io.StringIO], total: int, initial: int, updates: int) -> None:
    out = stream()
    with logs.progress(total, initial=initial, stream=out) as bar:
        for _ in range(updates):
            bar.update(initial, {"a": 1})
    if stream is io.StringIO and not updates:
        assert out.getvalue() == ""
    else:
        assert f"step {initial}/{total}" in out.getvalue()


@pytest.mark.parametrize(("width", "metrics"), [(100, "  elbo -104.25  kl 25.5"), (80, "  elbo -104.25"), (60, "")])
def test_the_terminal_shows_a_bar_and_what_fits(
    width: int, metrics: str, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with logs.progress(2000, description="[vae]", stream=stream) as bar:
        bar.update(0, {"elbo": -200})
        clock.now += 2
        bar.update(1000, {"elbo": -104.25, "kl": jnp.float32(25.5)})
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    last = re.split(r"[\r\n]+", text.strip())[-1]
    assert "compiling" in text
    assert re.fullmatch(r"\[vae\] ━{7}[━╸╺]+ step 1,000/2,000  500 steps/s  2 s left" + metrics + " *", last)


def _walk(clock: SimpleNamespace, total: int, seconds: float, description: str = "walk") -> Iterator[int]:
    """Steps of so many seconds each."""
    for step in logs.steps(total, description):
        yield step
        clock.now += seconds


def test_steps_are_silent_until_patience_is_over(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(_walk(clock, 5, 0.99)) == list(range(5))
    assert list(_walk(clock, 5, 1.0)) == list(range(5))  # 5 s: not more
    assert list(_walk(clock, 1, 1000)) == [0]
    assert list(_walk(clock, 0, 1000)) == []
    assert capsys.readouterr().err == ""
    assert list(_walk(clock, 2, 6)) == [0, 1]
    assert capsys.readouterr().err.splitlines() == [
        "walk  step 1/2  6 s/step  6 s left",
        "walk  step 2/2  6 s/step",
    ]


def test_the_first_line_of_steps_has_a_rate_without_the_first_steps_compilation(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in _walk(clock, 100, 1):
        clock.now += 3 * (step == 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "walk  step 3/100  1 steps/s  1 min 37 s left"  # 6 s, of which compilation took 3
    assert lines[1] == "walk  step 13/100  1 steps/s  1 min 27 s left"
    assert lines[-1] == "walk  step 100/100  1 steps/s" and len(lines) == 11


def test_quiet_is_quiet(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with logs.quiet():
        assert len(list(_walk(clock, 3, 10))) == 3
        with logs.quiet(False):  # does not undo the outer one
            assert len(list(_walk(clock, 3, 10))) == 3
    with pytest.raises(KeyError), logs.quiet():
        raise KeyError
    assert capsys.readouterr().err == ""
    with logs.quiet(False):
        list(_walk(clock, 2, 10))
    assert "step 1/2" in capsys.readouterr().err


def test_one_progress_at_a_time(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """An inner loop shows its own while the outer one has not, and never after it."""
    for _ in _walk(clock, 3, 0, "outer"):
        list(_walk(clock, 2, 10, "inner"))
    with logs.progress(2, description="run") as bar:
        list(_walk(clock, 3, 10, "inner"))
        bar.update(2)
    names = [line.split(" step ")[0].strip() for line in capsys.readouterr().err.splitlines()]
    assert names == ["inner", "inner", "outer", "outer", "outer", "run"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_loop_that_is_left_ends_its_progress(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """By an error or a break: the next loop shows its own, which rich refuses while another is live."""
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(KeyError):  # noqa: PT012
        for step in _walk(clock, 9, 10, "first"):
            if step == 3:
                raise KeyError
    for step in _walk(clock, 9, 10, "second"):
        if step == 3:
            break
    list(_walk(clock, 9, 10, "third"))
    for name, last in (("first", 3), ("second", 3), ("third", 9)):
        assert name in stream.getvalue() and re.search(rf"{name}.*step {last}/9", stream.getvalue())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3600, "1 h 00 min"),
        (9e4, "1 d 1 h"),
        (math.inf, "unknown time"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert logs.duration(seconds) == text


@pytest.mark.parametrize(("writer", "module"), [(logs.tensorboard, "tensorboardX"), (logs.wandb, "wandb")])
def test_missing_extras_say_what_to_install(
    writer: Any, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}: pip install 'vaegan_jax\[logging\]'"):
        writer(tmp_path)


def test_extras_get_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    board = SimpleNamespace(add_scalar=lambda *a: written.append(a), flush=lambda: written.append("flush"))
    run = SimpleNamespace(log=lambda metrics, step: written.append((metrics, step)))

    def summary_writer(path: str) -> Any:
        written.append(path)
        return board

    def init(**settings: Any) -> Any:
        written.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=summary_writer))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    write = logs.tensorboard(tmp_path)
    assert written == []  # opened by the first line: the workdir may be refused before
    write(3, {"elbo": jnp.array(-1.5)})
    assert written == [str(tmp_path / "tensorboard"), ("elbo", -1.5, 3), "flush"]
    write(4, {"kl": 1.0})
    assert written[3:] == [("kl", 1.0, 4), "flush"]  # opened once
    written.clear()
    write = logs.wandb(tmp_path, mode="offline")
    assert written == []
    write(4, {"elbo": np.float32(-1.5)})
    write(5, {})
    assert written == [{"dir": str(tmp_path), "mode": "offline"}, ({"elbo": -1.5}, 4), ({}, 5)]


def test_in_a_pipe() -> None:
    script = "from vaegan_jax import logs\nwith logs.progress(3) as b:\n for i in 1, 2, 3: b.update(i, {'a': i})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0] == "step 1/3  a 1"
    assert lines[-1].startswith("step 3/3  a 3")
    assert len(lines) == 2
    assert "\x1b" not in done.stderr
