"""Where bases live: every module has the same functions of points, tangents and both."""

from subspace_jax.manifolds import means

__all__ = ["means"]
