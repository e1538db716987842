"""The shape of a loss around trained parameters, for any pytree of them.

`hessian` and `gradient_second_moment` are linear maps on the parameters, from whole data or from
minibatches in turn: `krylov.spectral_density` and `krylov.logdet` take them as they are, and
`top_eigenspace` finds the outliers of their spectra. A loss of some leaves, the others held, gives
their block. `gradient_fraction`, `component` and `overlap` say what lies in such a space,
`trajectory_pca` which directions training took, `path`, `path_losses` and `path_loss` what lies
between two solutions, `utilized_rank` how much of a layer its data use, `intrinsic_dimension` how
few directions it takes to train. Seeds are a batch by ``vmap``.
"""

from subspace_jax.landscape._intrinsic_dimension import (
    DimensionEstimate,
    IntrinsicDimension,
    intrinsic_dimension,
    smallest_dimension,
)
from subspace_jax.landscape.alignment import component, gradient_fraction, overlap
from subspace_jax.landscape.curvature import gradient_second_moment, hessian, top_eigenspace
from subspace_jax.landscape.layers import UtilizedRank, utilized_rank
from subspace_jax.landscape.paths import path, path_loss, path_losses
from subspace_jax.landscape.trajectories import TrajectoryPCA, trajectory_pca

__all__ = [
    "DimensionEstimate",
    "IntrinsicDimension",
    "TrajectoryPCA",
    "UtilizedRank",
    "component",
    "gradient_fraction",
    "gradient_second_moment",
    "hessian",
    "intrinsic_dimension",
    "overlap",
    "path",
    "path_loss",
    "path_losses",
    "smallest_dimension",
    "top_eigenspace",
    "trajectory_pca",
    "utilized_rank",
]
