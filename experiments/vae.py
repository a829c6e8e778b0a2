"""Auto-encoding variational Bayes. Kingma & Welling 2013, arXiv:1312.6114.

python -m experiments.vae                                   Adagrad, 784-500-20 tanh, MAP prior: section 5 of the paper
python -m experiments.vae --recipe adam --steps 6000        Adam 1e-3, no prior on the weights: 10 epochs
python -m experiments.vae --latents 2 --workdir runs/vae-2  draws the manifold of figure 4
python -m experiments.vae --recipe frey --dataset frey_faces --data-dir FOLDER

Time: about 4.5 ms a step on two cores; `cpu` 2 minutes, `paper` (1e8 samples, the end of figure 2) 75 minutes.
Expected: test ELBO of `--recipe adam` after 10 epochs above -105 nats; figure 2 ends between -100 and -110.
"""

import dataclasses
import sys
from collections.abc import Sequence

import flax.linen as nn

from experiments import common
from vaegan_jax import nets, vae
from vaegan_jax.optimizer import Optimizer


def adam() -> vae.Config:
    """The same nets by Adam, with Glorot's initialisation and without the prior on the weights."""
    return dataclasses.replace(
        vae.Config(),
        encoder=nets.MLPEncoder(hidden=(500,), activation=nn.tanh),
        decoder=nets.MLPDecoder(hidden=(500,), activation=nn.tanh),
        weight_prior=False,
        optimizer=Optimizer(rule="adam", learning_rate=1e-3),
    )


def frey() -> vae.Config:
    """Figure 2's nets for Frey faces: 200 hidden units, a Gaussian with sigmoid means and learned variances."""
    return dataclasses.replace(
        vae.Config(),
        latents=10,
        encoder=vae.aevb(nets.MLPEncoder, 200),
        decoder=vae.aevb(nets.MLPDecoder, 200),
        likelihood="gaussian",
    )


SCRIPT = common.Script(
    "vae",
    vae,
    recipes={"paper": vae.Config, "adam": adam, "frey": frey},
    steps={"smoke": 20, "cpu": 30_000, "paper": 1_000_000},
)


def main(argv: Sequence[str] | None = None) -> int:
    return common.main(SCRIPT, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
