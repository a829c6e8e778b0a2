"""From results/<device>.json to the tables that are printed, the README's and REPORT.md's.

python -m experiments.bench.table            prints and writes them; --check fails if one would change
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.bench.tasks import TASKS, TITLES, Target

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """theirs / ours of each turn: above 1, ours is faster."""
    return [b / a for a, b in zip(ours, theirs, strict=False)]


def beside(entry: Row, ours: list[float]) -> list[float]:
    """Ours in the turns next to a contender's, or, where none were taken, in those of the same number."""
    return entry.get("beside") or ours


def verdict(target: Target, entries: list[Row]) -> tuple[str, list[float]]:
    """(the contender of `against` to which our median ratio is the lowest, our ratios to it); ("", []) if none ran."""
    timed = {e["contender"]: e for e in entries if e["milliseconds"]}
    ours = timed.pop("ours", {}).get("milliseconds", [])
    rivals = {name: e for name, e in timed.items() if not target.against or name in target.against}
    if not ours or not rivals:
        return "", []
    found = {name: ratios(beside(e, ours), e["milliseconds"]) for name, e in rivals.items()}
    best = min(found, key=lambda name: statistics.median(found[name]))
    return best, found[best]


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

    of the peak: the highest that was seen in the run; earlier: ms a step when the aims were set, see Task.
    """
    lines = [
        [
            "task", "contender", "GFLOP", "ms a step", "ours is faster by", "of the peak", "earlier, ms", "first steps",
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
            share = row["gflop"] / (middle / 1000) / run_of(result, name)["gemm_gflops"]
            before = earlier.get(e["contender"])
            lines.append(
                [
                    TASKS[name].title,
                    TITLES[e["contender"]],
                    f"{row['gflop']:.2g}",
                    spread(e["milliseconds"], 1),
                    "-" if e["contender"] == "ours" else spread(ratios(beside(e, ours), e["milliseconds"])),
                    f"{share:.0%}",
                    f"{before:,.4g}" if before else "-",
                    f"{e['compile']:.1f} s",
                    "-" if e["peak_mib"] is None else f"{e['peak_mib']:,.0f} MiB",
                    agreement(e),
                ]
            )
    return lines


def agreement(entry: Row) -> str:
    """`yes: 0.2 % apart, 1.0 % would do`, of the loss that comes closest to what is allowed; in % of its level."""
    losses = entry.get("losses") or {}
    if not entry["agrees"].startswith("yes") or not losses.get("means"):
        return str(entry["agrees"])
    pairs = zip(losses["means"], losses["allowed"], strict=True)
    found = [(abs(a - b), limit, max(abs(a), abs(b))) for (a, b), limit in pairs]
    apart, limit, level = max(found, key=lambda one: one[0] / one[1])
    return f"{entry['agrees']}: {apart / level:.1%} apart, {limit / level:.1%} would do"


def judged(found: list[float], least: float) -> tuple[str, str]:
    """(median and range, whether `least` is met).

    yes: the middle half of the turns is `least` or more, no: it is less, undecided: it is on both sides. With a third
    digit where two would hide why.
    """
    if not found:
        return spread(found), "-"
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    met = "yes" if low >= least else "no" if high < least else "undecided"
    hidden = middle < least <= round(middle, 2)
    return spread(found, 3 if hidden else 2), met


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
            highest = run_of(result, name)["gemm_gflops"]
            share = [row["gflop"] / (ms / 1000) / highest for ms in own]
            lines.append([TASKS[name].title, f"the machine's GEMM peak, {highest:,.0f}", "0.5", *judged(share, 0.5)])
    for row in [*result.get("wholes", []), *result.get("accelerator", [])]:
        met = {True: "yes", False: "no", None: "-"}.get(row["met"], row["met"])
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


def page(results: list[Row], lines: Callable[[Row], list[list[str]]]) -> str:
    parts = [f"{headings(result)}\n\n{markdown(lines(result))}" for result in results]
    return "\n\n".join(parts) or "No results are committed yet."


def load() -> list[Row]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def main(argv: list[str]) -> int:
    results = load()
    for result in results:
        print(f"{headings(result)}\n\n{text(targets(result))}\n\n{text(contenders(result))}\n")
    check = "--check" in argv
    stale = pages.put("experiments.bench.table", page(results, targets), check=check)
    return max(stale, pages.put("experiments.bench.table", page(results, contenders), check=check, path=pages.BENCH))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
