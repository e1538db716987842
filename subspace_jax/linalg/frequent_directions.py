"""Frequent Directions: a few rows that stand for all rows of a stream, deterministically.

For the rows A seen so far and the sketch B of l rows, 0 <= A^H A - B^H B <= d I with the sum d of
what was subtracted, and d <= |A - A_k|_F^2 / (l + 1 - k) for every k <= l: with k = 0, |A|_F^2 over
l + 1. ``d`` is in the state: a certificate.

Reference: Liberty (2013), "Simple and deterministic matrix sketching"; Ghashami, Liberty, Phillips
& Woodruff (2016), theorem 1.1 (whose sketch has a row of zeros more).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Inexact

__all__ = ["FrequentDirections", "init", "update"]


class FrequentDirections(NamedTuple):
    """A sketch; its rows are orthogonal, the longest first."""

    B: Inexact[Array, "l n"]
    shrinkage: Float[Array, ""]
    """An upper bound of the largest eigenvalue of A^H A - B^H B, which has none below zero."""


def init(n: int, num_rows: int, *, dtype: Any = jnp.float32) -> FrequentDirections:
    """The sketch of no rows.

    Args:
        n: length of a row.
        num_rows: l of the sketch; with l >= n it is exact.
        dtype: of the rows.

    Raises:
        ValueError: fewer than one row.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1, got {num_rows}")
    B = jnp.zeros((num_rows, n), dtype)
    return FrequentDirections(B, jnp.zeros((), B.real.dtype))


def update(state: FrequentDirections, A: Inexact[Array, "m n"]) -> FrequentDirections:
    """The sketch after more rows, any number of them at a time.

    Raises:
        ValueError: rows of another length.
    """
    num_rows, n = state.B.shape
    if A.ndim != 2 or A.shape[1] != n:
        raise ValueError(f"rows of length {n} are expected, got {A.shape}")
    squares, Vh = _squares(jnp.concatenate([state.B, A]))
    least = squares[num_rows] if len(squares) > num_rows else jnp.zeros((), squares.dtype)
    rows = jnp.sqrt(jnp.maximum(squares[:num_rows] - least, 0))[:, None] * Vh[:num_rows]
    B = jnp.pad(rows, ((0, num_rows - len(rows)), (0, 0)))
    return FrequentDirections(B, state.shrinkage + least)


def _squares(X: Array) -> tuple[Array, Array]:
    """The squared singular values, descending, and the right singular vectors in rows."""
    if X.shape[0] < X.shape[1]:
        _, s, Vh = jnp.linalg.svd(X, full_matrices=False)
        return s**2, Vh
    # Small values are less exact than the SVD's; of the Gram matrix, which counts, they are not.
    values, V = jnp.linalg.eigh(matmul(X.conj().T, X))
    return jnp.maximum(values[::-1], 0), V[:, ::-1].conj().T
