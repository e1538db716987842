"""Where bases live: every module has the same functions of points, tangents and both."""

from subspace_jax.manifolds import grassmann, inference, means
from subspace_jax.manifolds._manifold import Geometry, Manifold
from subspace_jax.manifolds.head import GrassmannHead

__all__ = ["Geometry", "GrassmannHead", "Manifold", "grassmann", "inference", "means"]
