"""Extreme eigenpairs of Hermitian operators by the thick-restart Lanczos method."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import tree
from subspace_jax.krylov import _restart as restart
from subspace_jax.krylov._basis import (
    Flat,
    flat_map,
    orthogonalize,
    refill,
    start_vector,
    unit,
)
from subspace_jax.krylov._eigenpairs import Ritz, differentiable, true_errors
from subspace_jax.krylov._operands import Tolerance
from subspace_jax.krylov._solution import Solution
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


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
    plan = restart.plan(start.x.size, start.x.dtype, k, num_basis, rtol, maxiter)
    wanted = _wanted(which, plan.k, plan.num_basis)
    state = jax.lax.stop_gradient(_iterate(apply.frozen(), start.x, plan, wanted))
    ritz = state.ritz
    order = np.argsort(wanted[0, :k]) if which == "both_ends" else np.arange(k)
    values, rows = ritz.values[order], matmul(ritz.Y[:, order].T, state.V[:-1])
    errors = true_errors(apply.frozen(), values, rows)
    true = restart.is_found(errors, values, ritz.size, plan.rtol, restart.MANY)
    counts = state.num_restarts, state.num_matvecs + k
    info = jax.lax.stop_gradient(restart.info(*counts, ritz.found, errors, true))
    values, rows = differentiable(apply, values, rows)
    return Solution(Ritz(values, start.columns(rows), jax.lax.stop_gradient(errors)), info)


class _RitzPairs(NamedTuple):
    values: Array
    """(m,), the most wanted first."""
    Y: Array
    """(m, m), coordinates as columns."""
    coupling: Array
    """(m,), with the last vector of the basis."""
    size: Array
    """The largest absolute value that A has shown."""
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


def _wanted(which: str, k: int, m: int) -> np.ndarray:
    """Positions of m ascending values, the most wanted first, in three rows that agree up to k.

    The rest come from both ends, from the lower, and from the upper.

    Raises:
        ValueError: ``which`` is not one of the three.
    """
    up = np.arange(m)
    ends = np.stack([up[::-1], up], axis=1).ravel()[:m]
    orders = {"largest": up[::-1], "smallest": up, "both_ends": ends}
    if which not in orders:
        raise ValueError(f"which must be one of {', '.join(orders)}, got {which!r}")
    order = orders[which]
    if which != "both_ends":
        return np.stack([order] * 3)
    rest = np.sort(order[k:])
    return np.stack([order, np.r_[order[:k], rest], np.r_[order[:k], rest[::-1]]])


def _iterate(apply: Flat, x: Array, plan: restart.Plan, wanted: np.ndarray) -> _State:
    m, k = plan.num_basis, plan.k

    def unfinished(state):
        going = ~jnp.all(state.ritz.found) & state.ritz.finite
        return going & (state.num_restarts < plan.maxiter)

    def cycle(state):
        old, kept = state.ritz, state.ritz.num_kept
        V = restart.compressed(state.V, old.Y, kept, restart.most_kept(k, m))
        V = V.at[kept].set(state.V[m])
        in_use = jnp.arange(m) < kept
        T = jnp.zeros((m + 1, m + 1), old.values.dtype)
        T = T.at[:m, :m].set(jnp.diag(jnp.where(in_use, old.values, 0)))
        spike = jnp.zeros_like(T[0]).at[:m].set(jnp.where(in_use, old.coupling, 0))
        T = T.at[:, kept].add(spike).at[kept].add(spike)
        V, T = _extended(apply, V, T, kept)
        num_matvecs = state.num_matvecs + m - kept
        return _State(V, _ritz(T, plan, wanted), state.num_restarts + 1, num_matvecs)

    zero = jnp.zeros(m, x.real.dtype)
    nothing = jnp.zeros((m, m), zero.dtype)
    none = _RitzPairs(zero, nothing, zero, zero[0], zero[:k] > 0, jnp.array(True), jnp.int32(0))
    V = jnp.zeros((m + 1, x.size), x.dtype).at[m].set(unit(x))  # the first cycle keeps this alone
    return jax.lax.while_loop(unfinished, cycle, _State(V, none, jnp.int32(-1), jnp.int32(0)))


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


def _ritz(T: Array, plan: restart.Plan, wanted: np.ndarray) -> _RitzPairs:
    m, k = plan.num_basis, plan.k
    finite = jnp.all(jnp.isfinite(T))
    values, Y = jnp.linalg.eigh(jnp.where(finite, T[:m, :m], 0))
    size = jnp.max(jnp.abs(values))
    errors = jnp.abs(T[m, m - 1] * Y[-1])
    found = restart.is_found(errors, values, size, plan.rtol)[wanted[0, :k]]
    # Of both ends, the one that is done needs no further vectors.
    lower, upper = jnp.all(found[1::2]), jnp.all(found[::2])
    order = jnp.asarray(wanted)[jnp.where(lower == upper, 0, jnp.where(upper, 1, 2))]
    values, Y = jnp.where(finite, values[order], jnp.nan), Y[:, order]
    kept = restart.num_kept(jnp.sum(found), k, m)
    return _RitzPairs(values, Y, T[m, m - 1] * Y[-1], size, found, finite, kept)
