"""What an optimizer asks of a manifold: a module of functions, or a tuple of them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from subspace_jax.typing import PyTree


@runtime_checkable
class Manifold(Protocol):
    """The functions of a manifold: `manifolds.grassmann`, the module itself, is one.

    Points ``p`` and tangents ``v`` are arrays with leading axes, or pytrees of such; a tangent has
    the structure and the shapes of its point, unless the manifold's module says otherwise. Some
    manifolds have ``exp(p, v)`` and ``log(p, q)`` as well, those whose metric is not that of
    the ambient space ``gradient(p, g)``, the tangent u with <u, v> = Re <g, v> for all tangents v,
    and those of frames whose steps are faster in another storage ``in_rows``.
    """

    def project_tangent(self, p: Any, g: Any, /) -> Any:
        """The tangent at ``p`` that is nearest to an ambient direction, such as a gradient."""
        ...

    def update(self, p: Any, v: Any, /) -> Any:
        """The u for which p + u is on the manifold, a step along ``v``; without cancellation."""
        ...

    def retract(self, p: Any, v: Any, /) -> Any:
        """The point p + update(p, v)."""
        ...

    def transport(self, p: Any, v: Any, x: Any, /) -> Any:
        """The tangent ``x`` carried along ``v``, in the frame of retract(p, v)."""
        ...

    def inner(self, p: Any, u: Any, v: Any, /) -> Any:
        """The real inner product of two tangents at ``p``, one number a point."""
        ...

    def norm(self, p: Any, v: Any, /) -> Any:
        """The length of a tangent; its derivative at zero is zero."""
        ...

    def dist(self, p: Any, q: Any, /) -> Any:
        """How far two points are apart."""
        ...

    @property
    def random_point(self) -> Callable[..., Any]:
        """(key, sizes, *, dtype) -> a point, uniform where that has a meaning."""
        ...

    def random_tangent(self, key: Any, p: Any, /) -> Any:
        """A normal tangent at ``p``."""
        ...

    def check(self, p: Any, /) -> Any:
        """How far a point is off the manifold, one number a point."""
        ...


class Geometry(NamedTuple):
    """A `Manifold` made of chosen functions; what it has not got is None."""

    project_tangent: Callable[[PyTree, PyTree], PyTree]
    update: Callable[[PyTree, PyTree], PyTree]
    retract: Callable[[PyTree, PyTree], PyTree]
    transport: Callable[[PyTree, PyTree, PyTree], PyTree]
    inner: Callable[[PyTree, PyTree, PyTree], Any]
    norm: Callable[[PyTree, PyTree], Any]
    dist: Callable[[PyTree, PyTree], Any]
    random_point: Callable[..., PyTree]
    random_tangent: Callable[[Any, PyTree], PyTree]
    check: Callable[[PyTree], Any]
    exp: Callable[[PyTree, PyTree], PyTree] | None = None
    log: Callable[[PyTree, PyTree], PyTree] | None = None
    gradient: Callable[[PyTree, PyTree], PyTree] | None = None
    in_rows: "InRows | None" = None


class InRows(NamedTuple):
    """What an optimizer does on a `Manifold` of frames, for frames as `_rows` stores them."""

    project_tangent: Callable[[Any, Any], Any]
    update: Callable[[Any, Any], Any]
    transport: Callable[[Any, Any, Any], Any]
    norm: Callable[[Any, Any], Any]


def gradient(manifold: Manifold | InRows, p: PyTree, g: PyTree) -> PyTree:
    """The Riemannian gradient at ``p`` of a function with the Euclidean gradient ``g``.

    It is ``project_tangent`` where the metric is that of the ambient space.
    """
    return (getattr(manifold, "gradient", None) or manifold.project_tangent)(p, g)


def zero_tangent(manifold: Manifold, p: PyTree) -> PyTree:
    """The tangent 0 at ``p``, of which only structure, shapes and dtypes matter."""
    tangent = jax.eval_shape(manifold.project_tangent, p, p)
    if jax.tree.structure(tangent) == jax.tree.structure(p):
        return jax.tree.map(jnp.zeros_like, p)  # sharded like p
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tangent)
