"""What is timed: five training steps on MNIST, who runs them, and how fast ours must be."""

import dataclasses
import importlib
from typing import Any

import numpy as np

BEST_TORCH = ("torch", "torch-channels-last", "torch-compile")


@dataclasses.dataclass(frozen=True)
class Target:
    """Ours must be `least` times as fast as the best of `against` (or, where that is empty, of all peers)."""

    label: str
    against: tuple[str, ...]
    least: float


@dataclasses.dataclass(frozen=True)
class Task:
    """One training step. losses: the two that every contender returns, in this order."""

    name: str
    title: str
    batch: int
    losses: tuple[str, str]
    contenders: tuple[str, ...]
    targets: tuple[Target, ...]
    loss_steps: int = 200
    earlier: tuple[tuple[str, float], ...] = ()
    """(contender, ms a step) on another machine of two cores (peak about 190 GFLOP/s), by which the aims were set."""


_CONV_PEERS = ("ours", "torch", "torch-channels-last", "torch-compile", "linen-host", "linen-scan")

TASKS = {
    task.name: task
    for task in (
        Task(
            "vae",
            "VAE 784-500-20",
            100,
            ("reconstruction", "kl"),
            ("ours", "torch", "torch-compile", "linen-host", "linen-scan", "numpyro", "pythae"),
            (Target("PyTorch, best", BEST_TORCH, 1.5), Target("NumPyro's SVI in a scan", ("numpyro",), 1.1)),
            earlier=(("torch", 6.8), ("linen-scan", 4.8), ("numpyro", 4.6), ("pythae", 13.3)),
        ),
        Task(
            "gan",
            "GAN, maxout",
            100,
            ("discriminator", "generator"),
            ("ours", "torch", "torch-compile", "linen-host", "linen-scan"),
            (Target("PyTorch, best", BEST_TORCH, 1.6),),
            earlier=(("torch", 39.0), ("linen-scan", 24.0)),
        ),
        Task(
            "dcgan",
            "DCGAN 28x28",
            128,
            ("discriminator", "generator"),
            _CONV_PEERS,
            (
                Target("PyTorch, best", BEST_TORCH, 1.0),
                Target("flax.linen from the host", ("linen-host",), 3.0),
                Target("flax.linen in a scan", ("linen-scan",), 12.0),
            ),
            earlier=(("torch", 388.0), ("linen-host", 1135.0), ("linen-scan", 5371.0)),
        ),
        Task(
            "wgan",
            "WGAN, 5 critic steps",
            64,
            ("critic", "generator"),
            _CONV_PEERS,
            (Target("the best of all", (), 1.1),),
            earlier=(("torch", 963.0), ("linen-host", 1003.0), ("linen-scan", 6883.0)),
        ),
        Task(
            "vaegan",
            "VAE/GAN",
            64,
            ("gan", "feature"),
            _CONV_PEERS,
            (Target("PyTorch, best", BEST_TORCH, 1.1),),
            earlier=(("torch", 467.0), ("linen-host", 1032.0), ("linen-scan", 4701.0)),
        ),
    )
}


def ours(name: str) -> tuple[Any, Any]:
    """(algorithm, config) of a task: the package's defaults but for the VAE, where peers have Adam and no MAP prior."""
    from vaegan_jax import gan, vae, vaegan, wgan
    from vaegan_jax.optimizer import Optimizer

    configs = {
        "vae": vae.Config(optimizer=Optimizer(rule="adam", learning_rate=1e-3), weight_prior=False),
        "gan": gan.Config(),
        "dcgan": gan.dcgan(),
        "wgan": wgan.Config(),
        "vaegan": vaegan.Config(),
    }
    algorithm = gan if name == "dcgan" else importlib.import_module(f"vaegan_jax.{name}")
    return algorithm, configs[name]


def images(source: str) -> np.ndarray:
    """uint8 [60000, 28, 28, 1]: "mnist", or "random" where that cannot be had (steps cost the same)."""
    if source == "random":
        return np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    from vaegan_jax import data

    return data.load(source).x


CONTENDERS = {
    "ours": ("experiments.bench.ours", "scan"),
    "torch": ("experiments.bench.pytorch", "contiguous"),
    "torch-channels-last": ("experiments.bench.pytorch", "channels_last"),
    "torch-compile": ("experiments.bench.pytorch", "compile"),
    "linen-host": ("experiments.bench.linen", "host"),
    "linen-scan": ("experiments.bench.linen", "scan"),
    "numpyro": ("experiments.bench.numpyro_svi", "scan"),
    "pythae": ("experiments.bench.pythae_trainer", "trainer"),
}
"""Name -> (module, mode), for build(task, mode, x, seed)."""

TITLES = {
    "ours": "vaegan_jax",
    "torch": "PyTorch",
    "torch-channels-last": "PyTorch, channels last",
    "torch-compile": "torch.compile",
    "linen-host": "flax.linen, from the host",
    "linen-scan": "flax.linen, in a scan",
    "numpyro": "NumPyro's SVI, in a scan",
    "pythae": "pythae's trainer",
}
