"""The README's questions: numbers come from rows that exist, and nothing is said that nobody measured."""

import json
import string

import pytest

from experiments.reproduce import TARGETS, published, questions, results
from experiments.reproduce.questions import Question


def _write(folder, **means):
    rows = []
    for name, values in means.items():
        ours = results.summary(values) if values else None
        rows.append({"id": f"gan.{name}", "budget": "cpu" if values else "none", "ours": ours})
    (folder / "gan.json").write_text(json.dumps({"rows": rows}))


def _ask(answer):
    return Question("?", answer, "gan/picture.png", "gan")


@pytest.mark.parametrize("question", questions.QUESTIONS + questions.READINGS, ids=lambda q: q.asked)
def test_every_number_is_a_published_row(question):
    named = [field for _, field, _, _ in string.Formatter().parse(question.answer) if field]
    assert named
    assert all(row in published.entries()[question.target] for row in question.rows)
    assert ("most" in named) == bool(question.rows)
    for field in named:
        if field != "most":
            target, row = field.split(".")[:2]
            assert row in published.entries()[target]


def test_readings_say_what_their_numbers_do():
    """Their words were written for numbers: where these turn, the words must."""
    rows = {row["id"]: row["ours"] for target in TARGETS for row in results.best(results.read(target))}

    def mean(name):
        return rows[name]["mean"] if rows[name] else None

    assert mean("wgan.spearman_wgan_warm") > 0.9 > mean("wgan.spearman_wgan")
    assert mean("vae.estimator_b") > 1 > mean("vae.estimator_b_bound")
    assert mean("dcgan.real_50k") > mean("dcgan.real_50k_shuffled") > 3.15 > mean("dcgan.real_60k") > 3.05
    assert mean("vaegan.mnist_fakes_samples") < 0 < mean("vaegan.mnist_fakes_similarity")
    for kind in ("one_batch", "balance"):
        assert mean(f"vaegan.mnist_{kind}_samples") < 0 and mean(f"vaegan.mnist_{kind}_similarity") < 0
    for name in ("fig2_frey_nz5", "fig2_frey_wide_nz5"):
        assert mean(f"vae.{name}") > 0
    assert mean("vae.bound_variance") < 1 < mean("vae.bound_variance_image")
    assert mean("gan.table1") < 225 and abs(mean("gan.table1_normal") - 130) < 20 and mean("gan.table1_margin") < 150
    lines = questions.readings()
    assert len(lines) == len(questions.READINGS) and all(line.startswith("**") for line in lines)


def test_the_largest_of_several_rows(tmp_path):
    _write(tmp_path, table1=[200.0, 210.0, 220.0], real=[242.0], other=None)
    question = Question("?", "at most {most:.0f}", "", "gan", ("table1", "real"))
    assert questions.answer(question, tmp_path) == "at most 242"
    question = Question("?", "at most {most:.0f}", "", "gan", ("real", "other"))
    assert questions.answer(question, tmp_path).startswith("Not measured yet")


def test_numbers_are_means_and_deviations(tmp_path):
    _write(tmp_path, table1=[200.0, 210.0, 220.0], real=[242.0])
    said = questions.answer(_ask("{gan.table1:.0f} and {gan.table1.mean:.1f}, {gan.real:.0f}"), tmp_path)
    assert said == "210 +- 10 and 210.0, 242"


def test_a_figure_is_named_where_it_is(tmp_path):
    _write(tmp_path, real=[242.0])
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "picture.png").write_bytes(b"")
    assert questions.answer(_ask("{gan.real:.0f}"), tmp_path) == "242 ([figure](experiments/results/gan/picture.png))"
    said = questions.answer(_ask("{gan.real:.0f}"), tmp_path, from_report=True)
    assert said == "242 ([figure](results/gan/picture.png))"


def test_values_stand_for_themselves_and_a_row_by_an_old_rule_for_nothing(tmp_path):
    _write(tmp_path, table1=[145.0, 147.0, -279.0])
    assert questions.answer(_ask("{gan.table1:.0f}"), tmp_path) == "145, 147, -279"
    rows = json.loads((tmp_path / "gan.json").read_text())["rows"]
    rows[0]["rule_sha256"] = "of before"
    (tmp_path / "gan.json").write_text(json.dumps({"rows": rows}))
    assert questions.answer(_ask("{gan.table1:.0f}"), tmp_path).startswith("Not measured yet")


@pytest.mark.parametrize("answer", ["{gan.table1:.0f}", "{gan.other.mean:.0f}", "{vae.fig2:.1f}"])
def test_what_nobody_measured_is_not_said(tmp_path, answer):
    _write(tmp_path, table1=None)
    assert questions.answer(_ask(answer), tmp_path) == "Not measured yet: `make reproduce-gan`."
