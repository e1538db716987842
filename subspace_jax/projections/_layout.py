"""The shape of the parameters that a projection maps into, and the checks all schemes share."""

import math
import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from subspace_jax.typing import Array, Dimension, Float, PyTree

_MAX_SIZE = 2**31 - 1  # parameters are numbered by 32-bit integers


@dataclass(frozen=True)
class Layout:
    """Structure, shapes and dtypes of a parameter pytree; hashable, so static under ``jit``."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def size(self) -> int:
        """The number D of parameters."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)

    @property
    def like(self) -> PyTree:
        """The parameters' ``ShapeDtypeStruct``s."""
        return jax.tree.unflatten(self.treedef, self.leaves)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of z: the parameters' common one, but at least float32."""
        return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in self.leaves))


def layout_of(params: PyTree) -> Layout:
    """The layout of ``params`` (arrays or ``ShapeDtypeStruct``s).

    Raises:
        ValueError: no parameters, too many, or a leaf that is not real floating point.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    leaves = []
    for path, leaf in paths:
        shape, dtype = jnp.shape(leaf), jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"params{where} has dtype {dtype}: only real floating point can train")
        leaves.append(jax.ShapeDtypeStruct(shape, dtype))
    layout = Layout(treedef, tuple(leaves))
    if not 1 <= layout.size <= _MAX_SIZE:
        raise ValueError(f"params must hold 1 to {_MAX_SIZE} numbers, got {layout.size}")
    return layout


def split(layout: Layout, vector: Array) -> PyTree:
    """Cut a vector (D,) into a pytree of the layout's shapes; the vector's dtype stays."""
    ends = np.cumsum([math.prod(leaf.shape) for leaf in layout.leaves])
    # jnp.split, not slices: its transpose is one concatenation.
    pieces = jnp.split(vector, ends[:-1])
    shaped = [x.reshape(leaf.shape) for x, leaf in zip(pieces, layout.leaves, strict=True)]
    return jax.tree.unflatten(layout.treedef, shaped)


def check_dim(
    layout: Layout, dim: Dimension, max_dim: int | None
) -> tuple[Dimension, int, Float[Array, " max_dim"]]:
    """The dimension, the length of z, and the mask (1 below ``dim``, 0 beyond) in z's dtype.

    A traced ``dim`` cannot be checked: it is clipped to 1..max_dim.

    Raises:
        ValueError: a bound of 1 <= dim <= max_dim <= D is broken, or ``dim`` is traced and
            ``max_dim`` is missing.
    """
    size = layout.size
    if max_dim is not None and not 1 <= max_dim <= size:
        raise ValueError(f"max_dim must lie in 1..D = {size}, got {max_dim}")
    if isinstance(dim, Tracer):
        if max_dim is None:
            raise ValueError("a traced dim needs max_dim=, the length of z")
        dim = jnp.clip(dim, 1, max_dim)
    else:
        try:
            dim = operator.index(dim)
        except TypeError:
            raise ValueError(f"dim must be an integer, got {dim!r}") from None
        bound = size if max_dim is None else max_dim
        if not 1 <= dim <= bound:
            name = "D" if max_dim is None else "max_dim"
            raise ValueError(f"dim must lie in 1..{name} = {bound}, got {dim}")
        max_dim = dim if max_dim is None else max_dim
    return dim, max_dim, (jnp.arange(max_dim) < dim).astype(layout.dtype)
