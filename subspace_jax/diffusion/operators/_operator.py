"""What a measurement is: a linear map with its adjoint and its Gram operator."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array


class LinearOperator(NamedTuple):
    """A linear map A between arrays of fixed shapes; functions of one example."""

    apply: Callable[[Array], Array]
    """x -> A x."""
    adjoint: Callable[[Array], Array]
    """y -> A^H y."""
    gram: Callable[[Array], Array]
    """x -> A^H A x, often much cheaper than one after the other."""
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]


def linear(
    apply: Callable[[Array], Array], in_shape: tuple[int, ...], *, dtype: Any = None
) -> LinearOperator:
    """The operator of any linear function of an array, its adjoint by transposition.

    Args:
        apply: linear in its one argument.
        in_shape: of that argument.
        dtype: of that argument; None: the default float.

    Raises:
        ValueError: from its functions, an array of another shape, or a real one for a complex map.
    """
    struct = jax.ShapeDtypeStruct(in_shape, jnp.zeros((), dtype).dtype)
    out = jax.eval_shape(apply, struct)
    transpose = jax.linear_transpose(apply, struct)

    def adjoint(y: Array) -> Array:
        check_operand("the measurement", y, out)
        return transpose(y.conj().astype(out.dtype))[0].conj()

    def checked(x: Array) -> Array:
        check_operand("the image", x, struct)
        return apply(x.astype(struct.dtype))

    return LinearOperator(
        checked, adjoint, lambda x: adjoint(checked(x)), tuple(in_shape), out.shape
    )


def check_operand(name: str, x: Array, like: jax.ShapeDtypeStruct) -> None:
    """ValueError unless ``x`` has that shape, and is complex where that is complex."""
    if x.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape}, got {x.shape}")
    if jnp.iscomplexobj(x) != jnp.issubdtype(like.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be of dtype {like.dtype}, got {x.dtype}")
