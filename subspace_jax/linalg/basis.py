"""Orthonormal bases of subspaces, projections onto them, and the angles between them.

A basis is a matrix (n, k) with orthonormal columns, real or complex; the subspace is its span.
Leading axes are a batch.
"""

import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._polar import polar_factor
from subspace_jax.typing import Array, Float, Inexact


def orthonormalize(A: Inexact[Array, "*batch n k"]) -> Inexact[Array, "*batch n k"]:
    """An orthonormal basis of the columns of ``A``: Q of the QR with a positive diagonal of R.

    That choice makes Q a smooth function of ``A`` wherever ``A`` has full column rank; for a
    rank-deficient ``A`` the surplus columns are orthonormal but arbitrary.

    Raises:
        ValueError: more columns than rows.
    """
    n, k = A.shape[-2:]
    if k > n:
        raise ValueError(f"{k} columns cannot be orthonormal in dimension {n} (A is {A.shape})")
    Q, R = jnp.linalg.qr(A)
    pivots = jnp.diagonal(R, axis1=-2, axis2=-1)
    size = jnp.abs(pivots)
    signs = jnp.where(size > 0, pivots / jnp.where(size > 0, size, 1), 1)
    return Q * signs[..., None, :]


def project(Q: Inexact[Array, "*batch n k"], x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """The orthogonal projection Q Q^H x of ``x``, (n,) or (..., n, m), onto the subspace.

    Raises:
        ValueError: different ambient dimensions.
    """
    _check_rows(Q, x)
    return matmul(Q, matmul(Q.conj().mT, x))


def project_out(Q: Inexact[Array, "*batch n k"], x: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """The part of ``x`` orthogonal to the subspace, x - Q Q^H x.

    Done twice, so that the result is orthogonal to Q to working precision even where almost
    nothing of ``x`` is left.

    Raises:
        ValueError: different ambient dimensions.

    Reference: Giraud, Langou & Rozloznik (2005), "twice is enough".
    """
    once = x - project(Q, x)
    return once - project(Q, once)


def complement(Q: Inexact[Array, "*batch n k"]) -> Inexact[Array, "*batch n m"]:
    """An orthonormal basis (n, n - k) of the orthogonal complement of the subspace."""
    return jnp.linalg.qr(Q, mode="complete").Q[..., Q.shape[-1] :]


def principal_angles(
    Q: Inexact[Array, "*batch n k"], S: Inexact[Array, "*batch n l"]
) -> Float[Array, "*batch m"]:
    """The min(k, l) principal angles between two subspaces, in radians, ascending.

    The angle is atan2 of its sine and cosine, each a singular value, so that angles near 0 and
    near pi/2 are both accurate to working precision (arccos alone loses half the digits near 0).
    At repeated angles, equal subspaces included, the derivatives are NaN: `distances` have them.

    Raises:
        ValueError: different ambient dimensions.

    Reference: Björck & Golub (1973); Knyazev & Argentati (2002), algorithm 3.1.
    """
    _check_rows(Q, S)
    if S.shape[-1] > Q.shape[-1]:
        Q, S = S, Q
    cosines = jnp.linalg.svd(matmul(Q.conj().mT, S), compute_uv=False)
    sines = jnp.linalg.svd(project_out(Q, S), compute_uv=False)[..., ::-1]
    return jnp.atan2(sines, cosines)


def procrustes(
    A: Inexact[Array, "*batch n k"], B: Inexact[Array, "*batch n k"]
) -> Inexact[Array, "*batch k k"]:
    """The orthogonal (unitary) R that minimises |A R - B|_F; smooth where A^H B is invertible.

    Raises:
        ValueError: shapes that differ.

    Reference: Schönemann (1966).
    """
    check_same(A, B)
    return polar_factor(matmul(A.conj().mT, B))


def check_same(Q: Array, S: Array) -> None:
    """Return if both are matrices (..., n, k) of one shape; else raise.

    Raises:
        ValueError: names both shapes.
    """
    if Q.ndim < 2 or Q.shape != S.shape:
        raise ValueError(f"need two matrices of one shape, got {Q.shape} and {S.shape}")


def _check_rows(Q: Array, x: Array) -> None:
    rows = x.shape[-2:][0] if x.ndim else None  # of a vector, or of each matrix
    if Q.shape[-2] != rows:
        raise ValueError(f"different ambient dimensions: {Q.shape} and {x.shape}")
