"""Optax transformations that move in a subspace."""

from subspace_jax.optim._subspace import SubspaceState, subspace

__all__ = ["SubspaceState", "subspace"]
