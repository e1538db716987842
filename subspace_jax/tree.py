"""Pytrees as vectors of one inner-product space."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from subspace_jax.typing import Array, Inexact, PyTree


def size(x: PyTree) -> int:
    """The dimension of ``x`` as a vector: the number of entries in all its leaves."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(x))


def vdot(x: PyTree, y: PyTree) -> Inexact[Array, ""]:
    """The inner product <x, y>, conjugate-linear in ``x``, at the highest matmul precision.

    A sum of half-precision products is float32: in float16 it would overflow above 65504.

    Raises:
        ValueError: the two trees differ in structure or in the shape of a leaf.
    """
    check_same_shapes("x", x, "y", y)

    def product(a, b):
        dtype = jnp.result_type(a, b)
        if jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.promote_types(dtype, jnp.float32)
        # Not jnp.vdot: it flattens, and an array over devices is gathered for that.
        return jnp.tensordot(
            jnp.conj(a), b, jnp.ndim(b),
            precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype,
            out_sharding=_replicated(b),
        )  # fmt: skip

    products = jax.tree.map(product, x, y)
    return jnp.asarray(jax.tree.reduce(jnp.add, products, 0.0))


def _replicated(x: Array) -> NamedSharding | None:
    """On every device, where JAX asks: for operands on a mesh with explicit axes."""
    lies = jax.typeof(x).sharding
    return NamedSharding(lies.mesh, PartitionSpec()) if any(lies.spec) else None


def norm(x: PyTree) -> Inexact[Array, ""]:
    """The Euclidean norm of ``x``; its derivative at zero is zero, not NaN."""
    square = vdot(x, x).real
    safe = jnp.where(square > 0, square, 1)
    return jnp.where(square > 0, jnp.sqrt(safe), 0)


def axpy(a: Inexact[Array, ""] | complex | float, x: PyTree, y: PyTree) -> PyTree:
    """The vector ``a x + y``, in the dtypes of ``y``.

    Raises:
        ValueError: the two trees differ in structure or in the shape of a leaf.
    """
    check_same_shapes("x", x, "y", y)
    return jax.tree.map(lambda u, v: jnp.asarray(a * u + v, jnp.result_type(v)), x, y)


def ravel(x: PyTree) -> Inexact[Array, " n"]:
    """All entries of ``x`` in one vector, leaf after leaf, in the leaves' common dtype."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(x)])


def check_same_shapes(name_x: str, x: PyTree, name_y: str, y: PyTree) -> None:
    """Return if ``x`` and ``y`` have one structure and the same shapes; else raise.

    Raises:
        ValueError: names both structures, or the first leaf that differs and both its shapes.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(x)
    others, other_structure = jax.tree.flatten(y)
    if structure != other_structure:
        raise ValueError(
            f"{name_x} and {name_y} differ in structure: {structure} against {other_structure}"
        )
    for (path, leaf), other in zip(leaves, others, strict=True):
        if jnp.shape(leaf) != jnp.shape(other):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name_x}{where} has shape {jnp.shape(leaf)}, "
                f"{name_y}{where} has shape {jnp.shape(other)}"
            )
