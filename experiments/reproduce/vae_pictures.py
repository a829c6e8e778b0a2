"""Figures 4 and 5 of Kingma & Welling 2013: what decoders of a few latents draw."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.reproduce import draw, vae_rate
from experiments.reproduce.job import Job, Outcome, Part, says
from experiments.reproduce.vae_fig2 import FREY, MNIST, Panels
from vaegan_jax import plots, vae
from vaegan_jax.data.dataset import Dataset

LATENTS = (2, 5, 10, 20)


def pictures(job: Job) -> Outcome:
    """Of the first seed; no rows."""
    train = job.load("mnist")
    decoders = {k: decode for k in LATENTS if (decode := _decoder(job, MNIST, k, train))}
    drawn = {}
    if 2 in decoders:
        plots.manifold(decoders[2], job.figures / "figure4.png")
        drawn["figure4.png"] = (
            "Figure 4, MNIST: the manifold of a two-dimensional code, the unit square through the Gaussian's inverse "
            f"distribution function; {_after(job, MNIST)}."
        )
    if decoders:
        blocks = [
            (f"{k} latents", np.asarray(decode(jax.random.normal(jax.random.key(0), (60, k)))))
            for k, decode in decoders.items()
        ]
        draw.panels(blocks, job.figures / "figure5.png", columns=20)
        drawn["figure5.png"] = (
            f"Figure 5: the decoder's means at draws of the prior, not selected; {_after(job, MNIST)}."
        )
    return Outcome({}, figures=drawn)


def frey(job: Job) -> Outcome:
    """Figure 4's other half."""
    decode = _decoder(job, FREY, 2, job.load("frey_faces"))
    if decode is None:
        return Outcome({})
    plots.manifold(decode, job.figures / "figure4_frey.png", scale=2)
    caption = f"Figure 4, Frey faces: the manifold of a two-dimensional code; {_after(job, FREY)}."
    return Outcome({}, figures={"figure4_frey.png": caption})


def _after(job: Job, panels: Panels) -> str:
    return f"after {panels.steps(job.budget):,} steps, first seed"


def _decoder(job: Job, panels: Panels, latents: int, train: Dataset) -> Callable[[Any], Any] | None:
    """E[x | z] of the first seed's training; None if that diverged after the rate was chosen."""
    name = f"latents{latents}"
    config = vae_rate.chosen(job, name, vae, panels.config(latents), train)
    one = job.fit(name, vae, config, train, steps=panels.steps(job.budget), seeds=job.seeds[:1])
    return functools.partial(vae.decode, one.config(), one.state(one.seeds[0])) if one.seeds else None


PARTS = (
    Part(
        "pictures",
        (),
        pictures,
        says("four decoders of the first seed", "20 steps", "50,000 steps each, 25 minutes", "1,000,000 steps each"),
    ),
    Part(
        "pictures_frey",
        (),
        frey,
        says("a decoder of two latents on Frey faces (--data-dir)", "20 steps", "10,000 steps, a minute", "1,000,000"),
    ),
)
