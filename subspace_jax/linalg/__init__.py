"""What a subspace is: orthonormal bases, low-rank ranges, orthogonal transforms."""

from subspace_jax.linalg import operators
from subspace_jax.linalg._spectral import spectral_projector
from subspace_jax.linalg.basis import (
    chordal_distance,
    complement,
    geodesic_distance,
    orthonormalize,
    principal_angles,
    procrustes,
    project,
    project_out,
)
from subspace_jax.linalg.hadamard import block_hadamard_transform, hadamard_transform
from subspace_jax.linalg.lowrank import nystrom, randomized_svd, range_finder

__all__ = [
    "block_hadamard_transform",
    "chordal_distance",
    "complement",
    "geodesic_distance",
    "hadamard_transform",
    "nystrom",
    "operators",
    "orthonormalize",
    "principal_angles",
    "procrustes",
    "project",
    "project_out",
    "randomized_svd",
    "range_finder",
    "spectral_projector",
]
