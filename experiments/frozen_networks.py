"""Learners of task streams that leave a trained network as it is: adapters and prompts.

The network is that of `experiments.continual_methods`; its features are the last hidden layer's.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import continual_methods as methods
from experiments import data
from experiments.continual_methods import Kernels, Learned
from experiments.task_streams import Stream
from subspace_jax.continual import ease, sparc

Adapter = tuple[tuple[jax.Array, jax.Array], ...]


class Reused(NamedTuple):
    """What came of prompts, or experts, on a stream, a new task served by old ones if it can be."""

    R: jax.Array
    """(num_tasks, num_tasks), with the task known."""
    overlaps: jax.Array
    """(num_tasks,), how much old ones serve: with the most similar task, or in probability."""
    num_kept: jax.Array


def pretrained(config: ConfigDict, split: data.Split, key: jax.Array) -> Kernels:
    """A network that tells the images of the training set apart, all classes."""
    x = split.train_x.reshape(len(split.train_x), -1)
    classes = jnp.ones(int(split.train_y.max()) + 1, bool)
    kernels = methods.init(jax.random.fold_in(key, 0), (x.shape[1], *config.hidden, len(classes)))
    optimizer = optax.adam(config.joint.learning_rate)
    loss = partial(methods.cross_entropy, classes=classes)
    state = optimizer.init(kernels)
    key = jax.random.fold_in(key, 1)
    return methods.fit(config, optimizer.update, loss, kernels, state, x, split.train_y, key)[0]


def turned(split: data.Split) -> data.Split:
    """The training images, square, turned by a quarter: another task for the network to learn on.

    Raises:
        ValueError: images that are not square.
    """
    _, height, width = split.train_x.shape
    if height != width:
        raise ValueError(f"images must be square, got {height} x {width}")
    return split._replace(train_x=np.rot90(split.train_x, axes=(1, 2)))


def no_adapter(kernels: Kernels, bottleneck: int) -> Adapter:
    """That adds nothing; to be stacked with others."""
    widths = [kernel.shape[1] for kernel in kernels[:-1]]
    return tuple((jnp.zeros((m, bottleneck)), jnp.zeros((bottleneck, m))) for m in widths)


def new_adapter(key: jax.Array, kernels: Kernels, bottleneck: int) -> Adapter:
    """That adds nothing yet, and can be trained."""
    zeros = no_adapter(kernels, bottleneck)
    keys = jax.random.split(key, len(zeros))
    return tuple(
        (math.sqrt(2 / len(down)) * jax.random.normal(k, down.shape), up)
        for k, (down, up) in zip(keys, zeros, strict=True)
    )


def features(kernels: Kernels, adapter: Adapter, x: jax.Array) -> jax.Array:
    """The last hidden layer (num, width), each layer corrected by h + U relu(D h)."""
    for kernel, (down, up) in zip(kernels[:-1], adapter, strict=True):
        x = jax.nn.relu(jnp.pad(x, ((0, 0), (0, 1)), constant_values=1) @ kernel)
        x = x + jax.nn.relu(x @ down) @ up
    return x


def by_ease(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Learned:
    """An adapter a task, and prototypes in all of them."""
    settings, num_tasks = config.ease, len(stream.train_x)
    num_classes, width = stream.classes.shape[1], kernels[-2].shape[1]
    stack = jax.tree.map(
        lambda leaf: jnp.zeros((num_tasks, *leaf.shape)), no_adapter(kernels, settings.bottleneck)
    )

    def in_all(adapters, x):
        return jax.vmap(features, (None, 0, None))(kernels, adapters, x)

    def task(carry, xs):
        prototypes, adapters = carry
        x, y, classes, key = xs
        found = trained_adapter(config, kernels, key, x, y, classes)
        number = prototypes.num_adapters
        adapters = jax.tree.map(lambda stack, leaf: stack.at[number].set(leaf), adapters, found)
        prototypes = ease.extend(prototypes, in_all(adapters, x), y)

        def decide(x):
            decision = partial(ease.logits, prototypes, alpha=settings.alpha)
            return jax.vmap(decision, 1)(in_all(adapters, x))

        return (prototypes, adapters), class_scores(stream, decide)

    start = (ease.init(num_tasks, num_classes, width), stack)
    return learned(stream, key, task, start)


def by_first_adapter(
    config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream
) -> Learned:
    """The adapter of the first task for all, and nearest class means."""
    key0 = jax.random.split(key, len(stream.train_x))[0]
    tasks = jax.tree.map(jnp.asarray, stream)
    adapter = trained_adapter(
        config, kernels, key0, tasks.train_x[0], tasks.train_y[0], tasks.classes[0]
    )
    return nearest_means(stream, key, partial(features, kernels, adapter))


def by_frozen_means(
    config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream
) -> Learned:
    """Nearest class means of the network's features as they are."""
    adapter = no_adapter(kernels, config.ease.bottleneck)
    return nearest_means(stream, key, partial(features, kernels, adapter))


def nearest_means(stream: Stream, key: jax.Array, embed: Callable) -> Learned:
    """The class of the largest cosine between features and class mean: EASE of one adapter."""
    num_classes = stream.classes.shape[1]
    width = jax.eval_shape(embed, jnp.asarray(stream.train_x[0])).shape[1]

    def task(prototypes, xs):
        x, y, classes, _ = xs
        means = ease.class_means(embed(x), y, num_classes)
        table = jnp.where(classes[:, None], means, prototypes.table)
        owner = jnp.where(classes, 0, prototypes.owner)
        prototypes = ease.Prototypes(table, owner, jnp.ones((), int))

        def decide(x):
            return jax.vmap(partial(ease.logits, prototypes))(embed(x)[:, None])

        return prototypes, class_scores(stream, decide)

    return learned(stream, key, task, ease.init(1, num_classes, width))


def trained_adapter(config, kernels, key, x, y, classes) -> Adapter:
    """Of one task, with a cosine head that is not kept."""
    settings = config.ease
    adapter_key, head_key, key = jax.random.split(key, 3)
    adapter = new_adapter(adapter_key, kernels, settings.bottleneck)
    head = jax.random.normal(head_key, (kernels[-2].shape[1], len(classes)))

    def loss(params, x, y):
        adapter, head = params
        z = features(kernels, adapter, x)
        z = z / (jnp.linalg.norm(z, axis=1, keepdims=True) + 1e-6)
        cosines = z @ (head / jnp.linalg.norm(head, axis=0))
        among = jnp.where(classes, settings.gamma * cosines, -jnp.inf)
        return optax.softmax_cross_entropy_with_integer_labels(among, y).mean()

    optimizer = optax.adam(settings.learning_rate)
    start = (adapter, head)
    state = optimizer.init(start)
    return methods.fit(config, optimizer.update, loss, start, state, x, y, key)[0][0]


def class_scores(stream: Stream, decide: Callable) -> tuple[jax.Array, jax.Array]:
    """As `continual_methods.scores`, of a decision that knows which classes it has seen."""
    num_tasks, m, d = stream.test_x.shape
    out = decide(jnp.asarray(stream.test_x).reshape(-1, d)).reshape(num_tasks, m, -1)
    own = jnp.where(jnp.asarray(stream.classes)[:, None], out, -jnp.inf)
    found = [x.argmax(-1) == jnp.asarray(stream.test_y) for x in (out, own)]
    return found[0].mean(-1), found[1].mean(-1)


def learned(stream: Stream, key: jax.Array, task: Callable, start: Any) -> Learned:
    keys = jax.random.split(key, len(stream.train_x))
    tasks = jax.tree.map(jnp.asarray, (stream.train_x, stream.train_y, stream.classes))
    R, within = jax.lax.scan(task, start, (*tasks, keys))[1]
    return Learned(R, within, jnp.zeros((len(R), 0), int))


def by_sparc(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Reused:
    """A prompt a kind of task, added to the input; only its coefficients are trained."""
    settings = config.sparc
    num_tasks, _, d = stream.train_x.shape
    start = sparc.init(d, rank=settings.rank, max_prompts=num_tasks)

    def task(carry, xs):
        prompts, used = carry
        number, x, y, key = xs
        V = sparc.task_basis(x, settings.rank)
        before = prompts.num_prompts
        prompts, index, overlap = sparc.assign(prompts, V, threshold=settings.threshold)

        def token(c):
            return (c @ prompts.bases[index].T)[0]

        c = trained_prompt(config, kernels, token, prompts.coefficients[index], key, x, y)
        fresh = prompts.num_prompts > before  # a prompt that is reused stays as it is
        coefficients = prompts.coefficients.at[index].set(
            jnp.where(fresh, c, prompts.coefficients[index])
        )
        prompts = prompts._replace(coefficients=coefficients)
        used = used.at[number].set(index)
        offsets = jax.vmap(lambda i: sparc.tokens(prompts, i)[0])(used)
        return (prompts, used), (prompt_scores(kernels, stream, offsets), overlap)

    carry, (R, overlaps) = jax.lax.scan(
        task, (start, jnp.zeros(num_tasks, int)), numbered(stream, key)
    )
    return Reused(R, overlaps, carry[0].num_prompts)


def by_full_prompts(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Reused:
    """A prompt a task, of all dimensions."""
    num_tasks, _, d = stream.train_x.shape

    def task(offsets, xs):
        number, x, y, key = xs
        found = trained_prompt(config, kernels, lambda c: c, jnp.zeros(d), key, x, y)
        offsets = offsets.at[number].set(found)
        return offsets, prompt_scores(kernels, stream, offsets)

    R = jax.lax.scan(task, jnp.zeros((num_tasks, d)), numbered(stream, key))[1]
    return Reused(R, jnp.zeros(num_tasks), jnp.asarray(num_tasks))


def by_no_prompt(config: ConfigDict, kernels: Kernels, key: jax.Array, stream: Stream) -> Reused:
    """The network as it is."""
    del config, key
    num_tasks, _, d = stream.train_x.shape
    row = prompt_scores(kernels, stream, jnp.zeros((num_tasks, d)))
    return Reused(jnp.tile(row, (num_tasks, 1)), jnp.zeros(num_tasks), jnp.zeros((), int))


def trained_prompt(config, kernels, token, start, key, x, y) -> jax.Array:
    def loss(c, x, y):
        out = methods.logits(kernels, x + token(c))
        return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()

    optimizer = optax.adam(config.sparc.learning_rate)
    state = optimizer.init(start)
    return methods.fit(config, optimizer.update, loss, start, state, x, y, key)[0]


def prompt_scores(kernels: Kernels, stream: Stream, offsets: jax.Array) -> jax.Array:
    """Accuracies (num_tasks,), each task with its offset."""

    def score(x, y, offset):
        return jnp.mean(methods.logits(kernels, x + offset).argmax(-1) == y)

    return jax.vmap(score)(jnp.asarray(stream.test_x), jnp.asarray(stream.test_y), offsets)


def numbered(stream: Stream, key: jax.Array) -> tuple:
    num_tasks = len(stream.train_x)
    tasks = jnp.asarray(stream.train_x), jnp.asarray(stream.train_y)
    return jnp.arange(num_tasks), *tasks, jax.random.split(key, num_tasks)


def kept(
    config: ConfigDict, method: str, sizes: tuple[int, ...], num_tasks: int, key: jax.Array
) -> Any:
    """What a method has to store after all tasks, besides the network."""
    if method == "SPARC":
        return sparc.init(sizes[0], rank=config.sparc.rank, max_prompts=num_tasks)
    if method == "full prompt":
        return jnp.zeros((num_tasks, sizes[0]))
    if method == "no prompt":
        return ()
    adapter = new_adapter(key, methods.init(key, sizes), config.ease.bottleneck)
    num_adapters = {"EASE": num_tasks, "first adapter": 1, "frozen means": 0}[method]
    return [adapter] * num_adapters, ease.init(max(1, num_adapters), sizes[-1], sizes[-2])
