"""Figure 2 of Kingma & Welling 2013: the bound against samples seen, AEVB and wake-sleep on the same nets."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw, vae_rate
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from experiments.reproduce.vae_gradients import DRAWS, bound_variance
from vaegan_jax import fit, nets, plots, vae, wake_sleep
from vaegan_jax.data.dataset import Dataset

ALGORITHMS = {"AEVB": vae, "wake-sleep": wake_sleep}
COLOURS = {"AEVB": draw.RED, "wake-sleep": draw.BLUE}
HELD = 2000  # images of each split whose bound is followed, where there are so many
Key = tuple[str, int]
"""Algorithm and number of latents."""


def config(latents: int) -> vae.Config:
    """The paper's nets, prior on the weights and Adagrad."""
    return dataclasses.replace(vae.Config(), latents=latents)


def frey_config(latents: int) -> vae.Config:
    """200 hidden units; a Gaussian decoder whose means a sigmoid keeps in (0, 1), appendix C.2."""
    return dataclasses.replace(
        vae.Config(), latents=latents, encoder=vae.aevb(nets.MLPEncoder, 200), decoder=vae.aevb(nets.MLPDecoder, 200),
        likelihood="gaussian",
    )  # fmt: skip


def wide_config(latents: int) -> vae.Config:
    """The paper's N(0, 0.01) read as a variance: all parameters with deviation .1."""
    found, wide = frey_config(latents), nets.Normal(0.1)
    encoder, decoder = (net.clone(kernel_init=wide, bias_init=wide) for net in (found.encoder, found.decoder))
    return dataclasses.replace(found, encoder=encoder, decoder=decoder)


@dataclasses.dataclass(frozen=True)
class Panels:
    """The figure's panels of one data set."""

    dataset: str
    title: str
    widths: tuple[int, ...]
    config: Callable[[int], vae.Config]
    limits: tuple[float, float]
    """Of the paper's vertical axis, nats."""
    prefix: str
    """Of the rows."""
    cpu_steps: int = 10_000

    def steps(self, budget: str) -> int:
        return {"smoke": 20, "cpu": self.cpu_steps, "paper": 1_000_000}[budget]


MNIST = Panels("mnist", "MNIST", (3, 5, 10, 20, 200), config, (-150, -100), "fig2", cpu_steps=50_000)
FREY = Panels("frey_faces", "Frey faces", (2, 5, 10, 20), frey_config, (0, 1600), "fig2_frey")
WIDE = Panels("frey_faces", "Frey faces, deviation .1", (2, 5), wide_config, FREY.limits, "fig2_frey_wide")


def stops(steps: int, per_decade: int = 8) -> tuple[int, ...]:
    """Where a curve is measured: evenly in the logarithm of samples from 1e5 (step 1,000 of batch 100) to the end."""
    first = min(1000, steps)
    n = 1 + round(per_decade * np.log10(steps / first)) if steps > first else 1
    return tuple(sorted({round(float(s)) for s in np.geomspace(first, steps, n)}))


def train(job: Job, panels: Panels) -> dict[Key, Trained]:
    """All widths (three for a smoke) by both algorithms; bound_train and bound_test are among their metrics."""
    shown = {split: _first(job.load(panels.dataset, split)) for split in ("train", "test")}
    total = panels.steps(job.budget)

    def evaluate(algorithm: Any, config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        return {f"bound_{name}": fit.validate(algorithm, config, state, x)["elbo"] for name, x in shown.items()}

    widths = panels.widths
    if job.budget == "smoke" and len(widths) > 3:
        widths = (widths[0], 10, widths[-1])
    data, found = job.load(panels.dataset), dict[Key, Trained]()
    for width in widths:
        for name, algorithm in ALGORITHMS.items():
            config = vae_rate.chosen(job, f"{name}{width}", algorithm, panels.config(width), data)
            found[name, width] = job.fit(
                f"{name}{width}", algorithm, config, data, steps=total, evaluate_at=stops(total),
                evaluate=functools.partial(evaluate, algorithm),
            )  # fmt: skip
    return found


def compare(job: Job, panels: Panels, trained: Mapping[Key, Trained]) -> Outcome:
    """The rows that every data set has: AEVB less wake-sleep at the end for each width, and the least of all."""
    data = (job.load(panels.dataset), job.load(panels.dataset, "test"))
    total = panels.steps(job.budget)
    found = {}
    for width in panels.widths:
        aevb, sleep = (trained.get((name, width)) for name in ALGORITHMS)
        found[f"{panels.prefix}_nz{width}"] = _difference(aevb, sleep, steps=total, data=data)
    found[f"{panels.prefix}_faster"] = _smallest(trained, total, data)
    _draw(job, panels, trained)
    at = np.array(stops(total))
    shown = sorted({0, int(np.abs(at - 10_000).argmin()), len(at) - 1})  # 1e5 samples, about 1e6, the end
    lines = []
    for (name, width), one in trained.items():
        if one.seeds:
            test, train = (one.curve(f"bound_{split}")[1] for split in ("test", "train"))
            seen = [draw.spread(test[:, i], 5) for i in shown]
            lines.append([width, name, one.config().optimizer.learning_rate, *seen, draw.spread(train[:, -1], 5)])
    marks = [f"test, {100 * at[i]:,} samples" for i in shown]
    columns = ("latents", "algorithm", "Adagrad's rate", *marks, "train, at the end")
    title = (
        f"{panels.title}: the bound, nats, of the first {HELD:,} images of each split, or all; mean +- sd over seeds."
    )
    caption = (
        f"Figure 2, {panels.title}: the bound against training samples seen (batch 100), mean and range over seeds, "
        "full lines on test images, dotted on training images. The paper's axes go from "
        f"{panels.limits[0]} to {panels.limits[1]}; a curve that leaves ours lies below."
    )
    curves = {f"{name}, {width} latents": t.record("bound_test", "bound_train") for (name, width), t in trained.items()}
    return Outcome(found, [Table(title, columns, lines)], {f"{panels.prefix}.png": caption}, curves)


def mnist(job: Job) -> Outcome:
    trained = train(job, MNIST)
    outcome = compare(job, MNIST, trained)
    test, total = job.load("mnist", "test"), MNIST.steps(job.budget)
    data = (job.load("mnist"), test)
    more = {
        "fig2_no_overfit": _difference(trained["AEVB", 200], trained["AEVB", 10], steps=total, data=data),
        **_bound_variances(trained["AEVB", 10], total, data[0], test),
        "seconds": _seconds(trained["AEVB", 10], total, data[0]),
    }
    return dataclasses.replace(outcome, rows={**outcome.rows, **more})


def frey(job: Job, panels: Panels = FREY) -> Outcome:
    return compare(job, panels, train(job, panels))


def _first(dataset: Dataset) -> Dataset:
    label = None if dataset.label is None else dataset.label[:HELD]
    return Dataset(dataset.x[:HELD], label, dataset.name, dataset.split)


def lead(one: Trained, other: Trained) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(seeds that both finished [S], steps [T], the former's bound on test images less the latter's [S, T])."""
    both = [s for s in one.seeds if s in other.seeds]
    if not both:
        return both, np.zeros(1, np.int64), np.zeros((0, 1))
    a, b = (t.curve("bound_test")[1][[t.seeds.index(s) for s in both]] for t in (one, other))
    return both, one.curve("bound_test")[0], a - b


def _difference(one: Trained | None, other: Trained | None, *, steps: int, data: tuple[Dataset, ...]) -> Measured:
    """The lead at the end."""
    if one is None or other is None:
        return Measured([], note="not part of this budget")
    seeds, at, ahead = lead(one, other)
    shown = sorted({0, len(at) // 2, len(at) - 1})
    note = "the former leads by " + ", ".join(f"{draw.spread(ahead[:, i])} at step {at[i]:,}" for i in shown)
    failed = sorted({*one.failed, *other.failed})
    return Measured(ahead[:, -1].tolist(), seeds, failed, steps, (one.config(), other.config()), data, note=note)


def _smallest(trained: Mapping[Key, Trained], steps: int, data: tuple[Dataset, ...]) -> Measured:
    """Seed by seed the least lead of AEVB at any width and mark; one below 0 is final, as more steps raise no least."""
    widths = list(dict.fromkeys(width for _, width in trained))
    pairs = {width: (trained["AEVB", width], trained["wake-sleep", width]) for width in widths}
    ahead = {width: lead(*pair) for width, pair in pairs.items()}
    seeds = [s for s in ahead[widths[0]][0] if all(s in own for own, _, _ in ahead.values())]
    values, where = [], []
    for s in seeds:
        least, step, width = min(
            (float(v), int(t), width)
            for width, (own, at, gap) in ahead.items()
            for t, v in zip(at, gap[own.index(s)], strict=True)
        )
        values.append(least)
        where.append(f"seed {s}: {width} latents, step {step:,}")
    both = [one for pair in pairs.values() for one in pair]
    failed = sorted({s for one in both for s in one.failed})
    return Measured(
        values, seeds, failed, steps, [one.config() for one in both], data, flat=any(v <= 0 for v in values),
        note="; ".join(where),
    )  # fmt: skip


def _bound_variances(one: Trained, steps: int, train: Dataset, test: Dataset) -> dict[str, Measured]:
    """With one draw of z an image, over the draws: of the mean bound of a batch of 100, and of one image's bound."""
    found = one.config()
    x = jnp.asarray(test.x[:100])
    bits = dataclasses.replace(found, binarize="fixed") if found else None
    keys = jax.random.split(jax.random.key(0), DRAWS)
    each = [bound_variance(bits, one.state(s), x, keys) for s in one.seeds]
    names = ("bound_variance", "bound_variance_image")
    return {
        name: Measured(
            [float(pair[i]) for pair in each],
            one.seeds,
            one.failed,
            steps,
            found,
            (train, test),
            note=f"{DRAWS} draws",
        )
        for i, name in enumerate(names)
    }


def _seconds(one: Trained, steps: int, train: Dataset) -> Measured:
    """Of a million samples, 10,000 steps, by the median line of the log of each seed."""
    rates = one.curve("steps_per_second")[1]
    values = [10_000 / float(np.median(own)) for own in rates] if rates.size else []
    together = max((len(run.seeds) for run in one.runs.values()), default=1)
    note = f"10 latents; {together} seeds at a time, with whatever else the machine did"
    return Measured(values, one.seeds if values else (), one.failed, steps, one.config(), (train,), note=note)


def _draw(job: Job, panels: Panels, trained: Mapping[Key, Trained]) -> None:
    widths = list(dict.fromkeys(width for _, width in trained))
    figure = plots.new_figure(2.2 * len(widths) + 0.8, 3.2)
    axes_of = np.atleast_1d(figure.subplots(1, len(widths), sharey=True))
    # A budget smaller than the paper's begins and ends below its axis: room for all of AEVB, but for no curve astray.
    begins = [
        one.curve("bound_test")[1][:, 0].min() for (name, _), one in trained.items() if one.seeds and name == "AEVB"
    ]
    low, high = panels.limits
    low = max(min([low, *(np.floor(begin / 10) * 10 for begin in begins)]), low - 1.5 * (high - low))
    for axes, width in zip(axes_of, widths, strict=True):
        for (name, colour), split in ((pair, split) for pair in COLOURS.items() for split in ("test", "train")):
            one = trained[name, width]
            if not one.seeds:
                continue
            at, values = one.curve(f"bound_{split}")
            line = "-" if split == "test" else ":"
            draw.band(axes, 100 * at, values, colour, f"{name} ({split})", linestyle=line)
        axes.set(xscale="log", xlim=(1e5, 1e8), ylim=(low, high), xlabel="training samples")
        axes.set_title(f"{panels.title}, $N_z$ = {width}", fontsize=9, loc="left")
        plots.clean(axes)
    axes_of[0].set_ylabel("bound, nats")
    labelled = axes_of[0].get_legend_handles_labels()
    figure.legend(*labelled, frameon=False, fontsize=8, ncols=4, loc="outside lower center")
    plots.render(figure, job.figures / f"{panels.prefix}.png")


def _says(what: str, cpu: str) -> Any:
    return says(f"AEVB and wake-sleep, {what}", "20 steps of three widths", cpu, "1,000,000 steps each")


PARTS = (
    Part(
        "fig2",
        (
            *(f"fig2_nz{w}" for w in MNIST.widths),
            "fig2_faster",
            "fig2_no_overfit",
            "bound_variance",
            "bound_variance_image",
            "seconds",
        ),
        mnist,
        _says("five widths on MNIST", "50,000 steps each (5e6 samples), 70 minutes a seed, one core"),
    ),
    Part(
        "frey",
        (*(f"fig2_frey_nz{w}" for w in FREY.widths), "fig2_frey_faster"),
        frey,
        _says("four widths on Frey faces (--data-dir: your file)", "10,000 steps each, 8 minutes a seed"),
        cpu_seeds=5,
    ),
    Part(
        "frey_wide",
        (*(f"fig2_frey_wide_nz{w}" for w in WIDE.widths), "fig2_frey_wide_faster"),
        functools.partial(frey, panels=WIDE),
        _says("two widths on Frey faces, first parameters ten times as large", "10,000 steps each, 4 minutes a seed"),
        cpu_seeds=10,
    ),
)
