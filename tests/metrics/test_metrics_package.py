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
