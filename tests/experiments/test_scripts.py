"""The five scripts on digits: a few steps, resumed; every flag; one sentence for every mistake."""

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import vaegan_jax
from experiments import common, neighbours
from vaegan_jax import data, fit, logs
from vaegan_jax.data import cache, idx

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


def script(name):
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_then_a_few_more(name, tmp_path, capsys, monkeypatch):
    """Equality of the resumed and the unbroken run is in test_fit."""
    for module in (fit, common):
        monkeypatch.setattr(module, "SAMPLES", 100)  # as many as the script draws for its pictures: one program
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
    drawn = f"samples/step00000003-seed{script(name).SCRIPT.seeds[0]}.png"
    for picture in ("samples.png", "interpolation.png", "curves.png", drawn):
        assert (tmp_path / picture).stat().st_size > 500


def test_the_dataset_decides_the_defaults(tmp_path):
    """Vectors get MLPs and no [0, 1] range; dataset_size is the data's."""
    flags, config, sets = common.parse(script("gan").SCRIPT, None, ["--dataset", "ring", "--latents", "3"])
    assert (config.output, config.latents, config.dataset_size) == ("linear", 3, 10_000)
    assert sets[0].x.shape == (10_000, 2) and flags.seeds == script("gan").SCRIPT.seeds
    argv = ["--dataset", "digits", "--splits", "train[:900]", "train[900:]", "test"]
    for flags, expected in ((argv[:2], (1541, None, 256)), (argv, (900, 641, 256))):
        _, config, sets = common.parse(script("gan").SCRIPT, None, flags)
        assert config.dataset_size == expected[0]
        assert tuple(one and len(one) for one in sets) == expected
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
    flags = ["--dataset", "digits", "--num-classes", "10", *SMALL["gan"]]
    flags += ["--splits", "train[:1000]", "train[1000:]", "test"]
    argv = [*flags, "--steps", "4", "--checkpoint-every", "2", "--log-every", "1", "--workdir", str(tmp_path)]
    assert common.run(script("gan").SCRIPT, None, argv).config.splits[0] == "train[:1000]"
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
    "recipe for vectors": (["--dataset", "ring", "--recipe", "conditional"], "recipe is 'conditional', but ring holds"),
    "log every 0": (["--log-every", "0"], "log_every is 0"),
    "checkpoint every 0": (["--checkpoint-every", "0"], "checkpoint_every is 0"),
    "large steps": (["--steps", "99999999999"], "steps is 99999999999"),
    "large seed": (["--seeds", "5000000000"], "seeds is (5000000000,)"),
    "negative seed": (["--seeds", "-1"], "seeds is (-1,)"),
    "misspelt test split": (["--splits", "train", "train[:0]", "tset"], "got 'tset'"),
    "misspelt validation split": (["--splits", "train", "valid", "test"], "got 'valid'"),
    "empty split": (["--splits", "train", "train[9999:]", "test"], "split 'train[9999:]' of digits is empty"),
    "truncated test set": (["--dataset", "idx:{tmp}/idx"], "t10k-images-idx3-ubyte is truncated"),
    "test set of another shape": (["--dataset", "npz:{tmp}/shapes.npz"], "test holds [12, 12, 1], but npz:"),
    "labels out of range": (["--dataset", "npz:{tmp}/labels.npz", "--recipe", "conditional"], "from 0 to 12"),
    "negative labels": (["--dataset", "npz:{tmp}/negative.npz", "--recipe", "conditional"], "from -1 to 8"),
    "test labels out of range": (
        ["--dataset", "npz:{tmp}/test.npz", "--recipe", "conditional"],
        "test.npz test go from",
    ),
    "test set without labels": (["--dataset", "npz:{tmp}/bare.npz", "--recipe", "conditional"], "test has no labels"),
    "data set's size": (["--dataset-size", "7"], "dataset_size is 7, but digits train[:50000] has 1,541 examples"),
    "feature layer": (["--discriminator.feature-layer", "conv9"], "conv9"),
}


@pytest.fixture
def files(tmp_path):
    """What the mistakes point at."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    np.savez(tmp_path / "nine.npz", x=np.zeros((64, 9, 9, 1), np.uint8))
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 8, 8, 1), np.uint8))
    x, label = np.zeros((64, 8, 8, 1), np.uint8), np.arange(64) % 10
    np.savez(tmp_path / "shapes.npz", x_train=x, x_test=np.zeros((64, 12, 12, 1), np.uint8))
    np.savez(tmp_path / "labels.npz", x=x, label=np.arange(64) % 13)
    np.savez(tmp_path / "negative.npz", x=x, label=label - 1)
    np.savez(tmp_path / "test.npz", x_train=x, label_train=label, x_test=x, label_test=label + 1)
    np.savez(tmp_path / "bare.npz", x_train=x, label_train=label, x_test=x)
    (tmp_path / "idx").mkdir()
    for name, array in (("images-idx3-ubyte", x[..., 0]), ("labels-idx1-ubyte", label.astype(np.uint8))):
        for prefix, end in (("train", None), ("t10k", -5 if array.ndim == 3 else None)):
            (tmp_path / "idx" / f"{prefix}-{name}").write_bytes(idx.encode(array)[:end])
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(mistake, files, capsys):
    flags, expected = MISTAKES[mistake]
    flags = [flag.format(tmp=files) for flag in flags]
    workdir = [] if "--workdir" in flags else ["--workdir", str(files / "run")]
    data = [] if "--dataset" in flags else ["--dataset", "digits"]
    assert script("dcgan").main([*data, "--batch-size", "8", *workdir, "--steps", "2", *flags]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("experiments.dcgan: ") and expected in said and len(said) < 1000
    assert not (files / "run").exists()


def test_sets_without_a_test_split_are_trained_and_not_judged(files, capsys):
    """Only a split of the defaults may be missing."""
    flags = ["--dataset", f"npz:{files}/negative.npz", "--batch-size", "8", "--steps", "2", *MLP]
    assert script("vae").main([*flags, "--workdir", str(files / "run")]) == 0
    said = capsys.readouterr().out
    assert "test (" not in said and "pictures: " in said


def test_float_images_train_as_bytes_do(tmp_path):
    train = data.load("digits", "train[:64]")
    np.savez(tmp_path / "a.npz", x=train.x)
    np.savez(tmp_path / "b.npz", x=train.x / 255.0)
    flags = ["--steps", "2", "--batch-size", "8", "--log-every", "1", *MLP]
    runs = [
        common.run(script("vae").SCRIPT, None, [*flags, "--dataset", f"npz:{file}", "--workdir", str(file) + "-run"])
        for file in (tmp_path / "a.npz", tmp_path / "b.npz")
    ]
    np.testing.assert_allclose(runs[0].metrics["elbo"], runs[1].metrics["elbo"], rtol=1e-5)


def test_labels_of_any_sign_and_size_are_counted():
    x = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 80
    train, test = data.Dataset(x, np.array([-5, 2**31 - 1, 7, 7])), data.Dataset(x + 2, np.zeros(4, int))
    found = neighbours.neighbours(x[[0, 0, 1, 3]] / 255 + 1 / 255, train, test)
    assert (found.classes, found.of_classes, found.largest_share) == (3, 3, 0.5)
    assert found.distance_ratio == pytest.approx(0.5) and found.distance == pytest.approx(1 / 255)


def test_a_test_set_that_training_holds_gives_a_distance_and_no_ratio():
    train = data.load("digits")
    found = neighbours.neighbours(1 - train.x[:20] / 255, train, data.load("digits", "train[100:200]"))
    assert found.distance_ratio is None and found.distance > 1
    assert f"{found.distance:.3g} from the training set, which holds the test examples" in str(found)


def test_compiled_programs_lie_in_the_datas_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("VAEGAN_JAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        common.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "vaegan_jax" / "xla") == str(cache.root() / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def board(monkeypatch):
    """A tensorboardX that makes its folder when it is opened, as the real one does; what it was told."""
    written: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder):
            Path(folder).mkdir(parents=True)
            (Path(folder) / "events").write_text("")

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    return written


def test_tensorboard_in_a_new_a_resumed_and_a_refused_workdir(tmp_path, board, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    flags = ["--dataset", "digits", "--log-every", "2", "--tensorboard", *MLP]
    assert script("vae").main([*flags, "--steps", "2", "--workdir", str(run)]) == 0
    assert ("elbo", 2) in board
    (run / "tensorboard" / "events").unlink()
    (run / "tensorboard").rmdir()  # the stand-in makes it anew
    board.clear()
    assert script("vae").main([*flags, "--steps", "4", "--workdir", str(run)]) == 0
    assert {step for _, step in board} == {4}

    assert script("vae").main([*flags[:-4], "--steps", "2", "--workdir", str(other), *MLP]) == 0  # without it
    board.clear()
    before = sorted(os.listdir(other))
    assert script("vae").main([*flags, "--steps", "4", "--beta", "2", "--workdir", str(other)]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert sorted(os.listdir(other)) == before and not board


def test_a_wrong_flag_exits_with_2_and_suggests_before_any_data_are_fetched(capsys, monkeypatch):
    monkeypatch.setattr(data, "load", None)
    for argv, meant in (
        (["--dataset", "digits", "--latentz", "3"], "--latents"),
        (["--dataest", "digits"], "--dataset"),
    ):
        with pytest.raises(SystemExit, match="2"):
            script("vae").main(argv)
        assert meant in capsys.readouterr().err


def test_a_net_that_cannot_be_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        script("dcgan").main(["--dataset", "digits", "--generator.kernel", "0", "0"])
    assert "kernel of ConvGenerator is (0, 0): give a" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_shows_the_defaults_of_the_config_that_would_run(capsys):
    for dataset, expected, other in (("ring", "128 128", "500"), ("digits", "500", "128 128")):
        with pytest.raises(SystemExit, match="0"):
            script("vae").main(["--dataset", dataset, "--help"])
        lines = capsys.readouterr().out.splitlines()
        at = next(i for i, line in enumerate(lines) if "--encoder.hidden" in line)
        shown = " ".join(lines[at : at + 3])
        assert f"default: {expected}" in shown and f"default: {other}" not in shown


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
    assert "of seed 0: the run stops" in capsys.readouterr().err
    assert script("vae").main([*flags, "--optimizer.learning-rate", "0.001"]) == 0  # as it says, in the same workdir
    assert issubclass(fit.Diverged, FloatingPointError)
