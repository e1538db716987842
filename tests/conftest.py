"""Shape annotations are checked in every test; data sets are never fetched."""

import os

import jaxtyping
import pytest

os.environ.pop("SUBSPACE_JAX_FETCH", None)
jaxtyping.install_import_hook("subspace_jax", "beartype.beartype")


@pytest.fixture
def unchecked():
    """Without the annotations' check, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
