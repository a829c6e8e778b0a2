"""Every test runs with rank promotion refused (it catches `(B, 1) - (B,)`) and with the check of key reuse on."""

import gc
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation is most of the suite's time: a program is compiled once for all tests, their processes and the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_disable_most_optimizations", True)
_TESTS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that want XLA's optimisations first: each change of the setting throws away what has been compiled."""
    items.sort(key=lambda item: item.get_closest_marker("optimised") is None)


def pytest_collection_finish() -> None:
    """What has been imported stays: walking it again for every traced program takes several percent of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def mnist() -> Callable[[str], Any]:
    """Loads a split of MNIST; where it cannot be had, the test is skipped."""
    from vaegan_jax import data

    def load(split: str) -> Any:
        try:
            return data.load("mnist", split)
        except data.DataError as error:
            pytest.skip(f"mnist: {error}")

    return load


@pytest.fixture(autouse=True)
def _compiler(request: pytest.FixtureRequest) -> None:
    """XLA's optimisations are off, as the suite's time is compilation; on where the compiled program is the subject."""
    optimised = request.node.get_closest_marker("optimised") is not None
    changed = jax.config.read("jax_disable_most_optimizations") == optimised
    if changed or next(_TESTS) % 200 == 0:  # a test's programs take some 12 MB
        jax.clear_caches()  # what jax.jit has compiled it keeps, whatever this flag says then
        jax.config.update("jax_disable_most_optimizations", not optimised)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not optimised))  # of processes that the test starts
