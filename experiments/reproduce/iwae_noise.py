"""Tighter variational bounds are not necessarily better (Rainforth et al. 2018), on a model whose optimum is known

z ~ N(mu, I), x | z ~ N(z, I) in 20 dimensions, encoder N(x / 2 + b, 2/3 I). The gradient of L_k from k draws has a
mean, its signal, and a deviation over draws, its noise. With k their ratio rises for the model (mu) and falls for the
encoder (b): an IWAE of many samples trains its encoder on noise. The gradient is that of the library's bound.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import draw
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, says
from vaegan_jax import losses, plots

DIM = 20
VARIANCE = 2 / 3
"""Of the encoder; the posterior's is 1/2."""
OFFSETS = (0.1, 0.5)
"""Deviations of the parameters from their optimum, where the signal would be 0. The rates are of the first."""
SAMPLES = (1, 4, 16, 64, 256)
FITTED = 3
"""The last so many of these: the theorem is of many samples."""
SETS = tuple(range(10, 15))
"""Seeds of x and the offsets; 0 and 1 were looked at before the rule was made."""
ROWS = 2**16
"""Draws of z that are made at once."""


def problem(seed: int, offset: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(mu, b, x), [DIM] each: x of the model with another mu, and that optimum's parameters moved by the offset."""
    keys = jax.random.split(jax.random.key(seed), 4)
    best, noise, of_mu, of_b = (jax.random.normal(key, (DIM,)) for key in keys)
    return best + offset * of_mu, best / 2 + offset * of_b, best + np.sqrt(2) * noise


def bound(mu: jax.Array, b: jax.Array, x: jax.Array, noise: jax.Array) -> jax.Array:
    """L_k of x, nats, by reparameterised draws: noise [k, DIM]."""
    mu, x, mean = (jnp.broadcast_to(each, noise.shape) for each in (mu, x, x / 2 + b))
    z = mean + np.sqrt(VARIANCE) * noise
    prior, likelihood = losses.gaussian_log_prob(mu, 0.0, z), losses.gaussian_log_prob(z, 0.0, x)
    log_weights = prior + likelihood - losses.gaussian_log_prob(mean, float(np.log(VARIANCE)), z)
    return losses.iwae_bound(log_weights[None])[0]


@functools.partial(jax.jit, static_argnames=("samples", "draws"))
def _moments(
    mu: jax.Array, b: jax.Array, x: jax.Array, key: jax.Array, *, samples: int, draws: int
) -> tuple[jax.Array, jax.Array]:
    batch = max(1, min(draws, ROWS // samples))

    def gradient(key: jax.Array) -> jax.Array:
        return jnp.stack(jax.grad(bound, (0, 1))(mu, b, x, jax.random.normal(key, (samples, DIM))))

    def block(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = jax.vmap(gradient)(jax.random.split(key, batch))
        return found.mean(0), found.var(0)

    means, variances = jax.lax.map(block, jax.random.split(key, draws // batch))
    return means.mean(0), variances.mean(0) + means.var(0)


def moments(
    mu: jax.Array, b: jax.Array, x: jax.Array, key: jax.Array, *, samples: int, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over so many estimates of the gradient of L_k: [2, DIM] each, in mu and in b."""
    mean, variance = _moments(mu, b, x, key, samples=samples, draws=draws)
    return np.asarray(mean, np.float64), np.asarray(variance, np.float64)


def ratios(mean: np.ndarray, variance: np.ndarray, draws: int) -> np.ndarray:
    """Signal over noise of one estimate, root mean square over dimensions: [2]. The mean's own error is taken out."""
    square = ((mean**2 - variance / draws) / variance).mean(axis=1)
    return np.sqrt(np.maximum(square, 0))


def slope(samples: np.ndarray, values: np.ndarray) -> float:
    """Of log(values) against log(samples); NaN where a value is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.polyfit(np.log(samples), np.log(values), 1)[0]) if (values > 0).all() else float("nan")


def noise(job: Job) -> Outcome:
    """Signal-to-noise ratios of the gradient against k."""
    sets, samples = (SETS[:2], SAMPLES[:3]) if job.budget == "smoke" else (SETS, SAMPLES)
    draws = job.choose(2**10, 2**16, 2**20)

    def measure(seed: int, offset: float, k: int) -> list[float]:
        mean, variance = moments(*problem(seed, offset), jax.random.key(1_000 + seed), samples=k, draws=draws)
        return ratios(mean, variance, draws).tolist()

    def kept(seed: int, offset: float, k: int) -> list[float]:
        one: list[float] = job.kept(
            f"{seed}-{offset}-{k}", functools.partial(measure, seed, offset, k), of=(draws,)
        )  # fmt: skip
        return one

    # [sets, k, 2] by offset.
    found = {offset: np.array([[kept(seed, offset, k) for k in samples] for seed in sets]) for offset in OFFSETS}
    last = np.array(samples[-FITTED:])
    near = found[OFFSETS[0]][:, -FITTED:]
    rows = {}
    for i, name in enumerate(("model", "encoder")):
        each = [slope(last, values) for values in near[:, :, i]]
        note = f"slopes of {len(sets)} data sets: {', '.join(f'{v:.2f}' for v in each)}; k {last[0]} to {last[-1]}"
        rows[f"noise_{name}"] = Measured([float(np.mean(each))], exact=True, note=note)
    _draw(job, samples, found)
    lines = [
        [f"{k}", *(draw.spread(found[offset][:, j, i]) for offset in OFFSETS for i in (0, 1))]
        for j, k in enumerate(samples)
    ]
    columns = ["k", *(f"{who}, offset {offset:g}" for offset in OFFSETS for who in ("model", "encoder"))]
    title = (
        f"Signal over noise of one estimate of the gradient of L_k, {draws:,} estimates, mean +- sd over {len(sets)} "
        "data sets. The offset is the parameters' distance from the optimum, each."
    )
    caption = (
        "Signal over noise of the gradient against the number of samples, mean and range over data sets, at two "
        "distances from the optimum. Dotted: slopes of 1/2 and -1/2, which the theorem gives for many samples; far "
        "from the optimum they are many more than here."
    )
    return Outcome(rows, [Table(title, columns, lines)], {"noise.png": caption})


def _draw(job: Job, samples: tuple[int, ...], found: dict[float, np.ndarray]) -> None:
    figure = plots.new_figure(7.6, 3.2)
    for i, (axes, who) in enumerate(zip(figure.subplots(1, 2), ("model, mu", "encoder, b"), strict=True)):
        for offset, colour in zip(OFFSETS, (draw.BLUE, draw.RED), strict=True):
            values = found[offset][:, :, i]
            draw.band(axes, samples, values, colour, f"offset {offset:g}", log=True, marker="o", markersize=4)
        middle = float(np.exp(np.log(np.maximum(found[OFFSETS[0]][:, -1, i], 1e-9)).mean()))
        by_theorem = middle * (np.array(samples) / samples[-1]) ** (0.5 if i == 0 else -0.5)
        axes.plot(samples, by_theorem, color=draw.GREY, linewidth=1.0, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="k", ylabel="signal over noise", title=who)
        axes.set_xticks(samples, [str(k) for k in samples])
        axes.minorticks_off()
        plots.clean(axes)
    figure.axes[0].legend(frameon=False, fontsize=8)
    plots.render(figure, job.figures / "noise.png")


PART = Part(
    "noise",
    ("noise_model", "noise_encoder"),
    noise,
    says(
        "signal and noise of the gradients of L_k, 20 Gaussian dimensions, nothing trained",
        "1,024 estimates", "65,536 estimates, 3 minutes", "1,048,576 estimates",
    ),
)  # fmt: skip
