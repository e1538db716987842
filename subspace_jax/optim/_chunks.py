"""Work on many small arrays as a CPU likes it: a few at a time, stored as rows."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.manifolds import _rows
from subspace_jax.typing import Array

_WHOLE_BYTES = 1 << 20
"""Smaller operands are left whole."""
_CHUNK_BYTES = 1 << 17
"""Of one operand: a step has some five in flight, which then fit the second-level cache."""


def in_chunks(
    function: Callable[..., Any], *operands: Any, in_rows: Callable[..., Any] | None = None
) -> Any:
    """``function(*operands)``, on a CPU computed for some of the leading axes' entries at a time.

    The function treats the entries of the leading axes of its first operand, (..., n, k), one by
    one; all its other operands and results have these axes too. Operands that are no arrays are
    left whole, as all are where there are several devices: what lies over them would have to be
    gathered for the loop.

    Args:
        function: the work.
        *operands: arrays or pytrees.
        in_rows: the same work on arrays (..., n, k) that are stored as rows, if it can be done
            there; a CPU does it where that is faster.
    """
    first, *_ = operands
    if jax.device_count() > 1 or getattr(first, "ndim", 0) < 3:
        return function(*operands)
    if not _rows.is_faster(first):
        in_rows = None
    small = first.size * _width(first) <= _WHOLE_BYTES
    if small and in_rows is None:
        return function(*operands)
    work = function if in_rows is None else _stored(in_rows)
    cpu = work if small else lambda *xs: _looped(work, *xs)
    return jax.lax.platform_dependent(*operands, cpu=cpu, default=function)


def _stored(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of rows, for columns."""

    def call(*operands):
        shape = operands[0].shape
        results = function(*(_rows.stored(x) if x.shape == shape else x for x in operands))
        return jax.tree.map(
            lambda x: _rows.restored(x, shape[-2]) if x.ndim > len(shape) else x, results
        )

    return call


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
