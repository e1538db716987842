"""How much of a layer is used by the data that pass through it."""

from typing import NamedTuple

import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer

__all__ = ["UtilizedRank", "utilized_rank"]


class UtilizedRank(NamedTuple):
    """A matrix of weights less what its data do not use."""

    weights: Float[Array, "n m"]
    """P_in W P_out, of rank at most min(rank_in, rank_out)."""
    rank_in: Integer[Array, ""]
    rank_out: Integer[Array, ""]
    utilization: Float[Array, ""]
    """min(rank_in, rank_out) / min(n, m)."""


def utilized_rank(
    W: Float[Array, "n m"], X: Float[Array, "b n"], *, energy: float = 0.99
) -> UtilizedRank:
    """The part of ``W`` between the principal subspaces of its inputs and of its outputs X W.

    The subspaces hold ``energy`` of the sum of squares of inputs and outputs, uncentered, so that a
    bias stays what it is.

    Args:
        W: weights, from n inputs to m outputs.
        X: inputs in rows; convolutions are layers of patches.
        energy: share of the sum of squares that is kept on each side, in (0, 1].

    Raises:
        ValueError: inputs that do not fit, or an energy out of bounds.

    Reference: "Revealing the Utilized Rank of Subspaces of Learning in Neural Networks" (2024).
    """
    if X.ndim != 2 or W.ndim != 2 or X.shape[1] != W.shape[0]:
        raise ValueError(f"need weights (n, m) and inputs (b, n), got {W.shape} and {X.shape}")
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], got {energy}")
    P_in, rank_in = _principal_projector(X, energy)
    P_out, rank_out = _principal_projector(matmul(X, W), energy)
    rank = jnp.minimum(rank_in, rank_out)
    weights = matmul(matmul(P_in, W), P_out)
    return UtilizedRank(weights, rank_in, rank_out, (rank / min(W.shape)).astype(W.dtype))


def _principal_projector(X: Array, energy: float) -> tuple[Array, Array]:
    """The projector on the fewest principal directions with that share of |X|^2, and how many."""
    _, values, Vh = jnp.linalg.svd(X, full_matrices=False)
    rank = linalg.energy_rank(values**2, energy)
    kept = jnp.where(jnp.arange(len(values)) < rank, 1, 0).astype(X.dtype)
    return matmul(Vh.T * kept, Vh), rank
