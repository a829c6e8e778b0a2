"""The field's challenges, measured (what the survey article asks of VAEs and GANs)

The survey that this project began with names, for VAEs, too wide a latent space, generalisation and the quality of
samples, and for GANs collapse, unstable training and privacy. Each is a question here, with one figure and a number:
how wide the latent space should be, how much data a VAE needs, whether its samples are blurred, how often a GAN
collapses, whether a model gives its training data away. Where a paper has said it more sharply than the survey, the row
names that paper.
"""

from experiments.reproduce import challenges_blur, challenges_collapse, challenges_privacy, challenges_vae

PARTS = (*challenges_vae.PARTS, challenges_blur.PART, *challenges_collapse.PARTS, *challenges_privacy.PARTS)
