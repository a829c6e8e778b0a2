"""A resumed GAN equals an unbroken one bit for bit: every leaf of the state, every line of the log (VAE: test_fit)."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from vaegan_jax import checkpoint, fit, gan, logs, nets, vaegan, wgan

X = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 1), np.uint8)  # 5 batches of 4 an epoch, 2 images left out
WIDTHS = {"hidden": (), "kernel": (3, 3)}
GENERATOR = nets.ConvGenerator(channels=(2,), **WIDTHS)
DISCRIMINATOR = nets.ConvDiscriminator(channels=(2, 2), feature_layer="conv0", **WIDTHS)
SMALL = {"latents": 2, "batch_size": 4}
CONFIGS = {
    # The 34th and 67th critic steps of 100 come after the cut: the generator has waited, and waits.
    wgan: wgan.Config(
        generator=GENERATOR, discriminator=DISCRIMINATOR, n_critic=34, warmup=True, ema_decay=0.9, **SMALL
    ),
    vaegan: vaegan.Config(
        encoder=nets.ConvEncoder(channels=(2,), hidden=3, kernel=(3, 3)), decoder=GENERATOR,
        discriminator=DISCRIMINATOR, ema_decay=0.9, **SMALL,
    ),
    gan: dataclasses.replace(gan.dcgan(), generator=GENERATOR, discriminator=DISCRIMINATOR, **SMALL),
}  # fmt: skip


@pytest.mark.parametrize("module", CONFIGS, ids=lambda m: m.__name__.rpartition(".")[2])
def test_resumed_equals_unbroken_bit_for_bit(module, tmp_path):
    start = module.init(CONFIGS[module], jax.random.key(0), (8, 8, 1))
    initial = jax.tree.map(lambda leaf: np.asarray(leaf)[None], start)

    def run(name):
        options = {"log_every": 3, "checkpoint_every": 4, "workdir": tmp_path / name, "progress": False}
        return fit.fit(module, CONFIGS[module], X, steps=7, initial_states=initial, **options)

    whole = run("whole")
    # As if killed in step 7, with the log ahead of the checkpoint of step 4.
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "7")
    assert checkpoint.steps(tmp_path / "broken" / "checkpoints") == [4]
    resumed = run("broken")
    chex.assert_trees_all_equal(resumed.states, whole.states)
    lines = [logs.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "broken")]
    unbroken, again = ([{k: v for k, v in line.items() if k != "steps_per_second"} for line in log] for log in lines)
    assert [line["step"] for line in unbroken] == [3, 4, 6, 7]
    assert unbroken == again
    # What is compared has moved: counters, statistics, moments, averages.
    still = [
        jax.tree_util.keystr(path)
        for (path, new), old in zip(jax.tree.leaves_with_path(whole.state(0)), jax.tree.leaves(start), strict=True)
        if (np.asarray(new) == np.asarray(old)).all()
    ]
    assert still == []


@pytest.mark.optimised
def test_killed_a_run_goes_on_to_the_same_bytes(tmp_path):
    """kill -9 of a process in `fit`, two seeds side by side, dropout, pictures; what is left is resumed here."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_resume_equality as here
        here.maxout(sys.argv[1])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "killed")])
    deadline = time.monotonic() + 120
    try:
        while not checkpoint.steps(tmp_path / "killed" / "checkpoints") and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        time.sleep(0.173)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    left = checkpoint.steps(tmp_path / "killed" / "checkpoints")
    assert left and left[-1] < STEPS
    resumed, whole = maxout(tmp_path / "killed"), maxout(tmp_path / "whole")
    chex.assert_trees_all_equal(resumed.states, whole.states)
    logged = [
        [
            {k: v for k, v in line.items() if k != "steps_per_second"}
            for line in logs.read(run.workdir / "metrics.jsonl")
        ]
        for run in (resumed, whole)
    ]
    assert logged[0] == logged[1]
    pictures = [
        {file.name: file.read_bytes() for file in (run.workdir / "samples").iterdir()} for run in (resumed, whole)
    ]
    assert pictures[0] == pictures[1] and pictures[0]


STEPS = 160


def maxout(workdir):
    """Goodfellow's recipe, small: maxout and dropout."""
    config = dataclasses.replace(
        gan.Config(), generator=nets.MLPGenerator((8,)), discriminator=nets.MaxoutDiscriminator((6, 6), pieces=2),
        latents=3, batch_size=4,
    )  # fmt: skip
    return fit.fit(
        gan, config, X, steps=STEPS, seeds=(0, 3), log_every=3, checkpoint_every=10, workdir=workdir, progress=False
    )
