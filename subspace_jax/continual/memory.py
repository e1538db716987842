"""What earlier tasks occupy of each kernel's inputs: orthonormal bases that grow, of fixed shape.

A kernel is (inputs, outputs), y = W^T x, and the basis lives on the *input* side: for x in span(Q),
no update off span(Q), Q^T dW = 0, changes y. A basis of outputs would preserve nothing.

Every leaf of a parameter pytree is such a kernel: axes before the last are inputs, and a vector is
the kernel (1, outputs) of a constant input. So biases learn in the first task and are full after
it; a network that shall learn them longer carries them as a row of its kernels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.typing import Array, Float, Integer, PyTree

__all__ = ["Memory", "append", "as_kernels", "empty", "for_kernels", "map_kernels", "project_out"]


class Memory(NamedTuple):
    """An orthonormal basis; columns past ``num_directions`` are zero."""

    Q: Float[Array, "n capacity"]
    num_directions: Integer[Array, ""]


def empty(n: int, capacity: int, *, dtype: Any = jnp.float32) -> Memory:
    """The memory of nothing.

    Args:
        n: number of inputs.
        capacity: most directions that it will ever hold; more than n of them are n.
        dtype: of the basis.

    Raises:
        ValueError: a capacity below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    return Memory(jnp.zeros((n, min(n, capacity)), dtype), jnp.zeros((), int))


def append(
    memory: Memory, vectors: Float[Array, "n m"], num: Integer[Array, ""] | int | None = None
) -> Memory:
    """The memory with the span of more vectors, as far as they are new and there is room.

    Args:
        memory: what is known.
        vectors: orthonormal ones, the most important first.
        num: how many of them to take; None: all.

    Raises:
        ValueError: vectors of another dimension.
    """
    Q, size = memory
    if vectors.ndim != 2 or len(vectors) != len(Q):
        raise ValueError(f"vectors of dimension {len(Q)} are expected, got {vectors.shape}")
    capacity = Q.shape[1]
    num = vectors.shape[1] if num is None else num
    taken = jnp.arange(vectors.shape[1]) < jnp.minimum(num, capacity - size)
    U, s, _ = jnp.linalg.svd(
        linalg.project_out(Q, jnp.where(taken, vectors, 0)), full_matrices=False
    )
    # What rounding leaves of a vector within the span is no direction.
    new = s > jnp.sqrt(jnp.finfo(s.dtype).eps)
    U = linalg.project_out(Q, jnp.where(new, U, 0))
    wide = jnp.pad(Q, ((0, 0), (0, U.shape[1])))
    wide = jax.lax.dynamic_update_slice(wide, U, (jnp.zeros_like(size), size))
    total = jnp.minimum(size + jnp.sum(new), capacity).astype(size.dtype)
    return Memory(wide[:, :capacity], total)


def project_out(memories: PyTree, updates: PyTree) -> PyTree:
    """The part of gradients or updates that leaves the outputs at remembered inputs as they are.

    Args:
        memories: one of every leaf, as `for_kernels` makes them.
        updates: like the parameters.
    """
    return map_kernels(lambda G, memory: linalg.project_out(memory.Q, G), updates, memories)


def for_kernels(params: PyTree, *, capacity: int | None = None) -> PyTree:
    """A tree like the parameters, with the empty memory of each leaf; None: of full capacity."""

    def of_leaf(kernel):
        n = len(kernel)
        return empty(n, n if capacity is None else capacity, dtype=kernel.dtype)

    return jax.tree.map(of_leaf, as_kernels(params))


def as_kernels(params: PyTree) -> PyTree:
    """Every leaf as a matrix (inputs, outputs): its last axis, and all the others in one."""
    return jax.tree.map(_as_kernel, params)


def map_kernels(function: Callable[..., Array], params: PyTree, *trees: PyTree) -> PyTree:
    """``function`` of each leaf as a kernel and of what the trees hold for it, shaped as before."""

    def of_leaf(leaf, *others):
        return function(_as_kernel(leaf), *others).reshape(jnp.shape(leaf))

    return jax.tree.map(of_leaf, params, *trees)


def _as_kernel(leaf: Array) -> Array:
    shape = jnp.shape(leaf)
    outputs = shape[-1] if shape else 1
    return jnp.reshape(leaf, (math.prod(shape[:-1]), outputs))
