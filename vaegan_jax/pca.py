"""Principal components and their probabilistic model: the linear baseline of every autoencoder.

Tipping & Bishop 1999, "Probabilistic principal component analysis": x = W z + mean + noise, z ~ N(0, I_k), noise
~ N(0, s^2 I). Its maximum of likelihood is closed: W from the k largest eigenvalues of the covariance, s^2 the mean of
the rest. Exact, in float64 and in NumPy. Shapes: N examples, D features, k components.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax.metrics import inputs


@dataclass(frozen=True, eq=False)
class PCA:
    """The fitted model; all arrays float64."""

    mean: np.ndarray  # [D]
    components: np.ndarray  # [k, D]: orthonormal rows, the largest variance first, the largest entry of each positive
    eigenvalues: np.ndarray  # [k]: variances along the components, descending (divided by N)
    noise_variance: float  # s^2, the mean of the D - k other eigenvalues

    def transform(self, x: ArrayLike) -> np.ndarray:
        """Coordinates of x [N, D] along the components: [N, k].

        Raises ValueError, as the others do, for another shape, a dtype that is not floating, NaN or infinity.
        """
        x = _rows("x", x, self.mean.size)
        return np.concatenate([(block - self.mean) @ self.components.T for block in inputs.blocks(x)])

    def inverse(self, z: ArrayLike) -> np.ndarray:
        """The points of the subspace with coordinates z [N, k]: [N, D]; `inverse(transform(x))` is x projected."""
        z = _rows("z", z, len(self.components))
        return z.astype(np.float64) @ self.components + self.mean

    def log_likelihood(self, x: ArrayLike) -> np.ndarray:
        """log N(x; mean, W W^T + s^2 I) of each example of x [N, D]: [N], nats; O(N D k).

        In the eigenbasis the covariance is diagonal: the k eigenvalues along the components, s^2 across them.
        """
        x = _rows("x", x, self.mean.size)
        k, D = self.components.shape
        log_det = np.log(self.eigenvalues).sum() + (D - k) * np.log(self.noise_variance)
        values = []
        for block in inputs.blocks(x):
            centred = block - self.mean
            z = centred @ self.components.T
            across = ((centred - z @ self.components) ** 2).sum(axis=1)  # not |x|^2 - |z|^2, which cancels
            distance = (z**2 / self.eigenvalues).sum(axis=1) + across / self.noise_variance
            values.append(-0.5 * (D * np.log(2 * np.pi) + log_det + distance))
        return np.concatenate(values)


def fit(x: ArrayLike, k: int) -> PCA:
    """Probabilistic PCA of x [N, D] (floating point; images in [0, 1]) by maximum likelihood, with 1 <= k < D.

    Raises ValueError for another shape, integers, NaN or infinity, k outside 1..D-1, and data that span no more than k
    dimensions: their noise variance would be 0 and their likelihood infinite.
    """
    x = inputs.features("x", x, least=2)
    N, D = x.shape
    k = inputs.count("k", k, 1, D - 1, f", one less than the {D} features")
    mean, scatter = inputs.moments(x)
    values, vectors = np.linalg.eigh(scatter / N)
    values, vectors = values[::-1], vectors[:, ::-1].T
    components = vectors[:k]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    noise_variance = float(values[k:].mean())
    # eigh is accurate to about D * eps of the largest eigenvalue: below it, what is left is rounding, not noise.
    if not noise_variance > D * np.finfo(np.float64).eps * values[0]:
        raise ValueError(
            f"The {N} examples span no more than {k} of the {D} dimensions, so the noise variance is 0: "
            "give a smaller k, more examples, or drop features that are copies of others."
        )
    return PCA(mean, np.ascontiguousarray(components * np.sign(largest)), values[:k].copy(), noise_variance)


def _rows(name: str, x: ArrayLike, width: int) -> np.ndarray:
    """x as a checked array [N, width] of its own floating dtype."""
    if np.ndim(x) == 2 and np.shape(x)[1] != width:
        raise ValueError(f"{name} has shape {np.shape(x)}: give [N, {width}], as this model has {width} of them.")
    return inputs.features(name, x)
