"""Whether samples look like the data, by their nearest training images: classes found, largest share, distance."""

import dataclasses

import numpy as np

from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import distances


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Of n samples: how many classes a 1-nearest-neighbour classifier finds, the largest class's share of them,

    the mean Euclidean distance to the nearest training example, and its ratio to that of as many test examples: None
    where those lie in the training set.
    """

    n: int
    classes: int
    of_classes: int
    largest_share: float
    distance: float
    distance_ratio: float | None

    def __str__(self) -> str:
        far = (
            f"{self.distance:.3g} from the training set, which holds the test examples"
            if self.distance_ratio is None
            else f"{self.distance_ratio:.2f} times as far from the training set as test examples"
        )
        found = f"{self.classes} of {self.of_classes} classes, the largest {self.largest_share:.0%}"
        return f"{found}, {far} ({self.n:,} samples, 1-NN)"


def neighbours(samples: np.ndarray, train: Dataset, test: Dataset) -> Neighbours:
    """samples [n, *shape] in [0, 1] against a labelled set of images.

    Raises:
        ValueError: data without labels, or of another shape.
    """
    if train.label is None or train.label.ndim != 1:
        raise ValueError(f"{train.name} has no classes: give a labelled data set.")
    for name, x in (("samples", samples), ("test", test.x)):
        if x.shape[1:] != train.x.shape[1:] or not len(x):
            raise ValueError(f"{name} has shape {x.shape}: [n, {', '.join(map(str, train.x.shape[1:]))}] is expected.")
    reference = test.x[: len(samples)]
    own, nearest = _nearest(samples, train.x)
    usual = _nearest(reference, train.x)[0].mean()
    _, counts = np.unique(train.label[nearest], return_counts=True)
    return Neighbours(
        n=len(samples),
        classes=len(counts),
        of_classes=len(np.unique(train.label)),
        largest_share=float(counts.max() / len(samples)),
        distance=float(own.mean()),
        distance_ratio=float(own.mean() / usual) if usual > 0 else None,
    )


def _nearest(queries: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Euclidean distance, row of x) of the training example nearest to each of queries: [n], [n]."""
    squared, row = distances.nearest(queries.reshape(len(queries), -1), x.reshape(len(x), -1))
    return np.sqrt(squared[:, 0]), row[:, 0]
