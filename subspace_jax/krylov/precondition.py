"""Preconditioners: operators r -> z that approximate A^{-1}, symmetric positive definite if A is.

Each is a callable pytree: it goes through jit, vmap and grad as an argument.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from subspace_jax import linalg, tree
from subspace_jax.krylov._arithmetic import normalized
from subspace_jax.krylov._multigrid import (
    Level,
    RedBlack,
    Symmetric,
    VCycle,
    check_stencil,
    multigrid,
)
from subspace_jax.linalg import operators
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.operators import Stencil
from subspace_jax.typing import Array, Float, Inexact, Key, LinearMap, PyTree

__all__ = [
    "block_jacobi",
    "chebyshev",
    "jacobi",
    "multigrid",
    "nystrom",
    "pyamg",
    "spectral_bound",
    "ssor",
]


def jacobi(diagonal: PyTree) -> Partial:
    """The preconditioner r -> r / diagonal, for vectors of any pytree.

    Raises:
        ValueError: an entry is zero (where it is not traced), or r is not shaped like the diagonal.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(diagonal)[0]:
        if not isinstance(leaf, Tracer) and not np.all(np.asarray(leaf)):
            raise ValueError(f"diagonal{jax.tree_util.keystr(path)} has an entry that is zero")
    return Partial(_divide, diagonal)


def block_jacobi(blocks: Inexact[Array, "num k k"]) -> Partial:
    """The solve with the diagonal blocks of a matrix: r (num k,) -> z (num k,).

    The blocks are inverted once, so that a product is one batched matrix product; the inverse of
    a Hermitian block is made Hermitian.

    Raises:
        ValueError: the blocks are not square matrices, one is singular (where it is not traced),
            or r has another length.
    """
    if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2]:
        raise ValueError(f"need blocks of shape (num, k, k), got {blocks.shape}")
    transposed = blocks.conj().swapaxes(1, 2)
    hermitian = jnp.all(blocks == transposed, axis=(1, 2), keepdims=True)
    inverses = jnp.linalg.inv(blocks)
    if not isinstance(inverses, Tracer) and not np.all(np.isfinite(np.asarray(inverses))):
        raise ValueError("a block is singular")
    mean = (inverses + inverses.conj().swapaxes(1, 2)) / 2
    # Rounding is taken away from the values; the derivative stays that of the inverse.
    rounding = jax.lax.stop_gradient(jnp.where(hermitian, mean - inverses, 0))
    return Partial(_block_product, inverses + rounding)


def chebyshev(
    A: LinearMap,
    *,
    degree: int,
    lower: float | Float[Array, ""],
    upper: float | Float[Array, ""],
    preconditioner: LinearMap | None = None,
) -> Partial:
    """The Chebyshev iteration from zero, a fixed polynomial in ``A``: r -> p(A) r, any pytree.

    With the spectrum of A in [lower, upper], that of I - p(A) A is at most 1 / T_degree(theta) in
    size, theta = (upper + lower) / (upper - lower). Positive definite as long as no eigenvalue
    lies above ``upper`` (see `spectral_bound`); those below ``lower`` are damped less.

    Args:
        A: Hermitian positive definite.
        degree: terms of the polynomial; degree - 1 products with A.
        lower: lower end of the interval, > 0.
        upper: upper end, > lower.
        preconditioner: a simpler one, M ~ A^{-1}: the polynomial is then p(M A) M and the bounds
            are those of M A.

    Raises:
        ValueError: degree < 1, or not 0 < lower < upper (where they are not traced).

    Reference: Saad (2003), algorithm 12.1.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    bounds = isinstance(lower, Tracer) or isinstance(upper, Tracer)
    if not bounds and not 0 < float(lower) < float(upper):
        raise ValueError(f"need 0 < lower < upper, got lower = {lower}, upper = {upper}")
    a = 2 * jnp.arctanh(jnp.sqrt(jnp.asarray(lower) / upper))  # cosh(a) = theta
    k = jnp.arange(degree)
    rho = jnp.exp(-a) * (1 + jnp.exp(-2 * k * a)) / (1 + jnp.exp(-2 * (k + 1) * a))
    momentum, step = rho[1:] * rho[:-1], 4 * rho[1:] / (upper - lower)
    inner = operators.as_operator(_same if preconditioner is None else preconditioner)
    first = 2 / (jnp.asarray(upper) + lower)
    return Partial(_chebyshev, operators.as_operator(A), inner, first, momentum, step)


def spectral_bound(
    key: Key, A: LinearMap, like: PyTree, *, num_steps: int = 20
) -> Float[Array, ""]:
    """An upper bound of the eigenvalues of a Hermitian ``A``, by Lanczos from a random vector.

    The largest Ritz value plus the norm of the last residual: in practice above the spectrum, by
    tens of per cent.

    Args:
        key: PRNG key of the start.
        A: Hermitian, a callable on pytrees or anything with ``@``.
        like: arrays or ``ShapeDtypeStruct``s shaped like v.
        num_steps: products with A.

    Reference: Zhou & Li (2011), algorithm 4.4.
    """
    matvec = operators.as_callable(A)
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), like)
    flat, unravel = ravel_pytree(zeros)
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))

    def step(carry, _):
        v, previous, beta = carry
        w = tree.axpy(-beta, previous, matvec(v))
        alpha = tree.vdot(v, w).real
        w = tree.axpy(-alpha, v, w)
        beta = tree.norm(w)
        return (normalized(w, beta), v, beta), (alpha, beta)

    carry = (normalized(start, tree.norm(start)), zeros, jnp.zeros((), flat.real.dtype))
    _, (alphas, betas) = jax.lax.scan(step, carry, length=num_steps)
    T = jnp.diag(alphas) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    return jnp.linalg.eigvalsh(T)[-1] + betas[-1]


def ssor(
    operator: Stencil, *, omega: float | Float[Array, ""] = 1.0, num_sweeps: int = 1
) -> Symmetric:
    """Symmetric over-relaxation on a grid in two colours: forward and then backward sweeps.

    In red-black order a sweep is two products with the operator, instead of a triangular solve.
    With ``omega = 1`` it is the symmetric Gauss-Seidel iteration.

    Args:
        operator: from `linalg.operators.diffusion`, any rank.
        omega: relaxation, 0 < omega < 2.
        num_sweeps: pairs of sweeps.

    Raises:
        ValueError: the operator is not a `Stencil`, ``omega`` lies outside (where it is not
            traced), or there is no sweep.

    Reference: Saad (2003), sections 10.2 and 12.4.
    """
    check_stencil("ssor", operator)
    if not isinstance(omega, Tracer) and not 0 < float(omega) < 2:
        raise ValueError(f"need 0 < omega < 2, got {omega}")
    if num_sweeps < 1:
        raise ValueError(f"need at least one sweep, got num_sweeps = {num_sweeps}")
    forward, backward = (RedBlack(operator, omega, first) for first in (0, 1))
    return Symmetric(operator, forward, backward, num_sweeps)


def nystrom(
    key: Key,
    A: LinearMap,
    like: PyTree,
    *,
    rank: int,
    shift: float | Float[Array, ""],
    max_rank: int | None = None,
) -> Partial:
    """The Nystrom preconditioner of A + shift I: for a fast decaying spectrum, as of kernels.

    On the leading eigenvectors U of A it is (lam_l + shift) / (lam + shift), elsewhere one: the
    condition number falls from (lam_1 + shift) / shift to nearly (lam_l + shift) / shift.
    With a ``max_rank`` that many eigenpairs are computed, and those are used, by a mask, up to
    the first after ``rank`` with lam <= 10 shift, beyond which more gain little.

    Args:
        key: PRNG key.
        A: Hermitian positive semidefinite, without the shift.
        like: arrays or ``ShapeDtypeStruct``s shaped like v, any pytree.
        rank: number of eigenpairs, l.
        shift: mu > 0.
        max_rank: the most eigenpairs, >= rank.

    Raises:
        ValueError: shift <= 0 (where it is not traced), a rank out of bounds, or r has another
            size than ``like``.

    Reference: Frangella, Tropp & Udell (2023), equation 5.3 and section 5.4.
    """
    if not isinstance(shift, Tracer) and not float(shift) > 0:
        raise ValueError(f"shift must be positive, got {shift}")
    if max_rank is not None and max_rank < rank:
        raise ValueError(f"max_rank = {max_rank} is below rank = {rank}")
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), like)
    flat, unravel = ravel_pytree(zeros)
    matvec = operators.as_callable(A)
    U, values = linalg.nystrom(
        key, lambda v: tree.ravel(matvec(unravel(v))), max_rank or rank, like=flat
    )
    enough = (values <= 10 * shift) & (jnp.arange(values.size) >= rank - 1)
    last = jnp.where(enough.any(), jnp.argmax(enough), values.size - 1)
    used = jnp.arange(values.size) <= last
    weights = jnp.where(used, 1 - (values[last] + shift) / (values + shift), 0)
    return Partial(_deflate, U, weights.astype(values.dtype))


def pyamg(hierarchy: Any, *, degree: int = 2) -> VCycle:
    """The V-cycle r -> z of an algebraic multigrid hierarchy made by pyamg, on vectors (n,).

    Reads ``hierarchy.levels[i].A``, ``.P`` and ``.R`` (scipy sparse) once, on the host. Smoothed
    by Chebyshev polynomials of the Jacobi-scaled matrix; positive definite if A is, with R = P^T.

    Args:
        hierarchy: what ``pyamg.smoothed_aggregation_solver(A)`` and the like return.
        degree: of the smoothing polynomial; degree - 1 products with A, before and after.

    Raises:
        ValueError: ``hierarchy`` has no levels.

    Reference: Adams, Brezina, Hu & Tuminaro (2003).
    """
    if not getattr(hierarchy, "levels", None):
        raise ValueError(f"need a hierarchy with levels, got {type(hierarchy).__name__}")
    *finer, coarsest = hierarchy.levels
    levels = []
    for level in finer:
        A, smoother = operators.ell(level.A), _smoother(level.A, degree)
        transfers = operators.ell(level.R), operators.ell(level.P)
        levels.append(Level(A, smoother, smoother, *transfers))
    inverse = np.linalg.pinv(coarsest.A.toarray())  # as pyamg does: the matrix may be singular
    return VCycle(tuple(levels), operators.as_operator(inverse))


def _smoother(matrix: Any, degree: int) -> Partial:
    """A Chebyshev polynomial on the upper part of the spectrum of the Jacobi-scaled matrix."""
    diagonal = matrix.diagonal()
    # Gershgorin's bound of D^{-1} A.
    upper = float(np.max(np.asarray(abs(matrix).sum(axis=1)).ravel() / np.abs(diagonal)))
    scaling = jacobi(jnp.asarray(diagonal))
    return chebyshev(
        operators.ell(matrix), degree=degree, lower=upper / 6, upper=upper, preconditioner=scaling
    )


def _divide(diagonal: PyTree, r: PyTree) -> PyTree:
    tree.check_same_shapes("r", r, "diagonal", diagonal)
    return jax.tree.map(lambda x, d: (x / d).astype(x.dtype), r, diagonal)


def _block_product(inverses: Array, r: Array) -> Array:
    num, k, _ = inverses.shape
    if r.shape != (num * k,):
        raise ValueError(f"{num} blocks of size {k} need a vector ({num * k},), got {r.shape}")
    blocks = r.reshape(num, k, 1)
    return matmul(inverses, blocks).reshape(-1)


def _chebyshev(A, M, first, momentum, step, r):
    def term(carry, weights):
        z, d = carry
        residual = M(tree.axpy(-1.0, A(z), r))
        d = jax.tree.map(
            lambda d, s: (weights[0] * d + weights[1] * s).astype(d.dtype), d, residual
        )
        return (tree.axpy(1.0, d, z), d), None

    z = jax.tree.map(lambda x: (first * x).astype(x.dtype), M(r))
    return jax.lax.scan(term, (z, z), (momentum, step))[0][0]


def _deflate(U: Array, weights: Array, r: PyTree) -> PyTree:
    flat, unravel = ravel_pytree(r)
    if flat.size != U.shape[0]:
        raise ValueError(f"the preconditioner is for size {U.shape[0]}, got r of {flat.size}")
    return unravel(flat - matmul(U, weights * matmul(U.conj().T, flat)))


def _same(r: PyTree) -> PyTree:
    return r
