"""Stabilised biconjugate gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import divide
from subspace_jax.krylov._iterate import RESTART, RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def bicgstab(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
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
    """The solution of A x = b for general square A, by stabilised biconjugate gradients.

    Two products a step, few vectors; the residual does not fall monotonically. Preconditioned on
    the right. A division by zero restarts the method from the true residual; if it comes again in
    the first step it is a ``BREAKDOWN``. Other arguments, derivatives and errors as in `cg`; the
    solves for derivatives use A^H and the preconditioner's adjoint.

    Reference: van der Vorst (1992).
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve(_method, A, b, x0, options, hermitian=False)


class _State(NamedTuple):
    x: PyTree
    r: PyTree
    shadow: PyTree
    p: PyTree
    v: PyTree
    rho: Any
    alpha: Any
    omega: Any
    error: Any
    status: Any


def _method(system: System) -> Method:
    precondition = system.precondition or (lambda r: r)

    def begin(x, r, norm):
        zeros = jax.tree.map(jnp.zeros_like, r)
        one = jnp.ones_like(system.inner(r, r))
        return _State(
            x, r, r, zeros, zeros, one, one, one, norm, jnp.int32(RUNNING)
        )  # fmt: skip

    def step(s, on):
        rho = system.inner(s.shadow, s.r)
        beta = divide(rho, s.rho) * divide(s.alpha, s.omega)
        # The order of operations matters for breakdowns: beta p - beta omega v first.
        p = jax.tree.map(
            lambda r, p, v: (r + (beta * p - (beta * s.omega) * v)).astype(r.dtype), s.r, s.p, s.v
        )
        p = hold(on, p, s.p)
        p_hat = precondition(p)
        v = hold(on, system.apply(p_hat), s.v)
        shadow_v = system.inner(s.shadow, v)
        alpha = divide(rho, shadow_v)
        half = tree.axpy(-alpha, v, s.r)
        half_hat = precondition(half)
        t = system.apply(half_hat)
        omega = divide(system.inner(t, half), system.inner(t, t))
        x = jax.tree.map(
            lambda x, p, h: (x + alpha * p + omega * h).astype(x.dtype), s.x, p_hat, half_hat
        )
        x = hold(on, x, s.x)
        r = hold(on, tree.axpy(-omega, t, half), s.r)
        error = system.norm(r)
        # Orthogonal to rounding: a next direction would be noise.
        tiny = jnp.finfo(error.dtype).eps ** 2
        broken = (jnp.abs(rho) <= tiny * s.error**2) | (omega == 0) | (shadow_v == 0)
        status = jnp.where(broken & (error > 0), RESTART, RUNNING)
        finite = jnp.isfinite(jnp.abs(alpha)) & jnp.isfinite(jnp.abs(omega))
        finite &= jnp.isfinite(error)
        status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
        return _State(x, r, s.shadow, p, v, rho, alpha, omega, error, status)

    return Method(begin, step, matvecs=2)
