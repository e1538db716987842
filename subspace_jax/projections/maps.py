"""The linear map z -> P z of any projection, its exact adjoint, and what they make of a loss."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.projections._layout import Layout
from subspace_jax.typing import Array, Float, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """The linear map P from z to the parameters: a pytree of arrays. Built by its schemes.

    The arrays' shapes are said in words: JAX also builds this class around tracers, batches and
    placeholders.
    """

    arrays: dict[str, Any]
    """What the scheme stores; its constructor's module says what that is."""
    dim: Any
    """The dimension d of the subspace; may be traced. Entries of z from ``dim`` on are inert."""
    layout: Layout = field(metadata={"static": True})
    """Structure, shapes and dtypes of the parameters."""
    max_dim: int = field(metadata={"static": True})
    """The length of z."""
    apply: Callable[..., PyTree] = field(metadata={"static": True})
    """``(arrays, layout, z) -> P z``, shaped like the parameters but in the dtype of z."""


def expand(projection: Projection, z: Float[Array, " d"]) -> PyTree:
    """The parameters' displacement P z, in the shapes and dtypes of the parameters.

    Raises:
        ValueError: ``z`` is not a real floating-point vector of the projection's length.
    """
    z = jnp.asarray(z)
    if z.shape != (projection.max_dim,) or not jnp.issubdtype(z.dtype, jnp.floating):
        wanted = f"a real floating-point vector of shape ({projection.max_dim},)"
        raise ValueError(f"z must be {wanted}, got {z.dtype} {z.shape}")
    exact = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    updates = projection.apply(projection.arrays, projection.layout, exact)
    return jax.tree.map(lambda u, leaf: u.astype(leaf.dtype), updates, projection.layout.like)


def contract(projection: Projection, grads: PyTree) -> Float[Array, " d"]:
    """The gradient in the subspace, P^T g: the exact adjoint of `expand`.

    Computed in the common dtype of ``grads``, but at least float32.

    Raises:
        ValueError: ``grads`` is not of the parameters' structure and shapes.
    """
    tree.check_same_shapes("grads", grads, "params", projection.layout.like)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(grads))
    adjoint = jax.linear_transpose(
        lambda z: projection.apply(projection.arrays, projection.layout, z),
        jax.ShapeDtypeStruct((projection.max_dim,), dtype),
    )
    return adjoint(jax.tree.map(lambda g: jnp.asarray(g, dtype), grads))[0]


def restrict(
    loss: Callable[..., Any], projection: Projection, params0: PyTree
) -> Callable[..., Any]:
    """The function ``(z, *args) -> loss(params0 + P z, *args)``.

    Reference: Li, Farkhoor, Liu & Yosinski (2018), equation 2.
    """

    def loss_z(z, *args, **kwargs):
        step = expand(projection, z)
        tree.check_same_shapes("params0", params0, "params", step)
        return loss(jax.tree.map(jnp.add, params0, step), *args, **kwargs)

    return loss_z


def materialize(projection: Projection) -> Float[Array, "D d"]:
    """The matrix P itself: D d numbers, for tests and small problems."""
    basis = jnp.eye(projection.max_dim, dtype=projection.layout.dtype)
    return jax.vmap(lambda z: tree.ravel(expand(projection, z)), out_axes=1)(basis)
