"""How much fine detail images have: the power of their spatial frequencies, which blur takes away and speckle adds."""

import numpy as np
from numpy.typing import ArrayLike

from vaegan_jax.metrics import inputs


def radial_power(images: ArrayLike) -> np.ndarray:
    """Mean power of images over rings of frequencies, [R]; ring r: those that round to r / min(H, W) cycles a pixel.

    images [N, H, W, C], uint8 or floats in any unit (uint8 count as [0, 1]). The rings add up to the mean square of a
    pixel (Parseval); ring 0 is the mean's. The last rings, beyond 1/2 cycle a pixel, are the spectrum's corners.

    Raises ValueError for another shape, no images, NaN or infinity.
    """
    x = _images(images)
    return np.bincount(np.rint(_frequency(x) * min(x.shape[1:3])).astype(int).reshape(-1), _power(x).reshape(-1))


def high_frequency_share(images: ArrayLike, cutoff: float = 0.25) -> float:
    """The share of the power, the mean's left out, at frequencies above `cutoff` cycles a pixel (1/2 is the finest).

    images as in radial_power. White noise has some .8 of it there, a picture little; a blurred one less. Dividing by
    the share of test images says how blurred samples are: below 1 smoother, above 1 rougher than data.

    Raises ValueError as that does, for a cutoff outside (0, 1/2), and for images that are all constant.
    """
    if not 0 < cutoff < 0.5:
        raise ValueError(f"cutoff is {cutoff}: give cycles a pixel between 0 and 0.5.")
    x = _images(images)
    frequency, power = _frequency(x), _power(x)
    total = power[frequency > 0].sum()
    if not total > 0:
        raise ValueError("every image is constant: there is no power to take a share of.")
    return float(power[frequency > cutoff].sum() / total)


def _images(images: ArrayLike) -> np.ndarray:
    x = np.asarray(images)
    if x.ndim != 4:
        raise ValueError(f"images have shape {x.shape}: give [N, H, W, C].")
    inputs.rows("images", x)
    return x


def _frequency(x: np.ndarray) -> np.ndarray:
    """Cycles a pixel of each coefficient, [H, W]."""
    return np.hypot(np.fft.fftfreq(x.shape[1])[:, None], np.fft.fftfreq(x.shape[2])[None])


def _power(x: np.ndarray) -> np.ndarray:
    """Mean over images and channels of the squared size of each coefficient, [H, W], float64."""
    total = np.zeros(x.shape[1:3])
    for block in inputs.blocks(x):
        block = block / 255 if x.dtype == np.uint8 else block
        total += (np.abs(np.fft.fft2(block, axes=(1, 2), norm="forward")) ** 2).sum(axis=(0, 3))
    return total / (x.shape[0] * x.shape[3])
