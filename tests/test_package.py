"""The package as a user imports it: light, and with the names of the contract."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vaegan_jax
from vaegan_jax import data, fit, gan, losses, vae

HEAVY = (
    *("tensorflow", "torch", "tyro", "tensorflow_datasets", "orbax", "matplotlib", "sklearn"),
    *("wandb", "tensorboardX"),
)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("vaegan_jax", (*HEAVY, "jax")),
        ("vaegan_jax, vaegan_jax.vae, vaegan_jax.gan, vaegan_jax.wgan, vaegan_jax.vaegan, vaegan_jax.data", HEAVY),
        ("vaegan_jax.fit, vaegan_jax.plots, vaegan_jax.model", tuple(m for m in HEAVY if m != "orbax")),
    ],
)
def test_an_import_brings_nothing_heavy(modules, absent):
    code = f"import {modules}, sys; print([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_map_names_every_module():
    """help(vaegan_jax) is where a stranger starts."""
    folder = Path(vaegan_jax.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    left = {name for line in vaegan_jax.__doc__.splitlines() for name in line.partition("  ")[0].split()}
    assert modules | packages <= left, (modules | packages) - left


@pytest.mark.parametrize("name", ["vae", "gan", "wgan", "vaegan", "gmmn"])
def test_every_algorithm_has_the_names_of_the_contract(name):
    module = importlib.import_module(f"vaegan_jax.{name}")
    for function in ("init", "train_step", "sample", "decode_standard", "validate", "vectors"):
        assert inspect.getdoc(getattr(module, function)), f"{name}.{function} has no docstring"
    only = ["encode", "decode", "reconstruct"] if "vae" in name else []
    only += ["discriminate"] if name not in ("vae", "gmmn") else []
    assert all(callable(getattr(module, function)) for function in only)
    config = module.Config()
    assert hash(config) == hash(module.Config())
    assert config == module.Config()
    for field in ("batch_size", "dataset_size", "num_classes", "splits", "batches_per_step"):
        assert hasattr(config, field), field


def test_signatures_are_those_of_the_contract():
    assert list(inspect.signature(fit.fit).parameters)[:14] == [
        *("algorithm", "config", "dataset", "steps", "batch_size", "seeds", "workdir", "validation", "initial_states"),
        *("evaluate", "evaluate_at", "log_every", "checkpoint_every", "keep"),
    ]
    assert list(inspect.signature(data.load).parameters) == ["name", "split", "data_dir"]
    assert list(inspect.signature(vaegan_jax.load).parameters) == ["workdir", "seed", "step", "config"]
    assert list(inspect.signature(vae.init).parameters) == ["config", "key", "shape", "data_mean"]
    assert set(losses.ADVERSARIAL) == {
        *("minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic")
    }
    assert isinstance(gan.dcgan(conditional=True), gan.Config)


def test_the_readmes_notebook_runs(tmp_path, monkeypatch):
    """Its code as it stands, on fewer steps of smaller images."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    for old, new in (('"mnist", "train[:50000]"', '"digits"'), ("steps=5000", "steps=3")):
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)
    assert scope["images"].shape == (16, 8, 8, 1)
    assert scope["run"].metrics["elbo"].shape == (3, 1)
    assert (tmp_path / "manifold.png").is_file()
    assert vaegan_jax.load("runs/first").config == scope["config"]
