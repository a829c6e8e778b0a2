"""Table 1 of Larsen et al. on a folder of tinted squares that is called LFW: what is read, held out, and counted."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.reproduce import __main__, lfw, results, vaegan_lfw
from experiments.reproduce import vaegan_models as models
from experiments.reproduce.job import Job
from vaegan_jax.data.dataset import DataError

HEADER = "# scores, as Kumar et al. give them"
NAMES = "#\tperson\timagenum\tMale\tSmiling\tPale Skin"


def people(cache, n=10, each=10):
    """A folder a person, as LFW is unpacked; the red of a face is its first score, and one image has none."""
    lines = [HEADER, NAMES]
    for i in range(n):
        person = f"Ann_{chr(97 + i)}_Lee"
        (cache / "lfw" / person).mkdir(parents=True)
        for k in range(1, each + 1):
            red = 20 * i + k  # never of two people
            Image.new("RGB", (250, 250), (red, 0, 0)).save(cache / "lfw" / person / f"{person}_{k:04}.png")
            if (i, k) != (0, 1):
                lines.append(f"{person.replace('_', ' ')}\t{k}\t{red / 100}\t-1.5\t{i % 2}")
    return lines


def job(tmp_path):
    return Job("smoke", (0,), tmp_path / "work", tmp_path, data_dir=tmp_path / "cache", progress=False)


def test_faces_have_their_own_scores_and_people_are_held_out(tmp_path):
    lines = people(tmp_path / "cache")
    (tmp_path / "cache" / lfw.LIST).write_text("\n".join([*lines[:2], *reversed(lines[2:])]))
    train, test = lfw.load(job(tmp_path))
    assert len(train) + len(test) == 99 and len(test) in (9, 10) and train.x.shape[1:] == (16, 16, 3)
    for one in (train, test):
        np.testing.assert_allclose(one.label[:, 0], one.x[:, 0, 0, 0] / 100, rtol=1e-5)
    people_of = [set((d.x[:, 0, 0, 0] - 1) // 20) for d in (train, test)]
    assert not people_of[0] & people_of[1] and len(people_of[1]) == 1


def test_what_cannot_be_used_gets_a_sentence(tmp_path):
    with pytest.raises(DataError, match="put both there"):
        lfw.load(job(tmp_path))
    lines = people(tmp_path / "cache")
    file = tmp_path / "cache" / "lfw" / lfw.LIST
    for text, said in (
        ("nothing", "no line that begins with person and imagenum"),
        ("\n".join(lines[:2]), "0 of 100 images"),
        ("\n".join([*lines[:2], lines[2].replace("-1.5", "high")]), "numbers are expected"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=said):
            lfw.load(job(tmp_path))


def test_the_best_of_the_draws_counts():
    """Two faces, two draws: the first face is seen best in the second draw, the second in the first."""
    y = np.array([[1.0, 0.0], [0.0, 2.0]])
    seen = np.array([[[0.0, 1.0], [0.0, 1.0]], [[3.0, 3.0], [2.0, 0.0]]])
    found = vaegan_lfw.best(y, seen)
    assert found["similarity"] == pytest.approx((1 / np.sqrt(2) + 1) / 2)
    assert found["error"] == pytest.approx((min(1 + 1, 4 + 9) + min(1, 4 + 4)) / 2)


def test_a_smoke_run(tmp_path):
    lines = people(tmp_path / "cache")
    (tmp_path / "cache" / lfw.LIST).write_text("\n".join(lines))
    flags = ["vaegan", "--budget", "smoke", "--parts", "lfw", "--workdir", str(tmp_path / "run"), "--quiet"]
    assert __main__.main([*flags, "--data-dir", str(tmp_path / "cache")]) == 0
    rows = {r["id"].partition(".")[2]: r for r in results.read("vaegan", tmp_path / "run" / "results")}
    for name in vaegan_lfw.PART.rows:
        assert rows[name]["ours"]["n"] == 2, name
    assert rows["lfw_vaegan_similarity"]["verdict"].startswith("not comparable: neither regressor")
    difference = rows["lfw_vaegan_similarity"]["ours"]["mean"] - rows["lfw_gan_similarity"]["ours"]["mean"]
    assert rows["lfw_over_gan"]["ours"]["mean"] == pytest.approx(difference)
    assert Image.open(tmp_path / "run" / "results" / "vaegan" / "fig6-lfw.png").height > 4 * 16
    assert __main__.main([*flags, "--data-dir", str(tmp_path / "none"), "--workdir", str(tmp_path / "other")]) == 1


@pytest.mark.parametrize("name", vaegan_lfw.COMPARED)
def test_the_nets_for_faces_are_told_attributes(key, name):
    """Traced, not computed: 64x64 faces, 73 scores."""
    batch = {"x": jax.ShapeDtypeStruct((4, *models.FACE), "uint8"), "label": jax.ShapeDtypeStruct((4, 73), "float32")}
    algorithm, config = vaegan_lfw.COMPARED[name], vaegan_lfw.config(name, models.faces(4), 73)
    state = jax.eval_shape(lambda k: algorithm.init(config, k, models.FACE), key)
    _, metrics = jax.eval_shape(lambda *a: algorithm.train_step(config, *a), state, batch, key)
    assert all(value.shape == () for value in metrics.values())
    assert state.generator.params["hidden0"]["kernel"].shape[0] == config.latents + 73
