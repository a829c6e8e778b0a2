"""VAE/GAN (Larsen, Sonderby, Larochelle & Winther 2016): the decoder is the generator, the discriminator the metric.

L_prior = KL(q(z|x) || N(0, I)),  L_llike = -E_q log N(Dis_l(x); Dis_l(Dec(z)), I),
L_GAN   = -log Dis(x) - log(1 - Dis(Dec(z_p))) - log(1 - Dis(Dec(z)))     (algorithm 1; z ~ q(z|x), z_p ~ N(0, I))
Enc descends L_prior + L_llike,  Dec descends gamma L_llike - L_GAN,  Dis descends L_GAN.
With num_classes all three are told y as well (section 4.2): a class, or a vector of attributes.
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from vaegan_jax import adversarial, losses, nets, sampling
from vaegan_jax import state as players
from vaegan_jax.optimizer import Optimizer
from vaegan_jax.sampling import decode_standard, discriminate, sample
from vaegan_jax.state import Player

__all__ = [
    "Config",
    "State",
    "decode",
    "decode_standard",
    "discriminate",
    "encode",
    "gradients",
    "init",
    "reconstruct",
    "sample",
    "train_step",
    "validate",
    "vectors",
]

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
_RMSPROP = Optimizer(rule="rmsprop", learning_rate=3e-4, momentum=0.0, b2=0.9)


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are the paper's algorithm on a convolutional encoder and Radford et al.'s 28x28 nets."""

    latents: int = 128
    encoder: nn.Module = dataclasses.field(default_factory=nets.ConvEncoder)
    decoder: nn.Module = dataclasses.field(default_factory=nets.ConvDecoder)
    discriminator: nn.Module = dataclasses.field(
        default_factory=lambda: nets.ConvDiscriminator(feature_layer="conv1_activation")
    )
    """Its feature_layer names Dis_l: "input", gan_weight 0 and gamma 1 make this a VAE of p(x|z) = N(Dec(z), I).

    N(Dis_l, I) expects features of unit scale: with conv1, the raw output, whose deviation is about .02 in these
    shallow nets, the encoder falls back on the prior (KL 0.3 nats after 500 steps)."""
    output: Literal["sigmoid", "tanh", "linear"] = "sigmoid"
    gamma: float = 1e-3
    """Weight of L_llike against L_GAN in the decoder: L_llike sums over the features of Dis_l (6,272 here)."""
    gan_weight: float = 1.0
    """Weight of L_GAN in the decoder; 0 is the paper's "VAE with Dis_l", with batch statistics of reconstructions."""
    adversarial: Literal["minimax", "non_saturating"] = "minimax"
    """How the decoder climbs L_GAN: as written, or by -log Dis as in Goodfellow et al., section 3."""
    reconstructions_as_fakes: bool = True
    """The paper shows Dis both Dec(z) and Dec(z_p); the authors' scripts for faces only Dec(z_p)."""
    one_batch: bool = False
    """The authors' code, the paper does not say: Dis normalises x and Dec(z) by shared statistics for Dis_l, x and all
    fakes for L_GAN; else each by its own, to which an image's brightness and contrast are lost past a first layer."""
    balance: bool = False
    """The authors' code, not the paper: Dis waits while it wins, Dec while it loses (equilibrium -+ margin)."""
    equilibrium: float = 0.68
    margin: float = 0.35
    encoder_optimizer: Optimizer = _RMSPROP
    decoder_optimizer: Optimizer = _RMSPROP
    discriminator_optimizer: Optimizer = _RMSPROP
    ema_decay: float | None = None
    """Moving average of the decoder's parameters, used by sample, decode and reconstruct."""
    sampling_statistics: Literal["running", "batch"] = "running"
    num_classes: int = 0
    """Above 0: all three nets take the label, int32 [B]; or, where labels are attributes, float [B, num_classes]."""
    labels: Literal["classes", "attributes"] = "classes"
    batch_size: int = 64
    dataset_size: int = 60_000
    splits: tuple[str, str, str] = ("train", "train[:0]", "test")

    batches_per_step = 1
    prior = "normal"
    prior_scale = 1.0

    @property
    def generator(self) -> nn.Module:
        """The decoder by its other name, for the code shared with `gan`."""
        return self.decoder

    @property
    def generator_optimizer(self) -> Optimizer:
        return self.decoder_optimizer

    @property
    def unit_range(self) -> bool:
        """Whether x must lie in [0, 1]."""
        return self.output != "linear"

    def __post_init__(self) -> None:
        adversarial.check(self)
        if self.gamma < 0 or self.gan_weight < 0:
            raise ValueError(f"gamma is {self.gamma} and gan_weight {self.gan_weight}: give 0 or more.")
        if self.margin < 0:
            raise ValueError(f"margin is {self.margin}: give 0 or more.")


def vectors(dim: int) -> Config:
    """For x [B, dim] of any range: MLPs and a linear output.

    Nothing holds up the scale of Dis_l's features once Dis is beaten, and L_llike has unit variance: on simple data
    reconstructions get worse again after some hundred steps, whatever gamma is.
    """
    adam = Optimizer(rule="adam", learning_rate=1e-3, momentum=0.5)
    return Config(
        latents=max(2, min(dim, 16)),
        encoder=nets.MLPEncoder(hidden=(128, 128), activation=nn.relu),
        decoder=nets.MLPDecoder(hidden=(128, 128), activation=nn.relu),
        discriminator=nets.MLPDiscriminator(hidden=(128, 128)),
        output="linear",
        encoder_optimizer=adam,
        decoder_optimizer=adam,
        discriminator_optimizer=adam,
        dataset_size=10_000,
    )


@struct.dataclass
class State:
    step: jax.Array
    encoder: Player
    decoder: Player
    discriminator: Player
    shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def generator(self) -> Player:
        return self.decoder


def init(config: Config, key: jax.Array, shape: tuple[int, ...], *, data_mean: jax.Array | None = None) -> State:
    """Fresh players. data_mean [*shape] in [0, 1] sets the bias of a sigmoid output that has one."""
    shape = players.check_shape(shape)
    encoder_key, key = jax.random.split(key)
    y = (players.example(config.num_classes),) if config.num_classes else ()
    encoder = players.initialize(config.encoder, encoder_key, players.example(*shape), config.latents, *y)
    decoder, discriminator = adversarial.init_players(config, key, shape, data_mean)
    return State(jnp.int32(0), players.create(encoder, config.encoder_optimizer), decoder, discriminator, shape)


def gradients(
    config: Config, state: State, batch: Batch, key: jax.Array
) -> tuple[dict[str, Any], dict[str, Any], Metrics]:
    """Each network's gradient of its own loss: one forward pass of all three, one pull-back for each term.

    The minimax decoder climbs what Dis descends, so the two share the pull-back of L_GAN through Dis.

    Returns:
        Gradients and new batch statistics, each a dict with encoder, decoder and discriminator; and the metrics.
    """
    noise_key, prior_key, *dropout_keys = jax.random.split(key, 5)
    x = adversarial.from_unit(config, batch["x"])
    y = players.one_hot(batch.get("label"), config.num_classes)
    noise = jax.random.normal(noise_key, (x.shape[0], config.latents))
    z_p = adversarial.draw_latents(config, prior_key, x.shape[0])

    def enc(params: Any) -> tuple[tuple[jax.Array, jax.Array], Any]:
        """z ~ q(z|x) and L_prior."""
        variables = {"params": params, "batch_stats": state.encoder.batch_stats}
        (mean, log_var), stats = players.apply(config.encoder, variables, x, config.latents, *_told(y), train=True)
        prior = losses.kl_standard_normal(mean, log_var).mean()
        return (mean + jnp.exp(0.5 * log_var) * noise, prior), stats

    def dec(params: Any, z: jax.Array, stats: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": stats}
        return adversarial.generate(config, variables, z, y, state.shape, train=True)

    def dis(params: Any, rebuilt: jax.Array, fake: jax.Array) -> tuple[dict[str, jax.Array], Any]:
        """Logits of the three batches, and L_llike."""
        stats, keys = state.discriminator.batch_stats, iter(dropout_keys)

        def judge(*images: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
            """(logits, features) of each, normalised by the statistics of all."""
            nonlocal stats
            variables = {"params": params, "batch_stats": stats}
            together = images[0] if len(images) == 1 else jnp.concatenate(images)
            of_each = None if y is None else jnp.concatenate([y] * len(images))
            judged, stats = players.apply(
                config.discriminator, variables, together, of_each, train=True, dropout=next(keys)
            )
            return list(zip(*(jnp.split(part, len(images)) for part in judged), strict=True))

        if not config.one_batch:
            (real, features), (rebuilt_logits, rebuilt_features), (fake_logits, _) = (
                judge(images)[0] for images in (x, rebuilt, fake)
            )
        else:
            (_, features), (rebuilt_logits, rebuilt_features) = judge(x, rebuilt)
            if config.reconstructions_as_fakes:
                (real, _), (rebuilt_logits, _), (fake_logits, _) = judge(x, rebuilt, fake)
            else:
                (real, _), (fake_logits, _) = judge(x, fake)
        llike = -losses.gaussian_log_prob(rebuilt_features, 0.0, features).mean()
        return {"real": real, "reconstruction": rebuilt_logits, "fake": fake_logits, "llike": llike}, stats

    (z, prior), pull_enc, encoder_stats = jax.vjp(enc, state.encoder.params, has_aux=True)
    first = functools.partial(dec, stats=state.decoder.batch_stats)
    rebuilt, pull_rebuilt, stats = jax.vjp(first, state.decoder.params, z, has_aux=True)
    second = functools.partial(dec, z=z_p, stats=stats)
    fake, pull_fake, decoder_stats = jax.vjp(second, state.decoder.params, has_aux=True)
    out, pull_dis, dis_stats = jax.vjp(dis, state.discriminator.params, rebuilt, fake, has_aux=True)

    def fakes(out: dict[str, jax.Array]) -> list[jax.Array]:
        """Logits of what Dis is shown as fakes."""
        return [out["fake"], out["reconstruction"]] if config.reconstructions_as_fakes else [out["fake"]]

    def gan_loss(out: dict[str, jax.Array]) -> jax.Array:
        """L_GAN, what Dis descends."""
        return jax.nn.softplus(-out["real"]).mean() + sum(jax.nn.softplus(f).mean() for f in fakes(out))

    def fooling_loss(out: dict[str, jax.Array]) -> jax.Array:
        """What Dec descends of the game; the real logits move nothing of it here."""
        fooling = losses.ADVERSARIAL[config.adversarial].generator
        return jnp.stack([fooling(out["real"], f).mean() for f in fakes(out)]).sum()

    _, llike_rebuilt, _ = pull_dis(jax.grad(lambda out: out["llike"])(out))
    dis_gradient, *game = pull_dis(jax.grad(gan_loss)(out))
    if config.gan_weight:
        shared = config.adversarial == "minimax"
        game = [-g for g in game] if shared else pull_dis(jax.grad(fooling_loss)(out))[1:]
        of_rebuilt, of_fake = (config.gan_weight * g for g in game)
        of_rebuilt = pull_rebuilt(config.gamma * llike_rebuilt + of_rebuilt)[0]
        dec_gradient = jax.tree.map(jnp.add, of_rebuilt, pull_fake(of_fake)[0])
    else:  # Dec learns nothing of Dec(z_p), whose statistics are none of its then
        dec_gradient, decoder_stats = pull_rebuilt(config.gamma * llike_rebuilt)[0], stats
    enc_gradient = pull_enc((pull_rebuilt(llike_rebuilt)[1], jnp.ones_like(prior)))[0]
    grads = {"encoder": enc_gradient, "decoder": dec_gradient, "discriminator": dis_gradient}
    stats = {"encoder": encoder_stats, "decoder": decoder_stats, "discriminator": dis_stats}
    metrics = {
        "prior": prior,
        "llike": out["llike"],
        "gan": gan_loss(out),
        "pixel_error": ((rebuilt - x) ** 2).mean(),
        "d_real": jax.nn.sigmoid(out["real"]).mean(),
        "d_reconstruction": jax.nn.sigmoid(out["reconstruction"]).mean(),
        "d_fake": jax.nn.sigmoid(out["fake"]).mean(),
        "real_cost": jax.nn.softplus(-out["real"]).mean(),
        "fake_cost": jnp.stack([jax.nn.softplus(f).mean() for f in fakes(out)]).mean(),
    }
    return grads, stats, metrics | {f"{name}_gradient_norm": players.gradient_norm(g) for name, g in grads.items()}


def _told(y: jax.Array | None) -> tuple[jax.Array, ...]:
    """The encoder's further argument: an encoder without labels need not know of them."""
    return () if y is None else (y,)


def _turns(config: Config, metrics: Metrics) -> tuple[jax.Array, jax.Array]:
    """Whether Dis and Dec move, by the authors' balance rule: if neither would, both do."""
    costs = jnp.stack([metrics["real_cost"], metrics["fake_cost"]])
    dis = ~(costs < config.equilibrium - config.margin).any()
    dec = ~(costs > config.equilibrium + config.margin).any()
    return dis | ~dec, dec | ~dis


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
    """One update of each of the three networks. batch = {"x": uint8 or float [B, *shape], "label" where conditional}.

    Metrics (batch means): prior = L_prior and llike = L_llike in nats, gan = L_GAN, pixel_error = mean squared error a
    pixel in the nets' range, d_real, d_reconstruction, d_fake = E Dis of each, real_cost and fake_cost (of all fakes),
    the three gradient norms; under balance, discriminator_updated and decoder_updated.
    """
    players.check_batch(batch, state.shape, None, config.num_classes, players.has_attributes(config))
    grads, stats, metrics = gradients(config, state, batch, key)
    decay = {"encoder": None, "decoder": config.ema_decay, "discriminator": None}
    moved = {
        name: players.update(
            getattr(state, name), getattr(config, f"{name}_optimizer"), grads[name], stats[name], decay[name],
            updates_per_epoch=players.updates_per_epoch(config),
        )
        for name in decay
    }  # fmt: skip
    if config.balance:
        turns = dict(zip(("discriminator", "decoder"), _turns(config, metrics), strict=True))
        for name, go in turns.items():
            moved[name] = jax.tree.map(lambda a, b, go=go: jnp.where(go, a, b), moved[name], getattr(state, name))
            metrics[f"{name}_updated"] = go.astype(jnp.float32)
    return State(state.step + 1, **moved, shape=state.shape), metrics


def encode(config: Config, state: State, x: jax.Array, label: Any = None) -> tuple[jax.Array, jax.Array]:
    """q(z | x): x [B, *shape] uint8 or in [0, 1] -> (mean, log_var), [B, K] each. Running statistics.

    label: int32 [B], or attributes float [B, num_classes], where the config has them.
    """
    return _encode(config, state, x, sampling.check_label(config, label))


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: Config, state: State, x: jax.Array, label: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    batch, attributes = {"x": x} if label is None else {"x": x, "label": label}, players.has_attributes(config)
    players.check_batch(batch, state.shape, None, config.num_classes, attributes)
    x, y = adversarial.from_unit(config, x), players.one_hot(label, config.num_classes)
    return players.apply(config.encoder, state.encoder.variables(), x, config.latents, *_told(y), train=False)[0]


def decode(config: Config, state: State, z: jax.Array, label: Any = None) -> jax.Array:
    """Dec(z) in [0, 1]: z [B, K] -> [B, *shape]. It is decode_standard, as the prior is N(0, I). label as in encode."""
    return decode_standard(config, state, z, label)


def reconstruct(config: Config, state: State, x: jax.Array, key: jax.Array, label: Any = None) -> jax.Array:
    """Dec(z) for one z ~ q(z | x): [B, *shape] -> [B, *shape] in [0, 1]. label as in encode."""
    return _reconstruct(config, state, x, key, sampling.check_label(config, label))


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(config: Config, state: State, x: jax.Array, key: jax.Array, label: jax.Array | None) -> jax.Array:
    mean, log_var = encode(config, state, x, label)
    return decode(config, state, mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape), label)


@functools.partial(jax.jit, static_argnums=0)
def validate(config: Config, state: State, batch: Batch, key: jax.Array) -> Metrics:
    """On examples held out, running statistics, one value an example [B].

    prior = KL(q(z|x) || N(0, I)) and llike = L_llike in nats, pixel_error = mean squared error a pixel in [0, 1].
    """
    x, label = players.as_float(batch["x"]), batch.get("label") if config.num_classes else None
    mean, log_var = encode(config, state, batch["x"], label)
    rebuilt = reconstruct(config, state, batch["x"], key, label)
    features, rebuilt_features = (discriminate(config, state, images, label)[1] for images in (x, rebuilt))
    return {
        "prior": losses.kl_standard_normal(mean, log_var),
        "llike": -losses.gaussian_log_prob(rebuilt_features, 0.0, features),
        "pixel_error": ((rebuilt - x) ** 2).reshape(x.shape[0], -1).mean(axis=1),
    }
