"""The survey's challenges: what counts as collapse, pairing by seed, and a smoke run."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from experiments.reproduce import challenges, challenges_privacy, challenges_vae, published
from experiments.reproduce import challenges_collapse as ring
from tests.smoke import pictures, smoke
from vaegan_jax import gan, losses, vae
from vaegan_jax.data.dataset import Dataset


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in challenges.PARTS for row in part.rows]
    assert sorted(rows) == sorted(published.entries()["challenges"])
    for part in challenges.PARTS:
        assert all(part.says(budget) for budget in ("smoke", "cpu", "paper"))


def test_half_of_the_modes_is_a_collapse():
    assert [ring.collapsed(m, 8) for m in (0, 1, 4, 5, 8)] == [True, True, True, False, False]
    assert ring.collapsed(12, 25) and not ring.collapsed(13, 25)


@pytest.mark.parametrize("loss", ring.LOSSES)
def test_a_loss_alone_and_with_the_penalty_differ_by_it_alone(loss):
    assert set(losses.ADVERSARIAL) == set(ring.LOSSES) - {ring.PENALTY}
    games = {kind: one for kind, (_, one) in ring.games(loss).items()}
    plain = games[ring.PLAIN]
    if loss == ring.PENALTY:
        assert plain.gradient_penalty > 0 and plain.clip is None and set(games) == {ring.PLAIN}
        return
    penalised = games[ring.PENALISED]
    assert penalised.adversarial == loss and penalised.r1 == ring.R1
    if loss != "wasserstein":
        assert dataclasses.replace(penalised, r1=0.0) == plain
    else:
        assert plain.clip == 0.01 and plain.n_critic == 5 and plain.generator_optimizer.rule == "rmsprop"


def test_a_mode_is_covered_by_a_hundredth_of_the_samples_where_it_has_an_eighth_of_the_data():
    centres = np.stack([np.arange(8.0), np.zeros(8)], axis=1)
    x = np.zeros((200, 2))
    x[0] = centres[1]
    assert ring.covered(x, centres) == (1, 1.0)
    x[1], x[2:102] = centres[1], 0.5  # two of 200 are enough; half are near to none
    assert ring.covered(x, centres) == (2, 0.5)
    assert ring.covered(x, centres[:4])[0] == 1  # of four modes each has a quarter: two are too few


def test_a_band_is_of_the_seeds_that_every_column_has():
    columns = [{0: {"x": 1.0}, 1: {"x": 2.0}}, {1: {"x": 5.0}, 0: {"x": 4.0}, 2: {"x": 9.0}}]
    assert challenges_vae._matrix(columns, "x").tolist() == [[1.0, 4.0], [2.0, 5.0]]


def test_a_smoke_run(tmp_path):
    found = smoke("challenges", tmp_path, "collapse")
    assert found["collapse_non_saturating"]["ours"]["n"] == 2 and found["collapse_hinge"]["ours"] is None
    assert found["width_wide"]["verdict"].startswith("not run")
    assert pictures("challenges", tmp_path) == {"collapse.png", "samples.png"}


def test_the_grid_counts_modes_and_not_collapses(tmp_path):
    found = smoke("challenges", tmp_path, "collapse_grid")
    assert found["collapse_grid_non_saturating"]["ours"]["n"] == 2
    assert all(0 <= m <= 25 for m in found["collapse_grid_non_saturating"]["ours"]["values"])
    assert pictures("challenges", tmp_path) == {"collapse_grid.png", "samples_grid.png"}


def test_two_games_differ_by_their_privacy_alone():
    private, usual = challenges_privacy.game(0.8), challenges_privacy.game(None)
    assert private.dp_noise == 0.8
    assert dataclasses.replace(private, dp_clip=None, dp_noise=usual.dp_noise) == usual
    mean = np.full((4, 4, 1), 0.3, np.float32)  # fit gives it to both: neither may take it
    states = [gan.init(c, jax.random.key(0), (4, 4, 1), data_mean=mean).generator.params for c in (private, usual)]
    chex.assert_trees_all_equal(*states)


@pytest.mark.parametrize("algorithm", [gan, vae], ids=["gan", "vae"])
def test_an_attackers_score_is_of_each_image(algorithm):
    """Whatever images stand beside it, and in the order that they came in."""
    config = challenges_privacy.game(None) if algorithm is gan else challenges_vae.config(20)
    config = dataclasses.replace(config, **({} if algorithm is gan else {"binarize": "none"}))
    state = algorithm.init(config, jax.random.key(0), (4, 4, 1))
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
    whole = challenges_privacy.scores(algorithm, config, state, Dataset(x))
    assert whole.shape == (6,) and len(set(whole)) == 6
    if algorithm is gan:  # the bound's draws hang on the place in the block
        np.testing.assert_allclose(challenges_privacy.scores(gan, config, state, Dataset(x[2:])), whole[2:], rtol=1e-5)
        np.testing.assert_allclose(gan.discriminate(config, state, x)[0], whole, rtol=1e-5)


def test_a_smoke_run_of_privacy(tmp_path):
    found = smoke("challenges", tmp_path, "privacy")
    assert all(0 <= v <= 1 for name in ("privacy_gan", "privacy_vae") for v in found[name]["ours"]["values"])
    assert found["privacy_epsilon"]["ours"]["values"] == [pytest.approx(10.1, abs=0.05)]
    assert found["privacy_gan_data"]["ours"]["n"] == 2 and "epsilon" in found["privacy_defends"]["note"]
    assert pictures("challenges", tmp_path) == {"privacy.png", "privacy-samples.png"}


def test_real_images_are_nearer_to_others_than_blank_ones(tmp_path):
    found = smoke("challenges", tmp_path, "privacy_scale")
    real, blank = (found[f"privacy_{name}"]["ours"]["values"] for name in ("real", "blank"))
    assert 0 <= real[0] < blank[0] / 4
