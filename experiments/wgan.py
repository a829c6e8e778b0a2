"""Wasserstein GAN. Arjovsky, Chintala & Bottou 2017, arXiv:1701.07875: algorithm 1 on DCGAN's nets for MNIST.

python -m experiments.wgan                                  RMSProp 5e-5, clip .01, five critic steps
python -m experiments.wgan --warmup                         the authors' code: 100 critic steps at first
python -m experiments.wgan --recipe gradient_penalty        Gulrajani et al. 2017, arXiv:1704.00028
python -m experiments.wgan --dataset grid                   25 Gaussians: MLPs for vectors, gradient penalty

Time: 0.65 s a step (5 of the critic, 1 of the generator) on two cores; `cpu` (2,500) 27 minutes, `paper` 18 hours.
Expected: the estimate W falls as samples improve (figure 3), slowly: that is the price of the clip. After `cpu` it is
.015 on test images, and 1,000 samples hold all ten digits, 1.4 times as far from the training images as test images.
"""

import sys
from collections.abc import Sequence

from experiments import common
from vaegan_jax import wgan

SCRIPT = common.Script(
    "wgan",
    wgan,
    recipes={"paper": wgan.Config, "gradient_penalty": wgan.gradient_penalty},
    steps={"smoke": 4, "cpu": 2_500, "paper": 100_000},
)


def main(argv: Sequence[str] | None = None) -> int:
    return common.main(SCRIPT, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
