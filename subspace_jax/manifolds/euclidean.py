"""Arrays, or pytrees of them, without a constraint: what a product adds to its curved factors.

A whole pytree is one point, with all its axes.
"""

from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.typing import Array, Float, Inexact, Key, PyTree

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


def project_tangent(p: PyTree, g: PyTree) -> PyTree:
    """The direction ``g`` itself.

    Raises:
        ValueError: shapes that differ.
    """
    tree.check_same_shapes("p", p, "g", g)
    return g


def update(p: PyTree, v: PyTree) -> PyTree:
    """The step ``v`` itself.

    Raises:
        ValueError: shapes that differ.
    """
    tree.check_same_shapes("p", p, "v", v)
    return v


def retract(p: PyTree, v: PyTree) -> PyTree:
    """The point p + v."""
    return tree.axpy(1.0, v, p)


def exp(p: PyTree, v: PyTree) -> PyTree:
    """The point p + v."""
    return tree.axpy(1.0, v, p)


def log(p: PyTree, q: PyTree) -> PyTree:
    """The difference q - p."""
    return tree.axpy(-1.0, p, q)


def transport(p: PyTree, v: PyTree, x: PyTree) -> PyTree:
    """The tangent ``x`` itself.

    Raises:
        ValueError: shapes that differ.
    """
    tree.check_same_shapes("p", p, "v", v)
    tree.check_same_shapes("p", p, "x", x)
    return x


def inner(p: PyTree, u: PyTree, v: PyTree) -> Float[Array, ""]:
    """The real inner product of all entries.

    Raises:
        ValueError: shapes that differ.
    """
    tree.check_same_shapes("p", p, "u", u)
    return tree.vdot(u, v).real


def norm(p: PyTree, v: PyTree) -> Float[Array, ""]:
    """The Euclidean norm; its derivative at zero is zero."""
    tree.check_same_shapes("p", p, "v", v)
    return tree.norm(v)


def dist(p: PyTree, q: PyTree) -> Float[Array, ""]:
    """The norm of q - p; its derivative at equal points is zero."""
    return tree.norm(log(p, q))


def random_point(key: Key, *shape: int, dtype: Any = None) -> Inexact[Array, "..."]:
    """An array of normal entries; ``dtype`` None is the default float."""
    return jax.random.normal(key, shape, dtype)


def random_tangent(key: Key, p: PyTree) -> PyTree:
    """A normal tangent, shaped like p."""
    leaves, structure = jax.tree.flatten(p)
    keys = jax.random.split(key, len(leaves))
    normal = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, normal)


def check(p: PyTree) -> Float[Array, ""]:
    """Zero: no point is off."""
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(p))).real
