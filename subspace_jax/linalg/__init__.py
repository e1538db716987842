"""What a subspace is: orthonormal bases, low-rank ranges, orthogonal transforms."""

from subspace_jax.linalg import frequent_directions, operators, subspaces
from subspace_jax.linalg._spectral import spectral_projector
from subspace_jax.linalg.basis import (
    complement,
    orthonormalize,
    principal_angles,
    procrustes,
    project,
    project_out,
)
from subspace_jax.linalg.distances import (
    binet_cauchy_distance,
    chordal_distance,
    fubini_study_distance,
    geodesic_distance,
    martin_distance,
    procrustes_distance,
    projection_distance,
    squared_geodesic_distance,
)
from subspace_jax.linalg.hadamard import block_hadamard_transform, hadamard_transform
from subspace_jax.linalg.lowrank import energy_rank, nystrom, randomized_svd, range_finder

__all__ = [
    "binet_cauchy_distance",
    "block_hadamard_transform",
    "chordal_distance",
    "complement",
    "energy_rank",
    "frequent_directions",
    "fubini_study_distance",
    "geodesic_distance",
    "hadamard_transform",
    "martin_distance",
    "nystrom",
    "operators",
    "orthonormalize",
    "principal_angles",
    "procrustes",
    "procrustes_distance",
    "project",
    "project_out",
    "projection_distance",
    "randomized_svd",
    "range_finder",
    "spectral_projector",
    "squared_geodesic_distance",
    "subspaces",
]
