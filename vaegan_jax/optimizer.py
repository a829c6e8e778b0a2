"""An optimiser as plain data: a frozen dataclass that hashes, compares, prints, and becomes flags and JSON."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vaegan_jax.config import check_fields


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """One update rule and its schedules; every schedule counts updates, from 0.

    The learning rate at update t is
        max(learning_rate / decay**t, floor) * (1 - clip((t - linear_from) / (linear_to - linear_from), 0, 1)),
    times the factor of the last of `stages` that has begun.
    """

    rule: Literal["sgd", "adam", "adagrad", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    """Adam's beta1; the momentum of sgd and rmsprop (v <- m v - lr g, so set it to 0 for none)."""
    b2: float = 0.999
    """Adam's beta2; the averaging factor of rmsprop's squared gradient."""
    second_moment: float = 0.0
    """What Adam's average of the squared gradient begins at: above 0 it damps the first thousands of updates."""
    eps: float = 1e-8
    l2: float = 0.0
    """l2 * theta is added to every gradient (not decoupled): "weight decay" as in Theano-era code."""
    decay: float = 1.0
    floor: float = 0.0
    linear_from: int = 0
    linear_to: int = 0
    """The rate falls linearly to 0 between these updates; equal: never."""
    stages: tuple[tuple[int, float], ...] = ()
    """(update, factor): from that update on, in rising order."""
    final_momentum: float | None = None
    momentum_from: int = 1
    momentum_to: int = 250
    """sgd and rmsprop: momentum goes linearly to final_momentum between these epochs, constant within one.

    The first epoch is 1. Adam and Adagrad have no such schedule."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number above 0.")
        if not 0 <= self.momentum < 1 or not 0 <= self.b2 < 1:
            raise ValueError(f"momentum is {self.momentum} and b2 {self.b2}: give numbers in [0, 1).")
        if self.final_momentum is not None and not 0 <= self.final_momentum < 1:
            raise ValueError(f"final_momentum is {self.final_momentum}: give a number in [0, 1), or none.")
        if self.final_momentum is not None and self.momentum_to <= self.momentum_from:
            raise ValueError(
                f"momentum_from is {self.momentum_from} and momentum_to {self.momentum_to}: give a later epoch to end."
            )
        if self.eps < 0 or self.l2 < 0 or self.floor < 0:
            raise ValueError(f"eps is {self.eps}, l2 {self.l2} and floor {self.floor}: give 0 or more.")
        if self.second_moment < 0 or (self.second_moment and self.rule != "adam"):
            raise ValueError(f"second_moment is {self.second_moment} with {self.rule}: give 0 or more, and adam alone.")
        starts = [start for start, _ in self.stages]
        if starts != sorted(set(starts)) or any(start < 0 or not factor > 0 for start, factor in self.stages):
            raise ValueError(f"stages are {self.stages}: give rising updates from 0 on, and factors above 0.")
        if self.linear_to < self.linear_from:
            raise ValueError(f"linear_from is {self.linear_from} and linear_to {self.linear_to}: give a later end.")
        if self.decay < 1:
            raise ValueError(f"decay is {self.decay}: the rate is divided by it at each update, give 1 or more.")

    def rate(self, count: jax.Array) -> jax.Array:
        """Learning rate at update `count`, a float32 scalar."""
        t = jnp.asarray(count, jnp.float32)
        # A power of a number this close to 1 loses its digits in float32: go through the logarithm instead.
        log_decay = math.log(self.decay)
        rate = jnp.maximum(self.learning_rate * jnp.exp(-t * log_decay), self.floor)
        if self.linear_to > self.linear_from:
            rate *= 1 - jnp.clip((t - self.linear_from) / (self.linear_to - self.linear_from), 0, 1)
        factor = jnp.float32(1)
        for start, value in self.stages:
            factor = jnp.where(t >= start, jnp.float32(value), factor)
        return rate * factor if self.stages else rate

    def momentum_at(self, count: jax.Array, updates_per_epoch: int = 1) -> jax.Array:
        """Momentum at update `count`: pylearn2's MomentumAdjustor, which moves once an epoch."""
        if self.final_momentum is None:
            return jnp.float32(self.momentum)
        epoch = jnp.asarray(count) // updates_per_epoch + 1
        share = jnp.clip((epoch - self.momentum_from) / (self.momentum_to - self.momentum_from), 0, 1)
        return self.momentum + share * (self.final_momentum - self.momentum)

    def transformation(self, updates_per_epoch: int = 1) -> optax.GradientTransformation:
        """The rule as an optax transformation; its updates are to be added to the parameters."""
        before = [optax.add_decayed_weights(self.l2)] if self.l2 else []
        scale = optax.scale_by_learning_rate(self.rate)
        if self.rule == "adam":
            return optax.chain(*before, self._adam(), scale)
        if self.rule == "adagrad":
            return optax.chain(*before, _scale_by_adagrad(self.eps), scale)
        # eps outside the root: inside, 1e-8 would floor the root at 1e-4, above the gradients of a clipped critic.
        first = [optax.scale_by_rms(self.b2, self.eps, eps_in_sqrt=False)] if self.rule == "rmsprop" else []
        if self.momentum or self.final_momentum:
            # After the rate, as in v <- m v - lr g: a velocity keeps the rates of its own past.
            decay = functools.partial(self.momentum_at, updates_per_epoch=updates_per_epoch)
            trace = optax.inject_hyperparams(optax.trace)(decay=decay)
            return optax.chain(*before, *first, scale, trace)
        return optax.chain(*before, *first, scale)

    def _adam(self) -> optax.GradientTransformation:
        rule = optax.scale_by_adam(self.momentum, self.b2, self.eps)
        if not self.second_moment:
            return rule

        def init(params: optax.Params) -> Any:
            state: Any = rule.init(params)
            return state._replace(nu=jax.tree.map(lambda p: jnp.full_like(p, self.second_moment), state.nu))

        return optax.GradientTransformation(init, rule.update)


def _scale_by_adagrad(eps: float) -> optax.GradientTransformation:
    """g / (sqrt(sum of g^2) + eps), Duchi et al. 2011.

    optax's scale_by_rss has eps inside the root, which damps gradients below sqrt(eps), and starts its sum at 0.1.
    """

    def init(params: optax.Params) -> optax.Params:
        return jax.tree.map(jnp.zeros_like, params)

    def update(
        g: optax.Updates, total: optax.Params, _: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.Params]:
        total = jax.tree.map(lambda s, g: s + g**2, total, g)
        return jax.tree.map(lambda s, g: g / (jnp.sqrt(s) + eps), total, g), total

    return optax.GradientTransformation(init, update)
