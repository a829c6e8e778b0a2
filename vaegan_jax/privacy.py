"""Differential privacy: what a step of DP-SGD does to gradients, and what many of them promise together.

A mechanism is (epsilon, delta)-private if one example more or less in its data changes the probability of any outcome
by a factor of at most exp(epsilon), but for delta. Only what is made from private gradients is private: a run's metrics
are not, and several runs on the same data spend several epsilons. The noise hangs on the run's seed, which config.json
names: keep it to yourself. The number of examples counts as known to everybody.
"""

import math
from typing import Any

import jax
import numpy as np
import optax
from scipy.special import gammaln, logsumexp, xlog1py, xlogy

ORDERS = np.arange(2, 257)
"""Of the Renyi divergences that `epsilon` takes the best of."""


def aggregate(gradients: Any, clip: float, noise: float, key: jax.Array) -> Any:
    """The private mean of gradients, leaves [B, ...] of one tree: Abadi et al. 2016, algorithm 1.

    Each example's gradient is scaled down to a norm of at most `clip`, and their sum gets N(0, (noise clip)^2) on every
    entry before it is divided by B.
    """
    rule = optax.contrib.differentially_private_aggregate(clip, noise, key)
    found, _ = rule.update(gradients, rule.init(None))
    return found


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """The epsilon of `steps` private steps, each on every example with probability `rate`, for a delta.

    Renyi divergences of the sampled Gaussian mechanism at integer orders (Mironov, Talwar & Zhang 2019, section 3.3),
    which add up over steps, turned into epsilon by Canonne, Kamath & Steinke 2020, proposition 12. One example more or
    less is what the neighbouring data differ by. Batches of one size cut from a shuffled epoch, as `fit` takes them,
    are treated as if they had been drawn so: everybody does, and it is no proof.

    Raises:
        ValueError: noise not above 0, a rate outside of [0, 1], a negative number of steps, a delta outside of (0, 1).
    """
    if not 0 < noise < math.inf:
        raise ValueError(f"noise is {noise}: give a number above 0; without noise nothing is private.")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}: give the share of the data in a batch, from 0 to 1.")
    if steps < 0:
        raise ValueError(f"steps is {steps}: give 0 or more.")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}: give a number between 0 and 1.")
    if not steps or not rate:
        return 0.0
    divergences = steps * np.array([_divergence(noise, rate, int(order)) for order in ORDERS])
    found = divergences + np.log1p(-1 / ORDERS) - np.log(delta * ORDERS) / (ORDERS - 1)
    return max(0.0, float(found.min()))


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The noise, .05 or more, with which `steps` private steps spend the epsilon `target`. The others as there.

    Raises:
        ValueError: those of `epsilon`, or a target that no noise reaches with ORDERS.
    """
    low, high = 0.05, 1e4
    least = epsilon(high, rate, steps, delta)
    if not least < target < math.inf:
        raise ValueError(f"target is {target}: give an epsilon above {least:.3g}, which is what any noise spends here.")
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon(middle, rate, steps, delta) < target else (middle, high)
    return high


def _divergence(noise: float, rate: float, order: int) -> float:
    """The Renyi divergence of integer order a between N(0, s^2) and (1 - q) N(0, s^2) + q N(1, s^2), nats.

    (1 / (a - 1)) log sum over k of (a choose k) (1 - q)^(a - k) q^k exp((k^2 - k) / 2 s^2).
    """
    k = np.arange(order + 1)
    choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = choose + xlog1py(order - k, -rate) + xlogy(k, rate) + (k**2 - k) / (2 * noise**2)
    return float(logsumexp(terms) / (order - 1))
