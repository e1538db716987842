"""What a user hands to a solver: checked, traced, with readable errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from subspace_jax import tree
from subspace_jax.krylov._iterate import Limits
from subspace_jax.linalg.operators import as_callable
from subspace_jax.typing import LinearMap, PyTree

InnerProduct = Callable[[PyTree, PyTree], Any] | None
Tolerance = Any
"""A float, or a traced real scalar."""


class Options(NamedTuple):
    """The keywords that all solvers share."""

    preconditioner: LinearMap | None = None
    rtol: Tolerance | None = 1e-5
    atol: Tolerance = 0.0
    maxiter: int | None = None
    history: bool = False
    check_every: int = 1
    AT: LinearMap | None = None
    adjoint_rtol: Tolerance | None = None
    inner_product: InnerProduct = None

    def frozen(self) -> "Options":
        """The options with tolerances that take no part in derivatives."""
        names = ("rtol", "atol", "adjoint_rtol")
        return self._replace(
            **{
                name: jax.lax.stop_gradient(value)
                for name in names
                if isinstance(value := getattr(self, name), jax.Array)
            }
        )


def traced(
    name: str, A: LinearMap, like: PyTree, *, frozen: bool = False
) -> Callable[[PyTree], PyTree]:
    """The map as a callable whose Python code runs once, checked to keep the space of ``like``.

    ``frozen`` leaves all that it closes over out of derivatives.

    Raises:
        ValueError: not a linear map, or one that changes structure, shape or dtype.
    """
    apply = linear_map(name, A)
    check_matrix(name, A, like)
    apply = traced_once(apply, like, frozen=frozen)
    check_same_spaces(f"the result of {name}", jax.eval_shape(apply, like), "its operand", like)
    return apply


def linear_map(name: str, A: LinearMap) -> Callable[[PyTree], PyTree]:
    """The product v -> A v.

    Raises:
        ValueError: ``A`` is neither callable nor has ``@``, or holds integers; says which map.
    """
    if np.issubdtype(getattr(A, "dtype", float), np.integer):
        raise ValueError(f"{name} must be floating point, got {getattr(A, 'dtype', None)}")
    try:
        return as_callable(A)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_matrix(name: str, A: LinearMap, like: PyTree) -> None:
    """Return if A is no matrix, or a square one that fits the vector; else raise.

    Raises:
        ValueError: names the shape, or both shapes.
    """
    shape = getattr(A, "shape", None)
    if shape is not None:
        check_one_array(name, like)
    if shape is not None and (len(shape) != 2 or shape[0] != shape[1]):
        raise ValueError(f"{name} must be a square matrix, got shape {shape}")
    if shape is not None and jnp.shape(like) != tuple(shape[1:]):
        raise ValueError(f"{name} has shape {shape}, the right-hand side {jnp.shape(like)}")


def check_one_array(name: str, like: PyTree) -> None:
    """Return if the vector is an array, as a matrix needs it; else raise.

    Raises:
        ValueError: it is another pytree, such as a list of numbers.
    """
    if not hasattr(like, "shape"):
        raise ValueError(
            f"{name} is a matrix: the right-hand side must be one array, got a pytree of "
            f"{len(jax.tree.leaves(like))} leaves, {type(like).__name__}"
        )


def traced_once(
    apply: Callable, like: PyTree, *, frozen: bool = False
) -> Callable[[PyTree], PyTree]:
    """The same function as a jaxpr, so that later calls do not run its Python code again."""
    converted, constants = jax.closure_convert(lambda v: apply(v), like)
    if frozen:
        constants = jax.lax.stop_gradient(constants)
    return lambda v: converted(v, *constants)


def vector(name: str, x: PyTree) -> PyTree:
    """The pytree with arrays at its leaves.

    Raises:
        ValueError: no leaves, integer leaves, or real leaves beside complex ones.
    """
    x = jax.tree.map(jnp.asarray, x)
    kinds = {leaf.dtype.kind if leaf.dtype != jnp.bfloat16 else "f" for leaf in jax.tree.leaves(x)}
    if len(kinds) != 1 or not kinds <= {"f", "c"}:
        dtypes = ", ".join(str(leaf.dtype) for leaf in jax.tree.leaves(x)) or "no leaves"
        raise ValueError(f"{name} must be all real or all complex floating point, got {dtypes}")
    return x


def check_same_spaces(name_x: str, x: PyTree, name_y: str, y: PyTree) -> None:
    """Return if structure, shapes and dtypes agree; else raise.

    Raises:
        ValueError: names both structures, or the first leaf that differs and what both are.
    """
    tree.check_same_shapes(name_x, x, name_y, y)
    leaves, _ = jax.tree_util.tree_flatten_with_path(x)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(y), strict=True):
        if leaf.dtype != other.dtype:
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name_x}{where} has dtype {leaf.dtype}, {name_y}{where} has dtype {other.dtype}"
            )


def check_limits(options: Options, dimension: int) -> Limits:
    """The limits as given, or min(10 n, 10000) steps.

    Raises:
        ValueError: a negative tolerance or ``maxiter``, ``rtol=None`` without ``maxiter``, or a
            ``check_every`` below 1.
    """
    for name in ("rtol", "atol", "adjoint_rtol"):
        value = getattr(options, name)
        if value is not None:
            check_number(name, value)
    maxiter = options.maxiter
    if maxiter is None:
        if options.rtol is None:
            raise ValueError("rtol=None means exactly maxiter steps: name maxiter")
        maxiter = min(10 * dimension, 10_000)
    maxiter = check_count("maxiter", maxiter, 0)
    return Limits(maxiter, options.history, check_count("check_every", options.check_every, 1))


def check_number(name: str, value: Tolerance) -> None:
    """Return if the value is a real scalar, and not negative where that is known; else raise.

    Raises:
        ValueError: names the value.
    """
    kind = np.result_type(value).kind if isinstance(value, Tracer) else np.asarray(value).dtype.kind
    if np.shape(value) != () or kind not in "fiu":
        raise ValueError(f"{name} must be a real number, got {value!r}")
    if not isinstance(value, Tracer) and not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")


def check_count(name: str, value: int, least: int, most: int | None = None) -> int:
    """The value as an int.

    Raises:
        ValueError: it is no integer known at trace time, or below ``least``, or above ``most``.
    """
    if isinstance(value, Tracer):
        raise ValueError(f"{name} must be a number known at trace time, got {value}")
    try:
        whole = value == int(value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most} here, got {value}")
    return int(value)
