"""Prompts in the principal subspaces of tasks, reused where tasks share theirs (SPARC).

A prompt of m tokens is C V^T with the orthonormal basis V (d, k) of its task's embeddings; only C
is trained. The overlap, the mean squared cosine of the principal angles, and the ``threshold`` from
which on a prompt is reused are choices made here: this is written from a summary of the paper.

Reference: "SPARC: Subspace-aware prompt adaptation for robust continual learning in LLMs" (2025).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer

__all__ = ["Prompts", "assign", "init", "overlap", "task_basis", "tokens"]


class Prompts(NamedTuple):
    """Prompts and their bases; those past ``num_prompts`` are zero."""

    tasks: Float[Array, "p d k"]
    """Principal directions of the tasks that opened each prompt: what new tasks are compared to."""
    bases: Float[Array, "p d k"]
    """In which the prompts lie: orthogonal to each other while they fit into d dimensions."""
    coefficients: Float[Array, "p m k"]
    num_prompts: Integer[Array, ""]


def init(
    d: int, *, rank: int, max_prompts: int, num_tokens: int = 1, dtype: Any = jnp.float32
) -> Prompts:
    """No prompts, and room for ``max_prompts`` of ``num_tokens`` tokens (d,) and ``rank`` k.

    Raises:
        ValueError: a count below 1, or more directions than dimensions.
    """
    if min(rank, max_prompts, num_tokens) < 1 or rank > d:
        raise ValueError(f"need 1 <= rank <= {d} and counts of at least 1, got rank {rank}")
    bases = jnp.zeros((max_prompts, d, rank), dtype)
    coefficients = jnp.zeros((max_prompts, num_tokens, rank), dtype)
    return Prompts(bases, bases, coefficients, jnp.zeros((), int))


def task_basis(X: Float[Array, "n d"], rank: int) -> Float[Array, "d k"]:
    """The ``rank`` leading principal directions of a task's embeddings.

    Raises:
        ValueError: a rank outside of 1 to min(n, d).
    """
    if not 1 <= rank <= min(X.shape):
        raise ValueError(f"rank must be in 1 to {min(X.shape)}, got {rank}")
    return jnp.linalg.svd(X - jnp.mean(X, axis=0), full_matrices=False)[2][:rank].T


def overlap(V: Float[Array, "d k"], W: Float[Array, "d k"]) -> Float[Array, ""]:
    """The mean squared cosine of the principal angles: 1 of equal subspaces, 0 of orthogonal."""
    return jnp.sum(matmul(V.T, W) ** 2) / V.shape[1]


def assign(
    prompts: Prompts, V: Float[Array, "d k"], *, threshold: float
) -> tuple[Prompts, Integer[Array, ""], Float[Array, ""]]:
    """The prompt of a task with principal directions V: one that is there, or a new one.

    From an overlap of ``threshold`` with the task of a prompt on, that prompt is reused; also
    where there is no room for a new one. A new prompt is zero, in the part of V that is orthogonal
    to all bases; past d dimensions there is none, and its basis is arbitrary.

    Returns:
        ``(prompts, index, overlap)``, the overlap that with the most similar task before; 0 of the
        first.
    """
    num, k = prompts.num_prompts, V.shape[1]
    max_prompts, d = prompts.bases.shape[:2]
    overlaps = jnp.sum(matmul(prompts.tasks.mT, V) ** 2, axis=(1, 2)) / k
    nearest = jnp.argmax(overlaps)
    reused = (num > 0) & ((overlaps[nearest] >= threshold) | (num == max_prompts))
    taken = jnp.moveaxis(prompts.bases, 0, 1).reshape(d, -1)
    fresh = linalg.orthonormalize(linalg.project_out(taken, V))
    index = jnp.where(reused, nearest, num)

    def put(stack: Array, basis: Array) -> Array:
        return jnp.where(reused, stack, stack.at[index].set(basis))

    opened = prompts._replace(
        tasks=put(prompts.tasks, V),
        bases=put(prompts.bases, fresh),
        num_prompts=num + jnp.where(reused, 0, 1),
    )
    return opened, index, overlaps[nearest]


def tokens(prompts: Prompts, index: Integer[Array, ""] | int) -> Float[Array, "m d"]:
    """The prompt C V^T."""
    return matmul(prompts.coefficients[index], prompts.bases[index].T)
