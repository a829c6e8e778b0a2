"""Against torchmetrics, through its public classes on features as they are (extra `reference`)."""

import numpy as np
import pytest

from vaegan_jax.metrics import frechet_distance, inception_score, kernel_distance

torch = pytest.importorskip("torch", reason="extra `reference` is not installed")
pytest.importorskip("torchmetrics", reason="extra `reference` is not installed")


class AsIs(torch.nn.Module):
    num_features = 10

    def forward(self, x):
        return x


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 10)) @ rng.normal(size=(10, 10)), rng.normal(size=(250, 10)) + 0.5


@pytest.mark.filterwarnings("ignore")
def test_frechet_distance(sets) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(AsIs())
    for x, real in zip(sets, (True, False), strict=True):
        metric.update(torch.from_numpy(x), real=real)
    assert frechet_distance(*sets) == pytest.approx(float(metric.compute()), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_kernel_distance(sets) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = sets[0][:250], sets[1]
    metric = KernelInceptionDistance(AsIs(), subsets=2, subset_size=250)
    for x, real in ((a, True), (b, False)):
        metric.update(torch.from_numpy(x), real=real)
    assert kernel_distance(a, b, subsets=2, subset_size=250)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_inception_score(sets) -> None:
    from torchmetrics.image.inception import InceptionScore

    logits = torch.from_numpy(sets[0])
    metric = InceptionScore(AsIs(), splits=1)
    metric.update(logits)
    assert inception_score(torch.softmax(logits, 1).numpy(), 1)[0] == pytest.approx(
        float(metric.compute()[0]), rel=1e-5
    )
