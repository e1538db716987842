"""Conjugate gradients along directions from anywhere: a varying preconditioner, a network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import times
from subspace_jax.krylov._iterate import RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance, check_count
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._rows import absent
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import Array, LinearMap, PyTree


def flexible_cg(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    direction: Callable[[PyTree], PyTree],
    num_conjugate: int = 2,
    rtol: Tolerance | None = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> Solution:
    """The solution of A x = b for Hermitian positive definite A, along directions of the caller's.

    Each direction is made A-conjugate to the last ``num_conjugate`` ones and followed to the least
    error in the A-norm. With the directions of a fixed positive definite preconditioner this is
    `cg`; they may come from any function, a network (DCDM) or an inner solver.

    Args:
        A: see `cg`.
        b: see `cg`.
        x0: see `cg`.
        direction: residual of unit norm -> direction, in the same space; need not be linear.
        num_conjugate: previous directions that are kept, at two vectors each; at least 0.
        rtol: see `cg`.
        atol: see `cg`.
        maxiter: see `cg`.
        history: see `cg`.
        check_every: see `cg`.
        AT: see `cg`.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`.

    Returns:
        See `cg`; the solves for derivatives use ``direction`` too. ``BREAKDOWN``: a direction that
        vanishes or is orthogonal to the residual.

    Raises:
        ValueError: as in `cg`, or ``num_conjugate`` < 0, or a direction of another shape or dtype.

    Reference: Notay (2000); Kaneda et al. (2023), algorithm 1.
    """
    num_conjugate = check_count("num_conjugate", num_conjugate, 0)
    if not callable(direction):
        raise ValueError(f"direction must be a function of a residual, got {direction!r}")
    options = Options(
        direction, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve(
        lambda system: _method(system, num_conjugate), A, b, x0, options,
        hermitian=True, name="direction",
    )  # fmt: skip


class _State(NamedTuple):
    x: PyTree
    r: PyTree
    P: PyTree
    """(num_conjugate, ...) previous directions at every leaf, the oldest overwritten first."""
    AP: PyTree
    curvatures: Array
    """(num_conjugate,) of <p, A p>; 0 where there is none yet."""
    k: Any
    error: Any
    status: Any


def _method(system: System, m: int) -> Method:
    propose = system.precondition or (lambda r: r)

    def begin(x, r, error):
        P = absent(m, r)
        zero = jnp.zeros((), jnp.int32)
        return _State(x, r, P, P, jnp.zeros(m, error.dtype), zero, error, jnp.int32(RUNNING))

    def step(s, on):
        d = propose(times(1 / jnp.where(s.error > 0, s.error, 1), s.r))
        if m:
            overlaps = jax.vmap(system.inner, (0, None))(s.AP, d)
            known = s.curvatures > 0
            overlaps = jnp.where(known, overlaps, 0) / jnp.where(known, s.curvatures, 1)
            d = jax.tree.map(
                lambda d, P: (d - jnp.tensordot(overlaps, P, 1)).astype(d.dtype), d, s.P
            )
        q = system.apply(d)
        curvature = system.inner(d, q).real
        fine = curvature > 0
        alpha = jnp.where(fine, system.inner(d, s.r), 0) / jnp.where(fine, curvature, 1)
        x = hold(on, tree.axpy(alpha, d, s.x), s.x)
        r = hold(on, tree.axpy(-alpha, q, s.r), s.r)
        error = system.norm(r)
        status = jnp.where(fine & (alpha != 0), RUNNING, int(Status.BREAKDOWN))
        status = jnp.where(curvature < 0, int(Status.INDEFINITE), status)
        finite = jnp.isfinite(curvature) & jnp.isfinite(error)
        status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
        P, AP, curvatures = s.P, s.AP, s.curvatures
        if m:
            index = jnp.where(on, s.k % m, m)  # m: dropped

            def put(rows, leaf):
                return rows.at[index].set(leaf, mode="drop")

            P, AP = jax.tree.map(put, P, d), jax.tree.map(put, AP, q)
            curvatures = put(curvatures, curvature)
        return _State(x, r, P, AP, curvatures, s.k + 1, error, status)

    return Method(begin, step)
