"""Adaptive step sizes from one number for each subset of the entries of a gradient."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from subspace_jax.typing import Array, PyTree


class SubsetNormState(NamedTuple):
    """State of `scale_by_subset_norm`."""

    num_steps: Array
    """int32, steps done."""
    nu: PyTree
    """Mean squared norm of each subset, without its bias's correction."""
    numerator: PyTree
    """State of the numerator's transformation."""


def scale_by_subset_norm(
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    subset_size: int | None = None,
    numerator: optax.GradientTransformation | None = None,
    debias: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Gradients over the root of a running mean of the squared norm of their subsets.

    v = b2 v + (1 - b2) |g_subset|^2, or the sum of all squares for ``b2 = 1`` (AdaGrad); then
    g / (sqrt(v) + eps). It is the norm, not its mean over the subset: learning rates are some ten
    times those of Adam.

    Args:
        b2: decay of the mean, in 0..1.
        eps: added to the root.
        subset_size: consecutive entries in a subset, or the next smaller divisor of the size. The
            paper recommends half the width of the model. None: a matrix has a subset for each
            index of its longer axis, other parameters one for each entry.
        numerator: of the gradient, what is divided; None: the gradient. ``optax.ema(0.9)`` makes
            it Adam with subset norms, a `low_rank` one subspace momentum.
        debias: v / (1 - b2^t) in place of v.

    Raises:
        ValueError: b2 outside of 0..1, a subset of no entries.

    Reference: Nguyen & Nguyen (2025), "Efficient adaptive optimization via subset-norm and
    subspace-momentum", algorithms 1 and 3.
    """
    if not 0 <= b2 <= 1:
        raise ValueError(f"b2 must lie in 0..1, got {b2}")
    if subset_size is not None and subset_size < 1:
        raise ValueError(f"subset_size must be positive, got {subset_size}")
    top = optax.with_extra_args_support(optax.identity() if numerator is None else numerator)

    def init(params):
        nu = jax.tree.map(lambda p: jnp.zeros_like(_square_norms(p, subset_size)), params)
        return SubsetNormState(jnp.int32(0), nu, top.init(params))

    def update(updates, state, params=None, **extra_args):
        num_steps = jnp.asarray(optax.safe_increment(state.num_steps))
        new = 1 - b2 if b2 < 1 else 1
        nu = jax.tree.map(
            lambda v, g: b2 * v + new * _square_norms(g, subset_size), state.nu, updates
        )
        steps, top_state = top.update(updates, state.numerator, params, **extra_args)
        seen = 1 - b2**num_steps if debias and b2 < 1 else 1

        def over(step, v):
            grouped = step.reshape(_grouped(step.shape, subset_size))
            found = grouped / (jnp.sqrt(v / seen) + eps)
            return found.reshape(step.shape).astype(step.dtype)

        return jax.tree.map(over, steps, nu), SubsetNormState(num_steps, nu, top_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _square_norms(g: Array, subset_size: int | None) -> Array:
    """The squared norm of each subset, at least in float32, to broadcast against the groups."""
    g = jnp.abs(g).astype(jnp.promote_types(jnp.abs(g).dtype, jnp.float32))
    shape = _grouped(g.shape, subset_size)
    if subset_size is not None:
        axis = -1
    elif len(shape) == 2:
        axis = 1 if shape[0] >= shape[1] else 0
    else:
        return g**2
    return jnp.sum(g.reshape(shape) ** 2, axis=axis, keepdims=True)


def _grouped(shape: tuple[int, ...], subset_size: int | None) -> tuple[int, ...]:
    """The shape in which subsets lie along an axis."""
    if subset_size is None:
        return shape
    num = max(math.prod(shape), 1)
    size = next(k for k in range(min(subset_size, num), 0, -1) if num % k == 0)
    return (num // size, size)
