"""Signed copies of z, each rolled by a random number of places, side by side: nothing is stored.

Stored: ``seed``, uint32 (2,); ``dim``, uint32; ``scale`` (max_dim,): 1/sqrt(count) of each column,
zero from ``dim`` on.
"""

import math

import jax
import jax.numpy as jnp

from subspace_jax.projections import _hashing
from subspace_jax.projections._hashed import scaled, signed_lookup
from subspace_jax.projections._layout import check_dim, layout_of
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Array, Dimension, Key, PyTree, UInt32

_ROLLS, _SIGNS = range(2)


def rolled(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Projection:
    """A projection with P^T P = I exactly that stores d numbers, for parameters past 1e8.

    The parameters are cut into tiles of ``dim``, each a copy of z, rolled by a random number of
    places, with a random sign for every parameter, divided by the square root of the number of
    parameters that share the entry. Neighbours read neighbours, so memory is read in order. The
    integer for each parameter that `hashed` stores is computed anew each time, about twice its
    time on a CPU; `contract` holds it in passing. Arguments and errors as in `hashed`.
    """
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    arrays = {"seed": _hashing.seed_from_key(key), "dim": jnp.asarray(dim, jnp.uint32)}
    columns = jnp.arange(max_dim, dtype=jnp.uint32)
    whole, rest = layout.size // arrays["dim"], layout.size % arrays["dim"]
    in_last = (columns + arrays["dim"] - _shift(arrays, whole)) % arrays["dim"] < rest
    arrays["scale"] = mask / jnp.sqrt((whole + in_last).astype(mask.dtype))
    return Projection(arrays, dim, layout, max_dim, _apply)


def _apply(arrays, layout, z):
    u = scaled(z, arrays["scale"])
    signs = _hashing.fold(arrays["seed"], _SIGNS)

    def leaf(shape, first):
        row = first + jnp.arange(math.prod(shape), dtype=jnp.uint32)
        tile, place = _divide(row, arrays["dim"])
        index = place + _shift(arrays, tile)
        index = jnp.where(index < arrays["dim"], index, index - arrays["dim"])
        code = 2 * index + (_hashing.bits(signs, row) & 1)
        return signed_lookup(u, code).reshape(shape)

    leaves, first = [], 0
    for like in layout.leaves:
        leaves.append(leaf(like.shape, first))
        first += math.prod(like.shape)
    return jax.tree.unflatten(layout.treedef, leaves)


def _shift(arrays: dict[str, Array], tile: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """By how many places, fewer than ``dim``, z is rolled in a tile."""
    word = _hashing.bits(_hashing.fold(arrays["seed"], _ROLLS), tile)
    return _high_product(word, arrays["dim"])


def _divide(
    x: UInt32[Array, "*n"], divisor: UInt32[Array, ""]
) -> tuple[UInt32[Array, "*n"], UInt32[Array, "*n"]]:
    """Quotient and remainder of x < 2^31: processors divide integers slowly.

    The product with the reciprocal falls short of x / divisor by less than 1/2, rounded down.
    """
    quotient = _high_product(x, jnp.uint32(2**32 - 1) // divisor)
    remainder = x - quotient * divisor
    short = remainder >= divisor
    return quotient + short, jnp.where(short, remainder - divisor, remainder)


def _high_product(x: UInt32[Array, "*n"], y: UInt32[Array, ""]) -> UInt32[Array, "*n"]:
    """The upper word of x y, from products of half words."""
    half, low = 16, jnp.uint32(0xFFFF)
    middle = (x >> half) * (y & low) + ((x & low) * (y & low) >> half)
    lower = (x & low) * (y >> half) + (middle & low)
    return (x >> half) * (y >> half) + (middle >> half) + (lower >> half)
