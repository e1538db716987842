"""Minimal residuals for Hermitian systems."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import hypot, sqrt, times
from subspace_jax.krylov._iterate import RESTART, RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def minres(
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
    """The solution of A x = b for Hermitian, possibly indefinite A, by minimal residuals.

    The preconditioner is Hermitian positive definite. With one, the method minimises the residual
    in the preconditioner's norm, yet stops on the true Euclidean one. A singular system that is
    consistent is solved; one that is not ends with ``STAGNATION`` near a least-squares solution.
    Other arguments, derivatives and errors as in `cg`.

    Reference: Paige & Saunders (1975), section 6.
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve(_method, A, b, x0, options, hermitian=True)


class _State(NamedTuple):
    x: PyTree
    r: PyTree | None
    """The residual, carried only where its norm is not ``phi_bar``: with a preconditioner."""
    u: PyTree
    """Lanczos vectors beta_k v_k of this step and the one before, in the residual's space."""
    u_old: PyTree
    y: PyTree | None
    """The preconditioner's M u."""
    w: PyTree
    w_old: PyTree
    beta: Any
    beta_old: Any
    delta_bar: Any
    epsilon: Any
    phi_bar: Any
    cosine: Any
    sine: Any
    scale: Any
    """Largest entry of the tridiagonal matrix so far, for the size of A."""
    low: Any
    """The least slope ||A r|| / ||r|| so far, and ||r|| there."""
    phi_low: Any
    error: Any
    status: Any


def _method(system: System) -> Method:
    def precondition(u, norm=None):
        if system.precondition is None:
            norm = system.norm(u) if norm is None else norm
            return None, norm, jnp.ones_like(norm)
        y = system.precondition(u)
        square = system.inner(u, y).real
        return y, sqrt(jnp.maximum(square, 0)), square

    def begin(x, r, norm):
        y, beta, _ = precondition(r, norm)
        zeros, zero = jax.tree.map(jnp.zeros_like, r), jnp.zeros_like(beta)
        carried = None if system.precondition is None else r
        return _State(
            x, carried, r, zeros, y, zeros, zeros, beta, zero, zero, zero, beta, zero - 1, zero,
            zero, jnp.full_like(beta, jnp.inf), beta, norm, jnp.int32(RUNNING),
        )  # fmt: skip

    def step(s, on):
        beta = jnp.where(s.beta > 0, s.beta, 1)
        v = times(1 / beta, s.u if s.y is None else s.y)
        u = system.apply(v)
        first = s.beta_old == 0
        ratio = jnp.where(first, 0, s.beta) / jnp.where(first, 1, s.beta_old)
        u = tree.axpy(-ratio, s.u_old, u)
        alpha = system.inner(v, u).real
        u = hold(on, tree.axpy(-alpha / beta, s.u, u), s.u)
        y, beta_new, square = precondition(u)

        delta = s.cosine * s.delta_bar + s.sine * alpha
        gamma_bar = s.sine * s.delta_bar - s.cosine * alpha
        gamma = hypot(gamma_bar, beta_new)
        scale = jnp.maximum(s.scale, jnp.maximum(jnp.abs(alpha), beta_new))
        # ||A r|| / ||r|| before this step: zero at a least-squares solution, where no step helps.
        # Rounding lets it fall to sqrt(eps) ||A|| there and then lifts it, while ||r|| stays. A
        # start from the true residual tells that from a residual along small eigenvectors.
        slope = hypot(gamma_bar, s.cosine * beta_new)
        lower = slope < s.low
        low = jnp.where(lower, slope, s.low)
        phi_low = jnp.where(lower, s.phi_bar, s.phi_low)
        eps = jnp.finfo(gamma.dtype).eps
        turned = (low <= eps**0.5 * scale) & (slope >= 4 * low) & (s.phi_bar >= 0.99 * phi_low)
        idle = turned | (slope <= 10 * eps * scale)
        gamma = jnp.where(gamma > 0, gamma, 1)
        cosine, sine = gamma_bar / gamma, beta_new / gamma
        phi = jnp.where(idle, 0, cosine * s.phi_bar)
        phi_bar = jnp.where(idle, s.phi_bar, sine * s.phi_bar)

        w = jax.tree.map(
            lambda v, w_old, w: ((v - s.epsilon * w_old - delta * w) / gamma).astype(v.dtype),
            v, s.w_old, s.w,
        )  # fmt: skip
        w = hold(on, w, s.w)
        x = hold(on, tree.axpy(phi, w, s.x), s.x)
        r, error = s.r, phi_bar
        if r is not None:
            safe = jnp.where(beta_new > 0, beta_new, 1)
            r = jax.tree.map(
                lambda r, u: (sine**2 * r - (phi_bar * cosine / safe) * u).astype(r.dtype), r, u
            )
            r = hold(on, r, s.r)
            error = system.norm(r)
        status = jnp.where(idle & (error > 0), RESTART, RUNNING)
        status = jnp.where(square >= 0, status, int(Status.PRECONDITIONER_BREAKDOWN))
        finite = jnp.isfinite(alpha) & jnp.isfinite(beta_new)
        status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
        u_old, w_old = hold(on, (s.u, s.w), (s.u_old, s.w_old))
        return _State(
            x, r, u, u_old, y, w, w_old, beta_new, s.beta, -s.cosine * beta_new,
            s.sine * beta_new, phi_bar, cosine, sine, scale, low, phi_low, error, status,
        )  # fmt: skip

    return Method(begin, step, max_idle=1)
