"""The nouns of the signatures: arrays with their shapes, pytrees, keys, linear maps."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Inexact, Integer, Num, UInt32
from jaxtyping import PRNGKeyArray as Key

PyTree: TypeAlias = Any
"""Any nesting of dicts, lists, tuples and registered dataclasses with arrays at the leaves."""

LinearMap: TypeAlias = Callable[[Any], Any] | Any
"""A callable ``v -> A v``, or anything with ``@``: an array, a sparse matrix."""

Dimension: TypeAlias = int | Integer[Array, ""]
"""A count that may be traced, so that ``vmap`` can sweep over it."""

__all__ = [
    "Array",
    "Bool",
    "Dimension",
    "Float",
    "Inexact",
    "Integer",
    "Key",
    "LinearMap",
    "Num",
    "PyTree",
    "UInt32",
]
