"""Parzen windows against scikit-learn, scipy and Gaussians; the protocol's choices one by one; MNIST's known value."""

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KernelDensity

from vaegan_jax.metrics import parzen


@pytest.fixture(scope="module")
def cloud() -> tuple[np.ndarray, np.ndarray]:
    """Samples [70, 5] and points [40, 5]."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 5)), rng.normal(size=(40, 5)) * 2


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_equals_sklearn(cloud: tuple[np.ndarray, np.ndarray], sigma: float) -> None:
    samples, points = cloud
    expected = KernelDensity(bandwidth=sigma, rtol=1e-12).fit(samples).score_samples(points)
    np.testing.assert_allclose(parzen.parzen_log_likelihood(samples, points, sigma), expected, rtol=1e-9)


def test_one_sample_is_a_gaussian() -> None:
    value = parzen.parzen_log_likelihood(np.full((1, 3), 0.5), np.array([[0.0, 1.0, 2.0]]), 0.2)
    np.testing.assert_allclose(value, [stats.norm(0.5, 0.2).logpdf([0.0, 1.0, 2.0]).sum()], rtol=1e-12)


def test_points_far_from_every_sample_are_finite(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    """exp(-d^2 / 2 sigma^2) is 0 in float64 here; its logarithm must not be."""
    value = parzen.parzen_log_likelihood(cloud[0], np.full((1, 5), 1e3), 0.1)
    nearest = ((cloud[0] - 1e3) ** 2).sum(axis=1).min()
    np.testing.assert_allclose(value, -nearest / 0.02 - np.log(70) - 2.5 * np.log(2 * np.pi * 0.01), rtol=1e-9)


def test_blocks_change_nothing(cloud: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    samples, points = cloud
    order = np.argsort(-((samples - points[0]) ** 2).sum(axis=1))  # the nearest last: the running maximum must move
    whole = parzen.parzen_log_likelihood(samples, points, 0.1)
    for size in (1, 7, 69):
        monkeypatch.setattr(parzen, "_POINTS", size)
        monkeypatch.setattr(parzen, "_SAMPLES", size)
        np.testing.assert_allclose(parzen.parzen_log_likelihood(samples[order], points, 0.1), whole, rtol=1e-11)


def test_a_common_offset_and_float32_cost_no_digits(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    samples, points = cloud
    whole = parzen.parzen_log_likelihood(samples, points, 0.1)
    np.testing.assert_allclose(parzen.parzen_log_likelihood(samples + 1e5, points + 1e5, 0.1), whole, rtol=1e-6)
    single = samples.astype(np.float32), points.astype(np.float32)
    double = single[0].astype(np.float64), single[1].astype(np.float64)
    np.testing.assert_array_equal(
        parzen.parzen_log_likelihood(*single, 0.1), parzen.parzen_log_likelihood(*double, 0.1)
    )


def test_images_are_flattened(cloud: tuple[np.ndarray, np.ndarray]) -> None:
    samples, points = cloud
    images = parzen.parzen_log_likelihood(samples.reshape(-1, 5, 1, 1), points.reshape(-1, 5, 1, 1), 0.5)
    np.testing.assert_array_equal(images, parzen.parzen_log_likelihood(samples, points, 0.5))


@pytest.fixture(scope="module")
def splits() -> dict[str, np.ndarray]:
    """Images of 4 pixels in [0, 1]."""
    rng = np.random.default_rng(1)
    return {name: rng.uniform(size=(n, 2, 2, 1)) for name, n in (("samples", 50), ("validation", 30), ("test", 40))}


def test_the_protocol(splits: dict[str, np.ndarray]) -> None:
    """Sigma is the validation images' best of the grid, of the first ones alone; the error bar is over test images."""
    found = parzen.parzen_estimate(**splits, count=50, validation_count=20)
    np.testing.assert_allclose(found.sigmas[[0, 1, 2, 9]], [0.1, 0.129, 0.167, 1.0], atol=5e-4)
    assert len(found.sigmas) == 10
    samples, validation, test = (splits[k].reshape(-1, 4) for k in ("samples", "validation", "test"))
    curve = [KernelDensity(bandwidth=s).fit(samples).score_samples(validation[:20]).mean() for s in found.sigmas]
    np.testing.assert_allclose(found.validation, curve, rtol=1e-6)
    assert found.sigma == found.sigmas[np.argmax(curve)] and 0.1 < found.sigma < 1
    values = KernelDensity(bandwidth=found.sigma).fit(samples).score_samples(test)
    np.testing.assert_allclose([found.mean, found.standard_error], [values.mean(), values.std() / 40**0.5], rtol=1e-6)


def test_only_the_first_validation_images_count(splits: dict[str, np.ndarray]) -> None:
    other = splits | {"validation": np.concatenate([splits["validation"][:20], np.zeros((10, 2, 2, 1))])}
    first, second = (parzen.parzen_estimate(**each, count=50, validation_count=20) for each in (splits, other))
    np.testing.assert_array_equal(first.validation, second.validation)
    assert (parzen.parzen_estimate(**other, count=50, validation_count=30).validation != first.validation).all()


def test_too_few_or_too_many_samples_are_refused(splits: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"50 samples were given, but the protocol takes 10,000.*count=50"):
        parzen.parzen_estimate(**splits)
    with pytest.raises(ValueError, match=r"30 validation images were given.*first 1,000"):
        parzen.parzen_estimate(**splits, count=50)
    with pytest.raises(ValueError, match=r"1 test images"):
        parzen.parzen_estimate(**splits | {"test": splits["test"][:1]}, count=50, validation_count=9)


@pytest.mark.parametrize("name", ["samples", "validation", "test"])
def test_bad_images_are_refused_by_name(splits: dict[str, np.ndarray], name: str) -> None:
    good = splits[name]
    for bad, sentence in (
        (2 * good - 1, rf"{name} goes from -.*give images in \[0, 1\]"),
        (255 * good, rf"{name} goes from"),
        ((255 * good).astype(np.uint8), rf"{name} has dtype uint8.*x / 255"),
        (np.where(np.arange(2).reshape(1, 2, 1, 1), good, np.nan), rf"{name} has NaN"),
        (good[:0], f"{name} has 0 examples"),
        (good[:, :1], "give one shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            parzen.parzen_estimate(**splits | {name: bad}, count=50, validation_count=9)


@pytest.mark.parametrize("sigma", [0, -1.0, np.nan, np.inf, None, "wide"])
def test_sigma_is_checked(cloud: tuple[np.ndarray, np.ndarray], sigma: object) -> None:
    with pytest.raises(ValueError, match=rf"sigma is {sigma}: give a finite number above 0"):
        parzen.parzen_log_likelihood(*cloud, sigma)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigmas", [(), (0.1, 0.0), (0.1, 0.1), 0.2, (0.1, np.nan)])
def test_the_grid_is_checked(splits: dict[str, np.ndarray], sigmas: object) -> None:
    with pytest.raises(ValueError, match=r"sigmas is .*: give"):
        parzen.parzen_estimate(**splits, sigmas=sigmas, count=50)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, 2.0, True])
def test_counts_are_checked(splits: dict[str, np.ndarray], number: object) -> None:
    with pytest.raises(ValueError, match=rf"validation_count is {number}"):
        parzen.parzen_estimate(**splits, validation_count=number)  # type: ignore[arg-type]


@pytest.mark.slow
def test_mnists_own_training_images(mnist) -> None:
    """10,000 real images are a perfect sampler: 244 +- 3 nats, "true distribution 243" of Theis et al. 2016."""
    splits = {"samples": "train[:50000]", "validation": "train[50000:]", "test": "test"}
    images = {name: np.float32(mnist(split).x / np.float32(255)) for name, split in splits.items()}
    chosen = np.random.default_rng(0).permutation(50_000)[:10_000]
    found = parzen.parzen_estimate(**images | {"samples": images["samples"][chosen]})
    assert found.sigma == pytest.approx(0.1668, abs=1e-4)
    assert found.mean == pytest.approx(244, abs=3)
    assert found.standard_error == pytest.approx(2.1, abs=0.1)
