"""`make bench-scaling`: python -m experiments.bench.scaling [--axes batch image] [--seconds 1.5] [--out DIR]

Steps per second against batch size, image size, seeds, data set size and devices; what devices say to each other in a
step. Writes results/scaling/<device>.json and a plot an axis, prints the table; axes that are not asked for stay as
they were measured. Random images: steps cost the same.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pages
from experiments.bench import machine, scaling_page, table, tasks
from experiments.bench.collectives import collectives
from experiments.bench.scaling_page import AXES, FOLDER, Row, title
from vaegan_jax import loop as loops
from vaegan_jax.data.dataset import Dataset

TURNS = {axis: 25 if axis == "data" else 5 for axis in AXES}  # sizes of data sets are compared with each other
FLAT = 1.1  # the highest over the lowest that still counts as flat


@dataclasses.dataclass(frozen=True)
class Point:
    """One program to be timed, at the place `at` of its axis. work: the cost of a step in any unit, for estimates."""

    curve: str
    at: int
    algorithm: Any
    config: Any
    work: int
    size: int = 28
    examples: int = 60_000
    seeds: int = 1


def points(axis: str) -> list[Point]:
    """Each curve's points in ascending order of cost."""
    if axis == "batch":
        return [_point(name, n, n, batch=n) for name in ("vae", "gan", "dcgan") for n in (16, 64, 256, 1024, 4096)]
    if axis == "image":
        return [_point(name, n, n * n, batch=64, size=n) for name in ("vae", "dcgan") for n in (8, 28, 32, 64)]
    if axis == "seeds":
        return [_point(name, n, n, seeds=n) for name in ("vae", "gan", "dcgan") for n in (1, 2, 4, 8, 16, 32, 64)]
    return [_point("vae", n, 1, examples=n) for n in (1_000, 10_000, 60_000, 240_000)]


def _point(
    name: str, at: int, work: int, batch: int = 0, size: int = 28, examples: int = 60_000, seeds: int = 1
) -> Point:
    algorithm, config = tasks.ours(name)
    config = dataclasses.replace(config, batch_size=batch or config.batch_size)
    return Point(title(name), at, algorithm, config, work, size, examples, seeds)


class Runner:
    """A compiled and warm program, in chunks as long as fit's.

    first: seconds until its first two steps were done; step: seconds of one; chunk: steps of a chunk; mib: arguments
    and temporaries of the program.
    """

    def __init__(self, point: Point, seconds: float) -> None:
        begin = time.perf_counter()
        shape = (point.size, point.size, 1)
        x = np.random.default_rng(0).integers(0, 256, (point.examples, *shape), np.uint8)
        state = point.algorithm.init(point.config, jax.random.key(0), shape)
        states = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], point.seeds, axis=0), state)
        loop = loops.Loop(point.algorithm, point.config, Dataset(x), states, tuple(range(point.seeds)))
        self._loop: Any = loop
        self.compiled: Any = loop.compile()
        memory: Any = self.compiled.memory_analysis()
        self.mib = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20
        self._done, self._turn, self.chunk = 0, seconds, 2
        self._run(2)
        self.first = time.perf_counter() - begin
        # As fit finds its chunk: the longer it is, the smaller the part that is not steps.
        aim = min(loops.CHUNK_SECONDS, seconds)
        while (took := self._run(self.chunk)) < 0.8 * aim and self.chunk < loop.capacity:
            self.chunk = min(loop.capacity, 8 * self.chunk, max(self.chunk + 1, int(self.chunk * aim / took)))
        self.step = took / self.chunk
        self.chunk = max(1, min(self.chunk, int(aim / self.step)))

    def row(self) -> Row:
        return {"first": round(self.first, 2), "chunk": self.chunk, "mib": round(self.mib, 1), "turns": []}

    def _run(self, *chunks: int) -> float:
        begin = time.perf_counter()
        for count in chunks:
            self._loop.advance(self._done, count)
            self._done += count
        jax.block_until_ready(self._loop.states)
        return time.perf_counter() - begin

    def turn(self) -> float:
        """Steps per second over about as many seconds as were asked for."""
        chunks = [self.chunk] * max(1, round(self._turn / (self.step * self.chunk)))
        return sum(chunks) / self._run(*chunks)


def sweep(axis: str, chosen: Sequence[Point], seconds: float, limit: float) -> list[Row]:
    """A row a point: its turns, or why it was left out."""
    rows: list[Row] = []
    held: list[tuple[Row, Runner]] = []
    before: dict[str, tuple[Point, Runner]] = {}
    for point in chosen:
        print(f"{axis}: {point.curve} at {point.at:,}", file=sys.stderr, flush=True)
        reason = _too_much(point, before, TURNS[axis], seconds, limit)
        row: Row = {"curve": point.curve, "at": point.at, "skipped": reason}
        rows.append(row)
        if not reason:
            try:
                runner = Runner(point, seconds)
            except jax.errors.JaxRuntimeError as error:  # an accelerator's memory, mostly
                row["skipped"] = str(error).splitlines()[0]
                continue
            row |= runner.row()
            before[point.curve] = point, runner
            held.append((row, runner))
            # Data sets take turns with each other: what else the machine does falls on all.
            if axis != "data":
                _turns(held, TURNS[axis])
                held.clear()
                runner.compiled = runner._loop = None  # its memory is the next one's
    _turns(held, TURNS[axis])
    return rows


def _turns(held: list[tuple[Row, Runner]], turns: int) -> None:
    for turn in range(turns):
        for row, runner in held if turn % 2 else held[::-1]:
            row["turns"].append(round(runner.turn(), 4))
    for row, _ in held:
        row["steps_per_second"] = statistics.median(row["turns"])


def _too_much(point: Point, before: dict[str, tuple[Point, Runner]], turns: int, seconds: float, limit: float) -> str:
    """Why a point is not run, judged by the last one that its curve has; "" if it is."""
    if point.curve not in before:
        return ""
    last, runner = before[point.curve]
    growth = max(1.0, point.work / last.work)
    needed = runner.first + 4 * growth * runner.step + turns * max(seconds, growth * runner.step)
    if needed > limit:
        return f"would take about {needed:,.0f} s; the limit is {limit:g} s"
    if growth * runner.mib > 0.8 * _free_mib():
        return f"would need about {growth * runner.mib:,.0f} MiB; {_free_mib():,.0f} MiB are free"
    return ""


def _free_mib() -> float:
    """Of the accelerator, or of the machine; inf where neither says."""
    if stats := jax.devices()[0].memory_stats():
        return (stats["bytes_limit"] - stats["bytes_in_use"]) / 2**20
    memory = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s*(\d+) kB", memory.read_text()) if memory.exists() else None
    return int(found[1]) / 2**10 if found else math.inf


def device_rows(names: Sequence[str], counts: Sequence[int], seconds: float, limit: float) -> list[Row]:
    """A row a task and number of devices, each in a process of its own: XLA reads the number when it starts."""
    rows = []
    for name, count in itertools.product(names, counts):
        row: Row = {"curve": title(name), "at": count, "skipped": ""}
        rows.append(row)
        print(f"devices: {row['curve']} on {count}", file=sys.stderr, flush=True)
        if jax.default_backend() != "cpu":
            row["skipped"] = "only a CPU can be forced to be several devices"
            continue
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "experiments.bench.scaling", "--one", name, "--seconds", str(seconds)]
        options: Row = {"cwd": machine.ROOT, "capture_output": True, "text": True}
        try:
            done = subprocess.run(command, env=environment, timeout=limit, **options)
        except subprocess.TimeoutExpired:
            row["skipped"] = f"stopped at the limit of {limit:g} s"
            continue
        failed = f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
        row |= {"skipped": failed} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    return rows


def _one(name: str, seconds: float) -> Row:
    """The row of one task on the devices of this process."""
    row = (runner := Runner(_point(name, len(jax.devices()), 1), seconds)).row()
    _turns([(row, runner)], TURNS["devices"])
    gflop, spoken = machine.flops(runner.compiled) / 1e9, collectives(runner.compiled.as_text())
    return row | {"gflop_a_device": gflop, "collectives": spoken}


def flatness(rows: Sequence[Row]) -> Row | None:
    """The fastest size over the slowest, turns that followed each other; None with fewer than two sizes.

    Flat where the middle half of the turns is within FLAT, not flat where it is beyond, else not decided: single turns
    may be disturbed.
    """
    turns = {row["at"]: row["turns"] for row in rows if not row["skipped"]}
    if len(turns) < 2:
        return None
    slow, *_, fast = sorted(turns, key=lambda n: statistics.median(turns[n]))
    low, ratio, high = statistics.quantiles(table.ratios(turns[slow], turns[fast]), n=4, method="inclusive")
    flat = True if high <= FLAT else False if low > FLAT else None
    verdict = {True: "flat within 10 %", False: "NOT flat within 10 %", None: "not decided by these turns"}[flat]
    text = (
        f"Data set size: {verdict}: {fast:,} examples are {ratio:.2f} (middle half of {len(turns[slow])} turns: "
        f"{low:.2f}-{high:.2f}) times as fast as {slow:,}."
    )
    return {"ratio": round(ratio, 4), "within_10_percent": flat, "text": text}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.scaling", description=__doc__.splitlines()[2])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of a turn")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds a point may take; longer ones are left out")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON file and the plots")
    parser.add_argument("--check", action="store_true", help="only say whether REPORT.md's part is that of results")
    parser.add_argument("--one", choices=tasks.TASKS, help=argparse.SUPPRESS)  # a row of `devices`, in its process
    flags = parser.parse_args(argv)
    if flags.check:
        return pages.put("experiments.bench.scaling", scaling_page.page(), check=True, path=pages.BENCH)
    for name in ("seconds", "limit"):
        if not 0 < getattr(flags, name) < math.inf:
            print(f"experiments.bench.scaling: {name} is {getattr(flags, name)}: give more than 0.", file=sys.stderr)
            return 1
    if flags.out.exists() and not flags.out.is_dir():
        print(f"experiments.bench.scaling: out is {flags.out}, a file: give a folder.", file=sys.stderr)
        return 1
    if flags.one:
        print(json.dumps(_one(flags.one, flags.seconds)))
        return 0

    device = machine.device_name()
    peaks, loads = [machine.gemm_gflops()], [machine.load()]
    result: Row = {
        "device": device,
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.commit(),
        "versions": machine.versions("jax", "flax", "optax"),
        "threads": machine.cores(),
    }
    flags.out.mkdir(parents=True, exist_ok=True)
    stem = machine.slug(device)
    file = flags.out / f"{stem}.json"
    before = json.loads(file.read_text()) if file.exists() else {"axes": {}, "runs": {}, "flat": None}
    kept = [axis for axis in before["axes"] if axis not in flags.axes]
    result |= {
        "seconds": flags.seconds,
        "axes": {axis: before["axes"][axis] for axis in kept},
        "flat": before["flat"] if "data" in kept else None,
        "runs": {axis: before["runs"][axis] for axis in kept},
    }
    for axis in flags.axes:
        if axis == "devices":
            rows = device_rows(tuple(tasks.TASKS), (1, 2, 4), flags.seconds, flags.limit)
        else:
            rows = sweep(axis, points(axis), flags.seconds, flags.limit)
        result["axes"][axis] = rows
        flat = result["flat"] = flatness(rows) if axis == "data" else result["flat"]
        peaks.append(machine.gemm_gflops())
        unrest = machine.unrest(peaks, loads)
        result |= {"gemm_gflops": max(peaks), "quiet": not unrest, "unrest": unrest}
        done = flags.axes[: flags.axes.index(axis) + 1]
        result["runs"] |= {name: table.heading(result | {"repeats": TURNS[name]}) for name in done}
        # After every axis, so that what was measured stays if the run is broken off.
        file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        scaling_page.draw(axis, rows, device, flags.out / f"{stem}-{axis}.png")
        print(f"{AXES[axis].title}\n{table.text(scaling_page.lines(axis, rows))}", flush=True)
        print(flat["text"] + "\n" if flat and axis == "data" else "")
    print(*dict.fromkeys(result["runs"].values()), f"written: {file} and a plot an axis", sep="\n")
    if flags.out == FOLDER:
        pages.put("experiments.bench.scaling", scaling_page.page(), check=False, path=pages.BENCH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
