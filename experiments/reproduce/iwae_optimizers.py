"""Burda et al. 2015: the text's Adam beside the released code's, on two of Table 1's models."""

import dataclasses

from experiments.reproduce import draw
from experiments.reproduce import iwae_models as models
from experiments.reproduce.job import Job, Outcome, Part, over_seeds, says
from vaegan_jax import plots

COLOURS = {"vae_1": draw.RED, "iwae_5": draw.BLUE}
CODE = tuple(model for model in models.MODELS["one"] if model.name in COLOURS)


def optimizers(job: Job) -> Outcome:
    """Each model by both, all else equal."""
    both = {code: dataclasses.replace(code, name=f"{code.name}-text", text=True) for code in CODE}
    every = [model for pair in both.items() for model in pair]
    trained, found = models.train_and_measure(job, every)
    figure = plots.new_figure(5.4, 3.4)
    axes = figure.subplots()
    rows = {}
    for code, text in both.items():
        rows[f"text_{code.name}"] = over_seeds(
            trained, found, models.worse, text.name, code.name,
            steps=models.steps(job.budget), data=models.data(job),
            note=models.paired(found[text.name], found[code.name]),
        )  # fmt: skip
        for model, whose, style in ((code, "code", "-"), (text, "text", "--")):
            curve = trained[model.name].curve(f"validation_{model.bound}")
            label = f"{models.label(code.name)}, the {whose}'s Adam"
            draw.band(axes, *curve, COLOURS[code.name], label, linestyle=style)
    axes.set(xlabel="steps", ylabel="bound, validation images, nats")
    axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)  # of no seeds, no warning
    plots.clean(axes)
    plots.render(figure, job.figures / "optimizers.png")
    caption = (
        "The bound that each model climbs, one layer, by the text's Adam and by the released code's, on the 400 "
        "validation images, mean and range over seeds."
    )
    curves = {model.name: trained[model.name].record(f"validation_{model.bound}") for model in every}
    return Outcome(rows, figures={"optimizers.png": caption}, curves=curves)


PART = Part(
    "optimizers",
    ("text_vae_1", "text_iwae_5"),
    optimizers,
    says(
        "the text's Adam beside the released code's, one layer", "10 steps",
        "38,740 steps each (13 epochs), some 8 minutes a seed", "9,774,400 steps each",
    ),
)  # fmt: skip
