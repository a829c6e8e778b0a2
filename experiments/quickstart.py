"""All five models and PCA on scikit-learn's 8x8 digits in about two minutes, and a page with their pictures.

python -m experiments.quickstart                            writes runs/quickstart/REPORT.md; --folder: elsewhere

The nets are small and the rates larger than in the papers: `make train-vae` and its sisters run the papers' recipes.
"""

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments import common, figures, neighbours
from vaegan_jax import data, fit, gan, nets, pca, vae, vaegan, wgan
from vaegan_jax.optimizer import Optimizer

LATENTS = 8


@dataclasses.dataclass(frozen=True)
class Part:
    """One model of the page."""

    title: str
    paper: str
    algorithm: Any
    config: Any
    steps: int
    reading: str
    """What to look for in its pictures."""


def parts() -> dict[str, Part]:
    """The models in the order of the page."""
    adam = Optimizer(rule="adam", learning_rate=1e-3)
    adversarial = Optimizer(rule="adam", learning_rate=5e-4, momentum=0.5)
    rmsprop = Optimizer(rule="rmsprop", learning_rate=1e-3, momentum=0.0, b2=0.99)
    autoencoder = vae.Config(
        latents=LATENTS,
        encoder=nets.MLPEncoder(hidden=(200,), activation=nn.tanh),
        decoder=nets.MLPDecoder(hidden=(200,), activation=nn.tanh),
        weight_prior=False,
        optimizer=adam,
    )
    generator = nets.ConvGenerator(channels=(32, 16), hidden=(128,), kernel=(3, 3))
    discriminator = nets.ConvDiscriminator(channels=(16, 32), hidden=(128,), kernel=(3, 3))
    return {
        "vae": Part(
            "VAE",
            "Kingma & Welling 2013",
            vae,
            autoencoder,
            4000,
            "It climbs the ELBO, a lower bound on log p(x): samples cover every digit and are soft, because what is "
            "shown is the mean of p(x | z).",
        ),
        "vae2": Part(
            "VAE with two latents",
            "Kingma & Welling 2013, figure 4",
            vae,
            dataclasses.replace(autoencoder, latents=2),
            4000,
            "The latent space itself: each image is the decoder's mean on a grid of the prior's quantiles.",
        ),
        "gan": Part(
            "GAN",
            "Goodfellow et al. 2014",
            gan,
            gan.Config(
                latents=32,
                generator=nets.MLPGenerator(hidden=(256, 256), activation=nn.relu, kernel_init=nets.Uniform(0.05)),
                discriminator=nets.MaxoutDiscriminator(hidden=(64, 64), pieces=4),
                batch_size=64,
            ),
            8000,
            "No likelihood and no encoder: a discriminator is all that the generator ever hears. Its losses are no "
            "measure of quality; look at the samples, and whether every digit is there.",
        ),
        "dcgan": Part(
            "DCGAN",
            "Radford, Metz & Chintala 2015",
            gan,
            dataclasses.replace(
                gan.dcgan(),
                latents=32,
                generator=generator,
                discriminator=discriminator,
                generator_optimizer=adversarial,
                discriminator_optimizer=adversarial,
                batch_size=64,
            ),
            1200,
            "The same game with strided convolutions and batch normalisation in both nets.",
        ),
        "wgan": Part(
            "WGAN",
            "Arjovsky, Chintala & Bottou 2017",
            wgan,
            wgan.Config(
                latents=32,
                generator=generator,
                discriminator=discriminator,
                generator_optimizer=rmsprop,
                discriminator_optimizer=rmsprop,
                clip=0.03,  # .01 stops every signal in a critic this narrow
            ),
            700,
            "The critic's estimate of the Wasserstein distance is a curve that can be read: it falls while samples "
            "improve.",
        ),
        "vaegan": Part(
            "VAE/GAN",
            "Larsen et al. 2016",
            vaegan,
            vaegan.Config(
                latents=LATENTS,
                encoder=nets.ConvEncoder(channels=(16, 32), hidden=128, kernel=(3, 3)),
                decoder=generator,
                # The encoder's likelihood sums over Dis_l: with few features it loses to the KL term.
                discriminator=dataclasses.replace(discriminator, channels=(32, 128), feature_layer="conv1_activation"),
                gamma=0.1,
                encoder_optimizer=adversarial,
                decoder_optimizer=adversarial,
                discriminator_optimizer=adversarial,
            ),
            1000,
            "A VAE whose reconstruction error is measured in the discriminator's features instead of pixels.",
        ),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, draws, writes REPORT.md into the folder, and says where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "quickstart")
    folder = parser.parse_args(argv).folder
    common.use_compilation_cache()
    for name in parts():  # a demonstration starts anew
        shutil.rmtree(folder / name, ignore_errors=True)
    train, test = data.load("digits", "train"), data.load("digits", "test")
    began, sections, rows = time.perf_counter(), [], []
    errors = {f"PCA, {k} components": _pca_error(train.x, test.x, k) for k in (2, LATENTS)}
    for number, (name, part) in enumerate(parts().items(), 1):
        print(
            f"[{number}/{len(parts())}] {part.title} ({part.paper}), {part.steps:,} steps", file=sys.stderr, flush=True
        )
        started = time.perf_counter()
        run = fit.fit(part.algorithm, part.config, train, steps=part.steps, workdir=folder / name, log_every=100)
        paths = figures.draw(run, test, folder / name, n=50)
        config, state, seconds = run.config, run.state(0), time.perf_counter() - started
        measured = fit.validate(part.algorithm, config, state, test)
        samples = np.asarray(part.algorithm.sample(config, state, jax.random.key(4), common.SAMPLES))
        found = neighbours.neighbours(samples, train, test)
        near = f"{found.classes} of 10, {found.largest_share:.0%}, {found.distance_ratio:.2f}"
        if hasattr(part.algorithm, "reconstruct"):
            errors[f"{part.title.partition(' with')[0]}, {config.latents} latents"] = _error(
                part.algorithm, config, state, test.x
            )
        rows.append(f"| {part.title} | {part.paper} | {part.steps:,} | {seconds:.0f} | {_numbers(measured)} | {near} |")
        sections.append(_section(part, folder, paths, name))
    report = folder / "REPORT.md"
    report.write_text(_page(rows, errors, sections, time.perf_counter() - began, len(train), len(test)))
    print(f"\nThe page with all pictures: {report}\nNext, the same on MNIST by the paper's recipe: make train-vae")
    return 0


def _error(algorithm: Any, config: Any, state: Any, x: np.ndarray) -> float:
    """Summed squared error an image in [0, 1], decoding the posterior's mean: what PCA is measured by."""
    mean, _ = algorithm.encode(config, state, x)
    rebuilt = np.asarray(algorithm.decode(config, state, mean))
    return float(((rebuilt - x / 255.0) ** 2).reshape(len(x), -1).sum(axis=1).mean())


def _pca_error(train: np.ndarray, test: np.ndarray, k: int) -> float:
    flat = [x.reshape(len(x), -1) / 255.0 for x in (train, test)]
    model = pca.fit(flat[0], k)
    return float(((model.inverse(model.transform(flat[1])) - flat[1]) ** 2).sum(axis=1).mean())


def _numbers(measured: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in measured.items())


def _section(part: Part, folder: Path, paths: list[Path], name: str) -> str:
    pictures = "\n\n".join(
        f"{path.stem.capitalize()}:\n\n![{part.title}, {path.stem}]({path.relative_to(folder).as_posix()})"
        for path in paths
    )
    return f"## {part.title}\n\n{part.paper}. {part.reading}\n\n{pictures}\n\nIn Python: " + (
        f"`vaegan_jax.load({str(folder / name)!r}).sample(jax.random.key(0), 16)`\n"
    )


def _page(rows: list[str], errors: dict[str, float], sections: list[str], seconds: float, train: int, test: int) -> str:
    device = jax.devices()[0].device_kind
    table = "\n".join(f"| {name} | {value:.2f} |" for name, value in errors.items())
    return "\n".join(
        [
            "# Five models on 8x8 digits",
            "",
            f"scikit-learn's digits, {train:,} to train and {test} to test, {seconds:.0f} s on {device}. Small nets,",
            "short runs and one seed: a first look, not a result. Numbers are means over test images, in nats where",
            "they are log-probabilities; d real and d fake are the discriminator's mean probability of being real.",
            "",
            "| model | paper | steps | seconds | on test images | samples |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Samples: of {common.SAMPLES:,}, the digits that their nearest training images have, the share of the",
            "most frequent one, and their distance to those images as a ratio to that of test images (1 is as it",
            "should be, far below is a copy).",
            "",
            "Reconstruction, summed squared error an image (PCA minimises exactly this; a VAE pays for a prior too):",
            "",
            "| | error |",
            "|---|---|",
            table,
            "",
            *sections,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
