"""What the minimizers on manifolds share: their result, gradients, whole trees as one point."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov import Status
from subspace_jax.manifolds import Manifold
from subspace_jax.manifolds._manifold import gradient, zero_tangent
from subspace_jax.typing import Array, PyTree


class MinimumInfo(NamedTuple):
    """What happened: a pytree of arrays."""

    status: Array
    """int32, a `krylov.Status`; STAGNATION where rounding hides any further descent."""
    num_steps: Array
    """int32, accepted or not."""
    num_evaluations: Array
    """int32, of the function, its slope along a curve, or its Hessian times a tangent."""
    value: Array
    """The function at the point."""
    gradient_norm: Array
    """The norm of its Riemannian gradient there."""


class Minimum(NamedTuple):
    """``p, info = minimizer(...)``."""

    point: PyTree
    info: MinimumInfo


class Problem(NamedTuple):
    """A real function on a manifold, seen along its tangents."""

    fun: Callable[[PyTree], Array]
    manifold: Manifold

    def value_and_gradient(self, p: PyTree) -> tuple[Array, PyTree]:
        """The value and the Riemannian gradient at ``p``."""
        value, g = jax.value_and_grad(self.fun)(p)
        return value, self._tangent(p, g)

    def curve(self, p: PyTree, d: PyTree) -> Callable[[Array], tuple[Array, Array]]:
        """The function t -> value and slope at retract(p, t d)."""

        def along(t):
            return self.fun(self.step(p, scaled(t, d)))

        return lambda t: jax.jvp(along, (t,), (jnp.ones_like(t),))

    def hessian(self, p: PyTree) -> Callable[[PyTree], PyTree]:
        """The Riemannian Hessian at ``p``, for a retraction of second order.

        It is the Hessian of the pulled-back function v -> fun(retract(p, v)) at zero.
        """
        pulled_back = jax.grad(lambda v: self.fun(self.step(p, v)))
        zero = zero_tangent(self.manifold, p)
        return lambda v: self._tangent(p, jax.jvp(pulled_back, (zero,), (v,))[1])

    def step(self, p: PyTree, v: PyTree) -> PyTree:
        """The point retract(p, v)."""
        return jax.tree.map(jnp.add, p, self.manifold.update(p, v))

    def inner(self, p: PyTree, u: PyTree, v: PyTree) -> Array:
        """The inner product of two tangents, of all points in leading axes together."""
        return jnp.sum(self.manifold.inner(p, u, v))

    def norm(self, p: PyTree, v: PyTree) -> Array:
        """The norm of that inner product."""
        return jnp.sqrt(self.inner(p, v, v))

    def tolerance(self, gtol: float | None, value: Array) -> Array:
        """The gradient norm at which to stop; None: the root of the precision."""
        return jnp.asarray(jnp.sqrt(jnp.finfo(value.dtype).eps) if gtol is None else gtol)

    def _tangent(self, p: PyTree, g: PyTree) -> PyTree:
        # Projected again: near a minimum a gradient is small beside the rounding of the first time,
        # and what is not tangent has no curvature.
        steepest = gradient(self.manifold, p, jax.tree.map(jnp.conj, g))
        return self.manifold.project_tangent(p, steepest)


def scaled(t: Array | float, v: PyTree) -> PyTree:
    """The tangent t v, in the dtypes of ``v``."""
    return jax.tree.map(lambda leaf: (t * leaf).astype(leaf.dtype), v)


def chosen(condition: Array, u: PyTree, v: PyTree) -> PyTree:
    """``u`` where the condition holds, else ``v``."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), u, v)


def status_of(value: Array, norm: Array, tolerance: Array, stuck: Array) -> Array:
    """The status at the end."""
    status = jnp.where(stuck, Status.STAGNATION, Status.MAX_STEPS)
    status = jnp.where(norm <= tolerance, Status.CONVERGED, status)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    return jnp.where(finite, status, Status.NONFINITE).astype(jnp.int32)
