"""Configs as JSON and back, what differs, and which choices are refused."""

import dataclasses
import json
import subprocess
import sys

import flax.linen as nn
import numpy as np
import pytest

from vaegan_jax import classifier, gan, gmmn, hierarchical, mcem, nets, vae, vaegan, wgan
from vaegan_jax import config as configs
from vaegan_jax.data import fetch, splits
from vaegan_jax.optimizer import Optimizer

ALL = [
    vae.Config(),
    gan.Config(),
    gan.dcgan(True),
    wgan.Config(),
    wgan.gradient_penalty(),
    vaegan.Config(),
    gmmn.Config(),
    mcem.Config(),
    hierarchical.Config(),
    classifier.Config(),
]


@pytest.mark.parametrize("config", [*ALL, wgan.vectors(2), vae.vectors(3)], ids=lambda c: type(c).__module__)
def test_a_config_survives_json(config):
    assert configs.from_json(json.loads(json.dumps(configs.to_json(config)))) == config


def test_foreign_modules_are_described_and_not_read_back():
    class Mine(nn.Module):
        width: int = 3

    stored = configs.to_json(dataclasses.replace(vae.Config(), encoder=Mine()))
    with pytest.raises(ValueError, match=r"Mine.*load with config"):
        configs.from_json(stored)


OPAQUE = """
import dataclasses, functools, json
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from vaegan_jax import config, nets, vae
class Mine(nn.Module):
    act: object = jnp.sin
def scaled(s):
    return lambda x: s * jnp.sin(x)
leaky = functools.partial(nn.leaky_relu, negative_slope=0.1)
nets_ = [nets.MLPEncoder(activation=f) for f in (jnp.sin, leaky, lambda x: x + 1, scaled(2), scaled(3))] + [Mine()]
print(json.dumps([config.to_json(dataclasses.replace(vae.Config(), encoder=n)) for n in nets_]))
"""


def test_a_description_is_the_same_in_every_process_and_tells_functions_apart():
    """Else a run with an activation of the user's own could not be resumed."""
    first, again = (
        subprocess.run([sys.executable, "-c", OPAQUE], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == again
    described = [json.dumps(one) for one in json.loads(first)]
    assert len(set(described)) == 6 and all("opaque" in one for one in described)


@pytest.mark.parametrize(
    "config",
    [
        *ALL,
        gan.pacgan(),
        gan.dcgan(),
        *(module.vectors(8) for module in (vae, gan, wgan, vaegan, gmmn, mcem, classifier)),
    ],
    ids=lambda c: type(c).__module__,
)
def test_no_example_is_trained_on_and_judged_by(config):
    """Training on train + test was found in a popular repository."""
    sizes = {"train": 60_000, "test": 10_000}
    rows = [
        {(part[0], i) for part in splits.parse(split) for i in range(*splits.bounds(part, sizes[part[0]], "mnist"))}
        for split in config.splits
    ]
    train, validation, test = rows
    assert len(train) >= 50_000 and test == {("test", i) for i in range(10_000)}
    assert not train & validation and not train & test and not validation & test


def test_numpys_numbers_are_numbers():
    config = vae.Config(latents=np.int64(3), beta=np.float64(0.5))
    assert configs.from_json(json.loads(json.dumps(configs.to_json(config)))) == config


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "vaegan_jax.nets.nothing"])
def test_a_file_cannot_name_other_code(name):
    with pytest.raises(ValueError, match="The stored config names"):
        configs.from_json({"function": name})


@pytest.mark.parametrize(
    "stored",
    [
        {"type": "vaegan_jax.data.fetch.run_client", "command": ["true"], "folder": "."},
        {"type": "vaegan_jax.vae.vectors", "dim": 3},
        {"type": "vaegan_jax.vae.dataclasses"},
        {"latents": 3},
        {"type": 3},
        {"function": None},
    ],
    ids=str,
)
def test_a_file_makes_configs_and_nothing_else(stored, monkeypatch):
    monkeypatch.setattr(vae, "vectors", lambda dim: pytest.fail("called"))
    monkeypatch.setattr(fetch, "run_client", lambda **_: pytest.fail("called"))
    with pytest.raises(ValueError, match="The stored config"):
        configs.from_json(stored)


def test_an_unknown_field_is_one_sentence():
    stored = configs.to_json(vae.Config()) | {"nonsense": 1}
    with pytest.raises(ValueError, match=r"does not fit vaegan_jax\.vae\.Config"):
        configs.from_json(stored)


def test_differences_name_the_leaf():
    old, new = (configs.to_json(c) for c in (gan.Config(), dataclasses.replace(gan.Config(), r1=0.5)))
    assert configs.differences(old, new) == ["r1: 0.0 -> 0.5"]
    narrow = dataclasses.replace(gan.Config(), generator=nets.MLPGenerator(hidden=(3,)))
    found = configs.differences(old, configs.to_json(narrow))
    assert "generator.hidden: [1200, 1200] -> [3]" in found
    assert configs.differences(old, old) == []


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (vae.Config(), {"likelihood": "bernouli"}),
        (vae.Config(), {"binarize": "once"}),
        (gan.Config(), {"output": "relu"}),
        (gan.Config(), {"adversarial": "kl"}),
        (gan.Config(), {"sampling_statistics": "both"}),
        (wgan.Config(), {"prior": "cauchy"}),
        (vaegan.Config(), {"adversarial": "hinge"}),
        (Optimizer(), {"rule": "adamw"}),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(config, change):
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=f"{name} is '{value}': give one of '"):
        dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (vae.Config(), {"variance": 0.0}),
        (wgan.gradient_penalty(), {"clip": 0.01}),  # beside the penalty that replaces it
        (wgan.Config(), {"gradient_penalty": 10.0, "clip": None}),  # the critic is normalised by batch
        (gan.dcgan(), {"r1": 1.0}),
        (wgan.gradient_penalty(), {"gradient_penalty": -1.0}),
        (vaegan.Config(), {"margin": -0.1}),
        (gan.Config(), {"bias_margin": 0.0}),
        (vae.Config(), {"latents": 2.5}),
        (vae.Config(), {"batch_size": 50.0}),
        (vae.Config(), {"samples": True}),
        (vae.Config(), {"beta": float("nan")}),
        (wgan.Config(), {"clip": float("nan")}),
        (vaegan.Config(), {"margin": float("nan")}),  # both comparisons with it are false: no balance
        (gan.Config(), {"ema_decay": "0.9"}),
        (gmmn.Config(), {"bandwidths": [1.0, 2.0]}),  # not hashable, so no static argument
        (hierarchical.Config(), {"latents": [100, 50]}),
        (Optimizer(), {"eps": float("inf")}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(config, change):
    with pytest.raises(ValueError, match="give"):
        dataclasses.replace(config, **change)
