"""What an accelerator adds: python -m experiments.bench.accelerator [--only PART ...] [--quick] [--images PATH]

seeds         ten seeds side by side against one; for DCGAN under both lowerings of a convolution
schedule      how long each paper's full schedule takes, extrapolated
peak          DCGAN 64x64 at batch 1024: TFLOP/s against the data sheet and against a measured matrix product
scan          the compiled chunk of steps against a host loop over train_step
convolutions  those lowerings layer by layer: forward and both gradients, one seed and ten
bfloat16      against float32: time, and with --images the samples and losses

Needs jax, flax, optax, orbax and numpy alone. Compiled programs are kept (experiments.common): some serve two parts.
"""

import argparse
import dataclasses
import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from experiments.bench import machine, table, tasks
from experiments.bench.ours import METRICS
from experiments.bench.record import Record
from vaegan_jax import convolution, data, gan, nets
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.loop import Loop, compiler_options

Row = dict[str, Any]
Run = Callable[[int], Any]  # run(n) does n steps and waits for them
Times = dict[str, list[float]]  # milliseconds a step, one value a turn

SEED_LIMITS = {"vae": 2.0, "gan": 2.0, "dcgan": 5.0}  # ten seeds may take this many times as long as one
QUALITY_LIMIT = 2.0  # bfloat16 may be this many times as far from float32 as float32's seeds are from each other
PRODUCTS = ("forward", "gradient in x", "gradient in w")
LOSS_FLOOR = 0.025  # of a loss's level: two seeds can end closer than that by chance

# Dense TFLOP/s in (bfloat16, TF32): half of what NVIDIA's data sheets of H100 (SXM), H200 (SXM) and A100 give with
# sparsity. By `device_kind`, as other boards with the same chip are slower.
CHIP_TFLOPS = {
    "NVIDIA H100 80GB HBM3": (989.0, 495.0),
    "NVIDIA H200": (989.0, 495.0),
    "NVIDIA A100-SXM4-80GB": (312.0, 156.0),
}


def figure_1() -> gan.Config:
    """DCGAN's recipe on the 64x64 nets of Radford et al. 2015, figure 1, and a discriminator that mirrors them."""
    return dataclasses.replace(
        gan.dcgan(),
        generator=nets.ConvGenerator(channels=(1024, 512, 256, 128), hidden=()),
        discriminator=nets.ConvDiscriminator(channels=(128, 256, 512, 1024), hidden=()),
        output="tanh",
        batch_size=1024,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured; a test has smaller models. data: uint8 [N, H, W, C], `real` images or random; turn: seconds."""

    data: Dataset
    real: bool
    repeats: int = 5
    turn: float = 0.4
    seeds: int = 10
    quality_steps: int = 1000
    samples: int = 1000
    models: Callable[[str], tuple[Any, Any]] = tasks.ours
    scripts: Callable[[str], common.Script] = lambda name: importlib.import_module(f"experiments.{name}").SCRIPT
    wide: Callable[[], gan.Config] = figure_1
    wide_shape: tuple[int, int, int] = (64, 64, 3)
    gemm: int = 8192


class Steps:
    """Training steps of `seeds` side by side from fresh states: fit's compiled chunk, without its files."""

    def __init__(self, algorithm: Any, config: Any, data: Dataset, seeds: Sequence[int] = (0,)) -> None:
        # The bare step: a jitted one remembers the lowering that it was first traced under.
        bare = SimpleNamespace(train_step=inspect.unwrap(algorithm.train_step))
        init = jax.jit(jax.vmap(lambda key: algorithm.init(config, key, data.x.shape[1:])))
        states = init(jax.vmap(jax.random.key)(jnp.asarray(tuple(seeds))))
        self.loop, self.done = Loop(bare, config, data, states, tuple(seeds)), 0

    def __call__(self, n: int) -> dict[str, np.ndarray]:
        """n more steps; their metrics, name -> [S, n]."""
        parts = []
        for start in range(0, n, self.loop.capacity):
            count = min(self.loop.capacity, n - start)
            parts.append((self.loop.advance(self.done, count), count))
            self.done += count
        jax.block_until_ready(self.loop.states)
        return {name: np.concatenate([np.asarray(m[name])[:, :c] for m, c in parts], axis=1) for name in parts[0][0]}


def host_loop(algorithm: Any, config: Any, data: Dataset) -> Run:
    """The same steps, each dispatched from Python: data on the device, the state donated, no metric waited for."""
    x, key = jnp.asarray(data.x), jax.random.key(0)
    state, done = algorithm.init(config, key, x.shape[1:]), 0
    shape = (config.batches_per_step,) * (config.batches_per_step > 1) + (config.batch_size,)
    draw = np.random.default_rng(0).integers

    def one(state: Any, x: jax.Array, rows: Any, key: jax.Array, i: Any) -> tuple[Any, Any]:
        return algorithm.train_step(config, state, {"x": x[rows]}, jax.random.fold_in(key, i))

    step = jax.jit(one, donate_argnums=0, compiler_options=compiler_options())

    def run(n: int) -> None:
        nonlocal state, done
        for _ in range(n):
            state, _ = step(state, x, draw(len(x), size=shape, dtype=np.int32), key, done)
            done += 1
        jax.block_until_ready(state)

    return run


def in_turns(runs: dict[str, Any], plan: Plan) -> tuple[Times, dict[str, int]]:
    """Each Run's milliseconds a step, in turns A B A B ...; and how many of its steps were timed."""

    def timed(run: Run, n: int) -> float:
        begin = time.perf_counter()
        run(n)
        return time.perf_counter() - begin

    counts = {}
    for name, run in runs.items():
        run(1)  # compiles
        n = 4
        for _ in range(2):  # the first guess is from a few steps alone
            n = max(1, int(n * plan.turn / timed(run, n)))
        counts[name] = n
    times: Times = {name: [] for name in runs}
    for _ in range(plan.repeats):
        for name, run in runs.items():
            times[name].append(1000 * timed(run, counts[name]) / counts[name])
    return times, {name: plan.repeats * n for name, n in counts.items()}


def row(task: str, against: str, values: list[float], text: str, least: str = "-", met: bool | None = None) -> Row:
    """values: numbers of one kind. met: None where there is no target or nothing was measured."""
    return {"task": task, "against": against, "least": least, "values": values, "text": text, "met": met}


def ratio(task: str, against: str, below: list[float], above: list[float], times: Times, limit: float = 0) -> Row:
    """above / below of each turn, which must be at most `limit` where one is given; with the times beside it."""
    found = table.ratios(below, above)
    each = ", ".join(f"{name} {statistics.median(ms):.3g}" for name, ms in times.items())
    target: Any = (f"at most {limit:g}x", statistics.median(found) <= limit) if limit else ()
    return row(task, against, found, f"{table.spread(found)}: {each} ms a step", *target)


def lowering(kind: str) -> Any:
    """Within it convolutions are traced as XLA's own ("native") or as matrix products of patches ("GEMM")."""
    c = convolution
    native = {"convolve": c._convolve_native, "spread": c._spread_native, "correlate": c._correlate_native}
    gemm = {"convolve": c._convolve_patches, "spread": c._spread_cpu, "correlate": c._correlate_patches}
    forms = {"native": native, "GEMM": gemm}[kind].items()
    everywhere: Any = {f"_{name}_{place}": form for name, form in forms for place in ("cpu", "native")}
    return mock.patch.multiple(convolution, **everywhere)


def seeds(plan: Plan, name: str) -> list[Row]:
    """Many seeds against one, for DCGAN against the faster lowering's one: a row for each lowering."""
    algorithm, config = plan.models(name)
    kinds, runs, rows = ("native", "GEMM")[: 2 if name == "dcgan" else 1], {}, []
    for kind in kinds:
        for count in (1, plan.seeds):
            runs[f"{kind} {count}"] = Steps(algorithm, config, plan.data, range(count))
            with lowering(kind):
                runs[f"{kind} {count}"](1)  # traced here, once
    times, _ = in_turns(runs, plan)
    one = min((times[f"{kind} 1"] for kind in kinds), key=statistics.median)
    for kind in kinds:
        title = f"{tasks.TASKS[name].title}, {plan.seeds} seeds" + (f", {kind}" if len(kinds) > 1 else "")
        rows.append(ratio(title, "one seed", one, times[f"{kind} {plan.seeds}"], times, SEED_LIMITS[name]))
    return rows


def convolutions(plan: Plan, name: str) -> list[Row]:
    """Each layer of the discriminator under both lowerings; the generator's are the same products in other roles.

    Above 1, GEMM is faster. Calls are dispatched ahead of results, so a product longer than a dispatch hides the host.
    """
    _, config = plan.models(name)
    net, size, width = config.discriminator, plan.data.x.shape[1], plan.data.x.shape[3]
    against, kinds, rows = f"native, {plan.seeds} seeds", ("native", "GEMM"), []
    sums = dict.fromkeys((*kinds, "the better of both", "native, seed after seed"), 0.0)
    for features in net.channels:
        geo = convolution.geometry((size, size), net.kernel, (2, 2), "SAME")
        shapes = [(size, size, width), (width, features), (*geo.out, features)]
        shapes = [(config.batch_size, *shapes[0]), (*net.kernel, *shapes[1]), (config.batch_size, *shapes[2])]
        for product in PRODUCTS:
            runs = {f"{k} {n}": _product(k, product, geo, shapes, n) for k in kinds for n in (1, plan.seeds)}
            times, _ = in_turns(runs, dataclasses.replace(plan, turn=plan.turn / 4))  # there are many
            native, gemm = (times[f"{kind} {plan.seeds}"] for kind in kinds)
            rows.append(ratio(f"{size}x{size}, {width}-{features}, {product}, GEMM", against, gemm, native, times))
            a, b, alone = (statistics.median(ms) for ms in (native, gemm, times["native 1"]))
            found = (a, b, min(a, b), plan.seeds * alone)
            sums = {kind: total + ms for (kind, total), ms in zip(sums.items(), found, strict=True)}
        size, width = geo.out[0], features
    winner, each = min(kinds, key=lambda k: sums[k]), ", ".join(f"{kind} {ms:.3g}" for kind, ms in sums.items())
    return [*rows, row("all of these, GEMM", against, [sums["native"] / sums["GEMM"]], f"{winner} wins: {each} ms")]


def _product(kind: str, product: str, geo: convolution.Geometry, shapes: Any, seeds: int) -> Run:
    """run(n): n calls of one product; x, w and the cotangent g have an axis of seeds where there are several."""

    def one(x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        y, pull = jax.vjp(lambda x, w: convolution.convolve(geo, x, w), x, w)
        return (y, *pull(g))[PRODUCTS.index(product)]  # the other two are dropped by the compiler

    front, keys = (seeds,) * (seeds > 1), jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (*front, *shape)) for key, shape in zip(keys, shapes, strict=True)]
    call = jax.jit(jax.vmap(one) if front else one, compiler_options=compiler_options())
    with lowering(kind):
        call(*arrays)  # traced here, once

    def run(n: int) -> None:
        for _ in range(n):
            out = call(*arrays)
        out.block_until_ready()

    return run


def in_dtype(config: Any, dtype: str) -> Any:
    """The config with every net computing in `dtype`; parameters stay float32."""
    fields = vars(config).items()
    return dataclasses.replace(config, **{n: net.clone(dtype=dtype) for n, net in fields if isinstance(net, nn.Module)})


def bfloat16(plan: Plan, name: str) -> list[Row]:
    """Time (above 1, bfloat16 is faster), and whether samples and losses are float32's within its seeds' noise."""
    algorithm, config = plan.models(name)
    half, title = in_dtype(config, "bfloat16"), f"{tasks.TASKS[name].title}, bfloat16"
    runs = {"float32": Steps(algorithm, config, plan.data), "bfloat16": Steps(algorithm, half, plan.data)}
    quality = row(f"{title}: quality", "float32's seeds", [], "not checked: no images")
    if plan.real:
        others = [Steps(algorithm, config, plan.data, (seed,)) for seed in (1, 2)]
        full = [statistics_of(plan, name, config, run) for run in (runs["float32"], *others)]
        quality = compare(f"{title}: quality", full, statistics_of(plan, name, half, runs["bfloat16"]))
    times, _ = in_turns(runs, plan)
    return [ratio(title, "float32", times["bfloat16"], times["float32"], times), quality]


def statistics_of(plan: Plan, name: str, config: Any, run: Steps) -> dict[str, Any]:
    """Of a fresh run, trained here: its samples' mean and variance a pixel, its losses over the last quarter."""
    metrics = run(plan.quality_steps)
    x = plan.models(name)[0].sample(config, run.loop.state(0), jax.random.key(7), plan.samples)
    losses = {metric: metrics[metric][0, -max(1, plan.quality_steps // 4) :].mean() for metric in METRICS[name]}
    return {"mean": np.asarray(x).mean(axis=0), "variance": np.asarray(x).var(axis=0), **losses}


def compare(task: str, full: list[dict[str, Any]], half: dict[str, Any]) -> Row:
    """Root mean square distance of `half` from the first of `full` over the largest between two of `full`."""
    if bad := [what for what, value in half.items() if not np.isfinite(value).all()]:
        raise FloatingPointError(f"in bfloat16 {', '.join(bad)} became NaN or infinite")

    def distance(a: dict[str, Any], b: dict[str, Any], what: str) -> float:
        return float(np.sqrt(np.mean((a[what] - b[what]) ** 2)))

    found = {}
    for what in half:
        noise = max(distance(a, b, what) for i, a in enumerate(full) for b in full[:i])
        floor = 0.0 if what in ("mean", "variance") else LOSS_FLOOR * abs(float(full[0][what]))
        found[what] = distance(half, full[0], what) / max(noise, floor, 1e-9)
    text = ", ".join(f"{what} {value:.2f}" for what, value in found.items()) + " of the noise"
    met = max(found.values()) <= QUALITY_LIMIT
    return row(task, "float32's seeds", list(found.values()), text, f"at most {QUALITY_LIMIT:g}x", met)


def dcgan_flops(config: gan.Config, shape: tuple[int, ...]) -> float:
    """Of one alternating step of nets without hidden layers, in their products; taps on the padding count.

    With g and d the forward passes (g0, d0 their first layers), D's step is g + 2d forward, 2d for its weights and
    2 (d - d0) back to them; G's is g + d forward, d back to the image, g for its weights and g - g0 back to them.
    """
    up, down = config.generator.channels, config.discriminator.channels
    taps, side = config.generator.kernel[0] * config.generator.kernel[1], shape[0] // 2 ** len(up)
    ups, downs = zip(up, (*up[1:], shape[2]), strict=True), zip((shape[2], *down[:-1]), down, strict=True)
    g = [config.latents * side**2 * up[0], *((side << i) ** 2 * taps * a * b for i, (a, b) in enumerate(ups))]
    d = [(shape[0] >> i) ** 2 * taps * a * b for i, (a, b) in enumerate(downs, 1)]
    d.append((shape[0] >> len(down)) ** 2 * down[-1])
    return 2.0 * config.batch_size * (4 * sum(g) - g[0] + 8 * sum(d) - 2 * d[0])


def peak(plan: Plan, dtype: str) -> list[Row]:
    """The share of its peak that the chip reaches in a DCGAN step of large images. On a GPU float32 means TF32 here."""
    config, device = in_dtype(plan.wide(), dtype), jax.devices()[0].device_kind
    x = np.random.default_rng(0).integers(0, 256, (2 * config.batch_size, *plan.wide_shape), np.uint8)
    times, _ = in_turns({"step": Steps(gan, config, Dataset(x))}, plan)
    reached = [dcgan_flops(config, plan.wide_shape) / (ms / 1000) / 1e12 for ms in times["step"]]
    measured, sheet = machine.gemm_gflops(plan.gemm, dtype) / 1000, CHIP_TFLOPS.get(device, (0, 0))[dtype == "float32"]
    rows = []
    for against, full in ((f"GEMM {plan.gemm}, measured", measured), ("data sheet, dense", sheet)):
        shares = [value / full for value in reached] if full else []
        text = f"{table.spread(shares)}: {statistics.median(reached):.3g} of {full:.3g} TFLOP/s"
        title = f"DCGAN {plan.wide_shape[0]}x{plan.wide_shape[1]}, batch {config.batch_size}, {dtype}"
        rows.append(row(title, against, shares, text if full else f"not known for {device}"))
    return rows


def scan(plan: Plan, name: str) -> list[Row]:
    """The compiled chunk against a host loop: above 1, the chunk is faster."""
    algorithm, config = plan.models(name)
    runs = {"chunk": Steps(algorithm, config, plan.data), "host": host_loop(algorithm, config, plan.data)}
    times, _ = in_turns(runs, plan)
    return [ratio(f"{tasks.TASKS[name].title}, compiled chunk", "host loop", times["chunk"], times["host"], times)]


def schedule(plan: Plan, name: str) -> list[Row]:
    """Seconds that the steps of a paper's full schedule take, without what fit adds (see wholes)."""
    paper = plan.scripts(name)
    steps = paper.steps["paper"]
    times, counts = in_turns({"step": Steps(paper.algorithm, paper.recipes["paper"](), plan.data)}, plan)
    seconds = [steps * ms / 1000 for ms in times["step"]]
    unit, length = ("h", 3600) if statistics.median(seconds) >= 7200 else ("min", 60)
    text = f"{table.spread([s / length for s in seconds])} {unit}, extrapolated from {counts['step']:,} measured steps"
    return [row(f"experiments.{name}, paper's schedule", f"{steps:,} steps", seconds, text)]


# What has a target or answers a question first: the time may be spent before the rest.
PARTS: dict[str, tuple[Callable[[Plan, str], list[Row]], tuple[str, ...]]] = {
    "seeds": (seeds, tuple(SEED_LIMITS)),
    "schedule": (schedule, tuple(tasks.TASKS)),
    "peak": (peak, ("float32", "bfloat16")),
    "scan": (scan, tuple(tasks.TASKS)),
    "convolutions": (convolutions, ("dcgan",)),
    "bfloat16": (bfloat16, tuple(tasks.TASKS)),
}


def measure(
    plan: Plan,
    only: Sequence[str] = tuple(PARTS),
    budget: float = 400,
    say: Callable[[str], Any] = lambda text: None,
    keep: Callable[[list[Row]], Any] = lambda rows: None,
) -> list[Row]:
    """The rows of the parts, each with its "part"; a failure is a row too. After `budget` seconds nothing is begun.

    keep(rows so far) is called after each, as the machine may be taken away.
    """
    begin, rows = time.perf_counter(), []
    for part, what in [(name, what) for name in PARTS if name in only for what in PARTS[name][1]]:
        spent = time.perf_counter() - begin
        say(f"{spent:4.0f} s  {part} {what}")
        try:
            skipped = [row(f"{part} {what}", "-", [], f"not run: the {budget:.0f} s were spent")]
            found = PARTS[part][0](plan, what) if spent < budget else skipped
        except Exception as error:  # out of memory, or what this backend lacks
            reason = f"failed: {type(error).__name__}: {error}".splitlines()[0][:160]
            say(f"        {reason}")
            found = [row(f"{part} {what}", "-", [], reason, met=False)]
        rows += [{"part": part, **r} for r in found]
        keep(rows)
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.accelerator")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--quick", action="store_true", help="few and short turns: does it run at all")
    parser.add_argument("--images", type=Path, default=None, help="npz or IDX file, for bfloat16's quality")
    parser.add_argument("--seconds", type=float, default=400, help="after so many nothing more is begun")
    parser.add_argument("--out", type=Path, default=None, help="default results/<device>.json")
    flags = parser.parse_args(argv)
    common.use_compilation_cache()
    try:
        scheme = "npz" if str(flags.images).endswith(".npz") else "idx"
        x = data.load(f"{scheme}:{flags.images}") if flags.images else Dataset(tasks.images("random"))
    except (ValueError, OSError) as error:
        print(f"experiments.bench.accelerator: {error}", file=sys.stderr)
        return 1
    sizes: Any = {"repeats": 2, "turn": 0.1, "quality_steps": 100, "gemm": 2048} if flags.quick else {}
    plan = dataclasses.replace(Plan(x, real=flags.images is not None), **sizes)
    if jax.default_backend() == "cpu" and flags.out is None:
        print("experiments.bench.accelerator: there is none here; give --out PATH to try it on a CPU.", file=sys.stderr)
        return 1
    peaks, loads = [machine.gemm_gflops(plan.gemm)], [machine.load()]
    name = machine.device_name()
    file = flags.out or table.RESULTS / f"{machine.slug(name)}.json"
    about = machine.versions("jax", "flax", "optax")
    run = {"date": time.strftime("%Y-%m-%d"), "commit": machine.commit(), "versions": about}
    record = Record(file, name, machine.cores(), **run, repeats=plan.repeats, source=str(flags.images or "random"))
    kept = [row for row in record.result["accelerator"] if row["part"] not in flags.only]

    def keep(rows: list[Row]) -> None:
        unrest = machine.unrest(peaks, loads)
        record.keep("accelerator", [*kept, *rows], gemm_gflops=max(peaks), quiet=not unrest, unrest=unrest)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows = measure(plan, flags.only, flags.seconds, say, keep)
    peaks.append(machine.gemm_gflops(plan.gemm))
    keep(rows)
    print(f"{name}\n\n{table.text(table.targets({'tasks': {}, 'accelerator': rows}))}\n\nwritten: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
