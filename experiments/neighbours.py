"""Whether samples look like the data, by their nearest training images: classes found, largest share, distance."""

import dataclasses

import numpy as np

from vaegan_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Of n samples: how many classes a 1-nearest-neighbour classifier finds, the largest class's share of them, and

    the mean Euclidean distance to the nearest training example, as a ratio to that of as many test examples.
    """

    n: int
    classes: int
    of_classes: int
    largest_share: float
    distance_ratio: float

    def __str__(self) -> str:
        return (
            f"{self.classes} of {self.of_classes} classes, the largest {self.largest_share:.0%}, "
            f"{self.distance_ratio:.2f} times as far from the training set as test examples ({self.n:,} samples, 1-NN)"
        )


def neighbours(samples: np.ndarray, train: Dataset, test: Dataset) -> Neighbours:
    """samples [n, *shape] in [0, 1] against a labelled set of images.

    Raises:
        ValueError: data without labels, or of another shape.
    """
    if train.label is None:
        raise ValueError(f"{train.name} has no labels: give a labelled data set.")
    if samples.shape[1:] != train.x.shape[1:] or not len(samples):
        raise ValueError(
            f"samples has shape {samples.shape}: [n, {', '.join(map(str, train.x.shape[1:]))}] is expected."
        )
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(_flat(train.x))
    distance, nearest = index.kneighbors(_flat(samples))
    usual, _ = index.kneighbors(_flat(test.x[: len(samples)]))
    counts = np.bincount(train.label[nearest[:, 0]], minlength=int(train.label.max()) + 1)
    return Neighbours(
        n=len(samples),
        classes=int((counts > 0).sum()),
        of_classes=len(np.unique(train.label)),
        largest_share=float(counts.max() / len(samples)),
        distance_ratio=float(distance.mean() / usual.mean()),
    )


def _flat(x: np.ndarray) -> np.ndarray:
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    return (x.reshape(len(x), -1) / scale).astype(np.float32)
