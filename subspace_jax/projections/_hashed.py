"""The balanced signed hash: each parameter copies one entry of z, with a sign.

Stored: ``code``, uint32 shaped like the parameters: twice the index into z, plus 1 where the sign
is minus; ``scale`` (max_dim,): 1/sqrt(count) of each column, zero from ``dim`` on.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax.linalg._fusion import apart
from subspace_jax.projections import _hashing
from subspace_jax.projections._layout import check_dim, layout_of, split
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import Array, Dimension, Float, Key, PyTree, UInt32

_PERMUTATION, _SIGNS = range(2)


def hashed(key: Key, params: PyTree, dim: Dimension, *, max_dim: int | None = None) -> Projection:
    """A projection with P^T P = I exactly, that costs one pass over the parameters.

    Parameter i takes entry ``permutation(i) mod dim`` of z, times a random sign, divided by the
    square root of the number of parameters that share the entry. These counts differ by at most
    one, so it is isometric for every dim <= D. Integers only: a key and a dim name the same
    subspace on every device. Where an integer for each parameter is too much, `rolled`.

    Args:
        key: PRNG key.
        params: the parameters, or their ``ShapeDtypeStruct``s; real floating-point leaves.
        dim: the dimension d of the subspace, 1 <= d <= D. May be traced (one compile for a sweep
            over d); then ``max_dim`` is needed, and a value out of bounds is clipped.
        max_dim: the length of z; entries from ``dim`` on are inert. Default: ``dim``.

    Raises:
        ValueError: a bound is broken, ``params`` is empty or has a leaf that cannot train.
    """
    layout = layout_of(params)
    dim, max_dim, mask = check_dim(layout, dim, max_dim)
    code, count = signed_hash(_hashing.seed_from_key(key), layout.size, dim, max_dim)
    scale = mask / jnp.sqrt(count.astype(mask.dtype))
    arrays = {"code": split(layout, code), "scale": scale}
    return Projection(arrays, dim, layout, max_dim, _apply)


@partial(jax.jit, static_argnums=(1, 3))
def signed_hash(
    seed: UInt32[Array, "2"], size: int, dim: Dimension, max_dim: int
) -> tuple[UInt32[Array, " size"], UInt32[Array, " max_dim"]]:
    """The codes (2 index + sign bit) of ``size`` entries, and how many share each index (>= 1)."""
    dim = jnp.asarray(dim, jnp.uint32)
    index = _hashing.permutation(_hashing.fold(seed, _PERMUTATION), size) % dim
    sign = _hashing.bits(_hashing.fold(seed, _SIGNS), jnp.arange(size, dtype=jnp.uint32)) & 1
    remainder = size % dim
    count = size // dim + (jnp.arange(max_dim, dtype=jnp.uint32) < remainder)
    return 2 * index + sign, count.astype(jnp.uint32)


@jax.jit
def scaled(
    z: Float[Array, " max_dim"], scale: Float[Array, " max_dim"]
) -> Float[Array, " max_dim"]:
    """``scale * z``, stored: a lookup that XLA fused it into would read both for each parameter."""
    return apart(lambda z: z * scale.astype(z.dtype), z, scale)


def signed_lookup(
    z: Float[Array, " max_dim"], code: UInt32[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """+-z[index] for each code."""
    # Flat, and with the sign as a choice: on a CPU the gather takes half the time that it takes
    # from a table (z0, -z0, z1, -z1, ...), its transpose, a scatter-add, two thirds.
    flat = code.ravel()
    found = z.at[flat >> 1].get(mode="promise_in_bounds")
    return jnp.where((flat & 1).astype(bool), -found, found).reshape(code.shape)


_SMALL = 4096
"""Of a leaf below this size the start of a lookup takes longer than the lookup."""


def _apply(arrays, layout, z):
    u = scaled(z, arrays["scale"])
    codes, structure = jax.tree.flatten(arrays["code"])
    small = iter(_lookup_together(u, [code for code in codes if code.size < _SMALL]))
    return structure.unflatten(
        next(small) if code.size < _SMALL else signed_lookup(u, code) for code in codes
    )


def _lookup_together(u: Array, codes: list[Array]) -> list[Array]:
    """The lookup of each, by one of all."""
    if not codes:
        return []
    found = signed_lookup(u, jnp.concatenate([code.ravel() for code in codes]))
    parts = jnp.split(found, np.cumsum([code.size for code in codes])[:-1])
    return [part.reshape(code.shape) for part, code in zip(parts, codes, strict=True)]
