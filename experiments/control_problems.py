"""Policies to train in random subspaces: by evolution strategies, by Q-learning."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from experiments import environments, models, replay
from experiments.environments import Environment, Several
from experiments.intrinsic_problems import Problem
from subspace_jax.typing import PyTree


def by_evolution(function, variables, key: jax.Array, *, population: int, sigma: float) -> tuple:
    """The value and the gradient of a function smoothed by noise, from antithetic samples.

    Reference: Salimans, Ho, Chen, Sidor & Sutskever (2017), "Evolution strategies as a scalable
    alternative to reinforcement learning", algorithm 1.
    """
    center, unravel = ravel_pytree(variables)
    noise = jax.random.normal(key, (population // 2, center.size))
    samples = center + sigma * jnp.concatenate([noise, -noise])
    values = jax.vmap(lambda x: function(unravel(x)))(samples)
    above, below = jnp.split(values, 2)
    grads = (above - below) @ noise / (2 * sigma * len(noise))
    return values.mean(), unravel(grads)


def evolution(config: ConfigDict) -> Problem:
    """A network of two hidden layers acts; its gradient is estimated by evolution strategies."""
    if config.population < 2 or config.population % 2:
        raise ValueError(f"population must be even and at least 2, got {config.population}")
    environment = environments.named(config.environment)
    policy = _network(config, environment)

    def seeds(number, *seed):
        return np.random.default_rng(seed).integers(2**32, size=number, dtype=np.uint32)

    scores = partial(scored, config, environment, policy)
    evolve = partial(partial, by_evolution, population=config.population)
    return Problem(
        init=partial(_init, environment, policy),
        loss=lambda params, batch: -scores(params, batch).mean(),
        scores=scores,
        examples=(seeds(100, config.seed),),
        batches=lambda step: (seeds((config.batch_size, config.num_seeds), config.seed, 1, step),),
        value_and_grad=evolve(sigma=config.sigma),
        direct_value_and_grad=evolve(sigma=config.direct_sigma),
    )


class Memory(NamedTuple):
    """What a Q-learner knows beside its network."""

    environments: Several
    replay: replay.Replay
    target: PyTree
    """A running mean of the network's parameters, by which what comes later is valued."""


def q_learning(config: ConfigDict) -> Problem:
    """A network tells what actions are worth: deep Q-learning, as Li et al. (2018) trained it.

    The network chooses the later action and its running mean says what that is worth. An offset
    leaves what is done as it is where every episode goes on until it is lost, and small worths can
    be learned to the precision that tells two actions apart.

    Reference: van Hasselt, Guez & Silver (2016), "Deep reinforcement learning with double
    Q-learning"; the running mean is that of Lillicrap et al. (2016).
    """
    environment, knobs = environments.named(config.environment), config.q_learning
    if not environment.num_actions:
        raise ValueError(f"{config.environment} has no discrete actions to learn the worth of")
    network = _network(config, environment)

    def taken(worths, action):
        return jnp.take_along_axis(worths, action[:, None], 1)[:, 0]

    def remember(key, params):
        several = environments.several(environment, key, knobs.num_envs)
        seen = jax.vmap(environment.observe)(several.states)
        reward = jnp.zeros(len(seen))
        like = replay.Transitions(seen, reward.astype(jnp.int32), reward, seen, reward > 0)
        return Memory(several, replay.empty(like, knobs.capacity), params)

    def gather(params, memory, batch, key):
        """One step of every environment, and a batch of what was played before."""
        del batch
        action_key, random_key, step_key, draw_key = jax.random.split(key, 4)
        num_steps = memory.replay.num_seen // knobs.num_envs
        target = optax.incremental_update(params, memory.target, knobs.target_rate)
        seen = jax.vmap(environment.observe)(memory.environments.states)
        best = network.apply(params, seen).argmax(-1).astype(jnp.int32)
        other = jax.random.randint(action_key, best.shape, 0, environment.num_actions)
        chance = jnp.maximum(1 - num_steps / (knobs.explore * config.num_steps), knobs.least_chance)
        action = jnp.where(jax.random.uniform(random_key, best.shape) < chance, other, best)
        several, reward, later, is_lost, _ = environments.step_all(
            environment, memory.environments, action, step_key
        )
        steps = replay.Transitions(seen, action, reward, later, is_lost)
        remembered = replay.add(memory.replay, steps)
        steps = replay.draw(remembered, draw_key, config.batch_size)
        worth = taken(
            network.apply(target, steps.later), network.apply(params, steps.later).argmax(-1)
        )
        gained = knobs.reward_scale * (steps.reward - knobs.reward_offset)
        wanted = gained + knobs.discount * worth * ~steps.is_lost
        return Memory(several, remembered, target), (steps.observation, steps.action, wanted)

    def loss(params, seen, action, wanted):
        worth = taken(network.apply(params, seen), action)
        return optax.huber_loss(worth, wanted).mean()

    return Problem(
        init=partial(_init, environment, network),
        loss=loss,
        scores=partial(scored, config, environment, network),
        examples=(np.random.default_rng(config.seed).integers(2**32, size=100, dtype=np.uint32),),
        batches=lambda step: (),
        remember=remember,
        gather=gather,
    )


def scored(
    config: ConfigDict, environment: Environment, policy: models.MLP, params: PyTree, seeds
) -> jax.Array:
    """Of an episode from every seed, the return: 0 for the first of ``returns``, 1 for the second.

    Of several actions the one with the largest output is taken.
    """
    low, high = config.returns
    horizon = min(config.horizon, environment.horizon)

    def episode(seed):
        def step(carry, _):
            state, alive = carry
            out = policy.apply(params, environment.observe(state)[None])[0]
            real = environment.limit * jnp.tanh(out[0])
            action = out.argmax() if environment.num_actions else real
            state, reward, is_lost = environment.step(state, action)
            return (state, alive & ~is_lost), jnp.where(alive, reward, 0)

        start = (environment.reset(jax.random.key(seed)), jnp.array(True))
        return jax.lax.scan(step, start, length=horizon)[1].sum()

    return jnp.clip((jax.vmap(episode)(seeds) - low) / (high - low), 0, 1)


def _network(config: ConfigDict, environment: Environment) -> models.MLP:
    return models.MLP((*config.hidden, environment.num_actions or 1))


def _init(environment: Environment, network: models.MLP, key: jax.Array) -> PyTree:
    start_key, key = jax.random.split(key)
    return network.init(key, environment.observe(environment.reset(start_key))[None])
