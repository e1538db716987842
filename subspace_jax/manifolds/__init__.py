"""Where bases live: manifolds as modules of functions with the same names."""

from subspace_jax.manifolds import grassmann
from subspace_jax.manifolds._manifold import Geometry, Manifold

__all__ = ["Geometry", "Manifold", "grassmann"]
