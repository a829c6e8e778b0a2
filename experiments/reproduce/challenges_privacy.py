"""Does a model give its training data away? Membership inference on a GAN and a VAE, and DP-SGD against it.

The attacker has the model and asks of an image whether it was trained on: the higher its score, the likelier. Of a GAN
the score is the discriminator's output (Hayes et al. 2019), of a VAE the bound. Images that were not trained on are of
the same split, MNIST's test split being of other writers.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import challenges_vae, draw, samples
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import gan, metrics, nets, plots, privacy, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import frechet
from vaegan_jax.optimizer import Optimizer

BATCH = 50
CLIP, EPSILON, DELTA = 1.0, 10.0, 1e-5
DRAWS = 8  # of the VAE's bound, averaged
BLOCK = 500  # images asked about at once
COLOURS = {"GAN": draw.RED, "VAE": draw.BLUE}
PRIVATE = "GAN, DP-SGD"
BIE = (1.0, 128 / 60_000, 450_000, 1e-5)
"""Bie et al. 2023 on MNIST: noise, share of the data in a batch, steps of the discriminator, delta."""


def steps(budget: str) -> int:
    return {"smoke": 20, "cpu": 10_000, "paper": 100_000}[budget]


def sizes(budget: str) -> tuple[int, ...]:
    """Training images: few, more, on which DP-SGD is tried too, and many."""
    return (100, 500, 1_000) if budget == "smoke" else (1_000, 5_000, 50_000)


def game(noise: float | None) -> gan.Config:
    """784-64x3-64x3-1 maxout with dropout against 64-256-256-784, Adam; small, as DP-SGD has a gradient an example.

    noise: of DP-SGD; None: none of it. A tanh output has no bias that is set by the data, which is not private.
    """

    def adam(rate: float) -> Optimizer:
        return Optimizer(rule="adam", learning_rate=rate, momentum=0.5)

    return dataclasses.replace(
        gan.Config(),
        latents=64,
        prior="normal",
        prior_scale=1.0,
        generator=nets.MLPGenerator(hidden=(256, 256), activation=nn.relu),
        discriminator=nets.MaxoutDiscriminator(hidden=(64, 64), pieces=3),
        output="tanh",
        discriminator_weight=1.0,
        update="alternating",
        generator_optimizer=adam(1e-3),
        discriminator_optimizer=adam(2e-4),
        batch_size=BATCH,
        dp_clip=None if noise is None else CLIP,
        dp_noise=noise or 1.0,
    )


def scores(algorithm: Any, config: Any, state: Any, data: Dataset) -> np.ndarray:
    """What the attacker orders images by: the discriminator's logit, or the bound, [N]."""

    def block(x: np.ndarray) -> np.ndarray:
        if algorithm is gan:
            return np.asarray(gan.discriminate(config, state, jnp.asarray(x))[0])
        bounds = [vae.elbo(config, state, {"x": x}, jax.random.key(i))["elbo"] for i in range(DRAWS)]
        return np.mean([np.asarray(bound) for bound in bounds], axis=0)

    return np.concatenate([block(data.x[i : i + BLOCK]) for i in range(0, len(data), BLOCK)])


def run(job: Job) -> Outcome:
    """Does a model give its training data away?"""
    name, total, counts = samples.dataset(job, "mnist"), steps(job.budget), sizes(job.budget)
    few, middle, many = counts
    others = job.load(name, f"train[{many}:]")
    trained: dict[tuple[str, int], Trained] = {}
    found: dict[tuple[str, int], dict[int, dict[str, float]]] = {}
    noise = privacy.noise_for(EPSILON, BATCH / middle, total, DELTA)
    kinds = [("GAN", gan, game(None), counts), ("VAE", vae, challenges_vae.config(20), counts)]
    for kind, algorithm, config, each in [*kinds, (PRIVATE, gan, game(noise), (middle,))]:
        for n in each:
            train, members = job.load(name, f"train[:{n}]"), _members(job, name, n, others)
            one = trained[kind, n] = job.fit(
                f"{kind.replace(', ', '-').lower()}-{n}", algorithm, config, train, steps=total,
                side_by_side=True if job.budget == "smoke" else None,
            )  # fmt: skip
            found[kind, n] = {
                seed: job.kept(
                    f"{kind}-{n}-{seed}-auc",
                    functools.partial(_auc, algorithm, one.config(), one.state(seed), members, others), of=(total,),
                )
                for seed in one.seeds
            }  # fmt: skip
    blank = _distances(job, name, trained, found, middle)
    data = (job.load(name, f"train[:{many}]"), others)
    row = functools.partial(over_seeds, trained, found, steps=total, data=data)
    promised = f"epsilon {EPSILON:g} at delta {DELTA:g}, each seed by itself; noise {noise:.3g}"
    by_chance = {
        n: metrics.membership_auc(*(-_ink(x) for x in (_members(job, name, n, others), others))) for n in counts
    }
    images = {n: f"standard error over images {_error(min(n, len(others)), len(others)):.2g}" for n in counts}

    def auc(kind: str, n: int, note: str = "") -> Measured:
        return row(lambda v: v["auc"], (kind, n), note="; ".join(filter(None, (note, images[n]))))

    rows = {
        "privacy_gan": auc("GAN", few),
        "privacy_vae": auc("VAE", few),
        "privacy_gan_many": auc("GAN", many),
        "privacy_vae_many": auc("VAE", many),
        "privacy_gan_data": row(lambda a, b: a["auc"] - b["auc"], ("GAN", few), ("GAN", many), note=images[few]),
        "privacy_vae_data": row(lambda a, b: a["auc"] - b["auc"], ("VAE", few), ("VAE", many), note=images[few]),
        "privacy_gan_open": auc("GAN", middle),
        "privacy_gan_private": auc(PRIVATE, middle, promised),
        "privacy_defends": row(lambda a, b: a["auc"] - b["auc"], ("GAN", middle), (PRIVATE, middle), note=promised),
        "privacy_price": row(
            lambda a, b: b["frechet"] - a["frechet"], ("GAN", middle), (PRIVATE, middle), note=promised
        ),
        "privacy_epsilon": Measured([privacy.epsilon(*BIE)], exact=True),
    }
    lines = [[kind, f"{n:,}", _cell(each, "auc"), _cell(each, "frechet")] for (kind, n), each in found.items()]
    lines += [["no model: minus the image's mean", f"{n:,}", f"{value:.3f}", "-"] for n, value in by_chance.items()]
    lines += [["blank images", "-", "-", f"{blank:.3g}"]]
    title = (
        f"After {total:,} steps of {BATCH} images (the VAE: {challenges_vae.config(20).batch_size}): the area under "
        "the attack's ROC curve, 1/2 being a guess, and the Frechet distance of samples to images that were not "
        f"trained on [{name}-cnn]; mean +- sd over seeds. DP-SGD: clip {CLIP:g}, {promised}. Last lines: "
        "what the same images give without a model, and what a picture of nothing is worth."
    )
    columns = ("model", "training images", "AUC of membership", "Frechet distance")
    _draw(job, counts, middle, found)
    captions = {
        "privacy.png": "Does a model give its training data away? How often a training image has a higher score than "
        "another image, by the number of training images: the score is the discriminator's output of a GAN, the bound "
        f"of a VAE. The diamond is the GAN whose discriminator was trained by DP-SGD, {promised}."
    }
    if _draw_samples(job, trained, middle):
        captions["privacy-samples.png"] = (
            f"What privacy costs: samples of the GAN on {middle:,} images, and of the one by DP-SGD, first seed."
        )
    return Outcome(rows, [Table(title, columns, lines)], captions)


def _members(job: Job, name: str, n: int, others: Dataset) -> Dataset:
    """Of n training images, as many as there are others."""
    found: Dataset = job.load(name, f"train[:{min(n, len(others))}]")
    return found


def _ink(data: Dataset) -> np.ndarray:
    return np.asarray(data.x.reshape(len(data), -1).mean(axis=1), np.float64)


def _error(members: int, others: int) -> float:
    """Of an area under the curve over images, where the score tells nothing: Mann and Whitney's."""
    return float(np.sqrt((members + others + 1) / (12 * members * others)))


def _auc(algorithm: Any, config: Any, state: Any, members: Dataset, others: Dataset) -> dict[str, float]:
    return {"auc": metrics.membership_auc(*(scores(algorithm, config, state, x) for x in (members, others)))}


def _distances(
    job: Job,
    name: str,
    trained: Mapping[tuple[str, int], Trained],
    found: Mapping[tuple[str, int], dict[int, dict[str, float]]],
    n: int,
) -> float:
    """Adds the Frechet distance of both GANs on n images to what was found; returns that of blank images."""
    judge, count = _judge(job, name), _count(job)
    for kind in ("GAN", PRIVATE):
        one = trained[kind, n]
        for seed in one.seeds:

            def distance(one: Trained = one, seed: int = seed) -> float:
                made = gan.sample(one.config(), one.state(seed), jax.random.key(seed), count)
                return judge(np.asarray(made))["frechet"]

            value = job.kept(f"{kind}-{n}-{seed}-frechet", distance, of=(steps(job.budget), count))
            found[kind, n][seed] = {**found[kind, n][seed], "frechet": value}
    return judge(_blank(job, name))["frechet"]


def _count(job: Job) -> int:
    return int(job.choose(200, 10_000, 10_000))


def _judge(job: Job, name: str) -> Callable[[np.ndarray], dict[str, float]]:
    """Against images that no model here was trained on."""
    extractor = samples.network(job, name)
    reference = frechet.statistics(extractor.both(job.load(name, f"train[{sizes(job.budget)[-1]}:]").x)[0])
    return samples.judge(extractor, reference)


def _blank(job: Job, name: str) -> np.ndarray:
    return np.zeros((_count(job), *job.load(name, "train[:1]").x.shape[1:]), np.float32)


def scale(job: Job) -> Outcome:
    """Between what a Frechet distance lies: as many real images, and as many pictures of nothing."""
    name = samples.dataset(job, "mnist")
    judge = _judge(job, name)
    real, others = job.load(name, f"train[:{_count(job)}]"), job.load(name, f"train[{sizes(job.budget)[-1]}:]")
    rows = {
        "privacy_real": Measured([judge(real.x)["frechet"]], exact=True, data=(real, others)),
        "privacy_blank": Measured([judge(_blank(job, name))["frechet"]], exact=True, data=(others,)),
    }
    return Outcome(rows)


def _cell(seeds: Mapping[int, Mapping[str, float]], name: str) -> str:
    return draw.spread([v[name] for v in seeds.values() if name in v])


def _draw(job: Job, counts: tuple[int, ...], middle: int, found: Mapping[tuple[str, int], Any]) -> None:
    figure = plots.new_figure(5.4, 3.5)
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        seeds = [s for s in found[kind, counts[0]] if all(s in found[kind, n] for n in counts)]
        values = np.array([[found[kind, n][s]["auc"] for n in counts] for s in seeds]).reshape(len(seeds), len(counts))
        score = {"GAN": "discriminator's output", "VAE": "bound"}[kind]
        draw.band(axes, counts, values, colour, f"{kind}: {score}", marker="o", markersize=3.5)
    private = np.array([[v["auc"]] for v in found[PRIVATE, middle].values()])
    if len(private):
        draw.points(axes, [middle], private, draw.GREEN, f"GAN, DP-SGD, epsilon {EPSILON:g}", "D")
    axes.axhline(0.5, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="training images", ylabel="AUC of membership")
    axes.set_xticks(counts, [f"{n:,}" if n < 1000 else f"{n // 1000}k" for n in counts])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    draw.seeds(figure, len(job.seeds))
    plots.render(figure, job.figures / "privacy.png")


def _draw_samples(job: Job, trained: Mapping[tuple[str, int], Trained], n: int) -> bool:
    both = {kind: trained[kind, n] for kind in ("GAN", PRIVATE)}
    if not all(one.seeds for one in both.values()):
        return False
    rows = [
        (kind, np.asarray(gan.sample(one.config(), one.state(one.seeds[0]), jax.random.key(0), 24)))
        for kind, one in both.items()
    ]
    draw.panels(rows, job.figures / "privacy-samples.png", columns=12)
    return True


PARTS = (
    Part(
        "privacy",
        (
            "privacy_gan", "privacy_vae", "privacy_gan_many", "privacy_vae_many", "privacy_gan_data",
            "privacy_vae_data", "privacy_gan_open", "privacy_gan_private", "privacy_defends", "privacy_price",
            "privacy_epsilon",
        ),
        run,
        says(
            "membership inference on GANs and VAEs of few and many images, and a GAN by DP-SGD", "20 steps",
            "10,000 steps each, some 18 minutes a seed", "100,000 steps each",
        ),
    ),
    Part(
        "privacy_scale",
        ("privacy_real", "privacy_blank"),
        scale,
        says("the Frechet distance of real images and of blank ones", *["half a minute"] * 3),
    ),
)  # fmt: skip
