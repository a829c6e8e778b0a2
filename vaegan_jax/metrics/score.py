"""Inception score of a classifier's probabilities. Salimans et al. 2016, section 4."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from vaegan_jax.metrics import inputs


def inception_score(probs: ArrayLike, splits: int = 10) -> tuple[float, float]:
    """(mean, standard deviation over splits) of exp E KL(p(y|x) || p(y)), p(y) the split's own mean; in [1, C].

    probs [N, C] sum to 1 over the C classes. A split is a run of N / splits examples in the order given, so shuffle
    examples that are sorted by class. A number of the classifier as much as of the images: name both beside it.

    Raises ValueError for rows that are no probabilities, NaN, fewer examples than splits.
    """
    splits = inputs.count("splits", splits, 1)
    probs = inputs.probabilities("probs", probs, "[N, C]", 2)
    if len(probs) < splits:
        raise ValueError(f"probs has {len(probs)} examples for {splits} splits: give as many examples or fewer splits.")
    scores = [
        np.exp(rel_entr(part, part.mean(axis=0, keepdims=True)).sum(axis=1).mean())
        for part in (probs[i * len(probs) // splits : (i + 1) * len(probs) // splits] for i in range(splits))
    ]
    return float(np.mean(scores)), float(np.std(scores))
