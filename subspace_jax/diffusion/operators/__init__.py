"""Measurements of images: linear operators with matched adjoints and fast Gram operators."""

from subspace_jax.diffusion.operators._operator import LinearOperator, linear

__all__ = ["LinearOperator", "linear"]
