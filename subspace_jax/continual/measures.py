"""How much was learned and forgotten, from the accuracies R[i, j] on task j after task i.

Reference: Lopez-Paz & Ranzato (2017), "Gradient episodic memory", section 2; Chaudhry et al.
(2018), "Riemannian walk for incremental learning", for forgetting.
"""

import jax.numpy as jnp

from subspace_jax.typing import Array, Float

__all__ = ["average_accuracy", "average_accuracy_curve", "backward_transfer", "forgetting"]

Accuracies = Float[Array, "*batch t t"]


def average_accuracy(R: Accuracies) -> Float[Array, "*batch"]:
    """The mean accuracy on all tasks after the last."""
    return jnp.mean(R[..., -1, :], axis=-1)


def average_accuracy_curve(R: Accuracies) -> Float[Array, "*batch t"]:
    """The mean accuracy on the tasks seen so far, after each."""
    num_tasks = R.shape[-1]
    return jnp.sum(jnp.tril(R), axis=-1) / jnp.arange(1, num_tasks + 1)


def backward_transfer(R: Accuracies) -> Float[Array, "*batch"]:
    """The mean of R[last, j] - R[j, j] over all tasks but the last; of one task, 0."""
    own = jnp.diagonal(R, axis1=-2, axis2=-1)
    return _mean_of_earlier(R[..., -1, :] - own)


def forgetting(R: Accuracies) -> Float[Array, "*batch"]:
    """The mean of max_i R[i, j] - R[last, j] over all tasks but the last, i from j to last - 1.

    Of one task, 0. Below zero where a task is best at the end.
    """
    num_tasks = R.shape[-1]
    seen = jnp.tril(jnp.ones((num_tasks, num_tasks), bool)).at[-1].set(False)
    # The last task has no earlier time: whatever stands there is dropped.
    best = jnp.max(jnp.where(seen, R, -jnp.inf).at[..., -1, -1].set(0), axis=-2)
    return _mean_of_earlier(best - R[..., -1, :])


def _mean_of_earlier(values: Array) -> Array:
    earlier = values[..., :-1]
    return jnp.sum(earlier, axis=-1) / max(1, earlier.shape[-1])
