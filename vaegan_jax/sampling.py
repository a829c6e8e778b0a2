"""What every adversarial model is asked once it is trained: samples, images of given codes, what D says of images.

`config` is gan's, wgan's or vaegan's Config, `state` its State, gmmn's where the discriminator is not asked: both are
read by field name. Images are in [0, 1].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import adversarial
from vaegan_jax import state as players
from vaegan_jax.adversarial import Batch, Metrics


def sample(config: Any, state: Any, key: jax.Array, n: int, label: Any = None) -> jax.Array:
    """[n, *shape] in [0, 1] (vectors: any range), in blocks of batch_size; the moving average's if there is one.

    label where the config has classes: int32 [n], None draws them uniformly; attributes, float [n, num_classes], must
    be given. Under batch statistics an example depends on its block, so labels given for less than a block change its
    neighbours' images too.
    """
    return _sample(config, state, key, n, check_label(config, label))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sample(config: Any, state: Any, key: jax.Array, n: int, label: jax.Array | None) -> jax.Array:
    _check_rows(config, label, n, needed=players.has_attributes(config))
    size = config.batch_size

    train, variables = config.sampling_statistics == "batch", state.generator.variables(averaged=True)

    def draw(key: jax.Array, label: jax.Array | None) -> jax.Array:
        z, y = _draw_inputs(config, key, label)
        return adversarial.to_unit(config, adversarial.generate(config, variables, z, y, state.shape, train=train)[0])

    return players.blocks(draw, key, n, size, label)


def _draw_inputs(config: Any, key: jax.Array, label: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """One block's z, and what the nets are told: classes are drawn uniformly where none are given."""
    latent_key, label_key = jax.random.split(key)
    if config.num_classes and label is None:
        label = jax.random.randint(label_key, (config.batch_size,), 0, config.num_classes)
    return adversarial.draw_latents(config, latent_key, config.batch_size), players.one_hot(label, config.num_classes)


def check_label(config: Any, label: Any) -> jax.Array | None:
    """label int [B], or attributes float [B, num_classes], as an array; values are checked where they are known.

    So not while tracing.

    Raises:
        ValueError: labels for a config without classes, or outside of them; attributes of another number, or NaN.
    """
    if label is None:
        return None
    if not config.num_classes:
        raise ValueError("label was given, but the config has num_classes = 0: leave it out.")
    if isinstance(label, jax.core.Tracer):
        return label
    known, classes = np.asarray(label), config.num_classes
    if players.has_attributes(config):
        if known.ndim != 2 or known.shape[1] != classes or known.dtype.kind != "f" or not np.isfinite(known).all():
            raise ValueError(f"label is {known.dtype} {known.shape}: give finite attributes, float [n, {classes}].")
        return jnp.asarray(known, jnp.float32)
    if known.dtype.kind in "iu" and known.size and not 0 <= known.min() <= known.max() < classes:
        raise ValueError(
            f"label goes from {known.min()} to {known.max()}: with num_classes {classes} it must lie between 0 and "
            f"{classes - 1}."
        )
    return jnp.asarray(label)


def _check_rows(config: Any, label: jax.Array | None, n: int, *, needed: bool) -> None:
    """Raises ValueError for a label that is missing where it is needed, or does not fit n examples."""
    if label is None and not needed:
        return
    attributes = players.has_attributes(config)
    if label is None or not players.label_fits(label, (n,), config.num_classes, attributes):
        given = "missing" if label is None else f"{label.dtype} {tuple(label.shape)}"
        what = "attributes" if attributes else "classes"
        wanted = players.describe_label(str(n), config.num_classes, attributes)
        raise ValueError(f"label is {given}: the config has {what}, give {wanted}.")


def _fixed_statistics(config: Any, state: Any) -> dict[str, Any]:
    """The generator's variables for one image at a time: its running statistics, or those of one block of `sample`.

    Linen moves statistics to m old + (1 - m) b, where b is the batch's: from 0 to a = (1 - m) b, and from there to
    c = (1 - m) (1 + m) b. So b = a / (2 - c / a) for any m below 1, to rounding over 1 - m.
    """
    variables = state.generator.variables(averaged=True)
    if config.sampling_statistics == "running":
        return variables
    z, y = _draw_inputs(config, jax.random.key(0), None)

    def moved(old: Any) -> Any:
        return adversarial.generate(config, variables | {"batch_stats": old}, z, y, state.shape, train=True)[1]

    def batch(once: jax.Array, twice: jax.Array) -> jax.Array:
        return jnp.where(once == 0, 0.0, once / (2 - twice / jnp.where(once == 0, 1.0, once)))

    once = moved(jax.tree.map(jnp.zeros_like, variables["batch_stats"]))
    return variables | {"batch_stats": jax.tree.map(batch, once, moved(once))}


def decode_standard(config: Any, state: Any, u: jax.Array, label: Any = None) -> jax.Array:
    """G(z) in [0, 1] for a standard normal u [B, latents], mapped to z through the prior's inverse CDF: [B, *shape].

    An image depends on its own u alone: where `sample` uses batch statistics, these are of one fixed block of draws.
    label as in `discriminate`.

    Raises:
        ValueError: u or label that does not fit; attributes under batch statistics.
    """
    return _decode_standard(config, state, u, check_label(config, label))


@functools.partial(jax.jit, static_argnums=0)
def _decode_standard(config: Any, state: Any, u: jax.Array, label: jax.Array | None) -> jax.Array:
    if u.ndim != 2 or u.shape[1] != config.latents:
        raise ValueError(f"u has shape {tuple(u.shape)}: [B, {config.latents}] is expected.")
    _check_rows(config, label, u.shape[0], needed=bool(config.num_classes))
    if players.has_attributes(config) and config.sampling_statistics == "batch":
        raise ValueError(
            "sampling_statistics is 'batch', and which attributes one block should have nobody says: give 'running', "
            "or use sample."
        )
    uniform = config.prior_scale * (2 * jax.scipy.stats.norm.cdf(u) - 1)
    z = config.prior_scale * u if config.prior == "normal" else uniform
    variables, y = _fixed_statistics(config, state), players.one_hot(label, config.num_classes)
    return adversarial.to_unit(config, adversarial.generate(config, variables, z, y, state.shape, train=False)[0])


def discriminate(config: Any, state: Any, x: jax.Array, label: Any = None) -> tuple[jax.Array, jax.Array]:
    """(logits [B], features of config.discriminator.feature_layer) of x [B, *shape] uint8 or in [0, 1].

    Running statistics, no dropout. One of each for a pack: [B / packing]. label where the config has classes: int32
    [B], or attributes float [B, num_classes].
    """
    return _discriminate(config, state, x, check_label(config, label))


@functools.partial(jax.jit, static_argnums=0)
def _discriminate(config: Any, state: Any, x: jax.Array, label: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    batch = {"x": x} if label is None else {"x": x, "label": label}
    players.check_batch(batch, state.shape, None, config.num_classes, players.has_attributes(config))
    y = players.one_hot(label, config.num_classes)
    variables = state.discriminator.variables()
    return players.apply(
        config.discriminator, variables, adversarial.pack(config, adversarial.from_unit(config, x)), y, train=False
    )[0]


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Any, state: Any, batch: Batch, key: jax.Array) -> Metrics:
    """The discriminator on examples held out and on as many samples, running statistics: one value an example, [B].

    d_real = D(x), below its training value where D memorises, d_fake = D(G(z)), wasserstein = f(x) - f(G(z)). Where
    packs are judged, each example has the mean over the batch's whole packs.
    """
    label = batch.get("label") if config.num_classes else None
    x = batch["x"]
    n, m = x.shape[0], adversarial.packs(config)
    if n < m:
        raise ValueError(f"packing is {m}, but there are {n} examples: give {m} or more.")
    whole = n - n % m
    real, _ = discriminate(config, state, x[:whole], label)
    fake, _ = discriminate(config, state, sample(config, state, key, whole, label), label)
    found = {"d_real": jax.nn.sigmoid(real), "d_fake": jax.nn.sigmoid(fake), "wasserstein": real - fake}
    return found if m == 1 else {name: jnp.full(n, value.mean()) for name, value in found.items()}
