"""What all adversarial algorithms share in training: priors, ranges, both players' gradients and steps.

`config` is gan's, wgan's or vaegan's Config, `state` its State: both are read by field name. gmmn has a generator
alone, and takes what is about that: check, from_unit, draw_latents, generate, update_generator. Images
are in [0, 1] outside; inside, a generator with output "tanh" and its discriminator work in [-1, 1].
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vaegan_jax import losses, privacy
from vaegan_jax import state as players
from vaegan_jax.config import check_fields
from vaegan_jax.state import Player

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]


def check(config: Any) -> None:
    """What every adversarial config must satisfy."""
    check_fields(config)
    if config.latents < 1 or config.batch_size < 1 or config.dataset_size < 1 or config.num_classes < 0:
        raise ValueError(
            f"latents, batch_size, dataset_size are {config.latents}, {config.batch_size}, {config.dataset_size}, "
            f"num_classes is {config.num_classes}: give 1 or more, and 0 or more classes."
        )
    if players.has_attributes(config) and not config.num_classes:
        raise ValueError("labels are attributes, but num_classes is 0: give how many there are.")
    if not config.prior_scale > 0:
        raise ValueError(f"prior_scale is {config.prior_scale}: give a number above 0.")
    weights = {n: getattr(config, n, 0.0) for n in ("gradient_penalty", "r1", "r2", "dragan", "discriminator_weight")}
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} is {weight}: give 0 or more.")
    penalties = [name for name in ("gradient_penalty", "r1", "r2", "dragan") if getattr(config, name, 0.0)]
    if penalties and getattr(config.discriminator, "norm", "none") == "batch":
        raise ValueError(
            f"{penalties[0]} needs a discriminator without batch normalisation, which mixes examples: give norm='none'."
        )
    packing = packs(config)
    if packing < 1 or config.batch_size % packing:
        raise ValueError(
            f"packing is {packing} and batch_size {config.batch_size}: give 1 or more, and a batch of whole packs."
        )
    if packing > 1 and config.num_classes:
        raise ValueError(f"packing is {packing} with {config.num_classes} classes: a pack has no one label, give 1.")
    if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
        raise ValueError(f"ema_decay is {config.ema_decay}: give a number in [0, 1), or none.")


def init_players(
    config: Any, key: jax.Array, shape: tuple[int, ...], data_mean: jax.Array | None
) -> tuple[Player, Player]:
    """Fresh generator and discriminator."""
    generator_key, discriminator_key = jax.random.split(key)
    y = players.example(config.num_classes) if config.num_classes else None
    generator = players.initialize(config.generator, generator_key, players.example(config.latents), shape, y)
    if data_mean is not None and config.output == "sigmoid" and "bias" in generator["params"].get("output", {}):
        margin = getattr(config, "bias_margin", 1e-3)
        generator = players.set_output_bias(generator, jnp.asarray(data_mean), shape, margin)
    one = jax.eval_shape(lambda x: pack(config, x), jax.ShapeDtypeStruct((packs(config), *shape), jnp.float32))
    discriminator = players.initialize(config.discriminator, discriminator_key, one, y)
    return (
        players.create(generator, config.generator_optimizer, config.ema_decay),
        players.create(discriminator, config.discriminator_optimizer),
    )


def packs(config: Any) -> int:
    """How many examples the discriminator judges together."""
    return int(getattr(config, "packing", 1))


def pack(config: Any, x: jax.Array) -> jax.Array:
    """What the discriminator is shown: x [B, ..., C] -> [B / m, ..., m C], m = packing neighbours on the last axis.

    Lin et al. 2018 (PacGAN), section 2.

    Raises:
        ValueError: a batch that is no whole number of packs.
    """
    m = packs(config)
    if m == 1:
        return x
    if x.shape[0] % m:
        raise ValueError(f"packing is {m}, but there are {x.shape[0]} examples: give a multiple of {m}.")
    apart = x.reshape(x.shape[0] // m, m, *x.shape[1:])
    return jnp.moveaxis(apart, 1, -2).reshape(x.shape[0] // m, *x.shape[1:-1], m * x.shape[-1])


def from_unit(config: Any, x: jax.Array) -> jax.Array:
    """Images in [0, 1] (or uint8) -> the nets' own range."""
    x = players.as_float(x)
    return 2 * x - 1 if config.output == "tanh" else x


def to_unit(config: Any, x: jax.Array) -> jax.Array:
    """The nets' own range -> images in [0, 1], to which a linear output is cut; vectors stay."""
    if config.output == "tanh":
        return (x + 1) / 2
    return jnp.clip(x, 0, 1) if config.output == "linear" and x.ndim == 4 else x


def activate(config: Any, heads: jax.Array) -> jax.Array:
    """A generator's pre-activations -> the nets' own range."""
    return {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "linear": lambda h: h}[config.output](heads)


def draw_latents(config: Any, key: jax.Array, n: int) -> jax.Array:
    """z ~ p(z), [n, latents]."""
    if config.prior == "normal":
        z = config.prior_scale * jax.random.normal(key, (n, config.latents))
    else:
        z = jax.random.uniform(key, (n, config.latents), minval=-config.prior_scale, maxval=config.prior_scale)
    return players.divide(z)


def generate(
    config: Any, variables: dict[str, Any], z: jax.Array, y: jax.Array | None, shape: tuple[int, ...], *, train: bool
) -> tuple[jax.Array, Any]:
    """G(z) in the nets' own range, [B, *shape], and the generator's batch statistics."""
    heads, stats = players.apply(config.generator, variables, z, shape, y, train=train)
    return activate(config, heads), stats


def gradients(
    config: Any, state: Any, batch: Batch, key: jax.Array
) -> tuple[tuple[Any, Any], tuple[Any, Any], Metrics]:
    """Both players' gradients at the same parameters, from one batch and one draw of z.

    One forward pass through each net and one pull-back for each loss; what a caller does not use is never computed.

    Returns:
        (gradient, batch statistics) of the generator, the same of the discriminator, and the metrics of the step.
    """
    latent_key, real_key, fake_key, penalty_key = jax.random.split(key, 4)
    x = from_unit(config, batch["x"])
    y = players.one_hot(batch.get("label"), config.num_classes)
    z = draw_latents(config, latent_key, x.shape[0])
    g, d = state.generator, state.discriminator

    def make(params: Any) -> tuple[jax.Array, Any]:
        return generate(config, {"params": params, "batch_stats": g.batch_stats}, z, y, state.shape, train=True)

    def judge(params: Any, fake: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Any]:
        # Real and fake are two batches, each with its own statistics, as in Radford et al.'s code.
        variables = {"params": params, "batch_stats": d.batch_stats}
        real, made = pack(config, x), pack(config, fake)
        (r, _), stats = players.apply(config.discriminator, variables, real, y, train=True, dropout=real_key)
        variables = {"params": params, "batch_stats": stats}
        (f, _), stats = players.apply(config.discriminator, variables, made, y, train=True, dropout=fake_key)
        return (r, f), stats

    fake, pull_generator, g_stats = jax.vjp(make, g.params, has_aux=True)
    (r, f), pull, d_stats = jax.vjp(judge, d.params, fake, has_aux=True)

    pair = losses.ADVERSARIAL[config.adversarial]
    d_loss, d_cotangent = jax.value_and_grad(lambda rf: config.discriminator_weight * pair.discriminator(*rf).mean())(
        (r, f)
    )
    g_loss, g_cotangent = jax.value_and_grad(lambda rf: pair.generator(*rf).mean())((r, f))
    if getattr(config, "dp_clip", None) is None:
        d_gradient = pull(d_cotangent)[0]
    else:
        d_gradient = _private_gradient(config, d, x, fake, penalty_key)
    g_gradient = pull_generator(pull(g_cotangent)[1])[0]

    metrics = {
        "discriminator_loss": d_loss,
        "generator_loss": g_loss,
        "value": -losses.ADVERSARIAL["minimax"].discriminator(r, f).mean(),
        "d_real": jax.nn.sigmoid(r).mean(),
        "d_fake": jax.nn.sigmoid(f).mean(),
        "wasserstein": (r - f).mean(),
    }
    if config.gradient_penalty or config.r1 or config.r2 or config.dragan:

        def penalty(params: Any) -> jax.Array:
            variables = {"params": params, "batch_stats": d.batch_stats}
            return _penalty(config, variables, pack(config, x), pack(config, fake), y, penalty_key)

        metrics["penalty"], extra = jax.value_and_grad(penalty)(d.params)
        d_gradient = jax.tree.map(jnp.add, d_gradient, extra)
    metrics["generator_gradient_norm"] = players.gradient_norm(g_gradient)
    metrics["discriminator_gradient_norm"] = players.gradient_norm(d_gradient)
    return (g_gradient, g_stats), (d_gradient, d_stats), metrics


def _private_gradient(config: Any, discriminator: Player, x: jax.Array, fake: jax.Array, key: jax.Array) -> Any:
    """The discriminator's by DP-SGD: one gradient for each real example, with its fake, cut and summed under noise."""
    loss = losses.ADVERSARIAL[config.adversarial].discriminator
    dropout_key, noise_key = jax.random.split(key)

    def judge(params: Any, image: jax.Array, dropout: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": discriminator.batch_stats}
        (logit, _), _ = players.apply(config.discriminator, variables, image[None], None, train=True, dropout=dropout)
        return logit

    def one(params: Any, x: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        real_key, fake_key = jax.random.split(key)
        return config.discriminator_weight * loss(judge(params, x, real_key), judge(params, fake, fake_key)).mean()

    keys = jax.random.split(dropout_key, x.shape[0])
    each = jax.vmap(jax.grad(one), (None, 0, 0, 0))(discriminator.params, x, fake, keys)
    return privacy.aggregate(each, config.dp_clip, config.dp_noise, noise_key)


def _penalty(
    config: Any, variables: dict[str, Any], x: jax.Array, fake: jax.Array, y: jax.Array | None, key: jax.Array
) -> jax.Array:
    """The weighted sum of the config's gradient penalties, a batch mean."""
    interpolation_key, noise_key, dropout_key = jax.random.split(key, 3)

    def critic(x: jax.Array) -> jax.Array:
        return players.apply(config.discriminator, variables, x, y, train=True, dropout=dropout_key)[0][0]

    total = jnp.float32(0)
    if config.gradient_penalty:
        total += config.gradient_penalty * losses.gradient_penalty(critic, x, fake, interpolation_key).mean()
    if config.r1:
        total += config.r1 * losses.r1(critic, x).mean()
    if config.r2:
        total += config.r2 * losses.r2(critic, fake).mean()
    if config.dragan:
        total += config.dragan * losses.dragan(critic, x, noise_key, scale=config.dragan_scale).mean()
    return total


def update_discriminator(config: Any, state: Any, gradient: Any, stats: Any) -> Player:
    optimizer, every = config.discriminator_optimizer, players.updates_per_epoch(config)
    return players.update(state.discriminator, optimizer, gradient, stats, updates_per_epoch=every)


def update_generator(config: Any, state: Any, gradient: Any, stats: Any) -> Player:
    optimizer, decay = config.generator_optimizer, config.ema_decay
    every = max(1, players.updates_per_epoch(config) // config.batches_per_step)
    return players.update(state.generator, optimizer, gradient, stats, decay, updates_per_epoch=every)


def discriminator_step(config: Any, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
    """Updates the discriminator alone. Not jitted; `state.step` stays."""
    _, (gradient, stats), metrics = gradients(config, state, batch, key)
    player = update_discriminator(config, state, gradient, stats)
    del metrics["generator_loss"], metrics["generator_gradient_norm"]
    return dataclasses.replace(state, discriminator=player), metrics


def generator_step(config: Any, state: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
    """Updates the generator alone. Not jitted; `state.step` stays."""
    (gradient, stats), _, metrics = gradients(config, state, batch, key)
    player = update_generator(config, state, gradient, stats)
    metrics = {name: metrics[name] for name in ("generator_loss", "generator_gradient_norm")}
    return dataclasses.replace(state, generator=player), metrics
