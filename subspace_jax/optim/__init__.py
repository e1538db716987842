"""Optax transformations that move in a subspace or on a manifold, and minimizers on manifolds.

`sparse_vi` is variational inference over a sparse subspace of the weights, `select` chooses the
training data by their gradients.
"""

from subspace_jax.optim._minimum import Minimum, MinimumInfo
from subspace_jax.optim._random_bases import RandomBasesState, random_bases
from subspace_jax.optim._riemannian import (
    RiemannianState,
    check_invariance,
    riemannian_adam,
    riemannian_sgd,
)
from subspace_jax.optim._riemannian_solvers import riemannian_conjugate_gradient, riemannian_lbfgs
from subspace_jax.optim._select import (
    Selection,
    TargetSubspace,
    per_example_gradients,
    select,
    target_scores,
    target_subspace,
)
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
from subspace_jax.optim._subspace import SubspaceState, subspace
from subspace_jax.optim._trust_region import riemannian_trust_region

__all__ = [
    "Minimum",
    "MinimumInfo",
    "RandomBasesState",
    "RiemannianState",
    "Selection",
    "SparseGaussian",
    "SparseVI",
    "SparseVIInfo",
    "SparseVIState",
    "StructuredState",
    "StructuredVariables",
    "SubspaceState",
    "TargetSubspace",
    "check_invariance",
    "per_example_gradients",
    "random_bases",
    "riemannian_adam",
    "riemannian_conjugate_gradient",
    "riemannian_lbfgs",
    "riemannian_sgd",
    "riemannian_trust_region",
    "select",
    "sparse_vi",
    "structured_subspace",
    "subspace",
    "target_scores",
    "target_subspace",
]
