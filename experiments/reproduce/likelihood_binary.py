"""Table 1 of Wu et al. 2017: one importance-weighted autoencoder on binarised MNIST by four estimators of log p(x).

The released code has Burda et al.'s model of fixed bits, trained on the first 50,000 images. Larochelle and Murray's
files are not to be had here: ours are one draw of bits for ever, so that the table's numbers are shown, and only its
inequalities are judged.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce import iwae_models as burda
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, over_seeds, says
from vaegan_jax import losses, metrics, vae
from vaegan_jax.data.dataset import Dataset

PUBLISHED = {
    "prior": ("AIS", -85.619), "encoder": ("AIS from the encoder", -85.621), "short": ("AIS, a tenth as long", None),
    "bound_100k": ("IWAE bound, k = 100,000", -86.464), "bound_10k": ("IWAE bound, k = 10,000", -86.902),
}  # fmt: skip


TRAIN = 50_000
EPOCH = TRAIN // burda.BATCH


def steps(budget: str) -> int:
    return {"smoke": 10, "cpu": 20_000, "paper": burda.steps("paper", EPOCH)}[budget]


def config(budget: str) -> vae.Config:
    """Burda et al.'s one layer, k = 50, with their stages."""
    found: vae.Config = burda.config(burda.Model("one", "iwae_50", "iwae", 50), budget)
    splits = (f"train[:{TRAIN}]", f"train[{TRAIN}:]", "test")
    return dataclasses.replace(found, binarize="none", optimizer=burda.optimizer(epoch=EPOCH), splits=splits)


def distributions(job: Job) -> int:
    """Of AIS from the prior; from the encoder a tenth of it, as in the paper."""
    return int(job.choose(20, 3_000, 10_000))


def bits(data: Dataset, seed: int) -> Dataset:
    """One draw of an image's bits for ever, as 0 and 255."""
    drawn = np.random.default_rng(seed).random(data.x.shape) < data.x / 255
    return Dataset((255 * drawn).astype(np.uint8), None, f"{data.name}, binarised", data.split)


def from_encoder(config: Any, state: Any, e: jax.Array, x: jax.Array) -> jax.Array:
    """What makes AIS start at q(z | x): log p(x, z) - log q(z | x) at z = mean + sd e, as a function of e ~ N(0, I).

    Then N(e; 0, I) exp(that)^beta is q^(1 - beta) p(x, z)^beta in the coordinates e: Wu et al. 2017, section 4.
    """
    mean, log_var = vae.encode(config, state, x)
    z = mean + jnp.exp(0.5 * log_var) * e
    log_prior = losses.gaussian_log_prob(jnp.zeros_like(z), 0.0, z)
    log_posterior = losses.gaussian_log_prob(mean, log_var, z)
    return vae.log_likelihood(config, state, z, x) + log_prior - log_posterior


def evaluate(job: Job, one: Trained, seed: int, x: jax.Array) -> dict[str, np.ndarray]:
    """Every estimate of one seed on x [B, 28, 28, 1], nats, the images' own: [B] each."""
    config, state = one.config(), one.state(seed)
    log_p = functools.partial(vae.log_likelihood, config, state)
    key = jax.random.key(seed)
    full = distributions(job)

    def ais(name: str, log_likelihood: Any, distributions: int, fold: int) -> Callable[[], list[float]]:
        def run() -> list[float]:
            found = metrics.ais_log_likelihood(
                log_likelihood, x, jax.random.fold_in(key, fold), latents=50, chains=job.choose(2, 8, 16),
                distributions=distributions, workdir=job.workdir / f"{seed}-{name}", progress=job.progress,
            )  # fmt: skip
            return [float(v) for v in np.asarray(found)]

        return run

    def bound(samples: int, fold: int) -> Callable[[], list[float]]:
        def run() -> list[float]:
            mean, log_var = vae.encode(config, state, x)
            count = job.choose(samples // 100, samples, samples)
            found = metrics.importance_log_likelihood(
                log_p, x, mean, log_var, jax.random.fold_in(key, fold), samples=count
            )
            return [float(v) for v in np.asarray(found)]

        return run

    computed = {
        "prior": ais("prior", log_p, full, 1),
        "encoder": ais("encoder", functools.partial(from_encoder, config, state), full // 10, 2),
        "short": ais("short", log_p, full // 10, 3),
        "bound_100k": bound(100_000, 4),
        "bound_10k": bound(10_000, 5),
    }
    of = (steps(job.budget), len(x), full)
    kept = {name: job.kept(f"{seed}-{name}-each", compute, of=of) for name, compute in computed.items()}
    return {name: np.asarray(each, np.float64) for name, each in kept.items()}


def binary(job: Job) -> Outcome:
    train, test = bits(job.load("mnist", f"train[:{TRAIN}]"), 2), bits(job.load("mnist", "test"), 3)
    one = job.fit("iwae50", vae, config(job.budget), train, steps=steps(job.budget))
    n = job.choose(3, 50, 1000)
    order = np.random.default_rng(1).permutation(len(test))[:n]
    shown = Dataset(test.x[order], None, test.name, "test")
    x = jnp.asarray(shown.x, jnp.float32) / 255
    found = {seed: evaluate(job, one, seed, x) for seed in one.seeds}

    def row(value: Callable[[Mapping[str, np.ndarray]], np.ndarray]) -> Measured:
        """Of a number an image: value(one seed's estimates)."""
        note = f"standard error over images {draw.standard_error([value(v) for v in found.values()])}"
        return over_seeds(
            {"iwae": one}, {"iwae": found}, lambda v: float(value(v).mean()), "iwae", steps=steps(job.budget),
            data=(train, shown), note=note,
        )  # fmt: skip

    rows = {
        "binary_ais": row(lambda v: v["prior"]),
        "binary_ais_encoder": row(lambda v: v["encoder"]),
        "binary_bound_100k": row(lambda v: v["bound_100k"]),
        "binary_bound_10k": row(lambda v: v["bound_10k"]),
        "binary_more_samples": row(lambda v: v["bound_100k"] - v["bound_10k"]),
        "binary_ais_over_bound": row(lambda v: v["encoder"] - v["bound_100k"]),
        "binary_encoder_helps": row(lambda v: v["encoder"] - v["short"]),
    }
    lines = [
        [
            title, "-" if said is None else said, draw.spread([v[name].mean() for v in found.values()], 5),
            draw.standard_error([v[name] for v in found.values()]),
        ]
        for name, (title, said) in PUBLISHED.items()
    ]  # fmt: skip
    title = (
        f"Table 1, binarised MNIST (theirs: Larochelle and Murray's bits; ours: another draw), IWAE with k = 50 after "
        f"{steps(job.budget):,} steps of 20: {n:,} test images; "
        f"{distributions(job):,} distributions from the prior, a tenth from the encoder."
    )
    columns = ("estimator", "Wu et al., nats", "ours, nats; mean +- sd over seeds", "our standard error over images")
    return Outcome(rows, [Table(title, columns, lines)])


PART = Part(
    "binary",
    (
        "binary_ais", "binary_ais_encoder", "binary_bound_100k", "binary_bound_10k", "binary_more_samples",
        "binary_ais_over_bound", "binary_encoder_helps",
    ),
    binary,
    says(
        "an IWAE on binarised MNIST by AIS, AIS from the encoder, and the bound", "10 steps",
        "20,000 steps, 50 test images, some 15 minutes a seed", "Burda et al.'s number of steps, 1,000 test images",
    ),
)  # fmt: skip
