"""Schedules by epochs: every algorithm says how many updates of each player make a pass through the data."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from vaegan_jax import classifier, gan, gmmn, hierarchical, mcem, nets, state, vae, vaegan, wake_sleep, wgan

D, B, BATCHES = 3, 4, 10
VECTORS = {"vae": vae, "wake_sleep": wake_sleep, "gan": gan, "gmmn": gmmn, "vaegan": vaegan}


def told(monkeypatch, module, config, shape=(D,), batch_shape=(B, D)):
    """updates_per_epoch of each call of state.update in one step."""
    found, update = [], state.update

    def spy(*args, updates_per_epoch=None, **kwargs):
        found.append(updates_per_epoch)
        return update(*args, **kwargs)

    monkeypatch.setattr(state, "update", spy)
    labels = {"label": jnp.zeros(batch_shape[: -len(shape)], jnp.int32)}
    batch = {"x": jnp.zeros(batch_shape), **(labels if module in (mcem, classifier) else {})}

    def step(init_key, key):
        return module.train_step.__wrapped__(config, module.init(config, init_key, shape), batch, key)

    jax.eval_shape(step, *jax.random.split(jax.random.key(0)))
    return found


def sized(config, **more):
    return dataclasses.replace(config, batch_size=B, dataset_size=BATCHES * B, **more)


@pytest.mark.parametrize("name", VECTORS)
def test_a_batch_an_update(name, monkeypatch):
    module = VECTORS[name]
    found = told(monkeypatch, module, sized(module.vectors(D)))
    assert found and set(found) == {BATCHES}


def test_other_shapes_of_a_step(monkeypatch):
    one = hierarchical.Config(latents=(2,), encoders=(nets.MLPEncoder((4,)),), priors=(), decoder=nets.MLPDecoder((4,)))
    assert set(told(monkeypatch, hierarchical, sized(one))) == {BATCHES}
    image = {"shape": (8, 8, 1), "batch_shape": (B, 8, 8, 1)}
    small = sized(classifier.Config(net=classifier.ConvClassifier(channels=())))
    assert set(told(monkeypatch, classifier, small, **image)) == {BATCHES}


def test_several_updates_of_a_batch_and_several_batches_of_an_update(monkeypatch):
    assert set(told(monkeypatch, mcem, sized(mcem.vectors(D), updates=5))) == {5 * BATCHES}
    critic, *_, generator = told(monkeypatch, wgan, sized(wgan.vectors(D), n_critic=5), batch_shape=(5, B, D))
    assert (critic, generator) == (BATCHES, BATCHES // 5)
