"""Low-rank approximation by random projection, and how many directions hold most of the energy.

The matrix is an array (m, n), anything with ``@`` and a ``shape``, or a callable with its adjoint.
"""

from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.basis import orthonormalize
from subspace_jax.typing import Array, Float, Inexact, Integer, Key, LinearMap


def range_finder(
    key: Key,
    A: LinearMap,
    rank: int,
    *,
    AT: LinearMap | None = None,
    like: jax.ShapeDtypeStruct | Array | None = None,
    num_power_iterations: int = 2,
) -> Inexact[Array, "m rank"]:
    """An orthonormal basis of ``rank`` directions that captures most of the range of ``A``.

    Args:
        key: PRNG key of the Gaussian test matrix.
        A: an array (m, n), or a callable on vectors (n,).
        rank: number of basis vectors, 1 <= rank <= min(m, n).
        AT: the adjoint A^H, a callable on vectors (m,); needed for a callable ``A``.
        like: an array or ``ShapeDtypeStruct`` of the shape (n,) and dtype of the vectors that a
            callable ``A`` takes.
        num_power_iterations: subspace iterations; each sharpens the decay of the spectrum by a
            square, at the price of two more products.

    Raises:
        ValueError: the rank is out of bounds, or a callable lacks ``AT`` or ``like``.

    Reference: Halko, Martinsson & Tropp (2011), algorithm 4.4.
    """
    apply, adjoint, rows, columns, dtype = _operator(A, AT, like)
    _check_rank(rank, rows, columns)
    Q = orthonormalize(apply(jax.random.normal(key, (columns, rank), dtype)))
    for _ in range(num_power_iterations):
        Q = orthonormalize(apply(orthonormalize(adjoint(Q))))
    return Q


def randomized_svd(
    key: Key,
    A: LinearMap,
    rank: int,
    *,
    AT: LinearMap | None = None,
    like: jax.ShapeDtypeStruct | Array | None = None,
    num_oversamples: int = 10,
    num_power_iterations: int = 2,
) -> tuple[Inexact[Array, "m rank"], Float[Array, " rank"], Inexact[Array, "rank n"]]:
    """The leading ``rank`` singular triplets (U, s, V^H) of ``A``, approximately.

    Arguments and errors as in `range_finder`; ``num_oversamples`` extra directions are carried and
    then dropped.

    Reference: Halko, Martinsson & Tropp (2011), algorithm 5.1.
    """
    _, adjoint, rows, columns, _ = _operator(A, AT, like)
    _check_rank(rank, rows, columns)
    width = min(rank + num_oversamples, rows, columns)
    Q = range_finder(key, A, width, AT=AT, like=like, num_power_iterations=num_power_iterations)
    U, s, Vh = jnp.linalg.svd(adjoint(Q).conj().T, full_matrices=False)
    return matmul(Q, U[:, :rank]), s[:rank], Vh[:rank]


def nystrom(
    key: Key,
    A: LinearMap,
    rank: int,
    *,
    like: jax.ShapeDtypeStruct | Array | None = None,
) -> tuple[Inexact[Array, "n rank"], Float[Array, " rank"]]:
    """The randomized Nystrom approximation U diag(lam) U^H of a positive semidefinite ``A``.

    Costs ``rank`` products, made in one batch. Eigenvalues come in descending order, never
    negative and never above those of ``A`` (to rounding). The core Omega^H A Omega is factorised
    by its eigenvalues, floored at the roundoff that its asymmetry shows: unlike Cholesky's, that
    factor exists in float32 too.

    Args:
        key: PRNG key of the Gaussian test matrix.
        A: Hermitian positive semidefinite: an array (n, n), anything with ``@``, or a callable.
        rank: number of eigenvectors, 1 <= rank <= n.
        like: as in `range_finder`; needed for a callable ``A``.

    Raises:
        ValueError: ``A`` is not square, the rank is out of bounds, or a callable lacks ``like``.

    Reference: Frangella, Tropp & Udell (2023), algorithm 2.1.
    """
    if callable(A) and like is None:
        raise ValueError("a callable A needs like= (shape and dtype of x)")
    apply, _, rows, columns, dtype = _operator(A, A if callable(A) else None, like)
    if rows != columns:
        raise ValueError(f"a Hermitian matrix is square, got ({rows}, {columns})")
    _check_rank(rank, rows, columns)
    Omega = orthonormalize(jax.random.normal(key, (columns, rank), dtype))
    Y = apply(Omega)
    core = _product(Omega.conj().T, Y)
    asymmetry = jnp.linalg.norm(core - core.conj().T)
    shift = jnp.maximum(jnp.finfo(dtype).eps * jnp.linalg.norm(Y), asymmetry)
    shift = jax.lax.stop_gradient(shift)  # of the size of roundoff
    weights, V = jnp.linalg.eigh((core + core.conj().T) / 2 + shift * jnp.eye(rank, dtype=dtype))
    safe = jnp.maximum(weights, jnp.maximum(shift, jnp.finfo(dtype).tiny))
    B = _product(Y + shift * Omega, V) / jnp.sqrt(safe)
    U, s, _ = jnp.linalg.svd(B, full_matrices=False)
    return U, jnp.maximum(s**2 - shift, 0)


def energy_rank(
    values: Float[Array, " k"], threshold: Float[Array, ""] | float
) -> Integer[Array, ""]:
    """The smallest number of leading entries that hold the share ``threshold`` of the sum.

    Args:
        values: not negative, in descending order: squared singular values.
        threshold: of the sum; 0 or less asks for none. What is within rounding of all, k eps, is
            all. All zeros are held by none.
    """
    held = jnp.cumsum(values)
    wanted = jnp.minimum(threshold, 1 - len(values) * jnp.finfo(values.dtype).eps) * held[-1]
    before = jnp.concatenate([jnp.zeros_like(held[:1]), held[:-1]])
    return jnp.sum((before < wanted) & (values > 0))


def _operator(A, AT, like) -> tuple[Any, Any, int, int, Any]:
    """The maps X -> A X and Y -> A^H Y on matrices, the shape of A, and its dtype."""
    if not callable(A):
        if A.ndim != 2:
            raise ValueError(f"A must be a matrix, got shape {A.shape}")
        rows, columns = A.shape
        # A^H Y by way of A^T: sparse matrices have no conj.
        return (
            lambda X: _product(A, X),
            lambda Y: _product(A.T, Y.conj()).conj(),
            rows,
            columns,
            A.dtype,
        )
    if AT is None or like is None:
        raise ValueError("a callable A needs its adjoint AT= and like= (shape and dtype of x)")
    (columns,) = like.shape
    (rows,) = jax.eval_shape(A, jax.ShapeDtypeStruct(like.shape, like.dtype)).shape
    return jax.vmap(A, 1, 1), jax.vmap(AT, 1, 1), rows, columns, like.dtype


def _check_rank(rank: int, rows: int, columns: int) -> None:
    if not 1 <= rank <= min(rows, columns):
        raise ValueError(f"rank must lie in 1..min(m, n) = {min(rows, columns)}, got {rank}")


def _product(A, X):
    if isinstance(A, jax.Array):
        return matmul(A, X)
    return A @ X
