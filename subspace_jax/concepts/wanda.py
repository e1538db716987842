"""The weights that a network needs for some inputs and not for others, and a network without them.

A kernel W (inputs, outputs) is applied to the hidden neurons of a feed-forward layer. The score of
a weight is its magnitude times the norm of its neuron; a weight that is among the best of its
output for one prompt, and not for a reference, belongs to that prompt. What several prompts have
in common spans the subspace that is removed. Masks are boolean arrays like the kernel.

Reference: Chavhan, Bohdal, Zong, Li & Hospedales (2024), "Memorized images in diffusion models
share a subspace that can be located and deleted", arXiv 2406.18566; the scores are those of Sun et
al. (2024), "A simple and effective pruning approach for large language models", arXiv 2306.11695.
"""

import jax.numpy as jnp

from subspace_jax.typing import Array, Bool, Float

__all__ = ["located", "norms", "remove", "scores", "shared", "top"]


def norms(X: Float[Array, "num n"]) -> Float[Array, " n"]:
    """The norm of each neuron over the examples (and tokens) in rows."""
    return jnp.linalg.norm(X, axis=0)


def scores(W: Float[Array, "n m"], norms: Float[Array, " n"]) -> Float[Array, "n m"]:
    """The magnitude of each weight times the norm of the neuron that it is applied to.

    Raises:
        ValueError: as many norms as ``W`` has rows are expected.

    Reference: Sun et al. (2024), equation (1).
    """
    if norms.shape != W.shape[:1]:
        raise ValueError(f"norms of {W.shape[0]} neurons are expected, got {norms.shape}")
    return jnp.abs(W) * norms[:, None]


def top(scores: Float[Array, "n m"], share: float) -> Bool[Array, "n m"]:
    """The best ``share`` of the weights of every output, at least one; equal ones all count.

    Outputs are compared with themselves only: their scales differ.

    Raises:
        ValueError: a share outside of (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    count = max(1, round(share * len(scores)))
    return scores >= jnp.sort(scores, axis=0)[-count]


def located(
    scores: Float[Array, "n m"], reference: Float[Array, "n m"], share: float
) -> Bool[Array, "n m"]:
    """The weights that are among the best for the one input and not for the reference.

    Args:
        scores: under the prompt in question.
        reference: under another prompt, say the empty one.
        share: of each output's weights that count as the best.

    Raises:
        ValueError: shapes that differ, or a share outside of (0, 1].
    """
    if scores.shape != reference.shape:
        raise ValueError(f"scores of one kernel have one shape: {scores.shape}, {reference.shape}")
    return top(scores, share) & ~top(reference, share)


def shared(masks: Bool[Array, "num n m"], min_count: int) -> Bool[Array, "n m"]:
    """What at least ``min_count`` of the masks hold: 1 is their union, ``num`` what all share.

    Raises:
        ValueError: a count outside of 1 to ``num``.
    """
    if not 1 <= min_count <= len(masks):
        raise ValueError(f"min_count must be in 1 to {len(masks)}, got {min_count}")
    return jnp.sum(masks, axis=0) >= min_count


def remove(W: Float[Array, "n m"], mask: Bool[Array, "n m"]) -> Float[Array, "n m"]:
    """The kernel with zeros in place of the weights in the mask.

    Raises:
        ValueError: shapes that differ.
    """
    if W.shape != mask.shape:
        raise ValueError(f"a mask is like its kernel: {mask.shape}, {W.shape}")
    return jnp.where(mask, 0, W)
