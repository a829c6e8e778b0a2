"""Are samples of a VAE blurred? The high frequencies of samples beside those of test images."""

from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from experiments.vae import adam
from vaegan_jax import gan, plots, vae, vaegan
from vaegan_jax.metrics.spectrum import high_frequency_share, radial_power

CUTOFF = 0.25  # cycles a pixel: half of the finest
COLOURS = {"VAE": draw.BLUE, "GAN": draw.RED, "VAE/GAN": draw.GREEN}


def _models(job: Job) -> tuple[tuple[str, Any, Any, int], ...]:
    """(name, algorithm, config, steps); for a smoke VAE/GAN of perceptrons."""
    return (
        ("VAE", vae, adam(), job.choose(20, 12_000, 120_000)),
        ("GAN", gan, gan.Config(), job.choose(20, 20_000, 250_000)),
        ("VAE/GAN", vaegan, models.base(job, (28, 28, 1)), job.choose(5, 1_500, 37_500)),
    )


def blur(job: Job) -> Outcome:
    """Are samples of a VAE blurred?"""
    train, test = job.load("mnist", "train[:50000]"), job.load("mnist", "test")
    n = job.choose(200, 10_000, 10_000)
    real = test.x[:n]
    mine = high_frequency_share(real, CUTOFF)
    trained: dict[str, Trained] = {}
    ratio: dict[str, dict[int, float]] = {}
    spectra: dict[str, list[np.ndarray]] = {}
    took = {}
    for name, algorithm, config, steps in _models(job):
        one = trained[name] = job.fit(name.replace("/", ""), algorithm, config, train, steps=steps)
        ratio[name], spectra[name], took[name] = {}, [], steps
        for seed in one.seeds:
            x = np.asarray(algorithm.sample(one.config(), one.state(seed), jax.random.key(seed), n))
            ratio[name][seed] = high_frequency_share(x, CUTOFF) / mine
            spectra[name].append(radial_power(x))
            job.tick()

    def row(value: Any, *names: str) -> Measured:
        return over_seeds(trained, ratio, value, *names, steps=took[names[0]], data=(train, test))

    rows = {
        "blur_vae": row(float, "VAE"),
        "blur_gan": row(lambda a, b: a - b, "GAN", "VAE"),
        "blur_vaegan": row(lambda a, b: a - b, "VAE/GAN", "VAE"),
    }
    lines: list[list[Any]] = [["test images", f"{mine:.3g}", 1.0]]
    lines += [
        [name, draw.spread(np.array([*found.values()]) * mine), draw.spread([*found.values()])]
        for name, found in ratio.items()
    ]
    title = (
        f"{n:,} samples of each seed: the share of their power above {CUTOFF} cycles a pixel, and that over the test "
        "images'; mean +- sd over seeds."
    )
    _draw(job, radial_power(real), spectra)
    caption = (
        "Are samples of a VAE blurred? Power of samples over that of test images, ring by ring of spatial frequency: "
        "below 1 detail is missing, above 1 it is more than images have. Mean and range over seeds."
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
            draw.band(axes, at, values, COLOURS[name], name, marker="o", markersize=3)
    axes.axhline(1, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.axvline(CUTOFF, color=draw.GREY, linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="cycles a pixel", ylabel="power over that of test images", xlim=(0, 0.51))
    axes.legend(frameon=False, fontsize=8)
    plots.clean(axes)
    plots.render(figure, job.figures / "blur.png")


PART = Part(
    "blur",
    ("blur_vae", "blur_gan", "blur_vaegan"),
    blur,
    says(
        "samples of a VAE, a GAN and a VAE/GAN on MNIST", "20 steps",
        "12,000, 20,000 and 1,500 steps, some 22 minutes a seed", "120,000, 250,000 and 37,500 steps",
    ),
)  # fmt: skip
