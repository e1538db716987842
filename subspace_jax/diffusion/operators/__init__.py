"""Measurements of images: linear operators with matched adjoints and fast Gram operators."""

from subspace_jax.diffusion.operators import coils, masks
from subspace_jax.diffusion.operators._ct import parallel_beam, parallel_beam_fourier
from subspace_jax.diffusion.operators._image import blur, downsample, inpaint
from subspace_jax.diffusion.operators._mri import multicoil_mri, radial
from subspace_jax.diffusion.operators._operator import LinearOperator, linear, stack3d

__all__ = [
    "LinearOperator",
    "blur",
    "coils",
    "downsample",
    "inpaint",
    "linear",
    "masks",
    "multicoil_mri",
    "parallel_beam",
    "parallel_beam_fourier",
    "radial",
    "stack3d",
]
