"""Whether data are such as a config can be trained on, or judged by."""

from typing import Any

import numpy as np

from vaegan_jax.data.dataset import Dataset


def held_out(config: Any, data: Dataset, validation: Dataset) -> None:
    """Raises ValueError unless a model trained on `data` can be judged by `validation`."""
    if len(validation) == 0:
        raise ValueError(f"{validation.name} {validation.split} is empty: give at least one example to validate on.")
    if validation.x.shape[1:] != data.x.shape[1:]:
        raise ValueError(
            f"{validation.name} {validation.split} holds {list(validation.x.shape[1:])}, but {data.name} {data.split} "
            f"{list(data.x.shape[1:])}: give examples of one shape."
        )
    least = getattr(config, "least_examples", 1)
    if len(validation) < least:
        raise ValueError(
            f"{validation.name} {validation.split} has {len(validation)} examples, of which this config judges {least} "
            f"at once: give {least} or more to validate on."
        )
    labels(config, validation)
    value_range(config, validation)


def value_range(config: Any, data: Dataset) -> None:
    """Raises ValueError where the model's outputs lie in [0, 1] and the data do not."""
    if not getattr(config, "unit_range", False) or data.x.dtype == np.uint8:
        return
    low, high = data.x.min(), data.x.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"{data.name} {data.split} goes from {low:.3g} to {high:.3g}, but this config models values in [0, 1]: "
            "rescale them, or take the algorithm's vectors(D)."
        )


def labels(config: Any, data: Dataset) -> None:
    """Raises ValueError unless `data` has the labels, classes or attributes, that the config needs."""
    if not config.num_classes:
        return
    what = getattr(config, "labels", "classes")
    if data.label is None:
        raise ValueError(
            f"{data.name} {data.split} has no labels, but the config has {config.num_classes} {what}: give labels, or "
            "num_classes 0."
        )
    has = "classes" if data.label.ndim == 1 else "attributes"
    if has != what:
        raise ValueError(f"The labels of {data.name} {data.split} are {has}, but the config has labels={what!r}.")
    if has == "attributes":
        if data.label.shape[1] != config.num_classes:
            raise ValueError(
                f"{data.name} {data.split} has {data.label.shape[1]} attributes, but the config has num_classes "
                f"{config.num_classes}: give num_classes {data.label.shape[1]}."
            )
        return
    if data.label.min() < 0 or data.label.max() >= config.num_classes:
        raise ValueError(
            f"The labels of {data.name} {data.split} go from {data.label.min()} to {data.label.max()}: with "
            f"num_classes {config.num_classes} they must lie between 0 and {config.num_classes - 1}."
        )
