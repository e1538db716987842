"""Gaussian projections, the reference that the others are held against.

Stored: ``matrix`` (D, max_dim), zero from column ``dim`` on.
"""

import jax
import jax.numpy as jnp

from subspace_jax.projections import _hashing
from subspace_jax.projections._layout import check_dim, layout_of, split
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Dimension, Key, PyTree


def gaussian(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Projection:
    """The paper's dense projection: Gaussian columns of norm 1, only nearly orthogonal.

    With a ``max_dim`` the subspace is spanned by the first ``dim`` of ``max_dim`` columns.
    Arguments and errors as in `hashed`.

    Reference: Li, Farkhoor, Liu & Yosinski (2018), section 2.
    """
    return _dense(key, params, dim, max_dim, lambda A: A / jnp.linalg.norm(A, axis=0))


def gaussian_orthonormal(
    key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None
) -> Projection:
    """A uniformly random subspace with an orthonormal basis: the QR of a Gaussian matrix.

    O(D d^2) to build. With a ``max_dim`` the subspace is spanned by the first ``dim`` of
    ``max_dim`` columns. Arguments and errors as in `hashed`.
    """
    return _dense(key, params, dim, max_dim, lambda A: jnp.linalg.qr(A)[0])


def _dense(key, params, dim, max_dim, normalize):
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    seed = _hashing.seed_from_key(key)
    row = jnp.arange(layout.size, dtype=jnp.uint32)
    columns = jnp.arange(max_dim, dtype=jnp.uint32)
    seeds = jax.vmap(_hashing.fold, (None, 0))(seed, columns)
    matrix = jax.vmap(_hashing.normal, (0, None), 1)(seeds, row).astype(layout.dtype)
    return Projection({"matrix": normalize(matrix) * mask}, dim, layout, max_dim, _apply)


def _apply(arrays, layout, z):
    matrix = arrays["matrix"].astype(z.dtype)
    return split(layout, jnp.matmul(matrix, z, precision=jax.lax.Precision.HIGHEST))
