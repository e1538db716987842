"""What agents that learn from earlier play remember of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Transitions(NamedTuple):
    """Steps of play, along the leading axis."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    later: jax.Array
    """What was seen after the step."""
    is_lost: jax.Array


class Replay(NamedTuple):
    """The last transitions, as many as there is room for."""

    steps: Transitions
    num_seen: jax.Array
    """Ever; the oldest are overwritten."""


def empty(like: Transitions, capacity: int) -> Replay:
    """Room for so many transitions of the shapes of ``like`` (of any number of them)."""
    room = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), like)
    return Replay(room, jnp.zeros((), jnp.int32))


def add(replay: Replay, steps: Transitions) -> Replay:
    """With the steps, in place of the oldest where it was full."""
    capacity, number = len(replay.steps.reward), len(steps.reward)
    rows = (replay.num_seen + jnp.arange(number)) % capacity
    room = jax.tree.map(lambda all_, x: all_.at[rows].set(x), replay.steps, steps)
    return Replay(room, replay.num_seen + number)


def draw(replay: Replay, key: jax.Array, size: int) -> Transitions:
    """Some of what is remembered, at random and with replacement."""
    stored = jnp.minimum(replay.num_seen, len(replay.steps.reward))
    rows = jax.random.randint(key, (size,), 0, stored)
    return jax.tree.map(lambda x: x[rows], replay.steps)
