"""Conjugate gradients for several right-hand sides, which share their search space."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from subspace_jax import tree
from subspace_jax.krylov import _problem as problem
from subspace_jax.krylov._arithmetic import sqrt, times
from subspace_jax.krylov._iterate import RUNNING, Method, System, iterate, iterate_fixed
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import (
    InnerProduct,
    Options,
    Tolerance,
    check_matrix,
    linear_map,
    vector,
)
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


def block_cg(
    A: LinearMap,
    B: PyTree,
    X0: PyTree | None = None,
    *,
    preconditioner: LinearMap | None = None,
    rtol: Tolerance | None = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> Solution:
    """The solutions of A X = B for Hermitian positive definite A, by block conjugate gradients.

    Every right-hand side is solved in the sum of all their Krylov spaces: fewer steps than one
    after another, each step one product with all columns at once. Linearly dependent residuals
    are dropped from the block as they appear.

    Args:
        A: see `cg`; acts on one vector.
        B: right-hand sides along the last axis of every leaf: (n, s) for arrays.
        X0: where to start, like ``B``; zero if None.
        preconditioner: see `cg`; acts on one vector.
        rtol: stop when ||b_i - A x_i|| <= max(rtol ||b_i||, atol) for every column.
        atol: see ``rtol``.
        maxiter: see `cg`; None means min(10 n, 10000) for n unknowns in one column.
        history: record the largest residual norm relative to its ||b_i|| of every step.
        check_every: see `cg`.
        AT: see `cg`.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`; of two single vectors.

    Returns:
        `Solution` (value, info), ``residual_norm`` of shape (s,), one status for the block;
        ``num_matvecs`` counts products with the whole block.

    Raises:
        ValueError: as in `cg`.

    Reference: Dubrulle (2001), algorithm BCGrQ.
    """
    B = vector("B", B)
    widths = {leaf.shape[-1:] for leaf in jax.tree.leaves(B)}
    if len(widths) != 1 or widths == {()}:
        raise ValueError(f"B needs one number of columns on every last axis, got {sorted(widths)}")
    (width,) = widths.pop()
    if width == 0:
        raise ValueError("B needs at least one column")
    column = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[:-1], leaf.dtype), B)
    check_matrix("A", A, column)
    if preconditioner is not None:
        check_matrix("preconditioner", preconditioner, column)
    if maxiter is None and rtol is not None:
        maxiter = min(10 * tree.size(B) // width, 10_000)
    options = Options(
        _columnwise("preconditioner", preconditioner) if preconditioner is not None else None,
        rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product,
    )  # fmt: skip
    return problem.solve(
        _method, _columnwise("A", A), B, X0, options, hermitian=True, run=_run, name_b="B"
    )


def _columnwise(name: str, A: LinearMap):
    """The map on blocks of columns."""
    return jax.vmap(linear_map(name, A), -1, -1)


def _run(method, apply, precondition, B, X0, rtol, atol, limits, inner_product) -> Solution:
    """The plain loop, every column scaled by its own power of two."""
    inner = inner_product or tree.vdot
    scale, inverse, zero = jax.vmap(lambda b: problem.power_of_two(b, inner_product), -1)(B)
    B = times(inverse, B)
    X0 = problem.scaled_start(X0, inverse, zero)

    def norms(R):
        return sqrt(jax.vmap(inner, -1)(R, R).real)

    norm_B = norms(B)
    safe = jnp.where(norm_B > 0, norm_B, 1)
    least = jnp.maximum((0.0 if rtol is None else rtol) * safe, atol * inverse) / safe

    def error(R, norm):
        del R
        return jnp.max(norm / safe / jnp.where(least > 0, least / jnp.min(least), 1))

    system = System(
        apply, precondition, inner, norms, B, X0, jnp.min(least).astype(norm_B.dtype), error
    )
    X, info = (iterate_fixed if rtol is None else iterate)(system, method(system), limits)
    info = info._replace(residual_norm=info.residual_norm * scale)
    return Solution(times(scale, X), info)


class _State(NamedTuple):
    x: PyTree
    Q: PyTree
    """The residual block is Q C; Q has orthonormal or zero columns (in M's inner product)."""
    MQ: PyTree | None
    P: PyTree
    C: Array
    S: Array
    error: Any
    status: Any


def _method(system: System) -> Method:
    def gram(X, Y):
        columns = jax.vmap(system.inner, (None, -1))
        return jax.vmap(columns, (-1, None))(X, Y)

    def orthonormalize(W):
        """Q, M Q, and S with W = Q S: twice, so that rounding is not squared."""
        MW = W if system.precondition is None else system.precondition(W)
        inverse, first, _ = _factor(gram(W, MW))
        W, MW = _times(W, inverse), _times(MW, inverse)
        inverse, second, _ = _factor(gram(W, MW))
        return _times(W, inverse), _times(MW, inverse), matmul(second, first)

    def begin(X, R, norms):
        Q, MQ, C = orthonormalize(R)
        zeros = jax.tree.map(jnp.zeros_like, R)
        held = None if system.precondition is None else MQ
        error = system.error(R, norms)
        return _State(X, Q, held, zeros, C, jnp.zeros_like(C), error, jnp.int32(RUNNING))

    def step(s, on):
        MQ = s.Q if s.MQ is None else s.MQ
        P = hold(on, jax.tree.map(jnp.add, MQ, _times(s.P, s.S.conj().T)), s.P)
        AP = system.apply(P)
        inverse, definite = _inverse(gram(P, AP))
        X = jax.tree.map(jnp.add, s.x, _times(P, matmul(inverse, s.C)))
        X = hold(on, X, s.x)
        W = jax.tree.map(jnp.subtract, s.Q, _times(AP, inverse))
        Q, MQ, S = orthonormalize(W)
        C = matmul(S, s.C)
        norm = jnp.linalg.norm(C, axis=0) if s.MQ is None else system.norm(_times(Q, C))
        error = system.error(None, norm)
        status = jnp.where(definite, RUNNING, int(Status.INDEFINITE))
        status = jnp.where(jnp.isfinite(error), status, int(Status.NONFINITE)).astype(jnp.int32)
        held = None if s.MQ is None else MQ
        Q, held, C, S = hold(on, (Q, held, C, S), (s.Q, s.MQ, s.C, s.S))
        return _State(X, Q, held, P, C, S, error, status)

    return Method(begin, step)


def _factor(G: Array) -> tuple[Array, Array, Array]:
    """(S^+, S) with G = S^H S, S upper triangular and zero in dependent rows; G's definiteness."""
    L, kept, definite = _cholesky(G)
    identity = jnp.eye(len(G), dtype=G.dtype)
    inverse = solve_triangular(L + jnp.diag(~kept).astype(G.dtype), identity, lower=True)
    return jnp.where(kept, inverse.conj().T, 0), L.conj().T, definite


def _inverse(G: Array) -> tuple[Array, Array]:
    """The inverse of a Hermitian definite G, zero where G is; and whether it is definite there."""
    inverse, _, definite = _factor(G)
    return matmul(inverse, inverse.conj().T), definite


def _cholesky(G: Array) -> tuple[Array, Array, Array]:
    """L with G = L L^H, which columns are kept, and whether no pivot is negative.

    A column whose pivot is at rounding level depends on those before it: it is zero in L. (With
    eigenvalues in its place the derivative would be NaN at G = I.)
    """
    n = len(G)
    diagonal = jnp.diagonal(G).real
    tiny = 4 * n * jnp.finfo(diagonal.dtype).eps * jnp.max(jnp.abs(diagonal))

    def eliminate(carry, j):
        G, definite = carry
        pivot = G[j, j].real
        fine = pivot > tiny
        column = jnp.where(fine, G[:, j], 0) / jnp.sqrt(jnp.where(fine, pivot, 1))
        column = jnp.where(jnp.arange(n) >= j, column, 0)
        G = G - jnp.outer(column, column.conj())
        return (G, definite & (pivot >= -tiny)), (column, fine)

    (_, definite), (rows, kept) = jax.lax.scan(eliminate, (G, jnp.array(True)), jnp.arange(n))
    return rows.T, kept, definite


def _times(X: PyTree, Y: Array) -> PyTree:
    """The columns of X combined by Y (s, s), at every leaf."""
    return jax.tree.map(lambda leaf: matmul(leaf, Y).astype(leaf.dtype), X)
