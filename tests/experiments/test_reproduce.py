"""The machinery of reproduction: rules, verdicts, rows, and that the committed report is the rows'."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.reproduce import TARGETS, __main__, job, published, report, results
from vaegan_jax import vae

TOML = """
[gan]
headline = "a"
[gan.a]
paper = "P"
item = "Table 1"
dataset = "mnist"
metric = "m"
protocol = "as written"
splits = "train, test"
value = 225.0
error = 2.0
status = "C"
steps = 1000
rule = {kind = "within", bound = 10.0, because = "of it"}
[gan.b]
paper = "P"
item = "text"
dataset = "mnist"
metric = "m"
protocol = "as written"
splits = "train, test"
rule = {kind = "above", bound = 0.0, because = "of it"}
"""
ENTRIES = published.read(TOML)["gan"]


def rule(kind, bound):
    return published.Rule(kind, bound, "of it")


@pytest.mark.parametrize(
    ("kind", "bound", "values", "holds"),
    [
        ("within", 10, [220, 230, 245], True),
        ("within", 10, [200, 210, 220], False),
        ("within", 10, [math.nan, 225, 225], False),
        ("mean_at_most", 1, [0, 1.9], True),
        ("mean_at_most", 1, [0, 2.1], False),
        ("at_least", 1, [1, 1, 2], True),
        ("at_least", 1, [5, 5, 0.9], False),
        ("at_most", 1, [1, 1], True),
        ("at_most", 1, [0, 1.1], False),
        ("above", 0, [1, 1.1, 0.9], True),
        ("above", 0, [3, 0.1, -0.5], False),
        ("above", 0, [1, 1], False),  # two seeds have no interval worth the name
        ("below", 0, [-1, -1.1, -0.9], True),
        ("below", 0, [-3, -0.1, 0.5], False),
        ("above", 0, [], False),
    ],
)
def test_rules(kind, bound, values, holds):
    assert rule(kind, bound).holds(values, 225.0) is holds


def test_above_is_the_t_interval():
    """n = 4, sd 1: t(.975, 3) / 2 = 1.591."""
    shape = np.array([-1, -1, 1, 1]) * math.sqrt(3) / 2
    assert rule("above", 0).holds(shape + 1.60, None) and not rule("above", 0).holds(shape + 1.58, None)


def test_verdicts():
    number, claim = ENTRIES["a"], ENTRIES["b"]
    assert number.verdict([224, 226, 225], 500) == "reproduced"
    assert number.verdict([100, 101, 102], 500) == "budget too small: 500 of 1,000 steps"
    assert number.verdict([100, 101, 102], 500, flat=True) == "not reproduced"
    assert number.verdict([100, 101, 102], 1000) == "not reproduced"
    assert number.verdict([224, 226, 225], 1000, failed=1) == "not reproduced"
    assert claim.verdict([1, 1.1, 0.9], 5) == "claim holds"
    trivial = dataclasses.replace(number, early="so does a model that has hardly learned")
    assert trivial.verdict([224, 226, 225], 500) == "budget too small: 500 of 1,000 steps"
    assert trivial.verdict([224, 226, 225], 500, flat=True) == "reproduced"
    assert trivial.verdict([224, 226, 225], 1000) == "reproduced"
    assert claim.verdict([-1, -1.1, -0.9], 5) == "not reproduced"
    other = dataclasses.replace(number, not_comparable="another network")
    assert other.verdict([225], 1000) == "not comparable: another network"


def test_the_digest_is_of_what_judges_alone():
    changed = TOML.replace("as written", "in other words")
    assert published.read(changed)["gan"]["a"].sha256 == ENTRIES["a"].sha256
    doubted = TOML.replace("steps = 1000", 'steps = 1000\nearly = "untrained models agree"')
    assert published.read(doubted)["gan"]["a"].sha256 == ENTRIES["a"].sha256  # it takes agreement away, gives none
    for old, new in (("bound = 10.0", "bound = 11.0"), ("225.0", "226.0"), ("steps = 1000", "steps = 999")):
        assert published.read(TOML.replace(old, new))["gan"]["a"].sha256 != ENTRIES["a"].sha256


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('status = "C"', 'status = "X"', "status is 'X'"),
        ('kind = "within"', 'kind = "near"', "rule is 'near'"),
        ("value = 225.0\n", "", "needs a published value"),
        ("steps = 1000", "stepz = 1000", "stepz"),
        ('metric = "m"', "", "lacks metric"),
        ("bound = 10.0, ", "", "kind, bound and because"),
        ('rule = {kind = "above", bound = 0.0, because = "of it"}', "", "no rule"),
        ("steps = 1000", 'early = "untrained models agree"', "has early: give the rule and the steps"),
    ],
)
def test_an_entry_that_cannot_judge_is_refused(old, new, said):
    with pytest.raises(ValueError, match=said):
        published.read(TOML.replace(old, new))


def test_every_entry_of_the_file_is_read_and_every_target_has_a_headline():
    for target in TARGETS:
        assert published.headline(target) in published.entries()[target]


PROVENANCE = {"wall_seconds": 1.5, "device": "d", "versions": "v", "commit": "c"}


def measured(values, **more):
    return job.Measured(values, seeds=tuple(range(len(values))), steps=1000, config=vae.Config(), **more)


DATA = (SimpleNamespace(sha256="s"),)
NONE = results.digest(None)
WHOLE = measured([1.0, 2.0, 3.0], data=DATA)


def test_a_row_is_whole_and_its_numbers_agree():
    row = results.row(ENTRIES["a"], measured([224.0, 226.0, 228.0], data=DATA), budget="cpu", provenance=PROVENANCE)
    results.check(row)
    assert row["ours"] == {"values": [224.0, 226.0, 228.0], "mean": 226.0, "sd": 2.0, "n": 3}
    assert row["published"] == {"value": 225.0, "error": 2.0, "status": "C"} and row["verdict"] == "reproduced"
    exact = results.row(ENTRIES["a"], job.Measured([225.0], exact=True), budget="cpu", provenance=PROVENANCE)
    results.check(exact)
    assert exact["budget"] == "exact" and exact["seeds"] == [] and exact["ours"]["sd"] == 0
    none = results.not_run(ENTRIES["b"])
    results.check(none)
    assert none["budget"] == "none" and none["ours"] is None and none["published"] is None
    for change in ({"ours": row["ours"] | {"mean": 1.0}}, {"seeds": [0, 1]}, {"budget": "huge"}, {"budget": "exact"}):
        with pytest.raises(ValueError, match=r"gan\.a"):
            results.check(row | change)
    with pytest.raises(ValueError, match="finite"):
        results.summary([1.0, math.nan])
    results.agrees(row, ENTRIES["a"])
    results.agrees(none, ENTRIES["b"])
    for change in ({"verdict": "not reproduced"}, {"item": "another"}, {"published": None}):
        with pytest.raises(ValueError, match=r"gan\.a: .* is"):
            results.agrees(row | change, ENTRIES["a"])
    results.agrees(row | {"verdict": "not reproduced", "rule_sha256": "of before"}, ENTRIES["a"])
    late = dataclasses.replace(ENTRIES["a"], early="any model agrees", steps=10**9)
    early = results.row(late, measured([224.0, 226.0, 228.0]), budget="cpu", provenance=PROVENANCE)
    results.agrees(early, late)
    with pytest.raises(ValueError, match="its values give budget too small"):
        results.agrees(early | {"verdict": "reproduced"}, late)
    bad = job.Measured([1.0], seeds=(0, 1))
    with pytest.raises(ValueError, match="one each"):
        results.row(ENTRIES["a"], bad, budget="cpu", provenance=PROVENANCE)


def test_merging_keeps_other_budgets_and_says_what_was_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "entries", lambda: {"gan": ENTRIES})
    both = measured([1.0, 2.0, 3.0])
    rows = [results.row(ENTRIES["a"], both, budget=budget, provenance=PROVENANCE) for budget in ("cpu", "paper")]
    results.merge("gan", rows[:1], tmp_path)
    assert [r["budget"] for r in results.read("gan", tmp_path)] == ["cpu", "none"]
    results.merge("gan", rows[1:], tmp_path)
    found = results.read("gan", tmp_path)
    assert [(r["id"], r["budget"]) for r in found] == [("gan.a", "paper"), ("gan.a", "cpu"), ("gan.b", "none")]
    assert [r["budget"] for r in results.best(found)] == ["paper", "none"]
    reworded = {name: dataclasses.replace(entry, paper="P", sha256=entry.sha256) for name, entry in ENTRIES.items()}
    monkeypatch.setattr(published, "entries", lambda: {"gan": reworded})
    results.merge("gan", [], tmp_path)
    assert {r["paper"] for r in results.read("gan", tmp_path)} == {"P"}  # a text, which judges nothing
    agreed = {**rows[0], "verdict": "reproduced", "steps": 500}
    doubted = {**reworded, "a": dataclasses.replace(reworded["a"], early="untrained models agree")}
    monkeypatch.setattr(published, "entries", lambda: {"gan": doubted})
    results.merge("gan", [agreed], tmp_path)  # of a folder from before
    assert results.read("gan", tmp_path)[1]["verdict"] == "budget too small: 500 of 1,000 steps"
    again = results.row(ENTRIES["b"], measured([1.0, 2.0, 3.0]), budget="cpu", provenance=PROVENANCE)
    results.merge("gan", [again], tmp_path)
    assert [r["budget"] for r in results.read("gan", tmp_path)] == ["paper", "cpu", "cpu"]
    (tmp_path / "gan.json").write_text("[]")
    with pytest.raises(ValueError, match="no results file"):
        results.read("gan", tmp_path)


def test_a_row_with_seeds_has_the_digests_of_what_went_in():
    row = results.row(ENTRIES["a"], measured([1.0, 2.0, 3.0]), budget="cpu", provenance=PROVENANCE)
    with pytest.raises(ValueError, match="no data"):  # such as those of a generator that is used up
        results.check(row)
    with pytest.raises(ValueError, match="no config"):
        results.check(results.row(ENTRIES["a"], WHOLE, budget="cpu", provenance=PROVENANCE) | {"config_sha256": NONE})


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"values": [1.0, 2.0, -9.0]}, True),  # a game that was lost before is not hidden by one that was won
        ({"values": [1.0, 2.0], "seeds": (0, 1), "failed": (2,)}, True),
        ({"values": [1.001, 2.0, 3.0]}, False),  # another processor's rounding
        ({"values": [1.0, 2.0], "seeds": (0, 1)}, False),  # a seed more
        ({"values": [1.0, 2.0, 3.0, 9.0], "seeds": (0, 1, 2, 3)}, True),  # a seed that is not run again
        ({"values": [1.0, 2.0, 3.0], "seeds": (7, 8, 9)}, True),
        ({"values": [1.0, 2.0, -9.0], "steps": 500}, False),  # shorter
    ],
)
def test_a_rerun_hides_no_run_of_the_same_seeds(tmp_path, monkeypatch, change, kept):
    monkeypatch.setattr(published, "entries", lambda: {"gan": ENTRIES})
    runs = [dataclasses.replace(WHOLE, **change), WHOLE]
    first, row = (
        results.row(ENTRIES["a"], run, budget="cpu", provenance=PROVENANCE | {"device": f"d{i}"})
        for i, run in enumerate(runs)
    )
    results.merge("gan", [first], tmp_path)
    results.merge("gan", [row], tmp_path)
    for _ in range(2):  # and not by merging them again
        found = results.read("gan", tmp_path)[0]
        assert found["ours"]["values"] == WHOLE.values
        assert [run["values"] for run in found.get("before", [])] == ([change["values"]] if kept else [])
        assert [run["device"] for run in found.get("before", [])] == (["d0"] if kept else [])
        results.merge("gan", [first], tmp_path)
        results.merge("gan", [row], tmp_path)
    cells = report._cells(found, ENTRIES["a"])
    assert ("in an earlier run 1, 2" in cells["ours"]) == (kept and change["values"] != WHOLE.values)
    assert ("before, d0, commit c: 1, 2" in report._note(found)) == kept


def test_an_earlier_run_that_agrees_is_in_the_notes_alone():
    row = results.row(ENTRIES["a"], WHOLE, budget="cpu", provenance=PROVENANCE)
    close = {"values": [1.5, 2.5, 2.5], "failed_seeds": [], "device": "d", "commit": "c0"}
    assert "earlier" not in report._cells(row | {"before": [close]}, ENTRIES["a"])["ours"]
    assert "1.5, 2.5, 2.5" in report._note(row | {"before": [close]})
    lost = close | {"values": [], "failed_seeds": [0, 1, 2]}
    assert "in an earlier run 3 of 3 seeds failed" in report._cells(row | {"before": [lost]}, ENTRIES["a"])["ours"]


def test_parts_that_end_at_once_lose_no_rows(tmp_path):
    """Eight processes' worth of merges: each row is there afterwards."""
    known = list(published.entries()["gan"])[:8]

    def put(name):
        row = results.row(
            published.entries()["gan"][name], measured([1.0, 2.0, 3.0]), budget="cpu", provenance=PROVENANCE
        )
        results.merge("gan", [row], tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, known))
    assert {r["id"] for r in results.read("gan", tmp_path) if r["budget"] == "cpu"} == {f"gan.{n}" for n in known}


def test_a_verdict_says_which_way_it_points_and_what_seeds_leave_open():
    def remark(verdict, values, steps, kind="above", early="", failed=()):
        entry = dataclasses.replace(ENTRIES["a"], steps=2000, rule=published.Rule(kind, 0.0, "b"))
        entry = dataclasses.replace(entry, early=early)
        row = {"steps": steps, "ours": {"values": values, "n": len(values)}, "failed_seeds": failed}
        return report._remark(verdict, row, entry)

    assert remark("claim holds", [1.0, 1.1, 1.2], 1000) == " at 1,000 of 2,000 steps"
    assert remark("claim holds", [1.0, 1.1, 1.2], 2000) == ""
    short = "budget too small: 1,000 of 2,000 steps"
    assert remark(short, [-1.0, -1.1, -1.2], 1000) == "; so far the other way"
    assert remark(short, [-1.0, 3.0, 1.2], 1000) == "; so far undecided by 3 seeds"
    assert remark(short, [1.0, 1.1, 1.2], 1000, "below") == "; so far the other way"
    assert remark(short, [-1.0, -1.1], 1000, "at_least") == ""
    said = remark(short, [1.0, 1.1, 1.2], 1000, early="so does a model that has hardly learned")
    assert said == "; so far it agrees, but so does a model that has hardly learned"
    assert remark(short, [1.0, 1.1, 1.2], 1000, failed=(3,)) == ""  # which the number beside it says
    assert remark("not comparable: x", [1.0], 1000) == ""
    assert (
        remark("not reproduced", [-1.0, -1.1, -1.2], 2000) == "" == remark("not reproduced", [-1.0], 2000, "at_least")
    )
    assert remark("not reproduced", [-1.0, 3.0, 1.2], 2000) == ": undecided by 3 seeds"


def test_texts_are_the_entrys_and_values_that_say_more_than_their_mean_are_shown():
    row = results.row(ENTRIES["b"], measured([1.0, 2.0, 3.0]), budget="cpu", provenance=PROVENANCE)
    remembered = dataclasses.replace(ENTRIES["b"], status="M")
    silent = dataclasses.replace(ENTRIES["b"], rule=None)
    for entry, theirs in ((ENTRIES["b"], "a claim: > 0"), (remembered, "a claim [M]: > 0"), (silent, "-")):
        assert report._cells({**row, "published": None}, entry)["published"] == theirs
    assert report._cells(row, ENTRIES["b"])["ours"] == "2.0 +- 1.0 (n = 3)"
    lost = results.row(ENTRIES["b"], measured([145.0, 147.5, -279.4]), budget="cpu", provenance=PROVENANCE)
    assert report._cells(lost, ENTRIES["b"])["ours"] == "145, 148, -279"
    said = {**row, "published": {"value": 27.59, "error": 1.42, "status": "M"}}
    assert report._cells(said, ENTRIES["b"])["published"] == "27.59 +- 1.42 [M]"
    said = {**row, "published": {"value": 1800.0, "error": 600.0, "status": "C"}}
    reach = dataclasses.replace(ENTRIES["b"], error_is=published.RANGE)
    assert report._cells(said, reach)["published"] == "1200 to 2400"
    assert published.entries()["vae"]["seconds"].error_is == published.RANGE
    ours = dataclasses.replace(ENTRIES["a"], status="V")
    agrees = results.row(ours, measured([225.0, 226.0, 227.0]), budget="cpu", provenance=PROVENANCE)
    assert report._cells(agrees, ours)["verdict"] == "agreed with our own computation"
    assert report._cells(agrees, dataclasses.replace(ours, sha256="x"))["verdict"].startswith(
        "not comparable: its rule"
    )


def test_a_users_mistake_is_one_sentence(tmp_path, capsys):
    for flags, said in (
        (["pca", "--parts", "nosuch"], "no part 'nosuch'"),
        (["pca", "--seeds", "0", "1"], "at least three"),
        (["pca", "--budget", "smoke", "--seeds", "0", "0"], "each once"),
    ):
        assert __main__.main([*flags, "--workdir", str(tmp_path)]) == 1
        assert said in capsys.readouterr().err


def test_a_cheap_part_has_ten_seeds_unless_told_otherwise(tmp_path, capsys):
    assert __main__.main(["wgan", "--list"]) == 0
    said = capsys.readouterr().out
    assert "example1_gan_flat; seeds 0 1 2 3 4 5 6 7 8 9\n" in said and "mlp_gan_collapses; seeds 0 1 2\n" in said
    assert __main__.main(["wgan", "--parts", "example1", "--seeds", "3", "4", "5", "--list"]) == 0
    assert "example1_gan_flat; seeds 3 4 5\n" in capsys.readouterr().out


def test_a_folder_of_other_rules_does_not_keep_the_other_parts_from_running(tmp_path, monkeypatch, capsys):
    ran = []
    parts = [job.Part(name, (), lambda job, name=name: ran.append(name) or job_outcome(), str) for name in ("a", "b")]
    monkeypatch.setattr("experiments.reproduce.pca.PARTS", parts)
    monkeypatch.setattr(results, "merge", lambda *_: None)
    flags = ["pca", "--budget", "smoke", "--workdir", str(tmp_path)]
    assert __main__.main([*flags, "--parts", "a"]) == 0
    assert __main__.main([*flags, "--seeds", "3", "4"]) == 1
    assert ran == ["a", "b"] and "a: stopped: " in capsys.readouterr().err
    more = [job.Part("a", (), parts[0].run, lambda budget: "more steps"), parts[1]]
    monkeypatch.setattr("experiments.reproduce.pca.PARTS", more)
    assert __main__.main([*flags, "--parts", "a"]) == 1
    assert ran == ["a", "b"] and "seeds, rules or steps" in capsys.readouterr().err


def job_outcome():
    return job.Outcome({})


def test_the_committed_rows_are_whole_and_the_report_is_theirs():
    for target in TARGETS:
        for row in results.read(target):
            results.check(row)
    assert report.REPORT.read_text() == report.text(), "run `make report`"
    assert report.main(["--check"]) == 0


def test_rules_came_before_the_rows():
    """Every committed row was run at a commit that already had its rule, and that lies in this history."""
    if results.git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone does not have the commits")
    rows = [row for target in TARGETS for row in results.read(target) if row["budget"] != "none"]
    for commit in {row["commit"] for row in rows}:
        results.git("merge-base", "--is-ancestor", commit, "HEAD")
    for row in rows:
        assert results.rule_came_first(row), row["id"]


def test_the_report_leads_to_its_sections_and_says_what_repeats():
    assert report._anchor("pca").startswith("pca-principal-components-beside-what-learns-by-gradients-hinton--sal")
    page = report.REPORT.read_text()
    for target in TARGETS:  # GitHub's rule: lower case, no punctuation, a hyphen for each space
        (title,) = (line[3:] for line in page.splitlines() if line.startswith(f"## {target}: "))
        plain = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
        assert f"](#{plain.replace(' ', '-')})" in page
    long = "a protocol of more than twenty letters"
    rows = [["a", long, "x"], ["b", long, "x"], ["c", "another", long], ["d", long, long]]
    found = report._as_above(rows, 1, 2)
    assert [row[1:] for row in found] == [[long, "x"], ["as above", "x"], ["another", long], [long, "as above"]]
    assert report._counted("not run: data") == "without data" and report._counted("not run: why") == "not run"


def test_numbers_are_shown_to_the_digits_of_their_errors():
    assert report._number(225.123, 2.0) == "225.1 +- 2.0"
    assert report._number(13.866, 0.0523) == "13.866 +- 0.052"
    assert report._number(1234.5, 123.0) == "1234 +- 123"
    assert report._duration(30) == "30 s" and report._duration(600) == "10 min" and report._duration(7200) == "2.0 h"
    assert report._device("AMD EPYC, 1 core; AMD EPYC, 2 cores") == "1 core AMD EPYC; 2 cores AMD EPYC"
    assert report._device("Intel(R) Xeon(R) Processor, 1 cores") == "1 core Intel Xeon"
