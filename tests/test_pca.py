"""PCA and probabilistic PCA against scikit-learn, scipy and the explicit covariance."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA as Reference  # noqa: N811

from vaegan_jax import fit, nets, pca, vae
from vaegan_jax.metrics import inputs
from vaegan_jax.optimizer import Optimizer


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """[300, 12] with a spectrum that falls, off the origin."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 12)) * 0.7 ** np.arange(12) @ rng.normal(size=(12, 12)) + rng.normal(size=12)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_equals_sklearn(x: np.ndarray, k: int) -> None:
    model, reference = pca.fit(x, k), Reference(k, svd_solver="full").fit(x)
    n = len(x)
    np.testing.assert_allclose(model.mean, reference.mean_, rtol=1e-12)
    signs = np.sign((model.components * reference.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.components, signs * reference.components_, atol=1e-9)
    np.testing.assert_allclose(model.transform(x), signs[:, 0] * reference.transform(x), atol=1e-8)
    # scikit-learn divides by N - 1, maximum likelihood by N
    np.testing.assert_allclose(model.noise_variance, reference.noise_variance_ * (n - 1) / n, rtol=1e-9)
    np.testing.assert_allclose(model.eigenvalues, reference.explained_variance_ * (n - 1) / n, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_log_likelihood_is_that_of_the_explicit_covariance(x: np.ndarray, k: int) -> None:
    model = pca.fit(x, k)
    W = model.components.T * np.sqrt(model.eigenvalues - model.noise_variance)  # Tipping & Bishop 1999, eq. 15
    covariance = W @ W.T + model.noise_variance * np.eye(12)
    points = np.random.default_rng(1).normal(size=(20, 12)) * 3
    expected = multivariate_normal(model.mean, covariance).logpdf(points)
    np.testing.assert_allclose(model.log_likelihood(points), expected, rtol=1e-9)


def test_it_is_the_maximum_of_the_likelihood(x: np.ndarray) -> None:
    """The mean log-likelihood of the training data has a closed form, and any other s^2 gives less."""
    model = pca.fit(x, 3)
    best = model.log_likelihood(x).mean()
    log_det = np.log(model.eigenvalues).sum() + 9 * np.log(model.noise_variance)
    np.testing.assert_allclose(best, -0.5 * (12 * np.log(2 * np.pi) + log_det + 12), rtol=1e-10)
    for factor in (0.95, 1.05):
        other = pca.PCA(model.mean, model.components, model.eigenvalues, model.noise_variance * factor)
        assert other.log_likelihood(x).mean() < best


def test_log_likelihood_far_from_the_mean_and_in_float32(x: np.ndarray) -> None:
    """No cancellation: data shifted by 1e4 give the same values as without the shift."""
    np.testing.assert_allclose(pca.fit(x + 1e4, 4).log_likelihood(x + 1e4), pca.fit(x, 4).log_likelihood(x), atol=1e-6)
    single = x.astype(np.float32)
    exact = pca.fit(single.astype(np.float64), 4)
    model = pca.fit(single, 4)
    np.testing.assert_array_equal(model.components, exact.components)
    np.testing.assert_array_equal(model.log_likelihood(single), exact.log_likelihood(single.astype(np.float64)))


def test_orthonormal_rows_in_order_with_a_fixed_sign(x: np.ndarray) -> None:
    model = pca.fit(x, 6)
    np.testing.assert_allclose(model.components @ model.components.T, np.eye(6), atol=1e-12)
    assert (np.diff(model.eigenvalues) < 0).all()
    np.testing.assert_allclose(model.transform(x).var(axis=0), model.eigenvalues, rtol=1e-10)
    assert (np.take_along_axis(model.components, np.abs(model.components).argmax(1)[:, None], 1) > 0).all()
    np.testing.assert_allclose(pca.fit(2 * model.mean - x, 6).components, model.components, atol=1e-9)


def test_inverse(x: np.ndarray) -> None:
    model = pca.fit(x, 5)
    inside = model.mean + np.random.default_rng(2).normal(size=(7, 5)) @ model.components
    np.testing.assert_allclose(model.inverse(model.transform(inside)), inside, atol=1e-12)
    error = x - model.inverse(model.transform(x))
    np.testing.assert_allclose(error @ model.components.T, 0, atol=1e-10)  # the residual is orthogonal
    np.testing.assert_allclose((error**2).sum(axis=1).mean(), 7 * model.noise_variance, rtol=1e-10)


def test_blocks_change_nothing(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pca.fit(x, 4)
    values = whole.log_likelihood(x)
    monkeypatch.setattr(inputs, "_BLOCK", 7)
    blocked = pca.fit(x, 4)
    np.testing.assert_allclose(blocked.components, whole.components, atol=1e-10)
    np.testing.assert_allclose(whole.log_likelihood(x), values, rtol=1e-12)
    assert whole.transform(x).shape == (300, 4)


def test_digits_with_constant_pixels() -> None:
    """Three of the 64 pixels are always 0: legal, as long as k leaves some variance."""
    digits = load_digits().data.astype(np.float32) / 16
    model, reference = pca.fit(digits, 30), Reference(30, svd_solver="full").fit(digits.astype(np.float64))
    error = ((digits - model.inverse(model.transform(digits))) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(
        error, ((digits - reference.inverse_transform(reference.transform(digits))) ** 2).sum(1).mean(), rtol=1e-6
    )
    assert np.isfinite(model.log_likelihood(digits)).all()


@pytest.mark.parametrize("k", [0, -1, 12, 13, 2.0, True, None])
def test_k_is_checked(x: np.ndarray, k: object) -> None:
    with pytest.raises(ValueError, match=rf"k is {k}: give a whole number from 1 to 11, one less than the 12"):
        pca.fit(x, k)  # type: ignore[arg-type]


def test_bad_data(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"dtype uint8.*x / 255"):
        pca.fit(np.zeros((9, 4), np.uint8), 2)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            pca.fit(np.where(np.arange(12) == 3, bad, x), 2)
    with pytest.raises(ValueError, match="x has 0 examples: 2 or more"):
        pca.fit(np.zeros((0, 4)), 2)
    for shape in ((9,), (9, 2, 2), (9, 0)):
        with pytest.raises(ValueError, match=r"give \[N, D\]"):
            pca.fit(np.zeros(shape), 2)
    with pytest.raises(ValueError, match="1 examples"):
        pca.fit(x[:1], 2)


@pytest.mark.parametrize(
    ("name", "function", "width"), [("x", "transform", 12), ("x", "log_likelihood", 12), ("z", "inverse", 2)]
)
def test_bad_data_for_a_model(x: np.ndarray, name: str, function: str, width: int) -> None:
    method = getattr(pca.fit(x, 2), function)
    good = np.ones((3, width))
    assert np.isfinite(method(good)).all()
    np.testing.assert_allclose(method(good.astype(np.float32)), method(good), rtol=1e-12)
    for bad, sentence in (
        (np.ones((3, 5)), rf"{name} has shape \(3, 5\): give \[N, {width}\]"),
        (np.ones(width), rf"{name} has shape \({width},\): give \[N, D\]"),
        (good.astype(int), f"{name} has dtype int64"),
        (good.astype(complex), f"{name} has dtype complex128"),
        (good * np.nan, f"{name} has NaN or infinite"),
        (good * np.inf, f"{name} has NaN or infinite"),
        (good[:0], f"{name} has 0 examples"),
    ):
        with pytest.raises(ValueError, match=sentence):
            method(bad)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_data_without_noise_are_refused(x: np.ndarray, shift: float) -> None:
    flat = x[:, :3] @ x[:3] + shift  # rank 3
    assert pca.fit(flat, 2).noise_variance > 0
    for k in (3, 4):
        with pytest.raises(ValueError, match="noise variance is 0"):
            pca.fit(flat, k)
    with pytest.raises(ValueError, match="noise variance is 0"):
        pca.fit(np.full((5, 4), shift), 1)


@pytest.mark.slow
def test_mnist(mnist) -> None:
    """30 components, fitted on 60,000: Hinton & Salakhutdinov 2006's 13.87, and 394.6 nats a test image."""
    train, test = (np.float32(mnist(split).x.reshape(-1, 784) / np.float32(255)) for split in ("train", "test"))
    model = pca.fit(train, 30)
    error = ((test - model.inverse(model.transform(test))) ** 2).sum(axis=1)
    assert error.mean() == pytest.approx(13.87, abs=0.01)
    assert model.log_likelihood(test).mean() == pytest.approx(394.6, abs=0.05)


@pytest.mark.slow
@pytest.mark.optimised
def test_a_linear_vae_comes_to_it(x: np.ndarray) -> None:
    """Lucas et al. 2019: at the noise's own variance a linear VAE's best ELBO is probabilistic PCA's likelihood."""
    x = np.float32(x)
    model = pca.fit(x, 3)
    best = model.log_likelihood(x).mean()
    config = dataclasses.replace(
        vae.vectors(12), latents=3, encoder=nets.MLPEncoder(hidden=()), decoder=nets.MLPDecoder(hidden=()),
        likelihood="gaussian_fixed", variance=model.noise_variance, samples=4,
    )  # fmt: skip
    values = []
    for steps in (100, 6000):
        one = dataclasses.replace(config, optimizer=Optimizer(rule="adam", learning_rate=3e-3))
        run = fit.fit(vae, one, x, steps=steps, batch_size=100, log_every=steps, progress=False)
        held = dataclasses.replace(run.config, samples=400)
        values.append(fit.validate(vae, held, run.state(0), x)["elbo"])
    assert values[0] < best - 1
    assert best - 0.15 < values[1] < best + 0.02
