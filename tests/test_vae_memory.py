"""Many samples of z in bounded memory: blocks change nothing but the draws, and the compiled program's size stays."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import nets, vae

IWAE = dataclasses.replace(vae.vectors(6), bound="iwae", latents=3)
X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def temporaries(lowered):
    """Bytes of working memory in the compiled program."""
    return lowered.compile().memory_analysis().temp_size_in_bytes


def in_blocks_of(rows, monkeypatch, function, *arguments):
    """function(*arguments), compiled anew for blocks of so many rows: jax.jit would not see that ROWS has changed."""
    monkeypatch.setattr(vae, "ROWS", rows)
    return jax.jit(lambda *traced: function(arguments[0], *traced))(*arguments[1:])


@pytest.mark.optimised
@pytest.mark.parametrize("bound", ["iwae", "elbo"])
def test_training_with_twenty_times_the_samples_takes_no_more_memory(bound):
    def step(samples):
        config = vae.Config(bound=bound, samples=samples, batch_size=20)
        state = jax.eval_shape(lambda k: vae.init(config, k, (28, 28, 1)), jax.random.key(0))
        batch = {"x": jax.ShapeDtypeStruct((20, 28, 28, 1), jnp.uint8)}
        return temporaries(vae.train_step.lower(config, state, batch, jax.random.key(1)))

    few, many = step(vae.ROWS // 20), step(20 * vae.ROWS // 20)  # one block of draws, and twenty
    weights = 20 * vae.ROWS * 4  # bytes of one array of log-weights, all that has to grow
    assert many < few + 12 * weights, f"{few / 2**20:.0f} MiB with one block, {many / 2**20:.0f} with twenty"


@pytest.mark.optimised
def test_evaluation_with_5000_samples_takes_no_more_memory_than_with_50():
    config = vae.Config()
    state = jax.eval_shape(lambda k: vae.init(config, k, (28, 28, 1)), jax.random.key(0))
    x = jax.ShapeDtypeStruct((100, 28, 28, 1), jnp.float32)
    few, many = (temporaries(vae.log_weights.lower(config, state, x, jax.random.key(1), k)) for k in (50, 5000))
    assert many < 1.5 * few + 20 * 100 * 5000 * 4


def test_blocks_are_the_same_estimate_of_the_same_bound_and_gradient(monkeypatch):
    """With a z that is all but certain, noise does not matter: blocks and one pass must agree to rounding."""
    config = dataclasses.replace(IWAE, samples=12)
    state = vae.init(config, jax.random.key(0), (6,))
    head = state.model.params["encoder"]["output"]
    head["bias"] = head["bias"].at[3:].set(-60.0)  # log-variances
    head["kernel"] = head["kernel"].at[:, 3:].set(0.0)

    def step(rows):
        return in_blocks_of(rows, monkeypatch, vae.train_step.__wrapped__, config, state, {"x": X}, jax.random.key(1))

    (one, whole), (blocks, parts) = step(5000), step(20 * 5)  # 3 blocks of 4
    for name in ("iwae", "log_likelihood", "gradient_norm"):
        np.testing.assert_allclose(whole[name], parts[name], rtol=2e-4)
    chex.assert_trees_all_close(one.model.params["decoder"], blocks.model.params["decoder"], atol=3e-5)


def test_every_draw_in_every_block_is_another_one(monkeypatch):
    config = dataclasses.replace(IWAE, samples=11)
    state = vae.init(config, jax.random.key(0), (6,))
    sampled = functools.partial(vae.log_weights.__wrapped__, samples=11)
    # Blocks of 4, 4 and 3 (the fourth of the last is cut off).
    weights = in_blocks_of(20 * 4, monkeypatch, sampled, config, state, jnp.asarray(X), jax.random.key(1))
    assert weights.shape == (20, 11)
    assert len(np.unique(np.asarray(weights))) == weights.size


def test_statistics_of_blocks_are_averaged(monkeypatch):
    """Batch normalisation in the decoder: each block's own statistics, and the mean of these over the blocks."""
    config = dataclasses.replace(
        IWAE, decoder=nets.MLPDecoder(hidden=(16,), activation=jax.nn.relu, norm="batch"), samples=8
    )
    state = vae.init(config, jax.random.key(0), (6,))

    step = vae.train_step.__wrapped__
    new, _ = in_blocks_of(20 * 2, monkeypatch, step, config, state, {"x": X}, jax.random.key(1))
    binarize_key, noise_key = jax.random.split(jax.random.key(1))
    x = vae.targets(config, X, binarize_key)
    terms = jax.jit(lambda key: vae._terms(config, state.model.variables(), x, key=key, samples=2, train=True))
    each = [terms(key)[1]["decoder"] for key in jax.random.split(noise_key, 4)]
    found = new.model.batch_stats["decoder"]
    chex.assert_trees_all_close(found, jax.tree.map(lambda *v: jnp.stack(v).mean(axis=0), *each), atol=1e-6)
    last = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, each[-1])
    assert min(jax.tree.leaves(last)) > 1e-4
