"""Loops whose lanes, under a vmap, end one by one; outside of one that costs nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.typing import PyTree


def hold(on: Any, new: PyTree, old: PyTree) -> PyTree:
    """``new``, but ``old`` in the lanes of a vmap that are not ``on``.

    Outside of vmap a loop's body runs only while ``on``, so there is nothing to choose: no pass
    over the vectors, nothing to compile. Hold a vector where it is made, before anything reads it:
    XLA fuses the choice into the update.
    """
    return new if on is True else _hold(on, new, old)


@jax.custom_batching.custom_vmap
def _hold(on, new, old):
    del on, old
    return new


@_hold.def_vmap
def _hold_lanes(axis_size, in_batched, on, new, old):
    on_batched, new_batched, old_batched = in_batched
    if not on_batched:
        return _hold(on, new, old), new_batched
    del axis_size

    def choose(a, b, a_batched, b_batched):
        a, b = (x if batched else x[None] for x, batched in ((a, a_batched), (b, b_batched)))
        return jnp.where(on.reshape(on.shape + (1,) * (max(a.ndim, b.ndim) - 1)), a, b)

    chosen = jax.tree.map(choose, new, old, new_batched, old_batched)
    return chosen, jax.tree.map(lambda _: True, new_batched)


def select(on: Any, new: PyTree, old: PyTree) -> PyTree:
    """``new`` where ``on``, else ``old``; ``on`` is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(on, a, b), new, old)


def repeat(
    active: Callable[[Any], Any],
    step: Callable[[Any, Any], Any],
    state: Any,
    check_every: int,
) -> Any:
    """``step`` while ``active``; under vmap while any lane is, the others held by the step's mask.

    The batching rule of ``while_loop`` would copy the whole carry in every step to hold them.
    """

    def body(state):
        return step(state, _lanes(active(state)))

    def several(state):
        def masked(_, state):
            on = active(state)
            return select(on, step(state, on), state)

        return jax.lax.fori_loop(0, check_every, masked, state)

    return jax.lax.while_loop(
        lambda state: any_lane(active(state)), body if check_every == 1 else several, state
    )


@jax.custom_batching.custom_vmap
def _lanes(flag):
    """Which lanes run: without a vmap a loop's body has one lane, which does."""
    return jnp.ones_like(flag)


@_lanes.def_vmap
def _lanes_batched(axis_size, in_batched, flag):
    del axis_size
    return (flag, True) if in_batched[0] else (_lanes(flag), False)


@jax.custom_batching.custom_vmap
def any_lane(flag):
    return flag


@any_lane.def_vmap
def any_lane_batched(axis_size, in_batched, flag):
    del axis_size, in_batched
    return any_lane(jnp.any(flag, axis=0)), False
