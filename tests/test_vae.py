"""VAE: the bound against exact likelihoods, estimators against each other, one step against NumPy, the options."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaegan_jax import fit, nets, vae
from vaegan_jax.optimizer import Optimizer

D, K, B = 4, 2, 6
SGD = Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0)
TANH = {"hidden": (5,), "activation": jnp.tanh, "kernel_init": nets.Normal(0.5), "bias_init": nets.Normal(0.1)}
CONFIG = vae.Config(
    latents=K, encoder=nets.MLPEncoder(**TANH), decoder=nets.MLPDecoder(**TANH), binarize="none", batch_size=B,
    dataset_size=50,
)  # fmt: skip


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def grey(seed=0, n=B):
    return {"x": np.random.default_rng(seed).uniform(size=(n, D)).astype(np.float32)}


@pytest.fixture(scope="module")
def state():
    return vae.init(CONFIG, jax.random.key(1), (D,))


def gradient(config, state, batch, key):
    """By a step of plain descent at rate 1: before - after."""
    sgd = dataclasses.replace(config, optimizer=SGD)
    start = state.replace(model=state.model.replace(opt_state=SGD.transformation().init(state.model.params)))
    after, metrics = vae.train_step(sgd, start, batch, key)
    return jax.tree.map(jnp.subtract, start.model.params, after.model.params), metrics


# A linear-Gaussian model: x = W z + b + s e, W with orthogonal columns, so that the posterior is diagonal.

W = np.array([[2.0, 0.5], [2.0, -0.5], [-1.0, 1.0], [1.0, -1.0]]) * np.array([1.0, 0.8])
W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / (W[:, 0] @ W[:, 0])
OFFSET, S2 = np.array([0.3, -0.2, 0.0, 1.0]), 0.5
LINEAR = vae.Config(
    latents=K, encoder=nets.MLPEncoder(hidden=()), decoder=nets.MLPDecoder(hidden=()), likelihood="gaussian_fixed",
    output="linear", variance=S2, weight_prior=False, kl="monte_carlo",
)  # fmt: skip
POSTERIOR_VARIANCE = 1 / (1 + (W**2).sum(axis=0) / S2)


def linear_state(shift=0.0, stretch=1.0):
    """Decoder W, b; encoder the exact posterior, its mean moved by `shift`, its variance times `stretch`."""
    kernel = W * POSTERIOR_VARIANCE / S2
    params = {
        "encoder": {
            "output": {
                "kernel": np.concatenate([kernel, np.zeros_like(kernel)], axis=1),
                "bias": np.concatenate([-OFFSET @ kernel + shift, np.log(POSTERIOR_VARIANCE * stretch)]),
            }
        },
        "decoder": {"output": {"kernel": W.T, "bias": OFFSET}},
    }
    start = vae.init(LINEAR, jax.random.key(0), (D,))
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    return start.replace(model=start.model.replace(params=params))


def linear_data(n=40):
    x = np.random.default_rng(3).multivariate_normal(OFFSET, W @ W.T + S2 * np.eye(D), n).astype(np.float32)
    return x, stats.multivariate_normal(OFFSET, W @ W.T + S2 * np.eye(D)).logpdf(x)


def test_with_the_exact_posterior_every_sample_of_the_bound_is_log_p():
    x, log_p = linear_data()
    weights = vae.log_weights(LINEAR, linear_state(), x, jax.random.key(1), 7)
    np.testing.assert_allclose(weights, np.repeat(log_p[:, None], 7, axis=1), atol=1e-4)
    found = vae.elbo(LINEAR, linear_state(), {"x": x}, jax.random.key(2))["elbo"]
    np.testing.assert_allclose(found, log_p, atol=1e-4)


def test_the_bound_is_log_p_minus_the_divergence_from_the_posterior():
    x, log_p = linear_data()
    shift, stretch = 0.2, 1.7
    divergence = 0.5 * (stretch + shift**2 / POSTERIOR_VARIANCE - 1 - np.log(stretch)).sum()
    analytic = dataclasses.replace(LINEAR, kl="analytic", samples=4000)
    found = vae.elbo(analytic, linear_state(shift, stretch), {"x": x}, jax.random.key(3))["elbo"]
    np.testing.assert_allclose(found.mean(), log_p.mean() - divergence, atol=0.02)
    np.testing.assert_allclose(found, log_p - divergence, atol=0.3)


def test_importance_bounds_of_the_same_weights_rise_to_log_p():
    x, log_p = linear_data()
    weights = vae.log_weights(LINEAR, linear_state(0.5, 2.0), x, jax.random.key(4), 500)

    def bound(k):
        groups = weights.reshape(len(x), 500 // k, k)
        return (jax.nn.logsumexp(groups, axis=2) - np.log(k)).mean(axis=1)

    one, five, fifty = (np.asarray(bound(k)) for k in (1, 5, 50))
    assert (one <= five + 1e-5).all()
    assert (five <= fifty + 1e-5).all()
    assert fifty.mean() <= log_p.mean() + 0.02
    assert log_p.mean() - fifty.mean() < 0.3 * (log_p.mean() - one.mean())


def test_both_kl_estimators_have_one_mean_and_the_analytic_less_variance(state):
    values = {}
    for kl in ("analytic", "monte_carlo"):
        each = jax.jit(jax.vmap(lambda key, c=config(kl=kl): vae.elbo(c, state, grey(), key)["elbo"]))
        values[kl] = np.asarray(each(jax.random.split(jax.random.key(5), 4000)))
    error = 5 * values["monte_carlo"].std(axis=0) / np.sqrt(4000)
    assert (abs(values["analytic"].mean(axis=0) - values["monte_carlo"].mean(axis=0)) < error).all()
    assert (values["analytic"].var(axis=0) < values["monte_carlo"].var(axis=0)).all()


@pytest.mark.parametrize("kl", ["analytic", "monte_carlo"])
def test_score_function_and_reparameterised_gradients_agree_in_the_mean(kl, state):
    found = {}
    for kind in ("reparameterised", "score_function"):
        one = config(gradient=kind, kl=kl, weight_prior=False)
        each = jax.jit(
            jax.vmap(lambda key, one=one: gradient(one, state, grey(), key)[0]["encoder"]["output"]["kernel"])
        )
        found[kind] = np.asarray(each(jax.random.split(jax.random.key(6), 20_000))).reshape(20_000, -1)
    a, b = found["reparameterised"], found["score_function"]
    error = 5 * (a.std(axis=0) + b.std(axis=0)) / np.sqrt(20_000)
    assert (abs(a.mean(axis=0) - b.mean(axis=0)) < error + 1e-4).all()
    assert a.var(axis=0).sum() < 0.5 * b.var(axis=0).sum()


def test_a_step_is_aevb_in_numpy(state):
    """One tanh layer each, Bernoulli, estimator B, MAP prior, Adagrad from 0: theta - lr g / (|g| + eps)."""
    x, key = grey()["x"].astype(np.float64), jax.random.key(7)
    e = np.asarray(jax.random.normal(jax.random.split(jax.random.clone(key))[1], (B, 1, K)), np.float64)[:, 0]
    p = jax.tree.map(lambda v: np.asarray(v, np.float64), state.model.params)
    enc, dec = p["encoder"], p["decoder"]
    h = np.tanh(x @ enc["hidden0"]["kernel"] + enc["hidden0"]["bias"])
    mean, log_var = np.split(h @ enc["output"]["kernel"] + enc["output"]["bias"], 2, axis=1)
    z = mean + np.exp(log_var / 2) * e
    g = np.tanh(z @ dec["hidden0"]["kernel"] + dec["hidden0"]["bias"])
    logits = g @ dec["output"]["kernel"] + dec["output"]["bias"]
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1)
    likelihood = (x * logits - np.log1p(np.exp(logits))).sum(axis=1)

    def layer(below, above):
        return {"kernel": below.T @ above, "bias": above.sum(axis=0)}

    d_logits = (1 / (1 + np.exp(-logits)) - x) / B  # of minus the bound
    d_g = (d_logits @ dec["output"]["kernel"].T) * (1 - g**2)
    d_z = d_g @ dec["hidden0"]["kernel"].T
    d_heads = np.concatenate(
        [d_z + mean / B, d_z * e * np.exp(log_var / 2) / 2 + 0.5 * (np.exp(log_var) - 1) / B], axis=1
    )
    d_h = (d_heads @ enc["output"]["kernel"].T) * (1 - h**2)
    grads = {
        "encoder": {"hidden0": layer(x, d_h), "output": layer(h, d_heads)},
        "decoder": {"hidden0": layer(z, d_g), "output": layer(g, d_logits)},
    }
    grads = jax.tree.map(lambda gr, theta: gr + theta / 50, grads, p)  # the prior, per example of 50
    found, metrics = gradient(CONFIG, state, {"x": grey()["x"]}, jax.random.clone(key))
    chex.assert_trees_all_close(found, grads, rtol=1e-3, atol=2e-6)
    after, _ = vae.train_step(CONFIG, state, grey(), key)
    expected = jax.tree.map(lambda theta, gr: theta - 0.02 * gr / (np.abs(gr) + 1e-10), p, grads)
    chex.assert_trees_all_close(after.model.params, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["elbo"], (likelihood - kl).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-4)


def test_beta_weighs_the_kl_in_the_gradient_and_not_in_the_metric(state):
    found = {beta: gradient(config(beta=beta), state, grey(), jax.random.key(8)) for beta in (0.0, 1.0, 3.0)}
    steps = [jax.tree.map(jnp.subtract, found[b][0], found[0.0][0]) for b in (1.0, 3.0)]
    chex.assert_trees_all_close(steps[1], jax.tree.map(lambda v: 3 * v, steps[0]), rtol=1e-3, atol=1e-5)
    assert found[3.0][1]["elbo"] == found[1.0][1]["elbo"]


def test_the_weight_prior_pulls_by_theta_over_n(state):
    with_prior, without = (
        gradient(config(weight_prior=on), state, grey(), jax.random.key(8))[0] for on in (True, False)
    )
    pull = jax.tree.map(jnp.subtract, with_prior, without)
    chex.assert_trees_all_close(pull, jax.tree.map(lambda p: p / 50, state.model.params), rtol=1e-2, atol=2e-6)


def test_iwae_of_one_sample_is_the_monte_carlo_bound_and_of_more_is_higher(state):
    one, _ = gradient(config(bound="iwae"), state, grey(), jax.random.key(9))
    elbo, _ = gradient(config(kl="monte_carlo"), state, grey(), jax.random.key(9))
    chex.assert_trees_all_close(one, elbo, rtol=1e-4, atol=1e-6)
    _, metrics = gradient(config(bound="iwae", samples=20, kl="monte_carlo"), state, grey(), jax.random.key(10))
    assert metrics["iwae"] > metrics["elbo"]


def test_validate_reports_the_importance_bound_where_it_is_trained(state):
    one = config(bound="iwae", samples=4)
    binarize_key, noise_key = jax.random.split(jax.random.key(9))
    x = vae.targets(one, grey()["x"], binarize_key)
    weights = np.float64(vae.log_weights(one, state, x, noise_key, 4))
    found = vae.validate(one, state, grey(), jax.random.key(9))
    np.testing.assert_allclose(found["iwae"], np.log(np.exp(weights).mean(axis=1)), rtol=1e-5)
    assert "iwae" not in vae.validate(config(), state, grey(), jax.random.key(9))


def test_fresh_binarisation_has_the_pixels_as_its_mean():
    x = np.linspace(0, 1, 5, dtype=np.float32)[None].repeat(4000, axis=0)
    one, two = (vae.targets(config(binarize="fresh"), x, jax.random.key(k)) for k in (1, 2))
    assert set(np.unique(one)) == {0.0, 1.0}
    assert (one != two).any()
    np.testing.assert_allclose(np.asarray(one).mean(axis=0), x[0], atol=0.04)
    np.testing.assert_array_equal(vae.targets(config(binarize="none"), x, jax.random.key(1)), x)


def test_fixed_binarisation_is_a_function_of_the_image_alone():
    x = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 1), np.uint8)
    fixed = config(binarize="fixed")
    whole = np.asarray(vae.targets(fixed, x, jax.random.key(1)))
    np.testing.assert_array_equal(vae.targets(fixed, x[::-1][:7], jax.random.key(2)), whole[::-1][:7])
    np.testing.assert_array_equal(vae.targets(fixed, x / np.float32(255), jax.random.key(3)), whole)
    assert len(np.unique(whole.reshape(500, -1), axis=0)) > 490
    np.testing.assert_allclose(whole.mean(), (x / 255).mean(), atol=0.02)
    assert np.corrcoef(whole.ravel(), x.ravel())[0, 1] > 0.5


def test_a_learned_variance_is_a_normal_density_that_stays_above_its_floor():
    learned = config(likelihood="gaussian", output="linear", min_log_var=-3.0)
    state = vae.init(learned, jax.random.key(1), (D,))
    for bias, floor in ((0.0, None), (-1e4, np.exp(-3.0))):
        params = state.model.params
        output = {**params["decoder"]["output"], "bias": jnp.full(2 * D, bias)}
        one = {**params, "decoder": {**params["decoder"], "output": output}}
        here = state.replace(model=state.model.replace(params=one))
        z = np.zeros((B, K), np.float32)
        mean = np.asarray(vae.decode(learned, here, z))
        hidden = np.tanh(np.asarray(params["decoder"]["hidden0"]["bias"]))
        raw = (hidden @ np.asarray(output["kernel"]) + bias)[D:]
        variance = np.exp(-3 + np.logaddexp(0, raw + 3))
        x = mean + 0.1
        expected = stats.norm(mean, np.sqrt(variance)).logpdf(x).sum(axis=1)
        np.testing.assert_allclose(vae.log_likelihood(learned, here, z, x), expected, rtol=1e-4)
        if floor:
            np.testing.assert_allclose(variance, floor, rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian_fixed"])
def test_a_step_is_finite_on_constant_images_and_huge_weights(likelihood):
    one = config(likelihood=likelihood, optimizer=SGD)
    state = vae.init(one, jax.random.key(1), (D,))
    # The decoder's alone: a variational log-variance of 1e3 is infinite by itself.
    decoder = jax.tree.map(lambda p: 1e3 * p, state.model.params["decoder"])
    state = state.replace(model=state.model.replace(params={**state.model.params, "decoder": decoder}))
    for x in (np.zeros((B, D), np.float32), np.ones((B, D), np.float32)):
        after, metrics = vae.train_step(one, state, {"x": x}, jax.random.key(2))
        chex.assert_tree_all_finite((after, metrics))


def test_initial_parameters_and_the_output_bias():
    paper = vae.Config()
    mean = np.random.default_rng(0).uniform(size=(28, 28, 1)).astype(np.float32)
    state = vae.init(paper, jax.random.key(0), (28, 28, 1))
    for net in ("encoder", "decoder"):
        kernel = np.asarray(state.model.params[net]["hidden0"]["kernel"])
        assert kernel.std() == pytest.approx(0.01, rel=0.1)
    assert np.asarray(state.model.params["decoder"]["output"]["bias"]).std() == pytest.approx(0.01, rel=0.15)
    same = vae.init(paper, jax.random.key(0), (28, 28, 1), data_mean=mean)  # AEVB draws its biases
    chex.assert_trees_all_equal(same, state)
    from_data = dataclasses.replace(paper, bias_from_data=True)
    biased = vae.init(from_data, jax.random.key(0), (28, 28, 1), data_mean=mean)
    clipped = np.clip(mean.ravel(), 1e-3, 1 - 1e-3)
    expected = np.log(clipped / (1 - clipped))
    np.testing.assert_allclose(biased.model.params["decoder"]["output"]["bias"], expected, rtol=1e-3, atol=1e-4)


def test_convolutional_nets_without_an_output_bias_start_from_a_data_mean_too():
    nets_ = {"encoder": nets.ConvEncoder((4, 4), 8), "decoder": nets.ConvDecoder((4, 4), (8,))}
    one = vae.Config(latents=2, batch_size=4, **nets_)
    mean = jnp.full((8, 8, 1), 0.3)
    state = vae.init(one, jax.random.key(0), (8, 8, 1), data_mean=mean)
    after, metrics = vae.train_step(one, state, {"x": np.ones((4, 8, 8, 1), np.uint8)}, jax.random.key(1))
    chex.assert_tree_all_finite((after, metrics))
    with pytest.raises(ValueError, match="data_mean sets the bias of the layer named 'output'"):
        vae.init(dataclasses.replace(one, bias_from_data=True), jax.random.key(0), (8, 8, 1), data_mean=mean)


def test_linear_means_of_images_are_cut_to_the_unit_interval_and_those_of_vectors_are_not():
    one = dataclasses.replace(vae.vectors(4), latents=2)
    for shape, inside in (((2, 2, 1), True), ((4,), False)):
        state = vae.init(one, jax.random.key(0), shape)
        out = np.asarray(vae.decode(one, state, 20 * jax.random.normal(jax.random.key(1), (50, 2))))
        assert (out.min() >= 0 and out.max() <= 1) == inside


def test_jit_equals_no_jit_and_bytes_equal_floats(state):
    compiled = vae.train_step(CONFIG, state, grey(), jax.random.key(11))
    with jax.disable_jit():
        plain = vae.train_step(CONFIG, state, grey(), jax.random.key(11))
    chex.assert_trees_all_close(compiled, plain, rtol=1e-4, atol=1e-6)
    x = np.random.default_rng(0).integers(0, 256, (B, D), np.uint8)
    one, two = (vae.train_step(CONFIG, state, {"x": v}, jax.random.key(12)) for v in (x, x / np.float32(255)))
    chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-6)


def test_sample_decode_and_reconstruct(state):
    short, long = (vae.sample(CONFIG, state, jax.random.key(1), n) for n in (3, 2 * B + 1))
    np.testing.assert_array_equal(short, long[:3])
    chex.assert_shape(long, (2 * B + 1, D))
    assert 0 <= long.min() < long.max() <= 1
    mean, log_var = vae.encode(CONFIG, state, grey()["x"])
    chex.assert_shape((mean, log_var), (B, K))
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(jax.random.key(2), (B, K))
    found = vae.reconstruct(CONFIG, state, grey()["x"], jax.random.key(2))
    np.testing.assert_allclose(found, vae.decode(CONFIG, state, z), rtol=1e-5)
    np.testing.assert_array_equal(vae.decode(CONFIG, state, z), vae.decode_standard(CONFIG, state, z))
    with pytest.raises(ValueError, match="unconditional"):
        vae.sample(CONFIG, state, jax.random.key(1), 3, jnp.zeros(3, jnp.int32))


def test_batch_statistics_are_learnt_in_training_and_used_after():
    images = config(
        encoder=nets.ConvEncoder(channels=(3, 4), hidden=6, kernel=(3, 3)),
        decoder=nets.ConvDecoder(channels=(4, 3), hidden=(6,), kernel=(3, 3)),
    )
    state = vae.init(images, jax.random.key(1), (8, 8, 1))
    x = {"x": np.random.default_rng(0).integers(0, 256, (B, 8, 8, 1), np.uint8)}
    after, _ = vae.train_step(images, state, x, jax.random.key(2))
    for net in ("encoder", "decoder"):
        old, new = (jax.tree.leaves(s.model.batch_stats[net]) for s in (state, after))
        assert old
        assert all((a != b).any() for a, b in zip(old, new, strict=True))
    alone = vae.encode(images, after, x["x"][:1])[0]
    np.testing.assert_allclose(alone[0], vae.encode(images, after, x["x"])[0][0], rtol=1e-4, atol=1e-6)


def test_vectors_approach_the_entropy():
    """A correlated Gaussian: no bound passes -H, and 1,500 steps come within half a nat of it."""
    cov = np.array([[1.0, 0.8], [0.8, 1.0]])
    x = np.random.default_rng(1).multivariate_normal([0, 0], cov, 4000).astype(np.float32)
    run = fit.fit(vae, vae.vectors(2), x, steps=1500, progress=False)
    test = np.random.default_rng(2).multivariate_normal([0, 0], cov, 4000).astype(np.float32)
    entropy = stats.multivariate_normal([0, 0], cov).entropy()
    found = fit.validate(vae, run.config, run.state(0), test)["elbo"]
    assert -entropy - 0.5 < found < -entropy + 0.1


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((B, D + 1), np.float32), r"\(6, 5\): \[B, 4\] is expected"),
        (np.zeros((0, D), np.float32), "empty"),
        (np.zeros((B, D), np.int32), "int32"),
    ],
)
def test_bad_batches_get_a_sentence(state, x, sentence):
    with pytest.raises(ValueError, match=sentence):
        vae.train_step(CONFIG, state, {"x": x}, jax.random.key(0))
    with pytest.raises(ValueError, match=sentence):
        vae.encode(CONFIG, state, x)


@pytest.mark.parametrize("bad", [{"latents": 0}, {"samples": 0}, {"bound": "iwae", "beta": 2.0}])
def test_bad_configs_get_a_sentence(bad):
    with pytest.raises(ValueError, match=r"give|iwae"):
        config(**bad)
