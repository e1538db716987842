"""The very sparse projection: about sqrt(D) signs in each column.

Stored: ``code``, uint32 (max_dim, nnz): twice the row, plus 1 where the sign is minus; ``scale``
(max_dim,): 1/sqrt(nnz), zero from ``dim`` on.
"""

import math

import jax
import jax.numpy as jnp

from subspace_jax.projections import _hashing
from subspace_jax.projections._layout import check_dim, layout_of, split
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Dimension, Key, PyTree

_ROWS, _SIGNS = range(2)


def sparse(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Projection:
    """The paper's sparse projection: density 1/sqrt(D), columns of norm 1, nearly orthogonal.

    Every column has round(sqrt(D)) entries at rows drawn without replacement (the paper draws each
    entry by itself, so that its counts vary). Rows that no column reaches stay frozen. With a
    ``max_dim`` the subspace is spanned by the first ``dim`` of ``max_dim`` columns. Arguments and
    errors as in `hashed`.

    Reference: Li, Hastie & Church (2006); Li, Farkhoor, Liu & Yosinski (2018), section S7.
    """
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    size = layout.size
    nnz = round(math.sqrt(size))
    seed = _hashing.seed_from_key(key)

    def column(index):
        column_seed = _hashing.fold(seed, index)
        rows = _hashing.permutation(_hashing.fold(column_seed, _ROWS), size, nnz)
        entry = jnp.arange(nnz, dtype=jnp.uint32)
        return 2 * rows + (_hashing.bits(_hashing.fold(column_seed, _SIGNS), entry) & 1)

    code = jax.vmap(column)(jnp.arange(max_dim, dtype=jnp.uint32))
    arrays = {"code": code, "scale": mask / math.sqrt(nnz)}
    return Projection(arrays, dim, layout, max_dim, _apply)


def _apply(arrays, layout, z):
    code = arrays["code"]
    u = (z * arrays["scale"].astype(z.dtype))[:, None]
    entries = jnp.where(code & 1, -u, u)
    zeros = jnp.zeros(layout.size, z.dtype)
    return split(layout, zeros.at[code >> 1].add(entries, mode="promise_in_bounds"))
