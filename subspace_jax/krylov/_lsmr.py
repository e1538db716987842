"""Least squares: min ||A x - b||, A rectangular, by LSMR and by CGLS."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._iterate import RUNNING, Method, System, iterate, iterate_fixed, hold
from subspace_jax.krylov import _problem as problem
from subspace_jax.krylov._problem import InnerProduct, Options, Tolerance, times
from subspace_jax.krylov._solution import Info, Solution, Status
from subspace_jax.linalg import operators
from subspace_jax.linalg.operators import as_callable
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
            ||A^H r - damp^2 x|| <= rtol ||A^H b||. None: exactly ``maxiter`` steps, see `cg`.
        atol: see ``rtol``.
        maxiter: most steps; None means min(10 n, 10000).
        history: record in ``info.history`` the lesser of ||r|| and ||A^H r|| ||b|| / ||A^H b||.
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
    return _least_squares(_lsmr_method, A, b, x0, damp, options)


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
    return _least_squares(_cgls_method, A, b, x0, damp, options)


class _Maps(NamedTuple):
    """A map and its adjoint."""

    apply: Callable[[PyTree], PyTree]
    adjoint: Callable[[PyTree], PyTree]

    @property
    def flipped(self) -> "_Maps":
        return _Maps(self.adjoint, self.apply)


def _least_squares(method, A, b, x0, damp, options: Options) -> Solution:
    b = problem.vector("b", b)
    x0 = None if x0 is None else problem.vector("x0", x0)
    if isinstance(damp, jax.core.Tracer) or not damp >= 0:
        raise ValueError(f"damp must be a non-negative number known at trace time, got {damp}")
    maps, domain = _operators(A, options.AT, b, x0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), domain)
    limits = problem.check_limits(options, tree.size(zeros))
    tall = tree.size(b) >= tree.size(zeros) or damp > 0
    rhs = (b, zeros) if damp > 0 else b
    maps = _damped(maps, damp) if damp > 0 else maps

    def run(maps, rhs, like, x0, rtol, atol) -> Solution:
        return _run(method, maps, rhs, like, x0, rtol, atol, limits, options.inner_product)

    if options.rtol is None:
        x, info = run(maps, rhs, zeros, x0, None, options.atol)
    else:
        augmented = _tall if tall else _wide
        x, info = augmented(run, maps, rhs, zeros, x0, options)
    if damp > 0:  # the residual of A alone
        r = jax.tree.map(jnp.subtract, rhs, maps.apply(x))[0]
        inner = options.inner_product or tree.vdot
        info = info._replace(
            residual_norm=jax.lax.stop_gradient(jnp.sqrt(inner(r, r).real)),
            num_matvecs=info.num_matvecs + 1,
        )
    return Solution(x, info)


def _operators(A, AT, b, x0) -> tuple[_Maps, PyTree]:
    """A and A^H, their Python code run once, and the shapes of the domain."""
    if hasattr(A, "shape"):
        if len(A.shape) != 2 or jnp.shape(b) != A.shape[:1]:
            raise ValueError(f"A has shape {A.shape}, the right-hand side {jnp.shape(b)}")
        domain = jax.ShapeDtypeStruct(A.shape[1:], b.dtype)
    elif AT is not None:
        domain = jax.eval_shape(as_callable(AT), b)
    elif x0 is not None:
        domain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x0)
    else:
        raise ValueError("a callable A needs its adjoint AT=, or x0 to name its domain")
    if x0 is not None:
        problem.check_same_spaces("x0", x0, "A's domain", domain)
    apply = as_callable(A)
    problem.check_same_spaces("A's result", jax.eval_shape(apply, domain), "b", b)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), domain)
    apply = problem.traced_once(apply, zeros)
    adjoint = operators.adjoint(apply, domain) if AT is None else as_callable(AT)
    problem.check_same_spaces("AT's result", jax.eval_shape(adjoint, b), "A's domain", domain)
    return _Maps(apply, problem.traced_once(adjoint, b)), domain


def _damped(maps: _Maps, damp: float) -> _Maps:
    """The maps of [A; damp I], whose least-squares problem is the damped one."""

    def adjoint(v):
        return tree.axpy(damp, v[1], maps.adjoint(v[0]))

    return _Maps(lambda x: (maps.apply(x), times(damp, x)), adjoint)


def _run(method, maps: _Maps, b, zero, x0, rtol, atol, limits, inner_product) -> Solution:
    """The plain loop on min ||A x - b||, b scaled as in `_problem`."""
    inner = inner_product or tree.vdot
    scale, is_zero = problem.power_of_two(b, inner_product)
    b = times(1 / scale, b)
    if x0 is not None:
        x0 = jax.tree.map(lambda leaf: jnp.where(is_zero, 0, leaf), times(1 / scale, x0))
    normal_b = maps.adjoint(b)
    norm = problem.norm_of(inner)
    norm_b, norm_normal = norm(b), norm(normal_b)
    weight = jnp.where(norm_normal > 0, norm_b, 1) / jnp.where(norm_normal > 0, norm_normal, 1)

    def error(r, size):
        return jnp.minimum(size, norm(maps.adjoint(r)) * weight)

    tolerance = jnp.maximum((0.0 if rtol is None else rtol) * norm_b, atol / scale)
    system = System(
        maps.apply, None, inner, norm, b, x0, tolerance.astype(norm_b.dtype), error, 1, zero
    )
    run = iterate_fixed if rtol is None else iterate
    x, info = run(system, method(system, maps.adjoint, weight), limits)
    info = problem.rescale(info, scale)
    return Solution(times(scale, x), info._replace(num_matvecs=info.num_matvecs + 1))


def _tall(run, maps: _Maps, b, zeros, x0, options: Options) -> Solution:
    """Least squares as the Hermitian system (r + A x, A^H r) = (b, c), c = 0 in the user's own.

    For c other than zero, as in derivatives, x solves min ||A x - (b - w)|| with A^H w = c.
    """

    def apply(v):
        r, x = problem.merge(v[0], b), problem.merge(v[1], b)
        top = problem.tied(problem.parts(jax.tree.map(jnp.add, r, maps.apply(x))))
        bottom = problem.parts(maps.adjoint(r))
        return top, problem.tie(bottom, top), problem.tie(v[2], top)

    def solve(_, v):
        rhs, c, flag = problem.merge(v[0], b), problem.merge(v[1], b), v[2]
        own, start, rtol, atol = problem.asked(flag, x0, options)
        w, first = run(maps.flipped, c, b, None, rtol, 0.0)
        x, info = run(maps, jax.tree.map(jnp.subtract, rhs, w), zeros, start, rtol, atol)
        r = jax.tree.map(jnp.subtract, rhs, maps.apply(x))
        r, x = problem.surface((r, x), (first, info), own, options.maxiter)
        return (problem.parts(r), problem.parts(x), flag), info

    rhs = problem.tied(problem.parts(b))
    rhs = rhs, problem.tie(problem.parts(zeros), rhs), problem.own_flag(b)
    (_, x, _), info = jax.lax.custom_linear_solve(apply, rhs, solve, symmetric=True, has_aux=True)
    return Solution(problem.merge(x, b), info)


def _wide(run, maps: _Maps, b, zeros, x0, options: Options) -> Solution:
    """The least norm as the Hermitian system (x + A^H y, A x) = (p, b), p = 0 in the user's own."""

    def apply(v):
        x, y = problem.merge(v[0], b), problem.merge(v[1], b)
        bottom = problem.tied(problem.parts(maps.apply(x)))
        top = problem.parts(jax.tree.map(jnp.add, x, maps.adjoint(y)))
        return problem.tie(top, bottom), bottom, problem.tie(v[2], bottom)

    def solve(_, v):
        p, rhs, flag = problem.merge(v[0], b), problem.merge(v[1], b), v[2]
        own, start, rtol, atol = problem.asked(flag, x0, options)
        rhs = jax.tree.map(jnp.subtract, rhs, maps.apply(p))
        step, info = run(maps, rhs, zeros, start, rtol, atol)
        y, second = run(maps.flipped, times(-1, step), b, None, rtol, 0.0)
        x = jax.tree.map(jnp.add, p, step)
        x, y = problem.surface((x, y), (info, second), own, options.maxiter)
        return (problem.parts(x), problem.parts(y), flag), info

    rhs = problem.tied(problem.parts(b))
    rhs = problem.tie(problem.parts(zeros), rhs), rhs, problem.own_flag(b)
    (x, _, _), info = jax.lax.custom_linear_solve(apply, rhs, solve, symmetric=True, has_aux=True)
    return Solution(problem.merge(x, b), info)


class _LSMRState(NamedTuple):
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


def _lsmr_method(system: System, adjoint: Callable, weight: Any) -> Method:
    def begin(x, r):
        beta = system.norm(r)
        u = _normalise(r, beta)
        v = adjoint(u)
        alpha = system.norm(v)
        v = _normalise(v, alpha)
        one, zero = jnp.ones_like(beta), jnp.zeros_like(beta)
        error = jnp.minimum(beta, alpha * beta * weight)
        norm_r = _NormR(beta, zero, one, zero, zero)
        return _LSMRState(
            x, u, v, v, jax.tree.map(jnp.zeros_like, v), alpha, alpha, one, one, one, zero, zero,
            alpha * beta, norm_r, error, jnp.int32(RUNNING),
        )  # fmt: skip

    def step(s, on):
        u = tree.axpy(-s.alpha, s.u, system.apply(s.v))
        beta = system.norm(u)
        u = hold(on, _normalise(u, beta), s.u)
        v = tree.axpy(-beta, s.v, adjoint(u))
        alpha = system.norm(v)
        v = hold(on, _normalise(v, alpha), s.v)

        c, sine, rho = _rotation(s.alpha_bar, beta)
        theta_new, alpha_bar = sine * alpha, c * alpha
        theta_bar = s.s_bar * rho
        c_bar, s_bar, rho_bar = _rotation(s.c_bar * rho, theta_new)
        zeta, zeta_bar = c_bar * s.zeta_bar, -s_bar * s.zeta_bar
        h_bar = tree.axpy(-_divide(theta_bar * rho, s.rho * s.rho_bar), s.h_bar, s.h)
        h_bar = hold(on, h_bar, s.h_bar)
        x = hold(on, tree.axpy(_divide(zeta, rho * rho_bar), h_bar, s.x), s.x)
        h = hold(on, tree.axpy(-_divide(theta_new, rho), s.h, v), s.h)

        n = s.norm_r
        beta_hat, beta_dd = c * n.beta_dd, -sine * n.beta_dd
        c_tilde, s_tilde, rho_tilde = _rotation(n.rho_d, theta_bar)
        theta, rho_d = s_tilde * rho_bar, c_tilde * rho_bar
        beta_d = -s_tilde * n.beta_d + c_tilde * beta_hat
        tau_old = _divide(s.zeta - n.theta * n.tau_old, rho_tilde)
        tau = _divide(zeta - theta * tau_old, rho_d)
        residual = jnp.hypot(beta_d - tau, beta_dd)
        error = jnp.minimum(residual, jnp.abs(zeta_bar) * weight)
        fine = jnp.isfinite(alpha) & jnp.isfinite(beta) & jnp.isfinite(error)
        status = jnp.where(fine, RUNNING, int(Status.NONFINITE)).astype(jnp.int32)
        return _LSMRState(
            x, u, v, h, h_bar, alpha, alpha_bar, rho, rho_bar, c_bar, s_bar, zeta, zeta_bar,
            _NormR(beta_dd, beta_d, rho_d, tau_old, theta), error, status,
        )  # fmt: skip

    return Method(begin, step, matvecs=2, begin_matvecs=1)


class _CGLSState(NamedTuple):
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


def _cgls_method(system: System, adjoint: Callable, weight: Any) -> Method:
    def norms(r, s):
        gamma, size = system.inner(s, s).real, system.norm(r)
        return gamma, size, jnp.minimum(size, jnp.sqrt(gamma) * weight)

    def begin(x, r):
        s = adjoint(r)
        gamma, _, error = norms(r, s)
        zeros, never = jax.tree.map(jnp.zeros_like, s), jnp.zeros_like(gamma)
        return _CGLSState(x, r, s, zeros, gamma, never, never, error, jnp.int32(RUNNING))

    def step(state, on):
        p = tree.axpy(_divide(state.gamma, state.before), state.p, state.s)
        p = hold(on, p, state.p)
        q = system.apply(p)
        square = system.inner(q, q).real
        alpha = _divide(state.gamma, square)
        x = hold(on, tree.axpy(alpha, p, state.x), state.x)
        r = hold(on, tree.axpy(-alpha, q, state.r), state.r)
        s = adjoint(r)
        gamma, size, error = norms(r, s)
        largest = jnp.maximum(state.largest, _divide(square, state.gamma))
        # A^H r is computed from r in every step, so that its recurrence cannot run ahead: the
        # limit shows as its rounding error.
        level = 10 * jnp.finfo(error.dtype).eps * jnp.sqrt(largest) * size
        limited = jnp.sqrt(gamma) <= level
        status = jnp.where(limited, int(Status.ATTAINABLE_ACCURACY), RUNNING)
        fine = jnp.isfinite(alpha) & jnp.isfinite(gamma)
        status = jnp.where(fine, status, int(Status.NONFINITE)).astype(jnp.int32)
        return _CGLSState(x, r, s, p, gamma, state.gamma, largest, error, status)

    return Method(begin, step, matvecs=2, begin_matvecs=1)


def _normalise(x: PyTree, norm: Any) -> PyTree:
    return times(1 / jnp.where(norm > 0, norm, 1), x)


def _rotation(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """(c, s, r) with c a + s b = r and c b = s a, for real a and b."""
    r = jnp.hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, 1), b / safe, r


def _divide(a: Any, b: Any) -> Any:
    """The quotient a / b, zero for b = 0."""
    return jnp.where(b == 0, 0, a) / jnp.where(b == 0, 1, b)
