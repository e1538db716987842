"""Shape annotations are checked in every test; data sets are never fetched."""

import os

from jaxtyping import install_import_hook

os.environ.pop("SUBSPACE_JAX_FETCH", None)
install_import_hook("subspace_jax", "beartype.beartype")
