"""One seed's model as `evaluate` sees it: its samples, their features, what a likelihood sees; each made once."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaegan_jax import losses
from vaegan_jax import state as players
from vaegan_jax.data import cache
from vaegan_jax.data.dataset import Dataset
from vaegan_jax.metrics import frechet
from vaegan_jax.metrics.features import Extractor

PIXELS = "pixels"  # in place of a network's name: distances of the data themselves
PURPOSES = ("samples", "targets", "dequantise", "likelihood", "elbo", "ais", "bdmc")  # of keys


@dataclasses.dataclass(frozen=True)
class Value:
    """One number. error: its uncertainty for this one model, over what `over` says; None where there is none.

    n: how many samples or examples it is of; network: what the distances are of; split: of the data beside it.
    """

    metric: str
    value: float
    n: int
    split: str
    network: str = PIXELS
    error: float | None = None
    over: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is asked; see `evaluate`."""

    samples: int
    examples: int
    draws: int
    sigma: float | None
    chains: int
    distributions: int
    key: int


class Seen(NamedTuple):
    """What a network sees in N images; of pixels, which are their own features, there are no classes."""

    features: np.ndarray  # [N, D]
    probabilities: np.ndarray  # [N, classes]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What a run is judged by. reference: the split that samples are compared to, and whose likelihood is estimated."""

    train: Dataset
    validation: Dataset | None
    reference: Dataset
    load: Callable[[], Extractor | None]  # the network, trained on first use; None: pixels
    folder: Path = dataclasses.field(default_factory=lambda: cache.root() / "features")  # of statistics

    @functools.cached_property
    def extractor(self) -> Extractor | None:
        return self.load()

    @property
    def network(self) -> str:
        return self.extractor.name if self.extractor else PIXELS

    @functools.cached_property
    def seen(self) -> Seen:
        """The reference, as the network sees it."""
        return self.look(self.reference.x)

    @functools.cached_property
    def statistics(self) -> frechet.Statistics:
        """Of the reference's features: from the cache, where the network has a digest."""
        if self.extractor is None or not self.extractor.digest or "seen" in self.__dict__:
            return frechet.statistics(self.seen.features, self.network)
        return frechet.cached(
            self.folder, self.reference.sha256, self.extractor.digest, self.network, lambda: self.seen.features
        )

    def look(self, x: np.ndarray) -> Seen:
        if self.extractor is None:
            return Seen(as_float(x).reshape(len(x), -1), np.zeros((len(x), 0), np.float32))
        return Seen(*self.extractor.both(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One seed of a run."""

    algorithm: Any
    config: Any
    state: Any
    data: Data
    ask: Settings
    workdir: Path | None  # where what takes hours keeps its way

    def key(self, purpose: str) -> jax.Array:
        """One key a purpose, the same for each seed of a run and whatever else is asked."""
        return jax.random.fold_in(jax.random.key(self.ask.key), PURPOSES.index(purpose))

    @functools.cached_property
    def drawn(self) -> np.ndarray:
        """samples [n, *shape], float32; with attributes, of those of the reference's first examples."""
        n = self.ask.samples
        told = players.must_be_told(self.config, self.data.reference.label, n)
        return np.asarray(self.algorithm.sample(self.config, self.state, self.key("samples"), n, *told))

    @functools.cached_property
    def seen(self) -> Seen:
        """The samples, as the network sees them."""
        return self.data.look(self.drawn)

    def compared(self, metric: str, value: float, network: str | None = None, **more: Any) -> Value:
        """A value of the samples against the reference."""
        split = f"{self.data.reference.split} ({len(self.data.reference):,})"
        name = self.data.network if network is None else network
        return Value(metric, float(value), self.ask.samples, split, name, **more)

    @property
    def has_likelihood(self) -> bool:
        return hasattr(self.algorithm, "log_likelihood")

    @property
    def sigma(self) -> float:
        """Of N(G(z), sigma^2 I), for an algorithm without a likelihood of its own."""
        assert self.ask.sigma is not None, "_needs_density has refused what asks for a density"
        return self.ask.sigma

    @property
    def density(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """log p(x | z), z ~ N(0, I) [B, K], x [B, ...] -> [B]: the model's own, or N(x; G(z), sigma^2 I)."""
        if self.has_likelihood:
            return functools.partial(self.algorithm.log_likelihood, self.config, self.state)
        return functools.partial(_around, self.algorithm, self.config, self.sigma, self.state)

    @functools.cached_property
    def targets(self) -> jax.Array:
        """The reference's first examples as the likelihood sees them, one draw of them for every estimator."""
        x = self.data.reference.x[: self.ask.examples]
        if self.has_likelihood:
            drawn: jax.Array = self.algorithm.targets(self.config, jnp.asarray(x), self.key("targets"))
            return drawn
        if x.dtype != np.uint8:
            return jnp.asarray(x)
        return (jnp.asarray(x, jnp.float32) + jax.random.uniform(self.key("dequantise"), x.shape)) / 256

    @property
    def observed(self) -> str:
        """What `density` and `targets` are, for a row."""
        if not self.has_likelihood:
            noise = ", x = (byte + U) / 256" if self.data.reference.x.dtype == np.uint8 else ""
            return f"N(G(z), {self.sigma:g}^2 I){noise}"
        kind = self.config.likelihood
        if kind == "bernoulli":
            return f"{kind}, binarised: {self.config.binarize}"
        return f"{kind}, x = byte / 255, not dequantised" if self.data.reference.x.dtype == np.uint8 else kind


def _around(algorithm: Any, config: Any, sigma: float, state: Any, z: jax.Array, x: jax.Array) -> jax.Array:
    """log N(x; G(z), sigma^2 I): [B], nats."""
    return losses.gaussian_log_prob(algorithm.decode_standard(config, state, z), 2 * math.log(sigma), x)


def as_float(x: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]; floats stay."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
