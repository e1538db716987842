"""An ensemble of adapters' subspaces, one a task, with prototypes in each of them (EASE).

A class of an early task was never seen by a later adapter: there its prototype is put together
from those of the new classes, weighted by how alike the classes are where both are known. Training
the adapters is the caller's business; here are functions of their features.

Reference: Zhou, Sun, Ye & Zhan (2024), "Expandable subspace ensemble for pre-trained model-based
class-incremental learning".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer

__all__ = ["Prototypes", "class_means", "extend", "init", "logits", "synthesize"]


class Prototypes(NamedTuple):
    """A prototype of every class in every adapter's subspace, and the adapter of its task."""

    table: Float[Array, "a c d"]
    owner: Integer[Array, " c"]
    """-1 for a class not seen yet."""
    num_adapters: Integer[Array, ""]
    """That are trained; rows of the table past them are zero."""


def init(num_adapters: int, num_classes: int, d: int, *, dtype: Any = jnp.float32) -> Prototypes:
    """Room for so many adapters and classes, none known; d features an adapter."""
    return Prototypes(
        jnp.zeros((num_adapters, num_classes, d), dtype),
        jnp.full(num_classes, -1),
        jnp.zeros((), int),
    )


def extend(
    prototypes: Prototypes, features: Float[Array, "a n d"], labels: Integer[Array, " n"]
) -> Prototypes:
    """The prototypes after the next task: means of its classes, and syntheses of all others.

    The task's adapter is the next one. Its classes get their means in all adapters so far; the
    classes of earlier tasks get in this adapter what `synthesize` says, from their own adapter.

    Args:
        prototypes: of the tasks before.
        features: of the task's examples in every adapter; those of untrained ones are not used.
        labels: of the examples, classes that no task before had.

    Raises:
        ValueError: shapes that do not fit the table.
    """
    table, owner, task = prototypes
    num_adapters, num_classes, d = table.shape
    if features.shape != (num_adapters, len(labels), d):
        raise ValueError(
            f"features {(num_adapters, len(labels), d)} are expected, got {features.shape}"
        )
    means = jax.vmap(lambda x: class_means(x, labels, num_classes))(features)
    present = jnp.any(labels[:, None] == jnp.arange(num_classes), axis=0)
    trained = jnp.arange(num_adapters) <= task
    table = jnp.where(trained[:, None, None] & present[:, None], means, table)

    def synthesized(adapter: Array, old: Array) -> Array:
        return synthesize(old[None], means[adapter], means[task], valid=present)[0]

    known = jnp.maximum(owner, 0)
    guesses = jax.vmap(synthesized)(known, table[known, jnp.arange(num_classes)])
    table = table.at[task].set(jnp.where((owner >= 0)[:, None], guesses, table[task]))
    return Prototypes(table, jnp.where(present, task, owner), task + 1)


def class_means(
    features: Float[Array, "n d"], labels: Integer[Array, " n"], num_classes: int
) -> Float[Array, "c d"]:
    """The mean of each class's features, zero of a class without examples."""
    members = (labels[None] == jnp.arange(num_classes)[:, None]).astype(features.dtype)
    return matmul(members, features) / jnp.maximum(jnp.sum(members, axis=1, keepdims=True), 1)


def synthesize(
    old: Float[Array, "o d"],
    new_in_old: Float[Array, "c d"],
    new_in_new: Float[Array, "c e"],
    *,
    valid: Array | None = None,
) -> Float[Array, "o e"]:
    """Prototypes of old classes in a new subspace, by their likeness to new ones in an old one.

    Args:
        old: prototypes of old classes, in the old subspace.
        new_in_old: prototypes of the new classes there.
        new_in_new: prototypes of the new classes in the new subspace.
        valid: which of the new classes to use; None: all.

    The weights are the softmax of the cosines.
    """
    likeness = matmul(_unit(old), _unit(new_in_old).T)
    if valid is not None:
        likeness = jnp.where(valid, likeness, -jnp.inf)
    return matmul(jax.nn.softmax(likeness, axis=-1), new_in_new)


def logits(
    prototypes: Prototypes, features: Float[Array, "a d"], *, alpha: float = 0.1
) -> Float[Array, " c"]:
    """One example's cosine in each class's own subspace, plus ``alpha`` times the others' mean.

    Args:
        prototypes: of all tasks so far.
        features: of the example in every adapter.
        alpha: weight of the subspaces of other tasks; the paper's is 0.1.

    Returns:
        A score a class, -inf for classes not seen.
    """
    table, owner, num = prototypes
    cosines = jnp.einsum(
        "acd,ad->ac", _unit(table), _unit(features), precision=jax.lax.Precision.HIGHEST
    )
    trained = jnp.arange(len(table)) < num
    own = cosines[jnp.maximum(owner, 0), jnp.arange(len(owner))]
    others = jnp.sum(jnp.where(trained[:, None], cosines, 0), axis=0) - own
    return jnp.where(owner >= 0, own + alpha * others / jnp.maximum(num - 1, 1), -jnp.inf)


def _unit(x: Array) -> Array:
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square > 0, square, 1))
