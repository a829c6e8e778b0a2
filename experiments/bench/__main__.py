"""`make bench`: python -m experiments.bench [--tasks vae gan] [--repeats 7] [--data mnist] [--out PATH]

Times our steps and the alternatives in turn, prints the table and writes results/<device>.json;
experiments.bench.table then writes the README's part and REPORT.md's.
Needs the extra `bench`; a contender that is not installed is named and left out. What --tasks and --no-wholes leave out
stays in the file as it was measured, with the heading of its run.
"""

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import contest, curves, machine, table, tasks
from experiments.bench.record import Record

PACKAGES = ("jax", "flax", "optax", "torch", "numpyro", "pythae")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__.splitlines()[2])
    parser.add_argument("--tasks", nargs="+", choices=tasks.TASKS, default=list(tasks.TASKS))
    parser.add_argument("--contenders", nargs="+", choices=tasks.CONTENDERS, default=None)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender (at least 5 for a result)")
    parser.add_argument("--turn", type=float, default=1.5, help="seconds of a turn")
    parser.add_argument("--loss-steps", type=int, default=None, help="steps of the loss curves; default 200")
    parser.add_argument("--data", choices=["mnist", "random"], help="default mnist, or random where it is not found")
    parser.add_argument("--no-wholes", action="store_true", help="leave out fit's whole run and the script's start")
    parser.add_argument(
        "--accelerator-seconds", type=float, default=400, help="after so many, no part of the accelerator's is begun"
    )
    parser.add_argument("--out", type=Path, default=None, help="default experiments/bench/results/<device>.json")
    flags = parser.parse_args(argv)
    if flags.repeats < 1:
        print(f"experiments.bench: repeats is {flags.repeats}: give 1 or more.", file=sys.stderr)
        return 1

    # Every contender is a process of its own on the same device: none may take its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        images = tasks.images(flags.data or "mnist")
    except (ValueError, OSError, ImportError) as error:
        if flags.data:
            say(f"experiments.bench: {error} Or give --data random: steps cost the same.")
            return 1
        say(f"No MNIST, so random images, with which steps cost the same: {error}")
        flags.data, images = "random", tasks.images("random")
    flags.data = flags.data or "mnist"
    name = machine.device_name()
    peaks, loads = [_peak()], [machine.load()]
    try:
        jax.devices("cpu")
    except RuntimeError:
        say("experiments.bench: operations are counted in the CPU's programs: let JAX_PLATFORMS have cpu in it too.")
        return 1
    say(f"{name}: GEMM peak {peaks[0]:,.0f} GFLOP/s, {machine.cores()} threads each, load {loads[0]:.1f}")
    out = flags.out or table.RESULTS / f"{machine.slug(name)}.json"
    run = {"date": time.strftime("%Y-%m-%d"), "commit": machine.commit(), "versions": machine.versions(*PACKAGES)}
    record = Record(out, name, machine.cores(), **run, repeats=flags.repeats, source=flags.data)

    def keep(part: str, rows: Any) -> None:
        unrest = machine.unrest(peaks, loads)
        record.keep(part, rows, gemm_gflops=max(peaks), quiet=not unrest, unrest=unrest)

    for task in (tasks.TASKS[name] for name in flags.tasks):
        wanted = [c for c in task.contenders if flags.contenders is None or c in flags.contenders]
        entries = contest.run(
            task,
            source=flags.data,
            repeats=flags.repeats,
            turn=flags.turn,
            loss_steps=flags.loss_steps,
            contenders=wanted,
            log=out.with_suffix(".log"),
            peak=_peak,
            say=say,
        )
        log = out.with_suffix(".log")
        again = functools.partial(contest.curves, task, source=flags.data, seeds=(1, 2), log=log)
        own = next((entry.peaks for entry in entries if entry.contender == "ours"), [])
        peaks += own or [_peak()]
        keep(task.name, {"gflop": gflop(task.name), "peaks": own, "entries": entry_rows(entries, again)})
    if not flags.no_wholes:
        from experiments.bench import wholes

        rows = wholes.rows(flags.data, max(5, flags.repeats), say=say)
        named = {row["task"] for row in rows}
        keep("wholes", [*rows, *(row for row in record.result["wholes"] if row["task"] not in named)])
    if jax.default_backend() != "cpu":
        from experiments.bench import accelerator
        from vaegan_jax.data.dataset import Dataset

        plan = accelerator.Plan(Dataset(images), real=flags.data != "random")
        accelerator.measure(
            plan, budget=flags.accelerator_seconds, say=say, keep=functools.partial(keep, "accelerator")
        )
    result = record.result
    print(f"{table.headings(result)}\n\n{table.text(table.targets(result))}\n\n{table.text(table.contenders(result))}")
    print(f"\nwritten: {out}; into README and REPORT.md: python -m experiments.bench.table")
    return 0


def _peak() -> float:
    """GFLOP/s of a product that is large enough for the device: a GPU does the CPU's in microseconds."""
    import jax

    return machine.gemm_gflops(2048 if jax.default_backend() == "cpu" else 8192)


def gflop(name: str) -> float:
    """In the matrix products of one of our steps, from its optimised program for a CPU."""
    import jax
    import jax.numpy as jnp

    algorithm, config = tasks.ours(name)
    with jax.default_device(jax.devices("cpu")[0]):
        state = algorithm.init(config, jax.random.key(0), (28, 28, 1))
        front = (config.batches_per_step,) * (config.batches_per_step > 1)
        batch = {"x": jnp.zeros((*front, config.batch_size, 28, 28, 1), jnp.uint8)}
        return machine.flops(algorithm.train_step.lower(config, state, batch, jax.random.key(1)).compile()) / 1e9


def entry_rows(
    entries: list[contest.Entry], again: Callable[[int], Sequence[np.ndarray]] = lambda steps: ()
) -> list[dict[str, Any]]:
    """A row an entry. again(steps): ours with other seeds, asked for if losses differ by more than one curve's noise"""
    first = next((e.losses for e in entries if e.contender == "ours"), None)
    ours = [] if first is None else [first]
    found = {e.contender: curves.compare(ours, e.losses) for e in entries if e.contender != "ours"}
    if any(each["agrees"].startswith("no") for each in found.values()):
        ours += again(len(ours[0]))
        found = {e.contender: curves.compare(ours, e.losses) for e in entries if e.contender != "ours"}
    for each in found.values():
        if each["agrees"] == "yes" and each["steps"] < len(ours[0]):
            each["agrees"] = f"yes, {each['steps']} steps"
    return [_row(entry, found.get(entry.contender, {"agrees": "-"})) for entry in entries]


def _row(entry: contest.Entry, losses: dict[str, Any]) -> dict[str, Any]:
    return {
        "contender": entry.contender,
        "milliseconds": [round(ms, 4) for ms in entry.milliseconds],
        "beside": [round(ms, 4) for ms in entry.beside],
        "compile": _rounded(entry.compile),
        "start": _rounded(entry.start),
        "peak_mib": _rounded(entry.peak_mib),
        "trouble": entry.trouble,
        "agrees": losses["agrees"],
        "losses": losses,
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)


if __name__ == "__main__":
    sys.exit(main())
