"""Two steps of VAE/GAN (Larsen et al. 2016, algorithm 1) equal float64 NumPy, forward and backward, and RMSProp's."""

import dataclasses

import chex
import flax.linen as nn
import jax
import numpy as np
import optax

from vaegan_jax import nets, vaegan

D, K, B = 4, 2, 5
RATE, DECAY, GAMMA = 0.01, 0.9, 0.3
# Scales at which every term shows in every slope: RMSProp's first step keeps the sign alone.
PLAIN = {"kernel_init": nets.Normal(0.5), "bias_init": nets.Normal(0.3)}
RULE = dataclasses.replace(vaegan.Config().encoder_optimizer, learning_rate=RATE)
CONFIG = dataclasses.replace(
    vaegan.vectors(D),
    latents=K,
    encoder=nets.MLPEncoder(hidden=(6,), activation=nn.relu, **PLAIN),
    decoder=nets.MLPDecoder(hidden=(7,), activation=nn.relu, **PLAIN),
    discriminator=nets.MLPDiscriminator(hidden=(5, 3), **PLAIN),  # Dis_l: hidden0, leaky ReLU .2
    gamma=GAMMA,
    encoder_optimizer=RULE,
    decoder_optimizer=RULE,
    discriminator_optimizer=RULE,
    batch_size=B,
)
NAMES = ("encoder", "decoder", "discriminator")


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def dense_back(layer, x, g):
    """(slope of x, slopes of the layer) from the slope of the output."""
    return g @ layer["kernel"].T, {"kernel": x.T @ g, "bias": g.sum(axis=0)}


def mlp(net, x):
    """Encoder and decoder: one ReLU layer. Output, and the way back."""
    h = dense(net["hidden0"], x)

    def back(g):
        g, output = dense_back(net["output"], np.maximum(h, 0), g)
        g, hidden = dense_back(net["hidden0"], x, g * (h > 0))
        return g, {"hidden0": hidden, "output": output}

    return dense(net["output"], np.maximum(h, 0)), back


def leaky(h):
    return np.where(h > 0, h, 0.2 * h)


def judge(net, x):
    """Logit, Dis_l, and the way back from the slopes of either."""
    h0 = dense(net["hidden0"], x)
    h1 = dense(net["hidden1"], leaky(h0))

    def back(g_logit=0.0, g_feature=0.0):
        g, output = dense_back(net["output"], leaky(h1), np.zeros((len(x), 1)) + g_logit)
        g, second = dense_back(net["hidden1"], leaky(h0), g * np.where(h1 > 0, 1, 0.2))
        g, first = dense_back(net["hidden0"], x, (g + g_feature) * np.where(h0 > 0, 1, 0.2))
        return g, {"hidden0": first, "hidden1": second, "output": output}

    return dense(net["output"], leaky(h1)), leaky(h0), back


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def add(*trees):
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


def by_the_paper(enc, dec, dis, x, noise, z_p):
    """Slopes of the three networks' own losses, and the three losses."""
    heads, enc_back = mlp(enc, x)
    mean, log_var = heads[:, :K], heads[:, K:]
    sd = np.exp(log_var / 2)
    rebuilt, rebuilt_back = mlp(dec, mean + sd * noise)
    sampled, sampled_back = mlp(dec, z_p)
    (real, like, real_back), (again, like_rebuilt, again_back), (fake, _, fake_back) = (
        judge(dis, images) for images in (x, rebuilt, sampled)
    )
    prior = 0.5 * (mean**2 + sd**2 - 1 - log_var).sum() / B
    llike = 0.5 * ((like - like_rebuilt) ** 2 + np.log(2 * np.pi)).sum() / B
    game = -(np.log(sigmoid(real)) + np.log(1 - sigmoid(again)) + np.log(1 - sigmoid(fake))).mean()

    # L_GAN in Dis; L_llike in the rebuilt x and, through it, in Dec and z.
    game_again, again_slopes = again_back(g_logit=sigmoid(again) / B)
    game_fake, fake_slopes = fake_back(g_logit=sigmoid(fake) / B)
    dis_slopes = add(real_back(g_logit=(sigmoid(real) - 1) / B)[1], again_slopes, fake_slopes)
    into_rebuilt, _ = again_back(g_feature=(like_rebuilt - like) / B)
    into_z, llike_slopes = rebuilt_back(into_rebuilt)
    minus_game = add(rebuilt_back(-game_again)[1], sampled_back(-game_fake)[1])
    dec_slopes = add(jax.tree.map(lambda s: GAMMA * s, llike_slopes), minus_game)

    # L_prior + L_llike, z = mean + sd noise.
    into_heads = [into_z + mean / B, into_z * noise * sd / 2 + (sd**2 - 1) / 2 / B]
    _, enc_slopes = enc_back(np.concatenate(into_heads, axis=1))
    return (enc_slopes, dec_slopes, dis_slopes), {"prior": prior, "llike": llike, "gan": game}


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def test_two_steps_equal_float64_numpy():
    """Enc descends L_prior + L_llike, Dec gamma L_llike - L_GAN, Dis L_GAN, all three from the same parameters."""
    rng = np.random.default_rng(0)
    state = vaegan.init(CONFIG, jax.random.key(1), (D,))
    weights = tuple(float64(getattr(state, name).params) for name in NAMES)
    square = jax.tree.map(np.zeros_like, weights)
    for t in range(2):
        x = rng.normal(size=(B, D)).astype(np.float32)
        noise_key, prior_key, *_ = jax.random.split(jax.random.key(30 + t), 5)  # the documented keys of a step
        noise, z_p = (np.float64(jax.random.normal(k, (B, K))) for k in (noise_key, prior_key))
        state, metrics = vaegan.train_step(CONFIG, state, {"x": x}, jax.random.key(30 + t))

        slopes, losses = by_the_paper(*weights, np.float64(x), noise, z_p)
        square = jax.tree.map(lambda v, g: DECAY * v + (1 - DECAY) * g**2, square, slopes)
        weights = jax.tree.map(lambda w, g, v: w - RATE * g / (np.sqrt(v) + 1e-8), weights, slopes, square)
        for name, value in losses.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
        for name, expected, v in zip(NAMES, weights, square, strict=True):
            player = getattr(state, name)
            found = float64(optax.tree_utils.tree_get(player.opt_state, "nu"))
            chex.assert_trees_all_close(found, v, rtol=1e-3, atol=1e-8)
            chex.assert_trees_all_close(float64(player.params), expected, rtol=0, atol=2e-5)
