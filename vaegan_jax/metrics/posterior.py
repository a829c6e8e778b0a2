"""Kingma & Welling 2013, appendix D: log p(x) from samples of the posterior and a density fitted to them.

For any density q, E over p(z | x) of q(z) / (p(z) p(x | z)) is 1 / p(x): HMC draws samples, q is fitted to some of them
and the mean is over others. The paper does not name q's family: here it is a Gaussian with full covariance. An estimate
of 1 / p(x) errs upwards in log p(x), by much where q has mass that the posterior lacks: trust it in few dimensions only
(the paper: fewer than 5), and print an importance-weighted or AIS value beside it. Shapes: B examples, L samples, K
latents.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from vaegan_jax import hmc, logs
from vaegan_jax.metrics import inputs
from vaegan_jax.metrics.ais import rows_at_once, schedule
from vaegan_jax.metrics.likelihood import LogLikelihood, as_argument, check_examples, check_key, check_log_likelihood

LATENTS = 4  # "less than 5 dimensions"
PARTS = 20  # that the transitions are made in: between two, progress may be reported


def posterior_samples(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    key: jax.Array,
    *,
    latents: int,
    samples: int = 50,
    transitions: int = 500,
    leapfrogs: int = 4,
    rows: int | None = None,
) -> jax.Array:
    """Samples of p(z | x) of each example, one from the end of each of `samples` chains: [samples, B, K], by HMC.

    Chains start at draws of the prior and are led to the posterior along AIS's temperatures for the first half of the
    transitions; the second half is at the posterior itself. On the way an example's chains are drawn anew from among
    themselves, by AIS's weights since the last time: a sequential Monte Carlo sampler (Del Moral, Doucet & Jasra 2006),
    without which chains that ended in a wrong mode, tens of nats below, would stay there and count like any other. An
    example's step adapts to a mean acceptance of .65 over its chains in the first half and stays what it then is, so
    that the second half leaves the posterior exactly invariant. What takes long is reported on stderr (logs.steps).

    Args:
        log_likelihood: log p(x | z), called with z [B, K] and x, differentiable in z and finite.
        x: [B, ...] floating point as the model sees it.
        latents: K, of any size here.
        transitions: of each chain, 4 at least.
        leapfrogs: in each transition; the paper's 4.
        rows: as ais_log_likelihood's.

    Raises ValueError as ais.ais_log_likelihood does.
    """
    return _samples(log_likelihood, x, key, latents, samples, transitions, leapfrogs, rows).z


def posterior_log_likelihood(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    key: jax.Array,
    *,
    latents: int,
    samples: int = 50,
    transitions: int = 500,
    leapfrogs: int = 4,
    rows: int | None = None,
) -> jax.Array:
    """Appendix D's estimate of log p(x): [B], nats. q is fitted to `samples` samples, the mean is over as many others.

    The two are every other chain of one population, at the posterior for half of the transitions since they last had an
    ancestor in common. Two populations could end in two modes: q is then nothing where it is averaged, and the estimate
    hundreds of nats too high.

    Arguments as posterior_samples'; `samples` is L, the paper's 50, and K + 2 at least.

    Raises ValueError as that does, for more than 4 latents, too few samples, and samples that lie in a subspace, so
    that no Gaussian fits them.
    """
    inputs.count("latents", latents, 1)
    if latents > LATENTS:
        raise ValueError(
            f"latents is {latents}: a density fitted to posterior samples is reliable up to {LATENTS} dimensions only; "
            "take ais_log_likelihood or importance_log_likelihood."
        )
    inputs.count("samples", samples, latents + 2)
    chains = _samples(log_likelihood, x, key, latents, 2 * samples, transitions, leapfrogs, rows)
    fitted, z = np.asarray(chains.z[::2], np.float64), np.asarray(chains.z[1::2], np.float64)
    log_q = _gaussian(fitted, z)  # [L, B]
    log_prior = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=2)
    log_joint = log_prior + np.asarray(chains.log_likelihood[1::2], np.float64)
    return jnp.asarray(np.log(samples) - logsumexp(log_q - log_joint, axis=0), jnp.float32)


def _samples(
    log_likelihood: LogLikelihood,
    x: Any,
    key: jax.Array,
    latents: int,
    samples: int,
    transitions: int,
    leapfrogs: int,
    rows: int | None,
) -> hmc.Chains:
    rows = rows_at_once(rows)
    for name, value in (("latents", latents), ("samples", samples), ("leapfrogs", leapfrogs), ("rows", rows)):
        inputs.count(name, value, 1)
    inputs.count("transitions", transitions, 4)
    x = check_examples(x)
    check_key(key)
    check_log_likelihood(log_likelihood, x, latents)
    log_likelihood = as_argument(log_likelihood)
    start_key, key = jax.random.split(key)
    z = jax.random.normal(start_key, (samples, len(x), latents))
    rising = schedule(transitions // 2)
    betas = jnp.asarray(np.concatenate([rising, np.ones(transitions - len(rising))]), jnp.float32)
    # A long first step: at the prior, where the chains begin, it is the right one.
    steps, weights = jnp.full(len(x), hmc.LONGEST, z.dtype), jnp.zeros((samples, len(x)), z.dtype)
    begin = _start(log_likelihood, x, z, rows=rows)
    _check_finite(begin.log_likelihood)  # before resampling, which would leave none of the others
    state = begin, steps, weights
    size = -(-transitions // PARTS)
    starts = range(0, transitions, size)
    for i in logs.steps(len(starts), "posterior samples, parts of the transitions"):
        span = starts[i], min(starts[i] + size, transitions), len(rising)
        state = _advance(log_likelihood, x, state, betas, key, *span, leapfrogs, rows)
        state = jax.block_until_ready(state)
    _check_finite(state[0].log_likelihood)
    return state[0]


def _check_finite(values: jax.Array) -> None:
    if not bool(jnp.isfinite(values).all()):
        raise ValueError(
            "log_likelihood is NaN or infinite where the chains are: it must be finite wherever z is; "
            "check the model's parameters, and that x lies in the range that it models."
        )


@functools.partial(jax.jit, static_argnames="rows")
def _start(log_likelihood: LogLikelihood, x: jax.Array, z: jax.Array, *, rows: int) -> hmc.Chains:
    return hmc.start(hmc.evaluator(log_likelihood, x, rows), z)


@functools.partial(jax.jit, static_argnums=(8, 9))
def _advance(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    state: tuple[hmc.Chains, jax.Array, jax.Array],
    betas: jax.Array,
    key: jax.Array,
    first: jax.Array,
    end: jax.Array,
    adapting: jax.Array,
    leapfrogs: int,
    rows: int,
) -> tuple[hmc.Chains, jax.Array, jax.Array]:
    """Chains [L, B, ...], steps [B] and log weights [L, B] after transitions first..end-1.

    Those before `adapting` raise beta, weigh the chains and adapt steps; where less than half of an example's chains
    count by their weights they are drawn anew, and at the last of these transitions always.
    """
    evaluate = hmc.evaluator(log_likelihood, x, rows)

    def move(t: jax.Array, state: tuple[hmc.Chains, jax.Array, jax.Array]) -> tuple[hmc.Chains, jax.Array, jax.Array]:
        chains, steps, weights = state
        move_key, draw_key = jax.random.split(jax.random.fold_in(key, t))
        weights = weights + (betas[t] - betas[jnp.maximum(t - 1, 0)]) * chains.log_likelihood
        chains, weights = _resample(chains, weights, draw_key, t == adapting - 1)
        each = jnp.broadcast_to(steps[None], chains.log_likelihood.shape)
        chains = hmc.transition(evaluate, chains, betas[t], each, move_key, leapfrogs=leapfrogs)
        steps = jnp.where(t < adapting, hmc.adapt(steps, chains.acceptance.mean(axis=0)), steps)
        return chains, steps, weights

    return jax.lax.fori_loop(first, end, move, state)


def _resample(
    chains: hmc.Chains, weights: jax.Array, key: jax.Array, everyone: jax.Array
) -> tuple[hmc.Chains, jax.Array]:
    """Systematic resampling of each example's chains [L, B, ...] by log weights [L, B]; copies lie side by side.

    Where the effective number of chains, 1 / sum of squared shares, is below half of them; or where `everyone`. Log
    weights that were used are 0 again.
    """
    L, B = weights.shape
    shares = jax.nn.softmax(weights, axis=0)
    few = (1 / (shares**2).sum(axis=0) < L / 2) | everyone  # [B]
    own = jnp.arange(L)[:, None]
    points = (own + jax.random.uniform(key, (1, B))) / L
    find = jax.vmap(functools.partial(jnp.searchsorted, side="right", method="sort"), in_axes=1, out_axes=1)
    drawn = jnp.minimum(find(jnp.cumsum(shares, axis=0), points), L - 1)
    ancestor = jnp.where(few[None], drawn, own)
    moved = [jnp.take_along_axis(leaf, ancestor.reshape(L, B, *[1] * (leaf.ndim - 2)), axis=0) for leaf in chains]
    return hmc.Chains(*moved), jnp.where(few[None], 0.0, weights)


def _gaussian(fitted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """log q of points [L, B, K], q for each example the Gaussian with mean and full covariance of fitted [L, B, K]."""
    K = fitted.shape[2]
    mean = fitted.mean(axis=0)
    centred = fitted - mean
    covariance = np.einsum("lbi,lbj->bij", centred, centred) / (len(fitted) - 1)
    values, vectors = np.linalg.eigh(covariance)
    if not (values[:, 0] > 1e-10 * values[:, -1]).all():
        raise ValueError(
            "The posterior samples of an example lie in a subspace, so that no Gaussian fits them: "
            "give more samples or more transitions."
        )
    along = np.einsum("lbi,bij->lbj", points - mean, vectors)
    return -0.5 * ((along**2 / values).sum(axis=2) + np.log(values).sum(axis=1) + K * np.log(2 * np.pi))
