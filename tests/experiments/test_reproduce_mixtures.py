"""Mixtures: PacGAN's counting by hand, rows, and a smoke run."""

import math

import numpy as np
import pytest

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import mixtures, published, results


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in mixtures.PARTS for row in part.rows]
    assert sorted(rows) == sorted(published.entries()["mixtures"])
    assert published.headline("mixtures") in rows


def test_shares_are_of_good_points():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    points = np.array([[0.1, 0.0]] * 3 + [[10.0, 0.1]] + [[18.0, 0.0]] * 4)  # the last four are near no mode
    found = mixtures.measure(points, centres, 0.1)
    shares = np.array([0.75, 0.25])
    assert found == pytest.approx({"modes": 2, "good": 0.5, "kl": math.log(4) + float((shares * np.log(shares)).sum())})
    assert mixtures.measure(points[4:], centres, 0.1) == pytest.approx({"modes": 0, "good": 0, "kl": math.log(4)})


def test_a_smoke_run(tmp_path):
    flags = ["--budget", "smoke", "--workdir", str(tmp_path), "--quiet", "--parts", "ring"]
    assert reproduce.main(["mixtures", *flags]) == 0
    found = {row["id"].split(".")[1]: row for row in results.read("mixtures", tmp_path / "results")}
    for row in found.values():
        results.check(row)
    assert found["ring_modes_2"]["ours"]["n"] == 2 and found["ring_modes_3"]["ours"] is None
    assert found["ring_perfect"]["verdict"] == "claim holds" and found["ring_perfect"]["budget"] == "exact"
    pictures = {file.name for file in (tmp_path / "results" / "mixtures").glob("*.png")}
    assert pictures == {"ring-samples.png", "ring-modes.png"}
