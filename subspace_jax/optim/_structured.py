"""Training in a subspace that may stretch its parts: one more number for every tensor."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax import tree
from subspace_jax.projections import Projection, contract, expand
from subspace_jax.typing import Array, Float, PyTree


class StructuredVariables(NamedTuple):
    """What the inner optimizer trains: d + m numbers."""

    z: Float[Array, " d"]
    scales: Float[Array, " m"]
    """One of every leaf, in the order of the leaves; 1 at the start."""


class StructuredState(NamedTuple):
    """State of `structured_subspace`."""

    variables: StructuredVariables
    """Where the parameters are: params = params0 + scale_i (P z)_i in leaf i, up to rounding."""
    inner: PyTree
    """State of the inner optimizer, on these."""


def structured_subspace(
    inner: optax.GradientTransformation, projection: Projection
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of full parameters that moves leaf i to params0 + scale_i (P z)_i only.

    Structure-aware intrinsic dimension (SAID): z and a scale for every leaf are trained, and count.
    Bilinear in both, so it equals no step of `subspace` in another basis; with the scales held at 1
    it is `subspace`.

    Args:
        inner: the optimizer of a `StructuredVariables`.
        projection: any projection of the parameters.

    Reference: Aghajanyan, Zettlemoyer & Gupta (2021), "Intrinsic dimensionality explains the
    effectiveness of language model fine-tuning", equation (3).
    """
    inner = optax.with_extra_args_support(inner)
    num_leaves = len(projection.layout.leaves)

    def stretched(scales: Array, leaves: PyTree) -> PyTree:
        flat, structure = jax.tree.flatten(leaves)
        return structure.unflatten([a * leaf for a, leaf in zip(scales, flat, strict=True)])

    def init(params):
        del params
        dtype = projection.layout.dtype
        variables = StructuredVariables(
            jnp.zeros(projection.max_dim, dtype), jnp.ones(num_leaves, dtype)
        )
        return StructuredState(variables, inner.init(variables))

    def update(updates, state, params=None, **extra_args):
        del params
        z, scales = state.variables
        moved = expand(projection, z)
        tree.check_same_shapes("updates", updates, "params", moved)
        slopes = jax.tree.map(lambda a, g: jnp.sum(a * g, dtype=z.dtype), moved, updates)
        grads = StructuredVariables(
            contract(projection, stretched(scales, updates)).astype(z.dtype),
            jnp.stack(jax.tree.leaves(slopes)),
        )
        found: Any = inner.update(grads, state.inner, state.variables, **extra_args)
        steps, inner_state = found
        variables = StructuredVariables(z + steps.z, scales + steps.scales)
        # scale' P z' - scale P z, without the difference of two displacements
        step = jax.tree.map(
            jnp.add,
            stretched(steps.scales, moved),
            stretched(variables.scales, expand(projection, steps.z)),
        )
        step = jax.tree.map(lambda u, leaf: u.astype(leaf.dtype), step, projection.layout.like)
        return step, StructuredState(variables, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
