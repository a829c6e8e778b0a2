"""Numbers that say how good a generative model is; one question a file, every function pure and seeded.

likelihood   log p(x) by importance sampling, bounds of any number of latent layers, the ELBO's terms, active units
ais          log p(x) by annealed importance sampling, and how far off it is
posterior    log p(x) from samples of the posterior, for a few latents
parzen       log-likelihood under a Parzen window of samples
features     an own classifier, whose features and class probabilities the distances below are taken in
inception    the network of the published FID, from a file of its weights
frechet      Frechet distance (FID), its statistics on disk, its limit for many samples
kernel       kernel distance (KID)
score        inception score
manifold     precision and recall, density and coverage
prd          the curve of precision against recall
modes        modes found of a mixture, and of stacked MNIST's 1000
neighbors    1-nearest-neighbour error; whether samples lie nearer to the training set than test examples
spectrum     power of spatial frequencies: how blurred images are
membership   whether a score tells training examples from others
birthday     pairs of samples that are alike, and the number of different ones that their frequency tells
evaluation   all of it for one model
subject measures    one seed's model, its samples and features; what `evaluate` can ask of it
distances inputs annealed    below them: nearest neighbours in blocks, checks, AIS's chains and their file
"""

# ruff: noqa: F401 (names for type checkers: __all__ is made of the table below, which ruff does not read)

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaegan_jax.metrics.ais import ais_log_likelihood, bdmc, bdmc_gap
    from vaegan_jax.metrics.birthday import collisions, duplicates
    from vaegan_jax.metrics.evaluation import evaluate
    from vaegan_jax.metrics.frechet import frechet_distance, frechet_from_statistics, frechet_infinity, statistics
    from vaegan_jax.metrics.kernel import kernel_distance, squared_mmd
    from vaegan_jax.metrics.likelihood import active_units, bound_from_weights, elbo_terms, importance_log_likelihood
    from vaegan_jax.metrics.manifold import density_coverage, precision_recall
    from vaegan_jax.metrics.membership import membership_auc
    from vaegan_jax.metrics.modes import mode_coverage, mode_divergence, stacked_modes
    from vaegan_jax.metrics.neighbors import memorisation, nearest_neighbor_error
    from vaegan_jax.metrics.parzen import parzen_estimate, parzen_log_likelihood
    from vaegan_jax.metrics.posterior import posterior_log_likelihood, posterior_samples
    from vaegan_jax.metrics.prd import prd_curve
    from vaegan_jax.metrics.score import inception_score
    from vaegan_jax.metrics.spectrum import high_frequency_share, radial_power

_NAMES = {
    "ais": ("ais_log_likelihood", "bdmc", "bdmc_gap"),
    "birthday": ("collisions", "duplicates"),
    "evaluation": ("evaluate",),
    "frechet": ("frechet_distance", "frechet_from_statistics", "frechet_infinity", "statistics"),
    "kernel": ("kernel_distance", "squared_mmd"),
    "likelihood": ("active_units", "bound_from_weights", "elbo_terms", "importance_log_likelihood"),
    "manifold": ("density_coverage", "precision_recall"),
    "membership": ("membership_auc",),
    "modes": ("mode_coverage", "mode_divergence", "stacked_modes"),
    "neighbors": ("memorisation", "nearest_neighbor_error"),
    "parzen": ("parzen_estimate", "parzen_log_likelihood"),
    "posterior": ("posterior_log_likelihood", "posterior_samples"),
    "prd": ("prd_curve",),
    "score": ("inception_score",),
    "spectrum": ("high_frequency_share", "radial_power"),
}
_FILE = {name: file for file, names in _NAMES.items() for name in names}

__all__ = sorted(_FILE)


def __getattr__(name: str) -> Any:
    # Late, so that one metric brings neither the others' imports (scikit-learn, Flax) nor their time.
    if name in _FILE:
        return getattr(importlib.import_module(f"{__name__}.{_FILE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
