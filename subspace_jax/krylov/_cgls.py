"""Least squares by conjugate gradients on the normal equations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import divide, sqrt
from subspace_jax.krylov._iterate import RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._least_squares import least_squares
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def cgls(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    AT: LinearMap | None = None,
    damp: float = 0.0,
    rtol: Tolerance | None = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> Solution:
    """The x that minimises ||A x - b||^2 + damp^2 ||x||^2, by conjugate gradients.

    Conjugate gradients on the normal equations without forming them: fewer vectors than `lsmr`,
    whose arguments it shares; ||A^H r|| does not fall monotonically.

    Reference: Hestenes & Stiefel (1952), section 10; Bjorck (1996), algorithm 7.4.1.
    """
    options = Options(
        None, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return least_squares(_method, A, b, x0, damp, options)


class _State(NamedTuple):
    x: PyTree
    r: PyTree
    s: PyTree
    """A^H r."""
    p: PyTree
    gamma: Any
    before: Any
    largest: Any
    """The largest Rayleigh quotient so far: a lower bound of ||A||^2."""
    error: Any
    status: Any


def _method(system: System, adjoint: Callable, weight: Any) -> Method:
    def norms(s, size):
        gamma = system.inner(s, s).real
        return gamma, jnp.minimum(size, sqrt(gamma) * weight)

    def begin(x, r, norm):
        s = adjoint(r)
        gamma, error = norms(s, norm)
        zeros, never = jax.tree.map(jnp.zeros_like, s), jnp.zeros_like(gamma)
        return _State(x, r, s, zeros, gamma, never, never, error, jnp.int32(RUNNING))

    def step(state, on):
        p = tree.axpy(divide(state.gamma, state.before), state.p, state.s)
        p = hold(on, p, state.p)
        q = system.apply(p)
        square = system.inner(q, q).real
        alpha = divide(state.gamma, square)
        x = hold(on, tree.axpy(alpha, p, state.x), state.x)
        r = hold(on, tree.axpy(-alpha, q, state.r), state.r)
        s = adjoint(r)
        size = system.norm(r)
        gamma, error = norms(s, size)
        largest = jnp.maximum(state.largest, divide(square, state.gamma))
        # A^H r is computed from r in every step, so that its recurrence cannot run ahead: the
        # limit shows as its rounding error.
        level = 10 * jnp.finfo(error.dtype).eps * sqrt(largest) * size
        limited = sqrt(gamma) <= level
        status = jnp.where(limited, int(Status.ATTAINABLE_ACCURACY), RUNNING)
        fine = jnp.isfinite(alpha) & jnp.isfinite(gamma)
        status = jnp.where(fine, status, int(Status.NONFINITE)).astype(jnp.int32)
        return _State(x, r, s, p, gamma, state.gamma, largest, error, status)

    return Method(begin, step, matvecs=2, begin_matvecs=1)
