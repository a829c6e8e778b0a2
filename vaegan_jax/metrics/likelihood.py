"""Importance-weighted estimates of log p(x) for any decoder and proposal, the ELBO's terms, active units.

L_k = log (1/k) sum_i p(x, z_i) / q(z_i | x), z_i ~ q, is a lower bound on log p(x) in expectation that rises with k
(Burda et al. 2015, eq. 8 and theorem 1). Any k in the memory of one block: the sum is a running log-sum-exp. Draw i
takes fold_in(key, i), so the block's size changes rounding alone. Shapes: B batch, K latents, k samples.

A callable is compiled once for each shape of its arguments and kept: give the same function for every batch. Of a
functools.partial, JAX's arrays are arguments of the program: one program serves every seed and state of a model. What
a closure holds are constants of its own program. What takes long is reported on stderr (logs.steps).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import logs, losses
from vaegan_jax.metrics import inputs

LogLikelihood = Callable[[jax.Array, jax.Array], jax.Array]
"""log p(x | z): z [B, K], x [B, ...] -> [B], row by row, differentiable in z; functools.partial(vae.log_likelihood,
config, state) is one."""
LogWeight = Callable[[jax.Array, jax.Array], jax.Array]
"""key, x [B, ...] -> log p(x, z) - log q(z | x) of one draw z ~ q for each example [B]."""
ROWS = 2000  # draws (examples times samples) that go through the decoder at once
PARTS = 20  # that the draws are made in, if they fill as many blocks: between two, progress may be reported
_MOST = 10**9  # draws are counted in int32 on the device


def importance_log_likelihood(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    mean: jax.Array,
    log_var: jax.Array,
    key: jax.Array,
    *,
    samples: int = 5000,
    block: int = ROWS,
) -> jax.Array:
    """L_k of each example under the prior N(0, I) and the proposal N(mean, diag exp log_var): [B], nats.

    Args:
        log_likelihood: log p(x | z), called with z [B, K] and x.
        x: [B, ...] floating point as the model sees it (for a VAE on binarised pixels, after `vae.targets`).
        mean, log_var: [B, K], as from `vae.encode`.
        samples: k.
        block: draws that go through the decoder at once, B of them at least.

    Raises ValueError for shapes that do not fit, integers, NaN or infinity in x, mean or log_var, samples or block
    below 1, a raw key, and a log_likelihood that gives another shape, NaN or +infinity.
    """
    x, mean, log_var = _check_proposal(log_likelihood, x, mean, log_var, key, samples, block)
    weight = jax.tree_util.Partial(_from_proposal, as_argument(log_likelihood))
    value = _bound(weight, (x, mean, log_var), key, samples, _draws(block, samples, len(x)))
    return _usable(value, "log_likelihood")


def bound_from_weights(
    log_weight: LogWeight, x: jax.Array, key: jax.Array, *, samples: int, block: int = ROWS
) -> jax.Array:
    """L_k = log of the mean of k weights: [B], nats, for any proposal and any number of stochastic layers.

    Args:
        log_weight: (key, x) -> log p(x, z) - log q(z | x) for one draw of all latents for each example, [B].
        x: [B, ...] floating point as the model sees it.
        samples: k.
        block: draws that are made at once, B of them at least.

    Raises ValueError as importance_log_likelihood does.
    """
    x = check_examples(x)
    check_key(key)
    samples, block = inputs.count("samples", samples, 1, _MOST), inputs.count("block", block, 1)
    _check_result("log_weight", jax.eval_shape(log_weight, key, x), len(x))
    value = _bound(as_argument(log_weight), (x,), key, samples, _draws(block, samples, len(x)))
    return _usable(value, "log_weight")


def elbo_terms(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    mean: jax.Array,
    log_var: jax.Array,
    key: jax.Array,
    *,
    samples: int = 1,
    block: int = ROWS,
) -> dict[str, jax.Array]:
    """The bound E_q[log p(x | z)] - KL(q || N(0, I)) in `vae.elbo`'s terms, [B] each, nats, for any decoder.

    log_likelihood is a mean over `samples` draws from q = N(mean, diag exp log_var), kl is exact (Kingma & Welling
    2013, eq. 7 and appendix B), elbo their difference. Arguments and errors as importance_log_likelihood's.
    """
    x, mean, log_var = _check_proposal(log_likelihood, x, mean, log_var, key, samples, block)
    given = as_argument(log_likelihood), x, mean, log_var, key
    reconstruction = _reconstruction(*given, samples, _draws(block, samples, len(x)))
    reconstruction = _usable(reconstruction, "log_likelihood")
    kl = losses.kl_standard_normal(mean, log_var)
    return {"elbo": reconstruction - kl, "log_likelihood": reconstruction, "kl": kl}


def active_units(mean: Any, threshold: float = 0.01) -> int:
    """How many of K latents have Var_x(E_q[z | x]) above the threshold. Burda et al. 2015, section 5.2.

    mean [N, K]: of q(z | x) on N examples (`vae.encode`). Raises ValueError for another shape, fewer than 2 examples,
    integers, NaN or infinity, and a threshold below 0.
    """
    mean = inputs.features("mean", mean, least=2)
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold}: give a variance of 0 or more.")
    return int((mean.astype(np.float64).var(axis=0) > threshold).sum())


def as_argument(function: Callable[..., Any]) -> jax.tree_util.Partial:
    """The function as an argument of a jitted one: what a functools.partial holds is traced where it is JAX's arrays.

    The rest of it (a config) is part of the program, and so is any other function, with all that it closes over.
    """
    if not isinstance(function, functools.partial):
        return jax.tree_util.Partial(function)
    held, names = (*function.args, *function.keywords.values()), tuple(function.keywords)
    traced = tuple(all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(each)) for each in held)
    fixed = tuple(None if t else each for t, each in zip(traced, held, strict=True))
    arrays = tuple(each if t else None for t, each in zip(traced, held, strict=True))
    rest = _Held(function.func, traced, fixed, names)
    try:
        hash(rest)
    except TypeError:  # a list, or NumPy's arrays: compiled for this very function, which may use their values
        return jax.tree_util.Partial(function)
    return jax.tree_util.Partial(rest, arrays)


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a functools.partial holds beside arrays: equal for equal ones, so that it is compiled once."""

    function: Callable[..., Any]
    traced: tuple[bool, ...]
    fixed: tuple[Any, ...]
    names: tuple[str, ...]  # of the last of them, which are keywords

    def __call__(self, arrays: tuple[Any, ...], *more: Any) -> Any:
        held = [a if t else f for t, a, f in zip(self.traced, arrays, self.fixed, strict=True)]
        positional = len(held) - len(self.names)
        keywords = dict(zip(self.names, held[positional:], strict=True))
        return self.function(*held[:positional], *more, **keywords)


def _from_proposal(
    log_likelihood: LogLikelihood, key: jax.Array, x: jax.Array, mean: jax.Array, log_var: jax.Array
) -> jax.Array:
    """The weight of one draw from a diagonal Gaussian."""
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    z = mean + jnp.exp(0.5 * log_var) * noise
    # log p(z) - log q(z | x), without the constants that cancel.
    return log_likelihood(z, x) + 0.5 * (noise**2 + log_var - z**2).sum(axis=1)


def _bound(
    log_weight: Callable[..., jax.Array], given: tuple[jax.Array, ...], key: jax.Array, samples: int, draws: int
) -> jax.Array:
    """log of the mean of log_weight(fold_in(key, i), *given) over i < samples, `draws` of them at a time."""
    sums = jnp.full(len(given[0]), -jnp.inf, jnp.float32), jnp.zeros(len(given[0]), jnp.float32)
    for first, end in _spans(samples, draws, "importance weights, parts of the draws"):
        sums = jax.block_until_ready(_add_weights(log_weight, given, sums, key, samples, first, end, draws))
    top, total = sums
    return jnp.where(top == -jnp.inf, top, top + jnp.log(total) - jnp.log(jnp.float32(samples)))


@functools.partial(jax.jit, static_argnums=7)
def _add_weights(
    log_weight: Callable[..., jax.Array],
    given: tuple[jax.Array, ...],
    sums: tuple[jax.Array, jax.Array],
    key: jax.Array,
    samples: jax.Array,
    first: jax.Array,
    end: jax.Array,
    draws: int,
) -> tuple[jax.Array, jax.Array]:
    """The running log-sum-exp, top + log(total), after blocks first..end-1 of the draws."""

    @jax.default_matmul_precision("highest")  # an accelerator's default has 10 bits
    def add(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        top, total = sums
        index = i * draws + jnp.arange(draws)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        weights = jax.vmap(lambda key: log_weight(key, *given))(keys)
        weights = jnp.where((index < samples)[:, None], weights, -jnp.inf)
        new = jnp.maximum(top, weights.max(axis=0))
        finite = jnp.where(new == -jnp.inf, 0.0, new)  # -inf - -inf is NaN: nothing but zero weights so far
        return new, total * jnp.exp(top - finite) + jnp.exp(weights - finite[None]).sum(axis=0)

    return jax.lax.fori_loop(first, end, add, sums)


def _reconstruction(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    mean: jax.Array,
    log_var: jax.Array,
    key: jax.Array,
    samples: int,
    draws: int,
) -> jax.Array:
    """The mean of log p(x | z) over draws from q: [B]."""
    total = jnp.zeros(len(x), jnp.float32)
    for first, end in _spans(samples, draws, "ELBO, parts of the draws"):
        total = jax.block_until_ready(
            _add_values(log_likelihood, x, mean, log_var, total, key, samples, first, end, draws)
        )
    return total / samples


@functools.partial(jax.jit, static_argnums=9)
def _add_values(
    log_likelihood: LogLikelihood,
    x: jax.Array,
    mean: jax.Array,
    log_var: jax.Array,
    total: jax.Array,
    key: jax.Array,
    samples: jax.Array,
    first: jax.Array,
    end: jax.Array,
    draws: int,
) -> jax.Array:
    """The sum of log p(x | z) after blocks first..end-1 of the draws."""

    def one(key: jax.Array) -> jax.Array:
        return log_likelihood(mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape, mean.dtype), x)

    @jax.default_matmul_precision("highest")
    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        index = i * draws + jnp.arange(draws)
        values = jax.vmap(one)(jax.vmap(jax.random.fold_in, (None, 0))(key, index))
        return total + jnp.where((index < samples)[:, None], values, 0.0).sum(axis=0)

    return jax.lax.fori_loop(first, end, add, total)


def _spans(samples: int, draws: int, description: str) -> Iterator[tuple[int, int]]:
    """(first, end) of the blocks of draws, in at most PARTS parts, between which progress may be reported."""
    blocks = -(-samples // draws)
    size = -(-blocks // PARTS)
    starts = range(0, blocks, size)
    for i in logs.steps(len(starts), description):
        yield starts[i], min(starts[i] + size, blocks)


def _draws(block: int, samples: int, examples: int) -> int:
    """Samples of every example that are drawn at once."""
    return max(1, min(samples, block // examples))


def _check_proposal(
    log_likelihood: LogLikelihood, x: Any, mean: Any, log_var: Any, key: Any, samples: Any, block: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x, mean and log_var as checked float32 arrays, with all else that importance_log_likelihood refuses."""
    x = check_examples(x)
    check_key(key)
    inputs.count("samples", samples, 1, _MOST)
    inputs.count("block", block, 1)
    given = {"mean": np.shape(mean), "log_var": np.shape(log_var)}
    for name, shape in given.items():
        if len(shape) != 2 or shape[0] != len(x) or shape[1] < 1 or shape != given["mean"]:
            raise ValueError(
                f"{name} has shape {shape}: give mean and log_var of one shape [{len(x)}, K], a row for each example "
                "of x."
            )
    mean, log_var = check_examples(mean, "mean"), check_examples(log_var, "log_var")
    check_log_likelihood(log_likelihood, x, mean.shape[1])
    return x, mean, log_var


def check_examples(x: Any, name: str = "x") -> jax.Array:
    """x [B, ...] as float32 on the device, finite and not empty."""
    inputs.rows(name, x, uint8=False)
    return jnp.asarray(x, jnp.float32)


def check_key(key: Any) -> None:
    """One typed key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape:
        raise ValueError(f"key is a {type(key).__name__} of dtype {dtype}: give one typed key, jax.random.key(seed).")


def check_log_likelihood(log_likelihood: LogLikelihood, x: jax.Array, latents: int) -> None:
    """It takes z [B, K] and x [B, ...] and gives [B]."""
    z = jax.ShapeDtypeStruct((len(x), latents), jnp.float32)
    _check_result("log_likelihood", jax.eval_shape(log_likelihood, z, x), len(x))


def _check_result(name: str, found: Any, examples: int) -> None:
    if getattr(found, "shape", None) != (examples,):
        shape = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"{name} returns shape {shape}: [{examples}] is expected, one value for each example of x.")


def _usable(value: jax.Array, name: str) -> jax.Array:
    """-infinity is a likelihood of 0; NaN and +infinity are no likelihood."""
    bad = int((jnp.isnan(value) | (value == jnp.inf)).sum())
    if bad:
        raise ValueError(
            f"{name} gave NaN or +infinity for {bad} of {len(value)} examples: check the model's parameters, and that "
            "x lies in the range that it models."
        )
    return value
