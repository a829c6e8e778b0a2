"""The unconditional trainings that several parts of the DCGAN target look at.

They lie in `models` beside the parts' folders; their time counts to the part that ran them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import samples
from experiments.reproduce.job import Job, Trained
from vaegan_jax import gan

PUBLISHED = 200 * 195
"""Steps of the released MNIST script: 200 epochs; half of the batches go to each player."""


def splits(job: Job, name: str) -> tuple[Any, Any, Any]:
    """Train, validation, test: 50,000 and 10,000 of the training images, as released."""
    name, n = samples.dataset(job, name), job.choose(1000, 50_000, 50_000)
    return job.load(name, f"train[:{n}]"), job.load(name, f"train[{n}:]"), job.load(name, "test")


def small(job: Job, config: Any) -> Any:
    """The config itself, or with a few maps for a smoke."""
    if job.budget != "smoke":
        return config
    return dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, channels=(8, 4), hidden=(16,)),
        discriminator=dataclasses.replace(config.discriminator, channels=(4, 8), hidden=(16,)),
    )


def steps(budget: str) -> int:
    return {"smoke": 10, "cpu": 700, "paper": PUBLISHED}[budget]


def train(job: Job, name: str, variant: str = "dcgan") -> Trained:
    """The released unconditional recipe on a data set, or one of VARIANTS of it."""
    shared = job.beside("models")
    config = small(job, VARIANTS[variant](gan.dcgan()))
    found = shared.fit(f"{name}-{variant}", gan, config, splits(job, name)[0], steps=steps(job.budget))
    job.tick()
    return found


def _both(config: gan.Config, **changes: Any) -> gan.Config:
    return dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, **changes),
        discriminator=dataclasses.replace(config.discriminator, **changes),
    )


def _beta1(config: gan.Config, value: float) -> gan.Config:
    return dataclasses.replace(
        config,
        generator_optimizer=dataclasses.replace(config.generator_optimizer, momentum=value),
        discriminator_optimizer=dataclasses.replace(config.discriminator_optimizer, momentum=value),
    )


VARIANTS: dict[str, Any] = {
    "dcgan": lambda config: config,
    "no_batchnorm": lambda config: _both(config, norm="none"),
    "generator_tanh": lambda config: dataclasses.replace(
        config, generator=dataclasses.replace(config.generator, activation=jnp.tanh)
    ),
    "discriminator_relu": lambda config: dataclasses.replace(
        config, discriminator=dataclasses.replace(config.discriminator, activation=jax.nn.relu)
    ),
    "beta1": lambda config: _beta1(config, 0.9),
}


def draws(one: Trained, seed: int, n: int, label: Any = None) -> np.ndarray:
    """n samples of one seed, [n, H, W, C] in [0, 1]."""
    return np.asarray(gan.sample(one.config(), one.state(seed), jax.random.key(seed), n, label))
