"""Figure 3 of Kingma & Welling 2013: estimated marginal likelihood of AEVB, wake-sleep and Monte Carlo EM.

100 hidden units and 3 latents, so that appendix D's estimator can be trusted; it overestimates where its density fits
badly, so importance sampling of the same decoders stands beside it. Fresh binarisation in training; one draw of the
judged images.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw, vae_rate
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import logs, mcem, metrics, nets, plots, vae, wake_sleep

LATENTS, HIDDEN = 3, 100
SIZES = (1_000, 50_000)
"""Of the training set, left and right panel."""
TITLES = {"AEVB": "AEVB", "wake-sleep": "Wake-Sleep", "MCEM": "Monte Carlo EM"}
COLOURS = {"AEVB": draw.RED, "wake-sleep": draw.BLUE, "MCEM": draw.GREEN}
LIMITS = {1_000: (-160.0, -100.0), 50_000: (-160.0, -125.0)}
"""Of the paper's vertical axes, nats; ours reach further where our curves do."""
MARKS = (3_000, 10_000, 30_000, 100_000, *range(200_000, 600_001, 100_000))
"""Steps at which the judged images are judged; the axis is linear, as the paper's, and early marks lie close."""
Key = tuple[int, str]


def config(kind: Any = vae.Config) -> Any:
    encoder, decoder = (vae.aevb(net, HIDDEN) for net in (nets.MLPEncoder, nets.MLPDecoder))
    return kind(latents=LATENTS, encoder=encoder, decoder=decoder)


def figure3(job: Job) -> Outcome:
    test = job.load("mnist", "test")
    steps = {"AEVB": job.choose(20, 100_000, 600_000), "MCEM": job.choose(10, 10_000, 600_000)}
    steps["wake-sleep"] = steps["AEVB"]
    n, marks = job.choose(4, 50, 1_000), job.choose((10, 20), MARKS, MARKS)
    trained: dict[Key, Trained] = {}
    sets, judged = {}, {}
    for size in SIZES:
        few = min(size, job.choose(500, size, size))
        sets[size] = job.load("mnist", f"train[:{few}]")
        judged[size] = {"train": _bits(sets[size].x[:n]), "test": _bits(test.x[:n])}
        joint = ("log_likelihood", "log_prior")  # Monte Carlo EM has no bound to look at
        for name, algorithm, kind, objective in (
            ("AEVB", vae, vae.Config, ("elbo",)), ("wake-sleep", wake_sleep, vae.Config, ("elbo",)),
            ("MCEM", mcem, mcem.Config, joint),
        ):  # fmt: skip
            if name == "MCEM" and size != SIZES[0]:
                continue  # "not an on-line algorithm": the paper shows it for the small set alone
            data = mcem.numbered(sets[size]) if name == "MCEM" else sets[size]
            one = vae_rate.chosen(job, f"{name}-{size}", algorithm, config(kind), data, objective)
            trained[size, name] = job.fit(
                f"{name}-{size}", algorithm, one, data, steps=steps[name],
                evaluate_at=tuple(mark for mark in marks if mark <= steps[name]),
                evaluate=functools.partial(_estimates, job, judged[size]),
            )  # fmt: skip
    sampled = {key: _importance(job, one, judged[key[0]]["test"]) for key, one in trained.items()}
    found = {}
    for size, other in ((SIZES[0], "wake-sleep"), (SIZES[1], "wake-sleep"), (SIZES[0], "MCEM")):
        one, two = trained[size, "AEVB"], trained[size, other]
        end = min(steps["AEVB"], steps[other])
        a, b = (_at(t, end) for t in (one, two))
        both = [s for s in a if s in b]
        name = f"fig3_{size // 1000}k_{other.replace('-', '_').lower()}"
        found[name] = Measured(
            [a[s] - b[s] for s in both], both, sorted({*one.failed, *two.failed}), end, (one.config(), two.config()),
            (sets[size], test),
            note=f"{n:,} images; both after {100 * end:,} samples; importance sampling of the last decoders, after "
            f"{100 * steps['AEVB']:,} and {100 * steps[other]:,}: {draw.spread(sampled[size, 'AEVB'], 5)} and "
            f"{draw.spread(sampled[size, other], 5)}",
        )  # fmt: skip
    _draw(job, trained)
    lines = [
        [f"{size:,}", TITLES[name], one.config().optimizer.learning_rate, f"{100 * one.curve('test')[0][-1]:,.0f}",
         *(draw.spread(one.curve(split)[1][:, -1], 5) for split in ("train", "test")), 
         draw.spread(sampled[size, name], 5)]
        for (size, name), one in trained.items() if one.seeds
    ]  # fmt: skip
    columns = (
        "training images",
        "algorithm",
        "Adagrad's rate",
        "samples",
        "appendix D, train",
        "appendix D, test",
        "importance, test",
    )
    title = f"log p(x), nats, of the first {n:,} images of each set; mean +- sd over seeds; k = {_draws(job):,}."
    caption = (
        f"Figure 3: appendix D's estimate against training samples seen, mean and range over {len(job.seeds)} seeds; "
        f"full lines on the first {n:,} test images, dotted on as many training images. The paper's axes begin at -160 "
        f"nats and go to 60 million samples; Monte Carlo EM stops at {100 * steps['MCEM'] / 1e6:g} million here."
    )
    curves = {f"{TITLES[name]}, {size:,} images": t.record("train", "test") for (size, name), t in trained.items()}
    return Outcome(found, [Table(title, columns, lines)], {"figure3.png": caption}, curves)


def _at(trained: Trained, step: int) -> dict[int, float]:
    """Appendix D's estimate on test images at a mark, of each finished seed."""
    at, values = trained.curve("test")
    return {seed: float(v[np.searchsorted(at, step)]) for seed, v in zip(trained.seeds, values, strict=True)}


def _bits(x: np.ndarray) -> jax.Array:
    """One draw of grey images, the same at each visit."""
    fixed = dataclasses.replace(vae.Config(), binarize="fixed")
    return vae.targets(fixed, jnp.asarray(x), jax.random.key(0))


def _draws(job: Job) -> int:
    return int(job.choose(100, 5_000, 5_000))


def _estimates(
    job: Job, judged: dict[str, jax.Array], config: Any, state: Any, key: jax.Array, step: int
) -> dict[str, float]:
    """Appendix D: 50 posterior samples an image by Hamiltonian transitions of 4 leapfrogs, mean over images."""
    density = functools.partial(vae.log_likelihood, config, _bare(state))
    with logs.quiet():
        found = {
            split: metrics.posterior_log_likelihood(
                density, x, jax.random.fold_in(key, i), latents=LATENTS, samples=job.choose(10, 50, 50),
                transitions=job.choose(10, 100, 500), leapfrogs=4,
            )
            for i, (split, x) in enumerate(judged.items())
        }  # fmt: skip
    job.tick()
    return {split: float(np.mean(np.asarray(values, np.float64))) for split, values in found.items()}


def _bare(state: Any) -> vae.State:
    """The decoder's state alone, whatever trained it: with another, nothing would be compiled anew."""
    return vae.State(state.step, state.model, state.shape)


def _importance(job: Job, one: Trained, x: jax.Array) -> list[float]:
    """Of each seed, the importance-weighted estimate with a Gaussian about posterior samples as proposal, widened."""
    found = []
    for seed in one.seeds:
        density = functools.partial(vae.log_likelihood, one.config(), _bare(one.state(seed)))
        # Two keys: the weights' draws must owe nothing to the samples that their proposal is fitted to.
        fit_key, draw_key = jax.random.split(jax.random.key(seed))
        with logs.quiet():
            z = metrics.posterior_samples(
                density, x, fit_key, latents=LATENTS, samples=job.choose(10, 50, 50),
                transitions=job.choose(10, 100, 500),
            )  # fmt: skip
            values = metrics.importance_log_likelihood(
                density, x, z.mean(axis=0), jnp.log(1.5 * z.var(axis=0) + 1e-4), draw_key, samples=_draws(job)
            )
        found.append(float(np.mean(np.asarray(values, np.float64))))
        job.tick()
    return found


def _draw(job: Job, trained: dict[Key, Trained]) -> None:
    figure = plots.new_figure(7.6, 3.7)
    panels = figure.subplots(1, 2)
    for axes, size in zip(panels, SIZES, strict=True):
        lowest, highest = LIMITS[size]
        for (of, name), one in trained.items():
            if of != size or not one.seeds:
                continue
            for split, line in (("test", "-"), ("train", ":")):
                at, values = one.curve(split)
                lowest = min(lowest, float(np.nanmin(values)))
                highest = max(highest, float(np.nanmax(values)))
                style: dict[str, Any] = {"linestyle": line, "marker": "o", "markersize": 3}
                draw.band(axes, 100 * at / 1e6, values, COLOURS[name], f"{TITLES[name]} ({split})", **style)
        axes.set(xlabel="training samples, millions", ylabel="marginal log-likelihood, nats", ylim=(lowest, highest))
        axes.set_title(f"$N_{{train}}$ = {size:,}", fontsize=9, loc="left")
        plots.clean(axes)
    labels = panels[0].get_legend_handles_labels()  # the second has no Monte Carlo EM
    figure.legend(*labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    plots.render(figure, job.figures / "figure3.png")


PARTS = (
    Part(
        "fig3",
        ("fig3_1k_wake_sleep", "fig3_50k_wake_sleep", "fig3_1k_mcem"),
        figure3,
        says(
            "AEVB, wake-sleep and Monte Carlo EM on 1,000 images, the first two on 50,000",
            "20 steps",
            "1e7 samples (1e6 by MCEM), 50 images judged four times (twice), 30 minutes a seed",
            "6e7 samples, 1,000 images judged nine times",
        ),
    ),
)
