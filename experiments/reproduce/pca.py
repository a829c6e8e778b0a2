"""Principal components beside what learns by gradients (Hinton & Salakhutdinov 2006; Tipping & Bishop 1999)

Exact PCA and its probabilistic model against known numbers; a linear VAE, which must reach the latter's likelihood
(Lucas et al. 2019); a deep autoencoder and logistic PCA at 30 numbers an image. Then the question behind the project:
a VAE, a GAN and PCA describe test images by 2, 10, 30 and 50 numbers; the squared error says how well. The VAE's code
is the mean of q(z|x); a GAN has no encoder, so its code is searched for (`inversion`), of the first images only. The
VAE has one hidden layer of 500, the GAN two of 256 and 512 with batch normalisation, 512 and 256 in its discriminator.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.reproduce import draw, inversion, published, samples
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, flat, says
from vaegan_jax import gan, nets, pca, plots, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import features
from vaegan_jax.optimizer import Optimizer

SIZES = (2, 10, 20, 30, 50, 100, 200)  # of probabilistic PCA
LATENTS = (2, 10, 30, 50)  # of PCA, VAE and GAN side by side
K = 30
LINEAR = (2, 10, 100)  # more widths of a linear VAE


def rows(x: Any) -> np.ndarray:
    """uint8 images [N, ...] -> [N, D] float32 in [0, 1]."""
    return np.asarray(x).reshape(len(x), -1).astype(np.float32) / 255


def squared_error(x: np.ndarray, rebuilt: np.ndarray) -> float:
    """Summed over an image's pixels, mean over images: x and rebuilt [N, D]."""
    return float(((x.astype(np.float64) - rebuilt) ** 2).sum(axis=1).mean())


def mean_code(config: vae.Config, state: Any, x: np.ndarray, block: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Of uint8 images [N, H, W, C]: the means of q(z|x) [N, K] and what the decoder makes of them [N, D]."""
    codes, rebuilt = [], []
    for start in range(0, len(x), block):
        z, _ = vae.encode(config, state, x[start : start + block])
        codes.append(np.asarray(z))
        rebuilt.append(np.asarray(vae.decode(config, state, z)).reshape(len(z), -1))
    return np.concatenate(codes), np.concatenate(rebuilt)


def exact(job: Job) -> Outcome:
    """PCA and probabilistic PCA of all training images."""
    train, test = job.load("mnist"), job.load("mnist", "test")
    x, y = rows(train.x), rows(test.x)
    found, lines = dict[str, Measured](), list[list[Any]]()
    for k in SIZES:
        model = pca.fit(x, k)
        likelihood = model.log_likelihood(y)
        error = squared_error(y, model.inverse(model.transform(y)))
        se = likelihood.std() / np.sqrt(len(y))
        found[f"ppca_{k}"] = _exact(likelihood.mean(), f"standard error over test images {se:.2g}", train, test)
        if k == K:
            found["reconstruction_30"] = _exact(error, "", train, test)
        lines.append([k, error, float(likelihood.mean()), float(model.log_likelihood(x).mean()), model.noise_variance])
    columns = ("components", "squared error, test", "log p(x), test", "log p(x), train", "noise variance")
    return Outcome(found, [Table("PCA and probabilistic PCA of MNIST, pixels in [0, 1]; nats.", columns, lines)])


def _exact(value: float, note: str, *data: Dataset) -> Measured:
    return Measured([float(value)], exact=True, data=data, note=note)


def linear_config(variance: float, latents: int = K) -> vae.Config:
    """A VAE whose nets are one matrix each; the noise variance is that of probabilistic PCA, so its optimum is too."""
    return dataclasses.replace(
        vae.Config(),
        latents=latents,
        encoder=nets.MLPEncoder(hidden=()),
        decoder=nets.MLPDecoder(hidden=()),
        likelihood="gaussian_fixed",
        variance=variance,
        output="linear",
        weight_prior=False,
        batch_size=500,
    )


def linear_vae(job: Job, name: str, widths: Mapping[int, str], length: int) -> Outcome:
    """A linear VAE of each width for `length` steps. widths: number of latents -> row; name: of the figure."""
    train, test = job.load("mnist"), job.load("mnist", "test")
    steps = job.choose(40, length, length)
    adam = Optimizer(rule="adam", learning_rate=2e-3, linear_from=steps // 4, linear_to=steps)
    every = max(1, steps // job.choose(4, 20, 20))
    figure = plots.new_figure(5.2, 3.4)
    axes = figure.subplots()
    found, said, curves = dict[str, Measured](), [], {}
    for (width, row), colour in zip(widths.items(), (draw.BLUE, draw.RED, draw.GREEN), strict=False):
        model = pca.fit(rows(train.x), width)
        best = float(model.log_likelihood(rows(test.x)).mean())
        config = dataclasses.replace(linear_config(float(model.noise_variance), width), optimizer=adam)
        trained = job.fit(f"linear{width}", vae, config, train, steps=steps, validation=test, checkpoint_every=every)
        at, elbo = trained.curve("validation_elbo")
        gap = best - elbo
        draw.band(axes, at, gap, colour, f"{width} latents, n = {len(gap)}", marker="o", markersize=3.5)
        said.append(f"{width} latents {best:.1f}")
        curves[f"{width} latents"] = trained.record("validation_elbo")
        found[row] = Measured(
            gap[:, -1].tolist(), trained.seeds, trained.failed, steps, trained.config(), (train, test),
            flat=flat(at, gap, tolerance=0.1), note=f"probabilistic PCA: {best:.2f} nats; one draw of z an image",
        )  # fmt: skip
    axes.axhline(0, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="steps", ylabel="nats below probabilistic PCA, test set", yscale="symlog")
    axes.set_ylim(bottom=-0.5)
    axes.xaxis.set_major_formatter(lambda s, _: plots.thousands(s))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / f"{name}.png")
    caption = (
        "A linear VAE on MNIST: what its ELBO lacks of the exact log-likelihood of probabilistic PCA "
        f"({', '.join(said)} nats), on the test set; band: range over seeds."
    )
    return Outcome(found, figures={f"{name}.png": caption}, curves=curves)


def autoencoder_config(hidden: tuple[int, ...], steps: int) -> vae.Config:
    """Cross-entropy of grey pixels and no KL, so that nothing holds up the noise of the code."""
    return dataclasses.replace(
        vae.Config(),
        latents=K,
        encoder=nets.MLPEncoder(hidden=hidden, activation=nn.relu),
        decoder=nets.MLPDecoder(hidden=hidden[::-1], activation=nn.relu),
        binarize="none",
        beta=0.0,
        weight_prior=False,
        optimizer=Optimizer(rule="adam", learning_rate=1e-3, linear_from=steps // 2, linear_to=steps),
    )


def autoencoder(job: Job) -> Outcome:
    """The article's deep net without its pretraining; the step is chosen on validation images, for it may overfit."""
    data = train, held, test = tuple(job.load("mnist", split) for split in ("train[:55000]", "train[55000:]", "test"))
    steps = job.choose(20, 30_000, 120_000)
    every = steps // job.choose(4, 30, 30)

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        """Both are measured at each mark, so that the choice by validation needs no state but these numbers."""
        both = {"held_error": held, "test_error": test}
        return {name: squared_error(rows(s.x), mean_code(config, state, s.x)[1]) for name, s in both.items()}

    trained = job.fit(
        "autoencoder_30", vae, autoencoder_config((1000, 500, 250), steps), train, steps=steps, evaluate=evaluate,
        evaluate_at=tuple(range(every, steps + 1, every)),
    )  # fmt: skip
    at, on_held = trained.curve("held_error")
    on_test = trained.curve("test_error")[1]
    best = lowest(on_held, on_test)
    note = "; ".join(
        f"seed {seed}: step {at[b]:,}, at the end {on_test[i, -1]:.2f}"
        for i, (seed, (b, _)) in enumerate(zip(trained.seeds, best, strict=True))
    )
    errors = [error for _, error in best]
    measured = Measured(errors, trained.seeds, trained.failed, steps, trained.config(), data, note=note)

    figure = plots.new_figure(5.2, 3.4)
    axes = figure.subplots()
    for values, colour, name in ((on_held, draw.BLUE, "validation"), (on_test, draw.RED, "test")):
        draw.band(axes, at, values, colour, f"{name} images, n = {len(values)}")
    axes.axhline(
        published.entries()["pca"]["autoencoder_30"].value,
        color=draw.GREY,
        linewidth=0.8,
        linestyle=":",
        label="the paper's, test",
    )
    axes.set(xlabel="steps", ylabel="squared error an image", ylim=(2, 8))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "autoencoder.png")
    caption = (
        "The deep autoencoder with 30 numbers, MNIST: mean and range over seeds of the error by the code, along "
        "training; a seed counts at its lowest point on validation images."
    )
    curves = {"autoencoder": trained.record("held_error", "test_error")}
    return Outcome({"autoencoder_30": measured}, figures={"autoencoder.png": caption}, curves=curves)


def lowest(held: np.ndarray, test: np.ndarray) -> list[tuple[int, float]]:
    """Of validation and test errors [S, T]: for each seed the mark where the former is lowest, and the latter there."""
    return [(int(b), float(own[b])) for b, own in zip(held.argmin(axis=1), test, strict=True)]


def logistic(job: Job) -> Outcome:
    """One matrix each way with a logistic output."""
    train, test = job.load("mnist"), job.load("mnist", "test")
    steps = job.choose(20, 30_000, 120_000)
    config = autoencoder_config((), steps)
    trained = job.fit("logistic_pca_30", vae, config, train, steps=steps)
    y = rows(test.x)
    errors = [squared_error(y, mean_code(config, trained.state(s), test.x)[1]) for s in trained.seeds]
    measured = Measured(errors, trained.seeds, trained.failed, steps, trained.config(), (train, test))
    return Outcome({"logistic_pca_30": measured})


def vae_config(latents: int) -> vae.Config:
    """784-500-K tanh, grey pixels as Bernoulli targets, Adam."""
    return dataclasses.replace(
        vae.Config(),
        latents=latents,
        encoder=nets.MLPEncoder(hidden=(500,)),
        decoder=nets.MLPDecoder(hidden=(500,)),
        binarize="none",
        weight_prior=False,
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
    )


def gan_config(latents: int) -> gan.Config:
    """ReLU and leaky ReLU MLPs, non-saturating loss, Adam 2e-4 (.5)."""
    adam = Optimizer(rule="adam", learning_rate=2e-4, momentum=0.5)
    return gan.Config(
        latents=latents,
        prior="normal",
        prior_scale=1.0,
        generator=nets.MLPGenerator(hidden=(256, 512), activation=nn.relu, norm="batch"),
        discriminator=nets.MLPDiscriminator(hidden=(512, 256)),
        discriminator_weight=1.0,
        update="alternating",
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )


def latents(job: Job) -> Outcome:
    """PCA, VAE and GAN at the same number of latents."""
    train, test = job.load("mnist"), job.load("mnist", "test")
    x, y = rows(train.x), rows(test.x)
    searched = job.choose(16, 200, 1000)
    one_each = np.array([int(np.flatnonzero(test.label == digit)[0]) for digit in range(10)])
    errors: dict[str, list[list[float]]] = {"VAE": [], "GAN": []}  # of the first test images, which the GAN's are of
    games = job.choose(20, 8_000, 100_000)
    judge = samples.network(job, "mnist") if job.budget != "smoke" else None  # a smoke's knows 8x8 digits alone
    linear, linear_few, found, pictures, codes = [], [], {}, {}, {}
    lines = []
    for k in LATENTS:
        model = pca.fit(x, k)
        rebuilt = model.inverse(model.transform(y))
        linear.append(squared_error(y, rebuilt))
        linear_few.append(squared_error(y[:searched], rebuilt[:searched]))
        pictures[k] = {"PCA": rebuilt[one_each]}
        steps = job.choose(20, 6_000, 60_000)
        coder = job.fit(f"vae{k}", vae, vae_config(k), train, steps=steps)
        each, each_few = [], []
        for seed in coder.seeds:
            z, rebuilt = mean_code(vae_config(k), coder.state(seed), test.x)
            each.append(squared_error(y, rebuilt))
            each_few.append(squared_error(y[:searched], rebuilt[:searched]))
            if seed == coder.seeds[0]:
                pictures[k]["VAE"] = rebuilt[one_each]
                codes[k] = {"PCA": model.transform(y), "VAE": z}
        errors["VAE"].append(each_few)
        game = job.fit(f"gan{k}", gan, gan_config(k), train, steps=games)
        errors["GAN"].append(_inverted(job, game, k, test, searched, one_each, pictures))
        found[f"vae_below_pca_{k}"] = Measured(
            [linear[-1] - e for e in each], coder.seeds, coder.failed, steps, coder.config(), (train, test),
            note=f"PCA {linear[-1]:.2f}, VAE {np.mean(each):.2f}, GAN inversion {np.mean(errors['GAN'][-1]):.2f} "
            f"(of the first {searched} test images)",
        )  # fmt: skip
        few = [draw.spread(errors[name][-1], 4) for name in ("VAE", "GAN")]
        few += [draw.spread(each) for each in _controls(job, game, k, judge)]
        lines.append([k, linear[-1], draw.spread(each, 4), f"{linear_few[-1]:.4g}", *few])
    mean_few = squared_error(y[:searched], x.mean(axis=0))
    _draw_errors(job, linear_few, errors, mean_few)
    _draw_rebuilt(job, test.x[one_each], pictures)
    _draw_codes(job, codes[2], test.label)
    lines.append(["mean image", squared_error(y, x.mean(axis=0)), "", mean_few, "", "", "", ""])
    title = (
        f"Summed squared error a test image, mean +- sd over seeds: of all, and of the first {searched}, for which the "
        f"GAN's codes were searched. The GAN after {games:,} steps: the search finds its own samples again where their "
        "error is near 0, so that the error of test images is the generator's; and how many of the ten digits have 1 % "
        "of its samples, by mnist-cnn."
    )
    columns = ("latents", "PCA", "VAE", "PCA, first", "VAE, first", "GAN inversion, first")
    table = Table(title, (*columns, "GAN inversion, own samples", "digits that the GAN draws"), lines)
    captions = {
        "errors.png": f"How well K numbers describe a test image, of the first {searched}: PCA (exact), VAE (mean of "
        f"q(z|x)), GAN (code found by descent from {inversion.STARTS} starts); band: range over seeds. Dotted: the "
        "mean training image, which takes no number.",
        "rebuilt.png": "The first test image of each digit, and what PCA, a VAE and a GAN make of so many numbers; the "
        f"GAN's are searched for, both nets of the first seed. The GAN had {games:,} steps; the table says how many "
        "digits it draws.",
        "codes.png": "Two numbers an image, the first 4,000 test images, coloured by digit: PCA's are the axes of "
        "largest variance, the VAE's (means of q(z|x), first seed) are drawn to the prior, of which the circle holds "
        "95 %.",
    }
    return Outcome(found, [table], captions)


def _inverted(
    job: Job, game: Trained, k: int, test: Dataset, searched: int, shown: np.ndarray, pictures: dict[int, Any]
) -> list[float]:
    """Errors of the first test images after inversion, one a seed; the shown ones' pictures of the first seed."""
    each = []
    for seed in game.seeds:
        invert = functools.partial(
            inversion.invert, gan, gan_config(k), game.state(seed), steps=job.choose(10, 300, 1000)
        )
        _, rebuilt = invert(jax.random.key(seed), test.x[:searched])
        each.append(squared_error(rows(test.x[:searched]), rebuilt.reshape(searched, -1)))
        if seed == game.seeds[0]:
            pictures[k]["GAN"] = invert(jax.random.key(seed), test.x[shown])[1].reshape(len(shown), -1)
        job.tick()
    return each


def _controls(job: Job, game: Trained, k: int, judge: features.Extractor | None) -> tuple[list[float], list[float]]:
    """(error of the generator's own samples after inversion, digits among its samples), one a seed."""
    found, digits = [], []
    for seed in game.seeds:
        state = game.state(seed)
        own = np.asarray(gan.sample(gan_config(k), state, jax.random.key(seed + 100), inversion.BLOCK))
        _, rebuilt = inversion.invert(
            gan, gan_config(k), state, jax.random.key(seed), own, steps=job.choose(10, 300, 1000)
        )
        found.append(squared_error(own.reshape(len(own), -1), rebuilt.reshape(len(own), -1)))
        many = np.asarray(gan.sample(gan_config(k), state, jax.random.key(seed + 200), job.choose(100, 2_000, 2_000)))
        if judge:
            digits.append(samples.common(samples.shares(judge.probabilities(many, progress=False))))
        job.tick()
    return found, digits


def _draw_errors(job: Job, linear: list[float], errors: dict[str, list[list[float]]], mean: float) -> None:
    figure = plots.new_figure(5.2, 3.6)
    axes = figure.subplots()
    axes.plot(LATENTS, linear, color=draw.GREY, marker="s", markersize=4, linewidth=1.5, label="PCA")
    for (name, each), colour in zip(errors.items(), (draw.BLUE, draw.RED), strict=True):
        if all(len(e) == len(each[0]) > 0 for e in each):
            draw.band(axes, LATENTS, np.array(each).T, colour, name, marker="o", markersize=3.5)
    axes.axhline(mean, color=draw.GREY, linewidth=0.9, linestyle=":", label="mean image")
    axes.set(xlabel="latents", ylabel="squared error an image", xscale="log", ylim=(0, None))
    axes.set_xticks(LATENTS, [str(k) for k in LATENTS])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "errors.png")


def _draw_rebuilt(job: Job, originals: np.ndarray, pictures: dict[int, dict[str, np.ndarray]]) -> None:
    shown = [("test image", originals)]
    shown += [
        (f"{name}, {k}", np.clip(images, 0, 1).reshape(-1, *originals.shape[1:]))
        for k, each in pictures.items()
        for name, images in each.items()
    ]
    draw.panels(shown, job.figures / "rebuilt.png", columns=len(originals))


def _draw_codes(job: Job, codes: dict[str, np.ndarray], label: np.ndarray) -> None:
    from matplotlib.patches import Circle

    figure = plots.new_figure(8.4, 4.0)
    panels = figure.subplots(1, 2)
    for axes, (name, z) in zip(panels, codes.items(), strict=True):
        dots = axes.scatter(*z[:4000].T, c=label[:4000], cmap="tab10", vmin=-0.5, vmax=9.5, s=4, linewidths=0)
        axes.set_title(name, fontsize=10, loc="left")
        axes.set(xlabel="first number", ylabel="second number")
        if name == "VAE":
            radius = math.sqrt(-2 * math.log(0.05))  # of N(0, I) in two dimensions
            axes.add_patch(Circle((0, 0), radius, fill=False, color=draw.GREY, linewidth=0.8))
        axes.set_aspect("equal", adjustable="datalim")
        plots.clean(axes, grid_lines=False)
    bar = figure.colorbar(dots, ax=panels, ticks=range(10), shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    plots.render(figure, job.figures / "codes.png")


PARTS = (
    Part(
        "exact",
        ("reconstruction_30", *(f"ppca_{k}" for k in SIZES)),
        exact,
        says("closed forms, 60,000 images", *["half a minute"] * 3),
    ),
    Part(
        "linear",
        ("linear_vae",),
        functools.partial(linear_vae, name="linear", widths={K: "linear_vae"}, length=20_000),
        says("a linear VAE a seed, batch 500", "40 steps", *["20,000 steps, 5 minutes a seed"] * 2),
        cpu_seeds=10,
    ),
    Part(
        "linear_widths",
        tuple(f"linear_vae_{k}" for k in LINEAR),
        functools.partial(
            linear_vae, name="linear_widths", widths={k: f"linear_vae_{k}" for k in LINEAR}, length=40_000
        ),
        says("linear VAEs of three widths, batch 500", "40 steps", *["40,000 steps each, 7 minutes a seed"] * 2),
    ),
    Part(
        "autoencoder",
        ("autoencoder_30",),
        autoencoder,
        says("a deep autoencoder a seed", "20 steps", "30,000 steps, 8 minutes a seed", "120,000 steps"),
    ),
    Part(
        "logistic",
        ("logistic_pca_30",),
        logistic,
        says("logistic PCA", "20 steps", "30,000 steps, 2 minutes a seed", "120,000 steps"),
    ),
    Part(
        "latents",
        tuple(f"vae_below_pca_{k}" for k in LATENTS),
        latents,
        says(
            "four VAEs and four GANs a seed, and the GANs' inversion",
            "20 steps",
            "6,000 and 8,000 steps, 13 minutes a seed",
            "60,000 and 100,000 steps",
        ),
    ),
)
