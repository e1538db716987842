"""Fastfood, corrected: two Hadamard transforms around a signed hash, exactly isometric."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from subspace_jax.linalg.hadamard import block_hadamard_transform
from subspace_jax.projections import _hashing
from subspace_jax.projections._hashed import signed_hash, signed_lookup
from subspace_jax.projections._layout import Layout, check_dim, layout_of, split
from subspace_jax.projections.maps import apply
from subspace_jax.typing import Array, Dimension, Float, Key, PyTree

_HASH, _FLIP = range(2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fastfood:
    """P = H_D T H_d B: signs, transform, signed tile and permutation, transform."""

    code: PyTree
    """uint32 (D,). The signed tile and permutation T: twice the index, plus 1 where it is minus."""
    scale: PyTree
    """(max_dim,): 1/sqrt(count) of each column of T."""
    flip: PyTree
    """(max_dim,). The signs B, zero from ``dim`` on."""
    dim: PyTree
    layout: Layout = field(metadata={"static": True})
    max_dim: int = field(metadata={"static": True})


def fastfood(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Fastfood:
    """A projection with P^T P = I and dense columns, in O(D log D).

    Against the published form: the transforms are split by the binary digits of d and D rather
    than padded to a power of two, the tile is balanced, and the Gaussian diagonal is a sign, so
    the columns are orthonormal to working precision (theirs have singular values 0.5 to 1.4). With
    a ``max_dim`` the subspace is spanned by the first ``dim`` columns of the projection of
    dimension ``max_dim``.

    Arguments and errors as in `hashed`.

    Reference: Le, Sarlos & Smola (2013); Li, Farkhoor, Liu & Yosinski (2018), section S7.
    """
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    seed = _hashing.seed_from_key(key)
    code, count = signed_hash(_hashing.fold(seed, _HASH), layout.size, max_dim, max_dim)
    coin = _hashing.bits(_hashing.fold(seed, _FLIP), jnp.arange(max_dim, dtype=jnp.uint32)) & 1
    flip = mask * (1 - 2 * coin.astype(mask.dtype))
    return Fastfood(code, count.astype(mask.dtype) ** -0.5, flip, dim, layout, max_dim)


@apply.register
def _(projection: Fastfood, z: Float[Array, " d"]) -> PyTree:
    u = block_hadamard_transform(z * projection.flip.astype(z.dtype))
    u = signed_lookup(u * projection.scale.astype(z.dtype), projection.code)
    return split(projection.layout, block_hadamard_transform(u))
