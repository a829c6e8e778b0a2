"""Figures 3 to 7 are of eight trainings: three generators against DCGAN's critic and MLPs on both sides, each twice.

All parts that need one share it: it lies in `cells` beside their folders, and its time counts to the part that ran it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.reproduce import samples as eye
from experiments.reproduce.job import Job, Trained
from vaegan_jax import gan, nets, sampling, wgan
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import features, frechet
from vaegan_jax.optimizer import Optimizer

Cell = tuple[str, str]
"""Algorithm and generator."""
ALGORITHMS = {"wgan": wgan, "gan": gan}
GENERATORS = {
    "dcgan": "DCGAN generator",
    "nobn": "no batch normalisation, constant filters",
    "mlp": "MLP generator, 3 x 512",
}
BOTH_MLP = "both_mlp"
"""The third panels of figures 3 and 4: that generator, and a critic like it."""
TITLES = {name: f"{title}, DCGAN critic" for name, title in GENERATORS.items()} | {
    BOTH_MLP: "MLPs as generator and critic"
}
CHECKPOINTS = 10  # per training, at which quality is judged
PUBLISHED = 12_000
"""As many passes of the critic through the data, 64, as the figures' 600,000 iterations make through LSUN bedrooms."""
HIGH = 100
"""Times algorithm 1's rate: "substantially high learning rates (so training failed)", which are not said."""
_ADAM = Optimizer(rule="adam", learning_rate=2e-4, momentum=0.5)


def generator(name: str, width: int) -> nn.Module:
    """width 64 is the papers': fc 1024, 128 and 64 maps; the same with 64 and 64; an MLP of 512."""
    if name in ("mlp", BOTH_MLP):
        return nets.MLPGenerator(hidden=(8 * width,) * 3, activation=nn.relu)
    if name == "nobn":
        return nets.ConvGenerator(channels=(width, width), hidden=(16 * width,), norm="none")
    return nets.ConvGenerator(channels=(2 * width, width), hidden=(16 * width,))


def critic(name: str, width: int) -> nn.Module:
    if name == BOTH_MLP:
        return nets.MLPDiscriminator(hidden=(8 * width,) * 3, activation=nn.relu)
    return nets.ConvDiscriminator(channels=(width, 2 * width), hidden=(16 * width,))


def config(cell: Cell, width: int, dataset_size: int) -> Any:
    """Algorithm 1 with its own rates; the GAN with -log D, Adam 2e-4 (.5, .999): both with batches of 64, normal z.

    WGAN's MLPs have HIGH rates.
    """
    algorithm, name = cell
    if algorithm == "wgan":
        found = wgan.Config(
            generator=generator(name, width), discriminator=critic(name, width), dataset_size=dataset_size
        )
        rate = HIGH * found.generator_optimizer.learning_rate
        high = dataclasses.replace(found.generator_optimizer, learning_rate=rate)
        if name == BOTH_MLP:
            return dataclasses.replace(found, generator_optimizer=high, discriminator_optimizer=high)
        return found
    return dataclasses.replace(
        gan.dcgan(), generator=generator(name, width), discriminator=critic(name, width), prior="normal", batch_size=64,
        generator_optimizer=_ADAM, discriminator_optimizer=_ADAM, splits=("train", "train[:0]", "test"),
        dataset_size=dataset_size,
    )  # fmt: skip


def width(job: Job) -> int:
    return int(job.choose(4, 64, 64))


def steps(budget: str) -> int:
    return {"smoke": 10, "cpu": 1_000, "paper": PUBLISHED}[budget]


def log_every(budget: str) -> int:
    return {"smoke": 1, "cpu": 5, "paper": 20}[budget]


def marks(budget: str) -> list[int]:
    """Generator iterations at which the samples are judged."""
    return [steps(budget) * k // CHECKPOINTS for k in range(1, CHECKPOINTS + 1)]


def samples(budget: str) -> int:
    """Judged at each checkpoint."""
    return {"smoke": 256, "cpu": 2_048, "paper": 10_000}[budget]


def train(job: Job, cells: Sequence[Cell]) -> dict[Cell, Trained]:
    """The trainings, with frechet, entropy and classes (see samples.judge) among their metrics at CHECKPOINTS steps."""
    shared = job.beside("cells")
    total = steps(job.budget)
    data, found = job.load(eye.dataset(job, "mnist")), dict[Cell, Trained]()
    extractor, reference = network(job)
    measure = eye.judge(extractor, reference)

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        job.tick()
        return measure(np.asarray(sampling.sample(config, state, key, samples(job.budget))))

    for cell in cells:
        found[cell] = shared.fit(
            "-".join(cell), ALGORITHMS[cell[0]], config(cell, width(job), len(data)), data, steps=total,
            log_every=log_every(job.budget), evaluate=evaluate, evaluate_at=marks(job.budget),
        )  # fmt: skip
    return found


def judged(job: Job) -> tuple[Dataset, Dataset]:
    """What goes into a row: the training images, and the test images that Frechet distances are to."""
    name = eye.dataset(job, "mnist")
    return job.load(name), job.load(name, "test")


def network(job: Job) -> tuple[features.Extractor, frechet.Statistics]:
    """The classifier of the data, and its features' statistics on the test split."""
    extractor = eye.network(job, "mnist")
    test = judged(job)[1]
    return extractor, frechet.statistics(extractor.features(test.x, progress=job.progress), extractor.name)


def last(trained: Trained, name: str) -> dict[int, float]:
    """Of each finished seed, a metric at its last checkpoint."""
    if not trained.seeds:
        return {}
    _, values = trained.curve(name)
    return dict(zip(trained.seeds, values[:, -1].tolist(), strict=True))


def against(reference: Trained, worse: Trained, name: str, lost: float) -> list[float]:
    """worse - reference at the end, for the seeds of the reference; `lost` stands for a seed of worse that diverged."""
    a, b = last(reference, name), last(worse, name)
    return [b.get(seed, lost) - a[seed] for seed in a]


def pictures(trained: Trained, n: int, seed: int) -> np.ndarray:
    """n samples of one seed's last state, [n, H, W, C]."""
    return np.asarray(sampling.sample(trained.config(), trained.state(seed), jax.random.key(5), n))


def summary(trained: Mapping[Cell, Trained]) -> str:
    """For a note: which seeds of which cell failed."""
    lost = {"-".join(cell): one.failed for cell, one in trained.items() if one.failed}
    return "; ".join(f"{name}: seeds {', '.join(map(str, seeds))} failed" for name, seeds in lost.items())
