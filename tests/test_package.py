"""The package as a user imports it: light, and with the names of the contract."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vaegan_jax
from vaegan_jax import gan, losses

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


CONTRACT = {
    "data.load": "name, split='train', *, data_dir=None",
    "data.toy.ring": "key, n, *, modes=8, radius=1.0, sd=0.01",
    "data.toy.grid": "key, n, *, side=5, spacing=2.0, sd=0.05",
    "data.toy.segments": "key, n, *, theta",
    "losses.bernoulli_log_prob": "logits, x",
    "losses.gaussian_log_prob": "mean, log_var, x",
    "losses.kl_standard_normal": "mean, log_var",
    "losses.iwae_bound": "log_weights",
    "losses.gradient_penalty": "critic, real, fake, key, *, target=1.0",
    "losses.r1": "critic, real",
    "losses.r2": "critic, fake",
    "losses.dragan": "critic, real, key, *, scale",
    "gan.dcgan": "conditional=False",
    "pca.fit": "x, k",
    "model.load": "workdir, *, seed=None, step=None, config=None",
    "fit.fit": "algorithm, config, dataset, *, steps, batch_size=None, seeds=(0,), workdir=None, validation=None, "
    "initial_states=None, evaluate=None, evaluate_at=(), log_every, checkpoint_every, keep",
    **{
        f"{name}.{function}": arguments
        for name in ("vae", "gan", "wgan", "vaegan")
        for function, arguments in {
            "vectors": "dim",
            "init": "config, key, shape, *, data_mean=None",
            "train_step": "config, state, batch, key",
            "sample": "config, state, key, n, label=None",
            "decode_standard": "config, state, u",
        }.items()
    },
    **{f"{name}.discriminate": "config, state, x, label=None" for name in ("gan", "wgan", "vaegan")},
    **{f"{name}.encode": "config, state, x" for name in ("vae", "vaegan")},
    **{f"{name}.decode": "config, state, z" for name in ("vae", "vaegan")},
    **{f"{name}.reconstruct": "config, state, x, key" for name in ("vae", "vaegan")},
    "metrics.frechet_distance": "a, b",
    "metrics.kernel_distance": "a, b, *, subsets=100, subset_size=1000, seed=0",
    "metrics.precision_recall": "real, fake, k=3",
    "metrics.density_coverage": "real, fake, k=5",
    "metrics.inception_score": "probs, splits=10",
    "metrics.parzen_log_likelihood": "samples, points, sigma",
    "metrics.importance_log_likelihood": "log_likelihood, x, mean, log_var, key, *, samples=5000",
    "metrics.bound_from_weights": "log_weight, x, key, *, samples",
    "metrics.ais_log_likelihood": "log_likelihood, x, key, *, latents, chains=16, distributions=1000, leapfrogs=10",
    "metrics.bdmc_gap": "log_likelihood, simulate, key, *, latents, n",
    "metrics.mode_coverage": "points, centres, sd",
    "metrics.nearest_neighbor_error": "train_x, train_y, test_x, test_y",
}
"""DESIGN.md's table. Where it leaves a default open, none stands here; what is optional beyond it has one."""


@pytest.mark.parametrize("name", CONTRACT)
def test_a_signature_is_that_of_the_contract(name):
    module, _, function = name.rpartition(".")
    found = inspect.signature(getattr(importlib.import_module(f"vaegan_jax.{module}"), function)).parameters
    asked = inspect.signature(eval(f"lambda {CONTRACT[name]}: None")).parameters
    ordered = [[p.name for p in each.values() if p.kind is p.POSITIONAL_OR_KEYWORD] for each in (found, asked)]
    assert ordered[0][: len(ordered[1])] == ordered[1]
    for parameter in asked.values():
        assert found[parameter.name].kind is parameter.kind
        assert parameter.default in (parameter.empty, found[parameter.name].default)
    assert all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for n, p in found.items() if n not in asked)


def test_the_losses_are_those_of_the_contract():
    assert set(losses.ADVERSARIAL) == {
        *("minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic")
    }
    assert isinstance(gan.dcgan(conditional=True), gan.Config)
    assert vaegan_jax.load is importlib.import_module("vaegan_jax.model").load


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
