"""Variational autoencoder with several stochastic layers (Burda et al. 2015, section 5): a chain both up and down.

q(h | x) = q(h_1 | x) q(h_2 | h_1) ... q(h_L | h_{L-1}),
p(x, h) = N(h_L; 0, I) p(h_{L-1} | h_L) ... p(h_1 | h_2) p(x | h_1), diagonal Gaussians but for the Bernoulli x.
All terms are by Monte Carlo; with k samples the bound is their mean of log p(x, h) - log q(h | x), or the importance-
weighted one (eq. 8). One layer is `vae` with kl="monte_carlo". Shapes: B batch, k samples, K_l units of layer l.
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaegan_jax import losses, nets, vae
from vaegan_jax import state as players
from vaegan_jax.config import check_fields
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.vae import State

Metrics = dict[str, jax.Array]
_ADAM = Optimizer(rule="adam", learning_rate=1e-3)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are Burda et al.'s two layers on MNIST, of 100 and 50 units, at a constant rate."""

    latents: tuple[int, ...] = (100, 50)
    """Of h_1, h_2, ..."""
    encoders: tuple[nn.Module, ...] = (
        nets.MLPEncoder(hidden=(200, 200), activation=nn.tanh),
        nets.MLPEncoder(hidden=(100, 100), activation=nn.tanh),
    )
    """q(h_1 | x), q(h_2 | h_1), ..."""
    priors: tuple[nn.Module, ...] = (nets.MLPEncoder(hidden=(100, 100), activation=nn.tanh),)
    """p(h_1 | h_2), p(h_2 | h_3), ...: nets with a mean and a log-variance, as an encoder's."""
    decoder: nn.Module = dataclasses.field(
        default_factory=lambda: nets.MLPDecoder(hidden=(200, 200), activation=nn.tanh)
    )
    """p(x | h_1), logits."""
    binarize: Literal["fresh", "fixed", "none"] = "fresh"
    """As in vae."""
    bias_from_data: bool = True
    """The output bias starts at the logit of data_mean."""
    bound: Literal["elbo", "iwae"] = "iwae"
    samples: int = 1
    optimizer: Optimizer = _ADAM
    batch_size: int = 20
    dataset_size: int = 59_600
    splits: tuple[str, str, str] = ("train", "train[:0]", "test")
    """Train, validation, test."""

    # What vae's functions and `fit` read, fixed here.
    likelihood = "bernoulli"
    batches_per_step = 1
    num_classes = 0
    prior = "normal"
    sampling_statistics = "running"
    unit_range = True

    def __post_init__(self) -> None:
        check_fields(self)
        layers = len(self.latents)
        if layers < 1 or min(self.latents) < 1 or self.samples < 1 or self.batch_size < 1 or self.dataset_size < 1:
            raise ValueError(
                f"latents, samples, batch_size and dataset_size are {self.latents}, {self.samples}, {self.batch_size} "
                f"and {self.dataset_size}: give 1 or more, and a width for each layer."
            )
        if len(self.encoders) != layers or len(self.priors) != layers - 1:
            raise ValueError(
                f"There are {layers} layers of latents, {len(self.encoders)} encoders and {len(self.priors)} priors: "
                f"give {layers} and {layers - 1}."
            )


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh parameters for examples of `shape`. data_mean [*shape] in [0, 1] counts under bias_from_data.

    All nets share one optimiser: params {"encoder0", ..., "prior0", ..., "decoder"}.
    """
    shape = players.check_shape(shape)
    widths = config.latents
    keys = iter(jax.random.split(key, 2 * len(widths)))
    found = {}
    for i, net in enumerate(config.encoders):
        below = players.example(*shape) if i == 0 else players.example(widths[i - 1])
        found[f"encoder{i}"] = players.initialize(net, next(keys), below, widths[i])
    for i, net in enumerate(config.priors):
        found[f"prior{i}"] = players.initialize(net, next(keys), players.example(widths[i + 1]), widths[i])
    decoder = players.initialize(config.decoder, next(keys), players.example(widths[0]), shape)
    if data_mean is not None and config.bias_from_data:
        decoder = players.set_output_bias(decoder, jnp.asarray(data_mean), shape)
    found["decoder"] = decoder
    variables = {kind: {name: v.get(kind, {}) for name, v in found.items()} for kind in ("params", "batch_stats")}
    return State(jnp.int32(0), players.create(variables, config.optimizer), shape)


def _terms(
    config: Config, variables: dict[str, Any], x: jax.Array, key: jax.Array, samples: int, train: bool
) -> tuple[dict[str, jax.Array], Any, tuple[jax.Array, ...]]:
    """log p(x | h_1), log p(h) and log q(h | x) of `samples` draws, [B, k] each; batch statistics; means of each q."""
    stats: dict[str, Any] = {}
    keys = jax.random.split(key, len(config.latents))
    h, means = list[jax.Array](), list[jax.Array]()
    log_q = jnp.zeros((x.shape[0] * samples,))
    for i, net in enumerate(config.encoders):
        below = x if i == 0 else h[-1]
        (mean, log_var), stats[f"encoder{i}"] = players.apply_part(
            net, variables, f"encoder{i}", below, config.latents[i], train=train
        )
        if i == 0:  # the encoder sees an image once, every draw of it thereafter
            mean, log_var = jnp.repeat(mean, samples, axis=0), jnp.repeat(log_var, samples, axis=0)
        h.append(mean + jnp.exp(0.5 * log_var) * jax.random.normal(keys[i], mean.shape))
        log_q += losses.gaussian_log_prob(mean, log_var, h[-1])
        means.append(mean)
    log_p = losses.gaussian_log_prob(jnp.zeros_like(h[-1]), 0.0, h[-1])
    for i, net in enumerate(config.priors):
        (mean, log_var), stats[f"prior{i}"] = players.apply_part(
            net, variables, f"prior{i}", h[i + 1], config.latents[i], train=train
        )
        log_p += losses.gaussian_log_prob(mean, log_var, h[i])
    logits, stats["decoder"] = players.apply_part(config.decoder, variables, "decoder", h[0], x.shape[1:], train=train)
    likelihood = losses.bernoulli_log_prob(logits, jnp.repeat(x, samples, axis=0))
    names = ("log_likelihood", "log_prior", "log_posterior")
    terms = {n: v.reshape(-1, samples) for n, v in zip(names, (likelihood, log_p, log_q), strict=True)}
    return terms, stats, tuple(means)


def _bounds(config: Config, terms: dict[str, jax.Array]) -> Metrics:
    """One value an example, [B], nats."""
    kl = terms["log_posterior"] - terms["log_prior"]
    weights = terms["log_likelihood"] - kl
    found = {
        "elbo": weights.mean(axis=1), "log_likelihood": terms["log_likelihood"].mean(axis=1), "kl": kl.mean(axis=1),
    }  # fmt: skip
    return found | {"iwae": losses.iwae_bound(weights)} if config.bound == "iwae" else found


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, Metrics]:
    """One step up the bound. batch = {"x": [B, *shape] uint8 or float}.

    Metrics (nats, batch means): elbo, log_likelihood = E_q log p(x|h), kl, all by Monte Carlo; iwae where that is the
    bound; gradient_norm.
    """
    players.check_batch(batch, state.shape, None, 0)
    binarize_key, noise_key = jax.random.split(key)
    x = vae.targets(config, batch["x"], binarize_key)

    def loss(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.model.batch_stats}
        terms, stats, _ = _terms(config, variables, x, noise_key, config.samples, train=True)
        metrics = {name: value.mean() for name, value in _bounds(config, terms).items()}
        return -metrics[config.bound], (metrics, stats)

    gradient, (metrics, stats) = jax.grad(loss, has_aux=True)(state.model.params)
    state, norm = players.step_model(config, state, gradient, stats)
    return state, metrics | norm


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> Metrics:
    """The bound's parts on a batch {"x": [B, *shape]}, one value an example [B], nats, with running statistics."""
    players.check_batch(batch, state.shape, None, 0)
    binarize_key, noise_key = jax.random.split(key)
    x = vae.targets(config, batch["x"], binarize_key)
    return _bounds(config, _terms(config, state.model.variables(), x, noise_key, config.samples, train=False)[0])


@functools.partial(jax.jit, static_argnums=(0, 4))
def log_weights(config: Config, state: State, x: jax.Array, key: jax.Array, samples: int) -> jax.Array:
    """log p(x, h) - log q(h | x) of `samples` draws h ~ q: x [B, *shape] as the model sees it -> [B, samples], nats."""
    if samples < 1:
        raise ValueError(f"samples is {samples}: give 1 or more.")
    terms, _, _ = _terms(config, state.model.variables(), x, key, samples, train=False)
    return terms["log_likelihood"] - (terms["log_posterior"] - terms["log_prior"])


@functools.partial(jax.jit, static_argnums=0)
def posterior_means(config: Config, state: State, x: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
    """Means of q(h_1 | x), and of q(h_l | h_{l-1}) at one draw of h_{l-1}: x [B, *shape] as seen -> ([B, K_1], ...).

    What Burda et al.'s code counts active units by.
    """
    return _terms(config, state.model.variables(), x, key, 1, train=False)[2]


@functools.partial(jax.jit, static_argnums=(0, 3))
def sample(config: Config, state: State, key: jax.Array, n: int, label: jax.Array | None = None) -> jax.Array:
    """E[x | h_1] for n draws of h_1 ~ p, [n, *shape], in blocks of batch_size. The prior takes no label."""
    if label is not None:
        raise ValueError("label was given, but the model is unconditional: leave it out.")
    variables = state.model.variables()

    def draw(key: jax.Array, _: jax.Array | None) -> jax.Array:
        keys = jax.random.split(key, len(config.latents))
        h = jax.random.normal(keys[-1], (config.batch_size, config.latents[-1]))
        for i in reversed(range(len(config.priors))):
            net, width = config.priors[i], config.latents[i]
            (mean, log_var), _ = players.apply_part(net, variables, f"prior{i}", h, width, train=False)
            h = mean + jnp.exp(0.5 * log_var) * jax.random.normal(keys[i], mean.shape)
        return jax.nn.sigmoid(players.apply_part(config.decoder, variables, "decoder", h, state.shape, train=False)[0])

    return players.blocks(draw, key, n, config.batch_size, None)
