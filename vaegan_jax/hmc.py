"""Hamiltonian Monte Carlo on the tempered posterior p(z) p(x | z)^beta, p(z) = N(0, I): many chains side by side.

Neal 2011, "MCMC using Hamiltonian dynamics", section 3. Written here rather than taken from blackjax or numpyro: beta
changes at every transition, and they would compute log p(x | z) and its gradient anew then. Neither depends on beta, so
here both carry over, and a transition costs one evaluation a leapfrog and no more; and it is thirty lines against a
dependency. Shapes: K latents, any leading axes of chains.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Evaluate = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""z [..., K] -> log p(x | z) [...] and its gradient in z [..., K]."""
SHORTEST, LONGEST = 1e-4, 0.5  # steps, Wu et al. 2017's released code
SPREAD = 0.5  # of a trajectory's step around the chain's


class Chains(NamedTuple):
    """Where the chains are."""

    z: jax.Array  # [..., K]
    log_likelihood: jax.Array  # [...]: log p(x | z)
    gradient: jax.Array  # [..., K]: of log p(x | z) in z
    acceptance: jax.Array  # [...]: probability with which the last proposal was accepted


def with_gradient(log_likelihood: Callable[[jax.Array], jax.Array]) -> Evaluate:
    """z [B, K] -> log p(x | z) [B] and its gradient in z, for a log_likelihood whose rows do not mix.

    In full float32, of which an accelerator's products keep 10 bits by default: differences of energies decide.
    """

    @jax.default_matmul_precision("highest")
    def evaluate(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pull = jax.vjp(log_likelihood, z)
        return value, pull(jnp.ones_like(value))[0]

    return evaluate


def evaluator(log_likelihood: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, rows: int) -> Evaluate:
    """z [C, B, K] -> log p(x | z) [C, B] and its gradient, for log_likelihood(z [B, K], x [B, ...]) -> [B].

    Some chains at a time, so that about `rows` rows go through the decoder at once, B at least.
    """
    one = with_gradient(lambda z: log_likelihood(z, x))

    def evaluate(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        width = max(1, rows // z.shape[1])
        return jax.vmap(one)(z) if width >= len(z) else jax.lax.map(one, z, batch_size=width)

    return evaluate


def start(evaluate: Evaluate, z: jax.Array) -> Chains:
    """Chains at z [..., K]."""
    return Chains(z, *evaluate(z), jnp.zeros(z.shape[:-1], z.dtype))


def transition(
    evaluate: Evaluate,
    chains: Chains,
    beta: float | jax.Array,
    step: jax.Array,
    key: jax.Array,
    *,
    leapfrogs: int,
) -> Chains:
    """One trajectory of `leapfrogs` steps and its acceptance; leaves p(z) p(x | z)^beta invariant.

    step [...], one for each chain, must not be chosen by that chain's own past (see `adapt`). Each trajectory takes it
    times a draw from [1 - SPREAD, 1 + SPREAD] (Neal 2011, section 3.2): a fixed length brings directions of some scale
    back to where they began, and does so at every transition, as a step that adapts keeps its ratio to the scales. A
    trajectory that ends in NaN or infinity is rejected.
    """
    momentum_key, step_key, accept_key = jax.random.split(key, 3)
    momentum = jax.random.normal(momentum_key, chains.z.shape, chains.z.dtype)
    step = (step * jax.random.uniform(step_key, step.shape, step.dtype, 1 - SPREAD, 1 + SPREAD))[..., None]

    def leapfrog(_: int, point: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        z, _value, gradient, momentum = point
        momentum = momentum + 0.5 * step * (beta * gradient - z)
        z = z + step * momentum
        value, gradient = evaluate(z)
        return z, value, gradient, momentum + 0.5 * step * (beta * gradient - z)

    def energy(z: jax.Array, value: jax.Array, momentum: jax.Array) -> jax.Array:
        return 0.5 * (z**2 + momentum**2).sum(axis=-1) - beta * value

    first = (chains.z, chains.log_likelihood, chains.gradient, momentum)
    z, value, gradient, last_momentum = jax.lax.fori_loop(0, leapfrogs, leapfrog, first)
    ratio = energy(chains.z, chains.log_likelihood, momentum) - energy(z, value, last_momentum)
    usable = jnp.isfinite(value) & jnp.isfinite(gradient).all(axis=-1) & ~jnp.isnan(ratio)
    ratio = jnp.where(usable, ratio, -jnp.inf)
    accepted = jnp.log(jax.random.uniform(accept_key, ratio.shape, ratio.dtype)) < ratio
    return Chains(
        jnp.where(accepted[..., None], z, chains.z),
        jnp.where(accepted, value, chains.log_likelihood),
        jnp.where(accepted[..., None], gradient, chains.gradient),
        jnp.exp(jnp.minimum(ratio, 0.0)),
    )


def adapt(step: jax.Array, acceptance: jax.Array, *, target: float = 0.65, rate: float = 0.2) -> jax.Array:
    """The next step [...], within [SHORTEST, LONGEST]: longer where acceptance [...] is above the target, else shorter.

    In proportion to the difference, so that it shrinks by 12% where nothing is accepted. Give the mean acceptance of
    many chains, best of others than those that take the step: a step that follows its own chain does not leave the
    target invariant (on a Gaussian of two scales, x 1.02 or x .98 after each transition shrank a standard deviation by
    8% within 20 transitions).
    """
    return jnp.clip(step * jnp.exp(rate * (acceptance - target)), SHORTEST, LONGEST)
