"""Where a training step's time goes: python -m experiments.bench.profile [--tasks vae gan] [--seconds 2]

On one core, where a program's operations follow each other, so that their times add up; on more XLA runs them side by
side, and products on all cores: of these, only what they gain. Writes results/profile/<device>.json and a part of
REPORT.md; tasks that are not asked for stay as they were measured.

Kinds: products (matrix products and convolutions), patches (the rest of convolution.py), normalisation, random bits,
update (the optimiser), rest (activations, losses, metrics, the batch, copies), launches (what runs the operations). An
operation that XLA fused is put to the kind that the last part of it comes from; sums over a batch that are products
with ones (layers.py) are under products.
"""

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.bench import machine, table, tasks

FOLDER = table.RESULTS / "profile"
TURNS = 3
KINDS = ("products", "patches", "normalisation", "random bits", "update", "rest", "launches")
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction of a program. origins: the functions and files that it comes from; product: it holds one."""

    result: str
    name: str
    origins: tuple[str, ...]
    product: bool

    @property
    def kind(self) -> str:
        made = " ".join(self.origins)
        if self.product:
            return "products"
        if "/optax/" in made or "optimizer.py" in made:
            return "update"
        if self.result.startswith(("u32", "u16", "(u32")) or re.search(
            r"random|uniform|normal\)|shuffle|bits", self.name
        ):
            return "random bits"
        if "Norm" in made:
            return "normalisation"
        # Of a gradient, XLA may keep the name alone: convolution.py chooses by the platform, which is a `cond`.
        return "patches" if "/convolution.py" in made or re.search(r"/(conv\d|output)\S*/cond/", self.name) else "rest"


_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (\S+|\(.*?\)) ([\w-]+)\(")
_NUMBERS = re.compile(r"(\w+)=(\d+)")


def operations(text: str) -> dict[str, Operation]:
    """Of a compiled program's text, by name."""
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    current, computation, inside = "", "", Counter[str]()
    found: list[tuple[str, str, str]] = []  # name, result, line
    for line in text.splitlines():
        if line in _TABLES:
            current = line
        elif current and (entry := re.match(r"(\d+) (.*)", line)):
            tables[current][int(entry[1])] = entry[2].strip('"')
        elif line.endswith("{") and not line.startswith(" "):
            current, computation = "", line.removeprefix("ENTRY ").split()[0].lstrip("%")
        elif instruction := _INSTRUCTION.match(line):
            name, result, opcode = instruction.groups()
            inside[computation] += opcode in ("dot", "convolution")
            found.append((name, result, line))
    frames = {i: dict(_NUMBERS.findall(entry)) for i, entry in tables["StackFrames"].items()}
    places = {i: dict(_NUMBERS.findall(entry)) for i, entry in tables["FileLocations"].items()}

    def origins(frame: int) -> Iterable[str]:
        while frame in frames:
            place = places[int(frames[frame]["file_location_id"])]
            yield tables["FunctionNames"][int(place["function_name_id"])]
            yield tables["FileNames"][int(place["file_name_id"])]
            frame = int(frames[frame].get("parent_frame_id", 1)) - 1  # 1 says that there is none

    found_operations = {}
    for name, result, line in found:
        frame, named = re.search(r"stack_frame_id=(\d+)", line), re.search(r'op_name="([^"]*)"', line)
        called = re.search(r"calls=%([\w.-]+)", line)
        product = bool(re.search(r" (dot|convolution)\(", line) or (called and inside[called[1]]))
        made = tuple(origins(int(frame[1]))) if frame else ()
        found_operations[name] = Operation(result, named[1] if named else "", made, product)
    return found_operations


def own_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Name -> time that was not spent in events within it, of one thread's (start, duration, name)."""
    found, enclosing = defaultdict[str, float](float), list[tuple[float, str]]()
    for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while enclosing and enclosing[-1][0] <= start:
            enclosing.pop()
        found[name] += duration
        if enclosing:
            found[enclosing[-1][1]] -= duration
        enclosing.append((start + duration, name))
    return found


def measure(name: str, seconds: float, all_cores: bool) -> Row:
    """One task's row, on the first of the cores that this process may use; or on all, without the kinds."""
    if not all_cores:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before XLA counts them
    import jax

    from vaegan_jax.data.dataset import Dataset
    from vaegan_jax.loop import Loop

    algorithm, config = tasks.ours(name)
    x = tasks.images("random")
    state = algorithm.init(config, jax.random.key(0), x.shape[1:])
    loop = Loop(algorithm, config, Dataset(x), jax.tree.map(lambda leaf: leaf[None], state), (0,))
    compiled, done = loop.compile(), 0

    def run(steps: int) -> float:
        nonlocal done
        begin = time.perf_counter()
        loop.advance(done, steps)
        jax.block_until_ready(loop.states)
        done += steps
        return (time.perf_counter() - begin) / steps

    run(2)
    steps = max(1, min(loop.capacity, int(seconds / run(2))))
    known, peaks, plain, traced = operations(str(compiled.as_text())), [machine.gemm_gflops()], [], []
    for _ in range(TURNS):
        plain.append(1000 * run(steps))
        peaks.append(machine.gemm_gflops())
        if all_cores:
            continue
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run(steps)
            (file,) = Path(folder).rglob("*.xplane.pb")
            traced.append(_kinds(jax.profiler.ProfileData.from_file(str(file)), known, steps))
    rates = [round(peak, 1) for peak in peaks]
    if all_cores:
        return {"cores": machine.cores(), "milliseconds": [round(ms, 3) for ms in plain], "gemm_gflops": rates}
    return {
        "task": name,
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.commit(),
        "versions": machine.versions("jax", "flax", "optax"),
        "steps": steps,
        "milliseconds": [round(ms, 3) for ms in plain],
        "kinds": {kind: [round(each[kind], 4) for each in traced] for kind in KINDS},
        "gflop": machine.flops(compiled) / 1e9,
        "gemm_gflops": rates,
    }


def _kinds(trace: Any, known: dict[str, Operation], steps: int) -> dict[str, float]:
    """Milliseconds a step of each kind, from jax.profiler's ProfileData."""
    kinds = dict.fromkeys(KINDS, 0.0)
    for thread in (line for plane in trace.planes for line in plane.lines if line.name.startswith("tf_XLA")):
        events = ((e.start_ns, e.duration_ns, e.name) for e in thread.events if "wait" not in e.name)
        for operation, spent in own_times(events).items():
            kinds[known[operation].kind if operation in known else "launches"] += spent / 1e6 / steps
    return kinds


def lines(rows: Iterable[Row]) -> list[list[str]]:
    """A line a task: ms a step, the share of each kind, how near the products are to the core's peak, and how many
    times as fast the step and the peak are on all cores.
    """
    found = [["task", "ms a step: median (range)", *KINDS, "products at", "all cores"]]
    for row in rows:
        kinds = {kind: statistics.median(each) for kind, each in row["kinds"].items()}
        total = sum(kinds.values())
        shares = [f"{spent / total:.0%}" if spent else "-" for spent in kinds.values()]
        rate = row["gflop"] / (kinds["products"] / 1000) / max(row["gemm_gflops"])
        title = tasks.TASKS[row["task"]].title
        gained = "-"
        if both := row.get("all_cores"):
            faster = statistics.median(row["milliseconds"]) / statistics.median(both["milliseconds"])
            peak = max(both["gemm_gflops"]) / max(row["gemm_gflops"])
            gained = f"{faster:.2f} times as fast, the peak {peak:.2f}"
        found.append([title, table.spread(row["milliseconds"], 1), *shares, f"{rate:.0%} of the peak", gained])
    return found


def page(folder: Path = FOLDER) -> str:
    """What REPORT.md says."""
    parts = []
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        rows = result["rows"]
        peaks = [peak for row in rows for peak in row["gemm_gflops"]]
        said = dict.fromkeys(table.stamp(row) for row in rows)
        parts.append(
            f"One core of {result['device']}, GEMM peak between {min(peaks):,.0f} and {max(peaks):,.0f} GFLOP/s, "
            f"{TURNS} turns, {'; '.join(said)}."
        )
        parts.append(table.markdown(lines(rows)))
    return "\n\n".join(parts) or "Not measured yet."


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=list(tasks.TASKS))
    parser.add_argument("--seconds", type=float, default=2.0, help="of the steps that are looked at")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON file")
    parser.add_argument("--check", action="store_true", help="only say whether REPORT.md's part is that of results")
    parser.add_argument("--one", choices=tasks.TASKS, help=argparse.SUPPRESS)  # a row, in its process
    parser.add_argument("--all-cores", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.check:
        return pages.put("experiments.bench.profile", page(), check=True, path=pages.BENCH)
    if not flags.seconds > 0:
        print(f"experiments.bench.profile: seconds is {flags.seconds}: give more than 0.", file=sys.stderr)
        return 1
    if not hasattr(os, "sched_setaffinity"):
        print("experiments.bench.profile: this system cannot keep a process on one core; use Linux.", file=sys.stderr)
        return 1
    if flags.one:
        print(json.dumps(measure(flags.one, flags.seconds, flags.all_cores)))
        return 0
    os.environ["JAX_PLATFORMS"] = "cpu"  # for the processes below, and for the name of this one
    device = machine.device_name()
    file = flags.out / f"{machine.slug(device)}.json"
    rows = {row["task"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    flags.out.mkdir(parents=True, exist_ok=True)
    for name in flags.tasks:
        print(f"{name} on one core", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "experiments.bench.profile", "--one", name, "--seconds", str(flags.seconds)]
        parts = []
        for more in ([], ["--all-cores"]):
            done = subprocess.run([*command, *more], cwd=machine.ROOT, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"experiments.bench.profile: {name} failed, see above.", file=sys.stderr)
                return 1
            parts.append(json.loads(done.stdout.splitlines()[-1]))
        rows[name] = parts[0] | {"all_cores": parts[1]}
        result = {"device": device, "rows": [rows[task] for task in tasks.TASKS if task in rows]}
        file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"{table.text(lines(rows.values()))}\n\nwritten: {file}")
    return pages.put("experiments.bench.profile", page(), check=False, path=pages.BENCH) if flags.out == FOLDER else 0


if __name__ == "__main__":
    sys.exit(main())
