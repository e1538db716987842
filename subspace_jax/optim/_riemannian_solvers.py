"""Deterministic minimizers on manifolds by line searches: conjugate gradients and L-BFGS.

Both keep tangents across a step by the manifold's transport, so their directions do not depend on
the frames. A point may be any pytree that the manifold knows; leading axes are one problem.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.manifolds import Manifold
from subspace_jax.manifolds._manifold import zero_tangent
from subspace_jax.optim._line_search import strong_wolfe
from subspace_jax.optim._minimum import Minimum, MinimumInfo, Problem, chosen, scaled, status_of
from subspace_jax.typing import Array, PyTree


class _Step(NamedTuple):
    """What a method may use to choose the next direction, all of it at the new point."""

    point: PyTree
    gradient: PyTree
    old_gradient: PyTree
    """Transported, as the next two."""
    old_direction: PyTree
    moved: PyTree
    """The step itself."""
    carry: Callable[[PyTree], PyTree]
    """The transport, for what the method remembers."""


class _State(NamedTuple):
    point: PyTree
    value: Array
    gradient: PyTree
    norm: Array
    direction: PyTree
    slope: Array
    first: Array
    """The step length to try first."""
    steepest: Array
    """Whether the direction is minus the gradient."""
    stuck: Array
    memory: Any
    num_steps: Array
    num_evaluations: Array


def riemannian_conjugate_gradient(
    fun: Callable[[PyTree], Array],
    p0: PyTree,
    *,
    manifold: Manifold,
    gtol: float | None = None,
    maxiter: int = 1000,
) -> Minimum:
    """A local minimum of a real function, by nonlinear conjugate gradients.

    Hestenes-Stiefel directions, limited by those of Dai and Yuan; a step to the strong Wolfe
    conditions. It has no derivative in reverse mode.

    Args:
        fun: differentiable; complex points are fine.
        p0: where to start, a point of the manifold.
        manifold: a module of `manifolds`, or a `Manifold`.
        gtol: stop when the norm of the gradient is below it; None: the root of the precision.
        maxiter: most steps.

    Returns:
        `Minimum` (point, info).

    Raises:
        ValueError: ``maxiter`` below zero.

    Reference: Sato (2022), "Riemannian conjugate gradient methods: general framework and specific
    algorithms with convergence analyses".
    """
    problem = Problem(fun, manifold)

    def direct(step, memory):
        p, g = step.point, step.gradient
        change = tree.axpy(-1.0, step.old_gradient, g)
        curvature = problem.inner(p, step.old_direction, change)
        safe = jnp.where(curvature > 0, curvature, 1)
        beta = jnp.minimum(problem.inner(p, g, change), problem.inner(p, g, g)) / safe
        beta = jnp.where(curvature > 0, jnp.maximum(beta, 0), 0)
        return tree.axpy(beta, step.old_direction, scaled(-1.0, g)), memory

    def first(step, slope, old_slope):
        return jnp.clip(step * old_slope / slope, step / 100, 100 * step)

    return _descend(problem, p0, direct, (), first, gtol, maxiter)


class _Pairs(NamedTuple):
    """The latest steps and changes of the gradient, the last one last."""

    steps: PyTree
    changes: PyTree
    inverse_curvatures: Array
    """(num_pairs,) of 1 / <step, change>; zero where there is none yet."""


def riemannian_lbfgs(
    fun: Callable[[PyTree], Array],
    p0: PyTree,
    *,
    manifold: Manifold,
    num_pairs: int = 10,
    gtol: float | None = None,
    maxiter: int = 1000,
) -> Minimum:
    """A local minimum of a real function, by BFGS of limited memory.

    A pair of non-positive curvature is not remembered; a step to the strong Wolfe conditions. It
    has no derivative in reverse mode.

    Args:
        fun: differentiable; complex points are fine.
        p0: where to start, a point of the manifold.
        manifold: a module of `manifolds`, or a `Manifold`.
        num_pairs: of steps and changes of the gradient, kept and transported.
        gtol: stop when the norm of the gradient is below it; None: the root of the precision.
        maxiter: most steps.

    Returns:
        `Minimum` (point, info).

    Raises:
        ValueError: ``maxiter`` below zero, or ``num_pairs`` below one.

    Reference: Huang, Gallivan & Absil (2015), "A Broyden class of quasi-Newton methods for
    Riemannian optimization", algorithm 2.
    """
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be at least 1, got {num_pairs}")
    problem = Problem(fun, manifold)

    def direct(step, pairs):
        carried = jax.vmap(step.carry)
        pairs = pairs._replace(steps=carried(pairs.steps), changes=carried(pairs.changes))
        change = tree.axpy(-1.0, step.old_gradient, step.gradient)
        pairs = _remember(problem, step.point, pairs, step.moved, change)
        return scaled(-1.0, _two_loops(problem, step.point, pairs, step.gradient)), pairs

    none = jax.tree.map(
        lambda leaf: jnp.zeros((num_pairs, *leaf.shape), leaf.dtype), zero_tangent(manifold, p0)
    )
    real = jax.eval_shape(fun, p0).dtype
    empty = _Pairs(none, none, jnp.zeros(num_pairs, real))
    return _descend(problem, p0, direct, empty, lambda step, *_: jnp.ones_like(step), gtol, maxiter)


def _remember(problem: Problem, p: PyTree, pairs: _Pairs, step: PyTree, change: PyTree) -> _Pairs:
    curvature = problem.inner(p, step, change)
    eps = jnp.finfo(curvature.dtype).eps
    good = curvature > eps * problem.norm(p, step) * problem.norm(p, change)
    inverse = 1 / jnp.where(good, curvature, 1)
    new = _Pairs(step, change, inverse)
    longer = jax.tree.map(lambda old, last: jnp.concatenate([old[1:], last[None]]), pairs, new)
    return chosen(good, longer, pairs)


def _two_loops(problem: Problem, p: PyTree, pairs: _Pairs, g: PyTree) -> PyTree:
    """The inverse Hessian's approximation times ``g``."""

    def backward(q, pair):
        a = pair.inverse_curvatures * problem.inner(p, pair.steps, q)
        return tree.axpy(-a, pair.changes, q), a

    def forward(r, pair_and_a):
        pair, a = pair_and_a
        b = pair.inverse_curvatures * problem.inner(p, pair.changes, r)
        return tree.axpy(a - b, pair.steps, r), None

    q, coefficients = jax.lax.scan(backward, g, pairs, reverse=True)
    last = jax.tree.map(lambda leaf: leaf[-1], pairs)
    size = last.inverse_curvatures * problem.inner(p, last.changes, last.changes)
    r = scaled(jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 1), q)
    return jax.lax.scan(forward, r, (pairs, coefficients))[0]


def _descend(
    problem: Problem,
    p0: PyTree,
    direct: Callable[[_Step, Any], tuple[PyTree, Any]],
    empty: Any,
    first: Callable[[Array, Array, Array], Array],
    gtol: float | None,
    maxiter: int,
) -> Minimum:
    """Line searches along the directions that ``direct`` chooses.

    A direction that does not go down, or along which nothing is found, gives way to the gradient
    and an empty memory; where that fails too, rounding has won. ``first`` says which step to try
    first: (the last one, the slope, the slope there) -> step.
    """
    if maxiter < 0:
        raise ValueError(f"maxiter must be at least 0, got {maxiter}")
    manifold = problem.manifold
    value, g = problem.value_and_gradient(p0)
    tolerance = problem.tolerance(gtol, value)

    def unfinished(s):
        going = (s.norm > tolerance) & jnp.isfinite(s.value) & ~s.stuck
        return going & (s.num_steps < maxiter)

    def body(s):
        search = strong_wolfe(problem.curve(s.point, s.direction), s.value, s.slope, s.first)
        failed = search.step == 0
        moved = scaled(search.step, s.direction)

        def carry(x):
            return manifold.transport(s.point, moved, x)

        p = chosen(failed, s.point, problem.step(s.point, moved))
        value, g = problem.value_and_gradient(p)
        old = carry(s.gradient), carry(s.direction), carry(moved)
        d, memory = direct(_Step(p, g, *old, carry), s.memory)
        slope = problem.inner(p, g, d)
        norm = problem.norm(p, g)
        steepest = failed | ~(slope < 0)
        d = chosen(steepest, scaled(-1.0, g), d)
        slope = jnp.where(steepest, -(norm**2), slope)
        memory = chosen(steepest, empty, memory)
        cold = jnp.minimum(1, 1 / norm)
        try_first = jnp.where(steepest, cold, first(search.step, slope, s.slope))
        return _State(
            p, value, g, norm, d, slope, try_first, steepest,
            failed & s.steepest, memory, s.num_steps + 1,
            s.num_evaluations + search.num_evaluations + 1,
        )  # fmt: skip

    norm = problem.norm(p0, g)
    start = _State(
        p0, value, g, norm, scaled(-1.0, g), -(norm**2), jnp.minimum(1, 1 / norm),
        jnp.array(True), jnp.array(False), empty, jnp.int32(0), jnp.int32(1),
    )  # fmt: skip
    end = jax.lax.while_loop(unfinished, body, start)
    status = status_of(end.value, end.norm, tolerance, end.stuck)
    info = MinimumInfo(status, end.num_steps, end.num_evaluations, end.value, end.norm)
    return Minimum(end.point, info)
