"""Diffusion samplers for linear inverse problems."""

from subspace_jax.diffusion import operators

__all__ = ["operators"]
