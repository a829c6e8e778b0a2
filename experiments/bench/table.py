"""From results/<device>.json to the table that is printed and to the README's: no number is typed by hand.

python -m experiments.bench.table            prints them and writes the README's part; --check fails if it would change
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from experiments import readme
from experiments.bench.tasks import EARLIER, TASKS, TITLES, Target

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """theirs / ours of each turn: above 1, ours is faster."""
    return [b / a for a, b in zip(ours, theirs, strict=False)]


def beside(entry: Row, ours: list[float]) -> list[float]:
    """Ours in the turns next to a contender's, or, where none were taken, in those of the same number."""
    return entry.get("beside") or ours


def verdict(target: Target, entries: list[Row]) -> tuple[str, list[float]]:
    """(the contender that was the fastest of `against`, our ratios to it); ("", []) where none was timed."""
    timed = {e["contender"]: e for e in entries if e["milliseconds"]}
    ours = timed.pop("ours", {}).get("milliseconds", [])
    rivals = {name: e for name, e in timed.items() if not target.against or name in target.against}
    if not ours or not rivals:
        return "", []
    best = min(rivals, key=lambda name: statistics.median(rivals[name]["milliseconds"]))
    return best, ratios(beside(rivals[best], ours), rivals[best]["milliseconds"])


def spread(values: list[float], digits: int = 2) -> str:
    """`1.25 (1.19-1.31)`: median and range."""
    if not values:
        return "not run"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def short(trouble: str, limit: int = 90) -> str:
    """A library's error message as a cell: its first sentence; the results file has all of it."""
    first = trouble.split("\n")[0].split(". ")[0]
    return first if len(first) <= limit else first[:limit].rsplit(" ", 1)[0] + " ..."


def contenders(result: Row) -> list[list[str]]:
    """A line a contender: GFLOP in a step of ours, ms a step, the ratio to ours, the share of the GEMM peak,
    compilation, memory, losses.

    of the peak: of `peak`; earlier: its share of it when the aims were set, see Task.
    """
    lines = [
        [
            "task", "contender", "GFLOP", "ms a step", "ours is faster by", "of the peak", "earlier", "first steps",
            "memory", "losses agree",
        ],
    ]  # fmt: skip
    for name, row in result["tasks"].items():
        by_name = {e["contender"]: e for e in row["entries"]}
        ours = by_name.get("ours", {}).get("milliseconds", [])
        earlier = dict(TASKS[name].earlier)
        for e in row["entries"]:
            if e["trouble"] or not e["milliseconds"]:
                why = short(e["trouble"] or "not run")
                lines.append([TASKS[name].title, TITLES[e["contender"]], "-", "-", why, *["-"] * 5])
                continue
            middle = statistics.median(e["milliseconds"])
            share = row["gflop"] / (middle / 1000) / peak(result, name)
            before = earlier.get(e["contender"])
            was = f"{row['gflop'] / (before / 1000) / EARLIER:.0%}" if before else "-"
            lines.append(
                [
                    TASKS[name].title,
                    TITLES[e["contender"]],
                    f"{row['gflop']:.2g}",
                    spread(e["milliseconds"], 1),
                    "-" if e["contender"] == "ours" else spread(ratios(beside(e, ours), e["milliseconds"])),
                    f"{share:.0%}",
                    was,
                    f"{e['compile']:.1f} s",
                    "-" if e["peak_mib"] is None else f"{e['peak_mib']:,.0f} MiB",
                    e["agrees"],
                ]
            )
    return lines


def judged(found: list[float], least: float) -> tuple[str, str]:
    """(median and range, whether the median is `least` or more); with a third digit where two would hide why not."""
    if not found:
        return spread(found), "-"
    middle = statistics.median(found)
    met = middle >= least
    return spread(found, 2 if met or round(middle, 2) < least else 3), "yes" if met else "no"


def targets(result: Row) -> list[list[str]]:
    """A line a target: what, against whom, at least, measured, met."""
    lines = [["task", "against", "at least", "measured: median (range)", "met"]]
    for name, row in result["tasks"].items():
        for target in TASKS[name].targets:
            best, found = verdict(target, row["entries"])
            label = target.label + (f" ({TITLES[best]})" if best and len(target.against) != 1 else "")
            lines.append([TASKS[name].title, label, f"{target.least:g}x", *judged(found, target.least)])
        if name == "vae":
            own = {e["contender"]: e["milliseconds"] for e in row["entries"]}.get("ours", [])
            highest = peak(result, name)
            share = [row["gflop"] / (ms / 1000) / highest for ms in own]
            lines.append([TASKS[name].title, f"the machine's GEMM peak, {highest:,.0f}", "0.5", *judged(share, 0.5)])
    for row in [*result.get("wholes", []), *result.get("accelerator", [])]:
        met = {True: "yes", False: "no", None: "-"}[row["met"]]
        lines.append([row["task"], row["against"], row["least"], row["text"], met])
    return lines


def markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def text(lines: list[list[str]]) -> str:
    """Aligned columns for a terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def run_of(result: Row, name: str) -> Row:
    """The run that measured a task, "wholes" or "accelerator"."""
    return next(run for run in result["runs"] if name in run["of"])


def peak(result: Row, name: str) -> float:
    """The highest GEMM peak that was seen while a task was timed, GFLOP/s; older runs have only one of the whole run.

    One is taken before each turn; a lower one was disturbed, which would flatter what is compared with it.
    """
    return max(result["tasks"][name].get("peaks") or [run_of(result, name)["gemm_gflops"]])


def headings(result: Row) -> str:
    """A paragraph a run, the last one first; and what it measured, if there are several."""
    runs = [run for run in result["runs"] if run["of"]]
    titles = {name: task.title for name, task in TASKS.items()} | {"wholes": "whole runs", "accelerator": "accelerator"}
    tails = [f" This is of: {', '.join(titles[name] for name in run['of'])}." for run in runs]
    return "\n\n".join(heading(result | run) + tail * (len(runs) > 1) for run, tail in zip(runs, tails, strict=True))


def heading(result: Row) -> str:
    data = f" Data: {result['source']}." if "source" in result else ""
    quiet = "" if result["quiet"] else f" The machine was not quiet: {result['unrest']}."
    return (
        f"{result['device']}, GEMM peak {result['gemm_gflops']:,.0f} GFLOP/s, {result['threads']} threads each, "
        f"{result['repeats']} turns, {stamp(result)}.{data}{quiet}"
    )


def stamp(run: Row) -> str:
    """`2026-11-29, commit e95d626, jax 0.10.2`; older runs have no commit."""
    commit = [f"commit {run['commit']}"] if run.get("commit") else []
    return ", ".join([run["date"], *commit, run["versions"]])


def readme_part(results: list[Row]) -> str:
    parts = []
    for result in results:
        parts += [headings(result), "", markdown(targets(result)), ""]
        parts += ["<details><summary>Every contender</summary>", "", markdown(contenders(result)), ""]
        parts += ["GFLOP: in the matrix products of a step of ours.", "", "</details>", ""]
    return "\n".join(parts) or "No results are committed yet."


def load() -> list[Row]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def main(argv: list[str]) -> int:
    results = load()
    for result in results:
        print(f"{headings(result)}\n\n{text(targets(result))}\n\n{text(contenders(result))}\n")
    return readme.put("experiments.bench.table", readme_part(results), check="--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
