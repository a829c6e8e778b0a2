"""Frechet distance against closed forms and pytorch-fid's formula; its limit; its files."""

import warnings

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import (
    frechet,
    frechet_distance,
    frechet_from_statistics,
    frechet_infinity,
    inputs,
    statistics,
)
from vaegan_jax.metrics.features import Extractor
from vaegan_jax.metrics.frechet import Statistics
from vaegan_jax.metrics.subject import Data

few = pytest.mark.filterwarnings("ignore:A Frechet distance of", "ignore:The smallest size")


def _covariance(seed: int, width: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(3 * width, width))
    return x.T @ x / len(x)


def test_gaussians_of_one_covariance_differ_by_their_means() -> None:
    m = np.arange(5.0)
    assert frechet_from_statistics(0 * m, np.eye(5), m, np.eye(5)) == pytest.approx(m @ m, abs=1e-12)
    sigma = _covariance(0, 5)
    assert frechet_from_statistics(m, sigma, m + 2, sigma) == pytest.approx(20, abs=1e-10)


def test_covariances_with_common_axes() -> None:
    """sum (sqrt a - sqrt b)^2, also where some variances are 0."""
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    a[:2], b[1:3] = 0, 0
    value = frechet_from_statistics(np.zeros(6), axes * a @ axes.T, np.zeros(6), axes * b @ axes.T)
    assert value == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), abs=1e-10)


@few
@pytest.mark.parametrize("counts", [(400, 300), (20, 300), (20, 15)])
def test_equals_the_matrix_root_of_the_product(counts: tuple[int, int]) -> None:
    """pytorch-fid's formula, which is complex where a covariance is singular: its real part is near."""
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(n, 30)) @ rng.normal(size=(30, 30)) + rng.normal(size=30) for n in counts)
    mu1, mu2, s1, s2 = a.mean(axis=0), b.mean(axis=0), np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(s1 @ s2)
    root = np.trace(sqrtm(s1 @ s2)).real if min(counts) > 30 else np.sqrt(values.clip(0)).real.sum()
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_statistics(mu1, s1, mu2, s2) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


@few
@pytest.mark.parametrize("n", [500, 40])
def test_a_set_is_at_0_from_itself_and_its_shuffle(n: int) -> None:
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(n, 100)) * 0.8 ** np.arange(100) * 30 + 1e3).astype(np.float32)
    assert 0 <= frechet_distance(x, x) < 1e-6
    assert 0 <= frechet_distance(x, x[::-1].copy()) < 1e-6
    stats = statistics(x)
    assert 0 <= frechet_from_statistics(stats.mu, stats.sigma, stats.mu, stats.sigma) < 1e-6


def test_statistics_are_those_of_numpy_far_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_BLOCK", 7)
    x = np.random.default_rng(4).normal(size=(50, 6)) + 1e6
    stats = statistics(x, "net")
    np.testing.assert_allclose(stats.mu, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(stats.sigma, np.cov(x.T), atol=1e-8)
    assert (stats.n, stats.network) == (50, "net")


def test_few_samples_warn() -> None:
    x = np.random.default_rng(5).normal(size=(2048, 3))
    with pytest.warns(UserWarning, match="of 2047 examples is biased"):
        frechet_distance(x, x[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(x, x)


@few
def test_the_limit_of_many_samples_has_no_bias() -> None:
    """Against N(0, I_D) itself: |mean|^2 + |S - I|^2 / 4 has the expectation (D + D (D + 1) / 4) / N, the slope."""
    D, N = 8, 2000
    bias = (D + D * (D + 1) / 4) / N
    exact = Statistics(np.zeros(D), np.eye(D))
    runs = [frechet_infinity(np.random.default_rng(s).normal(size=(N, D)), exact, sizes=9) for s in range(60)]
    assert np.mean([run.distances[-1] for run in runs]) == pytest.approx(bias, rel=0.15)  # of all N, not corrected
    assert np.mean([run.value for run in runs]) == pytest.approx(0, abs=0.25 * bias)
    assert np.mean([run.slope for run in runs]) == pytest.approx(bias * N, rel=0.15)


def test_the_sizes_are_evenly_spaced_and_the_seed_draws_the_subsets() -> None:
    x, exact = np.random.default_rng(6).normal(size=(22_000, 3)), Statistics(np.zeros(3), np.eye(3))
    found = frechet_infinity(x, exact, sizes=15, seed=1)
    assert found.sizes[0] == 2200 and found.sizes[-1] == 22_000 and len(found.sizes) == len(found.distances) == 15
    assert np.ptp(np.diff(found.sizes)) <= 1
    np.testing.assert_array_equal(frechet_infinity(x, exact, sizes=15, seed=1).distances, found.distances)
    other = frechet_infinity(x, exact, sizes=15, seed=2)
    assert (other.distances[:-1] != found.distances[:-1]).all()  # the last holds all examples


def test_sizes_that_leave_the_line_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, exact = np.random.default_rng(7).normal(size=(4000, 3)), Statistics(np.zeros(3), np.eye(3))
    with pytest.warns(UserWarning, match="The smallest size, 400, is below 2,048: with fewer"):
        frechet_infinity(x, exact, sizes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_infinity(x, exact, sizes=2, smallest=2048)
    monkeypatch.setattr(frechet, "ENOUGH", 10)
    x, exact = np.random.default_rng(8).normal(size=(100, 30)), Statistics(np.zeros(30), np.eye(30))
    with pytest.warns(UserWarning, match="The smallest size, 29, is below 30"):
        frechet_infinity(x, exact, sizes=2, smallest=29)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_infinity(x, exact, sizes=2, smallest=30)


def test_features_and_reference_of_two_networks_are_refused() -> None:
    x = np.random.default_rng(9).normal(size=(3000, 3))
    named = statistics(x, "lenet")
    with pytest.raises(ValueError, match="features are of 'vgg' and the reference is of 'lenet'"):
        frechet_infinity(x, named, smallest=2500, network="vgg")
    for reference, network in ((named, "lenet"), (named, ""), (statistics(x), "vgg")):
        assert frechet_infinity(x, reference, smallest=2500, sizes=2, network=network).distances[-1] < 1e-9


@few
def test_a_shift_survives_the_limit() -> None:
    x = np.random.default_rng(7).normal(size=(8000, 4)) + np.array([1.0, 0, 0, 0])
    assert frechet_infinity(x, Statistics(np.zeros(4), np.eye(4))).value == pytest.approx(1, abs=0.08)


def test_files_make_the_round_trip_and_are_pytorch_fids(tmp_path) -> None:
    stats = statistics(np.random.default_rng(8).normal(size=(30, 4)), "lenet-1a2b")
    path = tmp_path / "deep" / "train.npz"
    frechet.save(path, stats, "digest")
    assert [p.name for p in path.parent.iterdir()] == ["train.npz"]
    back = frechet.load(path)
    np.testing.assert_array_equal(back.mu, stats.mu)
    np.testing.assert_array_equal(back.sigma, stats.sigma)
    assert (back.n, back.network) == (30, "lenet-1a2b")
    with np.load(path) as file:  # pytorch-fid: f["mu"][:], f["sigma"][:]
        assert file["mu"].shape == (4,) and file["sigma"].shape == (4, 4) and file["mu"].dtype == np.float64
    np.savez(tmp_path / "theirs.npz", mu=stats.mu, sigma=stats.sigma)
    assert (frechet.load(tmp_path / "theirs.npz").n, frechet.load(tmp_path / "theirs.npz").network) == (0, "")


def test_the_cache_is_keyed_by_data_and_network(tmp_path) -> None:
    calls = []

    def features() -> np.ndarray:
        calls.append(0)
        return np.random.default_rng(len(calls)).normal(size=(9, 2))

    first = frechet.cached(tmp_path, "a", "w", "net", features)
    again = frechet.cached(tmp_path, "a", "w", "net", features)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.sigma, again.sigma)
    assert first.network == again.network == "net"
    for keys in (("b", "w", "net"), ("a", "v", "net"), ("a", "w", "other")):
        assert frechet.cached(tmp_path, *keys, features).network == keys[-1]
    assert len(calls) == 4 and len(list(tmp_path.iterdir())) == 4
    for keys in (("", "w", "net"), ("a", "", "net"), ("a", "w", "")):
        with pytest.raises(ValueError, match="give all"):
            frechet.cached(tmp_path, *keys, features)


@pytest.mark.parametrize("damage", [lambda b: b[:500], lambda b: b"", lambda b: b.replace(b"mu.npy", b"nu.npy")])
def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path, damage) -> None:
    x = np.random.default_rng(0).normal(size=(9, 2))
    first = frechet.cached(tmp_path, "a", "w", "net", lambda: x)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged, and is made anew"):
        again = frechet.cached(tmp_path, "a", "w", "net", lambda: x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third = frechet.cached(tmp_path, "a", "w", "net", lambda: pytest.fail("it was not left in the cache"))
    for other in (again, third):
        np.testing.assert_array_equal(other.sigma, first.sigma)
        assert (other.n, other.network) == (9, "net")


def test_cached_and_fresh_statistics_are_of_one_network(tmp_path) -> None:
    reference = Dataset(np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8), name="tiny")
    network = Extractor("tiny-cnn", lambda x: (x.reshape(len(x), -1) / 255, x[:, 0, 0]), (2, 2, 1), digest="0123")

    def fresh() -> Data:
        return Data(reference, None, reference, lambda: network, tmp_path)

    looked = fresh()
    features = looked.seen.features
    assert looked.statistics.network == network.name and not list(tmp_path.iterdir())
    written = fresh().statistics
    assert len(list(tmp_path.iterdir())) == 1
    for stats in (written, fresh().statistics):
        assert stats.network == network.name
        with pytest.warns(UserWarning, match="The smallest size"):
            frechet_infinity(features, stats, sizes=2, network=network.name)


def test_bad_features() -> None:
    x = np.random.default_rng(10).normal(size=(30, 4))
    for bad, match in (
        (x[:1], "b has 1 examples: 2 or more"),
        (x[:, :2], "b has 2 features, the other set 4"),
        (np.where(np.arange(4) == 1, np.nan, x), "b has NaN or infinite"),
        (x.astype(int), "b has dtype int64"),
        (x[0], r"b has shape \(4,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            frechet_distance(x, bad)
    target = Statistics(np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="features has 3 features, the other set 4"):
        frechet_infinity(x[:, :3], target)
    with pytest.raises(ValueError, match="features has 29 examples: 30 or more"):
        frechet_infinity(x[:29], target)
    with pytest.raises(ValueError, match="smallest is 16: give a whole number from 2 to 15"):
        frechet_infinity(x, target, smallest=16)


def test_bad_statistics_and_files(tmp_path) -> None:
    m, eye = np.zeros(3), np.eye(3)
    lopsided, negative = eye.copy(), eye.copy()
    lopsided[0, 1], negative[0, 0] = 0.5, -1
    for mu, sigma, match in (
        (m, np.eye(4), r"mu2 has shape \(3,\), sigma2 \(4, 4\)"),
        (np.zeros(4), np.eye(4), "mu1 has 3 features, mu2 4"),
        (m, eye * np.nan, "NaN"),
        (m, lopsided, "sigma2 is not symmetric"),
        (m, negative, "eigenvalue -1"),
    ):
        with pytest.raises(ValueError, match=match):
            frechet_from_statistics(m, eye, mu, sigma)
    with pytest.raises(ValueError, match="is no file"):
        frechet.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    frechet.save(tmp_path / "whole.npz", Statistics(m, eye))
    whole = (tmp_path / "whole.npz").read_bytes()
    entry = whole.index(b"PK\x01\x02")  # of the first array in the zip's directory: byte 8 its flags, 10 its method
    for name, at in (("secret.npz", 8), ("method.npz", 10)):
        (tmp_path / name).write_bytes(whole[: entry + at] + b"\x63" + whole[entry + at + 1 :])
    np.savez_compressed(tmp_path / "packed.npz", mu=np.arange(500.0), sigma=np.eye(500))
    packed = bytearray((tmp_path / "packed.npz").read_bytes())
    packed[80:120] = b"\xff" * 40
    (tmp_path / "packed.npz").write_bytes(packed)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    assert (tmp_path / "torn.npz").read_bytes().startswith(b"PK")
    np.savez(tmp_path / "other.npz", mean=m)
    for name in ("text.npz", "other.npz", "torn.npz", "secret.npz", "method.npz", "packed.npz"):
        with pytest.raises(ValueError, match="is no npz with arrays mu and sigma"):
            frechet.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"does not end in \.npz"):
        frechet.save(tmp_path / "a.json", Statistics(m, eye))
