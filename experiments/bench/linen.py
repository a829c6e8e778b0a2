"""The same five steps as a user of flax.linen and optax writes them; log-densities and update rules are the package's.

Modes: "host", a jitted step driven from Python as in Flax's own examples (data on the device, state donated); "scan",
the same step in lax.scan.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaegan_jax import losses
from vaegan_jax.optimizer import Optimizer

State = dict[str, Any]
Step = Callable[[State, jax.Array, jax.Array], tuple[State, jax.Array]]
_NORMAL = nn.initializers.normal(0.02)
_SMALL = nn.initializers.normal(0.01)  # of weights and biases, as Kingma and Welling have it


def _norm(epsilon: float = 1e-5, affine: bool = True) -> nn.BatchNorm:
    def gain(*arguments: Any) -> jax.Array:
        return 1 + _NORMAL(*arguments)

    return nn.BatchNorm(False, momentum=0.9, epsilon=epsilon, use_scale=affine, use_bias=affine, scale_init=gain)


# The nets.


class Encoder(nn.Module):
    latents: int = 20

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = nn.tanh(nn.Dense(500, kernel_init=_SMALL, bias_init=_SMALL)(x))
        heads = nn.Dense(2 * self.latents, kernel_init=_SMALL, bias_init=_SMALL)(h)
        mean, log_var = jnp.split(heads, 2, axis=-1)
        return mean, log_var


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        h = nn.tanh(nn.Dense(500, kernel_init=_SMALL, bias_init=_SMALL)(z))
        return nn.Dense(784, kernel_init=_SMALL, bias_init=_SMALL)(h)


class MLPGenerator(nn.Module):
    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        init = nn.initializers.uniform(0.1)
        for _ in range(2):
            z = nn.relu(nn.Dense(1200, kernel_init=lambda *a: init(*a) - 0.05)(z))
        return nn.sigmoid(nn.Dense(784, kernel_init=lambda *a: init(*a) - 0.05)(z))


class MaxoutDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.uniform(0.01)
        h = nn.Dropout(0.2, deterministic=False)(x)
        for _ in range(2):
            h = nn.Dense(1200, kernel_init=lambda *a: init(*a) - 0.005)(h)
            h = h.reshape(-1, 5, 240).max(axis=1)
            h = nn.Dropout(0.5, deterministic=False)(h)
        return nn.Dense(1, kernel_init=lambda *a: init(*a) - 0.005)(h)[:, 0]


class ConvEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for width in (64, 128):
            x = nn.Conv(width, (5, 5), 2, use_bias=False, kernel_init=_NORMAL)(x)
            x = nn.relu(_norm()(x))
        x = nn.Dense(1024, use_bias=False, kernel_init=_NORMAL)(x.reshape(x.shape[0], -1))
        x = nn.relu(_norm()(x))
        mean, log_var = jnp.split(nn.Dense(256, kernel_init=_NORMAL)(x), 2, axis=-1)
        return mean, log_var


class ConvGenerator(nn.Module):
    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        norm = functools.partial(_norm, self.epsilon, self.affine)

        for width in (1024, 7 * 7 * 128):
            z = nn.relu(norm()(nn.Dense(width, use_bias=False, kernel_init=_NORMAL)(z)))
        h = z.reshape(-1, 7, 7, 128)
        h = nn.ConvTranspose(64, (5, 5), (2, 2), use_bias=False, kernel_init=_NORMAL)(h)
        h = nn.relu(norm()(h))
        return nn.sigmoid(nn.ConvTranspose(1, (5, 5), (2, 2), use_bias=False, kernel_init=_NORMAL)(h))


class ConvDiscriminator(nn.Module):
    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        norm = functools.partial(_norm, self.epsilon, self.affine)

        h = nn.leaky_relu(nn.Conv(64, (5, 5), 2, use_bias=False, kernel_init=_NORMAL)(x), 0.2)
        h = features = nn.leaky_relu(norm()(nn.Conv(128, (5, 5), 2, use_bias=False, kernel_init=_NORMAL)(h)), 0.2)
        h = nn.Dense(1024, use_bias=False, kernel_init=_NORMAL)(h.reshape(h.shape[0], -1))
        h = nn.leaky_relu(norm()(h), 0.2)
        return nn.Dense(1, use_bias=False, kernel_init=_NORMAL)(h)[:, 0], features


# The steps: state, x [B, 28, 28, 1] uint8 (WGAN: [5, B, ...]), key -> state, losses [2].


def _player(net: nn.Module, key: jax.Array, sample: jax.Array, optimizer: optax.GradientTransformation) -> State:
    variables = jax.jit(net.init)({"params": key, "dropout": key}, sample)
    return {
        "params": variables["params"],
        "stats": variables.get("batch_stats", {}),
        "optimizer": jax.jit(optimizer.init)(variables["params"]),
    }


def _apply(net: nn.Module, params: Any, stats: Any, x: Any, key: jax.Array | None = None) -> tuple[Any, Any]:
    rngs = None if key is None else {"dropout": key}
    out, changed = net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"], rngs=rngs)
    return out, changed.get("batch_stats", {})


def _descend(player: State, optimizer: optax.GradientTransformation, gradient: Any, stats: Any) -> State:
    updates, state = optimizer.update(gradient, player["optimizer"], player["params"])
    return {"params": optax.apply_updates(player["params"], updates), "stats": stats, "optimizer": state}


def _unit(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) / 255


def _vae(key: jax.Array) -> tuple[State, Step, int, int]:
    encoder, decoder, adam = Encoder(20), Decoder(), optax.adam(1e-3)
    keys = jax.random.split(key)
    params = {
        "encoder": jax.jit(encoder.init)(keys[0], jnp.zeros((1, 784)))["params"],
        "decoder": jax.jit(decoder.init)(keys[1], jnp.zeros((1, 20)))["params"],
    }

    def step(state: State, x: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        binarize, noise = jax.random.split(key)
        flat = _unit(x.reshape(x.shape[0], -1))
        flat = (jax.random.uniform(binarize, flat.shape) < flat).astype(jnp.float32)

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            mean: Any
            log_var: Any
            logits: Any
            mean, log_var = encoder.apply({"params": params["encoder"]}, flat)
            z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(noise, mean.shape)
            logits = decoder.apply({"params": params["decoder"]}, z)
            parts = jnp.stack([
                -losses.bernoulli_log_prob(logits, flat).mean(),
                losses.kl_standard_normal(mean, log_var).mean(),
            ])  # fmt: skip
            return parts.sum(), parts

        gradient, parts = jax.grad(loss, has_aux=True)(state["params"])
        updates, optimizer = adam.update(gradient, state["optimizer"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer}, parts

    return {"params": params, "optimizer": jax.jit(adam.init)(params)}, step, 100, 1


def _gan(key: jax.Array) -> tuple[State, Step, int, int]:
    g, d = MLPGenerator(), MaxoutDiscriminator()
    # Goodfellow's schedules are optax's trace and scale with rates that move; ours has them as plain data.
    sgd = Optimizer(
        rule="sgd",
        learning_rate=0.1,
        decay=1.000004,
        floor=1e-6,
        momentum=0.5,
        final_momentum=0.7,
        momentum_from=1,
        momentum_to=250,
    ).transformation(500)
    keys = jax.random.split(key)
    state = {"g": _player(g, keys[0], jnp.zeros((1, 100)), sgd), "d": _player(d, keys[1], jnp.zeros((1, 784)), sgd)}

    def step(state: State, x: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        latent, *drop = jax.random.split(key, 3)
        flat = _unit(x.reshape(x.shape[0], -1))
        z = jax.random.uniform(latent, (x.shape[0], 100), minval=-(3**0.5), maxval=3**0.5)

        def d_loss(params: Any) -> jax.Array:
            fake = g.apply({"params": state["g"]["params"]}, z)
            real, _ = _apply(d, params, {}, flat, drop[0])
            judged, _ = _apply(d, params, {}, fake, drop[1])
            return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(judged).mean())

        def g_loss(params: Any) -> jax.Array:
            judged, _ = _apply(d, state["d"]["params"], {}, g.apply({"params": params}, z), drop[1])
            return jax.nn.softplus(-judged).mean()

        d_value, d_gradient = jax.value_and_grad(d_loss)(state["d"]["params"])
        g_value, g_gradient = jax.value_and_grad(g_loss)(state["g"]["params"])
        new = {"g": _descend(state["g"], sgd, g_gradient, {}), "d": _descend(state["d"], sgd, d_gradient, {})}
        return new, jnp.stack([d_value, g_value])

    return state, step, 100, 1


def _critic(d: nn.Module, params: Any, stats: Any, x: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
    """Logits of real and of fake images, each batch with its own statistics."""
    (real, _), stats = _apply(d, params, stats, x)
    (judged, _), stats = _apply(d, params, stats, fake)
    return real, judged, stats


def _dcgan(key: jax.Array) -> tuple[State, Step, int, int]:
    g, d = ConvGenerator(1e-8, False), ConvDiscriminator(1e-8, False)
    adam = optax.chain(
        optax.add_decayed_weights(2.5e-5),
        optax.adam(optax.linear_schedule(2e-4, 0.0, 100 * 195, 100 * 195), b1=0.5),
    )
    keys = jax.random.split(key)
    state = {
        "g": _player(g, keys[0], jnp.zeros((2, 100)), adam),
        "d": _player(d, keys[1], jnp.zeros((2, 28, 28, 1)), adam),
    }

    def step(state: State, x: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        keys, x = jax.random.split(key), _unit(x)
        z = [jax.random.uniform(k, (x.shape[0], 100), minval=-1.0) for k in keys]

        def d_loss(params: Any) -> tuple[jax.Array, Any]:
            fake, _ = _apply(g, state["g"]["params"], state["g"]["stats"], z[0])
            real, judged, stats = _critic(d, params, state["d"]["stats"], x, fake)
            return (jax.nn.softplus(-real) + jax.nn.softplus(judged)).mean(), stats

        (d_value, d_stats), gradient = jax.value_and_grad(d_loss, has_aux=True)(state["d"]["params"])
        moved = _descend(state["d"], adam, gradient, d_stats)

        def g_loss(params: Any) -> tuple[jax.Array, Any]:
            fake, stats = _apply(g, params, state["g"]["stats"], z[1])
            (judged, _), _ = _apply(d, moved["params"], moved["stats"], fake)
            return jax.nn.softplus(-judged).mean(), stats

        (g_value, g_stats), gradient = jax.value_and_grad(g_loss, has_aux=True)(state["g"]["params"])
        return {"g": _descend(state["g"], adam, gradient, g_stats), "d": moved}, jnp.stack([d_value, g_value])

    return state, step, 128, 1


def _wgan(key: jax.Array) -> tuple[State, Step, int, int]:
    g, d, rms = ConvGenerator(), ConvDiscriminator(), optax.rmsprop(5e-5, decay=0.99, eps=1e-8, eps_in_sqrt=False)
    keys = jax.random.split(key)
    state = {
        "g": _player(g, keys[0], jnp.zeros((2, 100)), rms),
        "d": _player(d, keys[1], jnp.zeros((2, 28, 28, 1)), rms),
    }

    def step(state: State, xs: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        critic_key, generator_key = jax.random.split(key)

        def critic(player: State, args: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            x, key = args
            z = jax.random.normal(key, (x.shape[0], 100))

            def loss(params: Any) -> tuple[jax.Array, Any]:
                fake, _ = _apply(g, state["g"]["params"], state["g"]["stats"], z)
                real, judged, stats = _critic(d, params, player["stats"], _unit(x), fake)
                return (judged - real).mean(), stats

            (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(player["params"])
            player = _descend(player, rms, gradient, stats)
            return player | {"params": jax.tree.map(lambda p: jnp.clip(p, -0.01, 0.01), player["params"])}, value

        # Written out: this loop of five is where a scan would be slow on a CPU.
        player, values = state["d"], []
        for args in zip(xs, jax.random.split(critic_key, len(xs)), strict=True):
            player, value = critic(player, args)
            values.append(value)
        z = jax.random.normal(generator_key, (xs.shape[1], 100))

        def g_loss(params: Any) -> tuple[jax.Array, Any]:
            fake, stats = _apply(g, params, state["g"]["stats"], z)
            (judged, _), _ = _apply(d, player["params"], player["stats"], fake)
            return -judged.mean(), stats

        (g_value, g_stats), gradient = jax.value_and_grad(g_loss, has_aux=True)(state["g"]["params"])
        new = {"g": _descend(state["g"], rms, gradient, g_stats), "d": player}
        return new, jnp.stack([jnp.stack(values).mean(), g_value])

    return state, step, 64, 5


def _vaegan(key: jax.Array) -> tuple[State, Step, int, int]:
    e, g, d = ConvEncoder(), ConvGenerator(), ConvDiscriminator()
    rms = optax.rmsprop(3e-4, decay=0.9, eps=1e-8, eps_in_sqrt=False)
    keys = jax.random.split(key, 3)
    state = {
        "e": _player(e, keys[0], jnp.zeros((2, 28, 28, 1)), rms),
        "g": _player(g, keys[1], jnp.zeros((2, 128)), rms),
        "d": _player(d, keys[2], jnp.zeros((2, 28, 28, 1)), rms),
    }

    def step(state: State, x: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
        noise_key, prior_key = jax.random.split(key)
        x = _unit(x)
        noise, z_p = (jax.random.normal(k, (x.shape[0], 128)) for k in (noise_key, prior_key))

        def forward(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            (mean, log_var), e_stats = _apply(e, params["e"], state["e"]["stats"], x)
            rebuilt, stats = _apply(g, params["g"], state["g"]["stats"], mean + jnp.exp(0.5 * log_var) * noise)
            fake, g_stats = _apply(g, params["g"], stats, z_p)
            (real, features), stats = _apply(d, params["d"], state["d"]["stats"], x)
            (judged_rebuilt, rebuilt_features), stats = _apply(d, params["d"], stats, rebuilt)
            (judged_fake, _), d_stats = _apply(d, params["d"], stats, fake)
            out = {
                "prior": losses.kl_standard_normal(mean, log_var).mean(),
                "feature": -losses.gaussian_log_prob(rebuilt_features, 0.0, features).mean(),
                "gan": sum(jax.nn.softplus(v).mean() for v in (-real, judged_rebuilt, judged_fake)),
                "fool": -sum(jax.nn.softplus(v).mean() for v in (judged_rebuilt, judged_fake)),
            }
            return out, {"e": e_stats, "g": g_stats, "d": d_stats}

        params = {name: player["params"] for name, player in state.items()}
        objectives = {
            "e": lambda out: out["prior"] + out["feature"],
            "g": lambda out: 1e-3 * out["feature"] + out["fool"],
            "d": lambda out: out["gan"],
        }
        gradients = {}
        for name, objective in objectives.items():

            def loss(own: Any, name: str = name, objective: Any = objective) -> tuple[jax.Array, Any]:
                out, stats = forward(params | {name: own})
                return objective(out), (out, stats)

            gradients[name], (out, stats) = jax.grad(loss, has_aux=True)(params[name])
        new = {name: _descend(state[name], rms, gradients[name], stats[name]) for name in state}
        return new, jnp.stack([out["gan"], out["feature"]])

    return state, step, 64, 1


STEPS = {"vae": _vae, "gan": _gan, "dcgan": _dcgan, "wgan": _wgan, "vaegan": _vaegan}


def build(task: str, mode: str, x: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """advance(n): n steps; their losses [n, 2]."""
    init_key, order_key, step_key = jax.random.split(jax.random.key(seed), 3)
    state, step, batch, group = STEPS[task](init_key)
    data = jnp.asarray(x)
    order = jax.random.permutation(order_key, len(x))

    def numbered(data: jax.Array, order: jax.Array, state: State, number: jax.Array) -> tuple[State, jax.Array]:
        rows = order[(number * batch * group + jnp.arange(batch * group)) % len(x)]
        images = data[rows]
        images = images.reshape(group, batch, *images.shape[1:]) if group > 1 else images
        return step(state, images, jax.random.fold_in(step_key, number))

    def scanned(data: jax.Array, order: jax.Array, state: State, numbers: jax.Array) -> tuple[State, jax.Array]:
        return jax.lax.scan(functools.partial(numbered, data, order), state, numbers)

    one, many = (jax.jit(f, donate_argnums=2) for f in (numbered, scanned))
    done = 0

    def advance(n: int) -> np.ndarray:
        nonlocal state, done
        if mode == "scan":
            state, values = many(data, order, state, jnp.arange(done, done + n))
        else:
            values = []
            for i in range(done, done + n):
                state, value = one(data, order, state, jnp.int32(i))
                values.append(value)
        done += n
        return np.asarray(values if mode == "scan" else jnp.stack(values))

    return advance
