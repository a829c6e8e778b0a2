"""The convolutions apart: python -m experiments.bench.layers [--turns 5]

The three products of each convolution of Radford et al.'s 28x28 nets, in a compiled loop as training has them, beside
XLA's own in the same loop, PyTorch's (the better of both layouts; the extra `bench`) and the GEMM peak. Each turn is a
process of each, in turn. Writes results/layers/<device>.json and REPORT.md's part.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.bench import machine, table

FOLDER = table.RESULTS / "layers"
LAYERS = ((28, 1, 64), (14, 64, 128))
"""Pixels a side and channels of the larger image, channels of the smaller one: 5x5, stride 2."""
BATCHES = (64, 128)
PRODUCTS = {"convolve": "forward", "correlate": "gradient in the kernel", "spread": "transposed"}
DCGAN = {LAYERS[0]: (4, 3, 3), LAYERS[1]: (4, 3, 5)}
"""Of each of PRODUCTS, in a step of 128 images: D sees real images and two batches of fakes, G makes these."""
CONTENDERS = {"ours": "vaegan_jax", "xla": "XLA's own", "torch": "PyTorch"}
LOOP = 10  # products that follow each other; XLA's own take seconds each: two
Row = dict[str, Any]


def cases() -> list[tuple[int, int, int, int, str]]:
    """(batch, *layer, product)."""
    return [(batch, *layer, product) for layer in LAYERS for batch in BATCHES for product in PRODUCTS]


def gflop(batch: int, size: int, channels: int, features: int) -> float:
    """Of each of the three products, those with the zeros of padding included."""
    return 2e-9 * batch * (size // 2) ** 2 * 25 * channels * features


def _jax(own: bool) -> Callable[..., Callable[[], float]]:
    """(a case) -> a function that gives the seconds of one product."""
    import jax
    import jax.numpy as jnp

    from vaegan_jax import convolution
    from vaegan_jax.loop import compiler_options

    def build(batch: int, size: int, channels: int, features: int, product: str) -> Callable[[], float]:
        geo = convolution.geometry((size, size), (5, 5), (2, 2), "SAME")
        op = getattr(convolution, f"_{product}_native" if own else product)
        one, two = jax.random.split(jax.random.key(0))
        x, g, w = (batch, size, size, channels), (batch, *geo.out, features), (5, 5, channels, features)
        first, second = {"convolve": (x, w), "correlate": (x, g), "spread": (g, w)}[product]
        count = 2 if own else LOOP
        many, other = jax.random.normal(one, (count, *first)), jax.random.normal(two, second)
        out = jax.eval_shape(lambda a, b: op(geo, a, b), many[0], other)

        def loop(many: jax.Array, other: jax.Array) -> jax.Array:
            # The last one's result is carried, so that each is computed and none is added up.
            return jax.lax.scan(lambda _, a: (op(geo, a, other), None), jnp.zeros(out.shape, out.dtype), many)[0]

        program = jax.jit(loop, compiler_options=compiler_options())
        program(many, other).block_until_ready()

        def timed() -> float:
            begin = time.perf_counter()
            program(many, other).block_until_ready()
            return (time.perf_counter() - begin) / count

        return timed

    return build


def _torch() -> Callable[..., Callable[[], float]]:
    import torch

    torch.set_num_threads(machine.cores())

    def build(batch: int, size: int, channels: int, features: int, product: str) -> Callable[[], float]:
        def call(layout: Any) -> Callable[[int], Any]:
            def many(*shape: int) -> list[Any]:  # as ours: no operand is in the caches from the product before
                return [torch.randn(*shape).to(memory_format=layout) for _ in range(LOOP)]

            xs, gs = many(batch, channels, size, size), many(batch, features, size // 2, size // 2)
            w = torch.randn(features, channels, 5, 5).to(memory_format=layout)
            if product == "convolve":
                return lambda i: torch.nn.functional.conv2d(xs[i], w, stride=2, padding=2)
            if product == "spread":
                return lambda i: torch.nn.functional.conv_transpose2d(gs[i], w, stride=2, padding=2, output_padding=1)
            sides: Any = ([2, 2], [2, 2], [1, 1], False, [0, 0], 1, [False, True, False])
            return lambda i: torch.ops.aten.convolution_backward(gs[0], xs[i], w, None, *sides)

        calls = [call(layout) for layout in (torch.contiguous_format, torch.channels_last)]

        def seconds(one: Callable[[int], Any]) -> float:
            begin = time.perf_counter()
            for i in range(LOOP):
                one(i)
            return (time.perf_counter() - begin) / LOOP

        def timed() -> float:
            with torch.no_grad():
                return min(seconds(one) for one in calls)

        timed()
        return timed

    return build


def turn(contender: str) -> Row:
    """{"milliseconds": one a case, "gemm_gflops": the peak, before and after}, in this process."""
    build = _torch() if contender == "torch" else _jax(own=contender == "xla")
    peaks = [machine.gemm_gflops()] if contender == "ours" else []
    found, times = [], 1 if contender == "xla" else 3
    for case in cases():
        timed = build(*case)
        found.append(round(1000 * min(timed() for _ in range(times)), 4))
    peaks += [machine.gemm_gflops()] if contender == "ours" else []
    return {"milliseconds": found, "gemm_gflops": peaks}


def lines(result: Row) -> list[list[str]]:
    """A line a case: ms at the GEMM peak, of each contender, and PyTorch's over ours."""
    names = [name for name in CONTENDERS if result["milliseconds"].get(name)]
    ratio = ["PyTorch's over ours"] * ("torch" in names)
    found = [["layer", "batch", "product", "at the GEMM peak", *(f"{CONTENDERS[name]}, ms" for name in names), *ratio]]
    peak = max(result["gemm_gflops"])
    for i, (batch, size, channels, features, product) in enumerate(cases()):
        own = {name: [each[i] for each in result["milliseconds"][name]] for name in names}
        least = f"{1000 * gflop(batch, size, channels, features) / peak:.2f}"
        times = [f"{statistics.median(values):.2f}" for values in own.values()]
        compared = [table.spread(table.ratios(own["ours"], own["torch"]))] if ratio else []
        title = f"{size}x{size}x{channels} and {size // 2}x{size // 2}x{features}"
        found.append([title, str(batch), PRODUCTS[product], least, *times, *compared])
    return found


def step(result: Row, contender: str) -> float:
    """Milliseconds of the convolutions of one DCGAN step, the sum of its products apart."""
    each = [statistics.median(times) for times in zip(*result["milliseconds"][contender], strict=True)]
    found = dict(zip(cases(), each, strict=True))
    return sum(
        count * found[128, *layer, product]
        for layer, counts in DCGAN.items()
        for product, count in zip(PRODUCTS, counts, strict=True)
    )


def page(folder: Path = FOLDER) -> str:
    """What REPORT.md says."""
    parts = []
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        peaks = result["gemm_gflops"]
        parts.append(
            f"{result['device']}, GEMM peak {max(peaks):,.0f} GFLOP/s (lowest {min(peaks):,.0f}), "
            f"{len(result['milliseconds']['ours'])} turns, {table.stamp(result)}."
        )
        parts.append(table.markdown(lines(result)))
        if {"ours", "torch"} <= result["milliseconds"].keys():
            parts.append(
                f"Those of a DCGAN step together: {step(result, 'ours'):.0f} ms of ours, "
                f"{step(result, 'torch'):.0f} ms of PyTorch's."
            )
    return "\n\n".join(parts) or "Not measured yet."


def measure(turns: int, contenders: Iterable[str] = tuple(CONTENDERS)) -> Row:
    """Raises RuntimeError: a contender that fails, but for one whose library is missing, which is left out."""
    times: dict[str, list[list[float]]] = {name: [] for name in contenders}
    peaks: list[float] = []
    for number in range(turns):
        for name in list(times):
            command = [sys.executable, "-m", "experiments.bench.layers", "--one", name]
            environment = os.environ | {"JAX_PLATFORMS": "cpu"}
            done = subprocess.run(command, cwd=machine.ROOT, env=environment, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                if "No module named" not in last:
                    raise RuntimeError(f"{name} failed: {last}")
                print(f"{CONTENDERS[name]} is left out: {last}", file=sys.stderr)
                del times[name]
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            times[name].append(row["milliseconds"])
            peaks += row["gemm_gflops"]
        print(f"turn {number + 1} of {turns}", file=sys.stderr, flush=True)
    return {
        "device": machine.device_name(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.commit(),
        "versions": machine.versions("jax", "torch"),
        "milliseconds": times,
        "gemm_gflops": [round(peak, 1) for peak in peaks],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON file")
    parser.add_argument("--check", action="store_true", help="only say whether REPORT.md's part is that of results")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)  # a turn, in its process
    flags = parser.parse_args(argv)
    if flags.check:
        return pages.put("experiments.bench.layers", page(), check=True, path=pages.BENCH)
    if flags.turns < 1:
        print(f"experiments.bench.layers: turns is {flags.turns}: give 1 or more.", file=sys.stderr)
        return 1
    if flags.one:
        print(json.dumps(turn(flags.one)))
        return 0
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        result = measure(flags.turns)
    except RuntimeError as error:
        print(f"experiments.bench.layers: {error}", file=sys.stderr)
        return 1
    flags.out.mkdir(parents=True, exist_ok=True)
    file = flags.out / f"{machine.slug(result['device'])}.json"
    file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(f"{table.text(lines(result))}\n\nwritten: {file}")
    return pages.put("experiments.bench.layers", page(), check=False, path=pages.BENCH) if flags.out == FOLDER else 0


if __name__ == "__main__":
    sys.exit(main())
