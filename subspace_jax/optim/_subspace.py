"""Any optax optimizer, made to train z in params0 + P z."""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from subspace_jax.projections import Projection, contract, expand
from subspace_jax.typing import Array, Float, PyTree


class SubspaceState(NamedTuple):
    """State of `subspace`: of the size of z, not of the parameters."""

    z: Float[Array, " d"]
    """Where the parameters are in the subspace: params = params0 + P z, up to rounding."""
    inner: PyTree
    """State of the inner optimizer, on z."""


def subspace(
    inner: optax.GradientTransformation, projection: Projection
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of full parameters that moves them in the range of P only.

    Its steps are those that ``inner`` takes when it trains z itself, for every ``inner``: the
    gradient is contracted, the step expanded, and ``inner`` is shown z as its parameters (so its
    weight decay pulls z, not the parameters, to zero). Parameters in a low precision keep only
    what they can represent of each small step; z is at least float32, and loses nothing.

    Args:
        inner: the optimizer of z. An isometric projection lets it keep its learning rate.
        projection: any projection of the parameters.

    Reference: Li, Farkhoor, Liu & Yosinski (2018), section 2.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        del params
        z = jnp.zeros(projection.max_dim, projection.layout.dtype)
        return SubspaceState(z, inner.init(z))

    def update(updates, state, params=None, **extra_args):
        del params
        grad = contract(projection, updates).astype(state.z.dtype)
        step, inner_state = inner.update(grad, state.inner, state.z, **extra_args)
        step = jnp.asarray(step)
        return expand(projection, step), SubspaceState(state.z + step, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
