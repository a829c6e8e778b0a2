"""Importance-weighted bounds against closed forms, their blocks; the ELBO's terms; active units; what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from tests.metrics.linear_gaussian import Linear
from vaegan_jax import logs, losses, vae
from vaegan_jax.metrics import likelihood

MODEL = Linear(8, 3, 0.3, B=6, orthogonal=True)
X = MODEL.x.astype(np.float32)
EXACT = MODEL.exact()
MEAN = MODEL.mean.astype(np.float32)
LOG_VAR = np.tile(np.log(np.diag(MODEL.covariance)).astype(np.float32), (6, 1))
WIDE = LOG_VAR + 1.0


def importance(key, mean=MEAN, log_var=LOG_VAR, **settings):
    return likelihood.importance_log_likelihood(MODEL.log_likelihood, X, mean, log_var, key, **settings)


@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_every_weight_is_p_of_x(key, samples):
    np.testing.assert_allclose(importance(key, samples=samples), EXACT, atol=2e-4)


def test_a_poor_proposal_gives_a_bound_that_rises_to_log_p(key):
    bounds = [
        np.mean([importance(jax.random.fold_in(key, 10 * k + i), MEAN + 0.3, WIDE, samples=k) for i in range(8)])
        for k in (1, 10, 2000)
    ]
    assert bounds[0] < bounds[1] - 0.1 < bounds[2] - 0.2
    assert bounds[2] == pytest.approx(EXACT.mean(), abs=0.02)


def test_the_block_changes_nothing(key):
    """Blocks of 1, 4, 7, 23 and all draws an example; 299 is no multiple of 4 or 7."""
    whole = importance(jax.random.clone(key), MEAN + 0.3, WIDE, samples=299, block=6 * 299)
    for block in (1, 6 * 4, 6 * 7, 6 * 23):
        found = importance(jax.random.clone(key), MEAN + 0.3, WIDE, samples=299, block=block)
        np.testing.assert_allclose(found, whole, atol=2e-5)


def test_the_draws_are_made_in_parts_that_change_nothing(key, monkeypatch, capsys):
    """To the last bit; between two of them progress is told."""

    def both():
        bound = importance(jax.random.clone(key), MEAN + 0.3, WIDE, samples=299, block=6 * 7)  # 43 blocks
        terms = likelihood.elbo_terms(
            MODEL.log_likelihood, X, MEAN, WIDE, jax.random.clone(key), samples=299, block=6 * 7
        )
        return np.stack([bound, terms["log_likelihood"]])

    whole = both()
    for parts in (1, 4, 1000):
        monkeypatch.setattr(likelihood, "PARTS", parts)
        np.testing.assert_array_equal(both(), whole)
    assert not capsys.readouterr().err
    monkeypatch.setattr(logs, "PATIENCE", -1.0)
    monkeypatch.setattr(likelihood, "PARTS", 4)
    both()
    err = capsys.readouterr().err
    assert "importance weights, parts of the draws  step 1/4" in err and "ELBO, parts of the draws  step 1/4" in err


def test_a_proposal_that_misses_the_posterior_is_still_finite(key):
    """Weights of exp(-1e4): the largest is taken out before the exponential."""
    found = importance(key, MEAN + 40.0, LOG_VAR, samples=50)
    assert np.isfinite(found).all() and (found < EXACT - 1000).all()


@pytest.mark.parametrize(
    ("how", "programs"), [("positional", 2), ("keywords", 2), ("unhashable", 3), ("Partial", 2), ("closure", 3)]
)
def test_one_program_serves_every_state_of_a_model(key, how, programs):
    """log p(x | z) = scale * shift for all z: each call answers with its own arrays, and what is no array is fixed."""

    def log_p(scale, arrays, z, x, power=1):
        return jnp.sum(jnp.asarray(scale)) * arrays["shift"] ** power + 0 * (z.sum(axis=1) + x.sum(axis=1))

    def made(scale, shift):
        arrays = {"shift": jnp.float32(shift)}
        return {
            "positional": lambda: functools.partial(log_p, scale, arrays),
            "keywords": lambda: functools.partial(log_p, scale, arrays, power=1),
            "unhashable": lambda: functools.partial(log_p, [scale], arrays),
            "Partial": lambda: jax.tree_util.Partial(log_p, scale, arrays),
            "closure": lambda: lambda z, x: log_p(scale, arrays, z, x),
        }[how]()

    x, mean = jnp.zeros((2, 3)), jnp.zeros((2, 1))
    before = likelihood._add_values._cache_size()
    for scale, shift in ((2, 3.0), (2, 5.0), (7, 5.0)):
        terms = likelihood.elbo_terms(made(scale, shift), x, mean, mean, jax.random.clone(key))
        np.testing.assert_allclose(terms["log_likelihood"], scale * shift, rtol=1e-6)
    assert likelihood._add_values._cache_size() - before == programs


def test_any_weights(key):
    """Against the same draws, one by one: draw i is made with fold_in(key, i)."""

    def log_weight(key, x):
        return 500 * jax.random.normal(key, x.shape[:1]) + 1e3 * x[:, 0]

    found = likelihood.bound_from_weights(log_weight, X, jax.random.clone(key), samples=11, block=6 * 4)
    weights = [log_weight(jax.random.fold_in(key, i), X) for i in range(11)]
    np.testing.assert_allclose(found, logsumexp(np.float64(weights), axis=0) - np.log(11), rtol=1e-5)


def test_two_stochastic_layers(key):
    """v ~ N(0, 1), u ~ N(v, 1), x ~ N(u, 1), with q(u | x) and q(v | u) exact: one weight is p(x) = N(x; 0, 3)."""

    def log_weight(key, x):
        u_key, v_key = jax.random.split(key)
        log, x = jax.scipy.stats.norm.logpdf, x[:, 0]
        q = {"u": (2 * x / 3, (2 / 3) ** 0.5)}
        u = q["u"][0] + q["u"][1] * jax.random.normal(u_key, x.shape)
        v = u / 2 + 0.5**0.5 * jax.random.normal(v_key, x.shape)
        return log(v) + log(u, v) + log(x, u) - log(u, *q["u"]) - log(v, u / 2, 0.5**0.5)

    x = np.linspace(-3, 3, 5, dtype=np.float32)[:, None]
    found = likelihood.bound_from_weights(log_weight, x, key, samples=3)
    np.testing.assert_allclose(found, stats.norm(0, 3**0.5).logpdf(x[:, 0]), atol=1e-5)


def test_likelihoods_of_zero(key):
    """Half of the draws have weight 0, or all have: log(1/2) more or less, and -infinity; not NaN."""

    def log_weight(key, x):
        index = jax.random.key_data(key)[..., 1] % 2
        return jnp.where(x[:, 0] > 0, jnp.where(index == 0, -jnp.inf, 3.0), -jnp.inf)

    x = np.array([[1.0], [-1.0]], np.float32)
    for block in (2, 4000):
        found = likelihood.bound_from_weights(log_weight, x, jax.random.clone(key), samples=2000, block=block)
        assert found[0] == pytest.approx(3 - np.log(2), abs=0.1) and found[1] == -np.inf


def test_a_vae(key):
    """The estimate is that of vae.log_weights, from other draws; images keep their shape."""
    config = vae.Config(latents=2, encoder=vae.aevb(vae.nets.MLPEncoder, 8), decoder=vae.aevb(vae.nets.MLPDecoder, 8))
    init_key, first, second = jax.random.split(key, 3)
    state = vae.init(config, init_key, (3, 3, 1))
    x = (np.random.default_rng(0).uniform(size=(4, 3, 3, 1)) > 0.5).astype(np.float32)
    density = functools.partial(vae.log_likelihood, config, state)
    found = likelihood.importance_log_likelihood(density, x, *vae.encode(config, state, x), first, samples=3000)
    expected = losses.iwae_bound(vae.log_weights(config, state, x, second, 3000))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_function_is_compiled_once(key):
    traces = []

    def log_likelihood(z, x):
        traces.append(z.shape)
        return MODEL.log_likelihood(z, x)

    for seed, samples in enumerate((100, 200, 300)):
        likelihood.importance_log_likelihood(
            log_likelihood, X, MEAN, LOG_VAR, jax.random.fold_in(key, seed), samples=samples, block=60
        )
        if not seed:
            first = len(traces)
    assert len(traces) <= first + 2  # the check of its result's shape may look at it again


def test_the_elbos_terms(key):
    """Closed forms at q = N(mean, v I): E_q log p(x | z) = log N(x; W mean + b) - v |W|^2 / (2 variance)."""
    v = 0.2
    log_var = np.full_like(MEAN, np.log(v))
    found = likelihood.elbo_terms(MODEL.log_likelihood, X, MEAN, log_var, jax.random.clone(key), samples=20_000)
    at_mean = np.asarray(MODEL.log_likelihood(jnp.asarray(MEAN), jnp.asarray(X)))
    expected = at_mean - v * (MODEL.W**2).sum() / (2 * MODEL.variance)
    np.testing.assert_allclose(found["log_likelihood"], expected, atol=0.15)
    kl = 0.5 * (v + MEAN**2 - 1 - np.log(v)).sum(axis=1)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(found["elbo"], found["log_likelihood"] - found["kl"], rtol=1e-6)
    blocks = [
        likelihood.elbo_terms(MODEL.log_likelihood, X, MEAN, log_var, jax.random.clone(key), samples=50, block=b)
        for b in (6, 42, 300)
    ]
    for other in blocks[1:]:
        np.testing.assert_allclose(other["elbo"], blocks[0]["elbo"], rtol=1e-5)


def test_the_elbo_is_log_p_at_the_posterior(key):
    """Its gap is KL(q || p(z | x)): 0 at the posterior, 1/2 K (e - 2) at variances e times as large."""
    values = [
        likelihood.elbo_terms(MODEL.log_likelihood, X, MEAN, log_var, k, samples=20_000)["elbo"]
        for log_var, k in zip((LOG_VAR, WIDE), jax.random.split(key), strict=True)
    ]
    np.testing.assert_allclose(values[0], EXACT, atol=0.06)
    np.testing.assert_allclose(EXACT - values[1], 1.5 * (np.e - 2), atol=0.12)


def test_active_units():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(5000, 4)) * np.sqrt([0.02, 0.012, 0.008, 0.0]) + 3
    assert likelihood.active_units(mean) == 2
    assert likelihood.active_units(mean, threshold=0.001) == 3
    assert likelihood.active_units(jnp.asarray(mean), 0.015) == 1
    for bad, sentence in (
        (mean[0], "mean has shape \\(4,\\)"),
        (mean[:1], "1 examples: 2 or more"),
        (mean.astype(int), "dtype int64"),
        (np.where(mean > 3, np.nan, mean), "NaN"),
    ):
        with pytest.raises(ValueError, match=sentence):
            likelihood.active_units(bad)
    with pytest.raises(ValueError, match="threshold is -1"):
        likelihood.active_units(mean, -1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": (X * 255).astype(np.uint8)}, r"x has dtype uint8.*x / 255"),
        ({"x": np.where(X > 0, np.nan, X)}, "x has NaN"),
        ({"x": X[:0]}, "x has 0 examples"),
        ({"mean": MEAN[:, :2]}, r"log_var has shape \(6, 3\): give mean and log_var of one shape \[6, K\]"),
        ({"mean": MEAN[:5], "log_var": LOG_VAR[:5]}, r"mean has shape \(5, 3\)"),
        ({"mean": MEAN[:, 0], "log_var": LOG_VAR[:, 0]}, r"mean has shape \(6,\)"),
        ({"mean": np.full_like(MEAN, np.inf)}, "mean has NaN or infinite"),
        ({"log_var": np.full_like(MEAN, np.nan)}, "log_var has NaN or infinite"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2.5}, "samples is 2.5"),
        ({"samples": True}, "samples is True"),
        ({"block": 0}, "block is 0"),
        ({"key": np.zeros(2, np.uint32)}, r"jax.random.key\(seed\)"),
        ({"key": None}, r"jax.random.key\(seed\)"),
        ({"log_likelihood": lambda z, x: -((x[:, :3] - z) ** 2)}, r"returns shape \(6, 3\): \[6\] is expected"),
        ({"log_likelihood": lambda z, x: jnp.log(z.sum(axis=1) - 1e3)}, "NaN or \\+infinity for 6 of 6 examples"),
        ({"log_likelihood": lambda z, x: jnp.full(6, jnp.inf)}, "NaN or \\+infinity for 6 of 6 examples"),
    ],
)
def test_bad_input_is_refused(changes, sentence, key):
    good = {"log_likelihood": MODEL.log_likelihood, "x": X, "mean": MEAN, "log_var": LOG_VAR, "key": key, "samples": 3}
    given = good | changes
    with pytest.raises(ValueError, match=sentence):
        likelihood.importance_log_likelihood(**given)
    given["key"] = jax.random.clone(key) if given["key"] is key else given["key"]
    with pytest.raises(ValueError, match=sentence):
        likelihood.elbo_terms(**given)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": X.astype(int)}, "x has dtype"),
        ({"samples": 0}, "samples is 0"),
        ({"block": 0}, "block is 0"),
        ({"key": jnp.zeros(2, jnp.uint32)}, "typed key"),
        ({"log_weight": lambda key, x: x}, r"log_weight returns shape \(6, 8\)"),
        ({"log_weight": lambda key, x: x[:, 0] * jnp.nan}, "log_weight gave NaN"),
    ],
)
def test_bad_weights_are_refused(changes, sentence, key):
    good = {"log_weight": lambda key, x: x[:, 0], "x": X, "key": key, "samples": 3}
    with pytest.raises(ValueError, match=sentence):
        likelihood.bound_from_weights(**good | changes)
