"""The five scripts on digits: a few steps, resumed; every flag; one sentence for every mistake."""

import importlib
import json

import jax
import numpy as np
import pytest

import vaegan_jax
from experiments import common
from vaegan_jax import fit, logs

MLP = ["--encoder.hidden", "16", "--decoder.hidden", "16"]
G = ["--generator.channels", "8", "4", "--generator.hidden", "16"]
D = ["--discriminator.channels", "4", "8", "--discriminator.hidden", "16"]
SMALL = {
    "vae": MLP,
    "gan": ["--generator.hidden", "16", "--discriminator.hidden", "8", "8"],
    "dcgan": [*G, *D],
    "wgan": [*G, *D, "--n-critic", "2"],
    "vaegan": [*[flag.replace("generator", "decoder") for flag in G], *D, "--encoder.channels", "4", "8"],
}


@pytest.fixture(autouse=True)
def no_compilation_cache(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


def script(name):
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_then_a_few_more(name, tmp_path, capsys):
    """Equality of the resumed and the unbroken run is in test_fit."""
    flags = ["--dataset", "digits", "--batch-size", "32", "--log-every", "2", "--workdir", str(tmp_path), *SMALL[name]]
    for steps in ("3", "5"):
        assert script(name).main([*flags, "--steps", steps, "--checkpoint-every", "3"]) == 0
    lines = logs.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 3, 4, 5]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert any("gradient_norm" in key for key in lines[0])
    model = vaegan_jax.load(tmp_path)
    assert int(model.state.step) == 5
    images = model.sample(jax.random.key(0), 5)
    assert images.shape == (5, 8, 8, 1)
    assert 0 <= images.min() <= images.max() <= 1
    said = capsys.readouterr()
    assert "test (256 examples)" in said.out and "samples: " in said.out
    for picture in ("samples.png", "interpolation.png", "curves.png", "samples/step00000003-seed0.png"):
        assert (tmp_path / picture).stat().st_size > 500


def test_the_dataset_decides_the_defaults(tmp_path):
    """Vectors get MLPs and no [0, 1] range; dataset_size is the data's."""
    flags, config, train = common.parse(script("gan").SCRIPT, None, ["--dataset", "ring", "--latents", "3"])
    assert (config.output, config.latents, config.dataset_size) == ("linear", 3, 10_000)
    assert train.x.shape == (10_000, 2) and flags.seeds == (0,)
    assert common.parse(script("gan").SCRIPT, None, ["--dataset", "digits"])[1].dataset_size == 1541
    argv = ["--dataset", "grid", "--steps", "2", "--workdir", str(tmp_path / "run")]
    assert np.isfinite(common.run(script("wgan").SCRIPT, None, argv).metrics["wasserstein"]).all()


def test_recipes_and_nested_flags_reach_the_config():
    argv = ["--dataset", "digits", "--recipe", "conditional", "--discriminator.activation", "relu"]
    argv += ["--generator-optimizer.learning-rate", "0.5", "--ema-decay", "0.9", "--seeds", "3", "4"]
    flags, config, _ = common.parse(script("dcgan").SCRIPT, None, argv)
    assert config.num_classes == 10 and config.discriminator.activation is jax.nn.relu
    assert config.generator_optimizer.learning_rate == 0.5 and config.discriminator_optimizer.learning_rate == 2e-4
    assert config.ema_decay == 0.9 and flags.seeds == (3, 4)


def test_the_validation_split_is_logged_at_checkpoints(tmp_path):
    flags = ["--dataset", "digits", "--recipe", "conditional", *SMALL["dcgan"]]
    flags += ["--splits", "train[:1000]", "train[1000:]", "test"]
    argv = [*flags, "--steps", "4", "--checkpoint-every", "2", "--log-every", "1", "--workdir", str(tmp_path)]
    assert common.run(script("dcgan").SCRIPT, None, argv).config.splits[0] == "train[:1000]"
    assert json.loads((tmp_path / "config.json").read_text())["data"]["examples"] == 1000
    assert ["validation_d_real" in line for line in logs.read(tmp_path / "metrics.jsonl")] == [False, True, False, True]


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_of_every_script_is_a_config_and_has_all_budgets(name):
    one = script(name).SCRIPT
    assert "paper" in one.recipes
    for recipe in one.recipes.values():
        assert isinstance(recipe(), one.algorithm.Config)
    assert 0 < one.steps["smoke"] < one.steps["cpu"] < one.steps["paper"]


MISTAKES = {
    "unknown data set": (["--dataset", "mnits"], "Did you mean 'mnist'"),
    "missing file": (["--dataset", "npz:{tmp}/none.npz"], "does not exist"),
    "truncated file": (["--dataset", "npz:{tmp}/cut.npz"], "cut.npz"),
    "negative steps": (["--steps", "-4"], "steps is -4"),
    "workdir that is a file": (["--workdir", "{tmp}/file"], "is a file"),
    "workdir below a file": (["--workdir", "{tmp}/file/run"], "file"),
    "image size": (["--dataset", "npz:{tmp}/nine.npz"], "divisible by 4"),
    "empty data set": (["--dataset", "npz:{tmp}/empty.npz"], "empty"),
    "batch above the data": (["--batch-size", "5000"], "1541 examples"),
    "seed twice": (["--seeds", "1", "1"], "each once"),
    "config's own check": (["--latents", "0"], "give 1 or more"),
    "recipe": (["--recipe", "papper"], "paper"),
    "log every 0": (["--log-every", "0"], "log_every is 0"),
    "checkpoint every 0": (["--checkpoint-every", "0"], "checkpoint_every 0"),
    "feature layer": (["--discriminator.feature-layer", "conv9"], "conv9"),
}


@pytest.fixture
def files(tmp_path):
    """What the mistakes point at."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    np.savez(tmp_path / "nine.npz", x=np.zeros((64, 9, 9, 1), np.uint8))
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 8, 8, 1), np.uint8))
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(mistake, files, capsys):
    flags, expected = MISTAKES[mistake]
    flags = [flag.format(tmp=files) for flag in flags]
    workdir = [] if "--workdir" in flags else ["--workdir", str(files / "run")]
    data = [] if "--dataset" in flags else ["--dataset", "digits"]
    assert script("dcgan").main([*data, "--batch-size", "8", *workdir, "--steps", "2", *flags]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("experiments.dcgan: ") and expected in said and len(said) < 700
    assert not (files / "run").exists()


def test_a_wrong_flag_exits_with_2_and_suggests(capsys):
    with pytest.raises(SystemExit, match="2"):
        script("vae").main(["--dataset", "digits", "--latentz", "3"])
    assert "--latents" in capsys.readouterr().err


def test_another_configs_workdir_is_refused_by_field(tmp_path, capsys):
    flags = ["--dataset", "digits", "--steps", "2", "--workdir", str(tmp_path / "run"), *MLP]
    assert script("vae").main(flags) == 0
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert script("vae").main([*flags, "--beta", "2"]) == 1
    assert "config.beta: 1.0 -> 2.0" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_seeds_are_trained_side_by_side_and_reported_with_their_spread(tmp_path, capsys):
    flags = ["--dataset", "digits", "--steps", "4", "--seeds", "0", "1", "2", "--workdir", str(tmp_path / "run"), *MLP]
    assert script("vae").main(flags) == 0
    assert "over 3 seeds" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seeds"] == [0, 1, 2]


def test_divergence_ends_with_a_sentence(tmp_path, capsys):
    flags = ["--dataset", "digits", "--steps", "40", "--workdir", str(tmp_path / "run"), *MLP]
    assert script("vae").main([*flags, "--optimizer.rule", "sgd", "--optimizer.learning-rate", "1e30"]) == 1
    assert "of seed 0" in capsys.readouterr().err
    assert issubclass(fit.Diverged, FloatingPointError)
