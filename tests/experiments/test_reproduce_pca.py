"""PCA's target: inversion finds what a generator made, the linear VAE's optimum is probabilistic PCA, a smoke run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduce import __main__, inversion, results
from experiments.reproduce import pca as target
from vaegan_jax import gan, nets, pca, vae


def test_inversion_finds_the_code_of_a_generated_image(key):
    small = nets.MLPGenerator(hidden=(32,))
    config = dataclasses.replace(target.gan_config(3), generator=small, prior="uniform")
    state = gan.init(config, key, (4, 4, 1))
    bigger = jax.tree.map(lambda p: 3 * p, state.generator.params)  # an image that depends on z
    state = dataclasses.replace(state, generator=dataclasses.replace(state.generator, params=bigger))
    u = jax.random.normal(jax.random.key(1), (5, 3))
    x = np.asarray(gan.decode_standard(config, state, u))
    found, rebuilt = inversion.invert(gan, config, state, jax.random.key(2), x, steps=400)
    assert found.shape == (5, 3) and rebuilt.shape == x.shape
    start = ((x - x.mean(axis=0)) ** 2).sum(axis=(1, 2, 3)).mean()
    assert ((rebuilt - x) ** 2).sum(axis=(1, 2, 3)).max() < 1e-3 * start
    np.testing.assert_allclose(gan.decode_standard(config, state, jnp.asarray(found)), rebuilt, atol=1e-5)


def test_the_linear_vaes_bound_is_exact_at_probabilistic_pca(key):
    """With the posterior of x = W z + mu + noise in its encoder, ELBO = log p(x) for every x."""
    x = (
        np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
        @ np.diag(np.arange(1, 9)).astype(np.float32)
        / 8
    )
    model = pca.fit(x, 3)
    s2 = model.noise_variance
    config = dataclasses.replace(target.linear_config(float(s2)), latents=3)
    state = vae.init(config, key, (8,))
    scale = np.sqrt(model.eigenvalues - s2)
    W = model.components.T * scale  # [D, K]; the columns are orthogonal, so the posterior's covariance is diagonal
    precision = 1 + scale**2 / s2
    encode = W / s2 / precision  # [D, K]
    params = {
        "encoder": {"output": {
            "kernel": np.concatenate([encode, np.zeros_like(encode)], axis=1),
            "bias": np.concatenate([-model.mean @ encode, -np.log(precision)]),
        }},
        "decoder": {"output": {"kernel": W.T, "bias": model.mean}},
    }  # fmt: skip
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state = dataclasses.replace(state, model=dataclasses.replace(state.model, params=params))
    config = dataclasses.replace(config, samples=2000)
    bound = vae.elbo(config, state, {"x": jnp.asarray(x[:50])}, jax.random.key(1))["elbo"]
    np.testing.assert_allclose(bound.mean(), model.log_likelihood(x[:50]).mean(), atol=0.02)


def test_an_autoencoders_code_is_its_mean(key):
    config = target.autoencoder_config((8,), 10)
    state = vae.init(config, key, (4, 4, 1))
    x = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), np.uint8)
    z, rebuilt = target.mean_code(config, state, x, block=3)
    np.testing.assert_allclose(z, vae.encode(config, state, x)[0], rtol=1e-5)
    np.testing.assert_allclose(rebuilt, vae.decode(config, state, jnp.asarray(z)).reshape(7, -1), rtol=1e-5)
    assert target.squared_error(np.zeros((2, 3)), np.ones((2, 3))) == 3


def test_a_seed_counts_where_its_validation_error_is_lowest():
    held = np.array([[3.0, 2.0, 4.0], [1.0, 5.0, 0.5]])
    test = np.array([[1.0, 7.0, 0.0], [4.0, 1.0, 6.0]])  # lowest elsewhere
    assert target.lowest(held, test) == [(1, 7.0), (2, 6.0)]
    assert target.lowest(np.zeros((0, 3)), np.zeros((0, 3))) == []


def test_a_smoke_run_writes_rows_and_goes_on(tmp_path, mnist, capsys):
    mnist("test")
    flags = ["pca", "--budget", "smoke", "--parts", "linear", "--workdir", str(tmp_path), "--quiet"]
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("pca", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    assert rows["pca.linear_vae"]["verdict"] == "budget too small: 40 of 20,000 steps"
    assert rows["pca.autoencoder_30"]["verdict"].startswith("not run")
    assert (tmp_path / "results" / "pca" / "linear.png").exists()
    capsys.readouterr()
    assert __main__.main(flags) == 0
    assert capsys.readouterr().err.count("done before") == 1
