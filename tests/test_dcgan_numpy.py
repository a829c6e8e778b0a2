"""Two steps of DCGAN equal float64 NumPy, forward and backward, from the nets' arithmetic to Adam's."""

import dataclasses

import chex
import jax
import numpy as np
import optax

from vaegan_jax import gan, nets

SHAPE, K, B = (8, 8, 1), 3, 4
RECIPE = gan.dcgan()
# Larger than the recipe's, so that both show; halfway down the slope of the rate after one update.
ADAM = dataclasses.replace(RECIPE.generator_optimizer, learning_rate=0.01, l2=0.1, linear_from=0, linear_to=2)
WIDTHS = {"channels": (3, 2), "hidden": (4,), "kernel_init": nets.Normal(0.3)}
CONFIG = dataclasses.replace(
    RECIPE,
    latents=K,
    generator=dataclasses.replace(RECIPE.generator, **WIDTHS),
    discriminator=dataclasses.replace(RECIPE.discriminator, **WIDTHS),
    generator_optimizer=ADAM,
    discriminator_optimizer=ADAM,
    batch_size=B,
)


# Every layer gives its output and the way back: slope of the output -> (slope of x, slope of the weights if any).


def dense(x, w):
    return x @ w, lambda g: (g @ w.T, x.T @ g)


def convolve(x, w, stride, pads):
    """Taps one by one over x in a frame of zeros, `pads` = (before, after) on both axes."""
    padded, size = np.pad(x, ((0, 0), pads, pads, (0, 0))), len(w)
    out = (padded.shape[1] - size) // stride + 1
    places = {
        (u, v): (
            slice(None),
            slice(u, u + (out - 1) * stride + 1, stride),
            slice(v, v + (out - 1) * stride + 1, stride),
        )
        for u in range(size)
        for v in range(size)
    }

    def back(g):
        dx, dw = np.zeros_like(padded), np.zeros_like(w)
        for tap, place in places.items():
            dx[place] += g @ w[tap].T
            dw[tap] = np.einsum("bijc,bijf->cf", padded[place], g)
        end = padded.shape[1] - pads[1]
        return dx[:, pads[0] : end, pads[0] : end], dw

    return sum(padded[place] @ w[tap] for tap, place in places.items()), back


def halve(x, w):
    """5x5, stride 2, SAME: 3 rows of zeros for an even size, the odd one after."""
    return convolve(x, w, 2, (1, 2))


def double(x, w):
    """5x5, stride 2, SAME, transposed: x between zeros, then a plain convolution to twice the size."""
    n = x.shape[1]
    spread = np.zeros((len(x), 2 * n - 1, 2 * n - 1, x.shape[3]))
    spread[:, ::2, ::2] = x
    y, back = convolve(spread, w, 1, (3, 2))

    def through(g):
        dx, dw = back(g)
        return dx[:, ::2, ::2], dw

    return y, through


def normalise(x, _):
    """By the batch's own mean and variance; no gain, no shift."""
    axes = tuple(range(x.ndim - 1))
    sd = np.sqrt(x.var(axis=axes) + 1e-8)
    y = (x - x.mean(axis=axes)) / sd
    return y, lambda g: ((g - g.mean(axis=axes) - y * (g * y).mean(axis=axes)) / sd, None)


def rectify(x, slope):
    factor = np.where(x > 0, 1.0, slope)
    return x * factor, lambda g: (g * factor, None)


def reshape(x, shape):
    return x.reshape(len(x), *shape), lambda g: (g.reshape(x.shape), None)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def squash(x, _):
    y = sigmoid(x)
    return y, lambda g: (g * y * (1 - y), None)


GENERATOR = [
    (dense, "hidden0"), (normalise, None), (rectify, 0.0),
    (dense, "hidden1"), (normalise, None), (rectify, 0.0), (reshape, (2, 2, 3)),
    (double, "conv0"), (normalise, None), (rectify, 0.0),
    (double, "output"), (squash, None),
]  # fmt: skip
DISCRIMINATOR = [
    (halve, "conv0"), (rectify, 0.2),
    (halve, "conv1"), (normalise, None), (rectify, 0.2), (reshape, (8,)),
    (dense, "hidden0"), (normalise, None), (rectify, 0.2),
    (dense, "output"), (reshape, ()),
]  # fmt: skip


def run(net, weights, x):
    """Output, and the way back: its slope -> (slope of x, slopes of the weights)."""
    ways = []
    for layer, option in net:
        x, back = layer(x, weights.get(option, option) if isinstance(option, str) else option)
        ways.append((option, back))

    def backward(g):
        slopes = {}
        for option, back in reversed(ways):
            g, slope = back(g)
            if slope is not None:
                slopes[option] = slope
        return g, slopes

    return x, backward


class Adam:
    """Kingma & Ba 2015, algorithm 1, with beta1 .5; l2 * weight is part of the gradient, the rate falls linearly."""

    def __init__(self, weights):
        self.weights, self.t = weights, 0
        self.m, self.v = ({k: np.zeros_like(w) for k, w in weights.items()} for _ in range(2))

    def descend(self, slopes):
        rate = 0.01 * (1 - self.t / 2)
        self.t += 1
        for k, w in self.weights.items():
            g = slopes[k] + 0.1 * w
            self.m[k] = 0.5 * self.m[k] + 0.5 * g
            self.v[k] = 0.999 * self.v[k] + 0.001 * g**2
            m, v = self.m[k] / (1 - 0.5**self.t), self.v[k] / (1 - 0.999**self.t)
            self.weights[k] = w - rate * m / (np.sqrt(v) + 1e-8)


def kernels(tree):
    """One kernel a layer is all that either net has: no bias, no gain."""
    assert all(set(layer) == {"kernel"} for layer in tree.values())
    return {name: np.asarray(layer["kernel"], np.float64) for name, layer in tree.items()}


def test_two_steps_equal_float64_numpy():
    """D descends -log D(x) - log(1 - D(G(z))), then G -log D(G(z')) against the new D with noise of its own."""
    rng = np.random.default_rng(0)
    state = gan.init(CONFIG, jax.random.key(1), SHAPE)
    g, d = Adam(kernels(state.generator.params)), Adam(kernels(state.discriminator.params))
    for t in range(2):
        x = rng.integers(0, 256, (B, *SHAPE), np.uint8)
        first, second = (  # the documented keys of both updates, then the first of the four of each
            np.float64(jax.random.uniform(jax.random.split(k, 4)[0], (B, K), minval=-1, maxval=1))
            for k in jax.random.split(jax.random.key(20 + t))
        )
        state, metrics = gan.train_step(CONFIG, state, {"x": x}, jax.random.key(20 + t))

        real, real_back = run(DISCRIMINATOR, d.weights, x / 255)
        fake, fake_back = run(DISCRIMINATOR, d.weights, run(GENERATOR, g.weights, first)[0])
        d_loss = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
        slopes = [real_back((sigmoid(real) - 1) / B)[1], fake_back(sigmoid(fake) / B)[1]]
        d.descend({k: slopes[0][k] + slopes[1][k] for k in d.weights})

        images, make_back = run(GENERATOR, g.weights, second)
        fake, fake_back = run(DISCRIMINATOR, d.weights, images)
        g_loss = -np.log(sigmoid(fake)).mean()
        g.descend(make_back(fake_back((sigmoid(fake) - 1) / B)[0])[1])

        np.testing.assert_allclose(metrics["discriminator_loss"], d_loss, rtol=1e-4)
        np.testing.assert_allclose(metrics["generator_loss"], g_loss, rtol=1e-4)
        for player, expected in ((state.generator, g), (state.discriminator, d)):
            # The moments hold the gradients, of which Adam's first step keeps the sign alone.
            for name, values in (("mu", expected.m), ("nu", expected.v)):
                found = kernels(optax.tree_utils.tree_get(player.opt_state, name))
                chex.assert_trees_all_close(found, values, rtol=1e-3, atol=1e-5 if name == "mu" else 1e-8)
            chex.assert_trees_all_close(kernels(player.params), expected.weights, rtol=0, atol=1e-4)
