"""Continuous subspace optimization: each task learns in its own directions, outside of the past's.

The history H of a kernel (inputs, outputs) is an orthonormal basis on its *input* side, as the
gradients' columns lie in the span of the inputs: no step off H changes what the kernel makes of an
input in span(H). `continual.memory` says what becomes of vectors. The published description does
not name the side, and on the output side nothing would be preserved.

Reference: "Continuous subspace optimization for continual learning" (CoSO, NeurIPS 2025).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax import linalg
from subspace_jax.continual import memory
from subspace_jax.linalg import frequent_directions
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg.frequent_directions import FrequentDirections
from subspace_jax.typing import Array, Integer, PyTree

__all__ = ["Coso", "CosoState", "optimizer"]


class CosoState(NamedTuple):
    """State of a CoSO optimizer: trees like the parameters, of what each kernel has."""

    history: PyTree
    """`memory.Memory` of the tasks before: ``num_directions`` of n say how full it is."""
    sketches: PyTree
    """Frequent Directions of this task's gradients, a row a direction of the inputs."""
    bases: PyTree
    """P of each kernel, (inputs, rank): the directions that learn now."""
    inner: PyTree
    step: Integer[Array, ""]
    """In this task."""


class Coso(NamedTuple):
    """Pure functions; ``init`` and ``update`` are those of an optax transformation."""

    init: Callable[[PyTree], CosoState]
    """params -> state."""
    update: Callable[..., tuple[PyTree, CosoState]]
    """(grads, state, params=None) -> (updates, state)."""
    end_task: Callable[[CosoState, PyTree], CosoState]
    """(state, params) -> state with the task's directions in the history, the rest anew."""


def optimizer(
    inner: optax.GradientTransformation,
    *,
    rank: int,
    sketch_size: int,
    threshold: float = 0.98,
    refresh_every: int = 1,
    capacity: int | None = None,
) -> Coso:
    """An optimizer of tasks one after another that keeps off the directions of those before.

    With G' = G - H H^T G of each gradient, P are the leading left singular vectors of G', every
    ``refresh_every`` steps; ``inner`` sees P^T G', and its step is expanded by P. At the same steps
    the columns of G' enter the sketch. At the end of a task the leading directions of the sketch
    are appended to H. When H spans all inputs of a kernel, that kernel has stopped to learn.

    Args:
        inner: the optimizer in the subspace, with its learning rate; the paper's is Adam. Its
            moments stay when P turns.
        rank: r1, columns of P, if the kernel has as many.
        sketch_size: r2, rows of the sketch, and most directions that a task adds.
        threshold: share of the sketch's energy to append, in (0, 1].
        refresh_every: K.
        capacity: most directions of a history; None: as many as inputs.

    Raises:
        ValueError: a count below 1, or a threshold outside of (0, 1].

    Reference: the paper's algorithm 1.
    """
    if min(rank, sketch_size, refresh_every) < 1:
        raise ValueError(
            "rank, sketch_size and refresh_every must be at least 1, got "
            f"{rank}, {sketch_size} and {refresh_every}"
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")

    def start(kernels: PyTree, history: PyTree) -> CosoState:
        def sketch(W: Array) -> FrequentDirections:
            return frequent_directions.init(len(W), sketch_size, dtype=W.dtype)

        bases = jax.tree.map(lambda W: jnp.zeros((len(W), min(rank, *W.shape)), W.dtype), kernels)
        cores = jax.tree.map(lambda P, W: matmul(P.T, W), bases, kernels)
        sketches = jax.tree.map(sketch, kernels)
        return CosoState(history, sketches, bases, inner.init(cores), jnp.zeros((), int))

    def init(params):
        return start(memory.as_kernels(params), memory.for_kernels(params, capacity=capacity))

    def update(updates, state, params=None):
        del params
        outside = memory.as_kernels(memory.project_out(state.history, updates))

        def refreshed():
            bases = jax.tree.map(lambda G, P: _leading(G, P.shape[1]), outside, state.bases)
            sketches = jax.tree.map(
                lambda G, sketch: frequent_directions.update(sketch, G.T), outside, state.sketches
            )
            return bases, sketches

        bases, sketches = jax.lax.cond(
            state.step % refresh_every == 0, refreshed, lambda: (state.bases, state.sketches)
        )
        cores = jax.tree.map(lambda P, G: matmul(P.T, G), bases, outside)
        steps, inner_state = inner.update(cores, state.inner)
        moved = jax.tree.map(matmul, bases, steps)
        moved = jax.tree.map(lambda dW, G: dW.reshape(G.shape).astype(G.dtype), moved, updates)
        # A basis of more columns than directions are left has some of rounding in it.
        moved = memory.project_out(state.history, moved)
        return moved, CosoState(state.history, sketches, bases, inner_state, state.step + 1)

    def end_task(state, params):
        def longer(W: Array, known: memory.Memory, sketch: FrequentDirections) -> memory.Memory:
            del W
            _, s, Vh = jnp.linalg.svd(sketch.B, full_matrices=False)
            return memory.append(known, Vh.T, linalg.energy_rank(s**2, threshold))

        kernels = memory.as_kernels(params)
        return start(kernels, jax.tree.map(longer, kernels, state.history, state.sketches))

    return Coso(init, update, end_task)


def _leading(G: Array, rank: int) -> Array:
    """The leading left singular vectors; zero where there are no more."""
    U, s, _ = jnp.linalg.svd(G, full_matrices=False)
    there = s > max(G.shape) * jnp.finfo(s.dtype).eps * s[0]
    return jnp.where(there, U, 0)[:, :rank]
