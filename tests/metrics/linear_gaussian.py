"""A linear-Gaussian decoder, x = W z + b + noise, where log p(x) and p(z | x) are closed."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from vaegan_jax import losses


class Linear:
    """D features, K latents, noise of variance `variance`; x [B, D] are drawn from it.

    With `orthogonal` columns of W the posterior's covariance is diagonal, so that a VAE's proposal can be exact.
    """

    def __init__(self, D: int, K: int, variance: float, *, B: int = 20, orthogonal: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.W = rng.normal(size=(D, K))
        if orthogonal:
            self.W = np.linalg.qr(self.W)[0] * np.linspace(1, 2, K)
        self.b, self.variance, self.K = rng.normal(size=D), variance, K
        self.x = rng.normal(size=(B, K)) @ self.W.T + self.b + variance**0.5 * rng.normal(size=(B, D))
        self.covariance = np.linalg.inv(np.eye(K) + self.W.T @ self.W / variance)  # of p(z | x)
        self.mean = (self.x - self.b) @ self.W @ self.covariance / variance  # [B, K]

    def log_likelihood(self, z: jax.Array, x: jax.Array) -> jax.Array:
        mean = z @ jnp.asarray(self.W.T, jnp.float32) + jnp.asarray(self.b, jnp.float32)[None]
        return losses.gaussian_log_prob(mean, float(np.log(self.variance)), x)

    def simulate(self, key: jax.Array, z: jax.Array) -> jax.Array:
        mean = z @ jnp.asarray(self.W.T, jnp.float32) + jnp.asarray(self.b, jnp.float32)[None]
        return mean + self.variance**0.5 * jax.random.normal(key, mean.shape)

    def exact(self, x: np.ndarray | jax.Array | None = None) -> np.ndarray:
        """log p(x): [B], nats."""
        covariance = self.W @ self.W.T + self.variance * np.eye(len(self.b))
        return multivariate_normal(self.b, covariance).logpdf(np.asarray(self.x if x is None else x, np.float64))
