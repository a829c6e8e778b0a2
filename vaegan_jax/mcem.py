"""Monte Carlo EM on the decoder of `vae` alone, as Kingma & Welling 2013 compare it with AEVB (appendix E).

E: one Hamiltonian transition of 10 leapfrogs moves each example's z towards p(z|x); M: five steps of the optimiser up
log p(x, z) at that z. There is no encoder, so every example keeps its own z from visit to visit (the paper does not say
where chains start): the state grows with the data set, and a batch must say which examples it holds, as its label
(`numbered`). The leapfrogs' step follows the mean acceptance of all examples, so hardly any one chain's own past.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vaegan_jax import hmc, vae
from vaegan_jax import state as players
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.vae import Metrics, decode, decode_standard, log_likelihood, sample, targets

__all__ = [
    "Config",
    "State",
    "check_data",
    "decode",
    "decode_standard",
    "init",
    "log_likelihood",
    "numbered",
    "sample",
    "targets",
    "train_step",
    "vectors",
]


@dataclasses.dataclass(frozen=True)
class Config(vae.Config):
    """vae's, whose encoder means nothing here, and which keeps the bound's fields at their defaults.

    dataset_size counts the z.
    """

    leapfrogs: int = 10
    acceptance: float = 0.9
    """To which the step of the leapfrogs is tuned."""
    updates: int = 5
    """Of the weights, for each z that was drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        vae.refuse_bound_fields(self, "Monte Carlo EM climbs no bound")
        if self.leapfrogs < 1 or self.updates < 1 or not 0 < self.acceptance < 1:
            raise ValueError(
                f"leapfrogs, updates and acceptance are {self.leapfrogs}, {self.updates} and {self.acceptance}: give 1 "
                "or more, 1 or more, and a number between 0 and 1."
            )
        if getattr(self.decoder, "norm", "none") == "batch":
            raise ValueError(
                "The decoder has batch normalisation, by which one example's chain would depend on the others': give "
                "norm='none'."
            )


@struct.dataclass
class State(vae.State):
    """params {"decoder": ...}; z: [dataset_size, K], where each example's chain is; leap: the leapfrogs' step."""

    z: jax.Array
    leap: jax.Array


def numbered(x: Any) -> Dataset:
    """A Dataset, or its array, with each example's row as its label; its digest stays that of what it numbers."""
    dataset = x if isinstance(x, Dataset) else Dataset(x)
    return dataclasses.replace(dataset, label=np.arange(len(dataset.x), dtype=np.int32))


def check_data(config: Config, dataset: Dataset) -> None:
    """What `fit` asks before it trains. Raises ValueError unless the labels are the examples' rows."""
    label = dataset.label
    if label is None or label.shape != (len(dataset),) or not np.array_equal(label, np.arange(len(dataset))):
        has = "no labels" if label is None else "labels"
        raise ValueError(
            f"{dataset.name} {dataset.split} has {has} that are not its rows: every example's own z is kept, so give "
            "data by mcem.numbered(dataset), after any slicing."
        )


def vectors(dim: int) -> Config:
    """vae.vectors, for x [B, dim]."""
    base = vae.vectors(dim)
    return Config(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh parameters and a z of the prior for every example. data_mean as in vae.init."""
    model_key, z_key = jax.random.split(key)
    whole = vae.init(config, model_key, shape, data_mean=data_mean)
    variables = {kind: {"decoder": tree["decoder"]} for kind, tree in whole.model.variables().items()}
    z = jax.random.normal(z_key, (config.dataset_size, config.latents))
    return State(whole.step, players.create(variables, config.optimizer), whole.shape, z, jnp.float32(0.1))


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, Metrics]:
    """E and M of one batch. batch = {"x": uint8 or float [B, *shape], "label": int32 [B], rows of the data set}.

    Metrics, batch means: log_likelihood = log p(x|z) and log_prior = log p(z) at the new z, nats, before the weights
    move; acceptance, leap; gradient_norm of the last update.

    Raises:
        ValueError: a batch without labels, or that does not fit the state.
    """
    players.check_batch(batch, state.shape, None, 0)
    label = batch.get("label")
    if label is None or label.ndim != 1:
        raise ValueError("label is missing: every example's own z is kept, so give data by mcem.numbered(dataset).")
    binarize_key, key = jax.random.split(key)
    x, rows = vae.targets(config, batch["x"], binarize_key), label

    def likelihood(params: Any, z: jax.Array) -> tuple[jax.Array, Any]:
        """log p(x|z), [B], and the decoder's batch statistics."""
        variables = {"params": params, "batch_stats": state.model.batch_stats}
        heads, stats = vae.apply_net(config, variables, "decoder", z, vae.heads_shape(config, state.shape), train=True)
        return vae.log_prob(config, heads, x), stats

    evaluate = hmc.with_gradient(lambda z: likelihood(state.model.params, z)[0])
    chains = hmc.start(evaluate, state.z[rows])
    leaps = jnp.broadcast_to(state.leap, rows.shape)
    chains = hmc.transition(evaluate, chains, 1.0, leaps, key, leapfrogs=config.leapfrogs)
    acceptance = chains.acceptance.mean()

    def loss(params: Any) -> tuple[jax.Array, Any]:
        value, stats = likelihood(params, chains.z)
        return -value.mean() + vae.weight_penalty(config, params), {"decoder": stats}

    def move(_: int, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        model = carry[0]
        gradient, stats = jax.grad(loss, has_aux=True)(model.params)
        every = config.updates * players.updates_per_epoch(config)
        model = players.update(model, config.optimizer, gradient, stats, updates_per_epoch=every)
        return model, players.gradient_norm(gradient)

    model, norm = jax.lax.fori_loop(0, config.updates, move, (state.model, jnp.float32(0)))
    metrics = {
        "log_likelihood": chains.log_likelihood.mean(),
        "log_prior": -0.5 * (chains.z**2 + jnp.log(2 * jnp.pi)).sum(axis=1).mean(),
        "acceptance": acceptance,
        "leap": state.leap,
        "gradient_norm": norm,
    }
    leap = hmc.adapt(state.leap, acceptance, target=config.acceptance)
    z = state.z.at[rows].set(chains.z)
    return dataclasses.replace(state, step=state.step + 1, model=model, z=z, leap=leap), metrics
