"""Mixtures: PacGAN's counting by hand, rows, and a smoke run."""

import math

import numpy as np
import pytest

from experiments.reproduce import mixtures, published
from tests.smoke import pictures, smoke


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in mixtures.PARTS for row in part.rows]
    theirs = [f"{tag}_veegan_{who}" for tag in mixtures.MIXTURES for who in ("gan", "own")]  # in the tables alone
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
        assert entry.not_run and float(mixtures.MIXTURES[tag].veegan[who][0]) == entry.value


def test_shares_are_of_good_points():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    points = np.array([[0.1, 0.0]] * 3 + [[10.0, 0.1]] + [[18.0, 0.0]] * 4)  # the last four are near no mode
    found = mixtures.measure(points, centres, 0.1)
    shares = np.array([0.75, 0.25])
    assert found == pytest.approx({"modes": 2, "good": 0.5, "kl": math.log(4) + float((shares * np.log(shares)).sum())})
    assert mixtures.measure(points[4:], centres, 0.1) == pytest.approx({"modes": 0, "good": 0, "kl": math.log(4)})


def test_a_smoke_run(tmp_path):
    found = smoke("mixtures", tmp_path, "ring")
    assert found["ring_modes_2"]["ours"]["n"] == 2 and found["ring_modes_3"]["ours"] is None
    assert found["ring_perfect"]["verdict"] == "claim holds" and found["ring_perfect"]["budget"] == "exact"
    assert pictures("mixtures", tmp_path) == {"ring-samples.png", "ring-modes.png"}
