"""Scalars times vectors, and divisions and roots that zero does not break."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.typing import PyTree


def times(a: Any, x: PyTree) -> PyTree:
    """The vector a x, in the dtypes of x; ``a`` is a scalar."""
    return jax.tree.map(lambda leaf: (a * leaf).astype(leaf.dtype), x)


def norm_of(inner: Callable[[PyTree, PyTree], Any]) -> Callable[[PyTree], Any]:
    """The norm of an inner product; its derivative at zero is zero, not NaN."""
    return lambda x: sqrt(inner(x, x).real)


def sqrt(square: Any) -> Any:
    """The square root, with derivative zero at zero."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square)


def hypot(a: Any, b: Any) -> Any:
    """sqrt(a^2 + b^2) without overflow, with derivative zero at zero."""
    largest = jnp.maximum(jnp.abs(a), jnp.abs(b))
    safe = jnp.where(largest > 0, largest, 1)
    return jnp.where(largest > 0, safe * jnp.sqrt((a / safe) ** 2 + (b / safe) ** 2), largest)


def divide(a: Any, b: Any) -> Any:
    """The quotient a / b, zero for b = 0."""
    return jnp.where(b == 0, 0, a) / jnp.where(b == 0, 1, b)


def normalized(x: PyTree, norm: Any) -> PyTree:
    """The vector x / norm; x itself for a norm of zero."""
    return times(1 / jnp.where(norm > 0, norm, 1), x)
