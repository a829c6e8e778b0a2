"""Auto-encoding variational Bayes (Kingma & Welling 2013)

Figure 2 compares AEVB with wake-sleep on the same nets: the bound against the number of samples seen, for five widths
of the code. The paper prints curves and no numbers, so what is judged is what it says of them: AEVB is faster and ends
higher in all experiments, superfluous latents do not overfit, the estimator's variance is small. Then the two choices
of section 2: the reparameterised gradient against the score function's, and the analytic KL against a sampled one.
Figures 4 and 5 are pictures of the trained decoders. Figure 3 (Monte Carlo EM) and Frey faces are not here yet.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import fit, plots, vae, wake_sleep
from vaegan_jax.data.dataset import Dataset

WIDTHS = (3, 5, 10, 20, 200)
ALGORITHMS = {"AEVB": vae, "wake-sleep": wake_sleep}
BLUE, RED = "#2563a8", "#d1495b"
HELD = 2000  # training images whose bound is followed; the test curve takes as many
DRAWS = 200  # of the noise, for each variance
PICTURES = (2, 5, 10, 20)  # latents of figure 5


def config(latents: int) -> vae.Config:
    """The paper's nets, prior on the weights and Adagrad."""
    return dataclasses.replace(vae.Config(), latents=latents)


def stops(steps: int, per_decade: int = 4) -> tuple[int, ...]:
    """Where a curve is measured: evenly in the logarithm of samples from 1e5 (step 1,000 of batch 100) to the end."""
    first = min(1000, steps)
    n = 1 + round(per_decade * np.log10(steps / first)) if steps > first else 1
    return tuple(sorted({round(float(s)) for s in np.geomspace(first, steps, n)}))


def figure2(job: Job) -> Outcome:
    train, test = job.load("mnist"), job.load("mnist", "test")
    steps = job.choose(20, 10_000, 1_000_000)
    at = stops(steps)
    shown = {"train": _first(train), "test": _first(test)}

    def evaluate(algorithm: Any, config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        return {f"bound_{name}": fit.validate(algorithm, config, state, x)["elbo"] for name, x in shown.items()}

    trained: dict[tuple[str, int], Trained] = {}
    for width in WIDTHS if job.budget != "smoke" else WIDTHS[:1] + WIDTHS[2:3] + WIDTHS[-1:]:
        for name, algorithm in ALGORITHMS.items():
            trained[name, width] = job.fit(
                f"{name}{width}", algorithm, config(width), train, steps=steps, evaluate_at=at,
                evaluate=functools.partial(evaluate, algorithm),
            )  # fmt: skip
    data = (train, test)
    found = {}
    for width in WIDTHS:
        aevb, sleep = (trained.get((name, width)) for name in ALGORITHMS)
        found[f"fig2_nz{width}"] = _difference(aevb, sleep, steps, data, lambda a, b: a[:, -1] - b[:, -1])
    every = [
        _difference(trained[n, w], trained["wake-sleep", w], steps, data, _least) for n, w in trained if n == "AEVB"
    ]
    found["fig2_faster"] = _smallest(every)
    wide = _difference(trained["AEVB", 200], trained["AEVB", 10], steps, data, lambda a, b: a[:, -1] - b[:, -1])
    found["fig2_no_overfit"] = wide
    found["bound_variance"] = _bound_variance(trained["AEVB", 10], steps, test)
    _draw_figure2(job, trained)
    lines = [
        [width, name, *(_spread(one.curve(f"bound_{split}")[1][:, -1]) for split in shown)]
        for (name, width), one in trained.items()
        if one.seeds
    ]
    columns = ("latents", "algorithm", "train", "test")
    title = f"The bound after {100 * steps:,} samples, nats; {HELD:,} images of each split, mean +- sd over seeds."
    caption = (
        "Figure 2: the bound against training samples seen (batch 100), axes as in the paper; mean and range over "
        "seeds, full lines on test images, dotted on training images."
    )
    return Outcome(found, [Table(title, columns, lines)], {"figure2.png": caption})


def _first(dataset: Dataset) -> Dataset:
    label = None if dataset.label is None else dataset.label[:HELD]
    return Dataset(dataset.x[:HELD], label, dataset.name, dataset.split)


def _least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest advantage at any number of samples: [S, T] twice -> [S]."""
    return (a - b).min(axis=1)


def _difference(one: Trained | None, other: Trained | None, steps: int, data: tuple[Dataset, ...], of: Any) -> Measured:
    """Of the test curves of two trainings, paired by seed."""
    if one is None or other is None:
        return Measured([], note="not part of this budget")
    both = [s for s in one.seeds if s in other.seeds]
    curves = [
        t.curve("bound_test")[1][[t.seeds.index(s) for s in both]] if both else np.zeros((0, 1)) for t in (one, other)
    ]
    failed = sorted({*one.failed, *other.failed})
    return Measured([float(v) for v in of(*curves)], both, failed, steps, (one.config(), other.config()), data)


def _smallest(every: list[Measured]) -> Measured:
    """Seed by seed the smallest of several measurements of the same seeds."""
    seeds = [s for s in every[0].seeds if all(s in m.seeds for m in every)]
    values = [min(m.values[list(m.seeds).index(s)] for m in every) for s in seeds]
    failed = sorted({s for m in every for s in m.failed})
    return dataclasses.replace(every[0], values=values, seeds=seeds, failed=failed, config=[m.config for m in every])


def _bound_variance(one: Trained, steps: int, test: Dataset) -> Measured:
    """Of the estimated bound per data point, of a batch of 100 with one draw of z an image, over the draws."""
    found = one.config()
    batch = {"x": jnp.asarray(test.x[:100])}
    grey = dataclasses.replace(found, binarize="fixed") if found else None

    def bound(state: Any, key: jax.Array) -> jax.Array:
        return vae.elbo(grey, state, batch, key)["elbo"].mean()

    keys = jax.random.split(jax.random.key(0), DRAWS)
    values = [float(np.var([bound(one.state(s), key) for key in keys], ddof=1)) for s in one.seeds]
    return Measured(values, one.seeds, one.failed, steps, found, (test,), note=f"{DRAWS} draws")


def _draw_figure2(job: Job, trained: dict[tuple[str, int], Trained]) -> None:
    widths = list(dict.fromkeys(width for _, width in trained))
    figure = plots.new_figure(2.4 * len(widths) + 0.6, 3.2)
    panels = np.atleast_1d(figure.subplots(1, len(widths), sharey=True))
    for axes, width in zip(panels, widths, strict=True):
        for (name, colour), split in (
            (pair, s) for pair in (("AEVB", RED), ("wake-sleep", BLUE)) for s in ("test", "train")
        ):
            steps, values = trained[name, width].curve(f"bound_{split}")
            if not len(values):
                continue
            line = "-" if split == "test" else ":"
            axes.plot(100 * steps, values.mean(axis=0), line, color=colour, label=f"{name} ({split})")
            axes.fill_between(100 * steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.set(xscale="log", ylim=(-150, -100), xlabel="training samples")
        axes.set_title(f"MNIST, $N_z$ = {width}", fontsize=9, loc="left")
        plots.clean(axes)
    panels[0].set_ylabel("bound, nats")
    panels[-1].legend(frameon=False, fontsize=7, loc="lower right")
    plots.render(figure, job.figures / "figure2.png")


def gradients(job: Job) -> Outcome:
    """Variance of the encoder's gradient over draws of z, at several points of one training, the same batch for all."""
    train = job.load("mnist")
    steps = job.choose(20, 5_000, 50_000)
    marks = tuple(sorted({max(1, steps // 50), max(1, steps // 5), steps}))
    draws = job.choose(20, DRAWS, DRAWS)
    base = dataclasses.replace(config(20), binarize="fixed")
    x = jnp.asarray(train.x[:100])

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        estimators = {
            "reparameterised": base,
            "score": dataclasses.replace(base, gradient="score_function"),
            "a": dataclasses.replace(base, kl="monte_carlo"),
        }
        keys = jax.random.split(key, (len(estimators), draws))
        return {
            f"variance_{name}": float(_variance(each, state, x, keys[i]))
            for i, (name, each) in enumerate(estimators.items())
        }

    trained = job.fit("aevb", vae, config(20), train, steps=steps, evaluate=evaluate, evaluate_at=marks)
    curves = {name: trained.curve(f"variance_{name}")[1] for name in ("reparameterised", "score", "a")}
    score, sampled = (curves[name] / curves["reparameterised"] for name in ("score", "a"))
    lines = [[step, *(_spread(c[:, i], 3) for c in curves.values())] for i, step in enumerate(marks)]
    title = f"Total variance of the encoder's gradient over {draws} draws, one batch of 100, mean +- sd over seeds."
    columns = ("step", "reparameterised, analytic KL", "score function", "reparameterised, sampled KL")

    def measured(ratio: np.ndarray) -> Measured:
        """The smallest ratio of the marks, one a seed."""
        values = [float(v) for v in ratio.min(axis=1)]
        return Measured(values, trained.seeds, trained.failed, steps, trained.config(), (train,), note=f"steps {marks}")

    return Outcome(
        {"gradient_variance": measured(score), "estimator_b": measured(sampled)}, [Table(title, columns, lines)]
    )


@functools.partial(jax.jit, static_argnums=0)
def _variance(config: vae.Config, state: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
    """Summed over the encoder's parameters: the variance of -grad of the bound over the keys, [draws] -> scalar.

    A step of plain descent at rate 1 moves the parameters by the gradient, so the step itself is what is measured.
    """
    unit = dataclasses.replace(config, optimizer=_UNIT, weight_prior=False)
    model = dataclasses.replace(state.model, opt_state=_UNIT.transformation().init(state.model.params))
    plain = dataclasses.replace(state, model=model)

    def gradient(key: jax.Array) -> Any:
        after, _ = vae.train_step(unit, plain, {"x": x}, key)
        return jax.tree.map(lambda a, b: a - b, plain.model.params["encoder"], after.model.params["encoder"])

    def add(sums: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
        g = gradient(key)
        return (jax.tree.map(jnp.add, sums[0], g), jax.tree.map(lambda s, g: s + g**2, sums[1], g)), None

    zero = jax.tree.map(jnp.zeros_like, state.model.params["encoder"])
    (first, second), _ = jax.lax.scan(add, (zero, zero), keys)
    n = keys.shape[0]
    spread = jax.tree.map(lambda m, s: (s - m**2 / n).sum() / (n - 1), first, second)
    return jnp.stack(jax.tree.leaves(spread)).sum()


_UNIT = dataclasses.replace(vae.Config().optimizer, rule="sgd", learning_rate=1.0, momentum=0.0)


def pictures(job: Job) -> Outcome:
    """Figures 4 and 5, of the first seed; no rows."""
    train = job.load("mnist")
    steps = job.choose(20, 10_000, 1_000_000)
    blocks = []
    for latents in PICTURES:
        one = job.fit(f"latents{latents}", vae, config(latents), train, steps=steps, seeds=job.seeds[:1])
        if not one.seeds:
            continue
        state = one.state(one.seeds[0])
        decode = functools.partial(vae.decode, one.config(), state)
        if latents == 2:
            plots.manifold(decode, job.figures / "figure4.png")
        blocks.append(np.asarray(decode(jax.random.normal(jax.random.key(0), (64, latents)))))
    rows = np.concatenate([block[:20] for block in blocks])
    plots.grid(rows, job.figures / "figure5.png", columns=20, scale=1)
    captions = {
        "figure4.png": "Figure 4: the manifold of a two-dimensional code, the unit square through the Gaussian's "
        "inverse distribution function.",
        "figure5.png": f"Figure 5: the decoder's means at draws of the prior; rows: {PICTURES} latents.",
    }
    return Outcome({}, figures=captions)


def _spread(values: np.ndarray, digits: int = 2) -> str:
    if len(values) < 2:
        return f"{np.mean(values):.5g}" if len(values) else "failed"
    return f"{np.mean(values):.5g} +- {np.std(values, ddof=1):.{digits}g}"


PARTS = (
    Part(
        "fig2",
        (*(f"fig2_nz{w}" for w in WIDTHS), "fig2_faster", "fig2_no_overfit", "bound_variance"),
        figure2,
        says(
            "AEVB and wake-sleep at five widths",
            "20 steps of three",
            "10,000 steps each (1e6 samples), 15 minutes a seed",
            "1,000,000 steps each",
        ),
    ),
    Part(
        "gradients",
        ("gradient_variance", "estimator_b"),
        gradients,
        says("variances of gradients along one training a seed", "20 steps", "5,000 steps, 2 minutes a seed", "50,000"),
    ),
    Part(
        "pictures",
        (),
        pictures,
        says("four decoders of the first seed", "20 steps", "10,000 steps each, 5 minutes", "1,000,000 steps each"),
    ),
)
