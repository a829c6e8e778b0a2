"""NumPyro's SVI on the VAE: model and guide, `svi.update` inside a scan, data on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.module import flax_module
from numpyro.infer import SVI, TraceMeanField_ELBO

from experiments.bench import linen

BATCH, LATENTS = 100, 20


def build(task: str, mode: str, x: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    if task != "vae":
        raise ValueError(f"task is {task!r}: NumPyro is timed on the VAE only.")
    data = jnp.asarray(x.reshape(len(x), -1))

    def model(batch: jax.Array) -> None:
        decoder = flax_module("decoder", linen.Decoder(), input_shape=(1, LATENTS))
        with numpyro.plate("batch", BATCH):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENTS]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=batch)

    def guide(batch: jax.Array) -> None:
        encoder = flax_module("encoder", linen.Encoder(LATENTS), input_shape=(1, 784))
        mean, log_var = encoder(batch)
        with numpyro.plate("batch", BATCH):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_var)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.optax_to_numpyro(optax.adam(1e-3)), TraceMeanField_ELBO())

    def step(data: jax.Array, order: jax.Array, state: object, index: jax.Array) -> tuple[object, jax.Array]:
        batch = data[order[(index * BATCH + jnp.arange(BATCH)) % len(x)]]
        noise = jax.random.fold_in(binarize, index)
        batch = (jax.random.uniform(noise, batch.shape) < batch.astype(jnp.float32) / 255).astype(jnp.float32)
        state, loss = svi.update(state, batch)
        return state, loss / BATCH

    init, shuffle, binarize = jax.random.split(jax.random.key(seed), 3)
    order = jax.random.permutation(shuffle, len(x))
    state = svi.init(init, jnp.zeros((BATCH, 784)))

    def scanned(data: jax.Array, order: jax.Array, state: object, indices: jax.Array) -> tuple[object, jax.Array]:
        return jax.lax.scan(functools.partial(step, data, order), state, indices)

    run = jax.jit(scanned, donate_argnums=2)
    done = 0

    def advance(n: int) -> np.ndarray:
        nonlocal state, done
        state, losses = run(data, order, state, jnp.arange(done, done + n))
        done += n
        # SVI gives the negative bound alone, so its parts are not told apart.
        total = np.asarray(losses)
        return np.stack([total, np.full_like(total, np.nan)], axis=1)

    return advance
