"""The models that Wu et al. 2017 compare, as their released code and the names of its checkpoints have them.

What is known: both nets' widths, variances, epochs, rates, and all of the GMMNs but what they draw z from, which is
judged as N(0, I). What is not: Adam's beta1, the batch (100 here), the GANs' discriminators, and where the dropout of
the 50-latent models (.2 and .8 in their names) lies; here is none.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from vaegan_jax import gan, gmmn, nets, vae
from vaegan_jax.optimizer import Optimizer

DECODERS = {10: (64, 256, 256, 1024), 50: (1024, 1024, 1024)}
"""Hidden layers by the number of latents: tanh, the GMMNs' rectified."""
ENCODERS = {10: (256, 64), 50: (1024, 256, 256, 64)}
EPOCH = 500  # steps: 50,000 images in batches of 100


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    algorithm: Any
    latents: int
    variance: float
    """Of the Gaussian around the decoder's output; the paper's, chosen there on validation images."""
    epochs: int
    rates: tuple[float, ...]
    """Of Adam: the VAE's; the generator's and the discriminator's. Of SGD, its first: GMMN's."""
    cpu_steps: int = 20_000

    def steps(self, budget: str) -> int:
        smoke, epoch = (3, 50) if self.algorithm is gmmn else (10, EPOCH)
        return {"smoke": smoke, "cpu": self.cpu_steps, "paper": epoch * self.epochs}[budget]

    @property
    def row(self) -> str:
        """Its name in rows."""
        return self.name.lower().replace("-", "")

    @property
    def has_encoder(self) -> bool:
        return self.algorithm is vae

    def config(self, budget: str) -> Any:
        """With the published rates at the published length; a short training gets faster ones, but of the GMMNs."""
        hidden, back = (DECODERS[self.latents], ENCODERS[self.latents]) if budget != "smoke" else ((16,), (16,))
        if self.algorithm is gmmn:
            base = gmmn.Config()
            sgd = dataclasses.replace(
                base.generator_optimizer, learning_rate=self.rates[0], momentum_from=200, momentum_to=201
            )  # iteration 10,000 of 50 an epoch
            return dataclasses.replace(
                base, latents=self.latents, prior="normal", generator_optimizer=sgd,
                generator=nets.MLPGenerator(hidden=hidden, activation=nn.relu, kernel_init=nets.FanIn(0.1)),
                batch_size=1_000 if budget != "smoke" else 20, splits=("train[:50000]", "train[50000:]", "test"),
            )  # fmt: skip
        rates = self.rates if budget == "paper" else (1e-3,) if self.has_encoder else (2e-4, 2e-4)
        momentum = 0.9 if self.has_encoder else 0.5
        adam = [Optimizer(rule="adam", learning_rate=rate, momentum=momentum) for rate in rates]
        if self.has_encoder:
            return vae.Config(
                latents=self.latents,
                encoder=nets.MLPEncoder(hidden=back, activation=nn.tanh),
                decoder=nets.MLPDecoder(hidden=hidden, activation=nn.tanh),
                likelihood="gaussian_fixed",
                variance=self.variance,
                weight_prior=False,
                optimizer=adam[0],
                splits=("train[:50000]", "train[50000:]", "test"),
            )
        return gan.Config(
            latents=self.latents,
            prior="normal",
            prior_scale=1.0,
            generator=nets.MLPGenerator(hidden=hidden, activation=nn.tanh),
            discriminator=nets.MLPDiscriminator(hidden=(1024, 512, 256) if budget != "smoke" else (16,)),
            discriminator_weight=1.0,
            update="alternating",
            generator_optimizer=adam[0],
            discriminator_optimizer=adam[1],
        )


MODELS = (
    Model("VAE-50", vae, 50, 0.005, 1_000, (1e-4,)),
    Model("GAN-50", gan, 50, 0.01, 1_000, (1e-4, 1e-4)),
    Model("VAE-10", vae, 10, 0.03, 4_000, (1e-5,)),
    Model("GAN-10", gan, 10, 0.025, 8_000, (1e-4, 1e-3), 10_000),
)
GMMN = (
    Model("GMMN-50", gmmn, 50, 0.01, 1_000, (0.5,), 1_000),
    Model("GMMN-10", gmmn, 10, 0.025, 1_000, (2.0,), 1_000),
)
"""50,000 iterations of a fiftieth of the images: their released checkpoints' names."""
BY_NAME = {model.name: model for model in MODELS}
