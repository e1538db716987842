"""Measurements of images: linear operators with matched adjoints and fast Gram operators."""

from subspace_jax.diffusion.operators import coils, masks
from subspace_jax.diffusion.operators._mri import multicoil_mri, radial
from subspace_jax.diffusion.operators._operator import LinearOperator, linear, stack3d

__all__ = ["LinearOperator", "coils", "linear", "masks", "multicoil_mri", "radial", "stack3d"]
