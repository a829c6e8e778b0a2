"""AIS on a linear-Gaussian decoder, where log p(x) is closed; the sandwich; blocks and resume to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from tests.metrics.linear_gaussian import Linear
from vaegan_jax import logs
from vaegan_jax.metrics import ais
from vaegan_jax.metrics.likelihood import as_argument

MODEL = Linear(12, 5, 0.1)
SMALL = Linear(6, 2, 0.3, B=3)


def estimate(key, model=SMALL, **settings):
    settings = {"latents": model.K, "progress": False} | settings
    return ais.ais_log_likelihood(model.log_likelihood, model.x.astype(np.float32), key, **settings)


def test_500_distributions_are_within_a_tenth_of_a_nat_and_the_sandwich_holds(key):
    found = ais.bdmc(MODEL.log_likelihood, MODEL.simulate, key, latents=5, n=64, distributions=500, progress=False)
    exact = MODEL.exact(found.x)
    assert float(np.abs(found.lower - exact).mean()) < 0.4
    assert -0.06 < float((exact - found.lower).mean()) < 0.1
    assert -0.06 < float((found.upper - exact).mean()) < 0.15
    assert float(found.gap.mean()) < 0.25


def test_the_weights_are_unbiased(key):
    """E[w] = p(x) forward, at however few distributions; in reverse Crooks' theorem, whose terms are bounded: with
    r = w / p(x), E_reverse[g(r)] = E_forward[r g(r)] for g = 1 / (1 + r) (E[1 / r] = 1 itself has too heavy a tail)."""
    found = ais.bdmc(
        SMALL.log_likelihood, SMALL.simulate, key, latents=2, n=4000, distributions=6, chains=1, rows=10**6,
        progress=False,
    )  # fmt: skip
    exact = SMALL.exact(found.x)
    forward, reverse = np.exp(np.float64(found.lower) - exact), np.exp(np.float64(found.upper) - exact)
    assert np.log(forward).mean() < -0.1 and np.log(reverse).mean() > 0.1  # by far no exact weights
    difference = forward / (1 + forward) - 1 / (1 + reverse)
    for zero in (forward - 1, difference):
        error = zero.std() / np.sqrt(len(zero))
        assert abs(zero.mean()) < 4 * error < 0.2
    assert difference.std() / np.sqrt(len(difference)) < 0.01


def test_the_gap_is_the_sandwichs(key):
    settings = {"latents": 2, "n": 3, "distributions": 5, "chains": 2, "progress": False}
    gap = ais.bdmc_gap(SMALL.log_likelihood, SMALL.simulate, jax.random.clone(key), **settings)
    found = ais.bdmc(SMALL.log_likelihood, SMALL.simulate, jax.random.clone(key), **settings)
    np.testing.assert_array_equal(gap, found.upper - found.lower)
    assert gap.shape == (3,) and found.x.shape == (3, 6)


def test_one_reverse_chain_is_a_looser_upper_bound(key):
    """Of the same images and forward run; none named is as many as forward ones."""

    def run(**more):
        settings = {"latents": 2, "n": 400, "distributions": 12, "chains": 8, "progress": False} | more
        return ais.bdmc(SMALL.log_likelihood, SMALL.simulate, jax.random.clone(key), **settings)

    same, many, one = run(), run(reverse_chains=8), run(reverse_chains=1)
    np.testing.assert_array_equal(same.upper, many.upper)
    np.testing.assert_array_equal(one.x, many.x)
    np.testing.assert_array_equal(one.lower, many.lower)
    above, looser = one.upper - SMALL.exact(one.x), one.upper - many.upper
    for difference in (above, looser):
        assert one.upper.shape == (400,) and difference.mean() > 3 * difference.std() / 20


def test_two_distributions_are_plain_importance_sampling_from_the_prior(key):
    found = estimate(jax.random.clone(key), distributions=2, chains=2)
    z = jax.random.normal(jax.random.split(key)[0], (4 + 2, 3, 2))[4:]  # after the pilots
    weights = [SMALL.log_likelihood(each, SMALL.x.astype(np.float32)) for each in z]
    np.testing.assert_allclose(found, logsumexp(weights, axis=0) - np.log(2), rtol=1e-5)


def test_only_the_pilots_set_the_steps(key):
    """So that the other chains' transitions are invariant: wherever those are, the steps come out the same."""
    x, betas = jnp.asarray(SMALL.x, jnp.float32), jnp.asarray(ais.schedule(5), jnp.float32)
    z_key, key = jax.random.split(key)
    density = as_argument(SMALL.log_likelihood)

    def steps(z):
        start = ais._start(density, x, z, rows=ais.ROWS)
        state = ais.State(start, jnp.full((5, 3), 0.2), jnp.zeros((6, 3)))
        settings = {"backwards": False, "pilots": 4, "leapfrogs": 10, "rows": ais.ROWS}
        given = state, betas, jnp.diff(betas), jax.random.clone(key), 0, 4
        return ais._advance(density, x, *given, **settings).steps

    z = jax.random.normal(z_key, (6, 3, 2))
    np.testing.assert_array_equal(steps(z), steps(z.at[4:].add(3.0)))
    assert (steps(z) != steps(z.at[:4].add(3.0))).any()


def test_the_schedule():
    betas = ais.schedule(101)
    assert betas[0] == 0 and betas[-1] == 1 and (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas + betas[::-1], 1, atol=1e-12)  # a sigmoid is odd about its middle

    def sigmoid(t):
        return 1 / (1 + np.exp(-t))

    np.testing.assert_allclose(betas[25], (sigmoid(-2) - sigmoid(-4)) / (sigmoid(4) - sigmoid(-4)), rtol=1e-12)
    with pytest.raises(ValueError, match="radius is 0"):
        ais.schedule(5, radius=0)


def test_the_block_changes_nothing_and_one_program_serves_all(key):
    """To the last bit, a block longer than the run included."""
    traces = []

    def log_likelihood(z, x):
        traces.append(z.shape)
        return SMALL.log_likelihood(z, x)

    def run(block):
        x = SMALL.x.astype(np.float32)
        settings = {"latents": 2, "distributions": 30, "block": block, "progress": False}
        return ais.ais_log_likelihood(log_likelihood, x, jax.random.clone(key), **settings)

    whole, first = run(1000), len(traces)
    for block in (1, 7, 29):
        np.testing.assert_array_equal(run(block), whole)
    assert len(traces) <= first + 3  # the check of its result's shape may look at it again


def test_chains_go_through_the_decoder_in_parts(key):
    """3 examples and 20 chains: six chains at a time, with a remainder of two, and all at once."""
    whole = estimate(jax.random.clone(key), distributions=30)
    np.testing.assert_allclose(estimate(key, distributions=30, rows=18), whole, rtol=1e-4)


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bits(key, tmp_path, monkeypatch):
    settings = {"distributions": 30, "block": 8}
    whole = estimate(jax.random.clone(key), **settings)
    advance, blocks = ais._advance, []

    def counted(*args, **kwargs):
        blocks.append(args[6:8])
        if len(blocks) == 3:
            raise Killed
        return advance(*args, **kwargs)

    monkeypatch.setattr(ais, "_advance", counted)
    with pytest.raises(Killed):
        estimate(jax.random.clone(key), workdir=tmp_path, **settings)
    assert blocks == [(0, 8), (8, 16), (16, 24)]
    monkeypatch.setattr(ais, "_warm", None)  # not needed again
    np.testing.assert_array_equal(estimate(jax.random.clone(key), workdir=tmp_path, **settings), whole)
    assert blocks[3:] == [(16, 24), (24, 29)]
    np.testing.assert_array_equal(estimate(key, workdir=tmp_path, **settings), whole)  # ended: at once
    assert len(blocks) == 5 and [file.name for file in tmp_path.iterdir()] == ["ais.npz"]


def test_another_problems_file_is_refused(key, tmp_path):
    settings = {"distributions": 5, "chains": 2, "workdir": tmp_path}
    estimate(jax.random.clone(key), **settings)
    for change in ({"distributions": 6}, {"chains": 3}, {"pilots": 5}, {"leapfrogs": 3}, {"step": 0.02}, {"warmup": 3}):
        with pytest.raises(ValueError, match=r"other examples, another key or other settings.*another workdir"):
            estimate(jax.random.clone(key), **settings | change)
    with pytest.raises(ValueError, match="another key"):
        estimate(jax.random.key(9), **settings)
    with pytest.raises(ValueError, match="other examples"):
        ais.ais_log_likelihood(
            SMALL.log_likelihood, SMALL.x.astype(np.float32) + 1, jax.random.clone(key), latents=2, **settings
        )
    with pytest.raises(ValueError, match="another decoder"):
        ais.ais_log_likelihood(
            lambda z, x: SMALL.log_likelihood(z, x) * 1.001, SMALL.x.astype(np.float32), jax.random.clone(key),
            latents=2, **settings,
        )  # fmt: skip
    (tmp_path / "ais.npz").write_bytes(b"PK torn")
    with pytest.raises(ValueError, match=r"cannot be read.*remove it"):
        estimate(key, **settings)


def test_bdmc_keeps_both_runs_and_replays_the_steps(key, tmp_path, monkeypatch):
    settings = {"latents": 2, "n": 3, "distributions": 30, "chains": 2, "block": 8, "progress": False}

    def run(**more):
        return ais.bdmc(SMALL.log_likelihood, SMALL.simulate, jax.random.clone(key), **settings | more)

    whole = run(block=1000)
    advance, blocks = ais._advance, []

    def counted(*args, **kwargs):
        blocks.append(args[6:8])
        if len(blocks) == 7:
            raise Killed
        return advance(*args, **kwargs)

    monkeypatch.setattr(ais, "_advance", counted)
    with pytest.raises(Killed):
        run(workdir=tmp_path)
    for _ in range(2):
        again = run(workdir=tmp_path)
        np.testing.assert_array_equal(again.lower, whole.lower)
        np.testing.assert_array_equal(again.upper, whole.upper)
    spans = [(0, 8), (8, 16), (16, 24), (24, 29)]
    assert blocks == [*spans, *spans[:2], spans[2], *spans[2:]]  # the seventh was cut off
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lower.npz", "upper.npz"]
    with np.load(tmp_path / "lower.npz") as lower, np.load(tmp_path / "upper.npz") as upper:
        assert lower["steps"].shape == (30, 3) and (np.diff(lower["steps"], axis=0) != 0).any()
        np.testing.assert_array_equal(lower["steps"], upper["steps"])


def test_the_reverse_chains_follow_the_forward_steps_from_the_last_one_on(key, monkeypatch):
    """What each transition is given: temperatures and steps of the one run are those of the other, backwards."""
    moves = []

    def transition(evaluate, chains, beta, step, key, *, leapfrogs):
        jax.debug.callback(lambda *given: moves.append(tuple(map(float, given))), beta, *step[0], ordered=True)
        return hmc_transition(evaluate, chains, beta, step, key, leapfrogs=leapfrogs)

    hmc_transition = ais.hmc.transition
    monkeypatch.setattr(ais.hmc, "transition", transition)
    own = Linear(6, 2, 0.3, B=3)  # a new function, so that it is compiled with what was put in
    ais.bdmc(own.log_likelihood, own.simulate, key, latents=2, n=3, distributions=9, warmup=0, chains=2, progress=False)
    jax.effects_barrier()
    assert len(moves) == 16 and len(set(moves)) == 8
    assert moves[8:] == moves[:8][::-1]
    np.testing.assert_allclose([move[0] for move in moves[:8]], ais.schedule(9)[1:], rtol=1e-6)


def test_progress_is_on_stderr_unless_refused(key, capsys, monkeypatch):
    monkeypatch.setattr(logs, "PATIENCE", -1.0)
    estimate(jax.random.clone(key), distributions=30, block=10)
    assert not capsys.readouterr().err
    estimate(key, distributions=30, block=10, progress=True)
    err = capsys.readouterr().err
    assert err.startswith("ais, blocks of 10 distributions  step 1/3") and "step 3/3" in err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"distributions": 1}, "distributions is 1: give a whole number of at least 2"),
        ({"chains": 0}, "chains is 0"),
        ({"pilots": 0}, "pilots is 0"),
        ({"leapfrogs": 0}, "leapfrogs is 0"),
        ({"latents": 0}, "latents is 0"),
        ({"block": 0}, "block is 0"),
        ({"rows": 1.5}, "rows is 1.5"),
        ({"warmup": -1}, "warmup is -1"),
        ({"step": 0.0}, "step is 0.0: give a length between 0.0001 and 0.5"),
        ({"step": float("nan")}, "step is nan"),
        ({"x": np.zeros((3, 6), np.uint8)}, "x has dtype uint8"),
        ({"x": np.full((3, 6), np.nan)}, "x has NaN"),
        ({"x": np.zeros((0, 6))}, "x has 0 examples"),
        ({"key": np.zeros(2, np.uint32)}, "typed key"),
        ({"log_likelihood": lambda z, x: z}, r"returns shape \(3, 2\)"),
        ({"log_likelihood": lambda z, x: z[:, 0] * np.nan}, "NaN or infinite at a starting point"),
        ({"log_likelihood": lambda z, x: z[:, 0] - np.inf}, "NaN or infinite at a starting point"),
    ],
)
def test_bad_input_is_refused(changes, sentence, key):
    good = {"log_likelihood": SMALL.log_likelihood, "x": SMALL.x, "key": key, "latents": 2, "distributions": 3}
    with pytest.raises(ValueError, match=sentence):
        ais.ais_log_likelihood(**good | changes)


def test_a_simulator_of_another_width_is_refused(key):
    with pytest.raises(ValueError, match=r"simulate returns shape \(6, 4\): \[4, ...\] is expected"):
        ais.bdmc_gap(SMALL.log_likelihood, lambda key, z: SMALL.simulate(key, z).T, key, latents=2, n=4)
    for changes, said in (({"n": 0}, "n is 0"), ({"reverse_chains": 0}, "reverse_chains is 0")):
        with pytest.raises(ValueError, match=said):
            ais.bdmc_gap(
                SMALL.log_likelihood, SMALL.simulate, jax.random.clone(key), **{"latents": 2, "n": 4} | changes
            )
