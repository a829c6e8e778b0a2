"""vaegan_jax: a laboratory bench for variational autoencoders and generative adversarial networks.

data         load(name, split) for every data set; toy mixtures
vae gan wgan vaegan     the algorithms, one a file, all with Config, State, init, train_step, sample
gmmn         a generator against a kernel in place of a discriminator
hierarchical     the VAE with several stochastic layers
wake_sleep mcem     vae's nets by the algorithms that it was first compared with: no bound, or no encoder
classifier   a small convolutional classifier, whose features the metrics compare; it has classify in place of sample
pca          principal components and probabilistic PCA, the linear baseline
privacy      DP-SGD's noisy gradients, and the epsilon that they promise
hmc          Hamiltonian Monte Carlo on a decoder's posterior, tempered or not
fit          the loop: compiled chunks, many seeds at once, exact resume
metrics      likelihoods, distances of features, manifolds, modes, neighbours: how good a model is
load         a trained model from its workdir: load("runs/x").sample(key, 16)
adversarial sampling losses nets layers initializers optimizer state     the pieces, for a notebook
plots logs checkpoint config model     pictures, metrics, files
convolution loop workdir checks     below layers and fit
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from vaegan_jax.model import load as load


def __getattr__(name: str) -> Any:
    # Late, so that importing the package alone does not import jax.
    if name == "load":
        from vaegan_jax.model import load

        return load
    raise AttributeError(f"module 'vaegan_jax' has no attribute {name!r}")
