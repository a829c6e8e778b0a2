"""Starts the contenders of a task, each in its own process, and times them in turn: A B C A B C ..."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.tasks import Task

VARIANTS = {"torch-channels-last", "torch-compile", "linen-scan"}  # another contender's code in another form
LONG, VARIANT = 180, 120  # seconds that a curve of losses may take, and that of a variant
FEWEST = 16  # steps of a curve: below, it shows nothing and is not run
SLOW = 5.0  # seconds a step from which on one step is a turn
PAUSE = 0.3  # seconds between two turns: thread pools stop spinning


@dataclasses.dataclass
class Entry:
    """One contender's figures. milliseconds: one value a turn; losses [n, 2]; trouble: why there are none.

    compile: seconds of the first two steps; start: those since the first import. peak_mib: memory ever resident.
    """

    contender: str
    milliseconds: list[float]
    compile: float = float("nan")
    start: float = float("nan")
    peak_mib: float = float("nan")
    losses: np.ndarray | None = None
    trouble: str = ""


class _Process:
    def __init__(self, task: Task, contender: str, source: str, seed: int, folder: Path, log: Any) -> None:
        command = [sys.executable, "-m", "experiments.bench.worker", task.name, contender, source, str(seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
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
    say: Any = lambda text: None,
) -> list[Entry]:
    """Times every contender `repeats` times, in turns of about `turn` seconds.

    Each takes its first steps alone (compilation), then loss_steps for the curve of its losses, then the turns.
    """
    root = Path(__file__).resolve().parents[2]
    loss_steps = task.loss_steps if loss_steps is None else loss_steps
    with log.open("a") if log else tempfile.TemporaryFile("w") as stream:
        running: list[_Process] = []
        try:
            for contender in contenders or task.contenders:
                process = _Process(task, contender, source, seed, root, stream)
                running.append(process)
                process.start()
                begun = process.entry.trouble or f"{process.entry.start:.1f} s to the second step"
                say(f"{task.name} {contender}: {begun}")
            turns = {}
            for process in running:
                seconds, _ = process.run(2)
                count = max(1 if seconds / 2 > SLOW else 2, int(turn / (seconds / 2))) if seconds == seconds else 0
                limit = VARIANT if process.entry.contender in VARIANTS else LONG
                steps = min(loss_steps, int(limit / (seconds / 2))) if count else 0
                if steps >= min(loss_steps, FEWEST) > 0:
                    _, process.entry.losses = process.run(steps)
                seconds, _ = process.run(count)  # warm, and a better estimate
                turns[process] = count
            for repeat in range(repeats):
                # Each goes first in its turn: what runs after a long matrix product finds another cache and clock.
                for process in running[repeat % len(running) :] + running[: repeat % len(running)]:
                    if not process.entry.trouble:
                        time.sleep(PAUSE)
                        seconds, _ = process.run(turns[process])
                        process.entry.milliseconds.append(1000 * seconds / turns[process])
                say(f"{task.name}: turn {repeat + 1} of {repeats}")
        finally:
            for process in running:
                process.stop()
    return [process.entry for process in running]
