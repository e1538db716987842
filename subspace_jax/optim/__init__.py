"""Optax transformations that move in a subspace, or on a manifold."""

from subspace_jax.optim._riemannian import (
    RiemannianState,
    check_invariance,
    riemannian_adam,
    riemannian_sgd,
)
from subspace_jax.optim._subspace import SubspaceState, subspace

__all__ = [
    "RiemannianState",
    "SubspaceState",
    "check_invariance",
    "riemannian_adam",
    "riemannian_sgd",
    "subspace",
]
