"""Attributes, float [B, A], where classes may stand: all three nets of VAE/GAN are told them, a GAN's two are too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaegan_jax
from vaegan_jax import classifier, data, fit, gan, nets, state, vaegan, wgan
from vaegan_jax.optimizer import Optimizer

D, B, K, A = 5, 6, 2, 3
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(B, D)).astype(np.float32)
Y = RNG.normal(size=(B, A)).astype(np.float32)
ADAM = Optimizer(rule="adam", learning_rate=3e-3, momentum=0.5)
CONFIG = vaegan.Config(
    latents=K, batch_size=B, gamma=0.1, encoder=nets.MLPEncoder(hidden=(4,)), decoder=nets.MLPDecoder(hidden=(4,)),
    discriminator=nets.MLPDiscriminator(hidden=(4,)), num_classes=A, labels="attributes",
)  # fmt: skip
SIZES = {"encoder": D, "decoder": K, "discriminator": D}  # of what the first layer of each is shown


@pytest.fixture(scope="module")
def trained():
    return vaegan.init(CONFIG, jax.random.key(1), (D,))


def test_all_three_nets_are_told_the_attributes(trained):
    """Gradients of the attributes' weights: 0 for an attribute that is 0 in the batch, and not for the others."""
    y = Y * [1, 0, 1]
    grads, *_ = jax.jit(vaegan.gradients, static_argnums=0)(CONFIG, trained, {"x": X, "label": y}, jax.random.key(2))
    for name, size in SIZES.items():
        for layer, shown in (("hidden0", size), ("output", 4)):
            weights = np.abs(grads[name][layer]["kernel"][shown:]).max(axis=1)
            np.testing.assert_array_equal(weights > 0, [True, False, True], err_msg=f"{name} {layer}")


def test_one_hot_attributes_are_classes(trained):
    classes = dataclasses.replace(CONFIG, labels="classes")
    label = np.array([0, 2, 1, 1, 0, 2], np.int32)
    hot = np.eye(A, dtype=np.float32)[label]

    def key():
        return jax.random.key(3)

    both = ((classes, label), (CONFIG, hot))
    one, two = (vaegan.train_step(c, trained, {"x": X, "label": y}, key())[0] for c, y in both)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    z = jax.random.normal(jax.random.key(4), (B, K))
    for call in (
        lambda c, y: vaegan.encode(c, trained, X, y)[0],
        lambda c, y: vaegan.decode(c, trained, z, y),
        lambda c, y: vaegan.reconstruct(c, trained, X, key(), y),
        lambda c, y: vaegan.discriminate(c, trained, X, y)[0],
        lambda c, y: vaegan.sample(c, trained, key(), B, y),
        lambda c, y: vaegan.validate(c, trained, {"x": X, "label": y}, key())["llike"],
    ):
        told, other = call(classes, label), call(CONFIG, 2 * hot)
        np.testing.assert_array_equal(told, call(CONFIG, hot))
        assert np.abs(told - other).max() > 1e-4  # and what they are told matters


def test_the_input_as_dis_l_is_a_vae_of_unit_variance(trained):
    """L_llike is -log N(x; Dec(z), I), and without L_GAN no gradient of Dec comes from Dis."""
    one = dataclasses.replace(
        CONFIG, gan_weight=0.0, gamma=1.0, discriminator=nets.MLPDiscriminator(hidden=(4,), feature_layer="input")
    )
    batch, key = {"x": X, "label": Y}, jax.random.key(7)
    grads, _, metrics = jax.jit(vaegan.gradients, static_argnums=0)(one, trained, batch, key)

    def negative_bound(params):
        mean, log_var = one.encoder.apply({"params": params["encoder"]}, X, K, Y)
        noise = jax.random.normal(jax.random.split(jax.random.key(7), 5)[0], (B, K))
        rebuilt = jax.nn.sigmoid(
            one.decoder.apply({"params": params["decoder"]}, mean + jnp.exp(log_var / 2) * noise, (D,), Y)
        )
        log_p = -0.5 * ((rebuilt - X) ** 2 + jnp.log(2 * jnp.pi)).sum(axis=1)
        kl = 0.5 * (jnp.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1)
        return (kl - log_p).mean(), -log_p.mean()

    params = {name: getattr(trained, name).params for name in ("encoder", "decoder")}
    (_, llike), wanted = jax.value_and_grad(negative_bound, has_aux=True)(params)
    assert float(metrics["llike"]) == pytest.approx(float(llike), rel=1e-5)
    for name in params:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), grads[name], wanted[name])


def test_a_gan_learns_what_an_attribute_says_and_a_run_is_read_back(tmp_path):
    """x is its attribute and noise: so is what G makes of attributes that it is given."""
    y = RNG.uniform(-1, 1, size=(1_000, 1)).astype(np.float32)
    x = (y + 0.05 * RNG.normal(size=(1_000, 2))).astype(np.float32)
    config = dataclasses.replace(
        gan.vectors(2), num_classes=1, labels="attributes",
        generator=nets.MLPGenerator(hidden=(32,), activation=jax.nn.relu),
        discriminator=nets.MLPDiscriminator(hidden=(32, 32)), generator_optimizer=ADAM, discriminator_optimizer=ADAM,
    )  # fmt: skip
    dataset = data.dataset.Dataset(x, y, "pairs")
    assert dataset.label.dtype == np.float32 and dataset.label.shape == (1_000, 1)
    fit.fit(gan, config, dataset, steps=600, workdir=tmp_path / "run", progress=False, validation=dataset)
    model = vaegan_jax.load(tmp_path / "run")
    asked = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]  # three blocks of the batch size
    made = np.asarray(model.sample(jax.random.key(1), 200, asked))
    assert np.corrcoef(made[:, 0], asked[:, 0])[0, 1] > 0.9
    with pytest.raises(ValueError, match=r"missing: the config has attributes, give attributes float \[9, 1\]"):
        model.sample(jax.random.key(1), 9)
    with pytest.raises(ValueError, match="no encoder"):
        model.encode(x, y)


def test_a_classifier_learns_attributes_by_their_squared_error():
    x = RNG.normal(size=(2_000, 4)).astype(np.float32)
    y = (x @ np.array([[1, 0], [0, 1], [1, -1], [0, 0]])).astype(np.float32)
    config = dataclasses.replace(
        classifier.vectors(4), num_classes=2, labels="attributes", optimizer=Optimizer(learning_rate=1e-2)
    )
    run = fit.fit(classifier, config, data.dataset.Dataset(x, y), steps=300, progress=False)
    assert set(run.metrics) >= {"squared_error", "gradient_norm"} and "accuracy" not in run.metrics
    found = fit.validate(classifier, run.config, run.state(0), data.dataset.Dataset(x, y))["squared_error"]
    guess, _ = classifier.classify(run.config, run.state(0), x)
    assert found == pytest.approx(float(((np.asarray(guess) - y) ** 2).mean()), rel=1e-3)
    assert found < 0.2 * y.var()


def test_attributes_of_another_number_or_kind_get_a_sentence(trained):
    with pytest.raises(ValueError, match=r"give attributes float \[B, 3\]"):
        vaegan.train_step(CONFIG, trained, {"x": X, "label": Y[:, :2]}, jax.random.key(0))
    for bad in (Y[:, :2], Y[:, 0], np.full_like(Y, np.nan), np.zeros(B, np.int32)):
        with pytest.raises(ValueError, match=r"give finite attributes, float \[n, 3\]"):
            vaegan.encode(CONFIG, trained, X, bad)
    with pytest.raises(ValueError, match='no "label"'):
        vaegan.encode(CONFIG, trained, X)
    with pytest.raises(ValueError, match="leave it out"):
        vaegan.encode(dataclasses.replace(CONFIG, num_classes=0, labels="classes"), trained, X, Y)
    with pytest.raises(ValueError, match="labels are attributes, but num_classes is 0"):
        dataclasses.replace(CONFIG, num_classes=0)
    with pytest.raises(ValueError, match="give 'running', or use sample"):
        vaegan.decode(dataclasses.replace(CONFIG, sampling_statistics="batch"), trained, jnp.zeros((B, K)), Y)
    with pytest.raises(ValueError, match=r"label is float32 \(6, 3\): the config has attributes, give .*\[5, 3\]"):
        vaegan.sample(CONFIG, trained, jax.random.key(0), 5, Y)
    with pytest.raises(ValueError, match="has 2 attributes, but the config has num_classes 3"):
        fit.fit(vaegan, CONFIG, data.dataset.Dataset(X, Y[:, :2]), steps=1, progress=False)
    with pytest.raises(ValueError, match="are classes, but the config has labels='attributes'"):
        fit.fit(vaegan, CONFIG, data.dataset.Dataset(X, np.zeros(B, int)), steps=1, progress=False)
    for label in (Y[:3], np.full_like(Y, np.inf), np.zeros((B, 0), np.float32)):
        with pytest.raises(data.DataError, match="finite attributes for each of the 6 examples"):
            data.dataset.Dataset(X, label)
    with pytest.raises(data.DataError, match=r"give attributes \[N, A\] as floats"):
        data.dataset.Dataset(X, np.ones((B, A), int))
    state.check_batch({"x": X, "label": Y}, (D,), None, 0)  # data that have some, for a model that asks for none


def test_every_layer_of_a_convolutional_encoder_is_told_them():
    net = nets.ConvEncoder(channels=(3, 4), hidden=6, kernel=(3, 3))

    def inputs(*y):
        init = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), K, *y))
        return {name: layer["kernel"].shape[-2] for name, layer in init["params"].items() if "kernel" in layer}

    plain = inputs()
    assert len(plain) == 4
    assert inputs(jnp.zeros((2, A))) == {name: width + A for name, width in plain.items()}


def test_wgan_takes_attributes_for_each_batch_of_a_step():
    """[n_critic, B, A]: what one batch alone is told moves the critic, and the generator if it is the last."""
    config = dataclasses.replace(
        wgan.vectors(D), batch_size=B, num_classes=A, labels="attributes", n_critic=2,
        generator=nets.MLPGenerator(hidden=(4,)), discriminator=nets.MLPDiscriminator(hidden=(4,)),
    )  # fmt: skip
    start = wgan.init(config, jax.random.key(1), (D,))
    y = np.stack([Y * [1, 0, 0], Y * [0, 0, 1]]).astype(np.float32)
    after, _ = wgan.train_step(config, start, {"x": np.stack([X, X]), "label": y}, jax.random.key(2))

    def moved(player, size):
        old, new = (getattr(s, player).params["hidden0"]["kernel"][size:] for s in (start, after))
        return (np.abs(new - old).max(axis=1) > 0).tolist()

    assert moved("discriminator", D) == [True, False, True]
    assert moved("generator", config.latents) == [False, False, True]


def test_attributes_are_kept_in_files(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, label=Y)
    found = data.load(f"npz:{tmp_path / 'set.npz'}", "train[2:5]")
    np.testing.assert_array_equal(found.label, Y[2:5])
    assert found.sha256 != data.dataset.Dataset(X[2:5], Y[1:4]).sha256
