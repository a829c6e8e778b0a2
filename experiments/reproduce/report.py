"""The report and the README's table of papers, from the committed rows alone: python -m experiments.reproduce.report

--check writes nothing: exit code 1 where REPORT.md or the README is not what the results say.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.reproduce import TARGETS, published, questions, results
from experiments.reproduce.published import STATUS, Entry
from vaegan_jax.metrics.evaluation import number

REPORT = results.FOLDER.parent / "REPORT.md"
COLUMNS = ("paper", "item", "data", "metric", "published", "ours", "verdict", "budget", "steps", "time")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reproduce.report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="only say whether report and README are current")
    flags = parser.parse_args(argv)
    try:
        page = text()
        stale = pages.put("experiments.reproduce.report", front(), check=flags.check)
        stale |= questions.main(["--check"] if flags.check else [])
    except ValueError as error:
        print(f"experiments.reproduce.report: {error}", file=sys.stderr)
        return 1
    if flags.check:
        if not REPORT.exists() or REPORT.read_text() != page:
            print("REPORT.md is not what the results say: run `make report`.", file=sys.stderr)
            stale = 1
        return stale
    REPORT.write_text(page)
    print(f"written: {REPORT}")
    return 0


def text(folder: Path = results.FOLDER) -> str:
    """The whole of REPORT.md.

    Raises:
        ValueError: a row that is not whole.
    """
    papers = _front(folder)
    lines = [
        "# Published numbers, and ours",
        "",
        "Written by `make report` from `experiments/results/`; the rules are in `experiments/published.toml`, each in",
        "a commit before that of the run that it judges (a row whose rule changed later says so). Ours is mean +-",
        "standard deviation over training seeds, n of them, or the few values where their deviation exceeds their",
        "mean; exact rows have no seeds. What an earlier run by the same rule gave, perhaps of older code (the commit",
        "is there), is in the notes, and beside ours where it lies farther from these values than they do from each",
        "other. In x of y steps y is the published schedule, or where none is published that of our budget `paper`.",
        "Time is that of the whole part of the target that fills the row, on what; its rows share it.",
        "",
        "- **reproduced**: ours agrees with the published number, by the rule; **agreed with our own computation**:",
        "  the number is none of a paper's, but was computed apart from this code.",
        "- **claim holds**: what the paper says in words or by a curve is so here; what that means stands under",
        "  published.",
        "- **budget too small**: ours disagrees before the published schedule's end, or agrees as a model that has",
        "  hardly learned does too; which way a difference points until then is said beside it. Which of two of a",
        "  paper's trainings ends better is judged at their end alone (the survey's questions are of the steps that",
        "  they name). **not reproduced**: ours disagrees at the schedule's end, or where a curve has gone flat",
        "  before.",
        "- **not comparable**: no number or claim to agree with, or another protocol; **not run**: and why; **without",
        "  data**: those of them that only lack data.",
        "",
        "`mnist-cnn` and `fashion_mnist-cnn` are classifiers trained here (`vaegan_jax.metrics.features`): they judge",
        "labels, and their last hidden layer stands for Inception's, so that Frechet distances and all else that is",
        "said to be by them compare with no published ones.",
        "",
        *_table(
            ("paper", "headline", "published", "ours", "verdict", "its part's time", "all its rows"),
            [[f"[{paper}](#{_anchor(target)})", *rest] for target, (paper, *rest) in zip(TARGETS, papers, strict=True)],
        ),
        "",
        "Published numbers and claims without a mark are "
        + STATUS["C"]
        + "; "
        + "; ".join(f"[{tag}] {says}" for tag, says in STATUS.items() if tag != "C")
        + ".",
        "",
        "## Text against released code, and other readings",
        "",
        *(f"- {line}" for line in questions.readings(folder)),
    ]
    for target in TARGETS:
        lines += ["", *_target(target, folder)]
    return "\n".join(lines) + "\n"


def front(folder: Path = results.FOLDER) -> str:
    """The README's table: one line a paper."""
    rows = [[*row, f"`make reproduce-{target}`"] for row, target in zip(_front(folder), TARGETS, strict=True)]
    head = ("paper", "number", "published", "ours", "verdict", "its part's time", "all rows of the paper", "command")
    return "\n".join(_table(head, rows))


def _front(folder: Path) -> list[list[str]]:
    found = []
    for target in TARGETS:
        rows = results.best(_rows(target, folder))
        name = f"{target}.{published.headline(target)}"
        row = next(row for row in rows if row["id"] == name)
        entries = published.entries()[target]
        verdicts = [_counted(_verdict(r, entries[r["id"].partition(".")[2]])) for r in rows]
        counted = {v: verdicts.count(v) for v in dict.fromkeys(verdicts)}
        counts = ", ".join(
            f"{n} {v if n == 1 else v.replace('claim holds', 'claims hold')}" for v, n in counted.items()
        )
        cells = _cells(row, entries[published.headline(target)])
        found.append(
            [
                cells["paper"],
                f"{cells['item']}: {cells['metric']}",
                *(cells[c] for c in COLUMNS[4:7]),
                cells["time"],
                counts,
            ]
        )
    return found


def _rows(target: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of the file, checked; what has none yet is said to be not run."""
    rows = results.read(target, folder)
    for row in rows:
        results.check(row)
    known = {f"{target}.{name}": entry for name, entry in published.entries()[target].items()}
    for row in rows:
        if row["id"] in known:
            results.agrees(row, known[row["id"]])
    there = {row["id"] for row in rows}
    missing = [results.not_run(entry) for id, entry in known.items() if id not in there]
    rows = [row for row in rows if row["id"] in known] + missing
    return sorted(rows, key=lambda row: (list(known).index(row["id"]), results.ORDER.index(row["budget"])))


def _verdict(row: Mapping[str, Any], entry: Entry) -> str:
    if row["rule_sha256"] != entry.sha256:
        return "not comparable: its rule has changed since, run it again"
    if entry.status == "V" and row["verdict"] == "reproduced":
        return "agreed with our own computation"
    return str(row["verdict"])


def _counted(verdict: str) -> str:
    """A verdict without its why, but for data that nobody has here."""
    return "without data" if verdict == "not run: data" else verdict.partition(":")[0]


def _remark(verdict: str, row: Mapping[str, Any], entry: Entry) -> str:
    """What a verdict is to be read with: which way it points before the schedule's end, and what seeds leave open."""
    contrary = entry.rule.opposite() if entry.rule else None
    values = row["ours"]["values"] if row["ours"] else []
    if verdict == "not reproduced" and contrary and not contrary.holds(values, entry.value):
        return "" if row["failed_seeds"] or not values else f": undecided by {len(values)} seeds"
    if entry.steps is None or row["steps"] >= entry.steps:
        return ""
    if verdict in ("reproduced", "claim holds"):
        return f" at {row['steps']:,} of {entry.steps:,} steps"
    if verdict.startswith("budget too small") and entry.rule and values:
        if entry.rule.holds(values, entry.value):  # but a seed failed, or it is too early to say
            return "" if row["failed_seeds"] or not entry.early else f"; so far it agrees, but {entry.early}"
        if contrary and contrary.holds(values, entry.value):
            return "; so far the other way"
        if contrary:
            return f"; so far undecided by {len(values)} seeds"
    return ""


def _title(target: str) -> tuple[str, str]:
    """The heading of a target's section, and what stands below it."""
    module = importlib.import_module(f"experiments.reproduce.{target}")
    title, _, body = (module.__doc__ or "").strip().partition("\n")
    return f"{target}: {title}", body.strip()


def _anchor(target: str) -> str:
    """Of a target's section, as GitHub makes it of the heading."""
    return re.sub(r"[^\w -]", "", _title(target)[0].lower()).replace(" ", "-")


def _target(target: str, folder: Path) -> list[str]:
    module = importlib.import_module(f"experiments.reproduce.{target}")
    title, body = _title(target)
    rows = _rows(target, folder)
    entries = published.entries()[target]
    cells = [_cells(row, entries[row["id"].partition(".")[2]]) for row in rows]
    lines = [f"## {title}", *(["", body] if body else []), ""]
    lines += [f"`make reproduce-{target}`{_took(module, rows)}", ""]
    lines += _table(COLUMNS, [[c[name] for name in COLUMNS] for c in cells])
    lines += ["", *_parts(target, module, folder, {row["id"].partition(".")[2]: row["budget"] for row in rows})]
    lines += ["<details><summary>Protocols, rules, splits, notes</summary>", ""]
    details = []
    for row, cell in zip(rows, cells, strict=True):
        entry = entries[row["id"].partition(".")[2]]
        rule = f"{entry.rule.text()}: {entry.rule.because}" if entry.rule else "none"
        rule += f"; not before the schedule's end: {entry.early}" if entry.early else ""
        details.append([cell["paper"], cell["item"], cell["metric"], entry.protocol, rule, entry.splits, _note(row)])
    columns = ("paper", "item", "metric", "protocol", "agrees when", "splits", "note")
    lines += _table(columns, _as_above(_distinct(details), columns.index("protocol"), columns.index("splits")))
    lines += ["", "</details>", "", *_provenance(rows)]
    return lines


def _took(module: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """What all parts took one after the other, where any ran: each once, by the budget that the report shows first."""
    seconds = {row["id"].partition(".")[2]: row["wall_seconds"] for row in results.best(rows)}
    each = [max((seconds.get(name, 0.0) for name in part.rows), default=0.0) for part in module.PARTS]
    return f" (what ran took {_duration(sum(each))}, one part after the other)" if any(each) else ""


def _parts(target: str, module: Any, folder: Path, budgets: Mapping[str, str]) -> list[str]:
    """budgets: of the target's rows, by name."""
    lines: list[str] = []
    for part in module.PARTS:
        file = folder / target / f"{part.name}.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text())
        if not found["figures"] and not found["tables"]:
            continue
        exact = part.rows and all(budgets[name] == "exact" for name in part.rows)
        lines += [f"### {part.name} (budget {'exact' if exact else found['budget']})", ""]
        for name, caption in found["figures"].items():
            lines += [f"![{caption}](results/{target}/{name})", "", caption, ""]
        if found.get("curves"):
            lines += [f"Each seed's values along training: [{part.name}.json](results/{target}/{part.name}.json).", ""]
        for table in found["tables"]:
            lines += [
                table["title"],
                "",
                *_table(table["columns"], [[_plain(v) for v in r] for r in table["rows"]]),
                "",
            ]
    return lines


def _provenance(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ran = [row for row in rows if row["budget"] != "none"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in ran:
        groups.setdefault((row["device"], row["versions"], row["commit"][:12]), []).append(row["id"].partition(".")[2])
    return [
        f"{', '.join(ids)}: {re.sub(', 1 cores', ', 1 core', device)}; {versions}; commit {commit}."
        for (device, versions, commit), ids in groups.items()
    ]


def _cells(row: Mapping[str, Any], entry: Entry) -> dict[str, str]:
    said = row["published"]
    if said is None:
        theirs = f"a claim{_mark(entry.status)}: {entry.rule.short()}" if entry.rule else "-"
    else:  # as it was printed, not rounded to anything
        theirs = f"{said['value']}" if said["error"] is None else f"{said['value']} +- {said['error']}"
        if entry.error_is == published.RANGE:
            theirs = f"{said['value'] - said['error']:g} to {said['value'] + said['error']:g}"
        elif entry.error_is:
            theirs += f" ({entry.error_is})"
        theirs += _mark(said["status"])
    ours, failed = row["ours"], row["failed_seeds"]
    if ours is None:
        mine = "-"
    elif row["seeds"] and results.speak_for_themselves(ours["values"]):
        mine = ", ".join(f"{v:.3g}" for v in ours["values"])
    elif ours["n"] > 1:
        mine = f"{_number(ours['mean'], ours['sd'])} ({'n =' if row['seeds'] else 'draws:'} {ours['n']})"
    else:
        mine = _plain(ours["mean"])
    verdict = _verdict(row, entry)
    if failed:
        mine += f"; {len(failed)} of {len(failed) + len(row['seeds'])} seeds failed"
    for run in row.get("before", []):
        if _elsewhere(run, row):
            mine += f"; in an earlier run {_values(run)}"
    return {
        "paper": entry.paper,
        "item": entry.item,
        "data": entry.dataset,
        "metric": entry.metric,
        "published": theirs,
        "ours": mine,
        "verdict": verdict + _remark(verdict, row, entry),
        "budget": row["budget"],
        "steps": f"{row['steps']:,}" if row["steps"] else "-",
        "time": _time(row) if row["budget"] != "none" else "-",
    }


def _elsewhere(run: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether an earlier run of the same seeds lost one, or ended farther from these than they lie from each other."""
    ours = row["ours"]["values"] if row["ours"] else []
    low, high = min(ours, default=0.0), max(ours, default=0.0)
    return bool(run["failed_seeds"]) or any(not 2 * low - high <= v <= 2 * high - low for v in run["values"])


def _values(run: Mapping[str, Any]) -> str:
    failed = len(run["failed_seeds"])
    lost = f"{failed} of {failed + len(run['values'])} seeds failed" if failed else ""
    return "; ".join(filter(None, [", ".join(f"{v:.3g}" for v in run["values"]), lost]))


def _note(row: Mapping[str, Any]) -> str:
    """The row's, and what other runs of the same seeds gave."""
    runs = [f"before, {run['device']}, commit {run['commit'][:7]}: {_values(run)}" for run in row.get("before", [])]
    return "; ".join(filter(None, [row["note"], *runs]))


def _mark(status: str) -> str:
    return f" [{status}]" if status not in ("", "C") else ""


def _number(value: float, error: float | None) -> str:
    """`13.866 +- 0.052`; of an error that is rounding, the value alone."""
    return number(value, error) if error and error > 1e-6 * abs(value) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) >= 1e-3 else f"{value:.3g}"
    return str(value)


def _time(row: Mapping[str, Any]) -> str:
    """`38 min, Intel`: of the part, and on what; how many of its cores is in the device's name."""
    return f"{_duration(row['wall_seconds'])}, {_device(row['device'])}"


def _device(name: str) -> str:
    """The shortest that tells this project's devices apart: "1 core AMD EPYC; 2 cores AMD EPYC"."""
    each = []
    for one in name.split("; "):
        model, _, cores = re.sub(r"\(R\)|\(TM\)| Processor| CPU", "", one).rpartition(", ")
        each.append(f"{re.sub('^1 cores', '1 core', cores)} {model}".strip() if model else cores)
    return "; ".join(each)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _as_above(rows: Sequence[Sequence[str]], first: int, last: int) -> list[list[str]]:
    """Cells of the columns first to last that repeat those of the row before say so, where that is shorter."""
    found = [list(row) for row in rows]
    for before, row, out in zip(rows, rows[1:], found[1:], strict=False):
        for column in range(first, last + 1):
            if row[column] == before[column] and len(row[column]) > 20:
                out[column] = "as above"
    return found


def _distinct(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in dict.fromkeys(tuple(row) for row in rows)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)]


if __name__ == "__main__":
    sys.exit(main())
