"""A stage of a computation kept out of XLA's fusions, where those compute it again and again."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from subspace_jax.typing import Array


def apart(stage: Callable[[Array], Array], x: Array, witness: Array) -> Array:
    """``stage(x)``, computed once and stored before anything reads it.

    On a CPU XLA drops an `optimization_barrier`; a branch that is always taken, but not so that XLA
    can know, stays. ``witness`` is an array of finite entries that XLA does not know.
    """
    finite = jnp.ravel(witness)[0] != jnp.inf

    def never(x):
        return jnp.zeros_like(stage(x))

    return lax.platform_dependent(
        x,
        cpu=lambda x: lax.cond(finite, stage, never, x),
        default=lambda x: lax.optimization_barrier(stage(x)),
    )
