"""What a person looks at: the quickstart's page, the gallery, and how samples are judged."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments import common, gallery, pages, quickstart, vae
from experiments.neighbours import neighbours
from vaegan_jax import data, fit
from vaegan_jax.metrics import evaluation


@pytest.fixture(scope="module")
def digits():
    return data.load("digits"), data.load("digits", "test")


def test_neighbours_of_the_training_set_are_itself(digits):
    train, test = digits
    found = neighbours(train.x[:500], train, test)
    assert (found.n, found.classes, found.of_classes) == (500, 10, 10)
    assert found.distance_ratio < 1e-6
    counts = np.bincount(train.label[:500])
    assert found.largest_share == counts.max() / 500


def test_neighbours_show_a_collapse_and_noise(digits):
    train, test = digits
    one = np.repeat(test.x[:1].astype(np.float32) / 255, 50, axis=0)
    assert (neighbours(one, train, test).classes, neighbours(one, train, test).largest_share) == (1, 1.0)
    noise = np.random.default_rng(0).uniform(size=(200, 8, 8, 1)).astype(np.float32)
    assert neighbours(noise, train, test).distance_ratio > 2
    assert neighbours(test.x[:200].astype(np.float32) / 255, train, test).distance_ratio == pytest.approx(1)


def test_neighbours_refuse_what_they_cannot_judge(digits):
    train, test = digits
    with pytest.raises(ValueError, match=r"\[n, 8, 8, 1\] is expected"):
        neighbours(np.zeros((3, 9, 9, 1)), train, test)
    with pytest.raises(ValueError, match="no classes"):
        neighbours(train.x[:3], data.Dataset(train.x, None), test)


def test_the_quickstarts_help_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for flag, code in (("--help", "0"), ("--fast", "2")):
        with pytest.raises(SystemExit, match=code):
            quickstart.main([flag])
    assert not list(tmp_path.iterdir())


def test_the_quickstarts_page_shows_all_models_and_every_link_leads_somewhere(tmp_path, monkeypatch, capsys):
    """Two steps of each; the numbers are another matter."""
    for module in (fit, common):
        monkeypatch.setattr(module, "SAMPLES", 50)  # as many as the pages' pictures have: one program
    parts = {name: dataclasses.replace(part, steps=2) for name, part in quickstart.parts().items()}
    monkeypatch.setattr(quickstart, "parts", lambda: parts)
    assert quickstart.main(["--folder", str(tmp_path / "quick")]) == 0
    page = (tmp_path / "quick" / "REPORT.md").read_text()
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert {link.partition("/")[0] for link in links} == {"vae", "vae2", "gan", "dcgan", "wgan", "vaegan"}
    stems = {link.partition("/")[2] for link in links}
    assert stems == {"samples.png", "interpolation.png", "reconstructions.png", "manifold.png"}
    for link in links:
        Image.open(tmp_path / "quick" / link).verify()
    assert "PCA, 8 components | 1.5" in page  # exact: no training in it
    said = capsys.readouterr().out
    assert str(tmp_path / "quick" / "REPORT.md") in said
    assert "make train-vae" in said


def test_the_gallery_shows_runs_side_by_side(tmp_path, capsys):
    small = ["--dataset", "digits", "--steps", "3", "--encoder.hidden", "8", "--decoder.hidden", "8"]
    for name in ("vae-a", "other"):
        assert vae.main([*small, "--workdir", str(tmp_path / name)]) == 0
    runs = [str(tmp_path / name) for name in ("vae-a", "other")]
    assert gallery.main(["--out", str(tmp_path / "g"), *runs]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| VAE", "| other"]
    assert Image.open(tmp_path / "g" / "samples.png").size == (2 * (6 * 9 + 1) + 14, 26 + 6 * 9 + 1)
    row = json.loads((tmp_path / "g" / "mnist.json").read_text())["rows"][0]
    assert (row["steps"], row["seeds"], row["epochs"]) == (3, [0], pytest.approx(300 / 1541))
    assert f"ELBO {row['test']['elbo']:.4g}" in rows[1] and f"{row['samples']['classes']}, " in rows[1]
    assert gallery.main(["--out", str(tmp_path / "g"), str(tmp_path / "nothing")]) == 1
    assert "no config.json" in capsys.readouterr().err
    assert gallery.main(runs) == 1
    assert "without --out" in capsys.readouterr().err


def test_the_readmes_table_of_mnist_is_that_of_the_results():
    assert gallery.main(["--check"]) == 0


def test_the_readmes_evaluation_is_that_of_its_file():
    found = json.loads((gallery.RESULTS / "evaluation.json").read_text())
    rows = [evaluation.Row(**{k: v for k, v in row.items() if k not in ("mean", "sd")}) for row in found["rows"]]
    of_run = {
        field.name: found[field.name] for field in dataclasses.fields(evaluation.Evaluation) if field.name != "rows"
    }
    said = str(evaluation.Evaluation(**of_run, rows=tuple(rows)))
    assert len(rows) > 10 and said in pages.README.read_text()


def test_the_readmes_classifiers_are_as_good_as_those_that_judged():
    said, folder = " ".join(pages.README.read_text().split()), gallery.RESULTS.parent / "vaegan"
    for part, name in (("models_mnist", "MNIST"), ("models_fashion", "Fashion-MNIST")):
        (table,) = json.loads((folder / f"{part}.json").read_text())["tables"]
        (accuracy,) = re.findall(r"test accuracy is ([\d.]+)%", table["title"])
        assert f"{float(accuracy):.1f} % on {name}" in said


def test_a_part_of_the_readme_is_put_between_its_marks(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- written by python -m a.b -->\nold\n<!-- end of a.b -->\nafter\n")
    assert pages.put("a.b", "new", check=True, path=page) == 1
    assert "python -m a.b" in capsys.readouterr().err and "old" in page.read_text()
    assert pages.put("a.b", "new", check=False, path=page) == 0
    assert pages.put("a.b", "new", check=True, path=page) == 0
    begin, end = "<!-- written by python -m a.b -->", "<!-- end of a.b -->"
    assert page.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    with pytest.raises(ValueError, match=r"no part of c\.d"):
        pages.put("c.d", "new", check=False, path=page)
