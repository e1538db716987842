"""The linear map z -> P z of any projection, its exact adjoint, and what they make of a loss."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.projections._layout import Layout
from subspace_jax.typing import Array, Float, PyTree


@runtime_checkable
class Projection(Protocol):
    """What every scheme's dataclass has: the layout of the parameters and the length of z."""

    @property
    def layout(self) -> Layout:
        """Structure, shapes and dtypes of the parameters."""
        ...

    @property
    def max_dim(self) -> int:
        """The length of z."""
        ...


@singledispatch
def apply(projection: Any, z: Float[Array, " d"]) -> PyTree:
    """P z, shaped like the parameters but in the dtype of ``z``: what each scheme defines."""
    raise TypeError(f"not a projection: {type(projection).__name__}")


def expand(projection: Projection, z: Float[Array, " d"]) -> PyTree:
    """The parameters' displacement P z, in the shapes and dtypes of the parameters.

    Raises:
        ValueError: ``z`` is not a vector of the projection's length.
    """
    if z.shape != (projection.max_dim,):
        raise ValueError(f"z must have shape ({projection.max_dim},), got {z.shape}")
    like = jax.tree.unflatten(projection.layout.treedef, projection.layout.leaves)
    return jax.tree.map(lambda u, leaf: u.astype(leaf.dtype), apply(projection, z), like)


def contract(projection: Projection, grads: PyTree) -> Float[Array, " d"]:
    """The gradient in the subspace, P^T g: the exact adjoint of `expand`.

    Computed in the common dtype of ``grads``, but at least float32.

    Raises:
        ValueError: ``grads`` is not of the parameters' structure and shapes.
    """
    layout = projection.layout
    like = jax.tree.unflatten(layout.treedef, layout.leaves)
    tree.check_same_shapes("grads", grads, "params", like)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(grads))
    adjoint = jax.linear_transpose(
        lambda z: apply(projection, z), jax.ShapeDtypeStruct((projection.max_dim,), dtype)
    )
    return adjoint(jax.tree.map(lambda g: g.astype(dtype), grads))[0]


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
