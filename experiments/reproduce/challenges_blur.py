"""Are samples of a VAE blurred? The high frequencies of samples beside those of test images.

A VAE with an error by pixels, a GAN and VAE/GAN on the same convolutional nets, for as many steps: what differs is the
objective.
"""

import math
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import plots
from vaegan_jax.metrics.spectrum import high_frequency_share, radial_power

CUTOFF = 0.25  # cycles a pixel: half of the finest
COLOURS = {"VAE": draw.BLUE, "GAN": draw.RED, "VAE/GAN": draw.GREEN}


def _off(ratio: float) -> float:
    """How far from the test images' share, either way: blur and speckle alike."""
    return abs(math.log(ratio))


def blur(job: Job) -> Outcome:
    """Are samples of a VAE blurred?"""
    train, test = job.load("mnist", "train[:50000]"), job.load("mnist", "test")
    n = job.choose(200, 10_000, 10_000)
    real = test.x[:n]
    mine = high_frequency_share(real, CUTOFF)
    trained: dict[str, Trained] = {}
    ratio: dict[str, dict[int, float]] = {}
    spectra: dict[str, list[np.ndarray]] = {}
    shape = (28, 28, 1)
    steps = models.steps(job.budget)
    for name in COLOURS:
        model = name.lower().replace("/", "")
        algorithm, config = models.ALGORITHMS[model], models.config(model, models.base(job, shape), shape)
        one = trained[name] = job.fit(model, algorithm, config, train, steps=steps)
        ratio[name], spectra[name] = {}, []
        for seed in one.seeds:
            x = np.asarray(algorithm.sample(one.config(), one.state(seed), jax.random.key(seed), n))
            ratio[name][seed] = high_frequency_share(x, CUTOFF) / mine
            spectra[name].append(radial_power(x))
            job.tick()

    def row(value: Any, *names: str) -> Measured:
        return over_seeds(trained, ratio, value, *names, steps=steps, data=(train, test))

    rows = {
        "blur_vae": row(float, "VAE"),
        "blur_gan": row(lambda a, b: _off(b) - _off(a), "GAN", "VAE"),
        "blur_vaegan": row(lambda a, b: _off(b) - _off(a), "VAE/GAN", "VAE"),
        "ratio_gan": row(float, "GAN"),
        "ratio_vaegan": row(float, "VAE/GAN"),
    }
    lines: list[list[Any]] = [["test images", f"{mine:.3g}", 1.0]]
    lines += [
        [name, draw.spread(np.array([*found.values()]) * mine), draw.spread([*found.values()])]
        for name, found in ratio.items()
    ]
    title = (
        f"{n:,} samples of each seed after {steps:,} steps: the share of their power above {CUTOFF} cycles a pixel, "
        "and that over the test images'; mean +- sd over seeds."
    )
    _draw(job, radial_power(real), spectra)
    caption = (
        "Are samples of a VAE blurred? Power of samples over that of test images, ring by ring of spatial frequency: "
        "below 1 detail is missing, above 1 it is more than images have. Geometric mean and range over "
        "seeds; high frequencies begin at the vertical line."
    )
    return Outcome(rows, [Table(title, ("of", "share", "over that of test images"), lines)], {"blur.png": caption})


def _draw(job: Job, real: np.ndarray, spectra: dict[str, list[np.ndarray]]) -> None:
    figure = plots.new_figure(5.4, 3.5)
    axes = figure.subplots()
    rings = slice(1, 15)  # up to half a cycle a pixel of 28
    at = np.arange(len(real))[rings] / 28
    for name, found in spectra.items():
        if found:
            values = np.stack(found)[:, rings] / real[rings]
            draw.band(axes, at, values, COLOURS[name], name, log=True, marker="o", markersize=3)
    axes.axhline(1, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.axvline(CUTOFF, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="cycles a pixel", ylabel="power over that of test images", xlim=(0, 0.51))
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "blur.png")


PART = Part(
    "blur",
    ("blur_vae", "blur_gan", "blur_vaegan", "ratio_gan", "ratio_vaegan"),
    blur,
    says(
        "samples of a VAE, a GAN and a VAE/GAN on MNIST, the same nets", "2 steps",
        f"{models.steps('cpu'):,} steps each, some 14 minutes a seed", f"{models.PUBLISHED:,} steps each",
    ),
)  # fmt: skip
