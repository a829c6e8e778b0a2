"""What the papers say, run here: `python -m experiments.reproduce NAME`, and a report of published numbers and ours.

published    ../published.toml: every published number or claim, and the rule by which ours agrees; verdicts by it
job          what a target's parts are given and return; training that goes on where it was stopped
results      rows with their provenance in ../results/NAME.json
report       ../REPORT.md and the README's table, from the rows alone; questions: the README's answers
pca vae gan dcgan wgan vaegan iwae likelihood mixtures dirac challenges   one target each: PARTS, what is compared
draw         colours, lines with bands; samples: how a classifier judges them; inversion: a GAN's latents and codes
"""

TARGETS = ("pca", "vae", "gan", "dcgan", "wgan", "vaegan", "iwae", "likelihood", "mixtures", "dirac", "challenges")
BUDGETS = ("smoke", "cpu", "paper")
