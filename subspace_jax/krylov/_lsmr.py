"""Least squares by LSMR: the Golub-Kahan process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import divide, hypot, normalized
from subspace_jax.krylov._iterate import RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._least_squares import least_squares
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def lsmr(
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
    """The x that minimises ||A x - b||^2 + damp^2 ||x||^2, by LSMR.

    The Golub-Kahan process; in exact arithmetic MINRES on the normal equations. From x0 = None it
    finds the solution of least norm where there are many.

    Args:
        A: a matrix (m, n), or a linear callable from one space of pytrees to another.
        b: the right-hand side, in the range's space.
        x0: where to start; for a callable ``A`` without ``AT`` it also names the domain.
        AT: the adjoint v -> A^H v; by JAX's transpose if None.
        damp: Tikhonov regularisation, >= 0; static.
        rtol: stop when the true residual r = b - A x has ||r|| <= max(rtol ||b||, atol), or when
            ||A^H r - damp^2 x|| <= rtol ||A^H b||; with ``damp`` the first test is that of the
            stacked residual (r, -damp x). None: exactly ``maxiter`` steps, see `cg`.
        atol: see ``rtol``.
        maxiter: most steps; None means min(10 n, 10000).
        history: record in ``info.history`` the lesser of ||r|| and ||A^H r|| ||b|| / ||A^H b||,
            both as stacked with ``damp``; the second times atol / (rtol ||b||) where that is
            above one, so that either meets the tolerance when its test holds.
        check_every: see `cg`.
        adjoint_rtol: ``rtol`` of the solves for derivatives; None: the same.
        inner_product: see `cg`; used in the domain and in the range.

    Returns:
        `Solution` (value, info); a step takes one product with A and one with A^H. Derivatives
        are implicit and assume full rank: of the least-squares solution for m >= n or damp > 0,
        of the solution of least norm for m < n.

    Raises:
        ValueError: operands that do not fit, a callable ``A`` with neither ``AT`` nor ``x0``, a
            negative ``damp``; otherwise as in `cg`.

    Reference: Fong & Saunders (2011).
    """
    options = Options(
        None, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return least_squares(_method, A, b, x0, damp, options)


class _State(NamedTuple):
    """The letters of Fong & Saunders."""

    x: PyTree
    u: PyTree
    v: PyTree
    h: PyTree
    h_bar: PyTree
    alpha: Any
    alpha_bar: Any
    rho: Any
    rho_bar: Any
    c_bar: Any
    s_bar: Any
    zeta: Any
    zeta_bar: Any
    norm_r: Any
    """The recurrence of section 2.6 for ||r||: what is left to rotate, and the parts done."""
    error: Any
    status: Any


class _NormR(NamedTuple):
    beta_dd: Any
    beta_d: Any
    rho_d: Any
    tau_old: Any
    theta: Any


def _method(system: System, adjoint: Callable, weight: Any) -> Method:
    def begin(x, r, beta):
        u = normalized(r, beta)
        v = adjoint(u)
        alpha = system.norm(v)
        v = normalized(v, alpha)
        one, zero = jnp.ones_like(beta), jnp.zeros_like(beta)
        error = jnp.minimum(beta, alpha * beta * weight)
        norm_r = _NormR(beta, zero, one, zero, zero)
        return _State(
            x, u, v, v, jax.tree.map(jnp.zeros_like, v), alpha, alpha, one, one, one, zero, zero,
            alpha * beta, norm_r, error, jnp.int32(RUNNING),
        )  # fmt: skip

    def step(s, on):
        u = tree.axpy(-s.alpha, s.u, system.apply(s.v))
        beta = system.norm(u)
        u = hold(on, normalized(u, beta), s.u)
        v = tree.axpy(-beta, s.v, adjoint(u))
        alpha = system.norm(v)
        v = hold(on, normalized(v, alpha), s.v)

        c, sine, rho = _rotation(s.alpha_bar, beta)
        theta_new, alpha_bar = sine * alpha, c * alpha
        theta_bar = s.s_bar * rho
        c_bar, s_bar, rho_bar = _rotation(s.c_bar * rho, theta_new)
        zeta, zeta_bar = c_bar * s.zeta_bar, -s_bar * s.zeta_bar
        h_bar = tree.axpy(-divide(theta_bar * rho, s.rho * s.rho_bar), s.h_bar, s.h)
        h_bar = hold(on, h_bar, s.h_bar)
        x = hold(on, tree.axpy(divide(zeta, rho * rho_bar), h_bar, s.x), s.x)
        h = hold(on, tree.axpy(-divide(theta_new, rho), s.h, v), s.h)

        n = s.norm_r
        beta_hat, beta_dd = c * n.beta_dd, -sine * n.beta_dd
        c_tilde, s_tilde, rho_tilde = _rotation(n.rho_d, theta_bar)
        theta, rho_d = s_tilde * rho_bar, c_tilde * rho_bar
        beta_d = -s_tilde * n.beta_d + c_tilde * beta_hat
        tau_old = divide(s.zeta - n.theta * n.tau_old, rho_tilde)
        tau = divide(zeta - theta * tau_old, rho_d)
        residual = hypot(beta_d - tau, beta_dd)
        error = jnp.minimum(residual, jnp.abs(zeta_bar) * weight)
        fine = jnp.isfinite(alpha) & jnp.isfinite(beta) & jnp.isfinite(error)
        status = jnp.where(fine, RUNNING, int(Status.NONFINITE)).astype(jnp.int32)
        return _State(
            x, u, v, h, h_bar, alpha, alpha_bar, rho, rho_bar, c_bar, s_bar, zeta, zeta_bar,
            _NormR(beta_dd, beta_d, rho_d, tau_old, theta), error, status,
        )  # fmt: skip

    return Method(begin, step, matvecs=2, begin_matvecs=1)


def _rotation(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """(c, s, r) with c a + s b = r and c b = s a, for real a and b."""
    r = hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, 1), b / safe, r
