"""Many samples of z in bounded memory: blocks change nothing but the draws, and the compiled program's size stays."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaegan_jax import nets, vae

pytestmark = pytest.mark.optimised

IWAE = dataclasses.replace(vae.vectors(6), bound="iwae", latents=3)
X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def temporaries(lowered):
    """Bytes of working memory in the compiled program."""
    return lowered.compile().memory_analysis().temp_size_in_bytes


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
        monkeypatch.setattr(vae, "ROWS", rows)
        return vae.train_step.__wrapped__(config, state, {"x": X}, jax.random.key(1))

    (one, whole), (blocks, parts) = step(5000), step(20 * 5)  # 3 blocks of 4
    for name in ("iwae", "log_likelihood", "gradient_norm"):
        np.testing.assert_allclose(whole[name], parts[name], rtol=2e-4)
    chex.assert_trees_all_close(one.model.params["decoder"], blocks.model.params["decoder"], atol=3e-5)


def test_every_draw_in_every_block_is_another_one(monkeypatch):
    config = dataclasses.replace(IWAE, samples=11)
    state = vae.init(config, jax.random.key(0), (6,))
    monkeypatch.setattr(vae, "ROWS", 20 * 4)  # blocks of 4, 4 and 3 (the fourth of the last is cut off)
    weights = vae.log_weights.__wrapped__(config, state, jnp.asarray(X), jax.random.key(1), 11)
    assert weights.shape == (20, 11)
    assert len(np.unique(np.asarray(weights))) == weights.size


def test_statistics_of_blocks_are_averaged(monkeypatch):
    """Batch normalisation in the decoder: the running mean moves towards the mean over all draws."""
    config = dataclasses.replace(
        IWAE, decoder=nets.MLPDecoder(hidden=(16,), activation=jax.nn.relu, norm="batch"), samples=8
    )
    state = vae.init(config, jax.random.key(0), (6,))

    def stats(rows):
        monkeypatch.setattr(vae, "ROWS", rows)
        new, _ = vae.train_step.__wrapped__(config, state, {"x": X}, jax.random.key(1))
        return new.model.batch_stats["decoder"]["norm0"]["batch"]["mean"]

    one, four = stats(5000), stats(20 * 2)
    assert one.shape == four.shape == (16,)
    np.testing.assert_allclose(one, four, atol=0.05)
    assert not np.allclose(four, 0, atol=1e-4)
