"""The machine under the benchmark: its name, its matrix-product peak, its load; and the operations of a program."""

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]  # where `python -m experiments...` runs


def device_name() -> str:
    """The accelerator's kind, or the processor's with the number of cores that this process may use."""
    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found.group(1).strip() if found else model
    except OSError:
        pass
    return f"{model}, {cores()} core{'s' * (cores() > 1)}"


def cores() -> int:
    """As many threads as every contender gets: one a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def gemm_gflops(size: int = 2048, dtype: str = "float32", seconds: float = 1.0) -> float:
    """The best square matrix product of so many seconds, at least five, GFLOP/s."""
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)  # ones would flatter a GPU's clock
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best, done, end = math.inf, 0, time.perf_counter() + seconds
    while done < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        product(a).block_until_ready()
        best, done = min(best, time.perf_counter() - begin), done + 1
    return 2 * size**3 / best / 1e9


def load() -> float:
    """Processes that were running or waiting over the last minute; nan where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def mib(maxrss: int) -> float:
    """What getrusage calls ru_maxrss (kilobytes, on a Mac bytes) in MiB."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def own_peak_mib() -> float:
    """What this process ever had resident. On Linux ru_maxrss starts from what the parent had when it forked."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
    except (OSError, StopIteration):
        return mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def unrest(peaks: list[float], loads: list[float]) -> str:
    """Why the machine was not quiet, by its GEMM peaks and loads over a benchmark; "" where it was."""
    found = []
    if min(peaks) < 0.9 * max(peaks):
        found.append(f"its GEMM peak moved between {min(peaks):,.0f} and {max(peaks):,.0f} GFLOP/s")
    if loads[0] > 0.5 * cores():
        found.append(f"the load was {loads[0]:.1f} at the start")
    return "; ".join(found)


def versions(*packages: str) -> str:
    """`jax 0.10.2, flax 0.12.8`, of those that are installed."""
    found = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def commit() -> str:
    """Of the code that is timed: `dbfd5b8`, or `dbfd5b8, changed`; "" outside a repository."""
    here: Any = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
    try:
        name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **here).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", ":/vaegan_jax", ":/experiments/*.py"], **here)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ", changed" * bool(changed.stdout.strip())


_DEFINITION = re.compile(r"%([\w.-]+) = \(?\w+\[([\d,]*)\]")
_PRODUCT = re.compile(r"%[\w.-]+ = \w+\[([\d,]*)\]\S* (dot|convolution)\(%([\w.-]+), %([\w.-]+)\)(.*)")
_CONSTANT = re.compile(r"%([\w.-]+) = \S+ (?:fusion\(\)|constant\(|broadcast\(%constant)")
_WHILE = re.compile(r" while\(.*body=%([\w.-]+).*known_trip_count\D+(\d+)")
_CALLS = re.compile(r"(?:calls|to_apply|body)=%([\w.-]+)")


def flops(compiled: Any) -> float:
    """Floating-point operations in the matrix products and convolutions of a compiled program for the CPU.

    Of the optimised program, so what nobody reads is not counted; a loop counts as often as it turns. A product with a
    constant is a sum in disguise (layers.py: ones), and not counted either.
    """
    text = compiled.as_text()
    shapes = {name: _shape(dims) for name, dims in _DEFINITION.findall(text)}
    constants = set(_CONSTANT.findall(text))
    own: dict[str, float] = {}
    calls: dict[str, list[tuple[str, int]]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            head = line.split()
            current = head[1 if head[0] == "ENTRY" else 0].lstrip("%").split("(")[0]
            entry = current if head[0] == "ENTRY" else entry
            own[current], calls[current] = 0.0, []
            continue
        if (product := _PRODUCT.search(line)) and constants.isdisjoint(product.group(3, 4)):
            own[current] += _product_flops(product, shapes)
        loop = _WHILE.search(line)
        for callee in _CALLS.findall(line):
            calls[current].append((callee, int(loop.group(2)) if loop and loop.group(1) == callee else 1))

    def total(name: str) -> float:
        return own.get(name, 0.0) + sum(times * total(callee) for callee, times in calls.get(name, []))

    return total(entry)


def _shape(dims: str) -> tuple[int, ...]:
    return tuple(int(d) for d in dims.split(",") if d)


def _product_flops(product: re.Match[str], shapes: dict[str, tuple[int, ...]]) -> float:
    out, kind, left, right, rest = product.groups()
    if kind == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        inner = math.prod(shapes[left][d] for d in _shape(found.group(1) if found else ""))
    else:
        labels = re.search(r"dim_labels=\w+_(\w+)->", rest)
        kernel = shapes[right]
        inner = math.prod(kernel) // kernel[labels.group(1).index("o")] if labels else 0
    return 2.0 * math.prod(_shape(out)) * inner
