"""VAE/GAN: each network descends its own terms and no other's; the options do what the paper or its code says."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import fit, nets, vaegan
from vaegan_jax import state as players

SHAPE, B, K = (8, 8, 1), 6, 2
NAMES = ("encoder", "decoder", "discriminator")
MLP = {
    "encoder": nets.MLPEncoder(hidden=(5,)),
    "decoder": nets.MLPDecoder(hidden=(5,), norm="batch"),
    "discriminator": nets.MLPDiscriminator(hidden=(7, 4)),
}
CONV = {
    "encoder": nets.ConvEncoder(channels=(3,), hidden=6, kernel=(3, 3)),
    "decoder": nets.ConvDecoder(channels=(4,), hidden=(), kernel=(3, 3)),
    "discriminator": nets.ConvDiscriminator(
        channels=(3,), hidden=(5,), kernel=(3, 3), feature_layer="conv0_activation", kernel_init=nets.Normal(0.2)
    ),
}
CONFIG = vaegan.Config(latents=K, batch_size=B, gamma=0.1, **MLP)
LOG_2PI = float(np.log(2 * np.pi))
X = np.random.default_rng(0).integers(0, 256, (B, *SHAPE), np.uint8)
BATCH = {"x": X}


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def layer(name):
    return {"discriminator": dataclasses.replace(MLP["discriminator"], feature_layer=name)}


@pytest.fixture(scope="module")
def state():
    return vaegan.init(CONFIG, jax.random.key(1), SHAPE)


def gradients(config, state):
    """Not jitted: bits are then those of the same operations, whatever the config."""
    return vaegan.gradients(config, state, BATCH, jax.random.key(7))


def terms(config, state, params):
    """The paper's losses and the batch statistics after them, from the three nets alone."""
    noise_key, prior_key, *_ = jax.random.split(jax.random.key(7), 5)
    x = X / np.float32(255)
    x = 2 * x - 1 if config.output == "tanh" else x
    squash = jnp.tanh if config.output == "tanh" else jax.nn.sigmoid
    stats = {name: getattr(state, name).batch_stats for name in NAMES}

    def net(name, *args):
        variables = {"params": params[name], "batch_stats": stats[name]}
        out, stats[name] = players.apply(getattr(config, name), variables, *args, train=True)
        return out

    mean, log_var = net("encoder", x, K)
    rebuilt = squash(net("decoder", mean + jnp.exp(log_var / 2) * jax.random.normal(noise_key, (B, K)), SHAPE))
    made = squash(net("decoder", jax.random.normal(prior_key, (B, K)), SHAPE))
    if config.one_batch:
        features, like = jnp.split(net("discriminator", jnp.concatenate([x, rebuilt]))[1], 2)
        real, again, fake = jnp.split(net("discriminator", jnp.concatenate([x, rebuilt, made]))[0], 3)
    else:
        real, features = net("discriminator", x)
        again, like = net("discriminator", rebuilt)
        fake, _ = net("discriminator", made)
    d_real, d_again, d_fake = (jax.nn.sigmoid(v) for v in (real, again, fake))
    found = {
        "prior": 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1).mean(),
        "llike": 0.5 * ((features - like) ** 2 + LOG_2PI).reshape(B, -1).sum(axis=1).mean(),
        "real": -jnp.log(d_real).mean(),
        "fake": -jnp.log(1 - d_fake).mean(),
        "again": -jnp.log(1 - d_again).mean(),
        "fooling": -jnp.log(d_fake).mean() - jnp.log(d_again).mean(),
        "pixel_error": ((rebuilt - x) ** 2).mean(),
        "d": (d_real.mean(), d_again.mean(), d_fake.mean()),
    }
    return found, stats


def gradient(config, state, name, loss):
    """Of loss(terms) in one network's parameters; the other two are behind stop_gradient."""
    others = jax.lax.stop_gradient({other: getattr(state, other).params for other in NAMES})
    return jax.grad(lambda p: loss(terms(config, state, others | {name: p})[0]))(getattr(state, name).params)


def close(a, b):
    chex.assert_trees_all_close(a, b, rtol=2e-3, atol=2e-5)


GRADIENTS = jax.jit(vaegan.gradients, static_argnums=0)
LOSSES = {  # the head of section 3 and algorithm 1
    "encoder": lambda t: t["prior"] + t["llike"],
    "decoder": lambda t: 0.1 * t["llike"] - (t["real"] + t["fake"] + t["again"]),
    "discriminator": lambda t: t["real"] + t["fake"] + t["again"],
}


@pytest.mark.parametrize(
    "case",
    [config(), config(output="tanh", **CONV), config(one_batch=True, **CONV)],
    ids=["mlp", "conv", "one batch"],
)
def test_each_gradient_is_that_of_its_own_loss(case):
    state = vaegan.init(case, jax.random.key(1), SHAPE)
    found, stats, metrics = GRADIENTS(case, state, BATCH, jax.random.key(7))

    @jax.jit
    def by_the_paper(state):
        grads = {name: gradient(case, state, name, loss) for name, loss in LOSSES.items()}
        return grads, *terms(case, state, {name: getattr(state, name).params for name in NAMES})

    grads, expected, expected_stats = by_the_paper(state)
    for name in NAMES:
        close(found[name], grads[name])
        np.testing.assert_allclose(metrics[f"{name}_gradient_norm"], players.gradient_norm(found[name]), rtol=1e-5)
    chex.assert_trees_all_close(stats, expected_stats, rtol=1e-4, atol=1e-6)
    t = jax.tree.map(float, expected)
    values = {
        "prior": t["prior"], "llike": t["llike"], "gan": t["real"] + t["fake"] + t["again"],
        "pixel_error": t["pixel_error"], "real_cost": t["real"], "fake_cost": 0.5 * (t["fake"] + t["again"]),
        "d_real": t["d"][0], "d_reconstruction": t["d"][1], "d_fake": t["d"][2],
    }  # fmt: skip
    assert set(metrics) == {*values, *(f"{name}_gradient_norm" for name in NAMES)}
    for name, value in values.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_one_batch_changes_nothing_but_what_normalises():
    """MLP has no normalisation in Dis; with it, only shared statistics see that fakes are paler."""
    state = vaegan.init(CONFIG, jax.random.key(1), SHAPE)
    for change in ({}, {"reconstructions_as_fakes": False}):
        own, shared = (gradients(config(one_batch=one, **change), state) for one in (False, True))
        close(own, shared)
    own, shared = config(**CONV), config(one_batch=True, **CONV)
    state = vaegan.init(own, jax.random.key(1), SHAPE)
    d_own, d_shared = (GRADIENTS(case, state, BATCH, jax.random.key(7))[0]["discriminator"] for case in (own, shared))
    assert players.gradient_norm(jax.tree.map(jnp.subtract, d_own, d_shared)) > 0.01


def test_the_encoder_has_no_gan_term(state):
    base = gradients(CONFIG, state)[0]["encoder"]
    for change in (
        {"gan_weight": 5.0}, {"adversarial": "non_saturating"}, {"reconstructions_as_fakes": False}, {"gamma": 9.0},
    ):  # fmt: skip
        chex.assert_trees_all_equal(gradients(config(**change), state)[0]["encoder"], base)


def test_the_discriminator_has_no_likelihood_term(state):
    base = gradients(CONFIG, state)[0]["discriminator"]
    for change in ({"gamma": 50.0}, {"gamma": 0.0}, {"gan_weight": 3.0}, layer("hidden1")):
        chex.assert_trees_all_equal(gradients(config(**change), state)[0]["discriminator"], base)
    alone = config(reconstructions_as_fakes=False)
    other = state.replace(encoder=state.encoder.replace(params=jax.tree.map(lambda p: 2 * p + 1, state.encoder.params)))
    first, second = (gradients(alone, s)[0] for s in (state, other))
    chex.assert_trees_all_equal(first["discriminator"], second["discriminator"])
    assert abs(players.gradient_norm(first["encoder"]) - players.gradient_norm(second["encoder"])) > 0.1


def test_the_decoder_has_gamma_times_the_likelihood_term_and_nothing_of_the_prior(state):
    """Linear in both weights; gan_weight 0 is the paper's "VAE with Dis_l", whose Dis still learns."""
    one, two, far = (gradients(config(gamma=g), state)[0]["decoder"] for g in (1.0, 2.0, 0.0))
    likelihood = gradient(CONFIG, state, "decoder", lambda t: t["llike"])
    close(jax.tree.map(jnp.subtract, two, one), likelihood)
    close(far, gradient(CONFIG, state, "decoder", lambda t: -t["fake"] - t["again"]))
    close(gradients(config(gamma=0.0, gan_weight=3.0), state)[0]["decoder"], jax.tree.map(lambda g: 3 * g, far))
    alone, base = gradients(config(gan_weight=0.0, gamma=0.5), state)[0], gradients(CONFIG, state)[0]
    close(alone["decoder"], jax.tree.map(lambda g: 0.5 * g, likelihood))
    chex.assert_trees_all_equal(alone["discriminator"], base["discriminator"])
    assert players.gradient_norm(alone["discriminator"]) > 0.01


def test_a_decoder_that_plays_no_game_has_statistics_of_reconstructions_alone(state):
    mean, log_var = vaegan.encode(CONFIG, state, X)
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(jax.random.split(jax.random.key(7), 5)[0], (B, K))
    expected = players.apply(CONFIG.decoder, state.decoder.variables(), z, SHAPE, train=True)[1]
    chex.assert_trees_all_close(gradients(config(gan_weight=0.0), state)[1]["decoder"], expected, rtol=1e-5)
    playing = gradients(CONFIG, state)[1]["decoder"]
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), playing, expected))) > 0.01


def test_the_non_saturating_decoder_climbs_log_dis(state):
    found = gradients(config(adversarial="non_saturating", gamma=0.0), state)[0]["decoder"]
    close(found, gradient(CONFIG, state, "decoder", lambda t: t["fooling"]))


def test_without_reconstructions_as_fakes_only_the_prior_samples_are_fakes(state):
    found, _, metrics = gradients(config(reconstructions_as_fakes=False), state)
    close(found["discriminator"], gradient(CONFIG, state, "discriminator", lambda t: t["real"] + t["fake"]))
    close(found["decoder"], gradient(CONFIG, state, "decoder", lambda t: 0.1 * t["llike"] - t["fake"]))
    np.testing.assert_allclose(metrics["gan"], metrics["real_cost"] + metrics["fake_cost"], rtol=1e-5)


@pytest.mark.parametrize(("name", "features"), [("hidden0", 7), ("hidden1", 4)])
def test_the_feature_layer_is_chosen_by_name(state, name, features):
    chosen = config(**layer(name))
    found, _, metrics = gradients(chosen, state)
    assert vaegan.discriminate(chosen, state, X)[1].shape == (B, features)
    constant = 0.5 * features * LOG_2PI
    assert constant < metrics["llike"] < constant + 1
    close(found["encoder"], gradient(chosen, state, "encoder", LOSSES["encoder"]))


def test_an_unknown_feature_layer_is_refused():
    with pytest.raises(ValueError, match=r"conv9.*hidden0, hidden1"):
        vaegan.init(config(**layer("conv9")), jax.random.key(0), SHAPE)


def test_two_steps_are_rmsprop_on_those_gradients(state):
    """theta - rate * g / (sqrt(nu) + eps), nu <- .9 nu + .1 g^2 from 0; rate 3e-4."""
    nu = {name: jax.tree.map(np.zeros_like, getattr(state, name).params) for name in NAMES}
    after = state
    for _ in range(2):
        before = after
        grads, stats, expected_metrics = gradients(CONFIG, before)
        after, metrics = vaegan.train_step(CONFIG, before, BATCH, jax.random.key(7))
        for name in NAMES:
            g = jax.tree.map(lambda g: np.asarray(g, np.float64), grads[name])
            nu[name] = jax.tree.map(lambda n, g: 0.9 * n + 0.1 * g**2, nu[name], g)
            moves = jax.tree.map(lambda g, n: 3e-4 * g / (np.sqrt(n) + 1e-8), g, nu[name])
            expected = jax.tree.map(jnp.subtract, getattr(before, name).params, moves)
            chex.assert_trees_all_close(getattr(after, name).params, expected, rtol=1e-4, atol=5e-6)
            chex.assert_trees_all_close(getattr(after, name).batch_stats, stats[name], rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-3, atol=1e-5)
    assert int(after.step) == 2


@pytest.mark.parametrize(
    ("real", "fake", "dis", "dec"),
    [
        (0.68, 0.68, True, True),  # both in the band of .33 to 1.03
        (0.34, 1.02, True, True),
        (0.32, 0.68, False, True),  # Dis wins on the real ones: it waits
        (0.68, 0.32, False, True),
        (0.32, 0.32, False, True),
        (1.04, 0.68, True, False),  # Dis loses: Dec waits
        (0.68, 1.04, True, False),
        (1.04, 1.04, True, False),
        (0.32, 1.04, True, True),  # neither would move: both do
        (1.04, 0.32, True, True),
    ],
)
def test_the_balance_rule_is_the_authors(real, fake, dis, dec):
    turns = vaegan._turns(CONFIG, {"real_cost": jnp.float32(real), "fake_cost": jnp.float32(fake)})
    assert tuple(map(bool, turns)) == (dis, dec)


@pytest.mark.parametrize(
    ("below", "above", "waits"),  # is a cost below the band, is one above it
    [(True, False, "discriminator"), (False, True, "decoder"), (True, True, None), (False, False, None)],
)
def test_who_waits_stays_bit_identical_and_the_others_move(state, below, above, waits):
    base, metrics = vaegan.train_step(CONFIG, state, BATCH, jax.random.key(3))
    low, high = sorted(float(metrics[name]) for name in ("real_cost", "fake_cost"))
    low, high = low + 1e-4 * (1 if below else -1), high - 1e-4 * (1 if above else -1)
    balanced = config(balance=True, equilibrium=(low + high) / 2, margin=(high - low) / 2)
    after, metrics = vaegan.train_step(balanced, state, BATCH, jax.random.key(3))
    for name in NAMES:
        if name == waits:
            chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
        else:
            chex.assert_trees_all_close(getattr(after, name), getattr(base, name), rtol=1e-4, atol=5e-6)
    assert {n: bool(metrics[f"{n}_updated"]) for n in NAMES[1:]} == {n: n != waits for n in NAMES[1:]}


def test_jit_equals_no_jit(state):
    compiled = vaegan.train_step(CONFIG, state, BATCH, jax.random.key(11))
    with jax.disable_jit():
        plain = vaegan.train_step(CONFIG, state, BATCH, jax.random.key(11))
    chex.assert_trees_all_close(compiled, plain, rtol=1e-3, atol=1e-5)


def test_shapes_ranges_and_reconstruction(state):
    mean, log_var = vaegan.encode(CONFIG, state, X)
    chex.assert_shape((mean, log_var), (B, K))
    found = vaegan.reconstruct(CONFIG, state, X, jax.random.key(2))
    for images in (vaegan.sample(CONFIG, state, jax.random.key(1), 13)[:B], vaegan.decode(CONFIG, state, mean), found):
        chex.assert_shape(images, (B, *SHAPE))
        assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_array_equal(vaegan.decode(CONFIG, state, mean), vaegan.decode_standard(CONFIG, state, mean))
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(jax.random.key(2), (B, K))
    decoded = MLP["decoder"].apply(state.decoder.variables(), z, SHAPE)
    np.testing.assert_allclose(found, jax.nn.sigmoid(decoded), atol=1e-6)
    logits, features = vaegan.discriminate(CONFIG, state, X)
    expected = MLP["discriminator"].apply(state.discriminator.variables(), X / np.float32(255))
    chex.assert_trees_all_close((logits, features), expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(vaegan.encode(CONFIG, state, X / np.float32(255)), (mean, log_var), atol=1e-6)


@pytest.mark.parametrize("output", ["sigmoid", "tanh"])
def test_validate_is_what_it_says(state, output):
    chosen = config(output=output)
    values = vaegan.validate(chosen, state, BATCH, jax.random.key(2))
    mean, log_var = vaegan.encode(chosen, state, X)
    rebuilt = vaegan.reconstruct(chosen, state, X, jax.random.key(2))
    one, two = (vaegan.discriminate(chosen, state, x)[1] for x in (X, rebuilt))
    expected = {
        "prior": 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1),
        "llike": 0.5 * ((one - two) ** 2 + LOG_2PI).sum(axis=1),
        "pixel_error": ((rebuilt - X / 255.0) ** 2).reshape(B, -1).mean(axis=1),
    }
    chex.assert_trees_all_close(values, expected, rtol=1e-4, atol=1e-6)


def test_the_average_follows_the_decoder_and_is_what_is_shown():
    averaged = config(ema_decay=0.75)
    start = vaegan.init(averaged, jax.random.key(1), SHAPE)
    after, _ = vaegan.train_step(averaged, start, BATCH, jax.random.key(3))
    expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, start.decoder.params, after.decoder.params)
    chex.assert_trees_all_close(after.decoder.ema, expected, rtol=1e-6)
    net = after.decoder
    shown = after.replace(decoder=net.replace(params=net.ema, batch_stats=net.ema_stats, ema=None, ema_stats=None))
    for draw in (
        lambda s: vaegan.sample(averaged, s, jax.random.key(5), 4),
        lambda s: vaegan.reconstruct(averaged, s, X, jax.random.key(6)),
    ):
        np.testing.assert_array_equal(draw(after), draw(shown))


def test_vectors_learns_to_rebuild_eight_gaussians():
    """8 points of spread .05 on a circle of radius 2 (variance 2 a coordinate)."""
    rng = np.random.default_rng(1)
    angle = rng.integers(0, 8, 2000) * np.pi / 4
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(2000, 2))
    run = fit.fit(vaegan, vaegan.vectors(2), x.astype(np.float32), steps=1000, log_every=50, progress=False)
    error = run.metrics["pixel_error"][0]
    assert error[-1] < 0.3 * x.var()
    assert error[-1] < 0.4 * error[0]


BAD = [
    ({"x": np.zeros((B, 9, 9, 1), np.uint8)}, r"\(6, 9, 9, 1\).*\[B, 8, 8, 1\]"),
    ({"x": np.zeros((1, B, 8, 8, 1), np.uint8)}, r"\(1, 6, 8, 8, 1\).*\[B, 8, 8, 1\]"),
    ({"x": np.zeros((0, 8, 8, 1), np.uint8)}, r"\(0, 8, 8, 1\).*empty"),
    ({"x": np.zeros((B, 8, 8, 1), np.int32)}, "int32.*uint8"),
    ({"image": X}, r"image.*\[B, 8, 8, 1\]"),
]


@pytest.mark.parametrize(("batch", "sentence"), BAD)
def test_a_batch_that_does_not_fit_is_refused_with_both_shapes(state, batch, sentence):
    with pytest.raises(ValueError, match=sentence):
        vaegan.train_step(CONFIG, state, batch, jax.random.key(0))


def test_inputs_that_do_not_fit_are_refused_with_both_shapes(state):
    with pytest.raises(ValueError, match=r"\(6, 7\).*\[B, 8, 8, 1\]"):
        vaegan.encode(CONFIG, state, np.zeros((B, 7), np.float32))
    with pytest.raises(ValueError, match=r"\(6, 3\).*\[B, 2\]"):
        vaegan.decode(CONFIG, state, np.zeros((B, 3), np.float32))


@pytest.mark.parametrize("bad", [{"gamma": -1.0}, {"gan_weight": -1.0}, {"latents": 0}, {"ema_decay": 1.0}])
def test_bad_configs_get_a_sentence(bad):
    with pytest.raises(ValueError, match="give"):
        config(**bad)
