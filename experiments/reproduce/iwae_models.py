"""Burda et al.'s models and schedule, how they are trained here, and what is measured of them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Trained
from vaegan_jax import hierarchical, metrics, nets, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

BATCH, TRAIN = 20, 59_600
EPOCH = TRAIN // BATCH
RATES = tuple(round(10 ** (1 - i / 7), 1) / 10 for i in range(8))
"""Of the stages, over 1e-3; stage i has 3^i epochs. The released code's, which rounds the paper's."""
UNITS = 500  # training images that active units are counted over, as in the released code
ACTIVE = 0.01  # variance of the posterior mean above which a unit is
BLOCK = 100  # test images at a time


@dataclasses.dataclass(frozen=True)
class Model:
    layers: str
    """one, two."""
    name: str
    bound: str
    samples: int
    text: bool = False
    """Trained by the text's optimiser, not the released code's."""

    @property
    def algorithm(self) -> Any:
        return vae if self.layers == "one" else hierarchical


_KINDS = (
    ("vae_1", "elbo", 1),
    ("vae_5", "elbo", 5),
    ("vae_50", "elbo", 50),
    ("iwae_5", "iwae", 5),
    ("iwae_50", "iwae", 50),
)
MODELS = {tag: tuple(Model(tag, *kind) for kind in _KINDS) for tag in ("one", "two")}


def stages(budget: str) -> int:
    return {"smoke": 1, "cpu": 3, "paper": 8}[budget]


def steps(budget: str, epoch: int = EPOCH) -> int:
    return 10 if budget == "smoke" else epoch * sum(3**i for i in range(stages(budget)))


def switch_steps(budget: str) -> int:
    """As many epochs as the last stage; the paper's 3^7."""
    return 10 if budget == "smoke" else EPOCH * 3 ** (stages(budget) - 1)


def switch_rate(budget: str) -> float:
    """The last stage's; the paper's 1e-4. A lower one would be a gain of its own."""
    return 1e-3 * RATES[stages(budget) - 1]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    samples: tuple[int, ...]
    """k of the bounds, upwards; the last one's is the log-likelihood."""
    images: int
    """Of the test set, that all of them are of; those of few samples (`CHEAP`) are of `all`."""
    all: int
    """Test images, and as many training images."""


CHEAP = 3
"""How many of the bounds all images get. The last of these stands in for the dearer ones where they are not had."""


def evaluation(budget: str) -> Evaluation:
    if budget == "smoke":
        return Evaluation((1, 2, 5, 10, 20), 20, 40)
    return Evaluation((1, 5, 50, 500, 5_000), {"cpu": 1_000, "paper": 10_000}[budget], 10_000)


def optimizer(rate: float | None = None, epoch: int = EPOCH) -> Optimizer:
    """The released Adam: beta1 .99, second moments from 1, eps 1e-4, on the sum over a batch's 20 gradients.

    On their mean, as here, that is eps / 20 and second moments from 1 / 400. rate: one for all, in place of the stages.
    epoch: its steps.
    """
    starts = [epoch * sum(3**j for j in range(i)) for i in range(len(RATES))]
    return Optimizer(
        rule="adam", learning_rate=1e-3 if rate is None else rate, momentum=0.99, eps=1e-4 / BATCH,
        second_moment=1 / BATCH**2, stages=tuple(zip(starts, RATES, strict=True)) if rate is None else (),
    )  # fmt: skip


def text_optimizer() -> Optimizer:
    """The text's Adam: beta1 .9, beta2 .999, eps 1e-4, second moments from 0, rates not rounded."""
    stages = tuple((start, 10 ** (-i / 7)) for i, (start, _) in enumerate(optimizer().stages))
    return Optimizer(rule="adam", learning_rate=1e-3, momentum=0.9, eps=1e-4, stages=stages)


def config(model: Model, budget: str, rate: float | None = None) -> Any:
    small = budget == "smoke"
    first, second = ((16,), (8,)) if small else ((200, 200), (100, 100))
    shared: dict[str, Any] = {
        "bias_from_data": True, "bound": model.bound, "samples": min(model.samples, 3) if small else model.samples,
        "optimizer": text_optimizer() if model.text else optimizer(rate), "batch_size": BATCH,
        "splits": (f"train[:{TRAIN}]", f"train[{TRAIN}:]", "test"),
    }  # fmt: skip
    encoder = functools.partial(nets.MLPEncoder, activation=nn.tanh)
    decoder = nets.MLPDecoder(hidden=first, activation=nn.tanh)
    if model.layers == "one":
        return vae.Config(
            latents=50, encoder=encoder(hidden=first), decoder=decoder, kl="monte_carlo", weight_prior=False, **shared
        )
    return hierarchical.Config(
        latents=(100, 50), encoders=(encoder(hidden=first), encoder(hidden=second)), priors=(encoder(hidden=second),),
        decoder=decoder, **shared,
    )  # fmt: skip


def data(job: Job) -> tuple[Dataset, Dataset]:
    """Training and test images."""
    return job.load("mnist", f"train[:{TRAIN}]"), job.load("mnist", "test")


def held(job: Job) -> Dataset:
    """The released code's 400 validation images: for curves, nothing is chosen by them."""
    found: Dataset = job.load("mnist", f"train[{TRAIN}:]")
    return found


def _shared(job: Job) -> Job:
    """The parts share trainings, which lie beside their folders."""
    return job.beside("trainings")


def side_by_side(job: Job) -> bool:
    """As a job's trainings are by themselves, but for a smoke's, most of whose time is compilation."""
    return job.budget == "smoke" or jax.default_backend() != "cpu"


def train(job: Job, model: Model) -> Trained:
    found = _shared(job).fit(
        f"{model.layers}-{model.name}", model.algorithm, config(model, job.budget), data(job)[0],
        steps=steps(job.budget), side_by_side=side_by_side(job), validation=held(job),
    )  # fmt: skip
    job.tick()
    return found


def switch(job: Job, start: Model, goal: Model, trained: Trained) -> Trained:
    """From what `start` has become, optimiser and all, by the objective of `goal`."""
    if not trained.seeds:
        return trained
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trained.state(seed) for seed in trained.seeds))
    found = _shared(job).fit(
        f"{start.name}-to-{goal.name}", goal.algorithm, config(goal, job.budget, switch_rate(job.budget)), data(job)[0],
        steps=switch_steps(job.budget), seeds=trained.seeds, side_by_side=side_by_side(job), initial_states=states,
    )  # fmt: skip
    job.tick()
    return Trained(found.runs, tuple(sorted({*trained.failed, *found.failed})))


def log_weight(model: Model, config: Any, state: Any, key: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x, h) - log q(h | x) of one draw for each example x [B, ...]: [B]."""
    found: jax.Array = model.algorithm.log_weights(config, state, x, key, 1)
    return found[:, 0]


def measure(job: Job, model: Model, trained: Trained, seed: int) -> dict[str, Any]:
    """What one training reached, over test images whose bits are the same for every model.

    bounds: of each of the evaluation's numbers of samples, nats; nll: minus the last of them, of all test images.
    nll_each [N]: with that mean, and its standard error.
    gap: of the last bound that all images have, training images less test images.
    units: active, a layer; variances: of every unit's posterior mean, a layer each.
    """
    shared = _shared(job)
    name = f"{model.layers}-{model.name}-{seed}-measured"
    found: dict[str, Any] = shared.kept(
        name, lambda: _measure(job, model, trained.config(), trained.state(seed)),
        of=_settings(job),
    )  # fmt: skip
    job.tick()
    return found


def train_and_measure(
    job: Job, models: Sequence[Model]
) -> tuple[dict[str, Trained], dict[str, dict[int, dict[str, Any]]]]:
    """What is trained of each model, by its name, and what `measure` finds, by seed below that."""
    trained = {model.name: train(job, model) for model in models}
    found = {
        model.name: {seed: measure(job, model, trained[model.name], seed) for seed in trained[model.name].seeds}
        for model in models
    }
    return trained, found


def worse(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """By how many nats a's negative log-likelihood is higher, of two that `measure` found."""
    return float(a["nll"] - b["nll"])


def paired(a: Mapping[int, Any], b: Mapping[int, Any]) -> str:
    """Of a difference between two models, each by seed: how much other test images would move it."""
    return f"standard error of the paired difference over images {draw.paired_error(a, b, 'nll_each')}"


def label(name: str) -> str:
    """`IWAE, k = 50` of `iwae_50`."""
    kind, _, k = name.partition("_")
    return f"{kind.upper()}, k = {k}"


def _settings(job: Job) -> tuple[Any, ...]:
    how = evaluation(job.budget)
    return steps(job.budget), how.images, how.all, how.samples[-1]


def _measure(job: Job, model: Model, config: Any, state: Any) -> dict[str, Any]:
    weight, how = functools.partial(log_weight, model, config, state), evaluation(job.budget)
    train, test = (_bits(each, how.all) for each in data(job))
    of_all = [_bounds(weight, test, k) for k in how.samples[:CHEAP]]
    of_some = [_bounds(weight, test[: how.images], k) for k in how.samples[CHEAP:]]
    each = of_all + [complete(values, of_all[-1]) for values in of_some]
    means = _posterior_means(job, model, config, state)
    return {
        "bounds": [float(values.mean()) for values in each],
        "nll": -float(each[-1].mean()),
        "nll_each": (-each[-1]).tolist(),
        "nll_of_images": -float(of_some[-1].mean()),
        "gap": float(_bounds(weight, train, how.samples[CHEAP - 1]).mean() - of_all[-1].mean()),
        "units": [metrics.active_units(mean, ACTIVE) for mean in means],
        "variances": [mean.var(axis=0).tolist() for mean in means],
    }


def complete(some: np.ndarray, cheap: np.ndarray) -> np.ndarray:
    """Of N images, of which only the first n have `some` [n]: values [N] whose mean estimates that of `some` over all.

    cheap [N], of all, is the control variate; the values' standard error is the estimate's.
    """
    n = len(some)
    more = some - cheap[:n]
    found: np.ndarray = cheap + more.mean()
    found[:n] += len(cheap) / n * (more - more.mean())
    return found


def _bits(dataset: Dataset, count: int) -> jax.Array:
    """[count, 28, 28, 1] of a fixed permutation: the first half of MNIST's test split is the easier one."""
    order = np.random.default_rng(1).permutation(len(dataset))[:count]
    return vae.draw_bits(jax.random.key(0), jnp.asarray(dataset.x[order], jnp.float32) / 255)


def _bounds(weight: Any, x: jax.Array, k: int) -> np.ndarray:
    """L_k of images x [N, ...]: [N], nats, in float64."""
    keys = (jax.random.fold_in(jax.random.key(i + 1), k) for i in range(0, len(x), BLOCK))
    bounds = [
        np.asarray(metrics.bound_from_weights(weight, x[i : i + BLOCK], key, samples=k), np.float64)
        for i, key in zip(range(0, len(x), BLOCK), keys, strict=True)
    ]
    return np.concatenate(bounds)


def _posterior_means(job: Job, model: Model, config: Any, state: Any) -> tuple[np.ndarray, ...]:
    """Of each layer, over the training images that units are counted on: [UNITS, K] in float64."""
    seen = vae.draw_bits(jax.random.key(0), jnp.asarray(data(job)[0].x[:UNITS], jnp.float32) / 255)
    if model.algorithm is vae:
        means: Any = (vae.encode(config, state, seen)[0],)
    else:
        means = hierarchical.posterior_means(config, state, seen, jax.random.key(0))
    return tuple(np.asarray(mean, np.float64) for mean in means)


def log_weight_without(config: vae.Config, active: jax.Array, state: Any, key: jax.Array, x: jax.Array) -> jax.Array:
    """`log_weight` of one layer, whose units outside `active` [K] are 0 for the decoder and have no terms: [B].

    The draws are those of `vae.log_weights`: with every unit active, so are the weights.
    """
    mean, log_var = vae.encode(config, state, x)
    noise = jax.random.normal(key, (len(x), 1, config.latents))[:, 0]
    z = jnp.where(active, mean + jnp.exp(0.5 * log_var) * noise, 0.0)
    # log N(z; 0, 1) - log N(z; mean, var) a unit, in which 2 pi cancels.
    ratio = 0.5 * (noise**2 + log_var - z**2)
    return vae.log_likelihood(config, state, z, x) + jnp.where(active, ratio, 0.0).sum(axis=1)


def without_inactive(job: Job, model: Model, trained: Trained, seed: int) -> float:
    """By how many nats the negative log-likelihood changes, at least 0, when inactive units are taken out."""
    config, state = trained.config(), trained.state(seed)

    def change() -> float:
        found = measure(job, model, trained, seed)
        active = jnp.asarray(np.array(found["variances"][0]) > ACTIVE)
        weight, how = functools.partial(log_weight_without, config, active, state), evaluation(job.budget)
        without = _bounds(weight, _bits(data(job)[1], how.images), how.samples[-1])
        return abs(float(without.mean()) + found["nll_of_images"])

    name = f"{model.layers}-{model.name}-{seed}-inactive"
    found = float(_shared(job).kept(name, change, of=_settings(job)))
    job.tick()
    return found
