"""Choice of training data by gradients, in the subspace that the gradients of a target span (GIST).

A training example is as good as its gradient is parallel to one that the target's examples have.
Only k coordinates of each gradient, those along the target's leading directions, are stored and
compared: noise that the target does not know of is not seen.

For data larger than memory: `target_subspace` of the target's gradients, then chunk after chunk
`per_example_gradients` in its coordinates and `target_scores`; `select` does it with arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import linalg, tree
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer, PyTree


class TargetSubspace(NamedTuple):
    """Leading right singular vectors of a matrix of gradients."""

    Q: Float[Array, "D k"]
    """Orthonormal columns; those past ``rank`` are zero."""
    singular_values: Float[Array, " k"]
    """All k, also past ``rank``."""
    rank: Integer[Array, ""]


class Selection(NamedTuple):
    """Which training examples, and what was computed to find them."""

    indices: Integer[Array, " num"]
    """The best first."""
    scores: Float[Array, " N"]
    projections: Float[Array, "N k"]
    """All that has to be stored of the training gradients."""
    subspace: TargetSubspace


def select(
    train_grads: Float[Array, "N D"],
    validation_grads: Float[Array, "n d"],
    num: int,
    *,
    rank: int = 150,
    energy: float = 0.95,
    num_groups: int | None = None,
) -> Selection:
    """The ``num`` training examples whose gradients agree best with the target's.

    Args:
        train_grads: a gradient of each example in rows.
        validation_grads: the same of examples of the target.
        num: how many to choose, at most N.
        rank: see `target_subspace`.
        energy: see `target_subspace`.
        num_groups: compare with mean gradients of so many groups of the target, equally long runs
            of its rows; 1 is the mean of all. None compares with each example's.

    Raises:
        ValueError: gradients of other lengths, or what `target_subspace` refuses; num outside of
            1 to N; groups that do not divide the target.

    Reference: Min et al. (2026), "GIST: Targeted data selection for instruction tuning via coupled
    optimization geometry"; groups as in the released code.
    """
    if train_grads.ndim != 2 or train_grads.shape[-1:] != validation_grads.shape[-1:]:
        raise ValueError(
            f"gradients must be rows of one length, got {train_grads.shape} for training and "
            f"{validation_grads.shape} for the target"
        )
    if not 1 <= num <= len(train_grads):
        raise ValueError(f"num must be in 1 to {len(train_grads)}, got {num}")
    n = len(validation_grads)
    groups = n if num_groups is None else num_groups
    if groups < 1 or n % groups:
        raise ValueError(f"{groups} groups do not divide {n} examples of the target")
    subspace = target_subspace(validation_grads, rank=rank, energy=energy)
    targets = matmul(validation_grads, subspace.Q)
    targets = targets.reshape(groups, n // groups, -1).mean(1)
    projections = matmul(train_grads, subspace.Q)
    scores = target_scores(projections, targets)
    return Selection(jax.lax.top_k(scores, num)[1], scores, projections, subspace)


def target_subspace(
    grads: Float[Array, "n D"], *, rank: int = 150, energy: float = 0.95
) -> TargetSubspace:
    """The fewest leading directions of gradients, at most ``rank``, that hold ``energy`` of them.

    They come from the eigenvectors u of the n x n Gram matrix, as G^T u / |G^T u|. That matrix has
    the squares of the singular values s: direction j is exact to about eps (s_1 / s_j)^2 and those
    with s_j^2 <= n eps s_1^2 are rounding, hence left out: in float32 s_1 / s_j above some 400.

    Args:
        grads: gradients in rows, not centred.
        rank: directions at most, k; no more than n or D are made.
        energy: share of the sum of squares, in (0, 1].

    Raises:
        ValueError: no rows, rank below 1, an energy outside of (0, 1].
    """
    if grads.ndim != 2 or not len(grads):
        raise ValueError(f"grads must be gradients in rows, got {grads.shape}")
    if rank < 1 or not 0 < energy <= 1:
        raise ValueError(f"rank >= 1 and energy in (0, 1] are needed, got {rank} and {energy}")
    k = min(rank, *grads.shape)
    squares, U = jnp.linalg.eigh(matmul(grads, grads.T))
    squares, U = jnp.maximum(squares[::-1], 0), U[:, ::-1][:, :k]
    eps = jnp.finfo(grads.dtype).eps
    above_rounding = jnp.sum(squares[:k] > len(grads) * eps * squares[0])
    found = jnp.minimum(linalg.energy_rank(squares, energy), above_rounding)
    # G^T u has the length s in exact arithmetic only: divided by its own it is a unit vector.
    Q = _unit(matmul(grads.T, U), axis=0)
    return TargetSubspace(jnp.where(jnp.arange(k) < found, Q, 0), jnp.sqrt(squares[:k]), found)


def target_scores(
    projections: Float[Array, "*batch k"], targets: Float[Array, "n m"]
) -> Float[Array, "*batch"]:
    """The largest cosine of each row with a row of the target; 0 for a row of zeros.

    For the mean over the target average its rows first.

    Raises:
        ValueError: rows of other lengths.
    """
    if targets.ndim != 2 or projections.shape[-1:] != targets.shape[-1:]:
        raise ValueError(
            f"projections and targets need rows of one length, got {projections.shape} and "
            f"{targets.shape}"
        )
    return jnp.max(matmul(_unit(projections, axis=-1), _unit(targets, axis=-1).T), axis=-1)


def per_example_gradients(
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    params: PyTree,
    examples: PyTree,
    *,
    Q: Float[Array, "D k"] | None = None,
    chunk_size: int = 64,
) -> Float[Array, "N k"]:
    """Gradients of the loss of every example in rows, in coordinates of ``Q`` if given.

    Args:
        loss: (params, example) -> its loss.
        params: where the derivatives are taken; flattened as by `tree.ravel`.
        examples: a pytree with the examples along the leading axis of its arrays.
        Q: a basis, such as that of `target_subspace`; None gives the gradients themselves.
        chunk_size: whole gradients in memory at once, besides what is returned.

    Raises:
        ValueError: a basis of another dimension than the parameters', or a chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if Q is not None and len(Q) != tree.size(params):
        raise ValueError(f"Q has shape {Q.shape}, there are {tree.size(params)} parameters")

    def row(example):
        grad = tree.ravel(jax.grad(loss)(params, example))
        return grad if Q is None else matmul(grad, Q)

    return jax.lax.map(row, examples, batch_size=chunk_size)


def _unit(A: Array, *, axis: int) -> Array:
    """Vectors along an axis at unit length, zeros left alone."""
    squares = jnp.sum(A**2, axis=axis, keepdims=True)
    return A * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1))
