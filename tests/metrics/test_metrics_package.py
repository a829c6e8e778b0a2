"""The metrics' names, and that one brings nothing of another."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from vaegan_jax import metrics

FOLDER = Path(metrics.__file__).parent


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_name_is_a_documented_function(name: str) -> None:
    assert inspect.isfunction(getattr(metrics, name)) and inspect.getdoc(getattr(metrics, name))


def test_the_map_names_every_file_and_every_name_has_a_file() -> None:
    left = {name for line in metrics.__doc__.splitlines()[1:] for name in line.partition("  ")[0].split()}
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == left
    assert set(metrics.__all__) == set(metrics._FILE) and set(metrics._FILE.values()) <= left
    for name, file in metrics._FILE.items():
        assert getattr(metrics, name).__module__ == f"vaegan_jax.metrics.{file}"
    with pytest.raises(AttributeError, match="no attribute 'fid'"):
        metrics.fid  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    (block,) = (node for node in ast.parse(Path(metrics.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {alias.name: imported.module for imported in block.body for alias in imported.names}
    assert seen == {name: f"vaegan_jax.metrics.{file}" for name, file in metrics._FILE.items()}


def test_a_metric_brings_nothing_heavy() -> None:
    code = (
        "from vaegan_jax.metrics import frechet_distance, kernel_distance, inception_score; import sys; "
        "print([m for m in ('jax', 'sklearn', 'flax', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_pca_brings_no_jax() -> None:
    code = "import sys; from vaegan_jax import pca; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_signatures_are_those_of_the_contract() -> None:
    for name, parameters in {
        "frechet_distance": ["a", "b"],
        "kernel_distance": ["a", "b", "subsets", "subset_size", "seed"],
        "precision_recall": ["real", "fake", "k"],
        "density_coverage": ["real", "fake", "k"],
        "inception_score": ["probs", "splits"],
        "mode_coverage": ["points", "centres", "sd"],
        "nearest_neighbor_error": ["train_x", "train_y", "test_x", "test_y"],
        "parzen_log_likelihood": ["samples", "points", "sigma"],
    }.items():
        assert list(inspect.signature(getattr(metrics, name)).parameters) == parameters


def test_signatures_of_the_likelihoods_begin_as_in_the_contract() -> None:
    """What is optional beyond it is given by keyword."""
    for name, parameters in {
        "importance_log_likelihood": "log_likelihood x mean log_var key, samples=5000",
        "bound_from_weights": "log_weight x key, samples",
        "ais_log_likelihood": "log_likelihood x key, latents chains=16 distributions=1000 leapfrogs=10",
        "bdmc_gap": "log_likelihood simulate key, latents n",
    }.items():
        found = list(inspect.signature(getattr(metrics, name)).parameters.values())
        ordered, named = (words.split() for words in parameters.split(","))
        assert [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD] == ordered
        defaults = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in found[len(ordered) :]]
        assert defaults[: len(named)] == named
        assert all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in found[len(ordered) + len(named) :])
