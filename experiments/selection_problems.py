"""Problems of data selection on digits: a target, examples of which some help, and a network."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import data, models


class Problem(NamedTuple):
    """Examples to choose from, examples of the target, and those that the network is tested on."""

    x: np.ndarray
    y: np.ndarray
    """Of some the label is wrong."""
    is_useful: np.ndarray
    """Rightly labelled and of the target."""
    target_x: np.ndarray
    target_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    is_tested: np.ndarray


class Start(NamedTuple):
    """What is random in a training: the first parameters, and which places of a list are drawn."""

    params: Any
    places: jax.Array
    """(num_steps, batch_size), of [0, 1)."""


class Trial(NamedTuple):
    """A problem, what its training starts with, and the network whose gradients are compared."""

    problem: Problem
    start: Start
    warm: Any
    moments: Any
    """Adam's state after the warm-up."""
    key: jax.Array


def prepared(config: ConfigDict, split: data.Split, setting: str, seeds: range) -> Trial:
    """A trial of every seed, stacked."""
    problems = [TARGETS[setting](config, split, np.random.default_rng([7, s])) for s in seeds]
    problem = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *problems)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(config.seed), seed) for seed in seeds])
    start = started(config, config.num_steps, keys)
    warmup = started(config, config.warmup_steps, keys)

    def warmed(problem, start):
        everything = jnp.arange(len(problem.y))
        return fit(config, start, problem.x, problem.y, everything, len(everything))

    warm, state = jax.jit(jax.vmap(warmed))(problem, warmup)
    return Trial(problem, start, warm, state[0], keys)


def started(config: ConfigDict, num_steps: int, keys: jax.Array) -> Start:
    """Of every seed, stacked; compiled for one, which is a matter of seconds for random numbers."""

    @jax.jit
    def start(key):
        params = network(config).init(key, jnp.zeros((1, 8, 8)))
        places = jax.random.uniform(jax.random.fold_in(key, 1), (num_steps, config.batch_size))
        return Start(params, places)

    return jax.tree.map(lambda *xs: jnp.stack(xs), *map(start, keys))


def some_classes(config: ConfigDict, split: data.Split, rng: np.random.Generator) -> Problem:
    """The target are images of a few classes."""
    classes = rng.permutation(10)[: config.num_classes]
    mine, test = np.isin(split.train_y, classes), np.isin(split.test_y, classes)
    return corrupted(config, split, mine, split.test_x, test, rng)


def one_rotation(config: ConfigDict, split: data.Split, rng: np.random.Generator) -> Problem:
    """All images are turned by a multiple of 90 degrees; the target are those of one angle."""
    turn, turns = rng.integers(4), rng.integers(4, size=len(split.train_x))
    turned = [np.rot90(x, t) for x, t in zip(split.train_x, turns, strict=True)]
    test_x = np.rot90(split.test_x, turn, axes=(1, 2))
    split = split._replace(train_x=np.stack(turned))
    return corrupted(config, split, turns == turn, test_x, np.ones(len(test_x), bool), rng)


def corrupted(config, split, is_target, test_x, is_tested, rng) -> Problem:
    """Some examples of the target are set apart; of the others some get another label."""
    target = rng.permutation(np.flatnonzero(is_target))[: config.num_targets]
    rest = np.setdiff1d(np.arange(len(split.train_x)), target)
    y = split.train_y[rest].copy()
    wrong = rng.permutation(len(y))[: round(config.noise * len(y))]
    y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    useful = is_target[rest] & (y == split.train_y[rest])
    chosen = split.train_x[target], split.train_y[target]
    return Problem(split.train_x[rest], y, useful, *chosen, test_x, split.test_y, is_tested)


TARGETS: dict[str, Callable[..., Problem]] = {"classes": some_classes, "rotation": one_rotation}


def network(config: ConfigDict) -> models.MLP:
    return models.MLP((*config.hidden, 10))


def num_params(config: ConfigDict) -> int:
    shapes = jax.eval_shape(network(config).init, jax.random.key(0), jnp.zeros((1, 8, 8)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def loss(config: ConfigDict, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = network(config).apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def fit(config: ConfigDict, start: Start, x, y, order: jax.Array, num) -> tuple:
    """Adam on the first ``num`` examples of an order; parameters and its state."""
    optimizer = optax.adam(config.learning_rate)

    def step(carry, places):
        params, state = carry
        batch = order[jnp.floor(places * num).astype(int)]
        grads = jax.grad(partial(loss, config))(params, x[batch], y[batch])
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (start.params, optimizer.init(start.params)), start.places)[0]


def accuracy(config: ConfigDict, params: Any, problem: Problem) -> jax.Array:
    right = network(config).apply(params, problem.test_x).argmax(-1) == problem.test_y
    return jnp.sum(right & problem.is_tested) / jnp.sum(problem.is_tested)
