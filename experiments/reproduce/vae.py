"""Auto-encoding variational Bayes (Kingma & Welling 2013)

Figure 2 compares AEVB with wake-sleep on the same nets: the bound against the number of samples seen, for several
widths of the code, on MNIST and on Frey faces (a file of yours). The paper prints curves and no numbers, so what is
judged is what it says of them: AEVB is faster and ends higher in all experiments, superfluous latents do not overfit,
the estimator's variance is small. Figure 3 adds Monte Carlo EM, and judges by an estimate of the likelihood itself.
Then the two choices of section 2: the reparameterised gradient against the score function's, and the analytic KL
against a sampled one. Figures 4 and 5 are pictures of trained decoders.
"""

from experiments.reproduce.vae_fig2 import PARTS as FIGURE2
from experiments.reproduce.vae_fig3 import PARTS as FIGURE3
from experiments.reproduce.vae_gradients import PARTS as GRADIENTS
from experiments.reproduce.vae_pictures import PARTS as PICTURES

PARTS = (*FIGURE2, *FIGURE3, *GRADIENTS, *PICTURES)
