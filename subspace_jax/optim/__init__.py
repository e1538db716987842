"""Optax transformations that move in a subspace or on a manifold, and minimizers on manifolds.

`low_rank` is the optimizer whose state lives in a low-rank subspace of each gradient matrix; what
moves that subspace is a policy: `singular`, `sampled`, `online`, `walk`, `jump`, `track`.

`sparse_vi` is variational inference over a sparse subspace of the weights.
"""

from subspace_jax.optim._bases import (
    BasisPolicy,
    complement,
    jump,
    online,
    sampled,
    singular,
    track,
    walk,
)
from subspace_jax.optim._low_rank import LowRankLeaf, LowRankState, Recovery, low_rank, recover
from subspace_jax.optim._low_rank_papers import (
    galore,
    grassjump,
    grasswalk,
    online_subspace_descent,
    sara,
    subspace_momentum,
)
from subspace_jax.optim._matrices import MatrixAxes, matrix_axes
from subspace_jax.optim._minimum import Minimum, MinimumInfo
from subspace_jax.optim._random_bases import RandomBasesState, random_bases
from subspace_jax.optim._riemannian import (
    RiemannianState,
    check_invariance,
    riemannian_adam,
    riemannian_sgd,
)
from subspace_jax.optim._riemannian_solvers import riemannian_conjugate_gradient, riemannian_lbfgs
from subspace_jax.optim._sparse_vi import (
    SparseGaussian,
    SparseVI,
    SparseVIInfo,
    SparseVIState,
    sparse_vi,
)
from subspace_jax.optim._structured import (
    StructuredState,
    StructuredVariables,
    structured_subspace,
)
from subspace_jax.optim._subset_norm import SubsetNormState, scale_by_subset_norm
from subspace_jax.optim._subspace import SubspaceState, subspace
from subspace_jax.optim._trust_region import riemannian_trust_region

__all__ = [
    "BasisPolicy",
    "LowRankLeaf",
    "LowRankState",
    "MatrixAxes",
    "Minimum",
    "MinimumInfo",
    "RandomBasesState",
    "Recovery",
    "RiemannianState",
    "SparseGaussian",
    "SparseVI",
    "SparseVIInfo",
    "SparseVIState",
    "StructuredState",
    "StructuredVariables",
    "SubsetNormState",
    "SubspaceState",
    "check_invariance",
    "complement",
    "galore",
    "grassjump",
    "grasswalk",
    "jump",
    "low_rank",
    "matrix_axes",
    "online",
    "online_subspace_descent",
    "random_bases",
    "recover",
    "riemannian_adam",
    "riemannian_conjugate_gradient",
    "riemannian_lbfgs",
    "riemannian_sgd",
    "riemannian_trust_region",
    "sampled",
    "sara",
    "scale_by_subset_norm",
    "singular",
    "sparse_vi",
    "structured_subspace",
    "subspace",
    "subspace_momentum",
    "track",
    "walk",
]
