"""Projections onto directions that are given, not drawn.

Stored: ``basis``, a pytree like the parameters with the columns on a further, last axis.
"""

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.projections._layout import layout_of
from subspace_jax.projections.maps import Projection
from subspace_jax.typing import PyTree


def spanned(basis: PyTree) -> Projection:
    """The projection whose columns are these directions; isometric if they are orthonormal.

    Those of `landscape.trajectory_pca` with ``center="first"`` make a lottery subspace; any basis
    with the parameters after some training in the place of the initial ones a burn-in subspace.

    Args:
        basis: like the parameters, with d columns on a further, last axis of every leaf.

    Raises:
        ValueError: leaves without columns or with different numbers of them, or more than D.

    Reference: Larsen, Fort, Becker & Ganguli (2022), "How many degrees of freedom do we need to
    train deep networks: a loss landscape perspective".
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(basis)]
    dims = {shape[-1] if shape else 0 for shape in shapes}
    if len(dims) != 1 or 0 in dims:
        raise ValueError(f"need as many columns on the last axis of every leaf, got {shapes}")
    (dim,) = dims
    columns = jax.tree.map(
        lambda V: jax.ShapeDtypeStruct(jnp.shape(V)[:-1], jnp.result_type(V)), basis
    )
    layout = layout_of(columns)
    if dim > layout.size:
        raise ValueError(f"need at most D = {layout.size} columns, got {dim}")
    return Projection({"basis": basis}, dim, layout, dim, _apply)


def _apply(arrays, layout, z):
    del layout
    return jax.tree.map(lambda V: matmul(V.astype(z.dtype), z[:, None])[..., 0], arrays["basis"])
