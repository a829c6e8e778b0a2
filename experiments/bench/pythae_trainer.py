"""pythae's BaseTrainer on its own VAE, with the same nets and Adam. It has no fresh draws: pixels are drawn once.

One epoch of n steps is one call of its train_step, over a data set in memory of n batches. While no image is seen
twice, as in the curves of losses, a draw at the start is a draw a visit.
"""

import logging
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from experiments.bench.pytorch import threads

BATCH = 100


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        BaseEncoder.__init__(self)
        self.layers = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_var = self.layers(x.reshape(len(x), -1)).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_var)


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        BaseDecoder.__init__(self)
        self.layers = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))


class Noted(VAE):
    """Its VAE, which keeps the two parts of every step's loss; the trainer says only the mean of their sums."""

    def forward(self, *arguments: Any, **options: Any) -> ModelOutput:
        out = VAE.forward(self, *arguments, **options)
        self.noted.append(torch.stack([out.recon_loss.detach(), out.reg_loss.detach()]))
        return out


def build(task: str, mode: str, x: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """advance(n): n steps; their losses [n, 2]."""
    if task != "vae":
        raise ValueError(f"task is {task!r}: pythae is timed on the VAE only.")
    torch.set_num_threads(threads())
    torch.manual_seed(seed)
    logging.getLogger("pythae").setLevel(logging.ERROR)
    model = Noted(VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce"), Encoder(), Decoder())
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.01)
    model.noted = []
    grey = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    images = (torch.rand_like(grey) < grey).float()
    folder = tempfile.TemporaryDirectory()  # the trainer makes one, and writes nothing to it here
    trainers: dict[int, BaseTrainer] = {}

    def trainer(n: int) -> BaseTrainer:
        if n not in trainers:
            part = BaseDataset(images[: n * BATCH], torch.zeros(n * BATCH))
            config = BaseTrainerConfig(
                output_dir=folder.name,
                num_epochs=1,
                learning_rate=1e-3,
                per_device_train_batch_size=BATCH,
                optimizer_cls="Adam",
                no_cuda=not torch.cuda.is_available(),
            )
            trainers[n] = BaseTrainer(model, part, training_config=config)
            trainers[n].prepare_training()
        return trainers[n]

    def advance(n: int) -> np.ndarray:
        training = trainer(n)  # which tries the model on a batch first
        model.noted.clear()
        training.train_step(epoch=1)
        return torch.stack(model.noted).cpu().numpy()

    return advance
