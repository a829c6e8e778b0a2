"""Runs a paper's experiments: python -m experiments.reproduce NAME [--budget cpu] [--parts A B] [--seeds 0 1 2]

Prints the parts, rows and steps, runs what is not done yet, and writes experiments/results/NAME.json, tables and
figures. The same command goes on where it was stopped. `smoke` writes to its workdir alone.
"""

import argparse
import importlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import common
from experiments.reproduce import BUDGETS, TARGETS, published, results
from experiments.reproduce.job import Job, Part
from vaegan_jax.data.dataset import DataError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument(
        "--budget", choices=BUDGETS, default="cpu", help="default %(default)s: minutes (dirac) to 11 hours of one core"
    )
    parser.add_argument("--parts", nargs="+", help="default all; --list names them")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 2 for smoke, 3 or more for cpu, 10 for paper")
    parser.add_argument("--workdir", type=Path, help="default runs/reproduce-NAME-BUDGET")
    parser.add_argument("--data-dir", type=Path, help="the cache of data, as in the training scripts")
    parser.add_argument("--out", type=Path, help="default experiments/results; for smoke the workdir's results")
    parser.add_argument("--commit", help="what the results are of, where there is no git (say what you copied)")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    parser.add_argument("--quiet", action="store_true", help="no progress of trainings")
    flags = parser.parse_args(argv)
    try:
        return run(flags)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"experiments.reproduce: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return common.INTERRUPTED


def run(flags: Any) -> int:
    module = importlib.import_module(f"experiments.reproduce.{flags.target}")
    parts: dict[str, Part] = {part.name: part for part in module.PARTS}
    known = published.entries()[flags.target]
    wanted = flags.parts or list(parts)
    if unknown := [name for name in wanted if name not in parts]:
        raise ValueError(f"{flags.target} has no part {unknown[0]!r}: give some of {', '.join(parts)}.")
    seeds = {name: tuple(flags.seeds or parts[name].seeds(flags.budget)) for name in wanted}
    if flags.seeds and (len(set(flags.seeds)) < len(flags.seeds) or (flags.budget != "smoke" and len(flags.seeds) < 3)):
        raise ValueError(f"seeds are {flags.seeds}: give at least three, each once (two for smoke).")
    workdir = flags.workdir or Path("runs") / f"reproduce-{flags.target}-{flags.budget}"
    out = flags.out or (workdir / "results" if flags.budget == "smoke" else results.FOLDER)
    print(f"{flags.target}, budget {flags.budget}, in {workdir}")
    for name in wanted:
        print(f"  {name}: {parts[name].says(flags.budget)}")
        print(f"    rows: {', '.join(parts[name].rows)}; seeds {' '.join(map(str, seeds[name]))}")
    if flags.list:
        return 0
    commit = flags.commit or (results.commit() if flags.budget != "smoke" else "smoke")
    common.use_compilation_cache()
    if flags.budget == "paper":
        import jax

        if jax.default_backend() == "cpu":
            print("Budget paper takes weeks on a CPU, and that is all that JAX has here.", file=sys.stderr)
    stopped = False
    for name in wanted:
        rows: list[dict[str, Any]] = []
        try:
            rows = _part(parts[name], flags, seeds[name], workdir / name, out, commit, known)
        except DataError as error:  # the other parts need not wait for a file
            stopped |= flags.parts is not None  # who names a part wants it
            print(f"{name}: not run: {error}", file=sys.stderr)
        except (ValueError, FloatingPointError) as error:  # nor for a folder of others, or that another process has
            stopped = True
            print(f"{name}: stopped: {error}", file=sys.stderr)
        results.merge(flags.target, rows, out)
        for row in rows:
            print(f"{row['id']}: {_said(row)}")
    print(f"written: {results.path(flags.target, out)}; the report: python -m experiments.reproduce.report")
    return int(stopped)


def _part(
    part: Part, flags: Any, seeds: tuple[int, ...], workdir: Path, out: Path, commit: str, known: dict[str, Any]
) -> list[dict[str, Any]]:
    """The part's rows: of its file, if it is done, else run now."""
    from experiments.bench import machine

    asked = {
        "budget": flags.budget, "seeds": list(seeds), "rules": [known[name].sha256 for name in part.rows],
        "work": part.says(flags.budget),  # its steps are there, which no rule has
    }  # fmt: skip
    done = workdir / "outcome.json"
    if done.exists():
        before = json.loads(done.read_text())
        if before["asked"] == asked:
            print(f"{part.name}: done before, in {done}", file=sys.stderr)
            _keep(before["tables"], workdir / "figures", out, flags.target, part.name)
            return before["rows"]
        raise ValueError(
            f"{workdir} holds this part for other seeds, rules or steps: give another --workdir, or remove it."
        )
    job = Job(flags.budget, seeds, workdir, workdir / "figures", flags.data_dir, not flags.quiet, commit)
    job.figures.mkdir(exist_ok=True)
    devices = workdir / "devices.json"  # a part may go on elsewhere
    seen = json.loads(devices.read_text()) if devices.exists() else []
    seen = list(dict.fromkeys([*seen, machine.device_name()]))
    devices.write_text(json.dumps(seen))
    print(f"{part.name}: begun", file=sys.stderr)
    outcome = part.run(job)
    job.tick()
    if set(outcome.rows) != set(part.rows):
        raise ValueError(f"{part.name} measured {sorted(outcome.rows)}, but says that it fills {sorted(part.rows)}.")
    begun, *later = job.commits
    provenance = {
        "wall_seconds": round(job.seconds, 1),
        "device": "; ".join(seen),
        "versions": machine.versions("jax", "flax", "optax"),
        "commit": begun,
    }
    rows = [results.row(known[n], m, budget=flags.budget, provenance=provenance) for n, m in outcome.rows.items()]
    more = [f"its part's network: {judge}" for judge in job.judges]
    more += [f"also worked on at {', '.join(c[:7] for c in later)}"] if later else []
    for row in rows:
        row["note"] = "; ".join(filter(None, [row["note"], *more]))
    tables = {
        "tables": [
            {"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in outcome.tables
        ],
        "figures": dict(outcome.figures),
        **({"curves": dict(outcome.curves)} if outcome.curves else {}),
        "budget": flags.budget,
    }
    done.write_text(json.dumps({"asked": asked, "rows": rows, "tables": tables}, indent=1, allow_nan=False) + "\n")
    _keep(tables, job.figures, out, flags.target, part.name)
    return rows


def _keep(tables: dict[str, Any], figures: Path, out: Path, target: str, part: str) -> None:
    """Puts tables and figures of a part where the report finds them, unless a bigger budget's are there."""
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{part}.json"
    if file.exists() and BUDGETS.index(json.loads(file.read_text())["budget"]) > BUDGETS.index(tables["budget"]):
        return
    file.write_text(json.dumps(tables, indent=1, allow_nan=False) + "\n")
    for name in tables["figures"]:
        shutil.copyfile(figures / name, folder / name)


def _said(row: dict[str, Any]) -> str:
    ours = row["ours"]
    if ours is None:
        return row["verdict"]
    spread = f" +- {ours['sd']:.3g} (n = {ours['n']})" if row["seeds"] else ""
    return f"{ours['mean']:.5g}{spread}; {row['verdict']}"


if __name__ == "__main__":
    sys.exit(main())
