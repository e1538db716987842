"""Proximal policy optimization of a small actor and critic, as pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import models
from experiments.environments import Environment, Several, several, step_all


class Steps(NamedTuple):
    """What happened, and what is learned from it: leading axes of time and environments."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    """Of the action, when it was taken."""
    advantage: jax.Array
    """In standard deviations."""
    value: jax.Array
    """What the critic should say: estimated returns."""


class Learner(NamedTuple):
    """Losses and steps of training for one environment; parameters are {"actor", "critic"}."""

    init: Callable[[jax.Array], Any]
    """key -> parameters."""
    start: Callable[[jax.Array], Several]
    """key -> all environments."""
    play: Callable[..., tuple]
    """(params, environments, key, num_steps) -> environments, `Steps`, mean reward of a step,
    share of steps at which an episode ended."""
    actor_loss: Callable[[Any, Steps], jax.Array]
    """(actor's parameters, steps) -> the clipped surrogate less the entropy's bonus."""
    critic_loss: Callable[[Any, Steps], jax.Array]
    """(critic's parameters, steps) -> half the mean squared error."""
    learn: Callable[..., tuple]
    """(params, optimizer state, steps, key) -> the same after some epochs on the steps."""
    optimizer: optax.GradientTransformation


def ppo(config: ConfigDict, environment: Environment) -> Learner:
    """The algorithm for one environment.

    Reference: Schulman, Wolski, Dhariwal, Radford & Klimov (2017), "Proximal policy optimization
    algorithms"; generalized advantages by Schulman et al. (2016).
    """
    num_actions = environment.num_actions
    actor = models.MLP((*config.hidden, num_actions or 1), nn.tanh)
    critic = models.MLP((*config.hidden, 1), nn.tanh)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.learning_rate))

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        seen = environment.observe(environment.reset(key))[None]
        policy = {"net": actor.init(actor_key, seen)}
        if not num_actions:
            policy["log_scale"] = jnp.zeros(())
        return {"actor": policy, "critic": critic.init(critic_key, seen)}

    def policy(params, observation):
        """Log-probabilities of all actions, or the mean and log-deviation of the action."""
        out = actor.apply(params["net"], observation)
        return jax.nn.log_softmax(out) if num_actions else (out[..., 0], params["log_scale"])

    def choose(params, observation, key):
        if num_actions:
            action = jax.random.categorical(key, policy(params, observation))
        else:
            mean, log_scale = policy(params, observation)
            action = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
        return action, log_prob(params, observation, action)

    def log_prob(params, observation, action):
        if num_actions:
            return jnp.take_along_axis(policy(params, observation), action[:, None], 1)[:, 0]
        mean, log_scale = policy(params, observation)
        away = (action - mean) * jnp.exp(-log_scale)
        return -(away**2) / 2 - log_scale - jnp.log(2 * jnp.pi) / 2

    def entropy(params, observation):
        if num_actions:
            logs = policy(params, observation)
            return -jnp.mean(jnp.sum(jnp.exp(logs) * logs, -1))
        return params["log_scale"] + jnp.log(2 * jnp.pi * jnp.e) / 2

    def values(params, observation):
        return critic.apply(params, observation)[:, 0]

    def start(key):
        return several(environment, key, config.num_envs)

    def play(params, environments, key, num_steps):
        def step(environments, key):
            action_key, reset_key = jax.random.split(key)
            seen = jax.vmap(environment.observe)(environments.states)
            action, log = choose(params["actor"], seen, action_key)
            environments, reward, later, is_lost, is_over = step_all(
                environment, environments, action, reset_key
            )
            after = values(params["critic"], later)
            value = values(params["critic"], seen)
            # a lost episode is worth nothing more; one that is cut off is
            gain = config.reward_scale * reward + config.discount * after * ~is_lost - value
            row = seen, action, log, value, gain, is_over, reward
            return environments, row

        keys = jax.random.split(key, num_steps)
        environments, rows = jax.lax.scan(step, environments, keys)
        seen, action, log, value, gain, is_over, reward = rows

        advantage = advantages(gain, is_over, config.discount * config.trace)
        scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        steps = Steps(seen, action, log, scaled, advantage + value)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)
        return environments, flat, reward.mean(), is_over.mean()

    def actor_loss(params, steps):
        ratio = jnp.exp(log_prob(params, steps.observation, steps.action) - steps.log_prob)
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        gain = jnp.minimum(ratio * steps.advantage, clipped * steps.advantage)
        return -jnp.mean(gain) - config.entropy * entropy(params, steps.observation)

    def critic_loss(params, steps):
        return jnp.mean((values(params, steps.observation) - steps.value) ** 2) / 2

    def learn(params, memory, steps, key):
        def loss(params, batch):
            return actor_loss(params["actor"], batch) + critic_loss(params["critic"], batch)

        def step(carry, rows):
            params, memory = carry
            gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[rows], steps))
            updates, memory = optimizer.update(gradient, memory)
            return (optax.apply_updates(params, updates), memory), None

        num = len(steps.value) // config.batch_size
        orders = [jax.random.permutation(k, len(steps.value)) for k in
                  jax.random.split(key, config.num_epochs)]  # fmt: skip
        rows = jnp.stack([order[: num * config.batch_size] for order in orders])
        return jax.lax.scan(step, (params, memory), rows.reshape(-1, config.batch_size))[0]

    return Learner(init, start, play, actor_loss, critic_loss, learn, optimizer)


def advantages(gains: jax.Array, is_over: jax.Array, decay: float) -> jax.Array:
    """Sums (time, environments) of all later gains of the episode, each step worth less.

    Reference: Schulman, Moritz, Levine, Jordan & Abbeel (2016), "High-dimensional continuous
    control using generalized advantage estimation", eq. 16.
    """

    def backward(later, row):
        gain, is_over = row
        advantage = gain + decay * later * ~is_over
        return advantage, advantage

    zeros = jnp.zeros_like(gains[0])
    return jax.lax.scan(backward, zeros, (gains, is_over), reverse=True)[1]
