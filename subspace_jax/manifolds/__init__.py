"""Where bases live: manifolds as modules of functions with the same names."""

from subspace_jax.manifolds import grassmann, stiefel
from subspace_jax.manifolds._manifold import Geometry, Manifold
from subspace_jax.manifolds.head import GrassmannHead

__all__ = ["Geometry", "GrassmannHead", "Manifold", "grassmann", "stiefel"]
