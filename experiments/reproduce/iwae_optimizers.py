"""Burda et al. 2015: the text's Adam beside the released code's, on two of Table 1's models."""

import dataclasses

from experiments.reproduce import draw
from experiments.reproduce import iwae_models as models
from experiments.reproduce.job import Job, Outcome, Part, over_seeds, says
from vaegan_jax import plots

CODE = tuple(model for model in models.MODELS["one"] if model.name in ("vae_1", "iwae_5"))
LABELS = {"vae_1": ("VAE, k = 1", draw.RED), "iwae_5": ("IWAE, k = 5", draw.BLUE)}


def optimizers(job: Job) -> Outcome:
    """Each model by both, all else equal."""
    both = {code: dataclasses.replace(code, name=f"{code.name}-text", text=True) for code in CODE}
    every = [model for pair in both.items() for model in pair]
    trained = {model.name: models.train(job, model) for model in every}
    found = {
        model.name: {seed: models.measure(job, model, trained[model.name], seed) for seed in trained[model.name].seeds}
        for model in every
    }
    figure = plots.new_figure(5.4, 3.4)
    axes = figure.subplots()
    rows = {}
    for code, text in both.items():
        error = draw.paired_error(found[text.name], found[code.name], "nll_each")
        rows[f"text_{code.name}"] = over_seeds(
            trained, found, lambda text, code: text["nll"] - code["nll"], text.name, code.name,
            steps=models.steps(job.budget), data=models.data(job),
            note=f"standard error of the paired difference over images {error}",
        )  # fmt: skip
        name, colour = LABELS[code.name]
        for model, whose, style in ((code, "code", "-"), (text, "text", "--")):
            curve = trained[model.name].curve(f"validation_{model.bound}")
            draw.band(axes, *curve, colour, f"{name}, the {whose}'s Adam", linestyle=style)
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
