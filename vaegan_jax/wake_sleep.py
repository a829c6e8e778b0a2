"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal 1995) on the nets of `vae`, as Kingma & Welling 2013 compare it.

Wake: z ~ q(z|x) of data, the decoder ascends log p(x, z). Sleep: (x, z) ~ p, the encoder ascends log q(z|x). Neither
phase is a gradient of one function of all parameters: the encoder descends E_p(x) KL(p(z|x) || q(z|x)), the other way
round than the bound would have it. Config, State and everything but the step are those of `vae`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vaegan_jax import losses, vae
from vaegan_jax import state as players
from vaegan_jax.vae import (
    Config,
    Metrics,
    State,
    decode,
    decode_standard,
    elbo,
    encode,
    init,
    log_likelihood,
    reconstruct,
    sample,
    targets,
    validate,
    vectors,
)

__all__ = [
    "Config",
    "State",
    "decode",
    "decode_standard",
    "draw",
    "elbo",
    "encode",
    "init",
    "log_likelihood",
    "reconstruct",
    "sample",
    "targets",
    "train_step",
    "validate",
    "vectors",
]


def draw(config: Config, heads: jax.Array, key: jax.Array) -> jax.Array:
    """x ~ p(x|z) from the decoder's output [B, ...]: bits or Gaussian draws, [B, ...]."""
    if config.likelihood == "bernoulli":
        return vae.draw_bits(key, jax.nn.sigmoid(heads))
    mean, log_var = vae.mean_log_var(config, heads)
    return mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)


@functools.partial(jax.jit, static_argnums=0)
def train_step(config: Config, state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, Metrics]:
    """One step of both phases at the same parameters. batch = {"x": uint8 or float [B, *shape]}.

    Metrics (nats, batch means): elbo, log_likelihood = E_q log p(x|z) and kl of the data, as vae's; sleep =
    E_p log q(z|x), what the encoder ascends; gradient_norm.

    Raises:
        ValueError: fields of the config that belong to the bound alone.
    """
    vae.refuse_bound_fields(config, "wake-sleep climbs no bound")
    players.check_batch(batch, state.shape, None, 0)
    binarize_key, noise_key, z_key, x_key = jax.random.split(key, 4)
    x = vae.targets(config, batch["x"], binarize_key)
    B, shape = x.shape[0], vae.heads_shape(config, state.shape)
    noise = jax.random.normal(noise_key, (B, config.latents))
    dream_z = jax.random.normal(z_key, (B, config.latents))

    def loss(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.model.batch_stats}
        apply = functools.partial(vae.apply_net, config, variables, train=True)
        (mean, log_var), encoder_stats = apply("encoder", x, config.latents)
        z = jax.lax.stop_gradient(mean + jnp.exp(0.5 * log_var) * noise)
        heads, decoder_stats = apply("decoder", z, shape)
        likelihood = vae.log_prob(config, heads, x)  # log p(z) has no parameters

        dream = jax.lax.stop_gradient(draw(config, apply("decoder", dream_z, shape)[0], x_key))
        dream_mean, dream_log_var = apply("encoder", dream, config.latents)[0]
        sleep = losses.gaussian_log_prob(dream_mean, dream_log_var, dream_z)

        value = -likelihood.mean() - sleep.mean() + vae.weight_penalty(config, params)
        kl = losses.kl_standard_normal(mean, log_var)
        metrics = {"elbo": (likelihood - kl).mean(), "log_likelihood": likelihood.mean(), "kl": kl.mean()}
        return value, (
            metrics | {"sleep": sleep.mean()},
            {"encoder": encoder_stats, "decoder": decoder_stats},
        )

    gradient, (metrics, stats) = jax.grad(loss, has_aux=True)(state.model.params)
    state, norm = players.step_model(config, state, gradient, stats)
    return state, metrics | norm
