"""Leading singular triplets by thick-restart Golub-Kahan bidiagonalization."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov import _restart as restart
from subspace_jax.krylov._basis import Flat, orthogonalize, rectangular, refill, unit
from subspace_jax.krylov._eigenpairs import differentiable, true_errors
from subspace_jax.krylov._operands import Tolerance
from subspace_jax.krylov._solution import Solution
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


class SingularTriplets(NamedTuple):
    """Approximate singular values and vectors: A v = s u, A^H u = s v."""

    U: PyTree
    """Orthonormal, k columns on the last axis of every leaf; (m, k) for arrays."""
    values: Array
    """(k,), descending."""
    V: PyTree
    """As U, in the domain of A; (n, k) for arrays."""
    residual_norms: Array
    """(k,), sqrt(||A v - s u||^2 + ||A^H u - s v||^2), computed anew."""


def svds(
    A: LinearMap,
    AT: LinearMap,
    v0: PyTree,
    *,
    k: int,
    num_basis: int | None = None,
    rtol: Tolerance | None = None,
    maxiter: int | None = None,
) -> Solution:
    """The ``k`` largest singular values of a rectangular operator, with their vectors.

    Works on A itself, not on A^H A: small ones among the k keep their digits. Of a multiple value
    one triplet is sure to be found. Derivatives are implicit, as in `eigsh`.

    Args:
        A: any linear map: a callable on any pytree, or anything with ``@``.
        AT: its adjoint A^H.
        v0: where to start, in the domain of A; random is good.
        k: number of triplets, 1 <= k <= the smaller dimension of A.
        num_basis: vectors held on each side; None: min(m, n, max(2 k + 1, 20)).
        rtol: a triplet is found when its residual norm is below rtol s; None as in `eigsh`.
        maxiter: restarts; None: ten times the smaller dimension, 10000 at most.

    Returns:
        `Solution` (triplets, info): triplets.U, .values, .V, .residual_norms. ``num_matvecs``
        counts products with A and with ``AT``.

    Raises:
        ValueError: maps that do not fit ``v0`` or each other, or an option out of bounds.

    Reference: Baglama & Reichel (2005).
    """
    apply, adjoint, start, image = rectangular(A, AT, v0)
    plan = restart.plan(min(start.x.size, image.x.size), start.x.dtype, k, num_basis, rtol, maxiter)
    maps = apply.frozen(), adjoint.frozen()
    state = jax.lax.stop_gradient(_iterate(*maps, start.x, image.x, plan))
    svd, half = state.svd, jnp.sqrt(jnp.asarray(0.5, state.svd.values.dtype))
    U, V = matmul(svd.X[:, :k].T, state.U), matmul(svd.Y[:, :k].T, state.V[:-1])
    values, pairs = svd.values[:k], half * jnp.concatenate([U, V], axis=1)
    dilated = _dilated(apply, adjoint, image.x)
    errors = true_errors(dilated.frozen(), values, pairs) / half
    true = restart.is_found(errors, values, values[0], plan.rtol, restart.MANY)
    counts = state.num_restarts, state.num_matvecs + 2 * k
    info = jax.lax.stop_gradient(restart.info(*counts, svd.found, errors, true))
    values, pairs = differentiable(dilated, values, pairs)
    U, V = jnp.split(pairs / half, [image.x.size], axis=1)
    errors = jax.lax.stop_gradient(errors)
    return Solution(SingularTriplets(image.columns(U), values, start.columns(V), errors), info)


class _Small(NamedTuple):
    """The singular value decomposition X diag(values) Y^T of the bidiagonal matrix."""

    X: Array
    values: Array
    Y: Array
    coupling: Array
    """(m,), of A^H u with the last vector of V."""
    found: Array
    finite: Array
    num_kept: Array


class _State(NamedTuple):
    U: Array
    """(m, rows) orthonormal rows."""
    V: Array
    """(m + 1, columns) orthonormal rows."""
    svd: _Small
    num_restarts: Any
    num_matvecs: Any


def _dilated(apply: Flat, adjoint: Flat, u: Array) -> Flat:
    """The Hermitian map (u, v) -> (A v, A^H u), whose eigenvalues are +-s."""

    def product(constants, x):
        head, tail = jnp.split(x, [u.size])
        return jnp.concatenate(
            [apply.product(constants[0], tail), adjoint.product(constants[1], head)]
        )

    return Flat(product, (apply.constants, adjoint.constants))


def _iterate(apply: Flat, adjoint: Flat, v: Array, u: Array, plan: restart.Plan) -> _State:
    m, k = plan.num_basis, plan.k
    most = restart.most_kept(k, m)

    def unfinished(state):
        going = ~jnp.all(state.svd.found) & state.svd.finite
        return going & (state.num_restarts < plan.maxiter)

    def cycle(state):
        old, kept = state.svd, state.svd.num_kept
        U = restart.compressed(state.U, old.X, kept, most)
        V = restart.compressed(state.V, old.Y, kept, most).at[kept].set(state.V[m])
        in_use = jnp.arange(m) < kept
        B = jnp.diag(jnp.where(in_use, old.values, 0))
        B = jnp.pad(B, ((0, 0), (0, 1))).at[:, kept].add(jnp.where(in_use, old.coupling, 0))
        U, V, B = _extended(apply, adjoint, U, V, B, kept)
        num_matvecs = state.num_matvecs + 2 * (m - kept)
        return _State(U, V, _decomposed(B, plan), state.num_restarts + 1, num_matvecs)

    zero = jnp.zeros(m, v.real.dtype)
    nothing = jnp.zeros((m, m), zero.dtype)
    none = _Small(nothing, zero, nothing, zero, zero[:k] > 0, jnp.array(True), jnp.int32(0))
    U = jnp.zeros((m, u.size), u.dtype)
    V = jnp.zeros((m + 1, v.size), v.dtype).at[m].set(unit(v))
    return jax.lax.while_loop(unfinished, cycle, _State(U, V, none, jnp.int32(-1), jnp.int32(0)))


def _extended(apply, adjoint, U, V, B, first) -> tuple[Array, Array, Array]:
    """Golub-Kahan steps from the row ``first`` on, up to the last; B is (m, m + 1)."""

    def step(j, carry):
        U, V, B = carry
        before = jnp.maximum(j - 1, 0)
        w = apply(V[j])
        size = tree.norm(w)
        w = w - jnp.where(j > 0, B[before, j], 0) * U[before]
        _, u, alpha, dead = orthogonalize((U,), w, size)
        u = jax.lax.cond(dead, lambda: refill((U,), u, j), lambda: u)
        w = adjoint(u)
        _, v, beta, dead = orthogonalize((V,), w - alpha * V[j], tree.norm(w))
        v = jax.lax.cond(dead, lambda: refill((V,), v, j), lambda: v)
        return U.at[j].set(u), V.at[j + 1].set(v), B.at[j, j].set(alpha).at[j, j + 1].set(beta)

    return jax.lax.fori_loop(first, len(U), step, (U, V, B))


def _decomposed(B: Array, plan: restart.Plan) -> _Small:
    m, k = plan.num_basis, plan.k
    finite = jnp.all(jnp.isfinite(B))
    X, values, Yt = jnp.linalg.svd(jnp.where(finite, B[:, :m], 0))
    values = jnp.where(finite, values, jnp.nan)
    coupling = B[m - 1, m] * X[-1]
    found = restart.is_found(jnp.abs(coupling[:k]), values[:k], values[0], plan.rtol)
    kept = restart.num_kept(jnp.sum(found), k, m)
    return _Small(X, values, Yt.T, coupling, found, finite, kept)
