"""Every test runs with rank promotion refused (it catches `(B, 1) - (B,)`) and with the check of key reuse on."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
