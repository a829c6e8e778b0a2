"""GAN's released recipe (Goodfellow et al. 2014) in float64 NumPy: G tanh-sigmoid, D maxout-maxout-linear."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import adversarial, gan, nets

D, K, B = 3, 2, 6
GENERATOR = nets.MLPGenerator(hidden=(4,), activation=jnp.tanh, kernel_init=nets.Normal(0.6))
MAXOUT = nets.MaxoutDiscriminator(hidden=(4, 3), pieces=2, keep=(1.0, 1.0, 1.0), kernel_init=nets.Normal(0.6))
CONFIG = gan.Config(latents=K, generator=GENERATOR, discriminator=MAXOUT, batch_size=B)
GRADIENTS = jax.jit(adversarial.gradients, static_argnums=0)


@pytest.fixture(scope="module")
def state():
    return gan.init(CONFIG, jax.random.key(1), (D,))


def data(seed):
    return np.random.default_rng(seed).uniform(size=(B, D)).astype(np.float32)


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def maxout(layer, x):
    p = (x @ layer["pieces"]["kernel"] + layer["pieces"]["bias"]).reshape(len(x), 2, -1)
    return p.max(axis=1), p.argmax(axis=1)


def maxout_back(layer, x, chosen, g):
    gp = np.zeros((len(x), 2, g.shape[1]))
    np.put_along_axis(gp, chosen[:, None], g[:, None], axis=1)
    gp = gp.reshape(len(x), -1)
    return {"pieces": {"kernel": x.T @ gp, "bias": gp.sum(axis=0)}}, gp @ layer["pieces"]["kernel"].T


def judge(d, x):
    h0, c0 = maxout(d["hidden0"], x)
    h1, c1 = maxout(d["hidden1"], h0)
    return (h1 @ d["output"]["kernel"] + d["output"]["bias"])[:, 0], (h0, c0, h1, c1)


def judge_back(d, x, kept, g):
    h0, c0, h1, c1 = kept
    g = g[:, None]
    grads = {"output": {"kernel": h1.T @ g, "bias": g.sum(axis=0)}}
    grads["hidden1"], g = maxout_back(d["hidden1"], h0, c1, g @ d["output"]["kernel"].T)
    grads["hidden0"], g = maxout_back(d["hidden0"], x, c0, g)
    return grads, g


def goodfellow(g, d, x, z):
    """Both gradients at the same parameters from one z batch, 0.5 * BCE for D, -log D(G(z)) for G; both losses."""
    h = np.tanh(z @ g["hidden0"]["kernel"] + g["hidden0"]["bias"])
    fake = sigmoid(h @ g["output"]["kernel"] + g["output"]["bias"])
    (r, kept_r), (f, kept_f) = judge(d, x), judge(d, fake)
    up, _ = judge_back(d, x, kept_r, 0.5 * (sigmoid(r) - 1) / B)
    down, _ = judge_back(d, fake, kept_f, 0.5 * sigmoid(f) / B)
    _, into = judge_back(d, fake, kept_f, (sigmoid(f) - 1) / B)
    into = into * fake * (1 - fake)
    dh = (into @ g["output"]["kernel"].T) * (1 - h**2)
    g_grads = {
        "hidden0": {"kernel": z.T @ dh, "bias": dh.sum(axis=0)},
        "output": {"kernel": h.T @ into, "bias": into.sum(axis=0)},
    }
    d_loss = -0.5 * (np.log(sigmoid(r)) + np.log(1 - sigmoid(f))).mean()
    return g_grads, jax.tree.map(np.add, up, down), d_loss, -np.log(sigmoid(f)).mean()


def test_three_steps_are_goodfellows_recipe(state):
    """v <- m v - lr g, m = .5, lr = .1 / 1.000004^t; one update of both from the same parameters."""
    g, d = double((state.generator.params, state.discriminator.params))
    speed = jax.tree.map(np.zeros_like, (g, d))
    after = state
    for t in range(3):
        x = data(t)
        z_key = jax.random.split(jax.random.key(50 + t), 4)[0]
        z = np.asarray(jax.random.uniform(z_key, (B, K), minval=-np.sqrt(3), maxval=np.sqrt(3)), np.float64)
        *grads, d_loss, g_loss = goodfellow(g, d, np.float64(x), z)
        rate = 0.1 / 1.000004**t
        speed = jax.tree.map(lambda v, gr, rate=rate: 0.5 * v - rate * gr, speed, tuple(grads))
        g, d = jax.tree.map(np.add, (g, d), speed)
        after, metrics = gan.train_step(CONFIG, after, {"x": x}, jax.random.key(50 + t))
        assert int(after.step) == t + 1
        found = [metrics[k] for k in ("discriminator_loss", "generator_loss", "value")]
        np.testing.assert_allclose(found, [d_loss, g_loss, -2 * d_loss], rtol=1e-5)
        chex.assert_trees_all_close(double(after.generator.params), g, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(double(after.discriminator.params), d, rtol=1e-5, atol=1e-6)


def test_dropout_in_the_discriminator_is_on_while_the_generator_trains(state):
    """no_drop_in_d_for_g=False: G's gradient is that of a D with the masks of the fake batch."""
    net = dataclasses.replace(MAXOUT, keep=(0.8, 0.5, 0.5))
    batch, key = {"x": data(0)}, jax.random.key(2)
    (found, _), (found_d, _), _ = GRADIENTS(
        dataclasses.replace(CONFIG, discriminator=net), state, batch, jax.random.clone(key)
    )
    (dry, _), (dry_d, _), _ = GRADIENTS(CONFIG, state, batch, jax.random.clone(key))
    z_key, real_key, fake_key, _ = jax.random.split(key, 4)
    z = jax.random.uniform(z_key, (B, K), minval=-np.sqrt(3), maxval=np.sqrt(3))

    def logits(d, x, key):
        return net.apply({"params": d}, x, None, train=True, rngs={"dropout": jax.random.clone(key)})[0]

    def make(g):
        return jax.nn.sigmoid(GENERATOR.apply({"params": g}, z, (D,)))

    def g_loss(g, d, key):
        return jax.nn.softplus(-logits(d, make(g), key)).mean()

    def d_loss(d, g):
        real, fake = logits(d, batch["x"], real_key), logits(d, make(g), fake_key)
        return 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(fake)).mean()

    g, d = state.generator.params, state.discriminator.params
    g_gradient = jax.jit(jax.grad(g_loss))
    chex.assert_trees_all_close(found, g_gradient(g, d, fake_key), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(found_d, jax.jit(jax.grad(d_loss))(d, g), rtol=1e-4, atol=1e-6)
    for other in (dry, g_gradient(g, d, real_key)):
        assert abs(found["output"]["kernel"] - other["output"]["kernel"]).max() > 1e-3
    assert abs(found_d["output"]["kernel"] - dry_d["output"]["kernel"]).max() > 1e-3
