"""Several vectors as the rows of one pytree: leading axis first at every leaf.

A row of zeros stands for a vector that is not there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.krylov._arithmetic import divide
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, PyTree

Inner = Callable[[PyTree, PyTree], Any]


def combine(y: Array, rows: PyTree) -> PyTree:
    """The sum of y_i times row i; of a matrix Y the rows sum_i Y_ji row_i."""
    return jax.tree.map(
        lambda leaf: jnp.tensordot(y, leaf, axes=1, precision=jax.lax.Precision.HIGHEST).astype(
            leaf.dtype
        ),
        rows,
    )


def absent(num: int, like: PyTree) -> PyTree:
    """So many rows of zeros, of vectors like ``like`` and where that is."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.zeros_like(leaf), (num, *leaf.shape)), like
    )


def put(rows: Array, index: Any, row: Any) -> Array:
    """The array with one row replaced. ``index`` is in range and, best, unsigned.

    ``.at`` makes sure of that in every step, which on a CPU takes a kernel or two for each use.
    """
    return jax.lax.dynamic_update_index_in_dim(rows, row.astype(rows.dtype), index, 0)


def gram(inner: Inner, X: PyTree, Y: PyTree) -> Array:
    """The matrix <x_i, y_j>."""
    return jax.vmap(jax.vmap(inner, (None, 0)), (0, None))(X, Y)


def orthogonalize(inner: Inner, V: PyTree, w: PyTree) -> tuple[Array, PyTree]:
    """One pass of classical Gram-Schmidt: the coefficients <v_i, w>, and w without them."""
    h = jax.vmap(inner, (0, None))(V, w)
    return h, jax.tree.map(jnp.subtract, w, combine(h, V))


def whitening(F: Array, cutoff: float | None = None) -> Array:
    """S with S^H F S = I on the range of a positive semidefinite F, zero columns for the rest.

    F is scaled to a unit diagonal first. A direction whose eigenvalue is below ``cutoff`` times
    the largest (machine precision times the size, by default) counts as dependent on the others.

    Reference: Stathopoulos & Wu (2002), algorithm SVQB.
    """
    diagonal = jnp.diagonal(F).real
    scale = divide(1, jnp.sqrt(jnp.where(diagonal > 0, diagonal, 0)))
    values, Q = jnp.linalg.eigh(F * scale * scale[:, None])
    cutoff = float(jnp.finfo(values.dtype).eps) * len(F) if cutoff is None else cutoff
    kept = values > cutoff * values[-1]
    weights = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    return scale[:, None] * Q * weights


def orthonormal_pair(inner: Inner, U: PyTree, C: PyTree) -> tuple[PyTree, PyTree]:
    """The rows C made orthonormal, and U changed by the same combinations: A U = C stays true.

    Twice: the first pass leaves errors of the Gram matrix's condition.
    """
    for _ in range(2):
        S = whitening(gram(inner, C, C)).T
        U, C = combine(S, U), combine(S, C)
    return U, C


def mean_sine(inner: Inner, X: PyTree, Y: PyTree) -> Array:
    """The mean sine of the principal angles between two spaces, whose overlaps are <x_i, y_j>.

    That is X and Y are orthonormal; or X is orthonormal in the inner product of A, and so is a Z
    with Y = A Z. Rows of zeros do not count; 1 if X or Y has no others.
    """
    overlaps = gram(inner, X, Y)
    squares = jnp.linalg.eigvalsh(matmul(overlaps.conj().T, overlaps))[::-1]
    live = jnp.minimum(*(count(inner, rows) for rows in (X, Y)))
    used = jnp.arange(len(squares)) < live
    sines = jnp.sqrt(jnp.where(used, jnp.clip(1 - squares, 0, 1), 0))
    return jnp.where(live > 0, jnp.sum(sines) / jnp.maximum(live, 1), 1).astype(squares.dtype)


def count(inner: Inner, rows: PyTree) -> Array:
    """How many rows are not zero."""
    return jnp.sum(jax.vmap(lambda v: inner(v, v).real)(rows) > 0)
