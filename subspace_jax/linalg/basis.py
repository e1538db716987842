"""Orthonormal bases of subspaces, and how far two subspaces are apart.

A basis is a matrix (n, k) with orthonormal columns, real or complex; the subspace is its span.
"""

import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Inexact


def orthonormalize(A: Inexact[Array, "n k"]) -> Inexact[Array, "n k"]:
    """An orthonormal basis of the columns of ``A``: Q of the QR with a positive diagonal of R.

    That choice makes Q a smooth function of ``A`` wherever ``A`` has full column rank; for a
    rank-deficient ``A`` the surplus columns are orthonormal but arbitrary.

    Raises:
        ValueError: more columns than rows.
    """
    n, k = A.shape
    if k > n:
        raise ValueError(f"{k} columns cannot be orthonormal in dimension {n} (A is {A.shape})")
    Q, R = jnp.linalg.qr(A)
    pivots = jnp.diagonal(R)
    size = jnp.abs(pivots)
    return Q * jnp.where(size > 0, pivots / jnp.where(size > 0, size, 1), 1)


def project(Q: Inexact[Array, "n k"], x: Inexact[Array, "n *m"]) -> Inexact[Array, "n *m"]:
    """The orthogonal projection Q Q^H x of ``x`` onto the subspace."""
    _check_rows(Q, x)
    return matmul(Q, matmul(Q.conj().T, x))


def project_out(Q: Inexact[Array, "n k"], x: Inexact[Array, "n *m"]) -> Inexact[Array, "n *m"]:
    """The part of ``x`` orthogonal to the subspace, x - Q Q^H x.

    Done twice, so that the result is orthogonal to Q to working precision even where almost
    nothing of ``x`` is left.

    Reference: Giraud, Langou & Rozloznik (2005), "twice is enough".
    """
    once = x - project(Q, x)
    return once - project(Q, once)


def complement(Q: Inexact[Array, "n k"]) -> Inexact[Array, "n m"]:
    """An orthonormal basis (n, n - k) of the orthogonal complement of the subspace."""
    return jnp.linalg.qr(Q, mode="complete").Q[:, Q.shape[1] :]


def principal_angles(Q: Inexact[Array, "n k"], S: Inexact[Array, "n l"]) -> Float[Array, " m"]:
    """The min(k, l) principal angles between two subspaces, in radians, ascending.

    The angle is atan2 of its sine and cosine, each a singular value, so that angles near 0 and
    near pi/2 are both accurate to working precision (arccos alone loses half the digits near 0).
    For derivatives at equal subspaces use `chordal_distance`.

    Reference: Björck & Golub (1973); Knyazev & Argentati (2002), algorithm 3.1.
    """
    _check_rows(Q, S)
    if S.shape[1] > Q.shape[1]:
        Q, S = S, Q
    cosines = jnp.linalg.svd(matmul(Q.conj().T, S), compute_uv=False)
    sines = jnp.linalg.svd(project_out(Q, S), compute_uv=False)[::-1]
    return jnp.atan2(sines, cosines)


def geodesic_distance(Q: Inexact[Array, "n k"], S: Inexact[Array, "n k"]) -> Float[Array, ""]:
    """The length of the shortest path on the Grassmannian: the norm of the principal angles."""
    _check_same(Q, S)
    return jnp.linalg.norm(principal_angles(Q, S))


def chordal_distance(Q: Inexact[Array, "n k"], S: Inexact[Array, "n k"]) -> Float[Array, ""]:
    """The norm of the sines of the principal angles, = |Q Q^H - S S^H|_F / sqrt(2).

    Matmuls only, accurate for nearly equal subspaces, and differentiable (zero at zero).
    """
    _check_same(Q, S)
    square = jnp.sum(jnp.abs(project_out(Q, S)) ** 2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def procrustes(A: Inexact[Array, "n k"], B: Inexact[Array, "n k"]) -> Inexact[Array, "k k"]:
    """The orthogonal (unitary) R that minimises |A R - B|_F.

    Reference: Schönemann (1966).
    """
    _check_same(A, B)
    U, _, Vh = jnp.linalg.svd(matmul(A.conj().T, B), full_matrices=False)
    return matmul(U, Vh)


def _check_rows(Q: Array, x: Array) -> None:
    if Q.shape[0] != x.shape[0]:
        raise ValueError(f"different ambient dimensions: {Q.shape} and {x.shape}")


def _check_same(Q: Array, S: Array) -> None:
    if Q.shape != S.shape:
        raise ValueError(f"need two matrices of one shape, got {Q.shape} and {S.shape}")
