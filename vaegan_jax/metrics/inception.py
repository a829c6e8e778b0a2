"""Inception-v3 with the weights of the published FID values: Heusel et al. 2017, arXiv:1706.08500.

The graph is that of TensorFlow's inception-2015-12-05, as pytorch-fid has it: torchvision's Inception-v3 without its
input transform, 1,008 classes, average pools that do not count their padding, and a maximum pool in the last block.
Features are pool3's 2,048. Class probabilities, for the inception score, are the softmax of the logits without their
bias, as in Salimans et al. 2016's code and torch-fidelity ("logits_unbiased").

Images are resized to 299x299 as TensorFlow 1 did (bilinear, no half-pixel centres, no antialiasing). Weights come from
a local safetensors file under the names of pytorch-fid's state dict; `python -m experiments.convert_inception` writes
it. Layers here have those names, so the file is the parameter tree.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax.data import cache
from vaegan_jax.metrics.features import Extractor, weights_digest

SIZE = 299
CLASSES = 1008
FILE = "inception.safetensors"
SOURCE = "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights"
_ORIGIN = "source_sha256"  # the converter's note in the file of what it read

Pads = tuple[tuple[int, int], tuple[int, int]]


class Unit(nn.Module):
    """Convolution without bias, batch normalisation (running statistics, epsilon 1e-3), ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pads = tuple((p, p) for p in self.pad)
        h = nn.Conv(self.features, self.kernel, self.stride, pads, use_bias=False, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(h))


def _average(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _maximum(x: jax.Array) -> jax.Array:
    """Halves the size."""
    return nn.max_pool(x, (3, 3), (2, 2))


def _join(*branches: jax.Array) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pool."""

    pool: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(64, name="branch1x1")(x)
        five = Unit(48, name="branch5x5_1")(x)
        five = Unit(64, (5, 5), pad=(2, 2), name="branch5x5_2")(five)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, (3, 3), pad=(1, 1), name="branch3x3dbl_2")(double)
        double = Unit(96, (3, 3), pad=(1, 1), name="branch3x3dbl_3")(double)
        return _join(one, five, double, Unit(self.pool, name="branch_pool")(_average(x)))


class BlockB(nn.Module):
    """35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = Unit(384, (3, 3), 2, name="branch3x3")(x)
        double = Unit(64, name="branch3x3dbl_1")(x)
        double = Unit(96, (3, 3), pad=(1, 1), name="branch3x3dbl_2")(double)
        double = Unit(96, (3, 3), 2, name="branch3x3dbl_3")(double)
        return _join(three, double, _maximum(x))


class BlockC(nn.Module):
    """17x17: 1x1, 7x7 and two 7x7 as rows and columns, pool."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def row(features: int, name: str) -> Unit:
            return Unit(features, (1, 7), pad=(0, 3), name=name)

        def column(features: int, name: str) -> Unit:
            return Unit(features, (7, 1), pad=(3, 0), name=name)

        one, c = Unit(192, name="branch1x1")(x), self.width
        seven = row(c, "branch7x7_2")(Unit(c, name="branch7x7_1")(x))
        seven = column(192, "branch7x7_3")(seven)
        double = column(c, "branch7x7dbl_2")(Unit(c, name="branch7x7dbl_1")(x))
        double = column(c, "branch7x7dbl_4")(row(c, "branch7x7dbl_3")(double))
        double = row(192, "branch7x7dbl_5")(double)
        return _join(one, seven, double, Unit(192, name="branch_pool")(_average(x)))


class BlockD(nn.Module):
    """17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = Unit(320, (3, 3), 2, name="branch3x3_2")(Unit(192, name="branch3x3_1")(x))
        seven = Unit(192, (1, 7), pad=(0, 3), name="branch7x7x3_2")(Unit(192, name="branch7x7x3_1")(x))
        seven = Unit(192, (7, 1), pad=(3, 0), name="branch7x7x3_3")(seven)
        seven = Unit(192, (3, 3), 2, name="branch7x7x3_4")(seven)
        return _join(three, seven, _maximum(x))


class BlockE(nn.Module):
    """8x8: 1x1, 3x3 and two 3x3 that end in a row beside a column, pool."""

    maximum: bool
    """The pool: the last block of the published network takes a maximum."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def cross(h: jax.Array, name: str) -> jax.Array:
            row = Unit(384, (1, 3), pad=(0, 1), name=f"{name}a")(h)
            return _join(row, Unit(384, (3, 1), pad=(1, 0), name=f"{name}b")(h))

        one = Unit(320, name="branch1x1")(x)
        three = cross(Unit(384, name="branch3x3_1")(x), "branch3x3_2")
        double = Unit(384, (3, 3), pad=(1, 1), name="branch3x3dbl_2")(Unit(448, name="branch3x3dbl_1")(x))
        double = cross(double, "branch3x3dbl_3")
        pooled = nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1))) if self.maximum else _average(x)
        return _join(one, three, double, Unit(192, name="branch_pool")(pooled))


class InceptionV3(nn.Module):
    """x [B, 299, 299, 3] in [-1, 1] -> (pool3 [B, 2048], logits without bias [B, 1008])."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = Unit(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        h = Unit(32, (3, 3), name="Conv2d_2a_3x3")(h)
        h = _maximum(Unit(64, (3, 3), pad=(1, 1), name="Conv2d_2b_3x3")(h))
        h = Unit(80, name="Conv2d_3b_1x1")(h)
        h = _maximum(Unit(192, (3, 3), name="Conv2d_4a_3x3")(h))
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            h = BlockA(pool, name=name)(h)
        h = BlockB(name="Mixed_6a")(h)
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            h = BlockC(width, name=name)(h)
        h = BlockD(name="Mixed_7a")(h)
        h = BlockE(False, name="Mixed_7b")(h)
        h = BlockE(True, name="Mixed_7c")(h)
        features = h.mean(axis=(1, 2))
        return features, nn.Dense(CLASSES, use_bias=False, name="fc")(features)


def resize(x: jax.Array, size: int = SIZE) -> jax.Array:
    """TensorFlow 1's resize_bilinear with align_corners=False: x [B, H, W, C] -> float32 [B, size, size, C].

    Pixel i of the output lies at i * H / size of the input: the corner of a pixel, not its centre, counts, so the image
    shifts a little. There is no antialiasing. Published values depend on both.
    """
    rows, columns = (jnp.asarray(_interpolation(n, size)) for n in x.shape[1:3])
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc->biwc", rows, x.astype(jnp.float32), precision=exact)
    return jnp.einsum("jw,biwc->bijc", columns, x, precision=exact)


def _interpolation(n: int, size: int) -> np.ndarray:
    """Weights [size, n] of the n pixels in each of the output's."""
    at = np.arange(size) * (n / size)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    high, share = np.minimum(low + 1, n - 1), at - low
    weights = np.zeros((size, n), np.float32)
    np.add.at(weights, (np.arange(size), low), 1 - share)
    np.add.at(weights, (np.arange(size), high), share)
    return weights


def preprocess(x: jax.Array) -> jax.Array:
    """x [B, H, W, C], uint8 or float in [0, 1], C = 1 or 3 -> float32 [B, 299, 299, 3] in about [-1, 1].

    Floats are rounded to 8 bits first, as images that were saved are. Grey becomes three equal channels. As in the
    published code the middle is 128, so that white is 127/128.
    """
    levels = x.astype(jnp.float32) if x.dtype == jnp.uint8 else jnp.round(x.astype(jnp.float32) * 255)
    resized = (resize(levels) - 128) / 128
    return jnp.broadcast_to(resized, (*resized.shape[:3], 3))


def extractor(weights: str | os.PathLike[str] | None = None, *, block: int = 32) -> Extractor:
    """The network of published FID values, named `inception-v3-` and the first digits of its weights' digest.

    weights: the converted file; None: `inception.safetensors` in the cache (see data.cache). Images of any size, grey
    or colour. About 0.27 s an image on two cores.

    Raises:
        FileNotFoundError: no such file; says where to get it.
        ImportError: no safetensors; says what to install.
        ValueError: another file.
    """
    arrays, origin = read(cache.root() / FILE if weights is None else weights)
    variables = jax.tree.map(jnp.asarray, to_variables(arrays))
    return Extractor(
        f"inception-v3-{origin[:8]}",
        functools.partial(_forward, variables),
        (None, None, None),
        block=block,
        digest=weights_digest(variables),
    )


@jax.jit
def _forward(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    with jax.default_matmul_precision("highest"):  # an accelerator's default has 10 bits, features 1e-3 off
        out: Any = InceptionV3().apply(variables, preprocess(x))
    features, logits = out
    return features, jax.nn.softmax(logits)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], str]:
    """(arrays under the state dict's names, sha256 of the .pth they came from, or of this file if it does not say).

    Raises: see `extractor`.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There are no Inception weights at {file}: download pt_inception-2015-12-05-6726825d.pth from {SOURCE}, "
            f"then run `python -m experiments.convert_inception pt_inception-2015-12-05-6726825d.pth {file}`."
        )
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("Inception weights need safetensors: pip install 'vaegan_jax[inception]'.") from error
    try:
        arrays = safetensors.numpy.load_file(file)
        with safetensors.safe_open(file, "numpy") as opened:
            about = opened.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{file} is no safetensors file ({error}): a .pth has to be converted, by experiments.convert_inception."
        ) from error
    return arrays, about.get(_ORIGIN) or hashlib.sha256(file.read_bytes()).hexdigest()


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], origin: str) -> None:
    """Writes checked arrays for `read`; origin: sha256 of where they came from. Complete, or not at all."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("Inception weights need safetensors: pip install 'vaegan_jax[inception]'.") from error
    checked = {name: np.ascontiguousarray(array) for name, array in check(arrays).items()}
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        safetensors.numpy.save_file(checked, aside, {_ORIGIN: origin})
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def check(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's own arrays, float32, without the counters that PyTorch keeps beside them.

    Raises:
        ValueError: names that are missing or unknown, other shapes, NaN or infinity.
    """
    arrays = {name: a for name, a in arrays.items() if not name.endswith("num_batches_tracked")}
    wanted = shapes()
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    advice = f"give pytorch-fid's pt_inception-2015-12-05, from {SOURCE}"
    if missing or unknown:
        parts = [f"{len(n)} {kind} (such as {n[0]})" for n, kind in ((missing, "missing"), (unknown, "unknown")) if n]
        raise ValueError(f"These are not the weights of FID's Inception-v3: arrays {' and '.join(parts)}; {advice}.")
    for name, shape in wanted.items():
        if tuple(arrays[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(arrays[name].shape)}, but {shape} is expected; {advice}.")
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is {arrays[name].dtype} or has NaN or infinite entries; {advice}.")
    return {name: np.asarray(arrays[name], np.float32) for name in wanted}


@functools.cache
def _template() -> Any:
    """Linen's variables as shapes."""
    net = InceptionV3()
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))


def shapes() -> dict[str, tuple[int, ...]]:
    """Every array of the file: PyTorch's name -> PyTorch's shape. fc.bias is in it, though it is not used."""
    found: dict[str, tuple[int, ...]] = {"fc.bias": (CLASSES,)}
    for path, leaf in jax.tree.leaves_with_path(_template()):
        name, shape = _torch_name(path), leaf.shape
        if name.endswith("conv.weight"):
            shape = (shape[3], shape[2], shape[0], shape[1])
        found[name] = shape[::-1] if name == "fc.weight" else shape
    return found


def to_variables(arrays: Mapping[str, np.ndarray]) -> Any:
    """The file's arrays as Linen's variables: kernels [KH, KW, C, F], dense ones [C, F]."""
    arrays = check(arrays)

    def fill(path: Any, _: Any) -> np.ndarray:
        array = arrays[_torch_name(path)]
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

    return jax.tree.map_with_path(fill, _template())


_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _torch_name(path: Any) -> str:
    """("params", "Mixed_5b", "branch1x1", "conv", "kernel") -> "Mixed_5b.branch1x1.conv.weight"."""
    *layers, leaf = (entry.key for entry in path[1:])
    return ".".join([*layers, _NAMES[leaf]])
