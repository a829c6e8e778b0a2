"""The Dirac-GAN: the vector field by hand, eigenvalues, orders of updates, and the part of eigenvalues."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reproduce import dirac, published
from experiments.reproduce import dirac_game as game
from experiments.reproduce.dirac_game import Game
from tests.smoke import pictures, smoke


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


POINTS = [(1.0, 1.0), (-0.4, 1.3), (0.7, -0.9)]


@pytest.mark.parametrize(("theta", "psi"), POINTS)
def test_the_field_is_the_papers(theta, psi):
    """f'(t) = sigmoid(-t); the notebook's formulas, written out."""
    by_hand = {
        Game(): (-psi * sigmoid(-psi * theta), theta * sigmoid(-psi * theta)),
        Game("non_saturating"): (-psi * sigmoid(psi * theta), theta * sigmoid(-psi * theta)),
        Game("wasserstein"): (-psi, theta),
        Game("wasserstein", gradient_penalty=0.7): (-psi, theta - 0.7 * (abs(psi) - 1) * math.copysign(1, psi)),
        Game(r1=0.3): (-psi * sigmoid(-psi * theta), theta * sigmoid(-psi * theta) - 0.3 * psi),
        Game(r2=0.3): (-psi * sigmoid(-psi * theta), theta * sigmoid(-psi * theta) - 0.3 * psi),
    }
    for one, v in by_hand.items():
        np.testing.assert_allclose(game.field(one, jnp.array([theta, psi])), v, atol=1e-5, err_msg=str(one))


def test_noise_is_an_expectation():
    """Gauss-Hermite against a hundred thousand draws."""
    rng = np.random.default_rng(0)
    theta, psi, sd = 0.6, -0.8, 0.7
    fake, real = theta + sd * rng.normal(size=100_000), sd * rng.normal(size=100_000)
    v = np.array(
        [
            np.mean(-psi / (1 + np.exp(psi * fake))),
            np.mean(fake / (1 + np.exp(psi * fake)) - real / (1 + np.exp(-psi * real))),
        ]
    )
    np.testing.assert_allclose(game.field(Game(noise=sd), jnp.array([theta, psi])), v, atol=0.01)


def test_consensus_descends_the_field_as_well():
    """w = v - gamma v'^T v, by finite differences."""
    w, e = np.array([0.7, -0.4]), 1e-3

    def v(w):
        return np.asarray(game.field(Game(), jnp.asarray(w, jnp.float32)), np.float64)

    derivative = np.stack([(v(w + e * d) - v(w - e * d)) / (2 * e) for d in np.eye(2)], axis=1)
    found = game.field(Game(consensus=0.8), jnp.asarray(w, jnp.float32))
    np.testing.assert_allclose(found, v(w) - 0.8 * derivative.T @ v(w), atol=1e-4)


def test_closed_forms_have_the_papers_eigenvalues():
    gamma, sd = 0.6, 0.5
    plus = game.eigenvalues(game.closed_form(Game(r1=gamma)))[0]
    assert plus == pytest.approx(complex(-gamma / 2, math.sqrt(0.25 - gamma**2 / 4)))
    plus = game.eigenvalues(game.closed_form(Game(noise=sd)))[0]
    assert plus == pytest.approx(complex(-(sd**2) / 4, math.sqrt(0.25 - sd**4 / 16)))
    plus = game.eigenvalues(game.closed_form(Game(consensus=gamma)))[0]
    assert plus == pytest.approx(complex(-gamma / 4, 0.5))
    assert game.eigenvalues(game.closed_form(Game("wasserstein")))[0] == pytest.approx(1j)


@pytest.mark.parametrize("kind", [{"gradient_penalty": 0.7}, {"clip": 1.0}])
def test_no_closed_form_where_there_is_none(kind):
    with pytest.raises(ValueError, match="no closed form at 0"):
        game.closed_form(Game("wasserstein", **kind))


@pytest.mark.parametrize("order", dirac.ORDERS)
def test_steps_in_both_orders(order):
    """On the bilinear game the updates are matrices; clipping keeps psi inside."""
    h, w = 0.2, np.array([1.0, -0.5])
    theta = w[0] - h * w[1]
    psi = w[1] + h * (theta if order == "alternating" else w[0])
    found = game.step(Game("wasserstein"), jnp.asarray(w, jnp.float32), h, order)
    np.testing.assert_allclose(found, [theta, psi], atol=1e-6)
    walk = game.trajectory(Game("wasserstein", clip=0.3), jnp.array([1.0, 1.0]), h, steps=50, order=order)
    assert walk.shape == (51, 2)
    assert np.abs(walk[1:, 1]).max() <= 0.3 + 1e-6


def test_crossing():
    assert dirac.crossing(lambda x: x * x < 2, 0, 2) == pytest.approx(math.sqrt(2), abs=1e-6)


def test_the_librarys_step_is_the_recursion_and_not_any_other():
    one = Game("hinge", r1=0.3)
    assert dirac.compare(one, 50) < 1e-5
    start, order = jnp.array(dirac.START), "simultaneous"
    theirs = np.asarray(game.trajectory(Game("hinge", r1=0.4), start, dirac.H, steps=50, order=order))
    ours = np.asarray(game.trajectory(one, start, dirac.H, steps=50, order=order))
    assert np.abs(theirs - ours).max() > 1e-2


def test_eigenvalues_are_reproduced(tmp_path):
    parts = {part.name: part.rows for part in dirac.PARTS}
    assert sorted(row for rows in parts.values() for row in rows) == sorted(published.entries()["dirac"])
    found = smoke("dirac", tmp_path, "spectra")
    for name in parts["spectra"]:
        assert found[name]["budget"] == "exact"
        assert found[name]["verdict"] in ("reproduced", "claim holds"), found[name]
    assert pictures("dirac", tmp_path) == {"eigenvalues.png"}
