"""What a whole run costs beyond its steps: fit with its files against bare steps, and a script's first step."""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.bench import machine, ours, tasks
from experiments.bench.table import judged, spread

SCRIPTS = ("vae", "gan", "dcgan", "wgan", "vaegan")


def fit_against_bare(source: str, steps: int, repeats: int) -> tuple[list[float], list[float]]:
    """(bare seconds / fit's seconds for the same number of VAE steps, the seconds that fit takes to start); either
    order by turns.

    fit's clock starts at its first stop, after a fifth of the steps, where no later chunk has been begun: before are
    compilation and chunks that grow, which are its start, less what so many bare steps take. It logs every 100 steps;
    five checkpoints and pictures are in the time.
    """
    from vaegan_jax import fit

    algorithm, config = tasks.ours("vae")
    x = tasks.images(source)
    advance = ours.build("vae", "scan", x, 0)
    advance(steps // 5)
    found, starts = [], []
    first = steps // 5

    def whole() -> float:
        begun, called = math.nan, time.perf_counter()

        def note(step: int, _: Any) -> None:
            nonlocal begun
            begun = time.perf_counter() if step == first else begun

        with tempfile.TemporaryDirectory() as folder:
            every: dict[str, Any] = {"checkpoint_every": first, "log_every": min(100, first)}
            fit.fit(algorithm, config, x, steps=steps, progress=False, workdir=folder, write=[note], **every)
            starts.append(begun - called)
            return time.perf_counter() - begun

    def bare() -> float:
        begun = time.perf_counter()
        advance(steps - first)
        return time.perf_counter() - begun

    for turn in range(repeats):
        seconds = {f: f() for f in ((whole, bare) if turn % 2 else (bare, whole))}
        found.append(seconds[bare] / seconds[whole])
        starts[-1] -= seconds[bare] * first / (steps - first)
    return found, starts


def first_step_seconds(dataset: str, repeats: int) -> list[float]:
    """From the command `python -m experiments.vae` to the first line of its metrics; the first run warms the cache."""
    found = []
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            metrics = Path(folder) / "metrics.jsonl"
            flags = ["--dataset", dataset, "--steps", "1", "--workdir", folder]
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "experiments.vae", *flags],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
                time.sleep(0.01)
            found.append(time.perf_counter() - begin)
            _, said = process.communicate()
            if process.returncode:
                raise RuntimeError(_why("vae", said))
    return found[1:]


def _why(name: str, said: str) -> str:
    """`experiments.vae failed: ModuleNotFoundError: No module named 'tyro'`"""
    return f"experiments.{name} failed: {(said.strip() or 'no message').splitlines()[-1][:160]}"


# A small process between, as a child's peak starts from what its parent has resident.
WAITER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
print(usage.ru_maxrss)
sys.exit(child.returncode)
"""


def peak_mib(dataset: str, steps: int = 3) -> dict[str, float]:
    """Memory that each script ever had resident, from its start to its pictures and its samples' neighbours.

    How many steps it trains does not matter: the chunk is compiled for the longest one, and here it is compiled.
    """
    found = {}
    for name in SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--dataset", dataset, "--steps", str(steps), "--workdir", f"{folder}/run"]
            waiter = subprocess.run(
                [sys.executable, "-c", WAITER, sys.executable, "-m", f"experiments.{name}", *flags],
                capture_output=True,
                text=True,
                env=os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"},
            )
        if waiter.returncode:
            raise RuntimeError(_why(name, waiter.stderr))
        found[name] = machine.mib(int(waiter.stdout))
    return found


def rows(
    source: str, repeats: int, steps: int = 5000, say: Callable[[str], Any] = lambda text: None
) -> list[dict[str, Any]]:
    """A row each; where a package is missing or a script fails, the row says so and the others go on."""
    middle = statistics.median
    memory = jax.default_backend() == "cpu"  # elsewhere the host's is not what is short
    kinds: list[tuple[str, str, str, Callable[[], Any], Callable[[Any], tuple[list[float], str, Any]]]] = [
        (
            "fit, after its first fifth", "its own bare steps", "0.95",
            lambda: fit_against_bare(source, steps, repeats),
            lambda found: (
                found[0],
                f"{spread(found[0])}, once it has started, which takes {spread(found[1], 1)} s",
                judged(found[0], 0.95)[1],
            ),
        ),
        (
            "experiments.vae, first step", "wall time, warm compilation cache", "under 6 s",
            lambda: first_step_seconds(source, repeats),
            lambda found: (found, f"{spread(found, 1)} s", middle(found) < 6),
        ),
        (
            "the five scripts, peak memory", "resident, with test and pictures", "under 1.5 GB (1,430 MiB)",
            lambda: peak_mib(source),
            lambda found: (
                list(found.values()),
                ", ".join(f"{name} {value:,.0f}" for name, value in found.items()),
                max(found.values()) < 1.5e9 / 2**20 if memory else None,
            ),
        ),
    ]  # fmt: skip
    result = []
    for task, against, least, measure, says in kinds[: 1 if source == "random" else None]:  # scripts take real data
        say(task)
        try:
            values, text, met = says(measure())
        except (ImportError, RuntimeError) as error:
            values, text, met = [], f"not run: {error}", None
        result.append({"task": task, "against": against, "least": least, "values": values, "text": text, "met": met})
    return result
