"""Fastfood, corrected: two Hadamard transforms around a signed hash, exactly isometric.

P = H_D T H_d B. Stored: ``flip`` (max_dim,): the signs B, zero from ``dim`` on; ``code``, uint32
(D,): the signed tile and permutation T, twice the index plus 1 where the sign is minus; ``scale``
(max_dim,): 1/sqrt(count) of each column of T.
"""

import jax.numpy as jnp

from subspace_jax.linalg.hadamard import block_hadamard_transform
from subspace_jax.projections import _hashing
from subspace_jax.projections._hashed import scaled, signed_hash, signed_lookup
from subspace_jax.projections._layout import check_dim, layout_of, split
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Dimension, Key, PyTree

_HASH, _FLIP = range(2)


def fastfood(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Projection:
    """A projection with P^T P = I and dense columns, in O(D log D).

    Against the published form: the transforms are split by the binary digits of d and D rather
    than padded to a power of two, the tile is balanced, and the Gaussian diagonal is a sign, so
    the columns are orthonormal to working precision, where theirs are nearly so. With a ``max_dim``
    the subspace is spanned by the first ``dim`` columns of the projection of dimension ``max_dim``.

    Arguments and errors as in `hashed`.

    Reference: Le, Sarlos & Smola (2013); Li, Farkhoor, Liu & Yosinski (2018), section S7.
    """
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    seed = _hashing.seed_from_key(key)
    code, count = signed_hash(_hashing.fold(seed, _HASH), layout.size, max_dim, max_dim)
    coin = _hashing.bits(_hashing.fold(seed, _FLIP), jnp.arange(max_dim, dtype=jnp.uint32)) & 1
    flip = mask * (1 - 2 * coin.astype(mask.dtype))
    arrays = {"code": code, "scale": count.astype(mask.dtype) ** -0.5, "flip": flip}
    return Projection(arrays, dim, layout, max_dim, _apply)


def _apply(arrays, layout, z):
    u = block_hadamard_transform(z * arrays["flip"].astype(z.dtype))
    u = signed_lookup(scaled(u, arrays["scale"]), arrays["code"])
    return split(layout, block_hadamard_transform(u))
