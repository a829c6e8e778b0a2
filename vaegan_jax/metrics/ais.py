"""Annealed importance sampling of log p(x) for any decoder with prior N(0, I), and bidirectional Monte Carlo's gap.

Neal 2001; Wu, Burda, Salakhutdinov & Grosse 2017, "On the quantitative analysis of decoder-based generative models".
f_t(z) = p(z) p(x | z)^beta_t, beta rising from 0 to 1 along a sigmoid. A chain starts at a draw of the prior; for each
t, log w += (beta_t - beta_{t-1}) log p(x | z), then one HMC transition that leaves f_t invariant. E[w] = p(x), so the
log of the mean weight is a stochastic lower bound. The reverse chain starts at an exact posterior sample and for each
t, falling, has the transition first and the increment after it; there E[1 / w] = 1 / p(x), and minus the log of the
mean of 1 / w is an upper bound (Grosse et al. 2015).

Steps adapt to an acceptance of .65 within Wu et al.'s bounds, [1e-4, .5], but not as theirs, where a chain's step is
multiplied by 1.02 or .98 after its own transition: that breaks E[w] = p(x), and is too slow for some hundreds of
distributions (at 500, after a warm-up, a linear decoder of noise variance .1 came out 38 nats low). Here an example's
step follows a few pilot chains, which carry no weight: given the pilots, the others' transitions are exactly invariant.
The reverse chains adapt nothing. They take the forward run's step of each distribution, which owes nothing to the
posterior sample that they start at.
The sharper the decoder, the more distributions: at noise variance .1 (12 features, 5 latents) 500 come within .1 nat;
at .05 (20 features) they are .16 low and 2,000 are .03 low.

Shapes: B examples, C chains for each (forward, the pilots come before them), K latents, T distributions.

One compiled program for each direction runs any block of distributions, and distribution t takes fold_in(key, t): the
block's length changes nothing, to the last bit. With `workdir` the chains are saved after each block and a second call
goes on.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from vaegan_jax import hmc, logs
from vaegan_jax.metrics import inputs
from vaegan_jax.metrics.annealed import File, State
from vaegan_jax.metrics.likelihood import LogLikelihood, as_argument, check_examples, check_key, check_log_likelihood

# Chains (times examples) that go through the decoder at once, with its gradient: on a CPU, and on an accelerator.
ROWS, ROWS_ELSEWHERE = 2_000, 10_000
_WARMUP = 0.5  # the rate of adaptation there: from .01 to .5 in 23 transitions


@dataclasses.dataclass(frozen=True, eq=False)
class Sandwich:
    """Bidirectional Monte Carlo on simulated examples: lower <= log p(x) <= upper in expectation, nats."""

    x: jax.Array  # [n, ...]
    lower: jax.Array  # [n]
    upper: jax.Array  # [n]

    @property
    def gap(self) -> jax.Array:
        """[n]: bounds the error of either, up to Monte Carlo noise."""
        return self.upper - self.lower


@dataclasses.dataclass(frozen=True)
class _Run:
    """How the chains run; what does not change their values is `block`, `rows`, `workdir` and `progress`."""

    latents: int
    chains: int
    pilots: int
    distributions: int
    leapfrogs: int
    step: float
    warmup: int
    block: int
    rows: int
    workdir: str | Path | None
    progress: bool

    def __post_init__(self) -> None:
        for name in ("latents", "chains", "pilots", "leapfrogs", "block", "rows"):
            inputs.count(name, getattr(self, name), 1)
        inputs.count("distributions", self.distributions, 2)
        inputs.count("warmup", self.warmup, 0)
        if not isinstance(self.step, int | float) or not hmc.SHORTEST <= self.step <= hmc.LONGEST:
            raise ValueError(f"step is {self.step}: give a length between {hmc.SHORTEST} and {hmc.LONGEST}.")


def rows_at_once(rows: int | None) -> int:
    """What a caller's `rows` means."""
    if rows is None:
        return ROWS if jax.default_backend() == "cpu" else ROWS_ELSEWHERE
    return rows


def schedule(distributions: int, *, radius: float = 4.0) -> np.ndarray:
    """beta_t [T], float64: a sigmoid over [-radius, radius], moved and scaled to start at 0 and end at 1.

    Wu et al. 2017's released code. Raises ValueError for fewer than 2 distributions and a radius not above 0.
    """
    inputs.count("distributions", distributions, 2)
    if not 0 < radius < 50:
        raise ValueError(f"radius is {radius}: give a number above 0 and below 50.")
    curve = 1 / (1 + np.exp(-np.linspace(-radius, radius, distributions)))
    betas = (curve - curve[0]) / (curve[-1] - curve[0])
    betas[-1] = 1.0
    return betas


def ais_log_likelihood(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    key: jax.Array,
    *,
    latents: int,
    chains: int = 16,
    distributions: int = 1000,
    leapfrogs: int = 10,
    pilots: int = 4,
    step: float = 0.01,
    warmup: int = 50,
    block: int = 50,
    rows: int | None = None,
    workdir: str | Path | None = None,
    progress: bool = True,
) -> jax.Array:
    """A stochastic lower bound on log p(x) of each example: [B], nats, tighter with more distributions and chains.

    Args:
        log_likelihood: log p(x | z), called with z [B, K] and x, differentiable in z and finite.
        x: [B, ...] floating point as the model sees it. Memory grows with B: give a test set in batches.
        latents: K.
        chains: weighted chains for each example.
        distributions: T, those at beta 0 and 1 included.
        leapfrogs: in each transition, of which each distribution has one.
        pilots: chains for each example beside them, without weight, whose mean acceptance sets the example's step.
        step: where the steps start, in [1e-4, .5].
        warmup: transitions at the first beta above 0 that adapt the steps and are then thrown away: without, a step is
            far from right for the first of the distributions.
        block: distributions in each call of the compiled program; after each, the state is saved.
        rows: how many chains times examples go through the decoder at once, B at least. None: 2,000 on a CPU, 10,000
            on an accelerator.
        workdir: where ais.npz keeps the chains and each distribution's steps [T, B]. Called again with the same
            arguments, the run goes on from it, or returns at once if it had ended. Another problem's file is refused.
        progress: whether what takes long is reported on stderr (`logs.steps`).

    Raises ValueError for settings outside their range, x that is not floating point or has NaN or infinity, a raw key,
    a log_likelihood of another shape or not finite under the prior, and a workdir that holds another run.
    """
    run = _Run(
        latents, chains, pilots, distributions, leapfrogs, step, warmup, block, rows_at_once(rows), workdir, progress
    )
    x = check_examples(x)
    check_key(key)
    check_log_likelihood(log_likelihood, x, latents)
    start_key, key = jax.random.split(key)
    z = jax.random.normal(start_key, (pilots + chains, len(x), latents))
    return _log_mean(_anneal(run, log_likelihood, x, z, key, "ais").log_weight[pilots:])


def bdmc_gap(
    log_likelihood: LogLikelihood,
    simulate: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    *,
    latents: int,
    n: int,
    **settings: Any,
) -> jax.Array:
    """Upper minus lower bound on log p(x) of n simulated examples: [n], nats. See `bdmc`."""
    return bdmc(log_likelihood, simulate, key, latents=latents, n=n, **settings).gap


def bdmc(
    log_likelihood: LogLikelihood,
    simulate: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    *,
    latents: int,
    n: int,
    chains: int = 16,
    reverse_chains: int | None = None,
    distributions: int = 1000,
    leapfrogs: int = 10,
    pilots: int = 4,
    step: float = 0.01,
    warmup: int = 50,
    block: int = 50,
    rows: int | None = None,
    workdir: str | Path | None = None,
    progress: bool = True,
) -> Sandwich:
    """Both bounds on log p(x) of n examples that the model itself made. Grosse et al. 2015; Wu et al. 2017, section 3.

    z ~ N(0, I), x = simulate(key, z [n, K]) ~ p(x | z), so z is an exact sample of p(z | x): the reverse chains of an
    example all start there. The lower bound comes first, and the reverse chains take the steps that it found: those
    depend on x alone. log_likelihood must be the density of what simulate draws, or the bounds are of nothing.
    reverse_chains: for each example; None: as many as `chains`. Fewer give a looser (higher) upper bound; Wu et al.'s
    released code uses one. Other settings and errors as ais_log_likelihood's; `workdir` gets lower.npz and upper.npz.
    """
    inputs.count("n", n, 1)
    reverse_chains = chains if reverse_chains is None else reverse_chains
    inputs.count("reverse_chains", reverse_chains, 1)
    check_key(key)
    run = _Run(
        latents, chains, pilots, distributions, leapfrogs, step, warmup, block, rows_at_once(rows), workdir, progress
    )
    z_key, x_key, start_key, lower_key, upper_key = jax.random.split(key, 5)
    z = jax.random.normal(z_key, (n, latents))
    x = simulate(x_key, z)
    if np.shape(x)[:1] != (n,):
        raise ValueError(
            f"simulate returns shape {np.shape(x)}: [{n}, ...] is expected, one example for each row of z."
        )
    x = check_examples(x)
    check_log_likelihood(log_likelihood, x, latents)
    prior = jax.random.normal(start_key, (pilots + chains, n, latents))
    forward = _anneal(run, log_likelihood, x, prior, lower_key, "lower")
    posterior = jnp.broadcast_to(z[None], (reverse_chains, n, latents))
    reverse = _anneal(run, log_likelihood, x, posterior, upper_key, "upper", forward.steps)
    return Sandwich(x, _log_mean(forward.log_weight[pilots:]), -_log_mean(-reverse.log_weight))


def _log_mean(log_weight: jax.Array) -> jax.Array:
    """log of the mean weight over chains [C, B]: [B]."""
    double = np.asarray(log_weight, np.float64)
    return jnp.asarray(logsumexp(double, axis=0) - np.log(len(double)), jnp.float32)


def _anneal(
    run: _Run,
    log_likelihood: LogLikelihood,
    x: jax.Array,
    z: jax.Array,
    key: jax.Array,
    name: str,
    replayed: jax.Array | None = None,
) -> State:
    """The state after all distributions, forward from draws of the prior z [pilots + C, B, K].

    With `replayed`, the steps [T, B] of such a run, it is the reverse run, from posterior samples z [C, B, K].
    """
    warm_key, run_key = jax.random.split(key)
    log_likelihood = as_argument(log_likelihood)
    start = _start(log_likelihood, x, z, rows=run.rows)
    if not bool(jnp.isfinite(start.log_likelihood).all()):
        raise ValueError(
            "log_likelihood is NaN or infinite at a starting point of the chains: it must be finite wherever z is; "
            "check the model's parameters, and that x lies in the range that it models."
        )
    settings = np.array([run.distributions, run.pilots, run.leapfrogs, run.warmup, run.step])
    parts = [x, z, jax.random.key_data(key), settings, *([] if replayed is None else [replayed])]
    file = None if run.workdir is None else File.of(Path(run.workdir) / f"{name}.npz", parts, start)
    betas = schedule(run.distributions)
    temperatures = jnp.asarray(betas, jnp.float32)
    increments = jnp.asarray(np.diff(betas), jnp.float32)  # the differences in float64: they are small
    fixed = {"pilots": run.pilots, "leapfrogs": run.leapfrogs, "rows": run.rows}
    backwards = replayed is not None
    found = file.read() if file else None
    if found is not None:
        index, state = found
    else:
        steps = replayed
        if steps is None:
            # The steps that fit the first transitions; the chains themselves stay at their exact starts.
            first = jnp.full(len(x), run.step, jnp.float32)
            first = _warm(log_likelihood, x, start, first, temperatures[1], warm_key, run.warmup, **fixed)
            steps = jnp.zeros((len(betas), len(x))).at[0].set(first)
        index, state = 0, State(start, steps, jnp.zeros(z.shape[:2]))
    total = len(increments)
    starts = range(index, total, run.block)
    with logs.quiet(not run.progress):
        for i in logs.steps(len(starts), f"{name}, blocks of {run.block} distributions"):
            end = min(starts[i] + run.block, total)
            state = _advance(
                log_likelihood, x, state, temperatures, increments, run_key, starts[i], end, backwards=backwards,
                **fixed,
            )  # fmt: skip
            jax.block_until_ready(state)
            if file:
                file.write(end, state)
    return state


@functools.partial(jax.jit, static_argnames="rows")
def _start(log_likelihood: LogLikelihood, x: jax.Array, z: jax.Array, *, rows: int) -> hmc.Chains:
    return hmc.start(hmc.evaluator(log_likelihood, x, rows), z)


def _move(
    evaluate: hmc.Evaluate, chains: hmc.Chains, steps: jax.Array, beta: jax.Array, key: jax.Array, leapfrogs: int
) -> hmc.Chains:
    """One transition of all chains with their example's step."""
    each = jnp.broadcast_to(steps[None], chains.log_likelihood.shape)
    return hmc.transition(evaluate, chains, beta, each, key, leapfrogs=leapfrogs)


@functools.partial(jax.jit, static_argnames=("pilots", "leapfrogs", "rows"))
def _warm(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    chains: hmc.Chains,
    steps: jax.Array,
    beta: jax.Array,
    key: jax.Array,
    transitions: jax.Array,
    *,
    pilots: int,
    leapfrogs: int,
    rows: int,
) -> jax.Array:
    """The steps [B] after some transitions of the pilots at beta."""
    evaluate = hmc.evaluator(log_likelihood, x, rows)

    def move(t: jax.Array, state: tuple[hmc.Chains, jax.Array]) -> tuple[hmc.Chains, jax.Array]:
        chains, steps = state
        chains = _move(evaluate, chains, steps, beta, jax.random.fold_in(key, t), leapfrogs)
        return chains, hmc.adapt(steps, chains.acceptance.mean(axis=0), rate=_WARMUP)

    only = hmc.Chains(*(value[:pilots] for value in chains))
    return jax.lax.fori_loop(0, transitions, move, (only, steps))[1]


@functools.partial(jax.jit, static_argnames=("backwards", "pilots", "leapfrogs", "rows"))
def _advance(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    state: State,
    betas: jax.Array,
    increments: jax.Array,
    key: jax.Array,
    first: jax.Array,
    end: jax.Array,
    *,
    backwards: bool,
    pilots: int,
    leapfrogs: int,
    rows: int,
) -> State:
    """The state after the increments first..end-1; their bounds are traced, so that one program serves all blocks.

    Backwards, where no chain is a pilot: from the last increment on, what the forward run did undone. (An HMC
    transition is its own reversal.)
    """
    evaluate = hmc.evaluator(log_likelihood, x, rows)

    def forward(t: jax.Array, state: State) -> State:
        log_weight = state.log_weight + increments[t] * state.chains.log_likelihood
        chains = _move(evaluate, state.chains, state.steps[t], betas[t + 1], jax.random.fold_in(key, t), leapfrogs)
        adapted = hmc.adapt(state.steps[t], chains.acceptance[:pilots].mean(axis=0))
        return State(chains, state.steps.at[t + 1].set(adapted), log_weight)

    def reverse(done: jax.Array, state: State) -> State:
        t = len(increments) - 1 - done
        chains = _move(evaluate, state.chains, state.steps[t], betas[t + 1], jax.random.fold_in(key, t), leapfrogs)
        return State(chains, state.steps, state.log_weight + increments[t] * chains.log_likelihood)

    return jax.lax.fori_loop(first, end, reverse if backwards else forward, state)
