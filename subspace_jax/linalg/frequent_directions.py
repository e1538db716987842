"""Frequent Directions: a few rows that stand for all rows of a stream, deterministically.

For the rows A seen so far and the sketch B of l rows, 0 <= A^H A - B^H B <= d I with the sum d of
what was subtracted, and d <= |A - A_k|_F^2 / (l + 1 - k) for every k <= l: with k = 0, |A|_F^2 over
l + 1. ``d`` is in the state: a certificate.

Reference: Liberty (2013), "Simple and deterministic matrix sketching"; Ghashami, Liberty, Phillips
& Woodruff (2016), theorem 1.1 (whose sketch has a row of zeros more).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

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
    _, s, Vh = jnp.linalg.svd(jnp.concatenate([state.B, A]), full_matrices=False)
    least = s[num_rows] ** 2 if len(s) > num_rows else jnp.zeros((), s.dtype)
    kept = jnp.sqrt(jnp.maximum(s[:num_rows] ** 2 - least, 0))
    rows = kept[:, None] * Vh[:num_rows]
    B = jnp.pad(rows, ((0, num_rows - len(rows)), (0, 0)))
    return FrequentDirections(B, state.shrinkage + least)
