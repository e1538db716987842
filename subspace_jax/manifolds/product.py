"""Products of manifolds: a pytree of manifolds, and points of the same structure.

Each leaf is a module such as `manifolds.oblique`, a tuple of functions such as `flag.blocks(1, 2)`,
or another product. Inner products are summed over leaves, and over the leading axes of each: a
point of the product is one point.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import root
from subspace_jax.manifolds._manifold import Geometry, gradient
from subspace_jax.typing import Array, Key, PyTree

__all__ = ["of"]


def of(manifolds: PyTree) -> Geometry:
    """The product of a pytree of manifolds, such as ``{"a": oblique, "b": euclidean}``.

    Points and tangents have that structure, with what the factors take in the place of each leaf.
    ``random_point(key, sizes, *, dtype)`` takes a tuple of sizes for each leaf. A tree that does
    not have the structure raises ValueError. ``exp`` and ``log`` are None unless all factors have
    them.

    Raises:
        ValueError: no manifold, or a leaf that is none.
    """
    factors, structure = jax.tree.flatten(manifolds, is_leaf=_is_manifold)
    if not factors or not all(_is_manifold(factor) for factor in factors):
        raise ValueError(f"need a pytree of manifolds, got leaves {factors}")
    tree_valued: dict[str, Any] = {
        name: partial(_each, factors, structure, name)
        for name in ("project_tangent", "update", "retract", "transport", "exp", "log")
        if all(getattr(factor, name, None) for factor in factors)
    }
    return Geometry(
        **tree_valued,
        inner=partial(_sum, factors, structure, "inner"),
        norm=partial(_norm, factors, structure),
        dist=partial(_dist, factors, structure),
        random_point=partial(_random_point, factors, structure),
        random_tangent=partial(_random_tangent, factors, structure),
        check=partial(_largest, factors, structure),
        gradient=partial(_gradient, factors, structure),
    )


def _is_manifold(x: Any) -> bool:
    return hasattr(x, "project_tangent")


def _values(factors: list[Any], structure: Any, name: str, trees: tuple[PyTree, ...]) -> list[Any]:
    """The function of that name of every factor, at its own part of each tree."""
    parts = zip(*(structure.flatten_up_to(t) for t in trees), strict=True)
    return [getattr(factor, name)(*args) for factor, args in zip(factors, parts, strict=True)]


def _each(factors: list[Any], structure: Any, name: str, *trees: PyTree) -> PyTree:
    return jax.tree.unflatten(structure, _values(factors, structure, name, trees))


def _gradient(factors: list[Any], structure: Any, p: PyTree, g: PyTree) -> PyTree:
    parts = zip(factors, structure.flatten_up_to(p), structure.flatten_up_to(g), strict=True)
    return jax.tree.unflatten(structure, [gradient(factor, *args) for factor, *args in parts])


def _sum(factors: list[Any], structure: Any, name: str, *trees: PyTree) -> Array:
    totals = [jnp.sum(value) for value in _values(factors, structure, name, trees)]
    return jnp.sum(jnp.stack(totals))


def _norm(factors: list[Any], structure: Any, p: PyTree, v: PyTree) -> Array:
    return root(_sum(factors, structure, "inner", p, v, v))


def _dist(factors: list[Any], structure: Any, p: PyTree, q: PyTree) -> Array:
    squares = [jnp.sum(value**2) for value in _values(factors, structure, "dist", (p, q))]
    return root(jnp.sum(jnp.stack(squares)))


def _random_point(
    factors: list[Any], structure: Any, key: Key, sizes: PyTree, *, dtype: Any = None
) -> PyTree:
    keys = jax.random.split(key, len(factors))
    parts = zip(factors, keys, structure.flatten_up_to(sizes), strict=True)
    return jax.tree.unflatten(
        structure, [factor.random_point(k, *size, dtype=dtype) for factor, k, size in parts]
    )


def _random_tangent(factors: list[Any], structure: Any, key: Key, p: PyTree) -> PyTree:
    keys = jax.random.split(key, len(factors))
    parts = zip(factors, keys, structure.flatten_up_to(p), strict=True)
    return jax.tree.unflatten(structure, [f.random_tangent(k, x) for f, k, x in parts])


def _largest(factors: list[Any], structure: Any, p: PyTree) -> Array:
    found = [jnp.max(value) for value in _values(factors, structure, "check", (p,))]
    return jnp.max(jnp.stack(found))
