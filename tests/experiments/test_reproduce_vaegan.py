"""The VAE/GAN's target: attributes and their similarity, the four models share nets, a smoke run of the arithmetic."""

import numpy as np
import pytest

from experiments.reproduce import __main__, published, results, vaegan, vaegan_models


def test_attributes_are_logits_up_to_a_constant_and_similarity_is_a_cosine():
    logits = np.random.default_rng(0).normal(size=(6, 4)) * 5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = vaegan_models.attributes(probabilities)
    np.testing.assert_allclose(found, logits - logits.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(vaegan_models.similarity(found, 3 * found), 1)
    np.testing.assert_allclose(vaegan_models.similarity(found, -found), -1)
    assert np.isfinite(vaegan_models.attributes(np.eye(3))).all()  # a certain classifier


def test_squared_error_sums_over_pixels():
    x = np.full((2, 3, 3, 1), 255, np.uint8)
    np.testing.assert_allclose(vaegan_models.squared_error(x, np.zeros(x.shape)), [9, 9])


def test_the_models_differ_in_what_the_paper_says_they_do():
    vae, dis_l, both, alone, gan = (vaegan_models.config(m, 4) for m in vaegan_models.ALGORITHMS)
    assert vae.encoder == dis_l.encoder == both.encoder and vae.decoder == both.decoder == gan.generator
    assert gan.discriminator == both.discriminator == dis_l.discriminator
    assert (dis_l.gan_weight, both.gan_weight) == (0, 1)
    assert both.reconstructions_as_fakes and not alone.reconstructions_as_fakes
    assert {c.latents for c in (vae, dis_l, both, alone, gan)} == {vaegan_models.LATENTS}


def test_every_row_of_the_parts_has_its_entry():
    entries = published.entries()["vaegan"]
    named = [row for part in vaegan.PARTS for row in part.rows]
    assert len(named) == len(set(named))
    assert set(named) == {name for name, entry in entries.items() if not entry.not_run}


@pytest.mark.slow
def test_a_smoke_run_adds_attribute_vectors(tmp_path):
    flags = ["vaegan", "--budget", "smoke", "--parts", "attributes", "--workdir", str(tmp_path), "--quiet"]
    assert __main__.main(flags) == 0
    rows = {row["id"]: row for row in results.read("vaegan", tmp_path / "results")}
    for row in rows.values():
        results.check(row)
    assert rows["vaegan.attribute_vectors"]["ours"]["n"] == 2
    assert rows["vaegan.lfw_vaegan"]["verdict"] == "not run: data"
    assert rows["vaegan.lfw_vaegan"]["published"] == {"value": 0.9114, "error": None, "status": "M"}
    assert (tmp_path / "results" / "vaegan" / "attributes.png").exists()
