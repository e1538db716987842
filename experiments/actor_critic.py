"""What measures the training of an actor and a critic sees of it, whatever the algorithm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments.environments import Environment
from experiments.ppo import ppo


class ActorCritic(NamedTuple):
    """An algorithm for one environment; its state is a pytree of its own."""

    init: Callable[[jax.Array], Any]
    """key -> state."""
    advance: Callable[[Any, jax.Array], Any]
    """(state, key) -> state after a round of playing and learning."""
    weights: Callable[[Any], dict[str, Any]]
    """state -> parameters of "actor" and "critic"."""
    losses: Callable[[Any], dict[str, Callable[[Any, Any], jax.Array]]]
    """state -> of both (parameters, batch) -> the number that this algorithm makes small."""
    draw: Callable[[Any, jax.Array, int], tuple[Any, jax.Array, jax.Array]]
    """(state, key, num_steps) -> a batch of as many steps of every environment as the algorithm
    would learn from, mean reward of a step, share of steps at which an episode ended."""


def by_ppo(config: ConfigDict, environment: Environment) -> ActorCritic:
    """`ppo`: a batch are steps that the actor plays."""
    learner = ppo(config, environment)

    def init(key):
        weights_key, start_key = jax.random.split(key)
        weights = learner.init(weights_key)
        return weights, learner.optimizer.init(weights), learner.start(start_key)

    def advance(state, key):
        weights, memory, environments = state
        play_key, learn_key = jax.random.split(key)
        environments, steps, *_ = learner.play(weights, environments, play_key, config.num_steps)
        return (*learner.learn(weights, memory, steps, learn_key), environments)

    def draw(state, key, num_steps):
        weights, _, environments = state
        return learner.play(weights, environments, key, num_steps)[1:]

    losses = {"actor": learner.actor_loss, "critic": learner.critic_loss}
    return ActorCritic(init, advance, lambda state: state[0], lambda state: losses, draw)
