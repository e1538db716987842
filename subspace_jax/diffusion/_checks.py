"""Values that are out of bounds, named where they are known: while tracing they are not."""

from typing import Any

import numpy as np
from jax.core import Tracer


def check_at_least(name: str, value: Any, bound: Any, *, strict: bool = False) -> None:
    """Return if all of a value is at least (strictly: above) the bound, or traced; else raise.

    Raises:
        ValueError: names the value and the bound.
    """
    if isinstance(value, Tracer):
        return
    known = np.asarray(value)
    if not np.all(known > bound if strict else known >= bound):
        raise ValueError(f"{name} must be {'>' if strict else '>='} {bound}, got {value}")
