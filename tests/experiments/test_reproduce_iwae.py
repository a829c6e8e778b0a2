"""Burda et al.'s target: the schedule, the optimiser, rows, a smoke run of table 1 and of table 2."""

import pytest

from experiments.reproduce import iwae, published
from experiments.reproduce import iwae_models as models
from tests.smoke import smoke


def test_every_part_fills_rows_of_the_published_ones():
    rows = [row for part in iwae.PARTS for row in part.rows]
    known = published.entries()["iwae"]
    assert sorted(rows) == sorted(known)
    for tag, table in iwae.PUBLISHED.items():
        for name, (nll, units) in table.items():
            assert known[f"{tag}_{name}"].value == nll
            if units != "-":
                said = [known[f"{tag}_{name}_units{i + 1}"].value for i in range(len(units.split("+")))]
                assert said == [float(u) for u in units.split("+")]


def test_the_schedule_is_the_papers():
    assert models.steps("paper") == 3280 * 2980 and models.switch_steps("paper") == 3**7 * 2980
    assert list(models.RATES) == pytest.approx([1.0, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1])
    optimizer = models.optimizer()
    starts = [start for start, _ in optimizer.stages]
    assert starts[:4] == [0, 2980, 2980 * 4, 2980 * 13]
    assert float(optimizer.rate(2980)) == pytest.approx(7.2e-4)
    assert models.optimizer(1e-4).stages == ()


@pytest.mark.parametrize("tag", ["one", "two"])
def test_models_differ_by_objective_and_samples_alone(tag):
    configs = {model.name: models.config(model, "paper") for model in models.MODELS[tag]}
    assert [(c.bound, c.samples) for c in configs.values()] == [
        ("elbo", 1), ("elbo", 5), ("elbo", 50), ("iwae", 5), ("iwae", 50),
    ]  # fmt: skip
    assert len({(c.optimizer, c.decoder, c.latents) for c in configs.values()}) == 1


def test_a_smoke_run_of_switching(tmp_path, mnist):
    mnist("train")
    found = smoke("iwae", tmp_path, "switching")
    assert found["switch_helps"]["ours"]["n"] == 2
    assert found["one_vae_1"]["verdict"].startswith("not run")
