"""Data: a name to arrays in memory.

    from vaegan_jax import data
    mnist = data.load("mnist", "train[:50000]")      # mnist.x uint8 [50000, 28, 28, 1], mnist.label int32 [50000]
    points, centres = data.toy.ring(key, 1000)       # toy mixtures are JAX functions of a key

Names
    digits                   1,797 digits of 8 x 8 from scikit-learn's wheel, no download (see `digits`)
    mnist, fashion_mnist     28 x 28, 60,000 + 10,000
    frey_faces               28 x 20, 1,600 + 365, from your own file (`data_dir`: frey_faces.npz or frey_rawface.mat)
    ring, grid               the toy mixtures with their defaults: 10,000 + 10,000 points [N, 2], fixed seeds
    cifar10, celeb_a, lsun/bedroom, NAME[/CONFIG][:VERSION], ...
                             any image set that TFDS has prepared with file_format="array_record"; where TensorFlow is
                             installed, `python -m vaegan_jax.data NAME` prepares it
    folder:PATH              images in sorted order; sub-folders `train`, `test` are splits, other ones are classes
    npz:PATH                 `x`, `label` or `x_train`, `label_train`, `x_test`, ...: images, uint8 or float
                             in [0, 1], or float vectors; label [N] of integers, or [N, A] of floats
    idx:PATH                 a folder with the four IDX files, or one file of images
  An image set takes options: NAME@OPTION or NAME@OPTION,OPTION with `crop=SIZE` (centre) and `resize=SIZE` (after the
  crop; bicubic, antialiased; trims rather than stretches), SIZE being N or HxW: `celeb_a@crop=148,resize=64`.

Splits are TFDS slices: `train`, `test`, `train[:50_000]`, `train[-10%:]`, `train+test` (`all` is not taken: join them);
an absolute bound beyond the end clips. No split overlaps another.

Where bytes come from, in this order: our cache or a folder prepared by TFDS (no TensorFlow is needed to read it); IDX
files that you put into the folder; the official source; a mirror, through its package client. Digests are checked in
every one. A TFDS folder of MNIST by TFDS's own builder is shuffled: the same examples, in another order.

Folders: the cache is `data_dir`, else `$VAEGAN_JAX_DATA`, else `~/.cache/vaegan_jax`; TFDS folders are looked for in
`data_dir`, else `$TFDS_DATA_DIR` or `~/tensorflow_datasets`, and in `tfds` of the cache. To fetch ahead of time:
`python -m vaegan_jax.data mnist`. On a slow network set `$VAEGAN_JAX_PATIENCE` to more than its 1.3 seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vaegan_jax.data.catalog import load, names, splits_of
from vaegan_jax.data.dataset import DataError, Dataset, NoSplit, NotPrepared

if TYPE_CHECKING:
    from vaegan_jax.data import toy

__all__ = ["DataError", "Dataset", "NoSplit", "NotPrepared", "load", "names", "splits_of", "toy"]


def __getattr__(name: str) -> Any:
    if name == "toy":  # it imports JAX, which takes longer than loading MNIST
        return importlib.import_module("vaegan_jax.data.toy")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
