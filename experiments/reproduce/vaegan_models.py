"""VAE/GAN and what it is compared with, on the same nets: their configs, and their trainings, which all parts share.

The trainings lie in `trainings` beside the parts' folders; their time counts to the part that ran them.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.reproduce import vaegan_frozen
from experiments.reproduce.job import Job, Trained
from vaegan_jax import fit, gan, nets, vae, vaegan
from vaegan_jax.data.dataset import Dataset

COMPARED = ("vae", "vae_dis_l", "vaegan", "gan")
PRIOR_FAKES = "vaegan_prior_fakes"
ONE_BATCH = "vaegan_one_batch"
BALANCE = "vaegan_balance"
RAW = "vaegan_raw"
WEIGHT = "vaegan_weight"
TITLES = {
    "vae": "VAE",
    "vae_dis_l": "VAE with Dis_l",
    "vaegan": "VAE/GAN",
    "gan": "GAN",
    PRIOR_FAKES: "VAE/GAN, samples alone as fakes",
    ONE_BATCH: "VAE/GAN, statistics of Dis shared",
    BALANCE: "VAE/GAN, released balance rule",
    RAW: "VAE/GAN, Dis_l before its normalisation",
    WEIGHT: "VAE/GAN, released weight of Dis_l",
}
ALGORITHMS: dict[str, Any] = {
    "vae": vae, "vae_dis_l": vaegan, "vaegan": vaegan, "gan": gan, PRIOR_FAKES: vaegan, ONE_BATCH: vaegan,
    BALANCE: vaegan, RAW: vaegan, WEIGHT: vaegan,
}  # fmt: skip
"""What samples, encodes and reconstructs; it also trains, but for vae_dis_l."""
PUBLISHED = 37_500
"""The released scripts' 150 epochs of 250 batches of 64 faces."""
FACE = (64, 64, 3)  # the paper's images
RELEASED = 1e-6
"""The decoder descends w L_llike - (1 - w) L_GAN; this is the scripts' w for faces, at commit 24aa0f2."""


def steps(budget: str) -> int:
    return {"smoke": 2, "cpu": 800, "paper": PUBLISHED}[budget]


def small(width: int = 64) -> vaegan.Config:
    """Algorithm 1 with the package's nets for 28x28, which halve the image twice; 128 latents at width 64."""
    return vaegan.Config(
        latents=2 * width,
        encoder=nets.ConvEncoder(channels=(width, 2 * width), hidden=16 * width),
        decoder=nets.ConvDecoder(channels=(2 * width, width), hidden=(16 * width,)),
        discriminator=nets.ConvDiscriminator(
            channels=(width, 2 * width), hidden=(16 * width,), feature_layer="conv1_activation"
        ),
    )


def faces(width: int = 64) -> vaegan.Config:
    """The same with three halvings of 64x64 and one more in Dis, about table 2's widths at width 64; tanh."""
    return vaegan.Config(
        latents=2 * width,
        encoder=nets.ConvEncoder(channels=(width, 2 * width, 4 * width), hidden=32 * width),
        decoder=nets.ConvDecoder(channels=(4 * width, 4 * width, 2 * width), hidden=()),
        discriminator=nets.ConvDiscriminator(
            channels=(width // 2, 2 * width, 4 * width, 4 * width), hidden=(8 * width,),
            feature_layer="conv3_activation",
        ),
        output="tanh",
    )  # fmt: skip


def base(job: Job, shape: Sequence[int]) -> vaegan.Config:
    """VAE/GAN for images of a shape; in a smoke perceptrons, as convolutions take a minute to compile."""
    if job.budget == "smoke":
        return vaegan.Config(
            latents=8, encoder=nets.MLPEncoder(hidden=(16,)), decoder=nets.MLPDecoder(hidden=(16,)),
            discriminator=nets.MLPDiscriminator(hidden=(16, 16)),
        )  # fmt: skip
    return faces() if shape[0] == FACE[0] else small()


def variance(shape: Sequence[int]) -> float:
    """Of the VAE's pixels in [0, 1].

    The paper's is 1 for values in [-1, 1], so 1/4 in [0, 1], on those of a FACE. Fewer values would weigh less against
    the KL of an image, so the variance falls with their number.
    """
    return 0.25 * math.prod(shape) / math.prod(FACE)


def config(model: str, base: vaegan.Config, shape: Sequence[int]) -> Any:
    """A model with the nets, the optimisers (RMSProp 3e-4) and the batch of 64 that `base`, VAE/GAN, has."""
    if model == "vae":
        return vae.Config(
            latents=base.latents, encoder=base.encoder, decoder=base.decoder, likelihood="gaussian_fixed",
            variance=variance(shape), weight_prior=False, optimizer=base.encoder_optimizer, batch_size=base.batch_size,
        )  # fmt: skip
    if model == "gan":
        return gan.Config(
            latents=base.latents, prior="normal", prior_scale=1.0, generator=base.decoder,
            discriminator=base.discriminator, output=base.output, discriminator_weight=1.0,
            generator_optimizer=base.decoder_optimizer, discriminator_optimizer=base.discriminator_optimizer,
            batch_size=base.batch_size, splits=base.splits,
        )  # fmt: skip
    if model == "vae_dis_l":
        return dataclasses.replace(base, gan_weight=0.0)
    if model == RAW:
        layer = base.discriminator.feature_layer.removesuffix("_activation")
        return dataclasses.replace(base, discriminator=base.discriminator.clone(feature_layer=layer))
    if model == WEIGHT:
        return dataclasses.replace(base, gamma=RELEASED, gan_weight=1 - RELEASED)
    return dataclasses.replace(
        base, reconstructions_as_fakes=model != PRIOR_FAKES, one_batch=model == ONE_BATCH, balance=model == BALANCE
    )


def shared(job: Job) -> Job:
    """The parts share trainings, which lie beside their folders."""
    return job.beside("trainings")


def train(job: Job, data: Dataset, models: Sequence[str]) -> dict[str, Trained]:
    """The trainings of `models` on `data`, each of steps(budget) steps; vae_dis_l needs gan before it."""
    here = shared(job)
    shape = data.x.shape[1:]
    together = True if job.budget == "smoke" else None  # one program to compile, not one a seed
    slug = "".join(c if c.isalnum() else "-" for c in Path(data.name).name)
    found: dict[str, Trained] = {}
    for model in sorted(models, key=lambda model: model != "gan"):
        name, one = f"{slug}-{model}", config(model, base(job, shape), shape)
        if model == "vae_dis_l":
            found[model] = _by_discriminator(here, name, one, data, found["gan"])
        else:
            found[model] = here.fit(name, ALGORITHMS[model], one, data, steps=steps(job.budget), side_by_side=together)
        job.tick()
    return {model: found[model] for model in models}


def _by_discriminator(job: Job, name: str, config: vaegan.Config, data: Dataset, judges: Trained) -> Trained:
    """Encoder and decoder, each seed under the discriminator of the same seed's GAN; where that failed, so does it."""
    runs, failed = dict[int, Any](), list(judges.failed)
    for seed in judges.seeds:
        # Encoder and decoder begin as VAE/GAN's.
        first = fit.first_states(vaegan, config, data, (seed,))
        trained = jax.tree.map(lambda leaf: leaf[None], judges.state(seed).discriminator)
        one = job.fit(
            name, vaegan_frozen, config, data, steps=steps(job.budget), seeds=(seed,),
            initial_states=dataclasses.replace(first, discriminator=trained),
        )  # fmt: skip
        runs |= one.runs
        failed += one.failed
    return Trained(runs, tuple(sorted(failed)))
