"""Burda et al.'s target: the schedule, the optimiser, rows, units taken out, figures, a smoke run of table 2."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce import iwae, iwae_optimizers, job, published
from experiments.reproduce import iwae_models as models
from tests.smoke import pictures, smoke
from vaegan_jax import nets, plots, vae


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in iwae.PARTS for row in part.rows]
    known = published.entries()["iwae"]
    assert sorted(rows) == sorted(name for name, entry in known.items() if not entry.not_run)
    for tag, table in iwae.PUBLISHED.items():
        for name, (nll, units) in table.items():
            assert known[f"{tag}_{name}"].value == nll
            if units != "-":
                said = [known[f"{tag}_{name}_units{i + 1}"].value for i in range(len(units.split("+")))]
                assert said == [float(u) for u in units.split("+")]


def test_the_schedule_is_the_papers():
    assert models.steps("paper") == 3280 * 2980 and models.switch_steps("paper") == 3**7 * 2980
    assert list(models.RATES) == pytest.approx([1.0, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1])
    optimizer = models.optimizer()
    starts = [start for start, _ in optimizer.stages]
    assert starts[:4] == [0, 2980, 2980 * 4, 2980 * 13]
    assert float(optimizer.rate(2980)) == pytest.approx(7.2e-4)
    assert models.optimizer(1e-4).stages == ()


@pytest.mark.parametrize(("budget", "rate"), [("cpu", 5.2e-4), ("paper", 1e-4)])
def test_the_second_objective_goes_on_at_the_last_rate_of_the_first(budget, rate):
    last = models.optimizer().rate(models.steps(budget) - 1)
    assert models.switch_rate(budget) == pytest.approx(float(last)) == pytest.approx(rate)


def test_a_dear_bound_of_some_images_speaks_of_all():
    """Unbiased, with the error that it has: over draws of which images have it, the mean of all is met."""
    rng = np.random.default_rng(0)
    cheap = rng.normal(-100, 25, 400)
    dear = cheap + rng.gamma(2, 1, 400)
    found, errors, plain = [], [], []
    for _ in range(300):
        order = rng.permutation(400)
        values = models.complete(dear[order[:40]], cheap[order])
        found.append(values.mean())
        errors.append((values - cheap[order]).std(ddof=1) / np.sqrt(400))  # the images themselves are all there
        plain.append(dear[order[:40]].mean())
    assert np.mean(found) == pytest.approx(dear.mean(), abs=0.05)
    assert np.std(found) == pytest.approx(np.mean(errors), rel=0.15) and np.std(found) < np.std(plain) / 10
    np.testing.assert_allclose(models.complete(dear, cheap), dear, rtol=1e-12)


def test_bounds_of_more_samples_are_no_lower():
    even = {"bounds": [-95.0, -91.0, -90.0, -89.5, -89.4]}
    dip = {"bounds": [-95.0, -91.0, -91.5, -89.5, -89.4]}
    assert iwae._least_step(even, even) == pytest.approx(0.1) and iwae._least_step(even, dip) == pytest.approx(-0.5)
    assert iwae._looseness(even) == pytest.approx(5.6)


@pytest.mark.parametrize("tag", ["one", "two"])
def test_models_differ_by_objective_and_samples_alone(tag):
    configs = {model.name: models.config(model, "paper") for model in models.MODELS[tag]}
    assert [(c.bound, c.samples) for c in configs.values()] == [
        ("elbo", 1), ("elbo", 5), ("elbo", 50), ("iwae", 5), ("iwae", 50),
    ]  # fmt: skip
    assert len({(c.optimizer, c.decoder, c.latents) for c in configs.values()}) == 1


def test_the_texts_adam_beside_the_codes():
    """Nothing else differs; both follow the stages, whose rates the code rounds."""
    code = models.MODELS["one"][0]
    by_code, by_text = (models.config(dataclasses.replace(code, text=text), "paper") for text in (False, True))
    assert dataclasses.replace(by_text, optimizer=by_code.optimizer) == by_code
    text = by_text.optimizer
    assert (text.momentum, text.b2, text.eps, text.second_moment) == (0.9, 0.999, 1e-4, 0.0)
    for step in (0, models.EPOCH - 1, models.EPOCH, 3_279 * models.EPOCH):
        theirs, ours = (float(each.rate(jnp.int32(step))) for each in (by_code.optimizer, text))
        assert ours == pytest.approx(theirs, rel=0.03)
    assert float(text.rate(jnp.int32(models.EPOCH))) == pytest.approx(1e-3 * 10 ** (-1 / 7))


@pytest.mark.parametrize("tag", ["one", "two"])
def test_the_figure_has_the_published_units_of_every_layer(tag, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "render", lambda figure, file: drawn.append(figure))
    numbers = {"nll": 90.0, "units": [12, 3]}  # of a seed
    iwae._draw(SimpleNamespace(figures=tmp_path), tag, {name: {0: numbers} for name in iwae.PUBLISHED[tag]})
    left, middle, right = drawn[0].axes
    hollow = [line.get_ydata().tolist() for line in right.lines if line.get_markerfacecolor() == "white"]
    one = {"one": [[19, 20, 20], [19, 22, 25]], "two": [[16, 17, 17], [5, 5, 5], [16, 21, 26], [5, 5, 7]]}
    assert hollow == one[tag] and len(right.lines) == 2 * len(hollow) and len(left.lines) == 4
    said = {"one": [0.93, 1.57], "two": [1.12, 1.88]}
    assert middle.lines[0].get_ydata() == pytest.approx(said[tag])
    assert middle.lines[1].get_ydata().tolist() == [0, 0]


def test_without_inactive_units_the_draws_are_the_same():
    """With all units active the weights are log_weights'; a unit whose posterior is the prior, and which the decoder
    does not hear, changes nothing."""
    config = dataclasses.replace(
        vae.Config(), latents=3, encoder=nets.MLPEncoder(hidden=(4,)), decoder=nets.MLPDecoder(hidden=(4,)),
        kl="monte_carlo",
    )  # fmt: skip
    state = vae.init(config, jax.random.key(0), (4, 4, 1))
    x = jax.random.bernoulli(jax.random.key(1), 0.5, (5, 4, 4, 1)).astype(jnp.float32)
    key, every = functools.partial(jax.random.key, 2), jnp.ones(3, bool)
    expected = vae.log_weights(config, state, x, key(), 1)[:, 0]
    found = models.log_weight_without(config, every, state, key(), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    params = jax.tree.map(lambda leaf: leaf, state.model.params)
    first = params["decoder"]["hidden0"]["kernel"]
    params["decoder"]["hidden0"]["kernel"] = first.at[2].set(0)
    output = params["encoder"]["output"]  # mean and log-variance, side by side
    params["encoder"]["output"] = {name: value.at[..., jnp.array([2, 5])].set(0) for name, value in output.items()}
    deaf = dataclasses.replace(state, model=dataclasses.replace(state.model, params=params))
    active = jnp.array([True, True, False])
    expected = vae.log_weights(config, deaf, x, key(), 1)[:, 0]
    np.testing.assert_allclose(models.log_weight_without(config, active, deaf, key(), x), expected, rtol=1e-5)
    assert np.abs(models.log_weight_without(config, active, state, key(), x) - found).min() > 1e-4


def test_what_taking_inactive_units_out_changes(tmp_path, mnist):
    """Nothing, of units that the decoder does not hear; something, if it does."""
    mnist("train")
    model = models.MODELS["one"][0]
    config = models.config(model, "smoke")
    state = vae.init(config, jax.random.key(0), (28, 28, 1))
    params = jax.tree.map(lambda leaf: leaf, state.model.params)
    output = params["encoder"]["output"]
    gone = jnp.array([0, config.latents])  # a mean and its log-variance
    params["encoder"]["output"] = {name: value.at[..., gone].set(0) for name, value in output.items()}
    params["encoder"]["output"]["kernel"] = params["encoder"]["output"]["kernel"].at[:, 1 : config.latents].multiply(9)
    heard = params["decoder"]["hidden0"]["kernel"]
    changes = {}
    for name, row in (("deaf", jnp.zeros(heard.shape[1])), ("heard", 20 * heard[0])):
        params["decoder"]["hidden0"]["kernel"] = heard.at[0].set(row)
        one = dataclasses.replace(state, model=dataclasses.replace(state.model, params=dict(params)))
        trained = SimpleNamespace(config=lambda: config, state=lambda seed, one=one: one)
        part = job.Job("smoke", (0,), tmp_path / name / "part", tmp_path / "figures", progress=False)
        found = models.measure(part, model, trained, 0)
        assert found["units"] == [config.latents - 1] and found["variances"][0][0] < 1e-6
        changes[name] = models.without_inactive(part, model, trained, 0)
    assert changes["deaf"] < 1e-3 < changes["heard"]


@pytest.mark.parametrize("lost", [False, True])
def test_figures_of_units_curves_and_samples(tmp_path, monkeypatch, lost):
    drawn = {}
    monkeypatch.setattr(plots, "render", lambda figure, file: drawn.update({file.name: figure}))
    numbers = {} if lost else {s: {"variances": [[0.001, 1.0, 0.1]]} for s in (0, 1)}
    part = SimpleNamespace(figures=tmp_path)
    iwae._draw_units(part, "one", dict.fromkeys(iwae.PUBLISHED["one"], numbers))
    steps, values = np.array([1, 10]), np.zeros((0 if lost else 2, 2))
    one = SimpleNamespace(curve=lambda name: (steps, values), seeds=())
    iwae._draw_curves(part, "one", dict.fromkeys(iwae.PUBLISHED["one"], one))
    iwae._draw_samples(part, "one", dict.fromkeys(iwae.PUBLISHED["one"], one))
    lines = drawn["units-one.png"].axes[0].lines
    assert len(lines) == (1 if lost else 6) and not list(tmp_path.iterdir())
    if not lost:
        assert lines[0].get_ydata().tolist() == pytest.approx([1.0, 0.1, 0.001])
    assert len(drawn["curves-one.png"].axes[0].lines) == (0 if lost else 5)


def test_a_smoke_run_of_both_optimisers(tmp_path, mnist):
    mnist("train")
    found = smoke("iwae", tmp_path, "optimizers")
    assert all(
        found[row]["ours"]["mean"] and found[row]["verdict"].startswith("not comp") for row in iwae_optimizers.PART.rows
    )
    assert pictures("iwae", tmp_path) == {"optimizers.png"}


def test_a_smoke_run_of_switching(tmp_path, mnist, monkeypatch):
    """Whose seeds are side by side, and end as alone."""
    mnist("train")
    found = smoke("iwae", tmp_path, "switching")
    assert found["switch_helps"]["ours"]["n"] == 2
    assert found["one_vae_1"]["verdict"].startswith("not run")

    start, goal = models.MODELS["one"][0], models.MODELS["one"][-1]
    part = job.Job("smoke", (0, 1), tmp_path / "switching", tmp_path / "figures", progress=False)
    trained = models.train(part, start)
    ends = {}
    for together in (True, False):
        monkeypatch.setattr(models, "side_by_side", lambda job, together=together: together)
        ends[together] = models.switch(part, start, goal, trained)
        assert ends[together].seeds == (0, 1) and ends[together].failed == ()
    folders = {file.name for file in (tmp_path / "trainings").glob("vae_1-to-iwae_50*")}
    assert folders == {"vae_1-to-iwae_50", "vae_1-to-iwae_50-0", "vae_1-to-iwae_50-1"}
    for seed in (0, 1):
        alone, stacked = (jax.tree.leaves(ends[together].state(seed).model.params) for together in (False, True))
        for a, b in zip(alone, stacked, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)
