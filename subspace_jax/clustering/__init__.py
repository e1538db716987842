"""Clustering by subspaces: which of several subspaces a point lies in, and what they are."""

from subspace_jax.clustering import k_subspaces

__all__ = ["k_subspaces"]
