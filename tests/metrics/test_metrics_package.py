"""The metrics' names, and that one brings nothing of another."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from vaegan_jax import metrics

FOLDER = Path(metrics.__file__).parent


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_name_is_a_documented_function(name: str) -> None:
    if not (FOLDER / f"{metrics._FILE[name]}.py").is_file():
        pytest.skip(f"{metrics._FILE[name]}.py is not written yet")
    assert inspect.isfunction(getattr(metrics, name)) and inspect.getdoc(getattr(metrics, name))


def test_the_map_names_every_file_and_every_name_has_a_file() -> None:
    words = set(metrics.__doc__.split())
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} <= words
    assert set(metrics.__all__) == set(metrics._FILE) and set(metrics._FILE.values()) <= words
    with pytest.raises(AttributeError, match="no attribute 'fid'"):
        metrics.fid  # noqa: B018


def test_a_metric_brings_nothing_heavy() -> None:
    code = (
        "from vaegan_jax.metrics import frechet_distance, kernel_distance, inception_score; import sys; "
        "print([m for m in ('jax', 'sklearn', 'flax', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_signatures_are_those_of_the_contract() -> None:
    for name, parameters in {
        "frechet_distance": ["a", "b"],
        "kernel_distance": ["a", "b", "subsets", "subset_size", "seed"],
        "precision_recall": ["real", "fake", "k"],
        "density_coverage": ["real", "fake", "k"],
        "inception_score": ["probs", "splits"],
        "mode_coverage": ["points", "centres", "sd"],
        "nearest_neighbor_error": ["train_x", "train_y", "test_x", "test_y"],
    }.items():
        assert list(inspect.signature(getattr(metrics, name)).parameters) == parameters
