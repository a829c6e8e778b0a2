"""What takes long tells how far it is: every loop over blocks, as soon as patience is over."""

import numpy as np
import pytest

from vaegan_jax import logs
from vaegan_jax.metrics import birthday, distances, frechet, kernel, parzen, prd

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.random.default_rng(1).normal(size=(60, 4))

LOOPS = {
    "nearest neighbours, blocks of examples": (3, lambda: distances.nearest(X, Y, 2)),
    "balls, blocks of centres": (3, lambda: distances.within(X, Y, np.ones(60))),
    "Parzen windows, blocks of points": (3, lambda: parzen.parzen_log_likelihood(X, Y, 0.5)),
    "kernel distance, subsets": (5, lambda: kernel.kernel_distance(X, Y, subsets=5, subset_size=20)),
    "Frechet distances, numbers of examples": (4, lambda: _infinity().value),
    "precision against recall, clusterings": (2, lambda: prd.prd_curve(X, Y, clusters=3, runs=2).f8),
    "collisions, batches of samples": (2, lambda: birthday.collisions(X, 10, 0.1, batches=2).probability),
}


def _infinity() -> frechet.Extrapolation:
    return frechet.frechet_infinity(X, frechet.Statistics(np.zeros(4), np.eye(4)), sizes=4)


@pytest.mark.filterwarnings("ignore:The smallest size")
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_tells_its_steps_and_its_value_is_the_same(name, monkeypatch, capsys):
    total, measure = LOOPS[name]
    for module, limit in ((distances, "COLUMNS"), (parzen, "_POINTS")):
        monkeypatch.setattr(module, limit, 25)
    silent = measure()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logs, "PATIENCE", -1.0)
    np.testing.assert_array_equal(measure(), silent)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{name}  step 1/{total}") and f"step {total}/{total}" in lines[-1]
    assert all(line.startswith(name) for line in lines)
    with logs.quiet():
        measure()
    assert capsys.readouterr().err == ""
