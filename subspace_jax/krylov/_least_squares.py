"""What the least-squares solvers share: rectangular maps, damping, scaling, derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from subspace_jax import tree
from subspace_jax.krylov import _implicit as implicit
from subspace_jax.krylov import _operands as operands
from subspace_jax.krylov import _problem as problem
from subspace_jax.krylov._arithmetic import divide, norm_of, times
from subspace_jax.krylov._iterate import System, iterate, iterate_fixed
from subspace_jax.krylov._operands import Options
from subspace_jax.krylov._solution import Solution
from subspace_jax.linalg import operators
from subspace_jax.typing import PyTree


class _Maps(NamedTuple):
    """A map and its adjoint."""

    apply: Callable[[PyTree], PyTree]
    adjoint: Callable[[PyTree], PyTree]

    @property
    def flipped(self) -> "_Maps":
        """The adjoint and its adjoint."""
        return _Maps(self.adjoint, self.apply)


def least_squares(method, A, b, x0, damp, options: Options) -> Solution:
    """The x of least ||A x - b||^2 + damp^2 ||x||^2, differentiable in b and what A closes over."""
    b = operands.vector("b", b)
    x0 = None if x0 is None else operands.vector("x0", x0)
    operands.check_number("damp", damp)
    if isinstance(damp, Tracer):
        raise ValueError(f"damp must be a number known at trace time, got {damp}")
    maps, domain = _operators(A, options.AT, b, x0)
    zeros = jax.tree.map(jnp.zeros_like, domain)
    limits = operands.check_limits(options, tree.size(zeros))
    tall = tree.size(b) >= tree.size(zeros) or damp > 0
    rhs = (b, zeros) if damp > 0 else b
    maps = _damped(maps, damp) if damp > 0 else maps

    def run(maps, rhs, like, x0, rtol, atol) -> Solution:
        return _run(method, maps, rhs, like, x0, rtol, atol, limits, options.inner_product)

    if options.rtol is None:
        x, info = run(maps, rhs, zeros, x0, None, options.atol)
    else:
        augmented = _tall if tall else _wide
        x0 = None if x0 is None else jax.lax.stop_gradient(x0)
        options = options.frozen()
        x, info = augmented(run, maps, rhs, zeros, x0, options)
    if damp > 0:  # the residual of A alone
        r = jax.tree.map(jnp.subtract, rhs, maps.apply(x))[0]
        norm = norm_of(options.inner_product or tree.vdot)
        info = info._replace(
            residual_norm=jax.lax.stop_gradient(norm(r)),
            num_matvecs=info.num_matvecs + 1,
        )
    return Solution(x, info)


def _operators(A, AT, b, x0) -> tuple[_Maps, PyTree]:
    """A and A^H, their Python code run once, and the shapes of the domain."""
    apply = operands.linear_map("A", A)
    back = None if AT is None else operands.linear_map("AT", AT)
    if hasattr(A, "shape"):
        operands.check_one_array("A", b)
        if len(A.shape) != 2 or jnp.shape(b) != A.shape[:1]:
            raise ValueError(f"A has shape {A.shape}, the right-hand side {jnp.shape(b)}")
        domain = jax.ShapeDtypeStruct(A.shape[1:], b.dtype)
    elif back is not None:
        domain = jax.eval_shape(back, b)
    elif x0 is not None:
        domain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x0)
    else:
        raise ValueError("a callable A needs its adjoint AT=, or x0 to name its domain")
    if x0 is not None:
        operands.check_same_spaces("x0", x0, "A's domain", domain)
    operands.check_same_spaces("A's result", jax.eval_shape(apply, domain), "b", b)
    zeros = jax.tree.map(jnp.zeros_like, domain)
    apply = operands.traced_once(apply, zeros)
    adjoint = operators.adjoint(apply, domain) if back is None else back
    operands.check_same_spaces("AT's result", jax.eval_shape(adjoint, b), "A's domain", domain)
    return _Maps(apply, operands.traced_once(adjoint, b)), domain


def _damped(maps: _Maps, damp: float) -> _Maps:
    """The maps of [A; damp I], whose least-squares problem is the damped one."""

    def adjoint(v):
        return tree.axpy(damp, v[1], maps.adjoint(v[0]))

    return _Maps(lambda x: (maps.apply(x), times(damp, x)), adjoint)


def _run(method, maps: _Maps, b, zero, x0, rtol, atol, limits, inner_product) -> Solution:
    """The plain loop on min ||A x - b||, b scaled as in `_problem`."""
    inner = inner_product or tree.vdot
    scale, inverse, is_zero = problem.power_of_two(b, inner_product)
    b = times(inverse, b)
    x0 = problem.scaled_start(x0, inverse, is_zero)
    normal_b = maps.adjoint(b)
    # Scaled too, so that the squares of A^H b stay in range: (A / a) (a x) = b.
    a, over_a, _ = problem.power_of_two(normal_b, inner_product)
    maps = _Maps(
        lambda x, apply=maps.apply: times(over_a, apply(x)),
        lambda u, adjoint=maps.adjoint: times(over_a, adjoint(u)),
    )
    normal_b = times(over_a, normal_b)
    x0 = None if x0 is None else times(a, x0)
    norm = norm_of(inner)
    norm_b, norm_normal = norm(b), norm(normal_b)
    rtol_or_zero = jnp.asarray(0.0 if rtol is None else rtol, norm_b.dtype)
    tolerance = jnp.maximum(rtol_or_zero * norm_b, atol * inverse)
    # ||A^H r|| weighs so much that it meets the tolerance at rtol ||A^H b||, whatever atol is.
    least = jnp.maximum(rtol_or_zero, jnp.finfo(norm_b.dtype).eps)
    weight = divide(jnp.maximum(norm_b, atol * inverse / least), norm_normal)
    weight = jnp.where(norm_normal > 0, weight, 1)

    def error(r, size):
        return jnp.minimum(size, norm(maps.adjoint(r)) * weight)

    system = System(
        maps.apply, None, inner, norm, b, x0, tolerance.astype(norm_b.dtype), error, 1, zero
    )
    run = iterate_fixed if rtol is None else iterate
    x, info = run(system, method(system, maps.adjoint, weight), limits)
    info = problem.rescale(info, scale)
    num_matvecs = info.num_matvecs + (0 if rtol is None else 1)  # A^H b is for the tolerance
    return Solution(times(scale * over_a, x), info._replace(num_matvecs=num_matvecs))


def _tall(run, maps: _Maps, b, zeros, x0, options: Options) -> Solution:
    """Least squares as the Hermitian system (r + A x, A^H r) = (b, c), c = 0 in the user's own.

    For c other than zero, as in derivatives, x solves min ||A x - (b - w)|| with A^H w = c.
    """

    def apply(v):
        r, x = implicit.merge(v[0], b), implicit.merge(v[1], b)
        top = implicit.tied(implicit.parts(jax.tree.map(jnp.add, r, maps.apply(x))))
        bottom = implicit.parts(maps.adjoint(r))
        return top, implicit.tie(bottom, top), implicit.tie(v[2], top)

    def solve(v):
        rhs, c, flag = implicit.merge(v[0], b), implicit.merge(v[1], b), v[2]
        own, start, rtol, atol = implicit.asked(flag, x0, options)
        _, shapes = jax.eval_shape(lambda: run(maps.flipped, c, b, None, rtol, 0.0))
        nothing = jax.tree.map(jnp.zeros_like, shapes)
        w, first = jax.lax.cond(
            own,
            lambda: Solution(jax.tree.map(jnp.zeros_like, b), nothing),
            lambda: run(maps.flipped, c, b, None, rtol, 0.0),
        )
        x, info = run(maps, jax.tree.map(jnp.subtract, rhs, w), zeros, start, rtol, atol)
        r = jax.tree.map(jnp.subtract, rhs, maps.apply(x))
        r, x = implicit.surface((r, x), (first, info), own, options.maxiter)
        return (implicit.parts(r), implicit.parts(x), flag), info

    rhs = implicit.tied(implicit.parts(b))
    rhs = rhs, implicit.tie(implicit.parts(zeros), rhs), implicit.own_flag(b)
    (_, x, _), info = implicit.symmetric(apply, rhs, solve)
    return Solution(implicit.merge(x, b), info)


def _wide(run, maps: _Maps, b, zeros, x0, options: Options) -> Solution:
    """The least norm as the Hermitian system (x + A^H y, A x) = (p, b), p = 0 in the user's own."""

    def apply(v):
        x, y = implicit.merge(v[0], b), implicit.merge(v[1], b)
        bottom = implicit.tied(implicit.parts(maps.apply(x)))
        top = implicit.parts(jax.tree.map(jnp.add, x, maps.adjoint(y)))
        return implicit.tie(top, bottom), bottom, implicit.tie(v[2], bottom)

    def solve(v):
        p, rhs, flag = implicit.merge(v[0], b), implicit.merge(v[1], b), v[2]
        own, start, rtol, atol = implicit.asked(flag, x0, options)
        rhs = jax.tree.map(jnp.subtract, rhs, maps.apply(p))
        step, info = run(maps, rhs, zeros, start, rtol, atol)
        y, second = run(maps.flipped, times(-1, step), b, None, rtol, 0.0)
        x = jax.tree.map(jnp.add, p, step)
        x, y = implicit.surface((x, y), (info, second), own, options.maxiter)
        return (implicit.parts(x), implicit.parts(y), flag), info

    rhs = implicit.tied(implicit.parts(b))
    rhs = implicit.tie(implicit.parts(zeros), rhs), rhs, implicit.own_flag(b)
    (x, _, _), info = implicit.symmetric(apply, rhs, solve)
    return Solution(implicit.merge(x, b), info)
