"""Variational autoencoder: auto-encoding variational Bayes (Kingma & Welling 2013), importance-weighted on request.

p(x, z) = N(z; 0, I) p(x | z),  q(z | x) = N(z; mean(x), diag exp log_var(x))
ELBO(x) = E_q[log p(x | z)] - KL(q(z | x) || p(z)), nats, summed over pixels, averaged over the batch.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import losses, nets
from vaegan_jax import state as players
from vaegan_jax.config import check_fields
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.state import Player

Metrics = dict[str, jax.Array]
_ADAGRAD = Optimizer(rule="adagrad", learning_rate=0.02, eps=1e-10)
ROWS = 5000  # draws of z (batch times samples) that go through the decoder at once


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are AEVB on MNIST: 784-500-20 tanh, Adagrad, all parameters from N(0, .01), MAP prior N(0, I)."""

    latents: int = 20
    encoder: nn.Module = dataclasses.field(default_factory=lambda: aevb(nets.MLPEncoder))
    decoder: nn.Module = dataclasses.field(default_factory=lambda: aevb(nets.MLPDecoder))
    likelihood: Literal["bernoulli", "gaussian", "gaussian_fixed"] = "bernoulli"
    """gaussian: a log-variance for each pixel, from the decoder (AEVB, appendix C.2); gaussian_fixed: `variance`."""
    binarize: Literal["fresh", "fixed", "none"] = "fresh"
    """Bernoulli pixels: a fresh draw at each visit, one draw an image for ever (from its bytes), grey soft targets."""
    output: Literal["sigmoid", "linear"] = "sigmoid"
    """The Gaussian mean: squashed to (0, 1) as AEVB does for Frey faces, or not."""
    bias_from_data: bool = False
    """Bernoulli: the output bias starts at the logit of data_mean, as in Burda et al.'s code; AEVB draws it."""
    variance: float = 0.01
    min_log_var: float = -7.0
    """Learned log-variances stay above this (by a softplus, not a clip); constant pixels would send it to -inf."""
    bound: Literal["elbo", "iwae"] = "elbo"
    samples: int = 1
    """Samples of z for each x: averaged under "elbo", importance-weighted under "iwae" (Burda et al. 2015)."""
    kl: Literal["analytic", "monte_carlo"] = "analytic"
    """AEVB's estimators B (eq. 7) and A (eq. 6)."""
    gradient: Literal["reparameterised", "score_function"] = "reparameterised"
    beta: float = 1.0
    weight_prior: bool = True
    """MAP: adds log N(theta; 0, I) / dataset_size to the bound."""
    optimizer: Optimizer = _ADAGRAD
    batch_size: int = 100
    dataset_size: int = 60_000
    """N, over which the weight prior is spread; `fit` sets it to its data's."""
    splits: tuple[str, str, str] = ("train", "train[:0]", "test")
    """Train, validation, test."""

    # What other algorithms have as fields, fixed here.
    batches_per_step = 1
    num_classes = 0
    prior = "normal"
    sampling_statistics = "running"

    @property
    def unit_range(self) -> bool:
        """Whether x must lie in [0, 1]."""
        return self.likelihood == "bernoulli" or self.output == "sigmoid"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.latents < 1 or self.samples < 1 or self.batch_size < 1 or self.dataset_size < 1:
            raise ValueError(
                f"latents, samples, batch_size and dataset_size are {self.latents}, {self.samples}, {self.batch_size} "
                f"and {self.dataset_size}: give 1 or more."
            )
        if self.bias_from_data and self.likelihood != "bernoulli":
            raise ValueError(f"bias_from_data needs likelihood 'bernoulli', but it is {self.likelihood!r}.")
        if not self.variance > 0:
            raise ValueError(f"variance is {self.variance}: give a number above 0.")
        if self.bound == "iwae" and (self.beta != 1 or self.gradient != "reparameterised"):
            raise ValueError("bound is 'iwae': it is defined here with beta 1 and reparameterised gradients only.")


def aevb(net: Any, hidden: int = 500) -> nn.Module:
    """nets.MLPEncoder or MLPDecoder as in the paper: one tanh layer, every parameter from N(0, .01^2)."""
    return net(hidden=(hidden,), activation=nn.tanh, kernel_init=nets.Normal(0.01), bias_init=nets.Normal(0.01))


def vectors(dim: int) -> Config:
    """For x [B, dim]: MLPs, Gaussian with a linear mean and learned variances."""
    hidden = (128, 128)
    return Config(
        latents=min(dim, 16),
        encoder=nets.MLPEncoder(hidden=hidden, activation=nn.relu),
        decoder=nets.MLPDecoder(hidden=hidden, activation=nn.relu),
        likelihood="gaussian",
        output="linear",
        weight_prior=False,
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
        dataset_size=10_000,
    )


def refuse_bound_fields(config: Config, why: str) -> None:
    """For algorithms that climb no bound. Raises ValueError where a field of the bound is not at its default."""
    usual = {"bound": "elbo", "beta": 1, "samples": 1, "kl": "analytic", "gradient": "reparameterised"}
    other = [f"{name} is {getattr(config, name)!r}" for name, value in usual.items() if getattr(config, name) != value]
    if other:
        raise ValueError(f"{', '.join(other)}, but {why}: leave it as it is by default.")


def weight_penalty(config: Config, params: Any) -> jax.Array | float:
    """-log N(theta; 0, I) / N, nats, less its constant: what the weight prior adds to minus the bound, or 0."""
    if not config.weight_prior:
        return 0.0
    return 0.5 * sum(jnp.vdot(p, p) for p in jax.tree.leaves(params)) / config.dataset_size


class Observed(Protocol):
    """What of a config says how pixels are seen."""

    @property
    def likelihood(self) -> str: ...
    @property
    def binarize(self) -> str: ...


@struct.dataclass
class State:
    """Encoder and decoder share one optimiser, so they are one player: params {"encoder": ..., "decoder": ...}."""

    step: jax.Array
    model: Player
    shape: tuple[int, ...] = struct.field(pytree_node=False)


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh parameters for examples of `shape`. data_mean [*shape] in [0, 1] counts under bias_from_data."""
    shape = players.check_shape(shape)
    encoder_key, decoder_key = jax.random.split(key)
    encoder = players.initialize(config.encoder, encoder_key, players.example(*shape), config.latents)
    decoder = players.initialize(
        config.decoder, decoder_key, players.example(config.latents), heads_shape(config, shape)
    )
    if data_mean is not None and config.bias_from_data:
        decoder = players.set_output_bias(decoder, jnp.asarray(data_mean), shape)
    variables = {
        name: {"encoder": encoder.get(name, {}), "decoder": decoder.get(name, {})} for name in ("params", "batch_stats")
    }
    return State(jnp.int32(0), players.create(variables, config.optimizer), shape)


def heads_shape(config: Config, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The decoder's output: one channel more for each where it gives a log-variance too."""
    return (*shape[:-1], 2 * shape[-1]) if config.likelihood == "gaussian" else shape


def apply_net(config: Config, variables: dict[str, Any], name: str, *args: Any, train: bool) -> tuple[Any, Any]:
    net = config.encoder if name == "encoder" else config.decoder
    return players.apply_part(net, variables, name, *args, train=train)


def mean_log_var(config: Config, heads: jax.Array) -> tuple[jax.Array, jax.Array | float]:
    """Gaussian p(x | z) from the decoder's output."""
    log_var: jax.Array | float = math.log(config.variance)
    if config.likelihood == "gaussian":
        heads, raw = jnp.split(heads, 2, axis=-1)
        log_var = config.min_log_var + jax.nn.softplus(raw - config.min_log_var)
    return jax.nn.sigmoid(heads) if config.output == "sigmoid" else heads, log_var


def log_prob(config: Config, heads: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x | z): decoder output [B, ...], x [B, ...] -> [B]."""
    if config.likelihood == "bernoulli":
        return losses.bernoulli_log_prob(heads, x)
    mean, log_var = mean_log_var(config, heads)
    return losses.gaussian_log_prob(mean, log_var, x)


def targets(config: Observed, x: jax.Array, key: jax.Array) -> jax.Array:
    """x [B, ...] as the model sees it: float32, binarised as the config says."""
    x = players.as_float(x)
    if config.likelihood != "bernoulli" or config.binarize == "none":
        return x
    if config.binarize == "fresh":
        return draw_bits(key, x)
    # Fixed: the noise is a hash of the image, so the draw is the same at each visit, in any split and batch.
    bits = jnp.round(x.reshape(x.shape[0], -1) * 255).astype(jnp.uint32)
    place = jnp.arange(1, bits.shape[1] + 1, dtype=jnp.uint32) * jnp.uint32(2654435761)
    seeds = (bits * place[None] ^ (place[None] >> 7)).sum(axis=1, dtype=jnp.uint32)
    noise = jax.vmap(lambda s: jax.random.uniform(jax.random.key(s), x.shape[1:]))(seeds)
    return (noise < x).astype(jnp.float32)


def draw_bits(key: jax.Array, x: jax.Array) -> jax.Array:
    """1 with probability x [B, ...] in [0, 1], to the next 2^-16 above; 0 and 1 are exact.

    Two pixels share the 32 bits of a draw: random bits for every pixel are a tenth of a step on a CPU.
    """
    words = jax.random.bits(key, (-(-x.size // 2),), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size]
    # Flat rows: loops over a trailing axis of one channel are not vectorised.
    drawn = halves.reshape(x.shape[0], -1).astype(jnp.float32) < 65536 * x.reshape(x.shape[0], -1)
    return drawn.astype(jnp.float32).reshape(x.shape)


def _terms(
    config: Config, variables: dict[str, Any], x: jax.Array, key: jax.Array, samples: int, train: bool
) -> tuple[dict[str, jax.Array], Any]:
    """One forward pass over x [B, ...] (already `targets`) with `samples` draws k of z.

    Returns log p(x|z), log p(z) and log q(z|x), each [B, k], the analytic KL [B]; and the new batch statistics. Beyond
    ROWS the draws go through the decoder in equal blocks, whose forward pass is done again for the gradient: memory
    does not grow with k, but for the numbers returned.
    """
    (mean, log_var), encoder_stats = apply_net(config, variables, "encoder", x, config.latents, train=train)

    def draw(key: jax.Array, n: int) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Any]:
        """The three densities of n draws, [B, n] each, and the decoder's statistics."""
        noise = jax.random.normal(key, (x.shape[0], n, config.latents))
        z = mean[:, None] + jnp.exp(0.5 * log_var)[:, None] * noise
        if config.gradient == "score_function":
            z = jax.lax.stop_gradient(z)
        flat = z.reshape(-1, config.latents)
        heads, stats = apply_net(config, variables, "decoder", flat, heads_shape(config, x.shape[1:]), train=train)
        repeated = jnp.broadcast_to(x[:, None], (x.shape[0], n, *x.shape[1:])).reshape(-1, *x.shape[1:])

        def density(mean: jax.Array, log_var: jax.Array | float) -> jax.Array:
            return losses.gaussian_log_prob(mean, log_var, flat).reshape(-1, n)

        def wide(v: jax.Array) -> jax.Array:
            return jnp.broadcast_to(v[:, None], z.shape).reshape(flat.shape)

        likelihood = log_prob(config, heads, repeated).reshape(-1, n)
        return (likelihood, density(jnp.zeros_like(flat), 0.0), density(wide(mean), wide(log_var))), stats

    count = -(-samples // max(1, ROWS // x.shape[0]))
    if count == 1:
        parts, decoder_stats = draw(key, samples)
    else:
        block = jax.checkpoint(functools.partial(draw, n=-(-samples // count)))
        found, stats = jax.lax.map(block, jax.random.split(key, count))
        parts = jax.tree.map(lambda v: v.swapaxes(0, 1).reshape(x.shape[0], -1)[:, :samples], found)
        decoder_stats = jax.tree.map(lambda v: v.mean(axis=0), stats)
    names = ("log_likelihood", "log_prior", "log_posterior")
    terms = dict(zip(names, parts, strict=True)) | {"kl": losses.kl_standard_normal(mean, log_var)}
    return terms, {"encoder": encoder_stats, "decoder": decoder_stats}


def _sampled_kl(terms: dict[str, jax.Array]) -> jax.Array:
    """log q(z|x) - log p(z) of each draw, [B, k]."""
    return terms["log_posterior"] - terms["log_prior"]


def _bounds(config: Config, terms: dict[str, jax.Array]) -> Metrics:
    """elbo, log_likelihood, kl and, where it is the bound, iwae: one value an example, [B], nats."""
    likelihood, sampled = terms["log_likelihood"], _sampled_kl(terms)
    kl = terms["kl"] if config.kl == "analytic" else sampled.mean(axis=1)
    mean = likelihood.mean(axis=1)
    found = {"elbo": mean - kl, "log_likelihood": mean, "kl": kl}
    return found | {"iwae": losses.iwae_bound(likelihood - sampled)} if config.bound == "iwae" else found


def _objective(config: Config, terms: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
    """The bound to maximise, per example [B], and its named parts, batch means."""
    found = _bounds(config, terms)
    metrics = {name: value.mean() for name, value in found.items()}
    if config.bound == "iwae":
        return found["iwae"], metrics
    bound = found["log_likelihood"] - config.beta * found["kl"]
    if config.gradient == "score_function":
        # grad E_q[f] = E_q[f grad log q] + E_q[grad f]: z carries no gradient, log q carries f's.
        score = terms["log_likelihood"]
        if config.kl == "monte_carlo":
            score = score - config.beta * _sampled_kl(terms)
        weighted = jax.lax.stop_gradient(score) * terms["log_posterior"]
        bound = bound + (weighted - jax.lax.stop_gradient(weighted)).mean(axis=1)
    return bound, metrics


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, Metrics]:
    """One step up the bound. batch = {"x": uint8 or float [B, *shape]}.

    Metrics (nats, batch means): elbo, log_likelihood = E_q log p(x|z), kl; iwae where that is the bound; gradient_norm.
    """
    players.check_batch(batch, state.shape, None, 0)
    binarize_key, noise_key = jax.random.split(key)
    x = targets(config, batch["x"], binarize_key)

    def loss(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.model.batch_stats}
        terms, stats = _terms(config, variables, x, noise_key, config.samples, train=True)
        bound, metrics = _objective(config, terms)
        return weight_penalty(config, params) - bound.mean(), (metrics, stats)

    gradient, (metrics, stats) = jax.grad(loss, has_aux=True)(state.model.params)
    state, norm = players.step_model(config, state, gradient, stats)
    return state, metrics | norm


@functools.partial(jax.jit, static_argnums=0)
def encode(config: Config, state: State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q(z | x): x [B, *shape] uint8 or float -> (mean, log_var), [B, K] each. Grey pixels are not binarised here."""
    players.check_batch({"x": x}, state.shape, None, 0)
    x = players.as_float(x)
    return apply_net(config, state.model.variables(), "encoder", x, config.latents, train=False)[0]


@functools.partial(jax.jit, static_argnums=0)
def decode(config: Config, state: State, z: jax.Array) -> jax.Array:
    """E[x | z]: z [B, K] -> [B, *shape], probabilities or means; images' linear means are cut to [0, 1]."""
    _check_latents(config, z)
    heads = _decode(config, state, z)
    if config.likelihood == "bernoulli":
        return jax.nn.sigmoid(heads)
    mean, _ = mean_log_var(config, heads)
    return jnp.clip(mean, 0, 1) if len(state.shape) == 3 else mean


def decode_standard(config: Config, state: State, u: jax.Array) -> jax.Array:
    """decode of a standard normal u [B, K]: here the prior is N(0, I) itself."""
    return decode(config, state, u)


def _decode(config: Config, state: State, z: jax.Array) -> jax.Array:
    return apply_net(config, state.model.variables(), "decoder", z, heads_shape(config, state.shape), train=False)[0]


def _check_latents(config: Config, z: jax.Array) -> None:
    if z.ndim != 2 or z.shape[1] != config.latents:
        raise ValueError(f"z has shape {tuple(z.shape)}: [B, {config.latents}] is expected.")


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(config: Config, state: State, x: jax.Array, key: jax.Array) -> jax.Array:
    """decode(z) for one z ~ q(z | x): [B, *shape] -> [B, *shape]."""
    mean, log_var = encode(config, state, x)
    return decode(config, state, mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape))


@functools.partial(jax.jit, static_argnums=(0, 3))
def sample(config: Config, state: State, key: jax.Array, n: int, label: jax.Array | None = None) -> jax.Array:
    """E[x | z] for n draws z ~ N(0, I), [n, *shape], in blocks of batch_size. The prior takes no label."""
    if label is not None:
        raise ValueError("label was given, but the VAE is unconditional: leave it out.")

    def draw(key: jax.Array, _: jax.Array | None) -> jax.Array:
        return decode(config, state, jax.random.normal(key, (config.batch_size, config.latents)))

    return players.blocks(draw, key, n, config.batch_size, None)


@functools.partial(jax.jit, static_argnums=0)
def log_likelihood(config: Config, state: State, z: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x | z), nats: z [B, K], x [B, *shape] float as the model sees it (see `targets`) -> [B]."""
    return log_prob(config, _decode(config, state, z), x)


@functools.partial(jax.jit, static_argnums=(0, 4))
def log_weights(config: Config, state: State, x: jax.Array, key: jax.Array, samples: int) -> jax.Array:
    """log p(x, z_i) - log q(z_i | x) for z_i ~ q: x [B, *shape] as the model sees it -> [B, samples], nats."""
    if samples < 1:
        raise ValueError(f"samples is {samples}: give 1 or more.")
    terms, _ = _terms(config, state.model.variables(), x, key, samples, train=False)
    return terms["log_likelihood"] - _sampled_kl(terms)


@functools.partial(jax.jit, static_argnums=0)
def elbo(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> Metrics:
    """The bound's parts on a batch {"x": [B, *shape]}, one value an example [B], nats, with running statistics.

    elbo, log_likelihood and kl with config.samples draws of z; iwae, the bound of as many, where the config trains it.
    """
    players.check_batch(batch, state.shape, None, 0)
    binarize_key, noise_key = jax.random.split(key)
    x = targets(config, batch["x"], binarize_key)
    terms, _ = _terms(config, state.model.variables(), x, noise_key, config.samples, train=False)
    return _bounds(config, terms)


validate = elbo
