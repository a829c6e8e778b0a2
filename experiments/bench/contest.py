"""Starts the contenders of a task, each in its own process, and times each beside ours: A B A C A B A C ..."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import machine
from experiments.bench.curves import FEWEST
from experiments.bench.tasks import Task

VARIANTS = {"torch-channels-last", "torch-compile", "linen-scan"}  # another contender's code in another form
LONG, VARIANT = 300, 120  # seconds that a curve of losses may take, and that of a variant
SLOW = 5.0  # seconds a step from which on one step is a turn
PAUSE = 0.3  # seconds between two turns: thread pools stop spinning


@dataclasses.dataclass
class Entry:
    """One contender's figures. milliseconds: one value a turn; beside: ours next to each of them; losses [n, 2];
    trouble: why there are none; peaks: of ours, the machine's GFLOP/s in a matrix product, before each turn.

    compile: seconds of the first two steps; start: those since the first import. peak_mib: memory ever resident.
    """

    contender: str
    milliseconds: list[float]
    beside: list[float] = dataclasses.field(default_factory=list)
    compile: float = float("nan")
    start: float = float("nan")
    peak_mib: float = float("nan")
    losses: np.ndarray | None = None
    trouble: str = ""
    peaks: list[float] = dataclasses.field(default_factory=list)


class _Process:
    def __init__(
        self, task: Task, contender: str, source: str, seed: int, folder: Path, log: Any, caches: Path
    ) -> None:
        command = [sys.executable, "-m", "experiments.bench.worker", task.name, contender, source, str(seed)]
        # Nobody's programs are compiled in advance.
        env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        env["TORCHINDUCTOR_CACHE_DIR"] = str(caches / contender)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=env
        )
        self.entry = Entry(contender, [])

    def start(self) -> None:
        answer = self._answer()
        self.entry.compile, self.entry.start = (answer.get(k, float("nan")) for k in ("compile", "start"))

    def run(self, steps: int) -> tuple[float, np.ndarray]:
        """(seconds, losses); (nan, empty) once there was trouble."""
        if not self.entry.trouble and self._process.stdin:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
            answer = self._answer()
            if "seconds" in answer:
                return answer["seconds"], np.array(answer["losses"])
        return float("nan"), np.zeros((0, 2))

    def stop(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self.entry.peak_mib = self._answer().get("peak_mib", float("nan"))
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "the process died; see its log"}
        self.entry.trouble = answer.get("missing") or answer.get("failed") or self.entry.trouble
        return answer


def run(
    task: Task,
    *,
    source: str = "mnist",
    repeats: int = 7,
    turn: float = 1.5,
    loss_steps: int | None = None,
    contenders: Sequence[str] | None = None,
    seed: int = 0,
    log: Path | None = None,
    peak: Callable[[], float] | None = None,
    say: Any = lambda text: None,
) -> list[Entry]:
    """Times every contender `repeats` times, in turns of about `turn` seconds.

    Each takes its first steps alone (compilation), then loss_steps for the curve of its losses, then the turns. A
    peer's turn and ours follow each other, in either order by turns, so that what else the machine does falls on both.
    """
    loss_steps = task.loss_steps if loss_steps is None else loss_steps
    with (
        log.open("a") if log else tempfile.TemporaryFile("w") as stream,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as caches,
    ):
        running: list[_Process] = []
        try:
            for contender in contenders or task.contenders:
                process = _Process(task, contender, source, seed, machine.ROOT, stream, Path(caches))
                running.append(process)
                process.start()
                begun = process.entry.trouble or f"{process.entry.start:.1f} s to the second step"
                say(f"{task.name} {contender}: {begun}")
            turns = {}
            for process in running:
                seconds, _ = process.run(2)
                if seconds / 2 < SLOW:
                    seconds, _ = process.run(2)  # the first ones still warm up
                count = max(1 if seconds / 2 > SLOW else 2, int(turn / (seconds / 2))) if seconds == seconds else 0
                limit = VARIANT if process.entry.contender in VARIANTS else LONG
                steps = min(loss_steps, int(limit / (seconds / 2))) if count else 0
                if steps >= min(loss_steps, FEWEST) > 0:
                    _, process.entry.losses = process.run(steps)
                process.run(count)  # warm
                turns[process] = count
            for repeat in range(repeats):
                peaks = [peak()] if peak else []
                _turn(running, turns, repeat)
                for process in running:
                    process.entry.peaks += peaks if process.entry.contender == "ours" else []
                say(f"{task.name}: turn {repeat + 1} of {repeats}")
        finally:
            for process in running:
                process.stop()
    return [process.entry for process in running]


def curves(task: Task, steps: int, *, source: str, seeds: Sequence[int], log: Path) -> list[np.ndarray]:
    """Losses [steps, 2] of ours with other seeds."""
    found = []
    with log.open("a") as stream:
        for seed in seeds:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as caches:
                process = _Process(task, "ours", source, seed, machine.ROOT, stream, Path(caches))
                process.start()
                process.run(2)
                process.run(2)  # as in `run`: the curves then begin at the same step
                found.append(process.run(steps)[1])
                process.stop()
    return [losses for losses in found if len(losses)]


def _turn(running: Sequence[_Process], steps: dict[_Process, int], repeat: int) -> None:
    """One turn of every contender that is not in trouble, each peer's next to one of ours; which begins changes."""

    def timed(process: _Process) -> float:
        time.sleep(PAUSE)
        return 1000 * process.run(steps[process])[0] / steps[process]

    fine = [process for process in running if not process.entry.trouble]
    ours = next((process for process in fine if process.entry.contender == "ours"), None)
    peers = [process for process in fine if process is not ours]
    own: list[float] = []
    for peer in peers[repeat % max(1, len(peers)) :] + peers[: repeat % max(1, len(peers))]:
        pair = [peer] if ours is None else [ours, peer] if repeat % 2 else [peer, ours]
        found = {process: timed(process) for process in pair}
        if peer.entry.trouble:
            continue
        peer.entry.milliseconds.append(found[peer])
        if ours is not None and not ours.entry.trouble:
            peer.entry.beside.append(found[ours])
            own.append(found[ours])
    if ours is not None and not ours.entry.trouble:
        ours.entry.milliseconds.append(statistics.median(own) if own else timed(ours))
