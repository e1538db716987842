"""The matrix product of subspaces: accelerators round its operands unless told not to."""

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array


def matmul(A: Array, B: Array) -> Array:
    """The product A B at the highest precision."""
    return jnp.matmul(A, B, precision=jax.lax.Precision.HIGHEST)
