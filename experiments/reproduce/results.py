"""Rows of results with their provenance: experiments/results/NAME.json, {"rows": [...]}. Nobody edits them by hand."""

import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reproduce import BUDGETS, published
from experiments.reproduce.published import Entry

FOLDER = Path(__file__).resolve().parents[1] / "results"
ROOT = FOLDER.parents[1]
ORDER = ("paper", "cpu", "smoke", "exact", "none")
FIELDS = (
    "id", "paper", "item", "dataset", "metric", "published", "ours", "verdict", "budget", "seeds", "failed_seeds",
    "steps", "splits", "wall_seconds", "device", "versions", "config_sha256", "data_sha256", "rule_sha256", "commit",
    "note",
)  # fmt: skip


FEW = 5
"""Seeds whose values may stand for themselves."""


def speak_for_themselves(values: Sequence[float] | np.ndarray) -> bool:
    """Whether a few values, one a seed, deviate by more than their mean, so that it says nothing of them."""
    v = np.asarray(values, np.float64)
    return 1 < v.size <= FEW and bool(v.std(ddof=1) > abs(v.mean()))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """values one a seed (or the one of an exact row, whose deviation is 0), mean, sd (n - 1) and n."""
    v = np.asarray(values, np.float64)
    if not np.isfinite(v).all() or v.size == 0:
        raise ValueError(f"values are {v.tolist()}: give finite ones, and count a failed seed as failed.")
    sd = float(v.std(ddof=1)) if v.size > 1 else 0.0
    return {"values": [float(x) for x in v], "mean": float(v.mean()), "sd": sd, "n": int(v.size)}


def row(entry: Entry, measured: Any, *, budget: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """One row. measured: job.Measured; provenance: wall_seconds, device, versions and commit.

    Raises:
        ValueError: values that are not one a seed.
    """
    exact = measured.exact
    seeds = [] if exact else [int(s) for s in measured.seeds]
    if not exact and len(measured.values) != len(seeds):
        raise ValueError(f"{entry.name}: {len(measured.values)} values for seeds {seeds}: give one each.")
    failed = [int(s) for s in measured.failed]
    verdict = entry.verdict(measured.values, measured.steps, flat=measured.flat, failed=len(failed))
    return {
        **_published(entry),
        "ours": summary(measured.values) if len(measured.values) else None,
        "verdict": verdict,
        "budget": "exact" if exact else budget,
        "seeds": seeds,
        "failed_seeds": failed,
        "steps": int(measured.steps),
        "splits": entry.splits,
        **provenance,
        "config_sha256": digest(measured.config),
        "data_sha256": digest([d.sha256 for d in measured.data]) if measured.data else digest(None),
        "rule_sha256": entry.sha256,
        "note": measured.note,
    }


def not_run(entry: Entry) -> dict[str, Any]:
    """The row of what nobody ran."""
    why = entry.not_run or "its part has not been run yet"
    return {
        **_published(entry),
        "ours": None,
        "verdict": f"not run: {why}",
        "budget": "none",
        "seeds": [],
        "failed_seeds": [],
        "steps": 0,
        "splits": entry.splits,
        "wall_seconds": 0.0,
        "device": "",
        "versions": "",
        "config_sha256": "",
        "data_sha256": "",
        "rule_sha256": entry.sha256,
        "commit": "",
        "note": "",
    }


def _published(entry: Entry) -> dict[str, Any]:
    number = None
    if entry.value is not None:
        number = {"value": entry.value, "error": entry.error, "status": entry.status}
    return {
        "id": f"{entry.target}.{entry.name}",
        "paper": entry.paper,
        "item": entry.item,
        "dataset": entry.dataset,
        "metric": entry.metric,
        "published": number,
    }


def digest(value: Any) -> str:
    """sha256 of a config (or several, or plain values) as JSON."""
    from vaegan_jax import config as configs

    return hashlib.sha256(json.dumps(configs.to_json(value), sort_keys=True).encode()).hexdigest()


def path(target: str, folder: Path = FOLDER) -> Path:
    return folder / f"{target}.json"


def read(target: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The rows of a target; [] where there are none yet.

    Raises:
        ValueError: a file that is none of ours.
    """
    file = path(target, folder)
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise ValueError(f'{file} is no results file: {{"rows": [...]}} is expected.')
    return found["rows"]


def merge(target: str, new: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> Path:
    """Puts rows in place of those of the same id and budget; what has no row gets one that says why. Returns the file.

    What a row's seeds gave before, by the same rule and steps, stays in it: see `before`.

    A row by a rule that has changed since stays with its own rule's digest, and the report says so: run it again. Else
    its texts (paper, item) and its `early` are the entry's.
    """
    known = published.entries()[target]
    folder.mkdir(parents=True, exist_ok=True)
    file = path(target, folder)
    with _alone(folder):
        rows = {(r["id"], r["budget"]): dict(r) for r in read(target, folder) if r["budget"] != "none"}
        for each in new:  # of a folder that was done before too
            key = each["id"], each["budget"]
            rows[key] = dict(each) | before(rows.get(key), each)
        for row in rows.values():
            entry = known.get(row["id"].partition(".")[2])
            if entry and entry.sha256 == row["rule_sha256"] and row["budget"] != "none":
                row |= _published(entry) | {"verdict": entry.with_early(row["verdict"], row["steps"])}
        ran = {id for id, _ in rows}
        for name, entry in known.items():
            if f"{target}.{name}" not in ran:
                rows[f"{target}.{name}", "none"] = not_run(entry)
        places = {f"{target}.{name}": i for i, name in enumerate(known)}
        kept = [r for (id, _), r in rows.items() if id in places]
        kept.sort(key=lambda r: (places[r["id"]], ORDER.index(r["budget"])))
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"rows": kept}, indent=1, allow_nan=False) + "\n")
        part.replace(file)
    return file


def before(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """{"before": what the same seeds gave in earlier runs by the same rule and steps}, or {}: no rerun hides another.

    Where they differ, that is, by more than rounding does, or there were other seeds; each with its values, seeds,
    failed seeds, device, config's digest and commit, for the code may have changed.
    """
    if old is None or new["budget"] not in BUDGETS or any(old[n] != new[n] for n in ("rule_sha256", "steps")):
        return {}
    values = [dict(zip(r["seeds"], r["ours"]["values"], strict=True)) if r["ours"] else {} for r in (old, new)]
    shared = [s for s in old["seeds"] + old["failed_seeds"] if s in new["seeds"] + new["failed_seeds"]]
    nan = math.nan  # a seed that failed in one of them
    same = all(
        math.isclose(*(v.get(s, nan) for v in values), rel_tol=0.01) for s in shared if any(s in v for v in values)
    )
    dropped = {*old["seeds"], *old["failed_seeds"]} - {*new["seeds"], *new["failed_seeds"]}
    runs = [*old.get("before", []), *([_run(old)] if dropped or not same else [])]
    found = [run for i, run in enumerate(runs) if run != _run(new) and run not in runs[:i]]
    return {"before": found} if found else {}


def _run(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("seeds", "failed_seeds", "device", "config_sha256", "commit")}
    return {"values": row["ours"]["values"] if row["ours"] else [], **kept}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Others wait: parts of a target may end at the same moment. A file system without locks lets them all in."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def best(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row an id: of the largest budget that ran."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: ORDER.index(row["budget"])):
        found.setdefault(row["id"], row)
    order = list(dict.fromkeys(row["id"] for row in rows))
    return [found[id] for id in order]


def check(row: Mapping[str, Any]) -> None:
    """Raises ValueError unless the row is whole and its numbers agree with each other."""
    id = row.get("id", "a row")
    if missing := [name for name in FIELDS if name not in row]:
        raise ValueError(f"{id} lacks {', '.join(missing)}.")
    if row["budget"] not in ORDER:
        raise ValueError(f"{id}: budget is {row['budget']!r}, one of {', '.join(ORDER)} is expected.")
    if row["budget"] in ("exact", "none") and row["seeds"]:
        raise ValueError(f"{id}: a row of budget {row['budget']} has seeds {row['seeds']}, none are expected.")
    if row["budget"] in BUDGETS and len(row["seeds"]) + len(row["failed_seeds"]) < 3 and row["budget"] != "smoke":
        raise ValueError(f"{id} has seeds {row['seeds']}: at least three are expected.")
    if row["budget"] in BUDGETS and digest(None) in (row["data_sha256"], row["config_sha256"]) and row["seeds"]:
        raise ValueError(f"{id} has the digest of no data or no config, though it has seeds.")
    if row["ours"] is None:
        return
    again = summary(row["ours"]["values"])
    for name, value in again.items():
        if name != "values" and not math.isclose(row["ours"][name], value, rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"{id}: {name} is {row['ours'][name]}, but its values give {value}.")
    if row["budget"] in BUDGETS and again["n"] != len(row["seeds"]):
        raise ValueError(f"{id}: {again['n']} values of {len(row['seeds'])} seeds.")


def agrees(row: Mapping[str, Any], entry: Entry) -> None:
    """Raises ValueError unless the row's texts and verdict are what its entry makes of its values.

    One by a rule that has changed since is not asked: the report says so of it.
    """
    if row["rule_sha256"] != entry.sha256:
        return
    for name, text in _published(entry).items():
        if row[name] != text:
            raise ValueError(f"{row['id']}: {name} is {row[name]!r}, but published.toml has {text!r}.")
    if row["budget"] == "none":
        expected = {not_run(entry)["verdict"]}
    else:
        values = row["ours"]["values"] if row["ours"] else []
        failed = len(row["failed_seeds"])
        found = (entry.verdict(values, row["steps"], flat=flat, failed=failed) for flat in (False, True))
        expected = {entry.with_early(verdict, row["steps"]) for verdict in found}
    if row["verdict"] not in expected:
        raise ValueError(
            f"{row['id']}: verdict is {row['verdict']!r}, its values give {' or '.join(sorted(expected))}; results are "
            "written by experiments.reproduce alone."
        )


def git(*words: str) -> str:
    """What git says in this checkout.

    Raises:
        ValueError: no git, no checkout, or an object that is not there.
    """
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ValueError(f"git {' '.join(words)}: {said.strip()}") from error
    return done.stdout.strip()


def commit() -> str:
    """The commit that a result is of.

    Raises:
        ValueError: changes in the package, the scripts or the rules that are in no commit.
    """
    changed = git("status", "--porcelain", "--", "vaegan_jax", "experiments/*.py", "experiments/published.toml")
    if changed:
        files = ", ".join(line.split(maxsplit=1)[1] for line in changed.splitlines()[:3])
        raise ValueError(
            f"A result is of a commit, but {files} {'differ' if ',' in files else 'differs'} from it: commit first."
        )
    return git("rev-parse", "HEAD")


@functools.cache
def _rules_at(commit: str) -> dict[str, dict[str, published.Entry]]:
    return published.read(git("show", f"{commit}:experiments/published.toml"))


def rule_came_first(row: Mapping[str, Any]) -> bool:
    """Whether the row's rule, value and all, stood in published.toml in the commit that the row was run at.

    And its `early`, if it had one, still stands there.

    Raises:
        ValueError: a commit that this checkout does not have.
    """
    target, _, name = row["id"].partition(".")
    entry = _rules_at(row["commit"]).get(target, {}).get(name)
    now = published.entries()[target].get(name)
    kept = entry is None or not entry.early or (now is not None and bool(now.early))  # which only takes agreement away
    return kept and entry is not None and entry.sha256 == row["rule_sha256"]
