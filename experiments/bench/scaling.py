"""`make bench-scaling`: python -m experiments.bench.scaling [--axes batch image] [--seconds 1.5] [--limit 90] [--out DIR]

How steps per second change with batch size, image size, seeds, data set size and devices; what the devices say to each
other in a step. Writes scaling-<device>.json and scaling-<device>-<axis>.png, prints the table. Random images: steps
cost the same, and there is nothing to fetch. A whole run takes about half an hour on two cores.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import machine, table, tasks
from experiments.bench.__main__ import _unrest, _version
from vaegan_jax import loop as loops
from vaegan_jax import plots
from vaegan_jax.data.dataset import Dataset

TURNS = 5
EXAMPLES = 60_000
FLAT = 1.1  # the highest over the lowest that still counts as flat
MEMORY_SHARE = 0.8  # of what is free: a point that would need more is not run
Row = dict[str, Any]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Axis:
    """What is varied. panels: (label, whether steps per second are multiplied by the axis's value)."""

    title: str
    label: str
    panels: tuple[tuple[str, bool], ...] = (("steps per second", False),)


AXES = {
    "batch": Axis("Batch size", "examples a batch", (("steps per second", False), ("examples per second", True))),
    "image": Axis("Image size, batch of 64", "pixels a side"),
    "seeds": Axis("Seeds side by side", "seeds", (("steps per second, all seeds together", True),)),
    "data": Axis("Data set size", "examples in the data set"),
    "devices": Axis("Devices that share a batch", "forced host devices"),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One program to be timed, at the place `at` of its axis. work: the cost of a step in any unit, for estimates."""

    curve: str
    at: int
    algorithm: Any
    config: Any
    work: float
    size: int = 28
    examples: int = EXAMPLES
    seeds: int = 1


def points(axis: str) -> list[Point]:
    """Each curve's points in ascending order of cost."""
    if axis == "batch":
        sizes = (16, 64, 256, 1024, 4096)
        return [_point(name, b, float(b), batch=b) for name in ("vae", "gan", "dcgan") for b in sizes]
    if axis == "image":
        sizes = (8, 28, 32, 64)
        return [_point(name, s, float(s * s), batch=64, size=s) for name in ("vae", "dcgan") for s in sizes]
    if axis == "seeds":
        counts = (1, 2, 4, 8, 16, 32, 64)
        return [_point(name, s, float(s), seeds=s) for name in ("vae", "gan", "dcgan") for s in counts]
    return [_point("vae", n, 1.0, examples=n) for n in (1_000, 10_000, 60_000, 240_000)]


def _point(name: str, at: int, work: float, *, batch: int | None = None, **rest: int) -> Point:
    algorithm, config = tasks.ours(name)
    config = dataclasses.replace(config, batch_size=batch or config.batch_size)
    return Point(tasks.TASKS[name].title.removesuffix(" 28x28"), at, algorithm, config, work, **rest)


@functools.lru_cache(maxsize=1)
def _images(n: int, size: int) -> Dataset:
    return Dataset(np.random.default_rng(0).integers(0, 256, (n, size, size, 1), np.uint8))


class Runner:
    """A compiled and warm program, in chunks as long as fit's.

    first: seconds until its first two steps were done; step: seconds of one; chunk: steps of a chunk; mib: arguments
    and temporaries of the program.
    """

    def __init__(self, point: Point, seconds: float) -> None:
        begin = time.perf_counter()
        data = _images(point.examples, point.size)
        state = point.algorithm.init(point.config, jax.random.key(0), data.x.shape[1:])
        states = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], point.seeds, axis=0), state)
        self._loop: Any = loops.Loop(point.algorithm, point.config, data, states, tuple(range(point.seeds)))
        # Compiled by hand, once: its text and its memory are asked for.
        lowered = self._loop._program.lower(self._loop._data, states, self._loop._keys, jnp.int32(0), jnp.int32(0))
        self.compiled = self._loop._program = lowered.compile()
        del states  # donated by the first step
        memory = self.compiled.memory_analysis()
        self.mib = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20
        self._done, self._turn = 0, seconds
        self._run(2)
        self.first = time.perf_counter() - begin
        self._aim(self._run(2) / 2)
        self._aim(self._run(self.chunk) / self.chunk)  # a longer one says it better

    def _aim(self, step: float) -> None:
        self.step = step
        self.chunk = _chunk(step, self._turn)

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


def _chunk(step: float, turn: float) -> int:
    """How many steps of so many seconds fit puts into a chunk; no more than fill a turn."""
    return min(loops.CAPACITY, max(1, int(min(loops.CHUNK_SECONDS, turn) / step)))


def sweep(axis: Sequence[Point], seconds: float, limit: float, say: Say, *, together: bool = False) -> list[Row]:
    """A row a point: its turns, or why it was left out. together: the points take turns with each other, so that what
    else the machine does falls on all of them."""
    rows: list[Row] = []
    held: list[tuple[Row, Runner]] = []
    before: dict[str, tuple[Point, Runner]] = {}
    for point in axis:
        row: Row = {"curve": point.curve, "at": point.at, "skipped": _too_much(point, before, seconds, limit)}
        rows.append(row)
        if not row["skipped"]:
            runner = Runner(point, seconds)
            row |= {"first": round(runner.first, 2), "chunk": runner.chunk, "mib": round(runner.mib, 1), "turns": []}
            before[point.curve] = point, runner
            held.append((row, runner))
            if not together:
                _turns(held)
                held.clear()
                runner.compiled = runner._loop = None  # its memory is the next one's
        say(_line(row))
    if together:
        _turns(held)
    return rows


def _turns(held: list[tuple[Row, Runner]]) -> None:
    for _ in range(TURNS):
        for row, runner in held:
            row["turns"].append(round(runner.turn(), 4))
    for row, _ in held:
        row["steps_per_second"] = statistics.median(row["turns"])


def _too_much(point: Point, before: dict[str, tuple[Point, Runner]], seconds: float, limit: float) -> str:
    """Why a point is not run, judged by the last one that its curve has; "" if it is."""
    if point.curve not in before:
        return ""
    last, runner = before[point.curve]
    growth = max(1.0, point.work / last.work)
    step = growth * runner.step
    count = _chunk(step, seconds)
    needed = runner.first + step * (4 + count) + TURNS * max(seconds, step * count)
    if needed > limit:
        return f"would take about {needed:,.0f} s; the limit is {limit:g} s"
    if growth * runner.mib > MEMORY_SHARE * _free_mib():
        return f"would need about {growth * runner.mib:,.0f} MiB; {_free_mib():,.0f} MiB are free"
    return ""


def _free_mib() -> float:
    """Of the accelerator, or of the machine; inf where neither says."""
    if stats := jax.devices()[0].memory_stats():
        return (stats["bytes_limit"] - stats["bytes_in_use"]) / 2**20
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found.group(1)) / 2**10 if found else math.inf


# Devices: each number of them in a process of its own, since XLA reads it when it starts.


def device_rows(names: Sequence[str], counts: Sequence[int], seconds: float, limit: float, say: Say) -> list[Row]:
    rows = []
    for name in names:
        for count in counts:
            row: Row = {"curve": tasks.TASKS[name].title, "at": count, "skipped": ""}
            if jax.default_backend() != "cpu":
                row["skipped"] = "only a CPU can be forced to be several devices"
            else:
                row |= _in_process(name, count, seconds, limit)
            rows.append(row)
            say(_line(row))
    return rows


def _in_process(name: str, count: int, seconds: float, limit: float) -> Row:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    command = [sys.executable, "-m", "experiments.bench.scaling", "--one", name, "--seconds", str(seconds)]
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"skipped": f"stopped at the limit of {limit:g} s"}
    if done.returncode:
        return {"skipped": f"failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def _one(name: str, seconds: float) -> Row:
    """The row of one task on the devices of this process."""
    point = _point(name, len(jax.devices()), 1.0)
    runner = Runner(point, seconds)
    row: Row = {"first": round(runner.first, 2), "chunk": runner.chunk, "mib": round(runner.mib, 1), "turns": []}
    _turns([(row, runner)])
    text = runner.compiled.as_text()
    return row | {"gflop_a_device": machine.flops(runner.compiled) / 1e9, "collectives": collectives(text)}


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COLLECTIVE = re.compile(rf"%\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(([^)]*)\)")
_TRIPS = re.compile(r" while\(.*known_trip_count\D+(\d+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=\{?((?:%[\w.-]+(?:, )?)+)")


def collectives(text: str) -> list[Row]:
    """The collectives of one training step in a chunk's optimised HLO, equal ones together.

    A row: kind; times a step (a loop inside the step counts as often as it turns); operands; values, the numbers that
    they hold together; gradients, whether one has two axes or more: a kernel's gradient. Batch statistics, gradients
    of biases and gains have one axis, metrics none.
    """
    bodies, entry = _computations(text)
    steps = [
        called
        for name in _reached(bodies, entry, loops_too=False)
        for line in bodies[name]
        if " while(" in line
        for called in re.findall(r"body=%([\w.-]+)", line)
        if any("train_step" in inner for c in _reached(bodies, called) for inner in bodies[c])
    ]
    if len(steps) != 1:
        raise ValueError(f"The program has {len(steps)} loops over train_step: a chunk's has one.")
    found: Counter[tuple[str, int, int, bool]] = Counter()

    def collect(name: str, times: int) -> None:
        for line in bodies[name]:
            if match := _COLLECTIVE.search(line):
                shapes = [dims.split(",") if dims else [] for dims in re.findall(r"\w\[([\d,]*)\]", match.group(1))]
                values = sum(math.prod(map(int, shape)) for shape in shapes)
                kernels = any(len(shape) > 1 for shape in shapes)
                found[match.group(2), match.group(3).count("%"), values, kernels] += times
            trips = _TRIPS.search(line)
            for called in _called(line):
                collect(called, times * (int(trips.group(1)) if trips else 1))

    collect(steps[0], 1)
    names = ("kind", "operands", "values", "gradients")
    return [{"times": times} | dict(zip(names, key, strict=True)) for key, times in found.items()]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Name -> lines of every computation of an HLO module, and the entry's name."""
    bodies: dict[str, list[str]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            head = line.split()
            current = head[1 if head[0] == "ENTRY" else 0].lstrip("%").split("(")[0]
            entry = current if head[0] == "ENTRY" else entry
            bodies[current] = []
        elif current:
            bodies[current].append(line)
    return bodies, entry


def _called(line: str) -> list[str]:
    return [name for names in _CALLED.findall(line) for name in re.findall(r"%([\w.-]+)", names)]


def _reached(bodies: dict[str, list[str]], start: str, *, loops_too: bool = True) -> set[str]:
    """`start` and what it calls, directly or not."""
    reached, open_ends = {start}, [start]
    while open_ends:
        for line in bodies[open_ends.pop()]:
            if loops_too or " while(" not in line:
                new = set(_called(line)) - reached
                reached |= new
                open_ends += new
    return reached


# What is said of it.


def flatness(rows: Sequence[Row]) -> Row | None:
    """Whether the data set's size changes the speed; None with fewer than two sizes."""
    rates = {row["at"]: row["steps_per_second"] for row in rows if not row["skipped"]}
    if len(rates) < 2:
        return None
    ratio = max(rates.values()) / min(rates.values())
    slow, fast = min(rates, key=lambda n: rates[n]), max(rates, key=lambda n: rates[n])
    verdict = "flat within 10 %" if ratio <= FLAT else "NOT flat within 10 %"
    text = f"Data set size: {verdict}: {fast:,} examples are {ratio:.3f} times as fast as {slow:,}."
    return {"ratio": round(ratio, 4), "within_10_percent": ratio <= FLAT, "text": text}


def _line(row: Row) -> str:
    what = f"not run: {row['skipped']}" if row["skipped"] else f"first steps after {row['first']:.1f} s"
    rate = f"{row['steps_per_second']:,.1f} steps/s, " if "steps_per_second" in row else ""
    return f"{row['curve']} at {row['at']:,}: {rate}{what}"


def lines(axis: str, rows: Sequence[Row]) -> list[list[str]]:
    """A line a point, for table.text."""
    extra = [label for label, times in AXES[axis].panels if times]
    talk = ["GFLOP a device", "all-reduces with gradients", "others", "other collectives"] if axis == "devices" else []
    found = [["", AXES[axis].label, "steps/s: median (range)", *extra, *talk]]
    for row in rows:
        if row["skipped"]:
            cells = [f"not run: {row['skipped']}", *["-"] * (len(extra) + len(talk))]
        else:
            cells = [table.spread(row["turns"], 1), *[f"{row['at'] * row['steps_per_second']:,.0f}" for _ in extra]]
        if talk and not row["skipped"]:
            sums = [c for c in row["collectives"] if c["kind"] == "all-reduce"]
            cells += [f"{row['gflop_a_device']:.3g}", _sums([c for c in sums if c["gradients"]])]
            cells += [_sums([c for c in sums if not c["gradients"]])]
            cells += [", ".join(f"{c['times']} {c['kind']}" for c in row["collectives"] if c not in sums) or "0"]
        found.append([row["curve"], f"{row['at']:,}", *cells])
    return found


def _sums(found: list[Row]) -> str:
    """`6: 5 of 13, 1 of 3 arrays`; 0 if there are none."""
    by_operands: Counter[int] = Counter()
    for c in found:
        by_operands[c["operands"]] += c["times"]
    parts = ", ".join(f"{times} of {n}" for n, times in sorted(by_operands.items(), reverse=True))
    return f"{by_operands.total()}: {parts} arrays" if found else "0"


_COLOURS = ("#2563a8", "#e08a1e", "#d1495b", "#3a8f6b")


def draw(axis: str, rows: Sequence[Row], device: str, path: Path) -> None:
    """The axis's panels side by side: a curve's medians, and its range over the turns as a band."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    chosen = AXES[axis]
    figure = plots._figure(4.6 * len(chosen.panels) + 0.4, 3.9)
    figure.suptitle(f"{chosen.title} — {device}", fontsize=10, x=0.02, ha="left")
    places = sorted({row["at"] for row in rows})
    curves = list(dict.fromkeys(row["curve"] for row in rows))
    panels = figure.subplots(1, len(chosen.panels), squeeze=False)[0]
    for panel, (label, times) in zip(panels, chosen.panels, strict=True):
        for curve, colour in zip(curves, _COLOURS, strict=False):
            own = [row for row in rows if row["curve"] == curve and not row["skipped"]]
            at = [row["at"] for row in own]
            scale = np.array(at if times else [1] * len(at), float)
            low, middle, high = (scale * [f(row["turns"]) for row in own] for f in (min, statistics.median, max))
            panel.plot(at, middle, color=colour, marker="o", markersize=4, linewidth=1.5, label=curve)
            panel.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set(xscale="log", xlabel=chosen.label, ylabel=label, xlim=(places[0] / 1.2, places[-1] * 1.2))
        panel.set_xticks(places, [f"{n:,}" for n in places])
        panel.xaxis.set_minor_locator(NullLocator())
        if axis == "data":  # flat or not is seen from zero
            panel.set_ylim(bottom=0)
        else:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plots._thousands(value)))
        plots._clean(panel)
    left_out = {c: [f"{r['at']:,}" for r in rows if r["curve"] == c and r["skipped"]] for c in curves}
    note = "; ".join(f"{curve} at {', '.join(at)}" for curve, at in left_out.items() if at)
    legend = figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(curves),
        frameon=False,
        fontsize=9,
        title=f"not run: {note}" if note else None,
        title_fontsize=8,
    )
    legend.get_title().set_color("0.4")
    plots._render(figure, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.scaling", description=__doc__.splitlines()[2])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of a turn")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds a point may take; longer ones are left out")
    parser.add_argument("--out", type=Path, default=table.RESULTS, help="folder of the JSON file and the plots")
    parser.add_argument("--one", choices=tasks.TASKS, help=argparse.SUPPRESS)  # a row of `devices`, in its process
    flags = parser.parse_args(argv)
    for name in ("seconds", "limit"):
        if not 0 < getattr(flags, name) < math.inf:
            print(f"experiments.bench.scaling: {name} is {getattr(flags, name)}: give more than 0.", file=sys.stderr)
            return 1
    if flags.one:
        print(json.dumps(_one(flags.one, flags.seconds)))
        return 0

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    device = machine.device_name()
    peaks, loads = [machine.gemm_gflops()], [machine.load()]
    result: Row = {
        "device": device,
        "date": time.strftime("%Y-%m-%d"),
        "versions": ", ".join(f"{p} {_version(p)}" for p in ("jax", "flax", "optax")),
        "threads": machine.cores(),
        "repeats": TURNS,
        "seconds": flags.seconds,
        "limit": flags.limit,
        "axes": {},
    }
    flags.out.mkdir(parents=True, exist_ok=True)
    stem = f"scaling-{machine.slug(device)}"
    for axis in flags.axes:
        if axis == "devices":
            rows = device_rows(("vae", "gan", "wgan", "vaegan"), (1, 2, 4), flags.seconds, flags.limit, say)
        else:
            rows = sweep(points(axis), flags.seconds, flags.limit, say, together=axis == "data")
        result["axes"][axis] = rows
        if axis == "data":
            result["flat"] = flatness(rows)
        peaks.append(machine.gemm_gflops())
        unrest = _unrest(peaks, loads)
        result |= {"gemm_gflops": max(peaks), "quiet": not unrest, "unrest": unrest}
        # After every axis, so that what was measured stays if the run is broken off.
        (flags.out / f"{stem}.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        draw(axis, rows, device, flags.out / f"{stem}-{axis}.png")
    print(table.heading(result))
    for axis, rows in result["axes"].items():
        print(f"\n{AXES[axis].title}\n{table.text(lines(axis, rows))}")
    if result.get("flat"):
        print(f"\n{result['flat']['text']}")
    print(f"\nwritten: {flags.out / stem}.json and a plot an axis")
    return 0


if __name__ == "__main__":
    sys.exit(main())
