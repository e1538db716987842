"""The parts of the contract's table: one row a public function, random operands for it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

REAL = ("float32", "float64")
FIELD = (*REAL, "complex64")
SHAPES = {"w": (5, 4), "b": (4,)}


class Row(NamedTuple):
    """How to call one public function on random operands."""

    function: Callable
    operands: Callable
    """(numpy generator, dtype) -> operands, arrays or pytrees of arrays."""
    dtypes: tuple = REAL
    grad: bool = True


def normal(rng, shape, dtype):
    imaginary = 1j * rng.normal(size=shape) if "complex" in dtype else 0
    return jnp.asarray(rng.normal(size=shape) + imaginary, dtype)


def arrays(*shapes):
    return lambda rng, dtype: tuple(normal(rng, shape, dtype) for shape in shapes)


def params(rng, dtype):
    return {name: normal(rng, shape, dtype) for name, shape in SHAPES.items()}


def bases(*widths):
    return lambda rng, dtype: tuple(
        jnp.linalg.qr(normal(rng, (6, width), dtype))[0] for width in widths
    )


def keys(rng, dtype):
    del dtype
    return (jax.random.key(int(rng.integers(2**31))),)
