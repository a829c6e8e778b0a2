"""Spatial frequencies: Parseval, waves of one frequency, noise, blur."""

import numpy as np
import pytest

from vaegan_jax.metrics import high_frequency_share, radial_power


def wave(cycles, shape=(16, 16), along=1):
    at = np.arange(shape[along]) / shape[along]
    one = 0.5 + 0.25 * np.cos(2 * np.pi * cycles * at)
    image = np.broadcast_to(one if along else one[:, None], shape)
    return image[None, :, :, None].astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 16, 16, 1), (3, 28, 20, 3), (2, 9, 9, 1)])
def test_rings_add_up_to_the_mean_square(shape):
    x = np.random.default_rng(0).random(shape)
    assert radial_power(x).sum() == pytest.approx((x**2).mean())
    assert radial_power(x)[0] == pytest.approx((x.mean(axis=(1, 2)) ** 2).mean())


@pytest.mark.parametrize("along", [0, 1])
def test_a_wave_lies_in_its_ring(along):
    power = radial_power(wave(3, along=along))
    assert power[3] == pytest.approx(0.25**2 / 2)
    np.testing.assert_allclose(np.delete(power, [0, 3]), 0, atol=1e-9)
    assert high_frequency_share(wave(3, along=along)) == pytest.approx(0, abs=1e-9)
    assert high_frequency_share(wave(5, along=along)) == pytest.approx(1)


def test_white_noise_has_power_everywhere():
    x = np.random.default_rng(0).normal(size=(400, 16, 16, 1))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    expected = (frequency > 0.25).sum() / (frequency > 0).sum()
    assert high_frequency_share(x) == pytest.approx(expected, abs=0.01)


def test_blur_takes_high_frequencies_away_and_contrast_does_not_count():
    x = np.random.default_rng(0).random((50, 16, 16, 1))
    blurred = (x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2) + np.roll(x, (1, 1), axis=(1, 2))) / 4
    assert high_frequency_share(blurred) < 0.7 * high_frequency_share(x)
    assert high_frequency_share(0.3 + 0.5 * x) == pytest.approx(high_frequency_share(x))


def test_uint8_is_read_as_zero_to_one():
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_allclose(radial_power(x), radial_power(x / 255), rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "cutoff", "said"),
    [
        (np.zeros((4, 8, 8)), 0.25, r"\[N, H, W, C\]"),
        (np.zeros((0, 8, 8, 1)), 0.25, "0 examples"),
        (np.full((2, 8, 8, 1), np.nan), 0.25, "NaN"),
        (np.zeros((2, 8, 8, 1)), 0.25, "constant"),
        (np.ones((2, 8, 8, 1)), 0.5, "cutoff is 0.5"),
    ],
)
def test_bad_input_gets_a_sentence(images, cutoff, said):
    with pytest.raises(ValueError, match=said):
        high_frequency_share(images, cutoff)
