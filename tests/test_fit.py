"""The loop: resume equals unbroken, order and randomness as promised, one trace, many seeds."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from experiments.bench import machine
from tests.recorder import NUMBERS, SMALL, recorder
from vaegan_jax import checkpoint, data, fit, gan, logs, loop, nets, vae, wgan


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.mark.optimised
def test_resumed_equals_unbroken_bit_for_bit(digits, tmp_path):
    run = {"log_every": 20, "checkpoint_every": 25, "progress": False}
    whole = fit.fit(vae, SMALL, digits, steps=60, workdir=tmp_path / "whole", **run)
    fit.fit(vae, SMALL, digits, steps=25, workdir=tmp_path / "broken", **run)
    resumed = fit.fit(vae, SMALL, digits, steps=60, workdir=tmp_path / "broken", **run)
    chex.assert_trees_all_equal(whole.states, resumed.states)
    np.testing.assert_array_equal(whole.metrics["elbo"], resumed.metrics["elbo"])
    assert [r["step"] for r in logs.read(tmp_path / "broken" / "metrics.jsonl")] == [20, 25, 40, 50, 60]
    again = fit.fit(vae, SMALL, digits, steps=60, workdir=tmp_path / "broken", **run)
    chex.assert_trees_all_equal(whole.states, again.states)
    with pytest.raises(ValueError, match="has gone to 60"):
        fit.fit(vae, SMALL, digits, steps=50, workdir=tmp_path / "broken", **run)


def test_the_workdir_holds_what_it_promises(digits, tmp_path):
    fit.fit(vae, SMALL, digits, steps=6, seeds=(2, 9), workdir=tmp_path, log_every=4, checkpoint_every=3)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["algorithm"], stored["seeds"]) == ("vaegan_jax.vae", [2, 9])
    assert stored["data"] == {"name": "digits", "split": "train", "examples": 1541, "sha256": digits.sha256}
    lines = logs.read(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["seed"]) for r in lines] == [(3, 2), (3, 9), (4, 2), (4, 9), (6, 2), (6, 9)]
    assert {"elbo", "kl", "log_likelihood", "gradient_norm", "steps_per_second"} <= set(lines[-1])
    assert checkpoint.steps(tmp_path / "checkpoints") == [3, 6]
    names = ("step00000003-seed2", "step00000006-seed2", "step00000006-seed9")
    early, late, other = (np.asarray(Image.open(tmp_path / "samples" / f"{name}.png")) for name in names)
    assert early.shape == late.shape == other.shape and (early != late).any() and (late != other).any()


def test_a_fixed_noise_gives_the_same_picture_of_the_same_state(digits, tmp_path):
    """The state of both runs is the initial one: no step is taken with a rate that moves nothing."""
    still = vae.Config(
        **{**vars(SMALL), "optimizer": vae.Optimizer(rule="sgd", learning_rate=1e-30, momentum=0.0), "beta": 1.0}
    )
    fit.fit(vae, still, digits, steps=4, workdir=tmp_path, checkpoint_every=2, progress=False)
    first, second = ((tmp_path / "samples" / f"step0000000{s}-seed0.png").read_bytes() for s in (2, 4))
    assert first == second


def test_log_lines_are_means_over_their_windows():
    module, config = recorder()
    run = fit.fit(module, config, NUMBERS, steps=10, log_every=4, progress=False)
    np.testing.assert_array_equal(run.steps, [4, 8, 10])
    np.testing.assert_allclose(run.metrics["step_squared"][0], [(0 + 1 + 4 + 9) / 4, (16 + 25 + 36 + 49) / 4, 145 / 2])


@pytest.mark.parametrize("group", [1, 2])
def test_an_epoch_visits_each_example_once_and_drops_the_partial_batch(group):
    module, config = recorder(batch_size=3, group=group)
    run = fit.fit(module, config, NUMBERS, steps=6, progress=False)
    batches = run.state(0).seen[:6].reshape(-1, 3)  # 3 batches an epoch of 10 examples; one is left out
    epochs = np.asarray(batches).reshape(-1, 9)
    for epoch in epochs:
        assert len(set(epoch)) == 9
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs), "each epoch has an order of its own"


def test_order_and_noise_depend_on_seed_and_step_alone():
    module, config = recorder()
    short, long = (fit.fit(module, config, NUMBERS, steps=n, seeds=(4,), progress=False) for n in (3, 7))
    pair = fit.fit(module, config, NUMBERS, steps=7, seeds=(1, 4), progress=False)
    np.testing.assert_array_equal(short.state(4).seen[:3], long.state(4).seen[:3])
    np.testing.assert_array_equal(short.state(4).draws[:3], long.state(4).draws[:3])
    chex.assert_trees_all_equal(pair.state(4), long.state(4))
    assert (pair.state(1).draws[:7] != pair.state(4).draws[:7]).all()
    assert len(set(np.asarray(long.state(4).draws[:7]))) == 7


def test_where_chunks_end_changes_nothing(tmp_path):
    """An epoch's order is kept from chunk to chunk, and drawn again after a resume in the middle of one."""
    module, config = recorder()
    whole = fit.fit(module, config, NUMBERS, steps=11, progress=False).state(0)
    cut = fit.fit(module, config, NUMBERS, steps=11, checkpoint_every=1, workdir=tmp_path / "a", progress=False)
    fit.fit(module, config, NUMBERS, steps=4, workdir=tmp_path / "b", progress=False)
    resumed = fit.fit(module, config, NUMBERS, steps=11, workdir=tmp_path / "b", progress=False)
    chex.assert_trees_all_equal(whole, cut.state(0))
    chex.assert_trees_all_equal(whole, resumed.state(0))


def test_orders_of_a_chunk_stay_small_where_epochs_are_short():
    """A batch of all 60,000 examples is an epoch: 2,048 orders would be 490 MB."""
    _, config = recorder(batch_size=60_000)
    assert loop._capacity(60_000, config) * 60_000 <= loop.ORDERS
    assert loop._capacity(60_000, recorder(batch_size=100)[1]) == loop.CAPACITY
    assert loop._capacity(2**24, recorder(batch_size=2**24)[1]) == 1


@pytest.mark.optimised
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="how XLA's CPU programs are told to update in place")
def test_parameters_are_updated_in_place():
    # Two layers, whose product with the second's kernel is read on the way back; widths that nothing else has.
    players = {"generator": nets.MLPGenerator((53, 54)), "discriminator": nets.MLPDiscriminator((55,))}
    config = dataclasses.replace(gan.vectors(37), **players, batch_size=4, dataset_size=8)
    states = jax.tree.map(lambda leaf: leaf[None], gan.init(config, jax.random.key(0), (37,)))
    x = data.dataset.Dataset(np.zeros((8, 37), np.float32))
    program = loop.Loop(gan, config, x, states, (0,)).compile().as_text()
    assert "f32[53,54]" in program
    assert not re.findall(r"= (f32\[\d+,\d+\])\S* copy\(", program)


def test_seeds_side_by_side_are_those_alone(digits):
    both = fit.fit(vae, SMALL, digits, steps=30, seeds=(0, 7), progress=False)
    alone = fit.fit(vae, SMALL, digits, steps=30, seeds=(7,), progress=False)
    chex.assert_trees_all_close(both.state(7), alone.state(7), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both.metrics["elbo"][1], alone.metrics["elbo"][0], rtol=1e-4)
    with pytest.raises(ValueError, match="this run has 0, 7"):
        both.state(3)


def test_it_learns(digits):
    run = fit.fit(vae, SMALL, digits, steps=300, log_every=100, progress=False)
    assert run.metrics["elbo"][0, -1] > run.metrics["elbo"][0, 0] + 1


def test_initial_states_are_used_and_stay_the_callers():
    module, config = recorder()
    given = jax.tree.map(lambda leaf: leaf[None], module.init(config, jax.random.key(0), (1,)))
    given = given.replace(step=given.step + 5)
    run = fit.fit(module, config, NUMBERS, steps=2, initial_states=given, progress=False)
    assert int(run.state(0).step) == 7
    assert int(given.step[0]) == 5  # a donated buffer would raise here
    with pytest.raises(ValueError, match="leading axes"):
        fit.fit(module, config, NUMBERS, steps=2, seeds=(0, 1), initial_states=given)


def test_evaluate_and_validation_are_logged_where_they_run():
    module, config = recorder()
    module.validate = lambda config, state, batch, key: {"x": batch["x"][:, 0] + state.draws[0]}
    calls = []

    def evaluate(config, state, key, step):
        calls.append((step, int(state.step)))
        return {"double": 2 * step, "draw": float(state.draws[1])}

    run = fit.fit(
        module, config, NUMBERS, steps=6, seeds=(1, 4), evaluate=evaluate, evaluate_at=(2, 5), validation=NUMBERS,
        progress=False,
    )  # fmt: skip
    assert calls == [(2, 2), (2, 2), (5, 5), (5, 5)]
    for i, seed in enumerate(run.seeds):
        draws = np.asarray(run.state(seed).draws)
        np.testing.assert_array_equal(run.metrics["double"][i], [4, 10, np.nan])
        np.testing.assert_allclose(run.metrics["draw"][i], [draws[1], draws[1], np.nan])
        np.testing.assert_allclose(run.metrics["validation_x"][i], 4.5 + draws[0], rtol=1e-6)
    assert run.metrics["draw"][0, 0] != run.metrics["draw"][1, 0]


def test_validate_averages_over_all_examples_in_blocks(digits):
    grey = vae.Config(**{**vars(SMALL), "binarize": "none"})  # else KL depends on the draw, and the draw on the block
    one = vae.init(grey, jax.random.key(1), (8, 8, 1))
    means = [fit.validate(vae, grey, one, digits, block=block) for block in (1000, 1541)]
    np.testing.assert_allclose(means[0]["kl"], means[1]["kl"], rtol=1e-5)
    kl = vae.elbo(grey, one, {"x": digits.x}, jax.random.key(0))["kl"]
    np.testing.assert_allclose(means[1]["kl"], kl.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "config", "data", "says"),
    [
        (gan, gan.Config(num_classes=3), data.Dataset(np.zeros((9, 8, 8, 1), np.uint8)), "has no labels"),
        (
            gan,
            gan.Config(num_classes=3),
            data.Dataset(np.zeros((9, 8, 8, 1), np.uint8), np.arange(9)),
            "go from 0 to 8",
        ),
        (vae, SMALL, np.full((9, 4), 2.0), "goes from 2 to 2"),
        (vae, SMALL, np.zeros((0, 8, 8, 1), np.uint8), "is empty"),
    ],
    ids=["unlabelled", "classes", "range", "empty"],
)
def test_what_cannot_be_judged_is_refused(module, config, data, says):
    """Inside the compiled `validate` labels have no values: one outside the classes would be no class at all."""
    with pytest.raises(ValueError, match=says):
        fit.validate(module, config, None, data)


def test_blocks_are_counted(digits):
    with pytest.raises(ValueError, match="block is 0: give"):
        fit.validate(vae, SMALL, None, digits, block=0)


def test_writers_get_every_line_of_the_first_seed():
    module, config = recorder()
    lines = []
    write = [lambda step, m: lines.append((step, m))]
    run = fit.fit(module, config, NUMBERS, steps=4, seeds=(1, 4), log_every=2, write=write)
    assert [step for step, _ in lines] == [2, 4]
    np.testing.assert_allclose([m["mean"] for _, m in lines], run.metrics["mean"][0])
    assert (run.metrics["mean"][0] != run.metrics["mean"][1]).any()
    assert lines[0][1]["step_squared"] == 0.5 and "seed" not in lines[0][1]


def test_a_run_goes_on_with_more_evaluations(tmp_path):
    module, config = recorder()
    more = {"evaluate": lambda config, state, key, step: {"double": 2 * step}, "workdir": tmp_path, "progress": False}
    fit.fit(module, config, NUMBERS, steps=2, evaluate_at=(2,), **more)
    run = fit.fit(module, config, NUMBERS, steps=4, evaluate_at=(2, 4), **more)
    np.testing.assert_array_equal(run.metrics["double"][0], [4, 8])
    run = fit.fit(module, config, NUMBERS, steps=5, evaluate_at=(2, 3, 5), **more)  # 3 has passed
    np.testing.assert_array_equal(run.metrics["double"][0], [4, 8, 10])


def test_the_output_bias_starts_at_the_data_of_vectors_too(digits):
    x = digits.x[:50].reshape(50, -1) / np.float32(255)
    config = vae.Config(encoder=nets.MLPEncoder((4,)), decoder=nets.MLPDecoder((4,)), bias_from_data=True)
    first = fit.first_states(vae, config, fit.Dataset(x), (0,))
    p = np.clip(x.mean(0), 1e-3, 1 - 1e-3)
    bias = first.model.params["decoder"]["output"]["bias"][0]
    np.testing.assert_allclose(bias, np.log(p / (1 - p)), rtol=1e-3, atol=1e-3)


def test_the_datas_size_becomes_the_configs(digits):
    """N, over which the weight prior is spread; so a wrong one given is not trained with."""
    wrong = dataclasses.replace(SMALL, dataset_size=10**9)
    runs = [fit.fit(vae, one, digits.x[:100], steps=2, progress=False) for one in (wrong, SMALL)]
    assert [run.config.dataset_size for run in runs] == [100, 100]
    chex.assert_trees_all_equal(runs[0].states, runs[1].states)


def test_no_steps_is_the_initial_state(digits):
    run = fit.fit(vae, SMALL, digits, steps=0, progress=False)
    assert int(run.state(0).step) == 0 and run.metrics == {}


SEVERAL_DEVICES = """
import dataclasses, jax, numpy as np
from experiments.bench import machine
from tests.recorder import SMALL
from tests.test_fit import ALTERNATING, CRITIC
from vaegan_jax import data, fit, gan, loop, vae, wgan
jax.config.update("jax_debug_key_reuse", False)  # of the imported test
assert len(jax.devices()) == 2
d = data.load("digits")
for seeds in ((0, 7), (7,)):  # seeds over devices; the batch over devices
    run = fit.fit(vae, SMALL, d, steps=10, seeds=seeds, progress=False)
    kernel = run.state(7).model.params["decoder"]["output"]["kernel"]
    print(*(float(v) for v in run.metrics["elbo"][-1]), float(np.abs(kernel).sum()))
run = fit.fit(gan, ALTERNATING, d, steps=10, seeds=(7,), progress=False)
kernel = run.state(7).generator.params["output"]["kernel"]
print(float(run.metrics["generator_loss"][0, 0]), float(np.abs(kernel).sum()))
judged = fit.fit(wgan, CRITIC, d, steps=10, seeds=(7,), progress=False)  # several batches a step, and labels
kernel = judged.state(7).discriminator.params["output"]["kernel"]
print(float(judged.metrics["wasserstein"][0, 0]), float(np.abs(kernel).sum()))
print(machine.flops(loop.Loop(gan, run.config, d, run.states, (7,)).compile()))
odd = dataclasses.replace(SMALL, batch_size=45)  # that two devices could not share
alone = loop.Loop(vae, odd, d, fit.first_states(vae, odd, d, (7,)), (7,))
alone.advance(0, 2)
print(len(jax.tree.leaves(alone.states)[0].devices()))
"""
ALTERNATING = dataclasses.replace(
    gan.Config(), latents=5, generator=nets.MLPGenerator((32,)), discriminator=nets.MLPDiscriminator((32,)),
    update="alternating", batch_size=50,
)  # fmt: skip
CRITIC = dataclasses.replace(
    wgan.Config(), latents=5, generator=nets.MLPGenerator((32,)), discriminator=nets.MLPDiscriminator((32,)),
    n_critic=2, num_classes=10, batch_size=50,
)  # fmt: skip


@pytest.mark.optimised
def test_two_devices_give_the_numbers_of_one_and_share_the_work(digits):
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[1]
    out = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": str(root)},
        cwd=root,
    )
    assert out.returncode == 0, out.stderr
    *vaes, adversarial, judged, operations, alone = (
        [float(word) for word in line.split()] for line in out.stdout.splitlines()
    )
    run = fit.fit(vae, SMALL, digits, steps=10, seeds=(7,), progress=False)
    kernel = np.abs(run.state(7).model.params["decoder"]["output"]["kernel"]).sum()
    for found in vaes:
        np.testing.assert_allclose(found, [run.metrics["elbo"][0, 0], kernel], rtol=1e-4)
    run = fit.fit(gan, ALTERNATING, digits, steps=10, seeds=(7,), progress=False)
    kernel = np.abs(run.state(7).generator.params["output"]["kernel"]).sum()
    np.testing.assert_allclose(adversarial, [run.metrics["generator_loss"][0, 0], kernel], rtol=1e-4)
    critics = fit.fit(wgan, CRITIC, digits, steps=10, seeds=(7,), progress=False)
    kernel = np.abs(critics.state(7).discriminator.params["output"]["kernel"]).sum()
    np.testing.assert_allclose(judged, [critics.metrics["wasserstein"][0, 0], kernel], rtol=1e-4)
    # The generator's own step has a draw and no batch: it would be done twice.
    whole = machine.flops(loop.Loop(gan, run.config, digits, run.states, (7,)).compile())
    assert operations[0] < 0.55 * whole
    assert alone == [1]


def test_a_model_is_judged_in_full_float32_and_trained_in_the_devices_own(digits):
    seen = {}

    def note(name, function):
        def noted(*arguments):
            seen[name] = jax.config.jax_default_matmul_precision
            return function(*arguments)

        return noted

    spied = SimpleNamespace(
        __name__="spied", Config=vae.Config, init=vae.init, train_step=note("train", inspect.unwrap(vae.train_step)),
        validate=note("validate", vae.validate),
    )  # fmt: skip
    fit.fit(spied, SMALL, digits, steps=1, validation=digits.x[:50], progress=False)
    assert seen == {"train": None, "validate": "highest"}
