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
birthday     pairs of samples that are alike, and the number of different ones that their frequency tells
evaluation   all of it for one model
subject measures    one seed's model, its samples and features; what `evaluate` can ask of it
distances inputs annealed    below them: nearest neighbours in blocks, checks, AIS's chains and their file
"""

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
    from vaegan_jax.metrics.modes import mode_coverage, mode_divergence, stacked_modes
    from vaegan_jax.metrics.neighbors import memorisation, nearest_neighbor_error
    from vaegan_jax.metrics.parzen import parzen_estimate, parzen_log_likelihood
    from vaegan_jax.metrics.posterior import posterior_log_likelihood, posterior_samples
    from vaegan_jax.metrics.prd import prd_curve
    from vaegan_jax.metrics.score import inception_score
    from vaegan_jax.metrics.spectrum import high_frequency_share, radial_power

_FILE = {
    "active_units": "likelihood",
    "ais_log_likelihood": "ais",
    "bdmc": "ais",
    "bdmc_gap": "ais",
    "bound_from_weights": "likelihood",
    "collisions": "birthday",
    "density_coverage": "manifold",
    "duplicates": "birthday",
    "elbo_terms": "likelihood",
    "evaluate": "evaluation",
    "frechet_distance": "frechet",
    "frechet_from_statistics": "frechet",
    "frechet_infinity": "frechet",
    "high_frequency_share": "spectrum",
    "importance_log_likelihood": "likelihood",
    "inception_score": "score",
    "kernel_distance": "kernel",
    "memorisation": "neighbors",
    "mode_coverage": "modes",
    "mode_divergence": "modes",
    "nearest_neighbor_error": "neighbors",
    "parzen_estimate": "parzen",
    "parzen_log_likelihood": "parzen",
    "posterior_log_likelihood": "posterior",
    "posterior_samples": "posterior",
    "prd_curve": "prd",
    "precision_recall": "manifold",
    "radial_power": "spectrum",
    "squared_mmd": "kernel",
    "stacked_modes": "modes",
    "statistics": "frechet",
}

__all__ = [
    "active_units",
    "ais_log_likelihood",
    "bdmc",
    "bdmc_gap",
    "bound_from_weights",
    "collisions",
    "density_coverage",
    "duplicates",
    "elbo_terms",
    "evaluate",
    "frechet_distance",
    "frechet_from_statistics",
    "frechet_infinity",
    "high_frequency_share",
    "importance_log_likelihood",
    "inception_score",
    "kernel_distance",
    "memorisation",
    "mode_coverage",
    "mode_divergence",
    "nearest_neighbor_error",
    "parzen_estimate",
    "parzen_log_likelihood",
    "posterior_log_likelihood",
    "posterior_samples",
    "prd_curve",
    "precision_recall",
    "radial_power",
    "squared_mmd",
    "stacked_modes",
    "statistics",
]


def __getattr__(name: str) -> Any:
    # Late, so that one metric brings neither the others' imports (scikit-learn, Flax) nor their time.
    if name in _FILE:
        return getattr(importlib.import_module(f"{__name__}.{_FILE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
