"""Learners of task streams: one after another with nothing, GPM or CoSO, and all tasks at once.

The network's kernels have a row for a constant input instead of biases, so that the memories of
`subspace_jax.continual` see all there is to learn.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.task_streams import Stream
from subspace_jax.continual import coso, gpm
from subspace_jax.continual.memory import Memory

Kernels = tuple[jax.Array, ...]


class Learner(NamedTuple):
    """What a method does with a gradient, and at the end of a task."""

    init: Callable[[Kernels], Any]
    update: Callable[..., tuple[Kernels, Any]]
    """(grads, state, params) -> (updates, state)."""
    end_task: Callable[[Any, Kernels, jax.Array], Any]
    """(state, params, images of the task) -> state."""
    histories: Callable[[Any], tuple[Memory, ...]]
    """Of every kernel, none for a method that keeps nothing."""


class Learned(NamedTuple):
    """What came of a stream."""

    R: jax.Array
    """(num_tasks, num_tasks), the accuracy on task j after task i, among the classes so far."""
    within: jax.Array
    """The same with the task known: among its own classes."""
    num_directions: jax.Array
    """(num_tasks, kernels), in the histories after each task."""


def init(key: jax.Array, sizes: tuple[int, ...]) -> Kernels:
    """He-normal kernels (inputs + 1, outputs), the last row zero."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(
        jnp.pad(math.sqrt(2 / n) * jax.random.normal(k, (n, m)), ((0, 1), (0, 0)))
        for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
    )


def inputs(kernels: Kernels, x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """What every kernel is applied to (num, inputs + 1), and the logits."""
    seen = []
    for i, kernel in enumerate(kernels):
        x = jax.nn.relu(x) if i else x
        seen.append(jnp.pad(x, ((0, 0), (0, 1)), constant_values=1))
        x = seen[-1] @ kernel
    return seen, x


def logits(kernels: Kernels, x: jax.Array) -> jax.Array:
    return inputs(kernels, x)[1]


def cross_entropy(kernels: Kernels, x: jax.Array, y: jax.Array, classes: jax.Array) -> jax.Array:
    """Of the softmax over these classes."""
    among = jnp.where(classes, logits(kernels, x), -jnp.inf)
    return optax.softmax_cross_entropy_with_integer_labels(among, y).mean()


def in_turn(config: ConfigDict, learner: Learner, key: jax.Array, stream: Stream) -> Learned:
    """Learn the tasks one after another; the learner sees each once."""
    sizes = (stream.train_x.shape[-1], *config.hidden, stream.classes.shape[-1])
    seen = jnp.cumsum(jnp.asarray(stream.classes), axis=0) > 0
    kernels = init(jax.random.fold_in(key, 0), sizes)

    def task(carry, xs):
        params, state = carry
        x, y, classes, seen, key = xs
        loss = partial(cross_entropy, classes=classes)
        params, state = fit(config, learner.update, loss, params, state, x, y, key)
        state = learner.end_task(state, params, x)
        counts = jnp.array([m.num_directions for m in learner.histories(state)], int)
        return (params, state), (*scores(params, stream, seen), counts)

    keys = jax.random.split(jax.random.fold_in(key, 1), len(stream.train_x))
    tasks = (stream.train_x, stream.train_y, stream.classes, seen, keys)
    start = (kernels, learner.init(kernels))
    return Learned(*jax.lax.scan(task, start, jax.tree.map(jnp.asarray, tasks))[1])


def at_once(config: ConfigDict, learner: Learner, key: jax.Array, stream: Stream) -> Learned:
    """Learn all tasks together, in as many steps: what forgetting nothing would come to."""
    num_tasks, _, d = stream.train_x.shape
    sizes = (d, *config.hidden, stream.classes.shape[-1])
    kernels = init(jax.random.fold_in(key, 0), sizes)
    every = jnp.asarray(stream.classes).any(0)
    params, _ = fit(
        config,
        learner.update,
        partial(cross_entropy, classes=every),
        kernels,
        learner.init(kernels),
        stream.train_x.reshape(-1, d),
        stream.train_y.ravel(),
        jax.random.fold_in(key, 1),
    )
    R, within = (jnp.tile(row, (num_tasks, 1)) for row in scores(params, stream, every))
    return Learned(R, within, jnp.zeros((num_tasks, len(kernels)), int))


def fit(config: ConfigDict, update, loss, params, state, x, y, key) -> tuple[Any, Any]:
    """``num_epochs`` over minibatches."""
    num_batches = len(x) // config.batch_size

    def batches(key):
        order = jax.random.permutation(key, len(x))[: num_batches * config.batch_size]
        return order.reshape(num_batches, config.batch_size)

    rows = jnp.concatenate(jax.vmap(batches)(jax.random.split(key, config.num_epochs)))
    x, y = jnp.asarray(x), jnp.asarray(y)

    def step(carry, chosen):
        params, state = carry
        updates, state = update(jax.grad(loss)(params, x[chosen], y[chosen]), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), rows)[0]


def scores(params: Kernels, stream: Stream, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Accuracies (num_tasks,) on the test images: among the classes seen, among a task's own."""
    num_tasks, m, d = stream.test_x.shape
    out = logits(params, jnp.asarray(stream.test_x).reshape(-1, d)).reshape(num_tasks, m, -1)
    among = (seen, jnp.asarray(stream.classes)[:, None])
    found = [jnp.where(c, out, -jnp.inf).argmax(-1) == jnp.asarray(stream.test_y) for c in among]
    return found[0].mean(-1), found[1].mean(-1)


def naive(optimizer: optax.GradientTransformation) -> Learner:
    """Nothing against forgetting."""
    return Learner(
        optimizer.init,
        optimizer.update,
        lambda state, params, x: state,
        lambda state: (),
    )


def by_gpm(settings: ConfigDict) -> Learner:
    """Gradient projection memory, with plain gradient descent as in its paper."""
    optimizer = optax.sgd(settings.learning_rate)

    def init(params):
        return gpm.init(params), optimizer.init(params)

    def update(grads, state, params):
        memories, inner = state
        updates, inner = optimizer.update(gpm.project(memories, grads), inner, params)
        return updates, (memories, inner)

    def end_task(state, params, x):
        seen = tuple(inputs(params, x[: settings.num_inputs])[0])
        return gpm.end_task(state[0], seen, threshold=settings.threshold), state[1]

    return Learner(init, update, end_task, lambda state: state[0])


def by_coso(settings: ConfigDict) -> Learner:
    """Continuous subspace optimization, with Adam in the subspace as in its paper."""
    method = coso.optimizer(
        optax.adam(settings.learning_rate),
        rank=settings.rank,
        sketch_size=settings.sketch_size,
        threshold=settings.threshold,
        refresh_every=settings.refresh_every,
    )

    def end_task(state, params, x):
        del x
        return method.end_task(state, params)

    return Learner(method.init, method.update, end_task, lambda state: state.history)
