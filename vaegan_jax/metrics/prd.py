"""Precision and recall of distributions as a curve. Sajjadi et al. 2018.

Both sets are histograms over the clusters of their union: P of the real, Q of the fake set. For every slope t the
curve has precision sum min(t P, Q) and recall sum min(P, Q / t): what Q can be made of P, and P of Q.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax import logs
from vaegan_jax.metrics import inputs


@dataclass(frozen=True, eq=False)
class PRD:
    """A curve of A points, from all recall to all precision."""

    precision: np.ndarray  # [A], rising
    recall: np.ndarray  # [A], falling

    def f(self, beta: float) -> float:
        """The largest F_beta on the curve, in [0, 1]: beta above 1 weighs recall. Sajjadi et al. 2018, section 4.3."""
        weight = inputs.positive("beta", beta) ** 2
        below = weight * self.precision + self.recall
        above = (1 + weight) * self.precision * self.recall
        return float(np.divide(above, below, out=np.zeros_like(above), where=below > 0).max())

    @property
    def f8(self) -> float:
        """Recall in one number."""
        return self.f(8)

    @property
    def f1_8(self) -> float:
        """Precision in one number."""
        return self.f(1 / 8)


def prd_curve(
    real: ArrayLike, fake: ArrayLike, *, clusters: int = 20, angles: int = 1001, runs: int = 10, seed: int = 0
) -> PRD:
    """The curve of features real [N, D] and fake [M, D], averaged over `runs` clusterings by mini-batch k-means.

    A set larger than the other would bend the clusters to itself: give as many of each. Algorithm 1 of the paper's
    section 4.2, with its 20 clusters, 1001 angles and 10 runs.

    Raises ValueError for fewer examples than clusters, unequal widths, a dtype that is not floating, NaN.
    """
    from sklearn.cluster import MiniBatchKMeans  # it takes seconds to import

    runs = inputs.count("runs", runs, 1)
    clusters = inputs.count("clusters", clusters, 1)
    angles = inputs.count("angles", angles, 3)
    real, fake = inputs.feature_pair("real", real, "fake", fake, least=(clusters, clusters))
    union = np.concatenate([real, fake]).astype(np.float32)
    curves = []
    states = np.random.SeedSequence(seed).generate_state(runs)
    for run in logs.steps(runs, "precision against recall, clusterings"):
        means = MiniBatchKMeans(clusters, n_init=10, random_state=int(states[run]))
        label = means.fit_predict(union)
        p, q = (np.bincount(part, minlength=clusters) for part in (label[: len(real)], label[len(real) :]))
        curves.append(curve_of_histograms(p / len(real), q / len(fake), angles))
    return PRD(np.mean([c.precision for c in curves], axis=0), np.mean([c.recall for c in curves], axis=0))


def curve_of_histograms(p: ArrayLike, q: ArrayLike, angles: int = 1001) -> PRD:
    """The exact curve of two distributions over the same C states, p real and q fake: [C] each, summing to 1."""
    angles = inputs.count("angles", angles, 3)
    P, Q = inputs.probabilities("p", p, "[C]", 1), inputs.probabilities("q", q, "[C]", 1)
    if P.shape != Q.shape:
        raise ValueError(f"p has {P.size} states, q {Q.size}: give both over the same states.")
    slope = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, angles))[:, None]  # evenly spaced angles, eq. 8
    precision = np.minimum(slope * P[None, :], Q[None, :]).sum(axis=1)
    # t sum min(P, Q / t) = sum min(t P, Q)
    return PRD(np.clip(precision, 0, 1), np.clip(precision / slope[:, 0], 0, 1))
