"""What stops a run, and what `fit` refuses: NaN, another run's folder, arguments that do not fit."""

import dataclasses
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recorder import NUMBERS, SMALL, recorder
from vaegan_jax import checkpoint, data, fit, gan, logs, nets, vae, workdir


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_nan_stops_by_name_and_keeps_the_last_good_checkpoint(tmp_path):
    module, config = recorder()
    step, seeds = module.train_step, (1, 7)
    draws = fit.fit(module, config, NUMBERS, steps=1, seeds=seeds, progress=False).states.draws[:, 0]
    assert draws[0] != draws[1]

    def train_step(config, state, batch, key):
        after, metrics = step(config, state, batch, key)
        bad = (after.step == 14) & (after.draws[0] == draws[1])
        return after, metrics | {"mean": jnp.where(bad, jnp.nan, metrics["mean"])}

    module.train_step = train_step
    with pytest.raises(fit.Diverged, match="mean is nan at step 14 of seed 7"):
        fit.fit(module, config, NUMBERS, steps=20, seeds=seeds, workdir=tmp_path, checkpoint_every=5, progress=False)
    assert checkpoint.steps(tmp_path / "checkpoints") == [5, 10]
    assert all(np.isfinite(line["mean"]) for line in logs.read(tmp_path / "metrics.jsonl"))


def test_what_went_well_before_a_nan_is_logged(tmp_path):
    module, config = recorder(bad_at=14)
    with pytest.raises(fit.Diverged, match="at step 14"):
        fit.fit(module, config, NUMBERS, steps=20, workdir=tmp_path, log_every=3, progress=False)
    assert [line["step"] for line in logs.read(tmp_path / "metrics.jsonl")] == [3, 6, 9, 12]


@pytest.mark.parametrize("name", ["score", "validation_x"])
def test_a_nan_of_an_evaluation_stops_the_run_by_name(name):
    module, config = recorder()
    module.validate = lambda config, state, batch, key: {"x": batch["x"][:, 0] * jnp.where(state.step > 2, jnp.nan, 1)}
    more = (
        {"evaluate": lambda *_: {"score": float("inf")}, "evaluate_at": (4,)}
        if name == "score"
        else {"validation": NUMBERS, "checkpoint_every": 4}
    )
    with pytest.raises(fit.Diverged, match=f"{name} is (inf|nan) at step 4 of seed 0"):
        fit.fit(module, config, NUMBERS, steps=8, progress=False, **more)


def test_a_state_with_nan_is_never_saved(tmp_path):
    """The last update before a checkpoint can break the state while every metric of that step is still finite."""
    module, config = recorder()
    step = module.train_step

    def train_step(config, state, batch, key):
        state, metrics = step(config, state, batch, key)
        return state.replace(draws=jnp.where(state.step == 10, jnp.nan, state.draws)), metrics

    def evaluate(config, state, key, step):
        seen.append(step)
        return {"score": 1.0}

    module.train_step = train_step
    seen = []
    more = {"evaluate": evaluate, "evaluate_at": (5, 10)}
    with pytest.raises(fit.Diverged, match=r"entry of draws is NaN or infinite at step 10 of seed 0"):
        fit.fit(module, config, NUMBERS, steps=20, workdir=tmp_path, checkpoint_every=5, progress=False, **more)
    assert checkpoint.steps(tmp_path / "checkpoints") == [5] and seen == [5]  # nor shown to what would evaluate it


def test_another_runs_folder_is_refused_with_the_fields(digits, tmp_path):
    fit.fit(vae, SMALL, digits, steps=2, workdir=tmp_path, progress=False)
    for change, field in (
        ({"latents": 4}, r"config\.latents: 3 -> 4"),
        ({"encoder": nets.MLPEncoder(hidden=(8,))}, r"config\.encoder\.hidden"),
    ):
        with pytest.raises(ValueError, match=field):
            fit.fit(vae, vae.Config(**{**vars(SMALL), **change}), digits, steps=2, workdir=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"data\.sha256"):
        fit.fit(vae, SMALL, digits.x[:100], steps=2, workdir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="seeds"):
        fit.fit(vae, SMALL, digits, steps=2, seeds=(1,), workdir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="validation"):
        fit.fit(vae, SMALL, digits, steps=2, validation=digits.x[:10], workdir=tmp_path, progress=False)


def test_a_run_from_before_a_field_existed_goes_on_at_its_default(digits, tmp_path):
    fit.fit(vae, SMALL, digits, steps=2, workdir=tmp_path, progress=False)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored["config"].pop("beta") == 1.0
    path.write_text(json.dumps(stored))
    assert fit.fit(vae, SMALL, digits, steps=3, workdir=tmp_path, progress=False).steps[-1] == 3
    path.write_text(json.dumps(stored))
    other = vae.Config(**{**vars(SMALL), "beta": 2.0})
    with pytest.raises(ValueError, match=r"config\.beta: 1\.0 -> 2\.0"):
        fit.fit(vae, other, digits, steps=4, workdir=tmp_path, progress=False)


class Own(nn.Module):
    """A discriminator from outside vaegan_jax, which a stored config only describes."""

    @nn.compact
    def __call__(self, x, y=None, *, train=False):
        return nn.Dense(1)(x)[:, 0], x


def test_a_run_from_before_a_field_existed_goes_on_with_a_users_own_net(tmp_path):
    config = dataclasses.replace(gan.vectors(2), discriminator=Own(), batch_size=5)
    x = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    fit.fit(gan, config, x, steps=2, workdir=tmp_path, progress=False)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored["config"].pop("dp_noise") == 1.0 and stored["config"]["generator"].pop("norm") == "none"
    path.write_text(json.dumps(stored))
    assert fit.fit(gan, config, x, steps=3, workdir=tmp_path, progress=False).steps[-1] == 3


def test_a_start_that_was_stopped_halfway_leaves_a_folder_to_begin_in(tmp_path):
    """config.json is written aside first; a kill or a full disk may leave that file alone."""
    (tmp_path / ".config.json").write_text("{")
    module, config = recorder()
    fit.fit(module, config, NUMBERS, steps=2, workdir=tmp_path, progress=False)
    assert not (tmp_path / ".config.json").exists()


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": (0.5, 1)}, r"seeds is \(0\.5, 1\): give whole numbers"),
        ({"seeds": "12"}, r"seeds is \('1', '2'\): give whole numbers"),
        ({"batch_size": 50.0}, r"batch_size is 50\.0: give a whole number"),
        ({"evaluate": lambda *_: {}, "evaluate_at": (1.0,)}, "give whole steps"),
        ({"seeds": ()}, "at least one"),
        ({"batch_size": 10_000}, "1541 examples"),
        ({"log_every": 0}, "log_every is 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"keep": 0}, "keep is 0"),
        ({"steps": 2.5}, "steps is 2.5: give a whole number"),
        ({"seeds": (2**31,)}, "from 0 to 2,147,483,647"),
        ({"evaluate_at": (1,)}, "without evaluate"),
        ({"evaluate": lambda *_: {}}, "without evaluate_at"),
        ({"validation": np.zeros((0, 8, 8, 1), np.uint8)}, "array validation is empty"),
        ({"validation": np.zeros((3, 9, 9, 1), np.uint8)}, r"array validation holds \[9, 9, 1\], but digits"),
        ({"evaluate": lambda *_: {}, "evaluate_at": (3,)}, "between 1 and 2"),
        ({"evaluate": lambda *_: 3.0, "evaluate_at": (1,)}, "evaluate returned a float: return a dict"),
        ({"evaluate": lambda *_: {"elbo": 1.0}, "evaluate_at": (1,)}, "evaluate returned 'elbo', which the line has"),
        ({"evaluate": lambda *_: {"step": 1}, "evaluate_at": (1,)}, "evaluate returned 'step', which"),
        ({"evaluate": lambda *_: {"a": np.zeros(2)}, "evaluate_at": (1,)}, "evaluate returned a = .*give one number"),
        ({"evaluate": lambda *_: {"a": "high"}, "evaluate_at": (1,)}, "evaluate returned a = 'high': give one number"),
        ({"seeds": 3}, r"seeds is 3: give several, such as \(3,\) or range\(3\)"),
    ],
)
def test_bad_arguments_get_a_sentence(digits, bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit.fit(vae, SMALL, digits, **({"steps": 2, "progress": False} | bad))


def test_an_algorithm_takes_its_own_config(digits):
    with pytest.raises(ValueError, match=r"vaegan_jax\.vae\.Config: vaegan_jax\.gan takes its own"):
        fit.fit(gan, SMALL, digits, steps=1)
    with pytest.raises(ValueError, match="algorithm is 'vae', without init"):
        fit.fit("vae", SMALL, digits, steps=1)


@pytest.mark.parametrize(("module", "config"), [(vae, SMALL), (gan, gan.Config(batch_size=10))])
def test_vectors_beyond_0_1_are_refused_where_the_model_ends_there(module, config, tmp_path):
    x = np.random.default_rng(0).uniform(0, 1.5, (50, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"array train goes from .* to 1\..*models values in \[0, 1\]"):
        fit.fit(module, config, x, steps=1, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_checkpoint_is_anothers_to_take(tmp_path):
    """As a run leaves it that diverged or was stopped before its first."""
    module, config = recorder(bad_at=2)
    with pytest.raises(fit.Diverged, match="what it saved before is kept"):
        fit.fit(module, config, NUMBERS, steps=4, log_every=1, workdir=tmp_path, progress=False)
    assert logs.read(tmp_path / "metrics.jsonl") and not checkpoint.steps(tmp_path / "checkpoints")
    module, config = recorder()
    fit.fit(module, config, NUMBERS, steps=4, seeds=(5,), log_every=1, workdir=tmp_path, progress=False)
    assert [line["step"] for line in logs.read(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [5]


@pytest.mark.parametrize("content", [b'{"hidden_size": 768}', b"[1]", b"\xff\xfe{}"], ids=["model", "list", "bytes"])
def test_another_programs_folder_is_left_as_it_is(content, tmp_path):
    """Else a run in the wrong place would replace its config.json and cut its metrics.jsonl."""
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "metrics.jsonl").write_text('{"step": 7}\n')
    module, config = recorder()
    with pytest.raises(ValueError, match=r"config\.json is (of no run|damaged)"):
        fit.fit(module, config, NUMBERS, steps=2, workdir=tmp_path, progress=False)
    assert (tmp_path / "config.json").read_bytes() == content
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 7}\n'


def test_a_folder_that_another_run_took_in_between_is_refused(tmp_path, monkeypatch):
    """The other one ended after this one had looked, and before it held the lock."""
    module, config = recorder()
    lock = workdir._lock

    def late(folder):
        monkeypatch.setattr(workdir, "_lock", lock)
        fit.fit(module, config, NUMBERS, steps=2, seeds=(5,), workdir=folder, progress=False)
        return lock(folder)

    monkeypatch.setattr(workdir, "_lock", late)
    with pytest.raises(ValueError, match="holds another run"):
        fit.fit(module, config, NUMBERS, steps=2, workdir=tmp_path, progress=False)
    assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [5]


def test_a_folder_is_one_processs_at_a_time(tmp_path):
    module, config = recorder()
    seen = []

    def evaluate(config, state, key, step):
        with pytest.raises(ValueError, match="Another process trains in"):
            fit.fit(module, config, NUMBERS, steps=4, seeds=(1,), workdir=tmp_path, progress=False)
        seen.append(step)
        return {}

    fit.fit(module, config, NUMBERS, steps=2, evaluate=evaluate, evaluate_at=(1,), workdir=tmp_path, progress=False)
    assert seen == [1]


def test_labels_outside_the_classes_are_refused(digits, tmp_path):
    ten = dataclasses.replace(gan.dcgan(conditional=True), num_classes=9, batch_size=20)
    with pytest.raises(ValueError, match="labels of digits train go from 0 to 9: with num_classes 9"):
        fit.fit(gan, ten, digits, steps=1, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
