"""Section 6 of Radford et al. 2015: lines between latents, sums of means of exemplars, judged by a classifier.

The paper's "smiling woman - woman + man" becomes "bold 3 - thin 3 + thin 5": a sample's class is what the classifier
says, bold and thin are the outer quarters of a class by ink. A sum succeeds if it is of the wanted class with more ink
than that class's median.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.reproduce import dcgan_models as models
from experiments.reproduce import draw, inversion, samples
from experiments.reproduce.job import Job, Measured, Outcome, Part, Table, Trained, says
from vaegan_jax import adversarial, gan
from vaegan_jax.metrics.distances import nearest

EXEMPLARS = 3
ROWS = 10  # pairs of classes that are drawn
NOISE = 0.25  # of figure 7's neighbours of a sum
SURE = 0.9  # the classifier's probability from which on a sample is of a class


@dataclasses.dataclass(frozen=True)
class Pool:
    """Latents [N, K], the class of each one's image (-1: none for sure), its ink, and each class's median of it [C]."""

    z: np.ndarray
    label: np.ndarray
    ink: np.ndarray
    median: np.ndarray

    def exemplars(self, c: int, bold: bool) -> np.ndarray:
        """Rows of the boldest or thinnest quarter of a class."""
        own = np.flatnonzero(self.label == c)
        order = own[np.argsort(self.ink[own], kind="stable")]
        quarter = len(order) // 4
        return order[len(order) - quarter :] if bold else order[:quarter]

    def pairs(self, exemplars: int) -> list[tuple[int, int]]:
        """All (a, b) of two classes that have so many exemplars of either kind."""
        enough = [c for c in range(len(self.median)) if len(self.exemplars(c, True)) >= exemplars]
        return [(a, b) for a in enough for b in enough if a != b]

    def terms(self, a: int, b: int, exemplars: int, rng: np.random.Generator) -> np.ndarray:
        """Latents of so many exemplars of bold a, thin a and thin b: [3, exemplars, K]."""
        wanted = ((a, True), (a, False), (b, False))
        return np.stack([self.z[rng.choice(self.exemplars(c, bold), exemplars, replace=False)] for c, bold in wanted])

    def succeeds(self, label: np.ndarray, ink: np.ndarray, wanted: np.ndarray | int) -> np.ndarray:
        """Whether images are of the wanted class and bold: [N]."""
        return (label == wanted) & (ink > self.median[wanted])


def total(terms: np.ndarray) -> np.ndarray:
    """[3, exemplars, K] -> bold a - thin a + thin b of their means, [K]."""
    bold, thin, other = terms.mean(axis=1)
    return np.asarray(bold - thin + other)


def pool(config: gan.Config, state: Any, network: Any, seed: int, n: int) -> Pool:
    z = np.asarray(adversarial.draw_latents(config, jax.random.key(seed), n))
    label, ink = judged(network, inversion.images(config, state, z))
    C = network.probabilities(np.zeros((1, *state.shape), np.float32), progress=False).shape[1]
    median = np.array([np.median(ink[label == c]) if (label == c).any() else np.inf for c in range(C)])
    return Pool(z, label, ink, median)


def judged(network: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(class or -1, ink = summed intensity) of images [N, H, W, C]: [N] each."""
    probabilities = network.probabilities(x, progress=False)
    label = np.where(probabilities.max(axis=1) >= SURE, probabilities.argmax(axis=1), -1)
    return label, x.reshape(len(x), -1).sum(axis=1)


def sums(
    found: Pool, exemplars: int, rng: np.random.Generator, enough: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """bold a - thin a + thin b of means of exemplars: [P, K], and b [P].

    Of all pairs of classes that have `enough` of them, by default as many as there are to a mean.
    """
    pairs = found.pairs(enough or exemplars)
    z = [total(found.terms(a, b, exemplars, rng)) for a, b in pairs]
    return np.array(z).reshape(len(pairs), found.z.shape[1]), np.array([b for _, b in pairs], int)


def arithmetic(job: Job) -> Outcome:
    train, _, test = models.splits(job, "mnist")
    network, one = samples.network(job, "mnist"), models.train(job, "mnist")
    n, rounds = job.choose(200, 10_000, 10_000), job.choose(1, 10, 10)
    # As sums of means of three have the prior's spread and single ones sqrt(3) times as much, outside its cube, the
    # last is what the spread alone does.
    kinds = {"three": (EXEMPLARS, 1.0), "one": (1, 1.0), "one, scaled": (1, EXEMPLARS**-0.5)}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    smooth = []
    known = network.features(train.x, progress=False)
    for seed in one.seeds:
        state = one.state(seed)
        found = pool(one.config(), state, network, seed, n)
        for kind, (exemplars, scale) in kinds.items():
            rng, hits = np.random.default_rng(seed), []
            for _ in range(rounds):
                z, wanted = sums(found, exemplars, rng, EXEMPLARS)  # of the same pairs
                if len(z):
                    label, ink = judged(network, inversion.images(one.config(), state, scale * z))
                    hits.append(found.succeeds(label, ink, wanted).mean())
            rates[kind].append(float(np.mean(hits)) if hits else 0.0)
        smooth.append(_smoothness(job, one, state, found, network, known))
        job.tick()
    _draw(job, one, network)
    data, steps = (train, test), models.steps(job.budget)

    def row(values: np.ndarray, note: str = "") -> Measured:
        return Measured(values.tolist(), one.seeds, one.failed, steps, one.config(), data, note=note)

    mean, single, scaled = (np.array(each) for each in rates.values())
    between = np.array(smooth).reshape(len(smooth), 2, 3)  # [seed, by probability or distance, latents pixels samples]
    sure, far = between[:, 0], between[:, 1]
    said = f"three {draw.spread(mean)}, one {draw.spread(single)}, one scaled {draw.spread(scaled)}"
    rows = {
        "arithmetic": row(mean, "thin b alone is bold in no case, by definition"),
        "exemplars": row(mean - single, said),
        "exemplars_scaled": row(mean - scaled, said),
        "interpolation": row(sure[:, 0] - sure[:, 1], f"samples themselves {draw.spread(sure[:, 2])}"),
        "interpolation_near": row(
            far[:, 1] - far[:, 0],
            f"on latents {draw.spread(far[:, 0])}, on pixels {draw.spread(far[:, 1])}, samples themselves "
            f"{draw.spread(far[:, 2])}",
        ),
    }
    lines = [
        [f"means of {EXEMPLARS} exemplars", draw.spread(mean)],
        ["single exemplars", draw.spread(single)],
        ["single exemplars, the sum divided by the root of 3", draw.spread(scaled)],
    ]
    title = f"Share of sums that are bold and of the wanted class, {rounds} rounds of all pairs; mean +- sd over seeds."
    table = Table(title, ("terms", "share"), lines)
    names = ("halfway on latents", "halfway on pixels", "samples, none chosen")
    lines = [[name, draw.spread(sure[:, i]), draw.spread(far[:, i])] for i, name in enumerate(names)]
    title = "Halfway between two samples of different classes; mean +- sd over seeds."
    columns = ("image", "probability of the likeliest class", "distance to the nearest training image")
    middle = Table(title, columns, lines)
    captions = {
        "arithmetic.png": "Figure 7's arithmetic, first seed, a pair of classes a row, none chosen: three exemplars of "
        "each term and the image of their mean, the sum bold a - thin a + thin b, and the sum with uniform noise of "
        "+-.25, four times. Yes: the classifier takes the sum for a b with more ink than half of them have.",
        "interpolation.png": "Figure 4: lines between latents, first seed.",
    }
    return Outcome(rows, [table, middle], captions if one.seeds else {})


def apart(label: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of neighbours in a list of classes [N] (-1: none for sure) that differ, at most `most` pairs: two of [P]."""
    sure = np.flatnonzero(label >= 0)
    a, b = sure[::2][: len(sure) // 2], sure[1::2]
    differ = label[a] != label[b]
    return a[differ][:most], b[differ][:most]


def _smoothness(job: Job, one: Trained, state: Any, found: Pool, network: Any, known: np.ndarray) -> np.ndarray:
    """Of pictures halfway between two sure samples of different classes, means [2, 3]: the likeliest class's
    probability, and the distance to the nearest of `known` [N, F] features of training images.

    On latents, on pixels, and of samples of which none is chosen, to compare with. 0 where no two samples are sure of
    different classes: there is nothing to go between.
    """
    rows_a, rows_b = apart(found.label, job.choose(10, 500, 500))
    if not len(rows_a):
        return np.zeros((2, 3))
    a, b = found.z[rows_a], found.z[rows_b]
    ends = [inversion.images(one.config(), state, z) for z in (a, b)]
    plain = inversion.images(one.config(), state, found.z[: len(a)])
    seen = (inversion.images(one.config(), state, (a + b) / 2), (ends[0] + ends[1]) / 2, plain)
    both = [network.both(x, progress=False) for x in seen]
    return np.array([[p.max(axis=1).mean() for _, p in both], [np.sqrt(nearest(f, known)[0]).mean() for f, _ in both]])


def _draw(job: Job, one: Trained, network: Any) -> None:
    if not one.seeds:
        return
    seed = one.seeds[0]
    config, state = one.config(), one.state(seed)
    found = pool(config, state, network, seed, job.choose(200, 4_000, 4_000))
    rng = np.random.default_rng(1)
    pairs, page = found.pairs(EXEMPLARS), []
    for i in rng.permutation(len(pairs))[:ROWS]:
        a, b = pairs[i]
        terms = found.terms(a, b, EXEMPLARS, rng)
        near = total(terms) + rng.uniform(-NOISE, NOISE, (4, config.latents))
        with_means = np.concatenate([terms, terms.mean(axis=1, keepdims=True)], axis=1).reshape(-1, config.latents)
        x = inversion.images(config, state, np.concatenate([with_means, total(terms)[None], near]))
        there = found.succeeds(*judged(network, x[len(with_means) :][:1]), b)[0]
        page.append((f"{a} to {b}: {'yes' if there else 'no'}", x))
    kinds = [title for kind in ("bold a", "thin a", "thin b") for title in (*[kind] * EXEMPLARS, "mean")]
    titles = (*kinds, "sum", *["+ noise"] * 4)
    page = page or [("no class has enough exemplars", np.zeros((1, *state.shape)))]
    draw.panels(page, job.figures / "arithmetic.png", columns=len(titles), titles=titles)

    inversion.lines(config, state, jax.random.key(1), job.figures / "interpolation.png")


PARTS = (
    Part(
        "arithmetic",
        ("arithmetic", "exemplars", "exemplars_scaled", "interpolation", "interpolation_near"),
        arithmetic,
        says(
            "sums and lines of the unconditional DCGAN's latents",
            "10 steps",
            "700 steps, trained by features_mnist or guidelines, whichever ran first; 3 minutes a seed",
            f"{models.PUBLISHED:,} steps",
        ),
    ),
)
