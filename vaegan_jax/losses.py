"""Losses and log-probabilities: pure functions on arrays, one value per example, reduced last by the caller.

Sums run over every axis but the first, in nats. Shapes: B batch, K latents, k importance samples, r and f the logits
of real and fake examples.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Critic = Callable[[jax.Array], jax.Array]
LOG_2PI = 1.8378770664093453


def _rows(values: jax.Array) -> jax.Array:
    """[B, ...] -> [B, D], before any arithmetic: XLA does not vectorise over an image's trailing axis of 1 channel."""
    return values.reshape(values.shape[0], -1)


def _same_shape(name: str, given: jax.Array, other: str, expected: jax.Array) -> None:
    if jnp.shape(given) != jnp.shape(expected):
        raise ValueError(
            f"{name} has shape {jnp.shape(given)}, but {other} has {jnp.shape(expected)}: give equal shapes."
        )


def bernoulli_log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x) = sum of x log s(l) + (1 - x) log(1 - s(l)): logits, x in [0, 1], both [B, ...] -> [B], nats.

    The softplus form, finite in value and gradient at any finite logit. For x strictly inside (0, 1) it is a
    cross-entropy ("soft targets"), not a normalised density.
    """
    _same_shape("logits", logits, "x", x)
    logits, x = _rows(logits), _rows(x)
    return (x * logits - jax.nn.softplus(logits)).sum(axis=1)


def gaussian_log_prob(mean: jax.Array, log_var: jax.Array | float, x: jax.Array) -> jax.Array:
    """log N(x; mean, exp(log_var) I): mean, x [B, ...], log_var alike or a scalar -> [B], nats."""
    _same_shape("mean", mean, "x", x)
    if jnp.ndim(log_var):
        _same_shape("log_var", jnp.asarray(log_var), "x", x)
        log_var = _rows(jnp.asarray(log_var))
    mean, x = _rows(mean), _rows(x)
    return -0.5 * (LOG_2PI + log_var + (x - mean) ** 2 * jnp.exp(-log_var)).sum(axis=1)


def kl_standard_normal(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """KL(N(mean, diag exp log_var) || N(0, I)): [B, K] twice -> [B], nats. Kingma & Welling 2013, appendix B."""
    _same_shape("log_var", log_var, "mean", mean)
    mean, log_var = _rows(mean), _rows(log_var)
    return 0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var).sum(axis=1)


def iwae_bound(log_weights: jax.Array) -> jax.Array:
    """L_k = log (1/k) sum_i w_i, w_i = p(x, z_i) / q(z_i | x): [B, k] -> [B], nats. Burda et al. 2015, eq. 8."""
    if jnp.ndim(log_weights) != 2 or log_weights.shape[1] == 0:
        raise ValueError(f"log_weights has shape {jnp.shape(log_weights)}: give [B, k] with k at least 1.")
    return jax.nn.logsumexp(log_weights, axis=1) - jnp.log(float(log_weights.shape[1]))


class Adversarial(NamedTuple):
    """The two players' losses: each maps (real logits [B], fake logits [B]) to [B], and each is minimised."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array, jax.Array], jax.Array]


def _pair(
    discriminator: Callable[[jax.Array, jax.Array], jax.Array], generator: Callable[[jax.Array, jax.Array], jax.Array]
) -> Adversarial:
    """Both refuse logits of unequal shapes, which would broadcast to [B, B]."""

    def checked(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[jax.Array, jax.Array], jax.Array]:
        def call(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
            _same_shape("fake_logits", fake_logits, "real_logits", real_logits)
            return loss(real_logits, fake_logits)

        return call

    return Adversarial(checked(discriminator), checked(generator))


def _cross_entropy(r: jax.Array, f: jax.Array) -> jax.Array:
    """-log D(x) - log(1 - D(G(z))), D = sigmoid(logit)."""
    return jax.nn.softplus(-r) + jax.nn.softplus(f)


ADVERSARIAL: dict[str, Adversarial] = {
    # Goodfellow et al. 2014, eq. 1: G minimises log(1 - D(G(z))), which saturates when D is sure.
    "minimax": _pair(_cross_entropy, lambda r, f: -jax.nn.softplus(f)),
    # The same paper, section 3: G maximises log D(G(z)).
    "non_saturating": _pair(_cross_entropy, lambda r, f: jax.nn.softplus(-f)),
    # Mao et al. 2017, eq. 2 with labels 0, 1, 1.
    "least_squares": _pair(lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2, lambda r, f: 0.5 * (f - 1) ** 2),
    # Lim & Ye 2017; Miyato et al. 2018, eqs. 16 and 17.
    "hinge": _pair(lambda r, f: jax.nn.relu(1 - r) + jax.nn.relu(1 + f), lambda r, f: -f),
    # Arjovsky et al. 2017, algorithm 1: the critic maximises E f(x) - E f(g(z)).
    "wasserstein": _pair(lambda r, f: f - r, lambda r, f: -f),
    # Jolicoeur-Martineau 2018 (RpGAN), the pairing of Huang et al. 2024 (R3GAN).
    "relativistic": _pair(lambda r, f: jax.nn.softplus(f - r), lambda r, f: jax.nn.softplus(r - f)),
}


def _input_gradient(critic: Critic, x: jax.Array) -> jax.Array:
    """Gradient of every example's own output with respect to itself; exact only if the critic mixes no examples."""
    return jax.grad(lambda x: critic(x).sum())(x)


def _norm(g: jax.Array) -> jax.Array:
    """Euclidean norm over all but the first axis, with gradient 0 (not NaN) where g is 0."""
    squared = _rows(g**2).sum(axis=1)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def _per_example(weight: jax.Array, x: jax.Array) -> jax.Array:
    return weight.reshape(weight.shape + (1,) * (x.ndim - 1))


def gradient_penalty(
    critic: Critic, real: jax.Array, fake: jax.Array, key: jax.Array, *, target: float = 1.0
) -> jax.Array:
    """(||grad f(x^)|| - target)^2 at x^ = e x + (1 - e) x~, e ~ U[0, 1] for each example: [B], without coefficient.

    Gulrajani et al. 2017, eq. 3. critic([B, ...]) -> [B]; batch normalisation in it would mix examples: use none.
    """
    _same_shape("fake", fake, "real", real)
    e = _per_example(jax.random.uniform(key, real.shape[:1], real.dtype), real)
    return (_norm(_input_gradient(critic, e * real + (1 - e) * fake)) - target) ** 2


def r1(critic: Critic, real: jax.Array) -> jax.Array:
    """||grad f(x)||^2 on real examples [B, ...] -> [B]. Mescheder et al. 2018, eq. 9, without gamma / 2."""
    return _rows(_input_gradient(critic, real) ** 2).sum(axis=1)


def r2(critic: Critic, fake: jax.Array) -> jax.Array:
    """||grad f(x)||^2 on generated examples [B, ...] -> [B]. Mescheder et al. 2018, eq. 10, without gamma / 2."""
    return _rows(_input_gradient(critic, fake) ** 2).sum(axis=1)


def dragan(critic: Critic, real: jax.Array, key: jax.Array, *, scale: float) -> jax.Array:
    """(||grad f(x + d)|| - 1)^2, d ~ N(0, scale^2 I): [B], without coefficient. Kodali et al. 2017, section 2.3."""
    noise = scale * jax.random.normal(key, real.shape, real.dtype)
    return (_norm(_input_gradient(critic, real + noise)) - 1.0) ** 2
