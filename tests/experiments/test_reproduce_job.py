"""A part's job: trainings that go on and count failed seeds, what is kept, time, commits, values over seeds."""

import dataclasses
import json
from types import SimpleNamespace

import chex
import jax
import numpy as np

from experiments.reproduce import job
from vaegan_jax import fit, vae
from vaegan_jax.data.dataset import Dataset


def make_job(folder):
    return job.Job("smoke", (0, 1), folder, folder / "figures", progress=False)


def test_training_goes_on_and_counts_failed_seeds(tmp_path, monkeypatch):
    """A seed that diverges is failed and stays failed; the others are as alone; time adds up over stops."""
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    config = dataclasses.replace(vae.vectors(3), batch_size=50)
    one = make_job(tmp_path)
    trained = one.fit("ok", vae, config, Dataset(x), steps=6, log_every=2)
    assert trained.seeds == (0, 1) and trained.failed == ()
    steps, values = trained.curve("elbo")
    assert steps.tolist() == [2, 4, 6] and values.shape == (2, 3)
    again = make_job(tmp_path).fit("ok", vae, config, Dataset(x), steps=6, log_every=2)
    np.testing.assert_array_equal(again.curve("elbo")[1], values)
    together = make_job(tmp_path / "t").fit("ok", vae, config, Dataset(x), steps=6, log_every=2, side_by_side=True)
    np.testing.assert_allclose(together.curve("elbo")[1], values, rtol=2e-3)

    lost = make_job(tmp_path / "l")

    def fit_one(algorithm, config, dataset, *, seeds, **more):
        if seeds == (1,):
            raise fit.Diverged("elbo is nan at step 3 of seed 1")
        return real(algorithm, config, dataset, seeds=seeds, **more)

    real = fit.fit
    monkeypatch.setattr(fit, "fit", fit_one)
    found = lost.fit("bad", vae, config, Dataset(x), steps=6, log_every=2)
    assert found.seeds == (0,) and found.failed == (1,)
    assert make_job(tmp_path / "l").seconds >= json.loads((tmp_path / "l" / "seconds.json").read_text())["seconds"]

    asked = []

    def fit_alone(algorithm, config, dataset, *, seeds, **more):
        asked.append(seeds)
        if len(seeds) > 1:
            raise fit.Diverged("elbo is nan at step 3 of seed 1")
        return real(algorithm, config, dataset, seeds=seeds, **more)

    monkeypatch.setattr(fit, "fit", fit_alone)
    for _ in range(2):  # a second start does not train the group up to its end again
        found = lost.fit("group", vae, config, Dataset(x), steps=6, log_every=2, side_by_side=True)
        assert found.seeds == (0, 1) and found.failed == ()
    assert asked == [(0, 1), (0,), (1,), (0,), (1,)]

    # Given states are each seed's own when it is trained alone: no step is taken here.
    given = jax.tree.map(lambda *leaves: np.stack(leaves), *(found.state(seed) for seed in (1, 0)))
    found = lost.fit("given", vae, config, Dataset(x), steps=0, side_by_side=True, initial_states=given)
    chex.assert_trees_all_equal(found.state(0), jax.tree.map(lambda leaf: leaf[0], given))
    chex.assert_trees_all_equal(found.state(1), jax.tree.map(lambda leaf: leaf[1], given))


def test_what_is_kept_is_of_its_settings(tmp_path):
    one, asked = make_job(tmp_path), []

    def compute():
        asked.append(1)
        return len(asked)

    assert [one.kept("a", compute, of=of) for of in ((5, 2), (5, 2), (5, 3))] == [1, 1, 2]
    assert one.kept("a", compute) == 3 and make_job(tmp_path).kept("a", compute, of=(5, 3)) == 2


def test_time_spent_on_what_parts_share_is_the_parts_too(tmp_path):
    part = make_job(tmp_path / "part")
    shared = part.beside("trainings")
    assert shared.workdir == tmp_path / "trainings" and not (part.workdir / "seconds.json").exists()
    shared.tick()
    assert (part.workdir / "seconds.json").exists() and (shared.workdir / "seconds.json").exists()


def test_a_folder_knows_the_commits_at_which_it_was_worked_on(tmp_path):
    """The first is the row's, whatever comes later; what parts share counts after the part's own."""

    def at(commit, name="part"):
        folder = tmp_path / name
        return job.Job("smoke", (0, 1), folder, folder / "figures", progress=False, commit=commit)

    at("a", "trainings")
    assert at("b").commits == ["b"]
    at("b")
    part = at("c")
    assert part.commits == ["b", "c"]
    assert part.beside("trainings").commits == ["a", "c"] and part.commits == ["b", "c", "a"]


def test_a_training_without_a_finished_seed_has_an_empty_curve():
    steps, values = job.Trained({}, (0, 1)).curve("elbo")
    assert steps.shape == (1,) and values.shape == (0, 1) and job.Trained({}, (0, 1)).config() is None


def test_values_over_seeds_are_of_those_that_all_finished():
    run = SimpleNamespace(config="c")
    trained = {"a": job.Trained({0: run, 1: run, 2: run}, ()), "b": job.Trained({0: run, 2: run}, (1,))}
    found = {"a": {0: 3.0, 1: 5.0, 2: 1.0}, "b": {0: 1.0, 2: 4.0}}
    both = job.over_seeds(trained, found, lambda a, b: a - b, "a", "b", steps=7, data=(), note="n")
    assert both.values == [2.0, -3.0] and both.seeds == [0, 2] and both.failed == [1]
    assert both.config == ("c", "c") and (both.steps, both.note) == (7, "n")
    alone = job.over_seeds(trained, found, lambda a: 2 * a, "a", steps=7, data=())
    assert alone.values == [6.0, 10.0, 2.0] and alone.failed == [] and alone.config == "c"


def test_a_folder_knows_the_networks_that_judged(tmp_path):
    part = job.Job("smoke", (0, 1), tmp_path / "part", tmp_path / "figures")
    assert part.judges == []
    for digest in ("a" * 64, "a" * 64, "b" * 64):
        part.beside("shared").judged_by(SimpleNamespace(name="mnist-cnn", digest=digest))
    known = [f"mnist-cnn of weights {letter * 12}" for letter in "ab"]
    assert part.judges == known
    other = job.Job("smoke", (0, 1), tmp_path / "other", tmp_path / "figures")
    other.beside("shared")  # which has numbers that they judged
    assert other.judges == known


def test_flat():
    steps = np.arange(1, 101)
    rising = np.log(steps)[None].repeat(3, 0)
    assert not job.flat(steps, rising, tolerance=0.01)
    assert job.flat(steps, np.minimum(rising, 3.0), tolerance=0.01)
    assert not job.flat(steps[:3], rising[:, :3], tolerance=10)
