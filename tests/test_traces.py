"""Each algorithm's step is traced once: in a run, whatever its chunks and seeds, after a resume, and by hand."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from vaegan_jax import classifier, fit, gan, gmmn, hierarchical, mcem, nets, state, vae, vaegan, wake_sleep, wgan
from vaegan_jax.data.dataset import Dataset

D, B = 2, 4
X = Dataset(np.random.default_rng(0).random((10, D), np.float32), np.arange(10))  # 2 batches an epoch
TINY = {
    "encoder": nets.MLPEncoder(hidden=()),
    "decoder": nets.MLPDecoder(hidden=()),
    "generator": nets.MLPGenerator(hidden=()),
    "discriminator": nets.MLPDiscriminator(hidden=(3,)),
    "n_critic": 2,
}
LAYERS = hierarchical.Config(
    latents=(2, 1), encoders=(nets.MLPEncoder(hidden=()),) * 2, priors=(nets.MLPEncoder(hidden=()),)
)
MODULES = pytest.mark.parametrize(
    "module",
    [vae, wake_sleep, mcem, hierarchical, gan, gmmn, wgan, vaegan, classifier],
    ids=lambda m: m.__name__.rpartition(".")[2],
)


def tiny(module, dataset_size):
    """A config that no other test has, for `train_step` keeps what it once traced."""
    config = LAYERS if module is hierarchical else module.vectors(D)
    fields = {f.name for f in dataclasses.fields(config)}
    own = {name: value for name, value in TINY.items() if name in fields}
    return dataclasses.replace(config, batch_size=B, dataset_size=dataset_size, **own)


@functools.cache
def start(module):
    return module.init(tiny(module, len(X)), jax.random.key(0), (D,))


@pytest.fixture
def traces(monkeypatch):
    """One entry each time that the body of a `train_step` runs, that is, is traced."""
    seen, check = [], state.check_batch
    monkeypatch.setattr(state, "check_batch", lambda *args: (seen.append(args), check(*args)))
    return seen


def run(module, asked, size, seeds=(0,), **options):
    """A run of `fit` on tiny nets; for each line of its log, how often the step was asked for until then."""
    at_line = []

    def train_step(*args):
        asked.append(1)
        return module.train_step(*args)

    def sample(config, state, key, n):
        return np.zeros((n, 4, 4, 1))

    algorithm = types.SimpleNamespace(**vars(module) | {"train_step": train_step, "sample": sample})
    write = [lambda step, _: at_line.append(len(asked))]
    options |= {"log_every": 2, "write": write, "progress": False, "seeds": seeds}
    initial = jax.tree.map(lambda leaf: np.stack([leaf] * len(seeds)), start(module))
    fit.fit(algorithm, tiny(module, size), X, initial_states=initial, **options)
    return at_line


@MODULES
def test_a_step_is_traced_once_in_a_run_and_not_again_after_a_resume(module, traces, tmp_path):
    """A retrace at every chunk was found in a popular repository.

    A chunk's program asks for the step while it is traced itself: no more of that after the first line.
    """
    asked = []
    for steps in (9, 33):
        at_line = run(module, asked, 100, steps=steps, workdir=tmp_path)
        assert len(at_line) > 4 and len(set(at_line)) == 1
    assert len(traces) == 1


@MODULES
def test_a_step_is_traced_once_for_several_seeds(module, traces):
    with jax.debug_key_reuse(False):  # the check refuses every vmap of a scan over keys, such as wgan's
        at_line = run(module, [], 101, steps=33, seeds=(0, 7))
    assert len(at_line) > 4 and len(set(at_line)) == 1
    assert len(traces) == 1


@MODULES
def test_a_step_by_hand_is_a_jitted_function_that_is_traced_once(module, traces):
    config = tiny(module, 200)
    now = start(module)
    rows = (config.batches_per_step, B) if config.batches_per_step > 1 else (B,)
    label = {"label": np.zeros(rows, np.int32)} if module in (mcem, classifier) else {}
    for i in range(3):
        now, _ = module.train_step(
            config, now, {"x": np.full((*rows, D), i / 2, np.float32)} | label, jax.random.key(i)
        )
    assert int(now.step) == 3 and len(traces) == 1
    lowered = module.train_step.lower(config, now, {"x": np.zeros((*rows, D), np.float32)} | label, jax.random.key(0))
    assert len(traces) == 1 and "dot" in lowered.as_text()
