"""Values that are out of bounds, named where they are known: while tracing they are not."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from subspace_jax.typing import Array


def check_at_least(name: str, value: Any, bound: Any, *, strict: bool = False) -> None:
    """Return if all of a value is at least (strictly: above) the bound; else raise.

    What is traced, or a function of sigma, is not known yet.

    Raises:
        ValueError: names the value and the bound.
    """
    if isinstance(value, Tracer) or callable(value):
        return
    known = np.asarray(value)
    if not np.all(known > bound if strict else known >= bound):
        raise ValueError(f"{name} must be {'>' if strict else '>='} {bound}, got {value}")


def levels(name: str, sigmas: Any) -> Array:
    """Noise levels as a vector of floating-point numbers, at least two.

    Raises:
        ValueError: they are not.
    """
    sigmas = jnp.asarray(sigmas)
    if sigmas.ndim != 1 or len(sigmas) < 2 or not jnp.issubdtype(sigmas.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be at least two levels, got {sigmas.dtype} of shape {sigmas.shape}"
        )
    return sigmas
