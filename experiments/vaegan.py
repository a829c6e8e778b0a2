"""VAE/GAN, autoencoding beyond pixels. Larsen, Sonderby, Larochelle & Winther 2016, arXiv:1512.09300, on MNIST.

python -m experiments.vaegan                                algorithm 1
python -m experiments.vaegan --gan-weight 0                 the paper's "VAE with Dis_l"
python -m experiments.vaegan --balance --no-reconstructions-as-fakes      as in the authors' code, in these two

Time: about 0.4 s a step on two cores; `cpu` (1,500 steps, 1.6 epochs) 10 minutes, `paper` (150 epochs) 16 hours.
Expected: reconstructions sharper than a VAE's, at a larger pixel error; after `cpu` .011 a pixel, KL 102 nats.
"""

import sys
from collections.abc import Sequence

from experiments import common
from vaegan_jax import vaegan

SCRIPT = common.Script(
    "vaegan",
    vaegan,
    recipes={"paper": vaegan.Config},
    steps={"smoke": 10, "cpu": 1_500, "paper": 150 * 937},
)


def main(argv: Sequence[str] | None = None) -> int:
    return common.main(SCRIPT, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
