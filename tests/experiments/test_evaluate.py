"""experiments.evaluate: its table, the JSON file beside the run, what that keeps, and its sentences."""

import json

import pytest

from experiments import evaluate as script
from tests.metrics.test_evaluation import GAN, N
from vaegan_jax import data, fit, gan


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "gan"
    fit.fit(gan, GAN, data.load("digits", "train[:200]"), steps=3, seeds=(3, 5), workdir=folder, progress=False)
    return folder


def test_the_script_prints_the_table_and_leaves_json_beside_the_run(workdir, capsys):
    arguments = ["--workdir", str(workdir), "--samples", str(N), "--network", "pixels", "--seeds", "5"]
    assert script.main([*arguments, "--metrics", "dc"]) == 0
    capsys.readouterr()
    assert script.main([*arguments, "--metrics", "pr"]) == 0
    out, err = capsys.readouterr()
    assert "precision" in out and "seed 5" in out
    assert "seed 5: pr (1 of 1)" in err
    stored = json.loads((workdir / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert stored["seeds"] == [5]
    names = [row["metric"].partition("[")[0] for row in stored["rows"]]
    assert names == ["density", "coverage", "precision", "recall"]  # the first call's too
    row = stored["rows"][-1]
    assert row["mean"] == row["values"][0]
    assert row["sd"] is None
    assert row["statistics"] == "running"


def test_what_was_measured_of_another_step_is_dropped(tmp_path):
    out = tmp_path / "evaluation.json"

    def save(metric, step):
        about = {"algorithm": "gan", "step": step, "seeds": [0], "data": "digits", "sha256": "0", "key": 0}
        script._save(about | {"rows": [{"metric": metric}]}, out)
        return [row["metric"] for row in json.loads(out.read_text())["rows"]]

    assert save("a", 1) == ["a"] and save("b", 1) == ["a", "b"] and save("a", 1) == ["b", "a"]
    assert save("c", 2) == ["c"]


def test_another_files_json_is_kept(workdir, tmp_path, capsys):
    out = tmp_path / "mine.json"
    out.write_text("[1]")
    arguments = ["--workdir", str(workdir), "--samples", str(N), "--network", "pixels", "--metrics", "pr"]
    assert script.main([*arguments, "--out", str(out)]) == 1
    assert "no evaluation" in capsys.readouterr().err
    assert out.read_text() == "[1]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "two"], "whole numbers"),
        (["--metrics", "fid"], "some of frechet"),
        (["--out", "/nowhere/at/all.json"], "a folder that is there"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_line(workdir, capsys, arguments, message):
    assert script.main(["--workdir", str(workdir), *arguments]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
