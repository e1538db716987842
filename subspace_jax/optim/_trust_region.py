"""A deterministic minimizer on manifolds with second derivatives: trust regions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.manifolds import Manifold
from subspace_jax.optim._minimum import Minimum, MinimumInfo, Problem, chosen, scaled, status_of
from subspace_jax.typing import Array, PyTree

_ACCEPTED = 0.1
"""Smallest ratio of the decrease to the model's for which a step is taken."""


class _State(NamedTuple):
    point: PyTree
    value: Array
    gradient: PyTree
    norm: Array
    radius: Array
    stuck: Array
    num_steps: Array
    num_evaluations: Array


class _Inner(NamedTuple):
    """Truncated conjugate gradients on the model, in the tangent space."""

    step: PyTree
    hessian_step: PyTree
    residual: PyTree
    direction: PyTree
    at_edge: Array
    num_steps: Array


def riemannian_trust_region(
    fun: Callable[[PyTree], Array],
    p0: PyTree,
    *,
    manifold: Manifold,
    radius: float = 0.5,
    max_radius: float = 3.0,
    max_inner: int | None = None,
    gtol: float | None = None,
    maxiter: int = 200,
) -> Minimum:
    """A local minimum of a real function, by trust regions with truncated conjugate gradients.

    The Hessian is that of the function along the manifold's retraction, products by forward over
    reverse differentiation; near a minimum of positive curvature steps converge quadratically, and
    directions of negative curvature are left. It has no derivative in reverse mode.

    Args:
        fun: twice differentiable; complex points are fine.
        p0: where to start, a point of the manifold.
        manifold: a module of `manifolds`, or a `Manifold`, whose retraction is of second order.
        radius: of the first trust region.
        max_radius: of any.
        max_inner: most products with the Hessian a step; None: the number of entries of p0.
        gtol: stop when the norm of the gradient is below it; None: the root of the precision.
        maxiter: most steps, accepted or not.

    Returns:
        `Minimum` (point, info).

    Raises:
        ValueError: ``maxiter`` below zero.

    Reference: Absil, Baker & Gallivan (2007), "Trust-region methods on Riemannian manifolds".
    """
    if maxiter < 0:
        raise ValueError(f"maxiter must be at least 0, got {maxiter}")
    problem = Problem(fun, manifold)
    most = tree.size(p0) if max_inner is None else max_inner
    value, g = problem.value_and_gradient(p0)
    tolerance = problem.tolerance(gtol, value)
    eps = jnp.finfo(value.dtype).eps

    def unfinished(s):
        going = (s.norm > tolerance) & jnp.isfinite(s.value) & ~s.stuck
        return going & (s.num_steps < maxiter)

    def body(s):
        inner = _truncated(problem, s, most)
        p = problem.step(s.point, inner.step)
        value, g = problem.value_and_gradient(p)
        model = problem.inner(s.point, inner.step, s.gradient)
        model = model + problem.inner(s.point, inner.step, inner.hessian_step) / 2
        # Near a minimum both decreases drown in rounding: their ratio is then drawn to one.
        noise = 1e3 * eps * jnp.maximum(1, jnp.abs(s.value))
        ratio = (s.value - value + noise) / (noise - model)
        good = (ratio > _ACCEPTED) & jnp.isfinite(value)
        radius = jnp.where((ratio > 0.75) & inner.at_edge, 2 * s.radius, s.radius)
        radius = jnp.where((ratio > 0.25) & jnp.isfinite(value), radius, s.radius / 4)
        norm = jnp.where(good, problem.norm(p, g), s.norm)
        return _State(
            chosen(good, p, s.point),
            jnp.where(good, value, s.value),
            chosen(good, g, s.gradient),
            norm,
            jnp.minimum(radius, max_radius),
            radius < eps,
            s.num_steps + 1,
            s.num_evaluations + inner.num_steps + 1,
        )

    start = _State(
        p0,
        value,
        g,
        problem.norm(p0, g),
        jnp.full_like(value, radius),
        jnp.array(False),
        jnp.int32(0),
        jnp.int32(1),
    )
    end = jax.lax.while_loop(unfinished, body, start)
    status = status_of(end.value, end.norm, tolerance, end.stuck)
    info = MinimumInfo(status, end.num_steps, end.num_evaluations, end.value, end.norm)
    return Minimum(end.point, info)


def _truncated(problem: Problem, s: _State, most: int) -> _Inner:
    """An approximate minimiser of <g, v> + <v, H v> / 2 with |v| <= radius."""
    hessian = problem.hessian(s.point)

    def dot(u, v):
        return problem.inner(s.point, u, v)

    enough = s.norm * jnp.clip(s.norm, 1e3 * jnp.finfo(s.norm.dtype).eps, 0.1)

    def unfinished(c):
        small = jnp.sqrt(dot(c.residual, c.residual)) <= enough
        return ~small & ~c.at_edge & (c.num_steps < most)

    def body(c):
        Hd = hessian(c.direction)
        curvature, square = dot(c.direction, Hd), dot(c.residual, c.residual)
        length = square / jnp.where(curvature > 0, curvature, 1)
        v = tree.axpy(length, c.direction, c.step)
        edge = (curvature <= 0) | (dot(v, v) >= s.radius**2)
        length = jnp.where(edge, _to_the_edge(dot, c.step, c.direction, s.radius), length)
        r = tree.axpy(length, Hd, c.residual)
        beta = dot(r, r) / square
        return _Inner(
            tree.axpy(length, c.direction, c.step),
            tree.axpy(length, Hd, c.hessian_step),
            r,
            tree.axpy(beta, c.direction, scaled(-1.0, r)),
            edge,
            c.num_steps + 1,
        )

    zero, downhill = scaled(0.0, s.gradient), scaled(-1.0, s.gradient)
    start = _Inner(zero, zero, s.gradient, downhill, jnp.array(False), jnp.int32(0))
    return jax.lax.while_loop(unfinished, body, start)


def _to_the_edge(dot: Callable, v: PyTree, d: PyTree, radius: Array) -> Array:
    """The positive t with |v + t d| = radius."""
    a, b, c = dot(d, d), dot(v, d), radius**2 - dot(v, v)
    root = jnp.sqrt(jnp.maximum(b**2 + a * c, 0))
    return jnp.where(b > 0, c / jnp.where(b > 0, b + root, 1), (root - b) / a)
