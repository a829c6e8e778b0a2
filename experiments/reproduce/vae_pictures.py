"""Figures 4 and 5 of Kingma & Welling 2013: what decoders of a few latents draw."""

import functools
from typing import Any

import jax
import numpy as np

from experiments.reproduce.job import Job, Outcome, Part, says
from experiments.reproduce.vae_fig2 import FREY, config
from vaegan_jax import plots, vae

LATENTS = (2, 5, 10, 20)


def pictures(job: Job) -> Outcome:
    """Of the first seed; no rows."""
    train = job.load("mnist")
    steps = job.choose(20, 10_000, 1_000_000)
    blocks = []
    for latents in LATENTS:
        one = job.fit(f"latents{latents}", vae, config(latents), train, steps=steps, seeds=job.seeds[:1])
        if not one.seeds:
            continue
        decode = functools.partial(vae.decode, one.config(), one.state(one.seeds[0]))
        if latents == 2:
            plots.manifold(decode, job.figures / "figure4.png")
        blocks.append(np.asarray(decode(jax.random.normal(jax.random.key(0), (20, latents)))))
    plots.grid(np.concatenate(blocks), job.figures / "figure5.png", columns=20, scale=1)
    captions = {
        "figure4.png": "Figure 4, MNIST: the manifold of a two-dimensional code, the unit square through the "
        "Gaussian's inverse distribution function.",
        "figure5.png": f"Figure 5: the decoder's means at draws of the prior; rows: {LATENTS} latents.",
    }
    return Outcome({}, figures=captions)


def frey(job: Job) -> Outcome:
    """Figure 4's other half."""
    train = job.load("frey_faces")
    steps = job.choose(20, 10_000, 1_000_000)
    one: Any = job.fit("latents2", vae, FREY.config(2), train, steps=steps, seeds=job.seeds[:1])
    if not one.seeds:
        return Outcome({})
    decode = functools.partial(vae.decode, one.config(), one.state(one.seeds[0]))
    plots.manifold(decode, job.figures / "figure4_frey.png")
    return Outcome({}, figures={"figure4_frey.png": "Figure 4, Frey faces: the manifold of a two-dimensional code."})


PARTS = (
    Part(
        "pictures",
        (),
        pictures,
        says("four decoders of the first seed", "20 steps", "10,000 steps each, 5 minutes", "1,000,000 steps each"),
    ),
    Part(
        "pictures_frey",
        (),
        frey,
        says("a decoder of two latents on Frey faces (--data-dir)", "20 steps", "10,000 steps, a minute", "1,000,000"),
    ),
)
