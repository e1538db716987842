"""Where bases live: every module has the same functions of points, tangents and both."""

from subspace_jax.manifolds import (
    euclidean,
    fixed_rank,
    flag,
    means,
    oblique,
    orthogonal,
    product,
    spd,
)

__all__ = [
    "euclidean",
    "fixed_rank",
    "flag",
    "means",
    "oblique",
    "orthogonal",
    "product",
    "spd",
]
