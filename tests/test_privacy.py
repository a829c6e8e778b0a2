"""DP-SGD: what is cut, what is added, what a step may depend on, and the accountant against numbers of others."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from vaegan_jax import fit, gan, nets, privacy
from vaegan_jax.optimizer import Optimizer

B, D = 8, 3
SGD = Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0)  # so that a step is minus its gradient
OPEN = dataclasses.replace(
    gan.vectors(D),
    generator=nets.MLPGenerator(hidden=(5,)),
    discriminator=nets.MLPDiscriminator(hidden=(4,)),
    generator_optimizer=SGD,
    discriminator_optimizer=SGD,
    update="simultaneous",  # the generator's gradient is by the discriminator as it was
    batch_size=B,
)
HUGE = 1e6


def private(clip: float, noise: float, **more: object) -> gan.Config:
    return dataclasses.replace(OPEN, dp_clip=clip, dp_noise=noise, **more)


def steps_of(config: gan.Config, x: jax.Array, key: int = 1) -> tuple[dict, dict]:
    """By how much one step moves both players' parameters."""
    state = gan.init(config, jax.random.key(0), (D,))
    new, _ = gan.train_step(config, state, {"x": x}, jax.random.key(key))

    def change(player: str) -> dict:
        return jax.tree.map(jnp.subtract, getattr(new, player).params, getattr(state, player).params)

    return change("discriminator"), change("generator")


def flat(tree: dict) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.fixture
def x(key):
    return jax.random.normal(key, (B, D))


@pytest.fixture
def key():
    return jax.random.key(7)


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
@pytest.mark.parametrize("adversarial", ["non_saturating", "hinge"])
def test_without_noise_and_with_a_wide_clip_it_is_the_usual_step(x, adversarial, update):
    usual = steps_of(dataclasses.replace(OPEN, adversarial=adversarial, update=update), x)
    found = steps_of(private(HUGE, 0.0, adversarial=adversarial, update=update), x)
    for a, b in zip(usual, found, strict=True):
        np.testing.assert_allclose(flat(a), flat(b), rtol=1e-4, atol=1e-6)


def test_one_example_moves_the_discriminator_by_no_more_than_the_clip(x):
    """However far away it lies: what the noise is measured by."""
    config, clip = private(0.1, 0.0), 0.1
    before = flat(steps_of(config, x)[0])
    assert np.linalg.norm(before) <= clip * (1 + 1e-5)
    for far in (1.0, 1e4):
        after = flat(steps_of(config, x.at[3].set(far))[0])
        moved = np.linalg.norm(after - before)
        assert 0 < moved <= 2 * clip / B * (1 + 1e-5)  # one leaves, another one comes
    open_step = [flat(steps_of(OPEN, x.at[3].set(far))[0]) for far in (0.0, 1e4)]
    assert np.linalg.norm(open_step[1] - open_step[0]) > 10 * clip


def test_the_noise_has_its_deviation_and_the_generator_none_of_it(x):
    clip, noise = 0.5, 3.0
    quiet, loud = private(clip, 0.0), private(clip, noise)
    np.testing.assert_array_equal(flat(steps_of(quiet, x)[1]), flat(steps_of(loud, x)[1]))
    added = [flat(steps_of(loud, x, key)[0]) - flat(steps_of(quiet, x, key)[0]) for key in range(1, 60)]
    values = np.concatenate(added)
    assert values.std() == pytest.approx(noise * clip / B, rel=4 / np.sqrt(2 * values.size))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(values.size)
    assert abs(np.corrcoef(added[0], added[1])[0, 1]) < 4 / np.sqrt(added[0].size)


def test_the_generators_step_asks_no_example(x):
    """What a private discriminator leaves: the generator may not see the data beside it."""
    config = private(0.1, 1.0)
    np.testing.assert_array_equal(flat(steps_of(config, x)[1]), flat(steps_of(config, x + 5)[1]))


def test_the_pixels_mean_is_of_the_data():
    images = dataclasses.replace(gan.Config(), generator=nets.MLPGenerator(hidden=(3,)))
    mean = jnp.full((4, 4, 1), 0.3)

    def bias(config: gan.Config) -> np.ndarray:
        state = gan.init(config, jax.random.key(0), (4, 4, 1), data_mean=mean)
        return np.asarray(state.generator.params["output"]["bias"])

    assert (bias(images) != 0).all() and not bias(dataclasses.replace(images, dp_clip=1.0)).any()


def test_it_trains_through_fit_with_dropout_and_seeds(key):
    config = private(1.0, 0.5, discriminator=nets.MaxoutDiscriminator(hidden=(4, 4)))
    run = fit.fit(gan, config, np.asarray(jax.random.normal(key, (40, D))), steps=3, seeds=(0, 1), progress=False)
    assert np.isfinite(run.metrics["discriminator_gradient_norm"]).all()
    leaves = jax.tree.leaves(run.states.discriminator.params)
    assert any((leaf[0] != leaf[1]).any() for leaf in leaves)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dp_clip": 0.0}, "dp_clip is 0.0 and dp_noise 1.0: give above 0"),
        ({"dp_noise": -1.0}, "dp_noise -1.0: give above 0"),
        ({"r1": 0.1}, "r1 is 0.1: nothing is private with it"),
        ({"packing": 2}, "packing is 2"),
        ({"num_classes": 10}, "num_classes is 10"),
        ({"adversarial": "relativistic"}, "whose generator sees real examples"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_what_would_let_the_data_out_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(private(1.0, 1.0), **change)


class Normalised(nn.Module):
    """A discriminator of a user's own: nothing says that it normalises but what it keeps."""

    @nn.compact
    def __call__(self, x, y=None, *, train=False):
        h = nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))
        return nn.Dense(1)(h)[:, 0], h


def test_a_discriminator_that_keeps_statistics_of_the_data_is_refused(key):
    with pytest.raises(ValueError, match="keeps statistics of the data"):
        gan.init(private(1.0, 1.0, discriminator=Normalised()), key, (D,))


def test_epsilon_is_that_of_a_published_training():
    """Bie et al. 2023: noise 1, batch 128 of 60,000, 450,000 steps, delta 1e-5; their code calls it 10."""
    assert privacy.epsilon(1.0, 128 / 60_000, 450_000, 1e-5) == pytest.approx(10.1, abs=0.05)


@pytest.mark.parametrize(("noise", "rate", "order"), [(1.0, 0.01, 2), (0.8, 0.3, 5), (2.0, 1.0, 8), (1.5, 0.5, 3)])
def test_a_divergence_is_its_integral(noise, rate, order):
    """Mironov et al. 2019: of N(0, s^2) with a share of N(1, s^2) from N(0, s^2)."""

    def integrand(z: float) -> float:
        base = norm.pdf(z, 0, noise)
        return base * ((1 - rate) + rate * np.exp((2 * z - 1) / (2 * noise**2))) ** order

    value, _ = quad(integrand, -30, 60, limit=500)
    assert privacy._divergence(noise, rate, order) == pytest.approx(np.log(value) / (order - 1), rel=1e-6)
    if rate == 1:
        assert privacy._divergence(noise, rate, order) == pytest.approx(order / (2 * noise**2))


def test_epsilon_moves_as_it_must():
    base = privacy.epsilon(1.0, 0.01, 1000, 1e-5)
    assert privacy.epsilon(2.0, 0.01, 1000, 1e-5) < base < privacy.epsilon(1.0, 0.02, 1000, 1e-5)
    assert privacy.epsilon(1.0, 0.01, 1000, 1e-3) < base < privacy.epsilon(1.0, 0.01, 2000, 1e-5)
    assert privacy.epsilon(1.0, 0.01, 0, 1e-5) == privacy.epsilon(1.0, 0.0, 1000, 1e-5) == 0.0


@pytest.mark.parametrize(("target", "steps"), [(10.0, 10_000), (1.0, 100)])
def test_the_noise_for_an_epsilon_spends_it(target, steps):
    noise = privacy.noise_for(target, 0.01, steps, 1e-5)
    assert privacy.epsilon(noise, 0.01, steps, 1e-5) == pytest.approx(target, rel=1e-6)


def test_an_epsilon_that_no_noise_reaches_is_refused():
    with pytest.raises(ValueError, match=r"target is 0\.001: give an epsilon above 0\.0"):
        privacy.noise_for(0.001, 0.01, 1000, 1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0.0, 0.1, 1, 1e-5), "noise is 0.0"),
        ((1.0, 1.5, 1, 1e-5), "rate is 1.5"),
        ((1.0, 0.1, -1, 1e-5), "steps is -1"),
        ((1.0, 0.1, 1, 0.0), "delta is 0.0"),
    ],
)
def test_bad_settings_get_a_sentence(arguments, says):
    with pytest.raises(ValueError, match=says):
        privacy.epsilon(*arguments)
