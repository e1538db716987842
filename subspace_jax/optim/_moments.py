"""What becomes of an optimizer's moments when the basis in which they are written changes."""

from typing import Any

import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, PyTree

MEANS = ("mu", "trace", "ema")
SQUARES = ("nu", "nu_max", "sum_of_squares")


def rotate_moments(
    state: PyTree, unit: PyTree, change: Float[Array, "*b r r"], shape: tuple[int, ...]
) -> PyTree:
    """The state of an optimizer of R = S^T G, after the basis S became S' and C = S'^T S.

    Means are rotated, C m. A mean of squares is that of a variable of mean m and variance v - m^2,
    entries uncorrelated: it becomes |C^2 (v - m^2) + (C m)^2|, where m and v are unbiased. How much
    of a moment has been filled, the usual correction of its bias, is what the same optimizer has
    made of gradients that are all one.

    Args:
        state: of optax, with the moments in fields of the usual names (`MEANS`, `SQUARES`).
        unit: the state of the same optimizer on a scalar gradient of one.
        change: C.
        shape: of the moments, (..., r, n).

    Raises:
        ValueError: an array of the moments' shape has a name that says nothing.

    Reference: LDAdam (2025), section 3; GrassWalk, arXiv 2510.01878.
    """
    if hasattr(state, "_fields"):
        fields = {name: _rotate_field(state, unit, name, change, shape) for name in state._fields}
        return type(state)(**fields)
    if isinstance(state, tuple):
        return tuple(rotate_moments(s, u, change, shape) for s, u in zip(state, unit, strict=True))
    if getattr(state, "shape", None) == shape:
        raise ValueError("cannot tell what an array of the inner state is: give rotate=")
    return state


def _rotate_field(state: Any, unit: Any, name: str, change: Array, shape: tuple) -> PyTree:
    value = getattr(state, name)
    if getattr(value, "shape", None) != shape:
        return rotate_moments(value, getattr(unit, name), change, shape)
    if name in MEANS:
        return matmul(change, value)
    if name in SQUARES:
        filled = getattr(unit, name)
        mean = _mean(state, unit, shape)
        variance = _over(value, filled) - mean**2
        return filled * jnp.abs(matmul(change**2, variance) + matmul(change, mean) ** 2)
    raise ValueError(
        f"cannot tell what {name!r} of {type(state).__name__} is: give rotate=, or another carry"
    )


def _mean(state: Any, unit: Any, shape: tuple[int, ...]) -> Array:
    """The unbiased first moment beside a second one; zero if none is kept."""
    for name in MEANS:
        if getattr(getattr(state, name, None), "shape", None) == shape:
            return _over(getattr(state, name), getattr(unit, name))
    return jnp.zeros(shape)


def _over(moment: Array, filled: Array) -> Array:
    return moment / jnp.where(filled == 0, 1, filled)
