"""The benchmark of the metrics: every row runs small, peers agree with ours, the table says what it is."""

import json

import numpy as np
import pytest

from experiments.bench import metrics

EXTRA = {"prdc", "sklearn", "torch", "torch_fidelity", "torchmetrics"}


@pytest.mark.parametrize("name", metrics.TASKS)
def test_ours_and_its_peers_compute_the_same(name):
    calls = metrics.TASKS[name].build(20)
    ours = np.asarray(calls.pop("vaegan_jax")())
    assert np.isfinite(ours).all()
    for peer, call in calls.items():
        try:
            found = call()
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in EXTRA:
                raise
            continue
        if isinstance(found, dict):
            found = [found[key] for key in (("precision", "recall") if name == "pr" else ("density", "coverage"))]
        if name == "kernel":  # other random subsets
            assert abs(found[0] - ours[0]) < 4 * ours[1] / 10 + 1e-4
            continue
        np.testing.assert_allclose(found, ours, rtol=2e-3, atol=1e-6, err_msg=peer)


def test_the_table_has_every_contender_and_judges_only_full_sizes(tmp_path, capsys):
    out = tmp_path / "m.json"
    assert metrics.main(["--rows", "frechet", "pr", "--repeats", "1", "--shrink", "20", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert [row["name"] for row in result["rows"]] == ["frechet", "pr"]
    for row in result["rows"]:
        assert row["limit"] is None
        for name in row["found"]:
            assert f"| {row['title']} | {name} |" in table
    assert "kept" not in table


def test_a_limit_is_kept_or_not():
    row = {"title": "t", "limit": 2, "found": {"vaegan_jax": {"seconds": [1.0, 3.0, 1.5]}, "p": {"seconds": [3.0]}}}
    result = {"rows": [row], "device": "d", "versions": "v"}
    assert "| t | vaegan_jax | 1.50 (1.00-3.00) | - | 2 s: kept |" in metrics.lines(result)
    assert "| t | p | 3.00 | 2.0 | - |" in metrics.lines(result)
    row["found"]["vaegan_jax"]["seconds"] = [2.5]
    assert "2 s: not kept" in metrics.lines(result)


def test_what_is_not_installed_is_named():
    def absent():
        import not_there_at_all  # noqa: F401

    task = metrics.Task("t", None, lambda shrink: {"vaegan_jax": lambda: 1, "peer": absent})
    found = metrics.measure(task, 1, 1, lambda text: None)
    assert found["peer"] == {"missing": "not_there_at_all is not installed"}
    assert len(found["vaegan_jax"]["seconds"]) == 1


def test_wrong_flags_are_told(capsys):
    assert metrics.main(["--repeats", "0"]) == 1
    assert "give 1 or more" in capsys.readouterr().err


def test_the_reports_table_is_that_of_the_results():
    assert metrics.main(["--check"]) == 0
