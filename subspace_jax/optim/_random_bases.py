"""Gradients seen through random bases that are drawn again and again."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax.projections import Projection, contract, expand
from subspace_jax.typing import Array, Key, PyTree


class RandomBasesState(NamedTuple):
    """State of `random_bases`: no basis is stored."""

    num_steps: Array
    """int32, steps done."""


def random_bases(
    key: Key,
    scheme: Callable[..., Projection],
    dim: int,
    *,
    redraw_every: int = 1,
    per_leaf: bool = False,
) -> optax.GradientTransformation:
    """The gradient's projection P_t P_t^T g onto a random subspace, a new one every so often.

    Random bases descent is this before ``optax.sgd``: a chain. Only d numbers need to be sent for
    a step, since whoever has the key has P_t. With an isometric scheme P_t P_t^T g is d / D of the
    gradient in the mean, and never longer. Momentum after it is of full size, and averages bases.

    Args:
        key: PRNG key of all bases; a basis is a function of it and of the step.
        scheme: of `projections`, such as `projections.hashed`: (key, like, dim) -> projection.
        dim: directions in a basis.
        redraw_every: steps for which one basis is kept.
        per_leaf: a basis of ``dim`` directions of its own for every leaf, or of as many as the leaf
            has entries ("compartments"): the same number of coefficients approximates more.

    Raises:
        ValueError: ``dim`` or ``redraw_every`` below 1; from ``update``, what the scheme raises.

    Reference: Gressmann, Eaton-Rosen & Luschi (2020), "Improving neural network training in low
    dimensional random bases".
    """
    if dim < 1 or redraw_every < 1:
        raise ValueError(f"dim and redraw_every must be at least 1, got {dim} and {redraw_every}")

    def through(basis_key: Key, grads: PyTree, num: int) -> PyTree:
        projection = scheme(basis_key, grads, num)
        z = contract(projection, grads)
        return expand(projection, z)

    def init(params):
        del params
        return RandomBasesState(jnp.int32(0))

    def update(updates, state, params=None):
        del params
        basis_key = jax.random.fold_in(key, state.num_steps // redraw_every)
        if per_leaf:
            leaves, structure = jax.tree.flatten(updates)
            keys = jax.random.split(basis_key, len(leaves))
            updates = structure.unflatten(
                [
                    through(k, g, min(dim, math.prod(g.shape))) if g.size else g
                    for k, g in zip(keys, leaves, strict=True)
                ]
            )
        else:
            updates = through(basis_key, updates, dim)
        return updates, RandomBasesState(state.num_steps + 1)

    return optax.GradientTransformation(init, update)
