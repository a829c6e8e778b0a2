"""The WGAN target: exact distances, closed forms, what a curve says, and a smoke of its cheap parts."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from PIL import Image
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance_nd

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import (
    published,
    results,
    samples,
    wgan,
    wgan_curves,
    wgan_fig2,
    wgan_frozen,
    wgan_vanishing,
    wgan_warmup,
)
from experiments.reproduce import wgan_cells as cells
from experiments.reproduce import wgan_example1 as example1
from experiments.reproduce import wgan_segments as segments
from vaegan_jax import adversarial, nets, sampling
from vaegan_jax import wgan as wgan_algorithm
from vaegan_jax.data import toy

LOG2 = math.log(2)


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in wgan.PARTS for row in part.rows]
    assert sorted(rows) == sorted(name for name, entry in published.entries()["wgan"].items() if not entry.not_run)
    assert published.headline("wgan") in rows
    for part in wgan.PARTS:
        assert all(part.says(budget) for budget in ("smoke", "cpu", "paper"))


@pytest.mark.parametrize("theta", [-0.7, 0.0, 0.3])
def test_distances_of_segments_are_those_of_example_1(theta):
    pair = segments.common(theta, 50)
    assert segments.transport(*pair) == pytest.approx(abs(theta), abs=1e-7)
    assert segments.divergences(*pair) == pytest.approx(
        {"tv": 1.0, "kl": math.inf, "js": LOG2} if theta else {"tv": 0.0, "kl": 0.0, "js": 0.0}
    )


def test_distances_are_those_of_scipy():
    """Transport by a linear programme; JS is the square of its distance."""
    x, y = np.random.default_rng(0).normal(size=(2, 9, 2))
    assert segments.transport(x, y) == pytest.approx(wasserstein_distance_nd(x, y), rel=1e-6)
    atoms = np.arange(4.0)[:, None]
    p, q = np.array([2, 1, 1, 0]) / 4, np.array([0, 1, 1, 2]) / 4
    found = segments.divergences(atoms[[0, 0, 1, 2]], atoms[[1, 2, 3, 3]])
    assert found == pytest.approx({"tv": 0.5, "kl": math.inf, "js": jensenshannon(p, q) ** 2})


@pytest.mark.parametrize("name", ["clip", "penalty", "gan"])
def test_only_the_discriminators_of_the_segments_learn(name, key):
    game = example1.games()[name]
    game = dataclasses.replace(game, discriminator=nets.MLPDiscriminator(hidden=(8,)), batch_size=16)
    config = segments.Config(game, (0.0, -0.5))
    init_key, data_key, step_key = jax.random.split(key, 3)
    state = segments.init(config, init_key, (2,))
    batch = {"x": jnp.asarray(toy.segments(data_key, 16, theta=0.0))}
    after, metrics = segments.train_step(config, state, batch, step_key)
    assert all(v.shape == () for v in metrics.values())
    assert after.generator.params["theta"].tolist() == [0.0, -0.5]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.discriminator.params, after.discriminator.params)
    assert any(jax.tree.leaves(moved))
    if name == "clip":
        assert all(float(jnp.abs(p).max()) <= np.float32(0.01) for p in jax.tree.leaves(after.discriminator.params))
    one = jax.tree.map(lambda leaf: leaf[1], after)
    fakes = np.asarray(sampling.sample(game, one, jax.random.key(1), 100))
    assert np.unique(fakes[:, 0]).tolist() == [-0.5] and 0 <= fakes[:, 1].min() < 0.2 < 0.8 < fakes[:, 1].max() <= 1
    assert example1.estimates(game, after, 64)[0] < 1e-6  # one law, common heights: no estimate is above 0


def test_an_optimal_linear_critic_is_proportional_to_w():
    W = np.abs(example1.THETAS)
    assert example1.proportional(W, 3 * W) == pytest.approx((3.0, 1.0))
    assert example1.proportional(W, W + W**2 / 20)[1] > 0.999  # the penalty's own optimum
    assert example1.proportional(W, np.where(W > 0, LOG2, 0))[1] < 0.5  # JS is not
    assert set(example1.THETAS) <= set(example1.GRID.tolist()) and example1.GRID.size == 81


def test_the_optimal_discriminator_of_figure_2():
    x = np.array([-1.0, 0.0, 0.3, 5.0])
    best, h = wgan_fig2.optimum(x), 1e-6
    density = [np.exp(-0.5 * (x - place) ** 2) for place in (-5, 5)]
    np.testing.assert_allclose(best["d"], density[0] / (density[0] + density[1]), rtol=1e-12)
    np.testing.assert_allclose(
        best["d_slope"], (wgan_fig2.optimum(x - h)["d"] - wgan_fig2.optimum(x + h)["d"]) / (2 * h), rtol=1e-4, atol=1e-9
    )
    assert best["d_slope"][1] == pytest.approx(2.5) and 0 < best["d_slope"][3] < 1e-20
    np.testing.assert_allclose(best["log_slope"], best["d_slope"] / (1 - best["d"]), rtol=1e-3)


def test_what_a_curve_says():
    at, judged = np.arange(1, 101), np.array([10, 50, 90, 100])
    distance = np.array([[4.0, 3.0, 2.0, 1.0]])
    for curve, rho in ((-1.0 * at, 1.0), (1.0 * at, -1.0), (0.0 * at, 0.0)):
        assert wgan_curves.follows(at, curve[None], judged, distance) == [pytest.approx(rho)]
        assert wgan_curves.falls(at, curve[None], judged) == [pytest.approx(-rho)]


def test_what_samples_say():
    assert samples.entropy(np.full(10, 0.1)) == pytest.approx(math.log(10))
    assert samples.entropy(np.eye(10)[3]) == 0.0
    assert cells.generator("nobn", 64).channels == (64, 64)
    assert cells.generator("dcgan", 64) == nets.ConvGenerator()
    for algorithm in cells.ALGORITHMS:
        config = cells.config((algorithm, "mlp"), 64, 60_000)
        assert (config.discriminator, config.batch_size) == (nets.ConvDiscriminator(), 64)
        both = cells.config((algorithm, cells.BOTH_MLP), 64, 60_000)
        assert both.generator == config.generator and both.discriminator.hidden == (512, 512, 512)
        times = both.generator_optimizer.learning_rate / config.generator_optimizer.learning_rate
        assert times == pytest.approx(100 if algorithm == "wgan" else 1)


def test_when_accuracy_is_first_one():
    assert wgan_vanishing.first(np.array([0, 5, 10, 15]), np.array([0.5, 0.9, 1.0, 0.99])) == 10
    assert wgan_vanishing.first(np.array([0, 5, 10]), np.array([0.5, 0.9, 0.99])) == 11
    points = wgan_vanishing.points(4_000)
    assert points[:3] == [5, 10, 15] and points[-1] == 4_000 and points == sorted(set(points)) and 25 < len(points) < 40
    assert wgan_vanishing.points(12) == [5, 10, 12]


def test_the_probe_is_the_gradient_of_the_generators_cost(key):
    """Against jax.grad of the mean over both batches; the variance of two, |a - b|^2 / 2."""
    config = cells.config(("gan", "dcgan"), 2, 100)
    init_key, data_key, probe_key = jax.random.split(key, 3)
    state = wgan_frozen.init(config, init_key, (8, 8, 1))
    x = jax.random.uniform(data_key, (2, 4, 8, 8, 1))
    found = wgan_vanishing.probe(config, state, x, jax.random.clone(probe_key))
    costs = {"saturating": lambda f: -jax.nn.softplus(f).mean(), "log_d": lambda f: jax.nn.softplus(-f).mean()}
    draws = [adversarial.draw_latents(config, k, 4) for k in jax.random.split(probe_key, 2)]
    stats = state.generator.batch_stats

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(cost, z):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            fake, _ = adversarial.generate(config, variables, z, None, state.shape, train=True)
            out, _ = config.discriminator.apply(
                state.discriminator.variables(), fake, None, train=True, mutable=["batch_stats"]
            )
            return cost(out[0])

        return ravel_pytree(jax.grad(loss)(state.generator.params))[0]

    for name, cost in costs.items():
        a, b = (np.asarray(gradient(cost, z)) for z in draws)
        assert float(found[f"{name}_norm"]) == pytest.approx(np.linalg.norm(a + b) / 2, rel=1e-3)
        assert float(found[f"{name}_variance"]) == pytest.approx(((a - b) ** 2).sum() / 2, rel=1e-2)
    assert 0 <= float(found["accuracy"]) <= 1 and float(found["cost"]) > 0


def test_a_smoke_of_the_cheap_parts(tmp_path):
    argv = ["wgan", "--budget", "smoke", "--workdir", str(tmp_path), "--seeds", "0", "1", "--quiet"]
    assert reproduce.main([*argv, "--parts", "example1", "fig2"]) == 0
    rows = {row["id"].partition(".")[2]: row for row in results.read("wgan", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    ran = [name for part in wgan.PARTS[:2] for name in part.rows]
    assert all(rows[name]["ours"] is not None for name in ran)
    assert rows["example1_w"]["verdict"] == "claim holds" and rows["example1_js"]["verdict"] == "reproduced"
    assert rows["example1_critic"]["seeds"] == [0, 1] and rows["spearman_wgan"]["verdict"].startswith("not run")
    for name in ("fig1.png", "fig2.png"):
        Image.open(tmp_path / "results" / "wgan" / name).verify()


def test_a_generator_iteration_under_warmup_takes_as_many_steps_of_fit_as_the_algorithm_does(key):
    """passes counts what train_step does: the generator's count after so many steps, and not one step sooner."""
    config = dataclasses.replace(
        cells.config(("wgan", "mlp"), 1, 64),
        generator=nets.MLPGenerator(hidden=(4,)), discriminator=nets.MLPDiscriminator(hidden=(4,)), batch_size=2,
        warmup=True,
    )  # fmt: skip
    assert config.n_critic * wgan_warmup.SLOW == 100
    init_key, key = jax.random.split(key)
    state = wgan_algorithm.init(config, init_key, (4, 4, 1))
    batch = {"x": jnp.zeros((config.n_critic, 2, 4, 4, 1))}

    def step(state, key):
        state, _ = wgan_algorithm.train_step(config, state, batch, key)
        return state, state.generator_steps

    total = wgan_warmup.passes(30)
    _, made = jax.lax.scan(step, state, jax.random.split(key, total))
    for iterations in (1, 2, 25, 26, 30):
        at = wgan_warmup.passes(iterations)
        assert made[at - 1] == iterations and made[at - 2] == iterations - 1
    assert wgan_warmup.passes(501) - wgan_warmup.passes(500) == wgan_warmup.SLOW
