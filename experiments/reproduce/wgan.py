"""Wasserstein GAN (Arjovsky, Chintala & Bottou 2017; Arjovsky & Bottou 2017)

Example 1 is exact: optimal transport and divergences of two parallel segments, and what nets trained at each distance
say of them. Figure 2 is two Gaussians: where does a discriminator or a critic leave a gradient? Figures 3 to 7 are of
LSUN bedrooms in the paper, up to 600,000 generator iterations; here of MNIST, an analogue with as many passes through
the data (12,000 iterations) and an own classifier in place of the eye, so their claims are judged and not their
numbers; figure 3 also by the released code's schedule, whose critic has a warm-up. Last, the vanishing gradients of
the earlier paper.
"""

from experiments.reproduce import (
    wgan_curves,
    wgan_example1,
    wgan_fig2,
    wgan_generators,
    wgan_vanishing,
    wgan_warmup,
)

PARTS = (
    wgan_example1.PART, wgan_fig2.PART, wgan_curves.PART, wgan_warmup.PART, wgan_generators.PART, wgan_vanishing.PART,
)  # fmt: skip
