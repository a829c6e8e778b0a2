"""Kingma & Welling 2013, section 2: the variance of the estimators, of the bound and of the encoder's gradient."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, flat, says
from vaegan_jax import vae

DRAWS = 200  # of the noise, for each variance


def gradients(job: Job) -> Outcome:
    """Variance of the encoder's gradient over draws of z, at several points of one training, the same batch for all."""
    train = job.load("mnist")
    steps = job.choose(20, 50_000, 1_000_000)
    late = (round(steps * share) for share in (0.8, 0.85, 0.9, 0.95, 1.0))  # whether a ratio has gone flat
    marks = tuple(sorted({*(max(1, steps // n) for n in (500, 50, 10, 5)), *late}))
    draws = job.choose(20, DRAWS, DRAWS)
    base = dataclasses.replace(vae.Config(), binarize="fixed")
    x = jnp.asarray(train.x[:100])

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        estimators = {
            "reparameterised": base,
            "score": dataclasses.replace(base, gradient="score_function"),
            "a": dataclasses.replace(base, kl="monte_carlo"),
        }
        keys = jax.random.split(key, (len(estimators) + 2, draws))
        found = {
            f"variance_{name}": float(_variance(each, state, x, keys[i]))
            for i, (name, each) in enumerate(estimators.items())
        }
        bounds = {"bound_a": (estimators["a"], keys[-2]), "bound_b": (base, keys[-1])}
        return found | {
            f"variance_{name}": float(bound_variance(each, state, x, k)[0]) for name, (each, k) in bounds.items()
        }

    trained = job.fit("aevb", vae, vae.Config(), train, steps=steps, evaluate=evaluate, evaluate_at=marks)
    names = ("reparameterised", "score", "a", "bound_b", "bound_a")
    curves = {name: trained.curve(f"variance_{name}")[1] for name in names}
    score, sampled = (curves[name] / curves["reparameterised"] for name in ("score", "a"))
    of_bound = curves["bound_a"] / curves["bound_b"]
    lines = [
        [f"{step:,}", *(draw.spread(c[:, i]) for c in curves.values())]
        for i, step in enumerate(marks if trained.seeds else ())
    ]
    title = (
        f"Total variance over {draws} draws of z, one batch of 100, mean +- sd over seeds: of the encoder's gradient, "
        "and of the batch's mean bound (nats squared)."
    )
    columns = (
        "step", "gradient, B: analytic KL", "gradient, score function", "gradient, A: sampled KL", "bound, B",
        "bound, A",
    )  # fmt: skip

    def measured(ratio: np.ndarray, values: np.ndarray) -> Measured:
        """values: what the ratios of the marks, [S, T], become, one a seed."""
        said = [
            f"step {step:,}: {draw.spread(r)}, smallest {min(r):.3g}"
            for step, r in zip(marks, ratio.T, strict=False)
            if len(r)
        ]
        return Measured(
            [float(v) for v in values], trained.seeds, trained.failed, steps, trained.config(), (train,),
            flat=bool(len(ratio)) and flat(np.asarray(marks), ratio / ratio[:, -1].mean(), tolerance=0.1),
            note="; ".join(said),
        )  # fmt: skip

    rows = {
        "gradient_variance": measured(score, score.min(axis=1)),
        "estimator_b": measured(sampled, sampled[:, -1]),
        "estimator_b_bound": measured(of_bound, of_bound[:, -1]),
    }
    return Outcome(rows, [Table(title, columns, lines)])


@functools.partial(jax.jit, static_argnums=0)
def bound_variance(config: vae.Config, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Over the keys [draws], of the bounds of x [B, *shape]: of their mean, and of one image's, mean over x; nats^2."""
    bounds = jax.lax.map(lambda key: vae.elbo(config, state, {"x": x}, key)["elbo"], keys)
    return bounds.mean(axis=1).var(ddof=1), bounds.var(axis=0, ddof=1).mean()


@functools.partial(jax.jit, static_argnums=0)
def _variance(config: vae.Config, state: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
    """Summed over the encoder's parameters: the variance of -grad of the bound over the keys, [draws] -> scalar.

    A step of plain descent at rate 1 moves the parameters by the gradient, so the step itself is what is measured.
    """
    unit = dataclasses.replace(config, optimizer=_UNIT, weight_prior=False)
    model = dataclasses.replace(state.model, opt_state=_UNIT.transformation().init(state.model.params))
    plain = dataclasses.replace(state, model=model)

    def gradient(key: jax.Array) -> Any:
        after, _ = vae.train_step(unit, plain, {"x": x}, key)
        return jax.tree.map(lambda a, b: a - b, plain.model.params["encoder"], after.model.params["encoder"])

    def add(sums: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
        g = gradient(key)
        return (jax.tree.map(jnp.add, sums[0], g), jax.tree.map(lambda s, g: s + g**2, sums[1], g)), None

    zero = jax.tree.map(jnp.zeros_like, state.model.params["encoder"])
    (first, second), _ = jax.lax.scan(add, (zero, zero), keys)
    n = keys.shape[0]
    spread = jax.tree.map(lambda m, s: (s - m**2 / n).sum() / (n - 1), first, second)
    return jnp.stack(jax.tree.leaves(spread)).sum()


_UNIT = dataclasses.replace(vae.Config().optimizer, rule="sgd", learning_rate=1.0, momentum=0.0)


PARTS = (
    Part(
        "gradients",
        ("gradient_variance", "estimator_b", "estimator_b_bound"),
        gradients,
        says(
            "variances of gradients along one training a seed",
            "20 steps",
            "50,000 steps, 5 minutes a seed",
            "1,000,000",
        ),
        cpu_seeds=10,
        first_seed=10,
    ),
)
