"""Learners of task streams by low-rank experts on a trained network's first kernel (iGSP).

The task is known, and with it its router; networks are those of `experiments.continual_methods`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments import continual_methods as methods
from experiments.continual_methods import Kernels
from experiments.frozen_networks import Reused, numbered
from experiments.task_streams import Stream
from subspace_jax.continual import igsp
from subspace_jax.continual.igsp import Experts


def by_igsp(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Reused:
    """Candidates for every task, of which those stay that the old experts cannot stand in for."""
    settings, num_tasks = config.igsp, len(stream.train_x)
    room = num_tasks * settings.num_candidates
    n, m = kernels[0].shape
    start = igsp.init(room, n, m, rank=settings.rank)
    tests = jnp.asarray(stream.test_x), jnp.asarray(stream.test_y)

    def task(carry, xs):
        experts, routers, counts = carry
        number, x, y, key = xs
        keys = jax.random.split(key, 3)
        experts = igsp.expand(keys[0], experts, settings.num_candidates)
        some = jnp.minimum(experts.num_experts + settings.num_candidates, room)
        fit = partial(trained, config, kernels, x=x, y=y)
        experts, router = fit(experts, jnp.zeros((n, room)), some, settings.penalty, key=keys[1])
        usage = used(router, x, some).mean(0)
        reused = 1 - igsp.new_share(experts, usage)
        experts, router = igsp.prune(experts, router, usage, threshold=settings.threshold)
        # Those it has made are still its own to train.
        mine = experts._replace(num_experts=carry[0].num_experts)
        trained_on, router = fit(mine, router, experts.num_experts, 0.0, key=keys[2])
        experts = trained_on._replace(num_experts=experts.num_experts)
        routers = routers.at[number].set(router)
        counts = counts.at[number].set(experts.num_experts)
        row = jax.vmap(partial(accuracy, kernels, experts))(routers, counts, *tests)
        return (experts, routers, counts), (row, reused)

    carry = (start, jnp.zeros((num_tasks, n, room)), jnp.ones(num_tasks, int))
    carry, (R, reused) = jax.lax.scan(task, carry, numbered(stream, key))
    return Reused(R, reused, carry[0].num_experts)


def by_own_expert(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Reused:
    """An expert a task, of as many directions as the candidates have together; no router."""
    n, m = kernels[0].shape
    rank = config.igsp.rank * config.igsp.num_candidates
    router = jnp.zeros((n, 1))

    def own(x, y, test_x, test_y, key):
        keys = jax.random.split(key, 3)
        start = igsp.expand(keys[0], igsp.init(1, n, m, rank=rank), 1)
        fit = partial(trained, config, kernels, num=1, penalty=0.0, x=x, y=y)
        experts, _ = fit(*fit(start, router, key=keys[1]), key=keys[2])  # as long as iGSP's
        return accuracy(kernels, experts, router, 1, test_x, test_y)

    _, x, y, keys = numbered(stream, key)
    row = jax.vmap(own)(x, y, jnp.asarray(stream.test_x), jnp.asarray(stream.test_y), keys)
    # What comes later does not touch it; of tasks to come nothing is known.
    R = jnp.tril(jnp.tile(row, (len(row), 1)))
    return Reused(R, jnp.zeros(len(row)), jnp.asarray(len(row)))


def kept_bytes(
    config: ConfigDict, method: str, sizes: tuple[int, ...], num_tasks: int, num_experts: float
) -> int:
    """Of experts and routers."""
    factors = (sizes[0] + 1 + sizes[1]) * config.igsp.rank
    if method == "own expert":
        return 4 * num_tasks * config.igsp.num_candidates * factors
    return round(4 * num_experts * (factors + num_tasks * (sizes[0] + 1)))


def used(router: jax.Array, x: jax.Array, num: Any) -> jax.Array:
    """Probabilities (num, experts) for images, without the constant input."""
    return jax.vmap(lambda row: igsp.route(router, row, num))(with_one(x))


def with_one(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, 1)), constant_values=1)


def logits(kernels: Kernels, experts: Experts, p: jax.Array, x: jax.Array) -> jax.Array:
    """Of images (num, d), the first layer corrected by experts with these probabilities."""
    x = with_one(x)
    hidden = x @ kernels[0] + jax.vmap(partial(igsp.apply, experts))(p, x)
    return methods.logits(kernels[1:], jax.nn.relu(hidden))


def trained(config, kernels, experts, router, num, penalty, *, x, y, key) -> tuple:
    """The new experts and the router, for half of the epochs."""
    frozen = experts.num_experts

    def loss(params, x, y):
        factors, router = params
        p = used(router, x, num)
        out = logits(kernels, Experts(*factors, frozen), p, x)
        share = igsp.new_share(experts, p).mean()
        return optax.softmax_cross_entropy_with_integer_labels(out, y).mean() + penalty * share

    optimizer = optax.adam(config.igsp.learning_rate)

    def update(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return (igsp.only_new(experts, updates[0]), updates[1]), state

    start = (experts[:2], router)
    halved = config.copy_and_resolve_references()
    halved.num_epochs = max(1, config.num_epochs // 2)
    (factors, router), _ = methods.fit(
        halved, update, loss, start, optimizer.init(start), x, y, key
    )
    return Experts(*factors, frozen), router


def accuracy(kernels, experts, router, num, x, y) -> jax.Array:
    p = used(router, x, num)
    return jnp.mean(logits(kernels, experts, p, x).argmax(-1) == y)
