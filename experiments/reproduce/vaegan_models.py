"""The trainings of Larsen et al.'s comparison, four models on one encoder, decoder and discriminator, and their judge.

All parts that need one share it: it lies in `models` beside their folders, and its time counts to the part that ran it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.reproduce import inversion
from experiments.reproduce.job import Job, Trained
from vaegan_jax import gan, metrics, nets, vae, vaegan
from vaegan_jax.metrics import features
from vaegan_jax.optimizer import Optimizer

MODELS = {"vae": "VAE", "dis_l": "VAE with Dis_l", "vaegan": "VAE/GAN", "gan": "GAN"}
PRIOR_ONLY = "prior_only"
"""VAE/GAN whose discriminator sees no reconstructions, as in the authors' scripts for faces."""
ALGORITHMS = {"vae": vae, "dis_l": vaegan, "vaegan": vaegan, PRIOR_ONLY: vaegan, "gan": gan}
DATASETS = ("mnist", "fashion_mnist")
PUBLISHED = 150 * 250
"""The authors' shortest schedule: 150 epochs of 250 batches of 64."""
LATENTS = 128
NEAREST = 3, 5
"""k of precision and recall, and of density and coverage."""


def dataset(job: Job, name: str) -> str:
    """The 8x8 digits for a smoke, as the classifiers take minutes to train."""
    return "digits" if job.budget == "smoke" else name


def config(model: str, width: int = 64) -> Any:
    """Radford et al.'s 28x28 nets with 64 and 128 maps; the encoder mirrors the decoder. RMSProp 3e-4 as in the paper.

    The VAE is pixelwise: grey pixels as Bernoulli means. The GAN is the same generator and discriminator by DCGAN's
    losses and Adam.
    """
    channels, hidden = (width, 2 * width), 16 * width
    encoder = nets.ConvEncoder(channels=channels, hidden=hidden)
    decoder = nets.ConvDecoder(channels=channels[::-1], hidden=(hidden,))
    discriminator = nets.ConvDiscriminator(channels=channels, hidden=(hidden,), feature_layer="conv1_activation")
    rmsprop = vaegan.Config().encoder_optimizer
    if model == "vae":
        return dataclasses.replace(
            vae.Config(), latents=LATENTS, encoder=encoder, decoder=decoder, binarize="none", weight_prior=False,
            optimizer=rmsprop, batch_size=64,
        )  # fmt: skip
    if model == "gan":
        adam = Optimizer(rule="adam", learning_rate=2e-4, momentum=0.5)
        return dataclasses.replace(
            gan.dcgan(), latents=LATENTS, prior="normal", prior_scale=1.0, generator=decoder, batch_size=64,
            discriminator=discriminator, generator_optimizer=adam, discriminator_optimizer=adam,
            splits=("train", "train[:0]", "test"),
        )  # fmt: skip
    return vaegan.Config(
        latents=LATENTS, encoder=encoder, decoder=decoder, discriminator=discriminator,
        gan_weight=0.0 if model == "dis_l" else 1.0, reconstructions_as_fakes=model != PRIOR_ONLY,
    )  # fmt: skip


def train(job: Job, name: str, models: Sequence[str]) -> dict[str, Trained]:
    shared = dataclasses.replace(job, workdir=job.workdir.parent / "models")
    data = job.load(dataset(job, name))
    found = {}
    for model in models:
        found[model] = shared.fit(
            f"{name}-{model}", ALGORITHMS[model], config(model, job.choose(4, 64, 64)), data, steps=steps(job.budget)
        )
        job.tick()
    return found


def steps(budget: str) -> int:
    return {"smoke": 10, "cpu": 1_000, "paper": PUBLISHED}[budget]


@dataclasses.dataclass(frozen=True)
class Judge:
    """The classifier of a data set, its test images, and what it says of them."""

    network: features.Extractor
    test: Any
    features: np.ndarray
    attributes: np.ndarray

    def frechet(self, images: np.ndarray) -> float:
        return metrics.frechet_distance(self.network.features(images, progress=False), self.features)


def judge(job: Job, name: str) -> Judge:
    network = features.classifier(dataset(job, name), data_dir=job.data_dir, progress=job.progress)
    test = job.load(dataset(job, name), "test")
    if job.budget == "smoke":
        test = dataclasses.replace(test, x=test.x[:200], label=test.label[:200])
    found, probabilities = network.both(test.x, progress=job.progress)
    return Judge(network, test, found, attributes(probabilities))


def attributes(probabilities: np.ndarray) -> np.ndarray:
    """Class probabilities [N, C] -> the classifier's logits less their mean over classes [N, C]."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    return logits - logits.mean(axis=1, keepdims=True)


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between attribute vectors: [N, C] twice -> [N] in [-1, 1]."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def rebuilt(model: str, config: Any, state: Any, x: np.ndarray, block: int = 500) -> np.ndarray:
    """Decoder's image of the mean code of uint8 images [N, H, W, C] -> [N, H, W, C] in [0, 1]."""
    algorithm, parts = ALGORITHMS[model], []
    for start in range(0, len(x), block):
        z, _ = algorithm.encode(config, state, x[start : start + block])
        parts.append(np.asarray(algorithm.decode(config, state, z)))
    return np.concatenate(parts)


def inverted(job: Job, config: Any, state: Any, seed: int, x: np.ndarray) -> np.ndarray:
    """A GAN has no encoder: its images of the codes that descent finds for x [N, H, W, C]."""
    return inversion.invert(gan, config, state, jax.random.key(seed), x, steps=job.choose(5, 100, 500))[1]


def squared_error(x: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Summed over pixels: uint8 [N, ...] and [0, 1] [N, ...] -> [N]."""
    return ((x.astype(np.float64) / 255 - images) ** 2).reshape(len(x), -1).sum(axis=1)


def draws(model: str, config: Any, state: Any, seed: int, n: int) -> np.ndarray:
    """n samples [n, H, W, C] in [0, 1]."""
    return np.asarray(ALGORITHMS[model].sample(config, state, jax.random.key(seed), n))
