"""The architecture guidelines of Radford et al. 2015, section 3, and beta1: each undone on its own, on MNIST."""

import numpy as np

from experiments.reproduce import dcgan_models as models
from experiments.reproduce import draw, samples
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from vaegan_jax import metrics
from vaegan_jax.metrics.subject import as_float

TITLES = {
    "dcgan": "all guidelines",
    "no_batchnorm": "no batch normalisation",
    "generator_tanh": "tanh instead of ReLU in the generator",
    "discriminator_relu": "ReLU instead of leaky ReLU in the discriminator",
    "beta1": "beta1 .9 instead of .5",
}


def guidelines(job: Job) -> Outcome:
    train, _, test = models.splits(job, "mnist")
    network, n = samples.network(job, "mnist"), job.choose(200, 5_000, 5_000)
    judge = samples.judge(network, metrics.statistics(network.features(test.x, progress=False)))
    trained = {variant: models.train(job, "mnist", variant) for variant in models.VARIANTS}
    # What a variant that diverged is worth: nothing to see. None is worth less, or one that diverged would be better.
    blank = judge(np.zeros((n, *test.x.shape[1:]), np.float32))["frechet"]
    frechet: dict[str, dict[int, float]] = {}
    classes: dict[str, list[float]] = {}
    lost: dict[str, list[int]] = {}
    pictures = [("MNIST", as_float(test.x[:20]))]
    for variant, one in trained.items():
        frechet[variant], classes[variant], lost[variant] = {}, [], list(one.failed)
        for seed in one.seeds:
            x = models.draws(one, seed, n)
            said = judge(x)
            if "classes" not in said:  # finite parameters, samples that are not
                lost[variant].append(seed)
                continue
            frechet[variant][seed] = said["frechet"]
            classes[variant].append(said["classes"])
            if len(classes[variant]) == 1:
                pictures.append((TITLES[variant], x[:20]))
            job.tick()
    steps, data = models.steps(job.budget), (train, test)
    found = {}
    whole, with_it = trained["dcgan"], frechet["dcgan"]
    for variant, one in list(trained.items())[1:]:
        values = [min(frechet[variant].get(s, blank), blank) - min(with_it[s], blank) for s in with_it]
        gone = f"the variant diverged: seeds {', '.join(map(str, lost[variant]))}" if lost[variant] else ""
        found[f"guideline_{variant}"] = Measured(
            values, list(with_it), lost["dcgan"], steps, (one.config(), whole.config()), data, note=gone
        )
    draw.panels(pictures, job.figures / "guidelines.png", columns=20, scale=1)
    lines = [
        [title, draw.spread(list(frechet[variant].values()), 4), draw.spread(classes[variant]), len(lost[variant])]
        for variant, title in TITLES.items()
    ]
    title = (
        f"Frechet distance of {n:,} samples to the test images ({network.name}; of blank images {blank:.4g}); classes "
        "with 1 % of them or more."
    )
    caption = f"Samples after {steps:,} steps, the first seed that did not diverge, not selected."
    columns = ("recipe", "Frechet distance", "classes", "failed seeds")
    return Outcome(found, [Table(title, columns, lines)], {"guidelines.png": caption})


PARTS = (
    Part(
        "guidelines",
        tuple(f"guideline_{variant}" for variant in list(models.VARIANTS)[1:]),
        guidelines,
        says(
            "the recipe and four variants of it",
            "10 steps each",
            "700 steps each, 25 minutes a seed",
            f"{models.PUBLISHED:,} steps each",
        ),
    ),
)
