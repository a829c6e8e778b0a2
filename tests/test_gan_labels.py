"""GAN told its labels: whose kernel's row a label adds, what is drawn where none are given, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.test_gan import CONFIG, LINEAR, B, D, K, sigmoid, vectors
from vaegan_jax import adversarial, gan, nets

CONDITIONAL = gan.Config(
    latents=K,
    generator=LINEAR,
    discriminator=nets.MLPDiscriminator(hidden=(5,)),
    output="linear",
    num_classes=4,
    batch_size=B,
)


@pytest.fixture(scope="module")
def conditional_state():
    return gan.init(CONDITIONAL, jax.random.key(1), (D,))


def test_a_label_moves_its_own_sample_by_its_row_of_the_kernel(conditional_state):
    label = jnp.array([0, 3, 1, 1, 2, 0, 3, 2], jnp.int32)  # two blocks
    kernel = conditional_state.generator.params["output"]["kernel"]
    chex.assert_shape(kernel, (K + 4, D))
    found, zero = (
        gan.sample(CONDITIONAL, conditional_state, jax.random.key(2), 8, y) for y in (label, jnp.zeros(8, jnp.int32))
    )
    np.testing.assert_allclose(found - zero, kernel[K:][label] - kernel[K : K + 1], atol=1e-5)
    u = jnp.zeros((3, K))
    decoded = gan.decode_standard(CONDITIONAL, conditional_state, u, label[:3])
    np.testing.assert_allclose(decoded, kernel[K:][label[:3]], atol=1e-6)


def test_labels_left_out_are_drawn_uniformly(conditional_state):
    kernel = jnp.zeros((K + 4, D)).at[K:, 0].set(jnp.arange(4.0))  # G shows the label alone
    params = {"output": {"kernel": kernel, "bias": jnp.zeros(D)}}
    state = conditional_state.replace(generator=conditional_state.generator.replace(params=params))
    drawn = np.asarray(gan.sample(CONDITIONAL, state, jax.random.key(5), 600))[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 3])
    assert stats.chisquare(counts).pvalue > 1e-3


def test_training_gives_the_batchs_labels_to_both_nets(conditional_state):
    """The gradient of a label's weights is 0 where the batch lacks that label, in both nets."""
    batch = vectors() | {"label": jnp.array([0, 2, 2, 0, 2, 0], jnp.int32)}
    step = jax.jit(adversarial.gradients, static_argnums=0)
    (g, _), (d, _), _ = step(CONDITIONAL, conditional_state, batch, jax.random.key(6))
    for weights in (g["output"]["kernel"][K:], d["hidden0"]["kernel"][D:], d["output"]["kernel"][5:]):
        used = abs(np.asarray(weights)).max(axis=1) > 0
        np.testing.assert_array_equal(used, [True, False, True, False])
    x = vectors()["x"]
    one, two = (gan.discriminate(CONDITIONAL, conditional_state, x, jnp.full(B, y, jnp.int32))[0] for y in (0, 1))
    assert (abs(one - two) > 1e-3).all()


def test_labels_that_do_not_fit_are_refused(conditional_state):
    state = gan.init(CONFIG, jax.random.key(1), (D,))
    label, x = jnp.zeros(5, jnp.int32), vectors()["x"][:5]
    for call in (
        lambda: gan.sample(CONFIG, state, jax.random.key(2), 5, label),
        lambda: gan.decode_standard(CONFIG, state, jnp.zeros((5, K)), label),
        lambda: gan.discriminate(CONFIG, state, x, label),
    ):
        with pytest.raises(ValueError, match="num_classes = 0: leave it out"):
            call()
    with pytest.raises(ValueError, match=r"\(5,\).*int32 \[4\]"):
        gan.sample(CONDITIONAL, conditional_state, jax.random.key(2), 4, label)
    with pytest.raises(ValueError, match=r"int32 \(4,\).*\[B\]"):
        gan.discriminate(CONDITIONAL, conditional_state, x, label[:4])
    for call in (
        lambda: gan.train_step(CONDITIONAL, conditional_state, {"x": x}, jax.random.key(2)),
        lambda: gan.discriminate(CONDITIONAL, conditional_state, x),
        lambda: gan.validate(CONDITIONAL, conditional_state, {"x": x}, jax.random.key(2)),
    ):
        with pytest.raises(ValueError, match=r'4 classes.*no "label".*int32 \[B\]'):
            call()


def test_labels_may_be_a_list_and_must_lie_within_the_classes(conditional_state):
    key, x = jax.random.key(2), vectors()["x"][:3]
    found = gan.sample(CONDITIONAL, conditional_state, key, 3, [0, 3, 1])
    np.testing.assert_array_equal(found, gan.sample(CONDITIONAL, conditional_state, key, 3, np.array([0, 3, 1])))
    for bad in ([0, 4, 1], [-1, 0, 0]):
        for call in (
            lambda bad=bad: gan.sample(CONDITIONAL, conditional_state, key, 3, bad),
            lambda bad=bad: gan.decode_standard(CONDITIONAL, conditional_state, jnp.zeros((3, K)), bad),
            lambda bad=bad: gan.discriminate(CONDITIONAL, conditional_state, x, bad),
        ):
            with pytest.raises(ValueError, match="with num_classes 4 it must lie between 0 and 3"):
                call()


@pytest.mark.parametrize("given", [4, 1, None])
def test_decode_standard_refuses_labels_that_do_not_fit(conditional_state, given):
    """One label would be everybody's, by broadcasting."""
    label = None if given is None else jnp.zeros(given, jnp.int32)
    with pytest.raises(ValueError, match="label" if given is None else rf"label.*\({given},\)"):
        gan.decode_standard(CONDITIONAL, conditional_state, jnp.zeros((5, K)), label)


def test_validate_gives_data_and_samples_the_same_labels(conditional_state):
    batch, key = vectors() | {"label": jnp.array([0, 3, 1, 2, 2, 0], jnp.int32)}, jax.random.key(3)
    values = gan.validate(CONDITIONAL, conditional_state, batch, key)
    label = batch["label"]
    fake = gan.sample(CONDITIONAL, conditional_state, key, 6, label)
    expected = [gan.discriminate(CONDITIONAL, conditional_state, x, label)[0] for x in (batch["x"], fake)]
    np.testing.assert_allclose(values["d_real"], sigmoid(expected[0]), rtol=1e-5)
    np.testing.assert_allclose(values["d_fake"], sigmoid(expected[1]), rtol=1e-5)
    others = gan.discriminate(CONDITIONAL, conditional_state, batch["x"], (label + 1) % 4)[0]
    assert (abs(others - expected[0]) > 1e-3).all()
