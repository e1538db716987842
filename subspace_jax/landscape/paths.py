"""What the loss is between two solutions: along a segment, or a curve that was bent to be low.

With ``bend`` None a path is the segment from ``start`` to ``end``; else the quadratic Bezier curve
that leaves towards the bend and arrives from it. Minimize `path_loss` over the bend, by any
optimizer and with a new key in every step, to find a low one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.typing import Array, Float, Key, PyTree

__all__ = ["path", "path_loss", "path_losses"]

Loss = Callable[[PyTree], Array]


def path(
    t: Float[Array, ""] | float, start: PyTree, end: PyTree, bend: PyTree | None = None
) -> PyTree:
    """The parameters at ``t``: 0 is the start, 1 the end.

    Raises:
        ValueError: trees that differ.

    Reference: Garipov, Izmailov, Podoprikhin, Vetrov & Wilson (2018), "Loss surfaces, mode
    connectivity, and fast ensembling of DNNs", equation (2).
    """
    tree.check_same_shapes("start", start, "end", end)
    if bend is None:
        return jax.tree.map(lambda a, b: (1 - t) * a + t * b, start, end)
    tree.check_same_shapes("start", start, "bend", bend)
    return jax.tree.map(
        lambda a, b, c: (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b, start, end, bend
    )


def path_losses(
    loss: Loss, ts: Float[Array, " m"], start: PyTree, end: PyTree, bend: PyTree | None = None
) -> Float[Array, " m"]:
    """The loss at these places of the path, one after another.

    The highest of them over the higher end is the barrier between two solutions.

    Raises:
        ValueError: as `path`.
    """
    return jax.lax.map(lambda t: loss(path(t, start, end, bend)), ts)


def path_loss(
    key: Key, loss: Loss, start: PyTree, end: PyTree, bend: PyTree | None = None
) -> Float[Array, ""]:
    """The loss at a uniformly random place of the path, whose mean is that over the path.

    Raises:
        ValueError: as `path`.

    Reference: Garipov, Izmailov, Podoprikhin, Vetrov & Wilson (2018), equation (3).
    """
    dtype = jnp.result_type(*jax.tree.leaves(start))
    return loss(path(jax.random.uniform(key, (), dtype), start, end, bend))
