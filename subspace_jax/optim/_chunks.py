"""Work on many small arrays a few at a time, where the cache is small."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array

_WHOLE_BYTES = 1 << 20
"""Smaller operands are left whole."""
_CHUNK_BYTES = 1 << 17
"""Of one operand: a step has some five in flight, which then fit the second-level cache."""


def in_chunks(function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)``, on a CPU computed for some of the leading axes' entries at a time.

    The function treats the entries of the leading axes of its first operand, (..., n, k), one by
    one; all its other operands and results have these axes too. Operands that are no arrays, or
    small ones, are left whole, as all are where there are several devices: what lies over them
    would have to be gathered for the loop.
    """
    first, *_ = operands
    if jax.device_count() > 1:
        return function(*operands)
    if not hasattr(first, "ndim") or first.ndim < 3 or first.size * _width(first) <= _WHOLE_BYTES:
        return function(*operands)
    return jax.lax.platform_dependent(
        *operands, cpu=lambda *xs: _looped(function, *xs), default=function
    )


def _width(x: Any) -> int:
    return jnp.dtype(x.dtype).itemsize


def _looped(function: Callable[..., Any], *operands: Array) -> Any:
    first, *_ = operands
    lead = first.shape[:-2]
    num = math.prod(lead)
    chunk = max(1, _CHUNK_BYTES // (math.prod(first.shape[-2:]) * _width(first)))

    flat = jax.tree.map(lambda x: x.reshape(num, *x.shape[len(lead) :]), operands)
    results = jax.eval_shape(function, *flat)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), results)

    def body(i, found):
        # The last chunk overlaps the one before: what is computed twice comes out the same.
        start = jnp.minimum(i * chunk, num - chunk)
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk), flat)
        return jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0),
            found,
            function(*part),
        )

    found = jax.lax.fori_loop(0, -(-num // chunk), body, empty)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found)
