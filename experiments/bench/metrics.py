"""`make bench-metrics`: python -m experiments.bench.metrics [--rows parzen frechet] [--out PATH]

Times the metrics beside scikit-learn, scipy, prdc and torchmetrics on the same arrays, in turns; what is not installed
is named. Writes results/metrics/<device>.json and, with every row at full size, REPORT.md's part.
"""

import argparse
import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import pages
from experiments.bench import machine, table

Call = Callable[[], Any]
REPEATS = 3
PATIENCE = 60.0  # seconds: what takes longer is timed once


@dataclasses.dataclass(frozen=True)
class Task:
    """One metric at one size. limit: seconds on two cores that ours must stay under; build(shrink) -> name -> call."""

    title: str
    limit: float | None
    build: Callable[[int], dict[str, Call]]


def _parzen(shrink: int) -> dict[str, Call]:
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp

    from vaegan_jax import metrics

    rng = np.random.default_rng(0)
    a, b = (rng.uniform(size=(10_000 // shrink, 784)).astype(np.float32) for _ in range(2))
    sigma = 0.2

    def scipys() -> Any:
        blocks = (cdist(b[i : i + 1000], a, "sqeuclidean") for i in range(0, len(b), 1000))
        constant = math.log(len(a)) + 392 * math.log(2 * math.pi * sigma**2)
        return np.concatenate([logsumexp(-d / (2 * sigma**2), axis=1) - constant for d in blocks])

    # scikit-learn's KernelDensity is no peer: at 784 dimensions its tree gives most points the density of a centre.
    return {"vaegan_jax": lambda: metrics.parzen_log_likelihood(a, b, sigma), "scipy, cdist": scipys}


def _frechet(shrink: int) -> dict[str, Call]:
    from vaegan_jax import metrics

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(256, 256)) / 16
    a, b = (rng.normal(size=(10_000 // shrink, 256)) @ mix + shift for shift in (0.0, 0.1))

    def scipys() -> Any:
        from scipy.linalg import sqrtm

        s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        shift = a.mean(0) - b.mean(0)
        return shift @ shift + np.trace(s + t - 2 * np.real(sqrtm(s @ t)))

    def torchmetrics() -> Any:
        import torch
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(_as_is(256)).set_dtype(torch.float64)
        metric.update(torch.from_numpy(a), real=True)
        metric.update(torch.from_numpy(b), real=False)
        return float(metric.compute())

    return {
        "vaegan_jax": lambda: metrics.frechet_distance(a, b),
        "scipy, sqrtm": scipys,
        "torchmetrics": torchmetrics,
    }


def _precision_recall(shrink: int) -> dict[str, Call]:
    from vaegan_jax import metrics

    real, fake = _pair(10_000 // shrink, 128)

    def sklearns() -> Any:
        from sklearn.neighbors import NearestNeighbors

        found = []
        for x, y in ((real, fake), (fake, real)):
            index = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(x)
            radius = index.kneighbors(x)[0][:, 3]
            # Whether any ball holds y: scikit-learn has no query for that, so every distance.
            from sklearn.metrics import pairwise_distances_chunked

            inside = [(d <= radius).any(axis=1) for d in pairwise_distances_chunked(y, x)]
            found.append(np.concatenate(inside).mean())
        return found

    return {
        "vaegan_jax": lambda: metrics.precision_recall(real, fake),
        "scikit-learn": sklearns,
        "prdc (density, coverage too)": lambda: _prdc(real, fake, 3),
    }


def _density_coverage(shrink: int) -> dict[str, Call]:
    from vaegan_jax import metrics

    real, fake = _pair(10_000 // shrink, 128)
    return {
        "vaegan_jax": lambda: metrics.density_coverage(real, fake),
        "prdc (precision, recall too)": lambda: _prdc(real, fake, 5),
    }


def _kernel(shrink: int) -> dict[str, Call]:
    from vaegan_jax import metrics

    real, fake = _pair(10_000 // shrink, 256)
    size = 1000 // shrink

    def torchmetrics() -> Any:
        import torch
        from torchmetrics.image.kid import KernelInceptionDistance

        metric = KernelInceptionDistance(_as_is(256), subsets=100, subset_size=size)
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(fake), real=False)
        return [float(v) for v in metric.compute()]

    return {
        "vaegan_jax": lambda: metrics.kernel_distance(real, fake, subset_size=size),
        "torchmetrics": torchmetrics,
    }


def _neighbor(shrink: int) -> dict[str, Call]:
    from vaegan_jax import metrics

    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (n // shrink, 784), np.uint8) for n in (60_000, 10_000))
    x_label, y_label = (rng.integers(0, 10, len(v)) for v in (x, y))

    def sklearns() -> Any:
        from sklearn.neighbors import KNeighborsClassifier

        index = KNeighborsClassifier(1, algorithm="brute").fit(x / np.float32(255), x_label)
        return 1 - index.score(y / np.float32(255), y_label)

    return {
        "vaegan_jax": lambda: metrics.nearest_neighbor_error(x, x_label, y, y_label),
        "scikit-learn": sklearns,
    }


def _importance(shrink: int) -> dict[str, Call]:
    import jax
    import jax.numpy as jnp

    from vaegan_jax import metrics, vae

    config = vae.Config()
    state = vae.init(config, jax.random.key(0), (28, 28, 1))
    images = np.random.default_rng(0).uniform(size=(1000 // shrink, 28, 28, 1)) < 0.2
    x = jnp.asarray(images, jnp.float32)
    mean, log_var = vae.encode(config, state, x)
    density = functools.partial(vae.log_likelihood, config, state)
    draws = 5000 // shrink

    def ours() -> Any:
        return metrics.importance_log_likelihood(density, x, mean, log_var, jax.random.key(1), samples=draws)

    return {"vaegan_jax": lambda: np.asarray(ours())}


TASKS = {
    "parzen": Task("Parzen window, 10k x 10k x 784", 15, _parzen),
    "frechet": Task("Frechet distance, 10k x 256", 2, _frechet),
    "pr": Task("Precision and recall, 10k x 10k x 128", 10, _precision_recall),
    "dc": Task("Density and coverage, 10k x 10k x 128", None, _density_coverage),
    "kernel": Task("Kernel distance, 100 subsets of 1,000 x 256", None, _kernel),
    "neighbor": Task("1-NN error, 60k against 10k x 784", None, _neighbor),
    "likelihood": Task("Importance likelihood, 1,000 images, k=5,000, 500-unit VAE", 120, _importance),
}


def _pair(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(n, width)).astype(np.float32) for _ in range(2))
    return real, fake


def _as_is(width: int) -> Any:
    """A network for torchmetrics that gives features back as they are."""
    import torch

    class AsIs(torch.nn.Module):
        num_features = width

        def forward(self, x: Any) -> Any:
            return x

    return AsIs()


def _prdc(real: np.ndarray, fake: np.ndarray, k: int) -> Any:
    import contextlib
    import io

    import prdc

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the sizes
        return prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=k)


def measure(task: Task, repeats: int, shrink: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Contender -> {"seconds": [repeats]} in turns, or {"missing": why}. The first call of each is not counted."""
    calls = task.build(shrink)
    found: dict[str, dict[str, Any]] = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        try:
            call()
        except ImportError as error:
            found[name] = {"missing": f"{error.name} is not installed"}
            continue
        first = time.perf_counter() - begin
        found[name] = {"first": first, "seconds": []}
        say(f"{task.title}: {name}: {first:.2f} s at first")
    timed = [name for name in found if "seconds" in found[name]]
    for turn in range(repeats):
        for name in timed:
            if turn and found[name]["first"] > PATIENCE:
                continue
            begin = time.perf_counter()
            calls[name]()
            found[name]["seconds"].append(time.perf_counter() - begin)
    return found


def lines(result: dict[str, Any]) -> str:
    """Markdown: a line a metric and contender."""
    text = ["| metric | by | seconds: median (range) | ours is faster by | at most |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        ours = float(np.median(row["found"]["vaegan_jax"]["seconds"]))
        for name, found in row["found"].items():
            if "missing" in found:
                text.append(f"| {row['title']} | {name} | {found['missing']} | - | - |")
                continue
            seconds = found["seconds"]
            middle = float(np.median(seconds))
            shown = f"{middle:.2f} ({min(seconds):.2f}-{max(seconds):.2f})" if len(seconds) > 1 else f"{middle:.2f}"
            own = name == "vaegan_jax"
            limit = "-"
            if own and row["limit"] is not None:
                limit = f"{row['limit']:g} s: {'kept' if middle < row['limit'] else 'not kept'}"
            text.append(f"| {row['title']} | {name} | {shown} | {'-' if own else f'{middle / ours:.1f}'} | {limit} |")
    return "\n".join([*text, "", f"{result['device']}; {result['versions']}."])


def main(argv: Sequence[str] | None = None) -> int:
    doc = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.metrics", description=doc[2])
    parser.add_argument("--rows", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--shrink", type=int, default=1, help="divides every size: to see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="default results/metrics/<device>.json here")
    parser.add_argument("--check", action="store_true", help="only say whether REPORT.md's table is that of results")
    flags = parser.parse_args(argv)
    if flags.check:
        return pages.put("experiments.bench.metrics", page(), check=True, path=pages.BENCH)
    if flags.repeats < 1 or not 1 <= flags.shrink <= 100:
        print(
            f"experiments.bench.metrics: repeats is {flags.repeats}, shrink {flags.shrink}: give 1 or more, and 1 to "
            "100.",
            file=sys.stderr,
        )
        return 1

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows = []
    for name in flags.rows:
        found = measure(TASKS[name], flags.repeats, flags.shrink, say)
        limit = TASKS[name].limit if flags.shrink == 1 else None
        rows.append({"name": name, "title": TASKS[name].title, "limit": limit, "found": found})
    versions = machine.versions("jax", "numpy", "scikit-learn", "scipy", "prdc", "torchmetrics")
    result = {"device": machine.device_name(), "versions": versions, "shrink": flags.shrink, "rows": rows}
    out = flags.out or table.RESULTS / "metrics" / f"{machine.slug(machine.device_name())}.json"
    result["rows"] = _kept(out, result) if out.exists() else rows
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(lines(result))
    say(f"\n{out}")
    if flags.out is None and flags.shrink == 1:
        pages.put("experiments.bench.metrics", page(), check=False, path=pages.BENCH)
    return 0


def _kept(out: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of result, and those measured before of other metrics in the same circumstances."""
    before = json.loads(out.read_text())
    new = {row["name"]: row for row in result["rows"]}
    if any(before[key] != result[key] for key in ("device", "versions", "shrink")):
        return list(new.values())
    old = {row["name"]: row for row in before["rows"]}
    return [found for name in TASKS if (found := new.get(name) or old.get(name))]


def page(folder: Path = table.RESULTS / "metrics") -> str:
    """What REPORT.md says: the tables of all machines."""
    return "\n\n".join(lines(json.loads(file.read_text())) for file in sorted(folder.glob("*.json")))


if __name__ == "__main__":
    sys.exit(main())
