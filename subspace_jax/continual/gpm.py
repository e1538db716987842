"""Gradient projection memory: learn a task in what earlier tasks' inputs leave free.

`continual.memory` says which side is which, and what becomes of vectors.

Reference: Saha, Garg & Roy (2021), "Gradient projection memory for continual learning".
"""

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.continual import memory
from subspace_jax.continual.memory import Memory
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, PyTree

__all__ = ["end_task", "init", "project", "remember"]


def init(params: PyTree, *, capacity: int | None = None) -> PyTree:
    """The empty memories of a pytree of parameters; ``capacity`` directions a kernel, None: all."""
    return memory.for_kernels(params, capacity=capacity)


def project(memories: PyTree, grads: PyTree) -> PyTree:
    """The gradients G - M M^T G of every kernel (inputs, outputs).

    An optimizer that scales coordinates (Adam) leaves this subspace again: project its updates.
    """
    return memory.project_out(memories, grads)


def end_task(memories: PyTree, inputs: PyTree, *, threshold: float) -> PyTree:
    """The memories after a task.

    Args:
        memories: of the tasks before.
        inputs: a tree like the parameters: examples (num, n) of what each kernel was applied to
            under the final weights; for a vector, ones (num, 1).
        threshold: share of the energy of the inputs that the memory shall hold, in (0, 1].

    Raises:
        ValueError: a threshold outside of (0, 1], or inputs of another size than the kernel's.
    """
    return jax.tree.map(lambda X, known: remember(known, X, threshold=threshold), inputs, memories)


def remember(known: Memory, X: Float[Array, "num n"], *, threshold: float) -> Memory:
    """The memory of one kernel, extended to hold the share ``threshold`` of the energy of ``X``.

    What it holds already counts: it takes as many leading directions of the rest as are missing.

    Raises:
        ValueError: as `end_task`.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    if X.ndim != 2 or X.shape[1] != len(known.Q):
        raise ValueError(f"inputs of {len(known.Q)} numbers are expected, got {X.shape}")
    R = linalg.project_out(known.Q, X.T)
    U, s, _ = jnp.linalg.svd(R, full_matrices=False)
    rest, held = s**2, jnp.sum(matmul(known.Q.T, X.T) ** 2)
    # What is held comes first; where it is something it is counted, but costs no direction.
    values = jnp.concatenate([held[None], rest])
    num = linalg.energy_rank(values, threshold) - (held > 0)
    return memory.append(known, U, num)
