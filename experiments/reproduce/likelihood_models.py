"""The decoders that Wu et al. 2017 compare: widths, variances, and how they are trained here."""

import dataclasses
from typing import Any

import flax.linen as nn

from vaegan_jax import gan, nets, vae
from vaegan_jax.optimizer import Optimizer

DECODERS = {10: (64, 256, 256, 1024), 50: (1024, 1024, 1024)}
"""Hidden layers, tanh, by the number of latents."""


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    algorithm: Any
    latents: int
    variance: float
    """Of the Gaussian around the decoder's output; the paper's, chosen there on validation images."""

    @property
    def row(self) -> str:
        """Its name in rows."""
        return self.name.lower().replace("-", "")

    @property
    def has_encoder(self) -> bool:
        return self.algorithm is vae

    def config(self, budget: str) -> Any:
        """The paper names neither encoder, nor discriminator, nor optimiser: the decoder's mirror, an MLP, Adam."""
        hidden = DECODERS[self.latents] if budget != "smoke" else (16,)
        if self.has_encoder:
            return vae.Config(
                latents=self.latents,
                encoder=nets.MLPEncoder(hidden=hidden[::-1], activation=nn.tanh),
                decoder=nets.MLPDecoder(hidden=hidden, activation=nn.tanh),
                likelihood="gaussian_fixed",
                variance=self.variance,
                weight_prior=False,
                optimizer=Optimizer(rule="adam", learning_rate=1e-3),
                splits=("train[:50000]", "train[50000:]", "test"),
            )
        adam = Optimizer(rule="adam", learning_rate=2e-4, momentum=0.5)
        return gan.Config(
            latents=self.latents,
            prior="normal",
            prior_scale=1.0,
            generator=nets.MLPGenerator(hidden=hidden, activation=nn.tanh),
            discriminator=nets.MLPDiscriminator(hidden=(1024, 512, 256) if budget != "smoke" else (16,)),
            discriminator_weight=1.0,
            update="alternating",
            generator_optimizer=adam,
            discriminator_optimizer=adam,
        )


MODELS = (
    Model("VAE-50", vae, 50, 0.005),
    Model("GAN-50", gan, 50, 0.01),
    Model("VAE-10", vae, 10, 0.03),
    Model("GAN-10", gan, 10, 0.025),
)
BY_NAME = {model.name: model for model in MODELS}


def steps(budget: str) -> int:
    return {"smoke": 10, "cpu": 20_000, "paper": 250_000}[budget]
