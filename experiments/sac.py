"""Soft actor-critic for actions that are a real number, as pure functions."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import models
from experiments.actor_critic import ActorCritic
from experiments.environments import Environment, Several, several, step_all
from experiments.replay import Replay, Transitions, add, draw, empty


class Batch(NamedTuple):
    """Transitions, and the noise of the actions that losses draw: they are functions."""

    steps: Transitions
    noise: jax.Array
    later_noise: jax.Array


class State(NamedTuple):
    """Of a whole training."""

    weights: dict[str, Any]
    """"actor"; "critic", a pair of value functions; "log_temperature"."""
    target: Any
    """The critic that slowly follows."""
    memory: Any
    """The optimizer's."""
    environments: Several
    replay: Replay


def sac(config: ConfigDict, environment: Environment) -> ActorCritic:
    """The algorithm for one environment; a batch comes from what was played before.

    Raises:
        ValueError: the environment's actions are discrete or without a limit.

    Reference: Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, ... & Levine (2018), "Soft actor-critic
    algorithms and applications", algorithm 1, with a learned temperature.
    """
    limit = environment.limit
    if environment.num_actions or math.isinf(limit):
        raise ValueError("SAC needs actions that are real numbers of bounded size")
    knobs = config.sac
    actor = models.MLP((*config.hidden, 2))
    critic = models.MLP((*config.hidden, 1))
    optimizer = optax.adam(knobs.learning_rate)

    def init(key):
        actor_key, *critic_keys, start_key = jax.random.split(key, 4)
        environments = several(environment, start_key, config.num_envs)
        seen = jax.vmap(environment.observe)(environments.states)
        action = jnp.zeros(len(seen))
        critics = [critic.init(key, beside(seen, action)) for key in critic_keys]
        weights = {
            "actor": actor.init(actor_key, seen), "critic": critics,
            "log_temperature": jnp.zeros(()),
        }  # fmt: skip
        first = Transitions(seen, action, action, seen, action > 0)
        memory = optimizer.init(weights)
        state = State(weights, critics, memory, environments, empty(first, knobs.capacity))
        play_keys = jax.random.split(jax.random.fold_in(start_key, 1), knobs.warm_up)
        return jax.lax.scan(lambda state, key: (played(state, key), None), state, play_keys)[0]

    def act(weights, seen, noise):
        mean, log_scale = jnp.moveaxis(actor.apply(weights, seen), -1, 0)
        return squashed(mean, jnp.clip(log_scale, -10, 2), noise, limit)

    def values(weights, seen, action):
        """(2, batch): of both critics."""
        return jnp.stack([critic.apply(w, beside(seen, action))[:, 0] for w in weights])

    def actor_loss(state, weights, batch):
        seen = batch.steps.observation
        action, log_density = act(weights, seen, batch.noise)
        value = values(state.weights["critic"], seen, action).min(0)
        return jnp.mean(jnp.exp(state.weights["log_temperature"]) * log_density - value)

    def critic_loss(state, weights, batch):
        steps = batch.steps
        action, log_density = act(state.weights["actor"], steps.later, batch.later_noise)
        later = values(state.target, steps.later, action).min(0)
        later -= jnp.exp(state.weights["log_temperature"]) * log_density
        wanted = config.reward_scale * steps.reward + config.discount * later * ~steps.is_lost
        wrong = values(weights, steps.observation, steps.action) - jax.lax.stop_gradient(wanted)
        return jnp.mean(jnp.sum(wrong**2, 0)) / 2

    def temperature_loss(state, log_temperature, batch):
        log_density = act(state.weights["actor"], batch.steps.observation, batch.noise)[1]
        return -log_temperature * jnp.mean(log_density - 1)  # the wanted entropy is -1

    def remembered(state, key, size):
        rows_key, *noise_keys = jax.random.split(key, 3)
        noises = (jax.random.normal(key, (size,)) for key in noise_keys)
        return Batch(draw(state.replay, rows_key, size), *noises)

    def update(state, key):
        batch = remembered(state, key, knobs.batch_size)
        gradient = {
            name: jax.grad(loss, argnums=1)(state, state.weights[name], batch)
            for name, loss in (("actor", actor_loss), ("critic", critic_loss),
                               ("log_temperature", temperature_loss))
        }  # fmt: skip
        updates, memory = optimizer.update(gradient, state.memory)
        weights = optax.apply_updates(state.weights, updates)
        target = optax.incremental_update(weights["critic"], state.target, knobs.follow)
        return state._replace(weights=weights, target=target, memory=memory)

    def play(state, key):
        """One step of every environment."""
        noise_key, reset_key = jax.random.split(key)
        seen = jax.vmap(environment.observe)(state.environments.states)
        noise = jax.random.normal(noise_key, (len(seen),))
        action = act(state.weights["actor"], seen, noise)[0]
        environments, reward, later, is_lost, is_over = step_all(
            environment, state.environments, action, reset_key
        )
        steps = Transitions(seen, action, reward, later, is_lost)
        return state._replace(environments=environments), steps, is_over

    def played(state, key):
        """One step of every environment, remembered."""
        state, steps, _ = play(state, key)
        return state._replace(replay=add(state.replay, steps))

    def advance(state, key):
        def step(state, key):
            play_key, *update_keys = jax.random.split(key, 1 + knobs.num_updates)
            state = played(state, play_key)
            for update_key in update_keys:
                state = update(state, update_key)
            return state, None

        return jax.lax.scan(step, state, jax.random.split(key, knobs.num_steps))[0]

    def draw_and_play(state, key, num_steps):
        play_key, batch_key = jax.random.split(key)

        def step(state, key):
            state, steps, is_over = play(state, key)
            return state, (steps.reward, is_over)

        keys = jax.random.split(play_key, num_steps)
        reward, is_over = jax.lax.scan(step, state, keys)[1]
        return (
            remembered(state, batch_key, num_steps * config.num_envs),
            reward.mean(),
            is_over.mean(),
        )

    def losses(state):
        return {
            "actor": lambda weights, batch: actor_loss(state, weights, batch),
            "critic": lambda weights, batch: critic_loss(state, weights, batch),
        }

    return ActorCritic(init, advance, lambda state: state.weights, losses, draw_and_play)


def squashed(
    mean: jax.Array, log_scale: jax.Array, noise: jax.Array, limit: float
) -> tuple[jax.Array, jax.Array]:
    """The actions limit tanh(mean + scale noise), and their log-densities for standard noise."""
    raw = mean + jnp.exp(log_scale) * noise
    log_normal = -(noise**2) / 2 - log_scale - math.log(2 * math.pi) / 2
    # of tanh's derivative, without cancellation
    log_slope = 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))
    return limit * jnp.tanh(raw), log_normal - log_slope - math.log(limit)


def beside(observation: jax.Array, action: jax.Array) -> jax.Array:
    """What a critic sees."""
    return jnp.concatenate([observation.reshape(len(action), -1), action[:, None]], -1)
