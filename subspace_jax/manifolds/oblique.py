"""Matrices (..., n, k) with unit columns: the product of k spheres; one column is the sphere.

Complex columns live on the unit sphere of C^n = R^2n. All is in closed form, and smooth at v = 0.

Reference: Absil & Gallivan (2006), "Joint diagonalization on the oblique manifold for independent
component analysis".
"""

from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import angle_over_sine, root, sinc_root, squared_angle, versine_root
from subspace_jax.manifolds._ambient import check_shapes, distance, real_inner
from subspace_jax.typing import Array, Float, Inexact, Key

__all__ = [
    "check",
    "dist",
    "exp",
    "inner",
    "log",
    "norm",
    "project_tangent",
    "random_point",
    "random_tangent",
    "retract",
    "transport",
    "update",
]

Points = Inexact[Array, "*b n k"]


def project_tangent(p: Points, g: Points) -> Points:
    """What is left of each column of ``g`` without its part along the column of p.

    For a gradient of a real function of complex p, conjugate what `jax.grad` returns first.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, g)
    return g - p * _dot(p, g) / _dot(p, p)


def update(p: Points, v: Points) -> Points:
    """The step u to p + u = exp(p, v); p's own departure from unit columns is taken out.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, v)
    m = _dot(v, v)
    shrink = m * versine_root(m)
    return p * (shrink + (1 - _dot(p, p)) / 2 * (1 + shrink)) + v * sinc_root(m)


def retract(p: Points, v: Points) -> Points:
    """The point p + update(p, v), which is `exp`.

    Raises:
        ValueError: shapes that differ.
    """
    return p + update(p, v)


def exp(p: Points, v: Points) -> Points:
    """Where the great circles that start at p with the velocity ``v`` are at time 1.

    Raises:
        ValueError: shapes that differ.
    """
    return retract(p, v)


def log(p: Points, q: Points) -> Points:
    """The shortest tangent at p whose `exp` is q; zero at antipodes, which have none.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, q)
    sines, cosine = _split(p, q)
    return sines * angle_over_sine(_dot(sines, sines), cosine)


def transport(p: Points, v: Points, x: Points) -> Points:
    """The tangent ``x`` carried in parallel along the geodesic of ``v``: an isometry.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, v, x)
    m, along = _dot(v, v), _dot(v, x)
    return x - p * sinc_root(m) * along + v * versine_root(m) * along


def inner(p: Points, u: Points, v: Points) -> Float[Array, "*b"]:
    """The Euclidean inner product Re tr(u^H v), one number a point.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, u, v)
    return real_inner(u, v)


def norm(p: Points, v: Points) -> Float[Array, "*b"]:
    """The length of ``v``; its derivative at zero is zero.

    Raises:
        ValueError: shapes that differ.
    """
    return root(inner(p, v, v))


def dist(p: Points, q: Points) -> Float[Array, "*b"]:
    """The norm of the k angles between columns; its derivative at equal points is zero.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes(p, q)
    sines, cosine = _split(p, q)
    square = jnp.sum(squared_angle(_dot(sines, sines), cosine), axis=(-2, -1))
    return distance(square, p.shape[-1])


def random_point(key: Key, n: int, k: int = 1, *, dtype: Any = None) -> Inexact[Array, "n k"]:
    """A uniformly distributed point; ``dtype`` None is the default float."""
    A = jax.random.normal(key, (n, k), dtype)
    return A / jnp.linalg.norm(A, axis=0)


def random_tangent(key: Key, p: Points) -> Points:
    """A normal tangent at p."""
    return project_tangent(p, jax.random.normal(key, p.shape, p.dtype))


def check(p: Points) -> Float[Array, "*b"]:
    """The largest departure of a column's squared length from 1, one number a point."""
    check_shapes(p)
    return jnp.max(jnp.abs(1 - _dot(p, p)), axis=(-2, -1))


def _dot(u: Array, v: Array) -> Array:
    return jnp.sum((u.conj() * v).real, axis=-2, keepdims=True)


def _split(p: Array, q: Array) -> tuple[Array, Array]:
    """The part of q across p, without cancellation, and the cosine."""
    cosine = _dot(p, q)
    across = q - p * cosine
    return across - p * _dot(p, across), cosine
