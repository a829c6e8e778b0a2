"""The notebooks: each was run from top to bottom as committed, runs today, and its sentences are what came out."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import notebook

NOTEBOOKS = sorted(notebook.FOLDER.glob("*.ipynb"))
ARTICLE = notebook.FOLDER / "article.ipynb"


def cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run(path, **changes):
    """What the notebook's names are after its last cell; `changes` are made after its first."""
    names = {"__name__": "notebook"}
    for i, cell in enumerate(cells(path)):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {i}", "exec"), names)
        if i == 0:
            assert changes.keys() <= names.keys()
            names |= changes
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_outputs_are_of_one_run_from_top_to_bottom(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}  # no error
    assert not any(output.get("name") == "stderr" or "image/jpeg" in output.get("data", {}) for output in outputs)


def test_what_the_article_notebook_says_is_what_came_out():
    printed = "".join("".join(output.get("text", "")) for cell in cells(ARTICLE) for output in cell["outputs"])

    def numbers(pattern):
        found = [
            tuple(map(float, each if isinstance(each, tuple) else (each,))) for each in re.findall(pattern, printed)
        ]
        assert found, pattern
        return np.array(found)

    # An autoencoder reconstructs about as well as PCA; without the KL term sigma goes to 0; PCA < VAE < the law.
    errors = numbers(r"(?:autoencoder|PCA), .*: squared error ([\d.]+)\n")
    assert len(errors) == 3 and np.ptp(errors) < 0.01 * errors.min()
    ((of_pca,),) = numbers(r"squared error [\d.]+; ([\d.]+) \+- [\d.]+ nats below")
    line = r"{}, seed \d: sigma ([\d.]+); log p\(x\) ([\d.]+) .* law; the bound ([\d.]+) "
    without, vae = numbers(line.format("VAE without the KL term")), numbers(line.format("\nVAE"))
    assert (without[:, 0] < 0.01).all() and (without[:, 1] > of_pca).all()
    assert (vae[:, 1] > 0).all() and (vae[:, 1] < vae[:, 2]).all() and (vae[:, 2] < of_pca).all()
    # Noise as the data makes noise; of raw logits no gradient is left; beta1 .5 and R1 make the difference.
    ((spread, far),), ((of_noise, across),) = (
        numbers(rf"{name}: standard deviation ([\d.]+) in the plane; ([\d.]+) is") for name in ("samples", "\nnoise")
    )
    assert spread == pytest.approx(of_noise, rel=0.25) and far == pytest.approx(across, rel=0.25)
    assert (numbers(r"the last gradient that is not exactly 0 is at step (\d+)") < 10).all()
    article, remedied = (numbers(rf"{name}, seed \d: (\d) of 8 clusters, (\d+)% good") for name in ("rate", "R1"))
    assert (article[:, 0] <= 2).all() and (remedied[:, 0] == 8).all() and len(article) == len(remedied) == 3


def test_the_articles_mistakes(capsys):
    found = run(ARTICLE, VAE_STEPS=20, GAN_STEPS=3, SEEDS=(0,))
    out = capsys.readouterr().out
    assert "ScopeParamShapeError" in out and "(2, 32)" in out
    # Cross-entropy of a raw logit has no slope outside (0, 1); from the logit it has one everywhere.
    a, (raw, right) = found["a"], found["slopes"].values()
    assert (raw[(a < -0.01) | (a > 1.01)] == 0).all() and (raw[(a > 0.01) & (a < 0.99)] < 0).all()
    np.testing.assert_allclose(right, -1 / (1 + np.exp(a)), rtol=1e-4)
    assert (found["norms"][:, 0] > 0).all()
    # Of samples made before, the generator's gradient is nothing.
    assert optax.global_norm(found["stale"]) == 0 < optax.global_norm(found["fresh"])
    # The law is a density: over the plane, its part of it integrates to 1.
    side = np.linspace(-12, 12, 401)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    others = -49 * np.log(2 * np.pi * found["NOISE"] ** 2)  # the 98 dimensions that are not in it, at 0
    inside = np.exp(np.float64(found["law"](points @ found["plane"].T)) - others)
    assert inside.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, rel=1e-2)
    assert found["judge"](found["test"])[0] == 8
    assert found["across"](found["test"]) == pytest.approx(98 * found["NOISE"] ** 2, rel=0.02)
    # A decoder that says 0 for every z: log N(x; 0, noise).
    model = found["state"].model  # of the last VAE
    dead = found["state"].replace(model=model.replace(params=jax.tree.map(jnp.zeros_like, model.params)))
    x = np.asarray(found["test"], np.float64)
    exact = -0.5 * (x**2).sum(axis=1) / found["NOISE"] ** 2 - 50 * np.log(2 * np.pi * found["NOISE"] ** 2)
    np.testing.assert_allclose(found["integrated"](found["mended"], dead), exact, rtol=1e-5)


def test_without_what_runs_a_notebook_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    before = ARTICLE.read_bytes()
    assert notebook.main(["article"]) == 1
    assert "pip install -e '.[notebook]'" in capsys.readouterr().err
    assert ARTICLE.read_bytes() == before
