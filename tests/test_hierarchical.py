"""Several stochastic layers: one layer is the VAE, two against quadrature, bounds in their order, training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

from vaegan_jax import fit, hierarchical, metrics, nets, vae
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.optimizer import Optimizer

D = 6
TINY = hierarchical.Config(
    latents=(1, 1),
    encoders=(nets.MLPEncoder(hidden=(4,)), nets.MLPEncoder(hidden=(3,))),
    priors=(nets.MLPEncoder(hidden=(3,)),),
    decoder=nets.MLPDecoder(hidden=(4,)),
    batch_size=5,
    samples=2,
)


@pytest.fixture(scope="module")
def state():
    return hierarchical.init(TINY, jax.random.key(3), (D,))


def bits(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, (n, D)), jnp.float32)


def test_one_layer_is_the_vae(key):
    """The same parameters and noise: the same weights."""
    encoder, decoder = nets.MLPEncoder(hidden=(4,)), nets.MLPDecoder(hidden=(4,))
    one = hierarchical.Config(
        latents=(3,), encoders=(encoder,), priors=(), decoder=decoder, samples=4, batch_size=5, bound="iwae"
    )
    same = vae.Config(
        latents=3, encoder=encoder, decoder=decoder, samples=4, bound="iwae", weight_prior=False,
        optimizer=one.optimizer, batch_size=5,
    )  # fmt: skip
    state = hierarchical.init(one, key, (D,))
    twin = vae.init(same, jax.random.key(5), (D,))
    params = {"encoder": state.model.params["encoder0"], "decoder": state.model.params["decoder"]}
    twin = dataclasses.replace(twin, model=dataclasses.replace(twin.model, params=params))
    noise = jax.random.key(1)
    found = hierarchical.log_weights(one, state, bits(5), noise, 4)
    expected = vae.log_weights(same, twin, bits(5), jax.random.split(jax.random.clone(noise), 1)[0], 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for bound in ("elbo", "iwae"):
        a = hierarchical.validate(dataclasses.replace(one, bound=bound), state, {"x": bits(5)}, jax.random.key(2))
        assert set(a) == {"elbo", "log_likelihood", "kl"} | ({"iwae"} if bound == "iwae" else set())
        np.testing.assert_allclose(a["elbo"], a["log_likelihood"] - a["kl"], rtol=1e-4)


def _exact(state, x):
    """log p(x) by a grid over both latents, float64."""
    at = np.linspace(-7, 7, 281)
    prior_mean, prior_log_var = TINY.priors[0].apply(
        {"params": state.model.params["prior0"]}, jnp.asarray(at[:, None], jnp.float32), 1
    )
    logits = np.asarray(
        TINY.decoder.apply({"params": state.model.params["decoder"]}, jnp.asarray(at[:, None], jnp.float32), (D,)),
        np.float64,
    )
    p = expit(logits)
    likelihood = (x[:, None] * np.log(p) + (1 - x[:, None]) * np.log(1 - p)).sum(axis=2)  # [B, h1]
    sd = np.exp(0.5 * np.asarray(prior_log_var, np.float64))
    lower = norm(np.asarray(prior_mean, np.float64), sd).logpdf(at[None])  # [h2, h1]
    joint = likelihood[:, None] + lower[None] + norm.logpdf(at)[None, :, None]
    return logsumexp(joint, axis=(1, 2)) + 2 * np.log(at[1] - at[0])


def test_bounds_rise_to_the_likelihood_that_quadrature_finds(state):
    x = bits(4)
    exact = _exact(state, np.asarray(x, np.float64))

    def one(key, x):
        return hierarchical.log_weights(TINY, state, x, key, 1)[:, 0]

    means = [
        np.mean([metrics.bound_from_weights(one, x, jax.random.key(s), samples=k) for s in range(20)], axis=0)
        for k in (1, 5, 50)
    ]
    tight = np.asarray(metrics.bound_from_weights(one, x, jax.random.key(99), samples=50_000))
    np.testing.assert_allclose(tight, exact, atol=0.02)
    assert (means[0].mean() < means[1].mean() < means[2].mean() < exact.mean() + 0.01).all()


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_a_step_climbs_its_bound(bound):
    """SGD at rate 1 moves by the gradient: along a direction in each net, as steep as the bound is by differences."""
    config = dataclasses.replace(TINY, bound=bound, samples=3, optimizer=Optimizer("sgd", 1.0, 0.0))
    before, x = hierarchical.init(config, jax.random.key(3), (D,)), bits(5)
    after, _ = hierarchical.train_step(config, before, {"x": x}, jax.random.key(1))
    noise = jax.random.split(jax.random.key(1))[1]

    @jax.jit
    def height(params):
        there = dataclasses.replace(before, model=dataclasses.replace(before.model, params=params))
        weights = hierarchical.log_weights(config, there, x, jax.random.clone(noise), 3)
        each = weights.mean(axis=1) if bound == "elbo" else jax.nn.logsumexp(weights, axis=1) - np.log(3)
        return each.mean()

    whole = before.model.params
    for name, old in whole.items():
        moved = jax.tree.map(lambda a, b: a - b, after.model.params[name], old)
        squared = sum(float((v**2).sum()) for v in jax.tree.leaves(moved))
        eps = 0.02 / squared**0.5
        up, down = (height(whole | {name: jax.tree.map(lambda p, v, t=t: p + t * v, old, moved)}) for t in (eps, -eps))
        assert float(up - down) / (2 * eps) == pytest.approx(squared, rel=0.03), name


def test_training_raises_the_bound_of_two_layers_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((200, 1)) < 0.5, 0.9, 0.1) * np.ones((1, D))
    data = Dataset((rng.random(x.shape) < x).astype(np.float32))
    config = dataclasses.replace(TINY, optimizer=Optimizer(rule="adam", learning_rate=0.01))
    run = fit.fit(
        hierarchical, config, data, steps=900, seeds=(0, 1), validation=data, log_every=100, workdir=tmp_path,
        progress=False,
    )  # fmt: skip
    assert (run.metrics["iwae"][:, -1] > run.metrics["iwae"][:, 0] + 0.3).all()
    again = fit.fit(
        hierarchical, config, data, steps=900, seeds=(0, 1), validation=data, log_every=100, workdir=tmp_path,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(again.metrics["iwae"], run.metrics["iwae"])


def test_samples_and_means(state):
    x = hierarchical.sample(TINY, state, jax.random.key(0), 7)
    assert x.shape == (7, D) and float(x.min()) >= 0 and float(x.max()) <= 1
    np.testing.assert_array_equal(hierarchical.sample(TINY, state, jax.random.key(0), 3), x[:3])
    first, second = hierarchical.posterior_means(TINY, state, bits(4), jax.random.key(0))
    mean, _ = TINY.encoders[0].apply({"params": state.model.params["encoder0"]}, bits(4), 1)
    np.testing.assert_allclose(first, mean, rtol=1e-5)
    assert second.shape == (4, 1)


def test_the_output_bias_is_the_datas(key):
    mean = jnp.linspace(0.1, 0.9, D)
    bias = hierarchical.init(TINY, key, (D,), data_mean=mean).model.params["decoder"]["output"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), mean, rtol=1e-4)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"latents": (1,)}, "1 layers of latents, 2 encoders and 1 priors"),
        ({"latents": (1, 0)}, "a width for each layer"),
        ({"samples": 0}, "samples, batch_size"),
        ({"bound": "vimco"}, "bound is 'vimco'"),
    ],
)
def test_bad_configs_get_a_sentence(bad, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(TINY, **bad)


def test_bad_calls_get_a_sentence(state):
    with pytest.raises(ValueError, match="samples is 0"):
        hierarchical.log_weights(TINY, state, bits(2), jax.random.key(0), 0)
    with pytest.raises(ValueError, match="unconditional"):
        hierarchical.sample(TINY, state, jax.random.key(0), 2, jnp.zeros(2, jnp.int32))
