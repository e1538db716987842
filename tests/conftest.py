"""Shape annotations are checked in every test; data sets are never fetched."""

import os

import jax
import jaxtyping
import pytest

os.environ.pop("SUBSPACE_JAX_FETCH", None)
jaxtyping.install_import_hook("subspace_jax", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_of_one_file():
    """Solvers compile a program a call: thrown away after each file, or they take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked():
    """Without the annotations' check, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
