"""Continuous subspace optimization: each task learns in its own directions, outside of the past's.

The history H of a kernel (inputs, outputs) is an orthonormal basis on its *input* side, as the
gradients' columns lie in the span of the inputs: no step off H changes what the kernel makes of an
input in span(H). A basis on the output side would preserve nothing. `continual.memory` says what
becomes of vectors.

Reference: "Continuous subspace optimization for continual learning" (CoSO, NeurIPS 2025).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax import linalg, optim
from subspace_jax.continual import memory
from subspace_jax.linalg import frequent_directions
from subspace_jax.linalg.frequent_directions import FrequentDirections
from subspace_jax.typing import Array, PyTree

__all__ = ["Coso", "CosoState", "optimizer"]


class CosoState(NamedTuple):
    """State of a CoSO optimizer: trees like the parameters, of what each kernel has."""

    history: PyTree
    """`memory.Memory` of the tasks before: ``num_directions`` of n say how full it is."""
    sketches: PyTree
    """Frequent Directions of this task's gradients, a row a direction of the inputs."""
    low_rank: PyTree
    """The `optim.LowRankState`: the directions that learn now, moments, the steps of this task."""


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

    def within(history: PyTree) -> optax.GradientTransformationExtraArgs:
        """The optimizer of kernels in their leading directions outside of the history."""
        policies = jax.tree.map(
            lambda known: optim.complement(known.Q), history, is_leaf=_is_memory
        )
        return optim.low_rank(
            inner,
            rank=rank,
            basis=policies,
            refresh_every=refresh_every,
            side="rows",
            stagger=False,
        )

    def start(kernels: PyTree, history: PyTree) -> CosoState:
        def sketch(W: Array) -> FrequentDirections:
            return frequent_directions.init(len(W), sketch_size, dtype=W.dtype)

        return CosoState(history, jax.tree.map(sketch, kernels), within(history).init(kernels))

    def init(params):
        return start(memory.as_kernels(params), memory.for_kernels(params, capacity=capacity))

    def update(updates, state, params=None):
        del params

        def longer(sketches):
            outside = memory.as_kernels(memory.project_out(state.history, updates))
            return jax.tree.map(
                lambda G, sketch: frequent_directions.update(sketch, G.T), outside, sketches
            )

        due = state.low_rank.num_steps % refresh_every == 0
        sketches = jax.lax.cond(due, longer, lambda sketches: sketches, state.sketches)
        steps, low_rank = within(state.history).update(memory.as_kernels(updates), state.low_rank)
        steps = jax.tree.map(lambda G, dW: dW.reshape(G.shape), updates, steps)
        # Where all gradients were zero so far, the basis is still a random one.
        steps = memory.project_out(state.history, steps)
        return steps, CosoState(state.history, sketches, low_rank)

    def end_task(state, params):
        def longer(W: Array, known: memory.Memory, sketch: FrequentDirections) -> memory.Memory:
            del W
            _, s, Vh = jnp.linalg.svd(sketch.B, full_matrices=False)
            return memory.append(known, Vh.T, linalg.energy_rank(s**2, threshold))

        kernels = memory.as_kernels(params)
        return start(kernels, jax.tree.map(longer, kernels, state.history, state.sketches))

    return Coso(init, update, end_task)


def _is_memory(x: PyTree) -> bool:
    return isinstance(x, memory.Memory)
