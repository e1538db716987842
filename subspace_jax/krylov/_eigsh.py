"""Extreme eigenpairs of Hermitian operators by the thick-restart Lanczos method."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import tree
from subspace_jax.krylov._basis import (
    Flat,
    default_rtol,
    flat_map,
    orthogonalize,
    refill,
    start_vector,
    unit,
)
from subspace_jax.krylov._eigenpairs import differentiable
from subspace_jax.krylov._operands import Options, Tolerance, check_count, check_limits
from subspace_jax.krylov._solution import Info, Solution, Status
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


class Ritz(NamedTuple):
    """Approximate eigenpairs of a Hermitian operator."""

    values: Array
    """(k,), real."""
    vectors: PyTree
    """Orthonormal, k columns on the last axis of every leaf; (n, k) for arrays."""
    residual_norms: Array
    """(k,), at least ||A v - theta v||: no eigenvalue of A is farther from theta than that."""


def eigsh(
    A: LinearMap,
    v0: PyTree,
    *,
    k: int,
    which: str = "largest",
    num_basis: int | None = None,
    rtol: Tolerance | None = None,
    maxiter: int | None = None,
) -> Solution:
    """The ``k`` eigenpairs at the ends of a Hermitian operator's spectrum.

    Products with A alone. Of a multiple eigenvalue one vector is sure to be found, the others
    only by rounding: `lobpcg` and `subspace_iteration` find them all.

    Derivatives by all that A closes over are implicit: of eigenvalues always, of eigenvectors
    where the eigenvalue is simple (orthogonal to the vector: its length and phase stay).

    Args:
        A: Hermitian, see `cg`.
        v0: where to start, any pytree; random is good. Without components along a wanted vector
            that one is found by rounding at best.
        k: number of pairs, 1 <= k <= n.
        which: "largest" or "smallest" eigenvalues, algebraically, first those nearest to that end;
            "both_ends": half of them (the larger half for odd k) from the upper end, ascending.
        num_basis: vectors held, k < num_basis <= n; None: min(n, max(2 k + 1, 20)).
        rtol: a pair is found when ||A v - theta v|| <= rtol |theta| or that is rounding beside
            |A|; None: 1e-10, in single precision 1e-5. Zero asks for what rounding allows.
        maxiter: restarts; None: min(10 n, 10000).

    Returns:
        `Solution` (ritz, info): ritz.values, ritz.vectors, ritz.residual_norms. ``num_steps``
        counts restarts, ``residual_norm`` is the largest of all.

    Raises:
        ValueError: not a linear map on the space of ``v0``, or an option out of bounds.

    Reference: Wu & Simon (2000); Stewart (2001).
    """
    apply = flat_map("A", A, v0)
    start = start_vector("v0", v0)
    plan = _plan(start.x.size, start.x.dtype, k, which, num_basis, rtol, maxiter)
    state = jax.lax.stop_gradient(_iterate(apply.frozen(), start.x, plan))
    ritz, m = state.ritz, plan.num_basis
    order = np.argsort(plan.order[:k]) if which == "both_ends" else np.arange(k)
    rows = matmul(ritz.Y[:, order].T, state.V[:m])
    values, rows = differentiable(apply, ritz.values[order], rows)
    # The relation A V = V T + ... holds to a rounding of |A| a vector.
    rounding = m * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(ritz.values))
    bounds = jax.lax.stop_gradient(ritz.errors[order] + rounding)
    status = final_status(jnp.all(ritz.found), ritz.finite)
    info = Info(status, state.num_restarts, state.num_matvecs, jnp.max(bounds))
    return Solution(Ritz(values, start.columns(rows), bounds), info)


class _Plan(NamedTuple):
    """The options, checked."""

    k: int
    num_basis: int
    rtol: Any
    maxiter: int
    order: np.ndarray
    """The positions of ascending eigenvalues, the most wanted first."""


class _RitzPairs(NamedTuple):
    values: Array
    """(m,), the most wanted first."""
    Y: Array
    """(m, m), coordinates as columns."""
    coupling: Array
    """(m,), with the last vector of the basis."""
    errors: Array
    """(m,), its size."""
    found: Array
    """(k,)."""
    finite: Array
    num_kept: Array


class _State(NamedTuple):
    V: Array
    """(m + 1, n) orthonormal rows."""
    ritz: _RitzPairs
    num_restarts: Any
    num_matvecs: Any


def _plan(n: int, dtype: Any, k, which, num_basis, rtol, maxiter) -> _Plan:
    k = check_count("k", k, 1, n)
    if num_basis is None:
        num_basis = min(n, max(2 * k + 1, 20))
    m = check_count("num_basis", num_basis, min(k + 1, n), n)
    rtol = default_rtol(rtol, dtype)
    limits = check_limits(Options(rtol=rtol, maxiter=maxiter), n)
    return _Plan(k, m, jax.lax.stop_gradient(rtol), limits.maxiter, wanted_order(which, m))


def wanted_order(which: str, m: int) -> np.ndarray:
    """The positions of m ascending values, the most wanted first.

    Raises:
        ValueError: ``which`` is not one of the three.
    """
    ascending = np.arange(m)
    ends = np.stack([ascending[::-1], ascending], axis=1).ravel()[:m]
    orders = {"largest": ascending[::-1], "smallest": ascending, "both_ends": ends}
    if which not in orders:
        raise ValueError(f"which must be one of {', '.join(orders)}, got {which!r}")
    return orders[which]


def _iterate(apply: Flat, x: Array, plan: _Plan) -> _State:
    m, k = plan.num_basis, plan.k

    def unfinished(state):
        going = ~jnp.all(state.ritz.found) & state.ritz.finite
        return going & (state.num_restarts < plan.maxiter)

    def cycle(state):
        old, kept = state.ritz, state.ritz.num_kept
        V = compressed(state.V, old.Y, kept, most_kept(k, m))
        in_use = jnp.arange(m) < kept
        T = jnp.zeros((m + 1, m + 1), old.values.dtype)
        T = T.at[:m, :m].set(jnp.diag(jnp.where(in_use, old.values, 0)))
        spike = jnp.zeros_like(T[0]).at[:m].set(jnp.where(in_use, old.coupling, 0))
        T = T.at[:, kept].add(spike).at[kept].add(spike)
        V, T = _extended(apply, V, T, kept)
        num_matvecs = state.num_matvecs + m - kept
        return _State(V, _ritz(T, plan), state.num_restarts + 1, num_matvecs)

    zero = jnp.zeros(m, x.real.dtype)
    nothing = jnp.zeros((m, m), zero.dtype)
    none = _RitzPairs(zero, nothing, zero, zero, zero[:k] > 0, jnp.array(True), jnp.int32(0))
    V = jnp.zeros((m + 1, x.size), x.dtype).at[m].set(unit(x))  # the first cycle keeps this alone
    return jax.lax.while_loop(unfinished, cycle, _State(V, none, jnp.int32(-1), jnp.int32(0)))


def num_kept(num_found: Any, k: int, m: int) -> Any:
    """Ritz vectors to keep: k, and one more for each that is found, as ARPACK does.

    More of them, or those that a gap suggests, save steps on easy spectra and cost twice as many on
    hard ones.
    """
    return k + jnp.minimum(num_found, (m - k) // 2).astype(jnp.int32)


def most_kept(k: int, m: int) -> int:
    """The largest value of `num_kept`."""
    return k + (m - k) // 2


def compressed(V: Array, Y: Array, kept: Any, most: int) -> Array:
    """The rows V (m + 1, n) combined by the first ``kept`` columns of Y; then the last; zeros."""
    m = len(V) - 1
    Y = jnp.where(jnp.arange(most) < kept, Y[:, :most], 0)
    rows = jnp.zeros_like(V).at[:most].set(matmul(Y.conj().T, V[:m]))
    return rows.at[kept].set(V[m])


def _extended(apply: Flat, V: Array, T: Array, first: Any) -> tuple[Array, Array]:
    """Lanczos steps from the row ``first`` on, up to the last."""

    def step(j, carry):
        V, T = carry
        w = apply(V[j])
        size = tree.norm(w)
        # The neighbours first: one pass does for their rounding, and for a restart's couplings.
        before = jnp.maximum(j - 1, 0)
        w = w - jnp.where(j > 0, T[j, before], 0) * V[before]
        alpha = tree.vdot(V[j], w).real
        h, v, beta, dead = orthogonalize((V,), w - alpha * V[j], size)
        v = jax.lax.cond(dead, lambda: refill((V,), v, j), lambda: v)
        T = T.at[j, j].set(alpha + h[j].real)
        return V.at[j + 1].set(v), T.at[j, j + 1].set(beta).at[j + 1, j].set(beta)

    return jax.lax.fori_loop(first, len(V) - 1, step, (V, T))


def _ritz(T: Array, plan: _Plan) -> _RitzPairs:
    m, k = plan.num_basis, plan.k
    finite = jnp.all(jnp.isfinite(T))
    values, Y = jnp.linalg.eigh(jnp.where(finite, T[:m, :m], 0))
    values, Y = values[plan.order], Y[:, plan.order]
    coupling = T[m, m - 1] * Y[-1]
    errors = jnp.abs(coupling)
    found = is_found(errors[:k], values[:k], jnp.max(jnp.abs(values)), plan.rtol)
    kept = num_kept(jnp.sum(found), k, m)
    return _RitzPairs(values, Y, coupling, errors, found, finite, kept)


def is_found(errors: Array, values: Array, size: Any, rtol: Any) -> Array:
    """Whether errors are below the tolerance, or rounding beside the ``size`` of A."""
    floor = jnp.finfo(values.dtype).eps * size
    return errors <= jnp.maximum(rtol * jnp.abs(values), floor)


def final_status(found: Any, finite: Any) -> Array:
    """Found, not finite, or out of steps."""
    status = jnp.where(found, int(Status.CONVERGED), int(Status.MAX_STEPS))
    return jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
