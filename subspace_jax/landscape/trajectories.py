"""Principal directions of the parameters along a training run."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, PyTree

__all__ = ["TrajectoryPCA", "trajectory_pca"]


class TrajectoryPCA(NamedTuple):
    """An affine subspace of the parameters, and where the trajectory was in it."""

    center: PyTree
    """Like the parameters."""
    directions: PyTree
    """Like the parameters, with k orthonormal columns on a further, last axis of every leaf."""
    coordinates: Float[Array, "t k"]
    """Of every point, from the center."""
    explained: Float[Array, " k"]
    """Share of the sum of squared distances from the center; zero if there are none."""


def trajectory_pca(
    trajectory: PyTree, *, k: int, center: Literal["mean", "first", "last"] = "mean"
) -> TrajectoryPCA:
    """The ``k`` directions in which a trajectory of parameters moved most, by one thin SVD.

    Args:
        trajectory: parameters with an axis of t points in front of every leaf.
        k: directions, 1 <= k <= min(t, D).
        center: what distances are from: "first" gives the lottery subspace at the initialization,
            "last" the plot of a loss around where training ended.

    Raises:
        ValueError: leaves with different numbers of points, ``k`` out of bounds, an unknown center.

    Reference: Li, Xu, Taylor, Studer & Goldstein (2018), "Visualizing the loss landscape of neural
    nets", section 7.2; Larsen, Fort, Becker & Ganguli (2022), for the lottery subspace.
    """
    lengths = sorted({len(leaf) for leaf in jax.tree.leaves(trajectory)})
    if len(lengths) != 1:
        raise ValueError(f"every leaf needs the same number of points, got {lengths}")
    rows = jax.vmap(lambda point: ravel_pytree(point)[0])(trajectory)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], trajectory))[1]
    if not 1 <= k <= min(rows.shape):
        raise ValueError(f"k must lie in 1..{min(rows.shape)}, got {k}")
    centers = {"mean": jnp.mean(rows, axis=0), "first": rows[0], "last": rows[-1]}
    if center not in centers:
        raise ValueError(f"center must be one of {tuple(centers)}, got {center!r}")
    moved = rows - centers[center]
    _, values, vectors = jnp.linalg.svd(moved, full_matrices=False)
    total = jnp.sum(values**2)
    return TrajectoryPCA(
        unravel(centers[center]),
        jax.vmap(unravel, out_axes=-1)(vectors[:k]),
        matmul(moved, vectors[:k].T),
        values[:k] ** 2 / jnp.where(total > 0, total, 1),
    )
