"""Concepts in networks: the weights that carry them, found and removed."""

from subspace_jax.concepts import wanda

__all__ = ["wanda"]
