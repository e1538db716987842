"""Where bases live: every module has the same functions of points, tangents and both."""

from subspace_jax.manifolds import (
    euclidean,
    fixed_rank,
    flag,
    grassmann,
    inference,
    means,
    oblique,
    orthogonal,
    product,
    spd,
    stiefel,
)
from subspace_jax.manifolds._manifold import Geometry, Manifold
from subspace_jax.manifolds.head import GrassmannHead

__all__ = [
    "Geometry",
    "GrassmannHead",
    "Manifold",
    "euclidean",
    "fixed_rank",
    "flag",
    "grassmann",
    "inference",
    "means",
    "oblique",
    "orthogonal",
    "product",
    "spd",
    "stiefel",
]
