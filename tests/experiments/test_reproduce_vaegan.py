"""VAE/GAN's target: attributes, vectors and success in small, the models' configs, a smoke of its cheapest part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.reproduce import (
    __main__,
    celeba,
    draw,
    published,
    results,
    vaegan,
    vaegan_faces,
    vaegan_frozen,
    vaegan_judge,
)
from experiments.reproduce import vaegan_attributes as attributes
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job
from vaegan_jax import plots
from vaegan_jax import vaegan as algorithm
from vaegan_jax.data.dataset import DataError, Dataset


def test_every_part_fills_rows_of_the_published_ones():
    known = published.entries()["vaegan"]
    rows = [row for part in vaegan.PARTS for row in part.rows]
    assert sorted(rows) == sorted(name for name, entry in known.items() if not entry.not_run or name.startswith("lfw"))
    assert published.headline("vaegan") in rows
    for part in vaegan.PARTS:
        assert all(part.says(budget) for budget in ("smoke", "cpu", "paper"))


def test_attributes_are_logits_but_for_a_constant():
    logits = np.random.default_rng(0).normal(0, 5, (6, 10))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    found = vaegan_judge.attributes(p)
    np.testing.assert_allclose(found, logits - logits.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(vaegan_judge.cosine(found, 3 * found), 1, rtol=1e-12)
    np.testing.assert_allclose(vaegan_judge.cosine(found, -found), -1, rtol=1e-12)
    assert np.isfinite(vaegan_judge.attributes(np.eye(3))).all()
    assert vaegan_judge.cosine(np.zeros((1, 3)), np.ones((1, 3))) == [0]


def test_the_vector_of_an_attribute_leads_from_those_without_it_to_those_with_it():
    centres = np.array([[0.0, 0], [3, 0], [0, 5]])
    label = np.arange(300) % 3
    codes = centres[label]
    found = attributes.vectors(codes, label[:, None] == np.arange(3))
    np.testing.assert_allclose(found[1], centres[1] - (centres[0] + centres[2]) / 2)


def test_what_a_vector_adds_is_measured_on_images_of_other_classes():
    label = np.array([0, 1])
    plain = np.array([[0.9, 0.1], [0.2, 0.8]])
    moved = np.stack([[[0.0, 1.0], [0.7, 0.3]], [[0.6, 0.4], [1.0, 0.0]]])
    found = attributes.rises(label, plain, moved)
    assert found == pytest.approx({"before": (0.2 + 0.1) / 2, "after": (0.7 + 0.4) / 2, "taken": 0.5})


def test_a_collapsed_run_is_no_success():
    good = {"classes": 8.0, "same_class": 0.9}
    assert vaegan_judge.succeeds(good, 10) and vaegan_judge.succeeds({"classes": 10.0}, 10)
    assert not vaegan_judge.succeeds(good | {"classes": 7.0}, 10)
    assert not vaegan_judge.succeeds(good | {"same_class": 0.4}, 10)


def test_differences_are_of_seeds_that_finished_both():
    one, other = {0: {"m": 3.0}, 2: {"m": 5.0}}, {0: {"m": 1.0}, 1: {"m": 7.0}}
    assert vaegan.paired(one, other, "m") == {0: 2.0}


def test_the_models_share_nets_and_optimisers():
    base = models.small(64)
    assert dataclasses.replace(base, gan_weight=0.0) == models.config("vae_dis_l", base, (28, 28, 1))
    assert base == algorithm.Config()  # what the package calls the paper's
    one, other = (models.config(name, base, (28, 28, 1)) for name in ("vae", "gan"))
    assert (one.encoder, one.decoder, one.optimizer) == (base.encoder, base.decoder, base.decoder_optimizer)
    assert (other.generator, other.discriminator) == (base.decoder, base.discriminator)
    assert {c.batch_size for c in (base, one, other)} == {64} and {c.latents for c in (base, one, other)} == {128}
    assert not models.config(models.PRIOR_FAKES, base, (28, 28, 1)).reconstructions_as_fakes
    assert models.config(models.ONE_BATCH, base, (28, 28, 1)) == dataclasses.replace(base, one_batch=True)
    assert models.config(models.BALANCE, base, (28, 28, 1)) == dataclasses.replace(base, balance=True)
    raw = models.config(models.RAW, base, (28, 28, 1))
    assert (base.discriminator.feature_layer, raw.discriminator.feature_layer) == ("conv1_activation", "conv1")
    assert dataclasses.replace(raw, discriminator=base.discriminator) == base
    weight = models.config(models.WEIGHT, base, (28, 28, 1))
    assert (weight.gamma, weight.gan_weight) == (1e-6, 1 - 1e-6)
    assert (base.equilibrium, base.margin) == (0.68, 0.35)  # the released code's
    assert models.variance((64, 64, 3)) == 0.25
    assert models.variance((28, 28, 1)) == pytest.approx(0.25 / 15.67, rel=1e-3)


def test_the_nets_for_faces_take_faces(key):
    config = models.faces(4)
    state = jax.eval_shape(lambda key: algorithm.init(config, key, models.FACE), key)
    logits, features = jax.eval_shape(
        lambda state, x: algorithm.discriminate(config, state, x),
        state,
        jax.ShapeDtypeStruct((2, 64, 64, 3), "float32"),
    )
    assert logits.shape == (2,) and features.shape == (2, 4, 4, 16)


def test_a_discriminator_that_is_given_stays_while_the_others_learn(tmp_path, key):
    job = Job("smoke", (0,), tmp_path, tmp_path)
    config = models.config("vae_dis_l", models.base(job, (8, 8, 1)), (8, 8, 1))
    init_key, data_key, step_key = jax.random.split(key, 3)
    batch = {"x": jax.random.uniform(data_key, (4, 8, 8, 1))}
    state = vaegan_frozen.init(config, init_key, (8, 8, 1))
    after, metrics = vaegan_frozen.train_step(config, state, batch, step_key)
    assert all(v.shape == () for v in metrics.values()) and int(after.step) == 1
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.discriminator, after.discriminator)
    assert all(jax.tree.leaves(same))
    for name in ("encoder", "decoder"):
        old, new = getattr(state, name).params, getattr(after, name).params
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), old, new)))


def test_a_figure_says_what_it_has_and_no_more():
    def said(scale, drawn):
        figure = plots.new_figure(2.0, 2.0)
        axes = figure.subplots()
        drawn(axes, [1, 2], np.array([[1.0, 2.0], [2.0, 4.0]]), draw.BLUE, "")
        axes.set_yscale(scale)
        draw.seeds(figure, 2, "below: ")
        return figure.get_supxlabel()

    assert said("linear", draw.band) == "below: mean of 2 seeds; bands: lowest to highest"
    assert said("linear", draw.points) == "below: mean of 2 seeds; bars: lowest to highest"
    assert "(geometric where the vertical axis is logarithmic); bands:" in said("log", draw.band)


def test_rows_of_pictures(tmp_path):
    rows = [("one", np.zeros((6, 8, 8, 1))), ("two", np.full((3, 8, 8, 1), 255, np.uint8))]
    draw.panels(rows, tmp_path / "a.png", columns=3, titles=("a", "b", "a long one"), scale=4)
    page = np.asarray(Image.open(tmp_path / "a.png"))
    assert page.ndim == 2 and page.shape[0] > 3 * 33 and (page == 0).sum() >= 6 * 32 * 32


def test_faces_are_read_from_a_users_folder(tmp_path):
    folder = tmp_path / "cache" / "celeb_a"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (178, 218), (80 * i, 0, 0)).save(folder / f"{i}.png")
    job = Job("cpu", (0, 1, 2), tmp_path, tmp_path, data_dir=tmp_path / "cache")
    found = vaegan_faces.find(job, "celeb_a")
    assert found.x.shape == (3, 64, 64, 3) and found.x[2, 0, 0].tolist() == [160, 0, 0]
    assert vaegan_faces.find(job, "lfw") is None
    assert vaegan_faces.run(dataclasses.replace(job, data_dir=tmp_path / "none")).rows == {}


def faces_with_flags(folder):
    """Eighty faces, and lines of a list by which the odd ones are bald and nobody is young."""
    folder.mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(80)]
    for i, name in enumerate(names):
        Image.new("RGB", (178, 218), (3 * i, 0, 0)).save(folder / name)
    return [f"{name} {1 if i % 2 else -1} -1" for i, name in enumerate(names)]


def test_celebas_list_of_attributes(tmp_path):
    flags = faces_with_flags(tmp_path / "cache" / "celeb_a")
    job = Job("smoke", (0,), tmp_path, tmp_path, data_dir=tmp_path / "cache", progress=False)
    assert celeba.attributes(job, 5) == {}
    file = tmp_path / "cache" / "list_attr_celeba.txt"  # beside the folder of images or in it, in any order
    file.write_text("\n".join(["80", "Bald Young", *reversed(flags)]))
    found = celeba.attributes(job, 5)
    assert found["Bald"].tolist() == [False, True, False, True, False] and not found["Young"].any()
    file.write_text("\n".join(["80", "Bald Young", *flags[:3]]))
    with pytest.raises(DataError, match=r"lacks 2 of 5 images, 000003.jpg first"):
        celeba.attributes(job, 5)
    file.write_text("nothing")
    with pytest.raises(DataError, match="no line with the names of attributes"):
        celeba.attributes(job, 5)
    file.unlink()
    own = tmp_path / "cache" / "celeb_a" / "list_attr_celeba.csv"
    own.write_text("\n".join(["image_id,Bald,Young", *(flag.replace(" ", ",") for flag in flags)]))
    assert celeba.attributes(job, 5)["Bald"].tolist() == found["Bald"].tolist()


def test_figure_5_of_faces_whose_attributes_are_known(tmp_path):
    flags = faces_with_flags(tmp_path / "cache" / "celeb_a")
    (tmp_path / "cache" / "list_attr_celeba.txt").write_text("\n".join(["80", "Bald Young", *flags]))
    job = Job("smoke", (0,), tmp_path / "a", tmp_path, data_dir=tmp_path / "cache", progress=False)
    x = vaegan_faces.find(job, "celeb_a").x
    data = Dataset(x[:72], name="celeb_a")
    trained = models.train(job, data, ("vaegan",))["vaegan"]
    held, known = vaegan_faces.as_float(x[72:]), vaegan_faces.known_attributes(job, 72)
    ((file, caption),) = vaegan_faces.figure_5(job, data, known, held, trained).items()
    assert "72 training images with an attribute" in caption
    assert Image.open(tmp_path / file).width == 3 * 49 + 1  # input, reconstruction and bald: nobody is young
    assert vaegan_faces.figure_5(job, data, {}, held, trained) == {}
    (tmp_path / "cache" / "list_attr_celeba.txt").write_text("nothing")
    assert vaegan_faces.known_attributes(job, 72) == {}


def test_a_smoke_of_attribute_vectors(tmp_path):
    flags = ["vaegan", "--budget", "smoke", "--workdir", str(tmp_path), "--seeds", "0", "1", "--quiet"]
    assert __main__.main([*flags, "--parts", "attributes"]) == 0
    rows = {row["id"].partition(".")[2]: row for row in results.read("vaegan", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    for tag in vaegan.SETS:
        assert rows[f"{tag}_attribute"]["seeds"] == [0, 1]
        Image.open(tmp_path / "results" / "vaegan" / f"fig5-{tag}.png").verify()
