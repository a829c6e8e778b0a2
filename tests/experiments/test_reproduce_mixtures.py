"""Mixtures: PacGAN's counting by hand, rows, and a smoke run."""

import json
import math

import jax
import numpy as np
import pytest

from experiments.reproduce import mixtures, published
from tests.smoke import pictures, smoke


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in mixtures.PARTS for row in part.rows]
    data = [*mixtures.MIXTURES, "high"]
    theirs = [f"{tag}_veegan_{who}" for tag in data for who in ("gan", "own")]  # in the tables alone
    theirs += [f"{tag}_veegan_{who}_good" for tag in mixtures.MIXTURES for who in ("gan", "own")]
    assert sorted([*rows, *theirs]) == sorted(published.entries()["mixtures"])
    assert published.headline("mixtures") in rows


@pytest.mark.parametrize("tag", mixtures.MIXTURES)
def test_the_printed_table_is_that_of_the_rules(tag):
    for packing in mixtures.PACKINGS:
        said = mixtures.MIXTURES[tag].pacgan[mixtures.title(packing)]
        for name, text in zip(mixtures.METRICS, said, strict=True):
            entry = published.entries()["mixtures"][f"{tag}_{name}_{packing}"]
            numbers = [float(word) for word in text.split(" +- ")]
            assert numbers == [v for v in (entry.value, entry.error) if v is not None]
    for name, who in (("gan", "GAN"), ("own", "VEEGAN")):
        entry = published.entries()["mixtures"][f"{tag}_veegan_{name}"]
        good = published.entries()["mixtures"][f"{tag}_veegan_{name}_good"]
        assert entry.not_run and good.not_run
        assert [float(text) for text in mixtures.MIXTURES[tag].veegan[who][:2]] == [entry.value, good.value]


def test_at_budget_cpu_the_claims_two_are_trained_longer():
    """Whose row, training and evaluations have steps of their own."""
    at = {budget: [mixtures.steps(budget, packing) for packing in mixtures.PACKINGS] for budget in ("cpu", "paper")}
    assert at == {"cpu": [20_000, 20_000, 10_000, 10_000], "paper": [400_000] * 4}


def test_shares_are_of_good_points():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    points = np.array([[0.1, 0.0]] * 3 + [[10.0, 0.1]] + [[18.0, 0.0]] * 4)  # the last four are near no mode
    found = mixtures.measure(points, centres, 0.1)
    shares = np.array([0.75, 0.25])
    assert found == pytest.approx({"modes": 2, "good": 0.5, "kl": math.log(4) + float((shares * np.log(shares)).sum())})
    assert mixtures.measure(points[4:], centres, 0.1) == pytest.approx({"modes": 0, "good": 0, "kl": math.log(4)})


def test_points_that_are_spread_evenly_hit_modes_by_chance():
    """Of n points on a square of side a, those within r of a mode are Poisson with mean n pi r^2 / a^2."""
    for tag in ("ring", "grid"):
        mixture = mixtures.MIXTURES[tag]
        centres = np.asarray(mixture.make(jax.random.key(0), 10)[1])
        found = mixtures.by_chance(mixture, centres)
        mean = mixtures.SAMPLES * math.pi * (3 * mixture.sd) ** 2 / (2 * mixture.square) ** 2
        assert found["modes"] == pytest.approx(len(centres) * (1 - math.exp(-mean)), rel=0.05)
        assert found["good"] == pytest.approx(mean * len(centres) / mixtures.SAMPLES, rel=0.1)


def test_a_smoke_run(tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "steps", lambda budget, packing: {1: 20, 2: 12}[packing])
    found = smoke("mixtures", tmp_path, "ring")
    rows = ("ring_modes_1", "ring_modes_2", "ring_more_modes")
    assert [found[row]["steps"] for row in rows] == [20, 12, 12]
    table = json.loads((tmp_path / "results" / "mixtures" / "ring.json").read_text())["tables"][0]
    assert "of 400,000 steps: GAN 20, PacGAN2 12." in table["title"]
    assert found["ring_modes_2"]["ours"]["n"] == 2 and found["ring_modes_3"]["ours"] is None
    assert found["ring_perfect"]["verdict"] == "claim holds" and found["ring_perfect"]["budget"] == "exact"
    assert pictures("mixtures", tmp_path) == {"ring-samples.png", "ring-modes.png"}
