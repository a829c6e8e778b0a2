"""Figures 5 to 7: three generators, two algorithms; who fails, and who collapses?"""

import numpy as np

from experiments.reproduce import draw, samples
from experiments.reproduce import wgan_cells as cells
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained
from vaegan_jax import plots

SIDE = 6  # tiles of a grid's side


def run(job: Job) -> Outcome:
    trained = cells.train(job, [(algorithm, name) for name in cells.GENERATORS for algorithm in cells.ALGORITHMS])
    used, end, n = cells.judged(job), cells.steps(job.budget), cells.samples(job.budget)
    data = used[0]
    note = f"n = {n:,}"
    configs = {cell: cells.config(cell, cells.width(job), len(data)) for cell in trained}

    def diversity(name: str) -> Measured:
        one = trained["wgan", name]
        values = list(cells.last(one, "entropy").values())
        said = f"{note}; digits with 1 % or more: {draw.spread(list(cells.last(one, 'classes').values()))}"
        return Measured(values, one.seeds, one.failed, steps=end, config=configs["wgan", name], data=used, note=said)

    extractor, reference = cells.network(job)
    judge = samples.judge(extractor, reference)
    blank = judge(np.zeros_like(data.x[:n], np.float32))["frechet"]

    def worse(name: str, metric: str, lost: float, scale: float = 1.0) -> Measured:
        """scale times the GAN less the WGAN, with `lost` for a GAN that diverged."""
        game, reference = trained["gan", name], trained["wgan", name]
        values = [scale * v for v in cells.against(reference, game, metric, lost)]
        both, gone = (configs["gan", name], configs["wgan", name]), cells.summary({("gan", name): game})
        each = (
            f"{algorithm.upper()} {draw.spread(abs(scale) * np.array(list(cells.last(one, metric).values())))}"
            for algorithm, one in (("gan", game), ("wgan", reference))
        )
        said = "; ".join(filter(None, [note, *each, gone]))
        return Measured(values, reference.seeds, reference.failed, steps=end, config=both, data=used, note=said)

    rows = {
        "wgan_dcgan": diversity("dcgan"),
        "wgan_nobn": diversity("nobn"),
        "wgan_mlp": diversity("mlp"),
        "nobn_gan_fails": worse("nobn", "frechet", blank, 1 / blank),
        "mlp_gan_collapses": worse("mlp", "entropy", 0.0, -1.0),
    }
    lines = [
        [
            cells.GENERATORS[name], algorithm.upper(),
            *(draw.spread(list(cells.last(one, metric).values())) for metric in ("entropy", "classes", "frechet")),
            len(one.failed),
        ]
        for (algorithm, name), one in trained.items()
    ]  # fmt: skip
    real = judge(data.x[:n])
    lines.append(["training images", "-", *(draw.spread([real[m]]) for m in ("entropy", "classes", "frechet")), 0])
    table = Table(
        f"Samples after {end:,} generator iterations as {extractor.name} sees them, n = {n:,}; log 10 = 2.303. Mean "
        "+- sd over seeds.",
        ("generator", "algorithm", "entropy, nats", "digits with 1 % or more", "Frechet distance", "seeds lost to NaN"),
        lines,
    )
    _draw(job, trained)
    caption = (
        f"Figures 5 to 7 of Arjovsky, Chintala & Bottou 2017 on MNIST: samples after {end:,} generator iterations, the "
        "first seed's, not selected."
    )
    return Outcome(rows, [table], {"fig5-7.png": caption})


def _draw(job: Job, trained: dict[cells.Cell, Trained]) -> None:
    figure = plots.new_figure(8.4, 5.9)
    panels = figure.subplots(2, 3)
    for column, (name, title) in enumerate(cells.GENERATORS.items()):
        for row, algorithm in enumerate(cells.ALGORITHMS):
            axes, one = panels[row, column], trained[algorithm, name]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(title, fontsize=9)
            if column == 0:
                axes.set_ylabel(algorithm.upper(), fontsize=10)
            if one.seeds:
                axes.imshow(plots.grid(cells.pictures(one, SIDE**2, one.seeds[0]), columns=SIDE, scale=2))
            else:
                axes.text(0.5, 0.5, "all seeds diverged", ha="center", fontsize=9, transform=axes.transAxes)
    plots.render(figure, job.figures / "fig5-7.png")


def _says(budget: str) -> str:
    time = {"smoke": "a minute", "cpu": "2 hours, less what curves has done", "paper": "on a GPU, an hour"}[budget]
    return f"three generators by WGAN and GAN, {cells.steps(budget):,} iterations of 64; {time}"


PART = Part("generators", ("wgan_dcgan", "wgan_nobn", "wgan_mlp", "nobn_gan_fails", "mlp_gan_collapses"), run, _says)
