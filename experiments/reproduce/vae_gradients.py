"""Kingma & Welling 2013, section 2: the variance of the encoder's gradient by each of the estimators."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from experiments.reproduce.vae_fig2 import DRAWS, config
from vaegan_jax import vae


def gradients(job: Job) -> Outcome:
    """Variance of the encoder's gradient over draws of z, at several points of one training, the same batch for all."""
    train = job.load("mnist")
    steps = job.choose(20, 5_000, 50_000)
    marks = tuple(sorted({max(1, steps // 50), max(1, steps // 5), steps}))
    draws = job.choose(20, DRAWS, DRAWS)
    base = dataclasses.replace(config(20), binarize="fixed")
    x = jnp.asarray(train.x[:100])

    def evaluate(config: Any, state: Any, key: jax.Array, step: int) -> dict[str, float]:
        estimators = {
            "reparameterised": base,
            "score": dataclasses.replace(base, gradient="score_function"),
            "a": dataclasses.replace(base, kl="monte_carlo"),
        }
        keys = jax.random.split(key, (len(estimators), draws))
        return {
            f"variance_{name}": float(_variance(each, state, x, keys[i]))
            for i, (name, each) in enumerate(estimators.items())
        }

    trained = job.fit("aevb", vae, config(20), train, steps=steps, evaluate=evaluate, evaluate_at=marks)
    curves = {name: trained.curve(f"variance_{name}")[1] for name in ("reparameterised", "score", "a")}
    score, sampled = (curves[name] / curves["reparameterised"] for name in ("score", "a"))
    lines = [[step, *(draw.spread(c[:, i]) for c in curves.values())] for i, step in enumerate(marks)]
    title = f"Total variance of the encoder's gradient over {draws} draws, one batch of 100, mean +- sd over seeds."
    columns = ("step", "reparameterised, analytic KL", "score function", "reparameterised, sampled KL")

    def measured(ratio: np.ndarray) -> Measured:
        """The smallest ratio of the marks, one a seed."""
        values = [float(v) for v in ratio.min(axis=1)]
        return Measured(values, trained.seeds, trained.failed, steps, trained.config(), (train,), note=f"steps {marks}")

    return Outcome(
        {"gradient_variance": measured(score), "estimator_b": measured(sampled)}, [Table(title, columns, lines)]
    )


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
        ("gradient_variance", "estimator_b"),
        gradients,
        says("variances of gradients along one training a seed", "20 steps", "5,000 steps, 2 minutes a seed", "50,000"),
        cpu_seeds=10,
    ),
)
