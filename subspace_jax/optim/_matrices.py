"""Parameters of any shape as matrices, for transformations that have two sides."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array


class MatrixAxes(NamedTuple):
    """Which axes of a parameter are the rows and the columns of a matrix; others are a batch."""

    rows: Sequence[int]
    columns: Sequence[int]


def matrix_axes(path: Any, leaf: Any) -> MatrixAxes | None:
    """The default of `low_rank`: the last axis are the columns, all others the rows.

    That is the kernel of a dense layer, of a convolution and of an embedding. Vectors are none.
    """
    del path
    return MatrixAxes(range(leaf.ndim - 1), (leaf.ndim - 1,)) if leaf.ndim > 1 else None


class Fold(NamedTuple):
    """A parameter as a matrix (batch, m, n) on whose side of length m the basis stands."""

    shape: tuple[int, ...]
    """Of the parameter."""
    order: tuple[int, ...]
    """Its axes: batch, rows, columns."""
    batch: int
    """Matrices in it; 0 for one without a batch axis."""
    rows: int
    columns: int
    flip: bool
    """Whether the basis stands on the columns' side."""
    rank: int

    @property
    def basis_shape(self):
        return (*self._batch_shape, self.columns if self.flip else self.rows, self.rank)

    @property
    def core_shape(self):
        return (*self._batch_shape, self.rank, self.rows if self.flip else self.columns)

    @property
    def _batch_shape(self):
        return (self.batch,) if self.batch else ()

    def fold(self, x: Array) -> Array:
        x = x.transpose(self.order).reshape(*self._batch_shape, self.rows, self.columns)
        return x.mT if self.flip else x

    def unfold(self, x: Array) -> Array:
        x = x.mT if self.flip else x
        x = x.reshape([self.shape[axis] for axis in self.order])
        return x.transpose([self.order.index(axis) for axis in range(len(self.order))])

    def batched(self, function: Callable) -> Callable:
        return jax.vmap(function) if self.batch else function


def matrix_of(path: Any, leaf: Array, axes: MatrixAxes | None, rank: int, side: str) -> Fold | None:
    """How a parameter is folded; None for one without axes, or without entries.

    Raises:
        ValueError: names the parameter: not real, or axes that it does not have.
    """
    name = jax.tree_util.keystr(path)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise ValueError(f"parameters must be real floating point, {name} is {leaf.dtype}")
    if axes is None or leaf.size == 0:
        return None
    matrix = [axis % leaf.ndim for axis in (*axes.rows, *axes.columns) if axis < leaf.ndim]
    if len(set(matrix)) < len(axes.rows) + len(axes.columns) or not axes.rows or not axes.columns:
        raise ValueError(f"{name} of shape {leaf.shape} has no rows and columns {axes}")
    batch = [axis for axis in range(leaf.ndim) if axis not in matrix]
    rows, columns = (
        math.prod(leaf.shape[axis] for axis in group) for group in (axes.rows, axes.columns)
    )
    flips = {"paper": rows > columns, "memory": rows < columns, "rows": False, "columns": True}
    num = math.prod(leaf.shape[axis] for axis in batch) if batch else 0
    rank = min(rank, rows, columns)
    return Fold(leaf.shape, (*batch, *matrix), num, rows, columns, flips[side], rank)
