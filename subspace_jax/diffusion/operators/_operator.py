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
        y = jnp.asarray(y)
        check_operand("the measurement", y, out)
        return transpose(y.conj().astype(out.dtype))[0].conj()

    def checked(x: Array) -> Array:
        x = jnp.asarray(x)
        check_operand("the image", x, struct)
        return apply(x.astype(struct.dtype))

    return LinearOperator(
        checked, adjoint, lambda x: adjoint(checked(x)), tuple(in_shape), out.shape
    )


def checked(
    apply: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    gram: Callable[[Array], Array],
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    dtype: Any = None,
) -> LinearOperator:
    """The operator of three functions, whose operands are looked at first.

    Args:
        apply: x -> A x.
        adjoint: y -> A^H y.
        gram: x -> A^H A x.
        in_shape: of x.
        out_shape: of y.
        dtype: real or complex, like the operands must be; None: either, as real as x is y.

    Raises:
        ValueError: from its functions, an array of another shape, an integer one, a real one for
            a complex map.
    """

    def guarded(function: Callable[[Array], Array], name: str, shape: tuple[int, ...]) -> Any:
        def function_of_checked(x: Array) -> Array:
            x = jnp.asarray(x)
            check_operand(name, x, jax.ShapeDtypeStruct(shape, x.dtype if dtype is None else dtype))
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                raise ValueError(f"{name} must be real or complex, got {x.dtype}")
            return function(x)

        return function_of_checked

    return LinearOperator(
        guarded(apply, "the image", in_shape),
        guarded(adjoint, "the measurement", out_shape),
        guarded(gram, "the image", in_shape),
        in_shape,
        out_shape,
    )


def stack3d(
    op: LinearOperator, num_slices: int, *, batch: Callable[[Callable], Callable] = jax.vmap
) -> LinearOperator:
    """The same operator on every slice of a volume: slices lead in image and measurement.

    Args:
        op: of one slice.
        num_slices: of the volume.
        batch: makes of a function of one slice that of all. Slices that lie over devices want a
            ``shard_map`` around the ``vmap``: XLA's partitioner gathers them for Fourier
            transforms.

    Raises:
        ValueError: ``num_slices`` below one.
    """
    if num_slices < 1:
        raise ValueError(f"num_slices must be at least 1, got {num_slices}")
    return checked(
        batch(op.apply),
        batch(op.adjoint),
        batch(op.gram),
        (num_slices, *op.in_shape),
        (num_slices, *op.out_shape),
    )


def check_operand(name: str, x: Array, like: jax.ShapeDtypeStruct) -> None:
    """ValueError unless ``x`` has that shape, and is complex where that is complex."""
    if x.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape}, got {x.shape}")
    if jnp.iscomplexobj(x) != jnp.issubdtype(like.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be of dtype {like.dtype}, got {x.dtype}")
