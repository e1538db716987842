"""What is trained in random subspaces: images, as they are or shuffled; ten sums."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import data, models


def by_backpropagation(function: Callable, variables: Any, key: jax.Array) -> tuple:
    """The value and the gradient of a function."""
    del key
    return jax.value_and_grad(function)(variables)


class Problem(NamedTuple):
    """A thing to train, and how well it went."""

    init: Callable[[jax.Array], Any]
    """key -> parameters."""
    loss: Callable[..., jax.Array]
    """(parameters, *batch) -> number."""
    scores: Callable[..., jax.Array]
    """(parameters, *examples) -> (num_examples,) scores in [0, 1], of which 1 is the best."""
    examples: tuple
    """What to score on."""
    batches: Callable[[int], tuple]
    """step -> batch, arrays (batch_size, num_seeds, ...)."""
    value_and_grad: Callable[..., tuple[jax.Array, Any]] = by_backpropagation
    """(function, z, key) -> its value and gradient, exact or estimated."""
    direct_value_and_grad: Callable[..., tuple[jax.Array, Any]] = by_backpropagation
    """Likewise of all parameters."""
    remember: Callable[[jax.Array, Any], Any] = lambda key, params: ()
    """(key, parameters) -> what a run keeps from step to step beside its parameters."""
    gather: Callable[..., tuple[Any, tuple]] = lambda params, memory, batch, key: (memory, batch)
    """(parameters, memory, batch, key) -> memory, and what the loss is to be of."""


def classification(network: Callable[..., nn.Module], config: ConfigDict) -> Problem:
    """A network on images; scored by which test images it labels correctly.

    With labels at random there is nothing to generalize: it is scored on what it has seen.
    """
    split = shuffled(config, data.load(config.data, config.data_path))
    if config.validation:
        split = data.hold_out(split.train_x, split.train_y, 1 / 8)
    model = network(config, int(split.train_y.max()) + 1)
    streams = [
        data.epochs(split, config.batch_size, (config.seed, s)) for s in range(config.num_seeds)
    ]

    def loss(params, x, y):
        logits = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def scores(params, x, y):
        return (model.apply(params, x).argmax(-1) == y).astype(jnp.float32)

    def batches(step):
        xs, ys = zip(*(stream(step) for stream in streams), strict=True)
        return np.stack(xs, 1), np.stack(ys, 1)

    seen = config.shuffled_labels > 0
    return Problem(
        init=lambda key: model.init(key, split.train_x[:1]),
        loss=loss,
        scores=scores,
        examples=(split.train_x, split.train_y) if seen else (split.test_x, split.test_y),
        batches=batches,
    )


def shuffled(config: ConfigDict, split: data.Split) -> data.Split:
    """The data with one permutation of the pixels, and a share of the training labels, at random.

    Reference: Li et al. (2018), sections 3.2 and S5.3.
    """
    if not 0 <= config.shuffled_labels <= 1:
        raise ValueError(f"shuffled_labels must lie in 0..1, got {config.shuffled_labels}")
    rng = np.random.default_rng(config.seed)
    if config.shuffled_pixels:
        order = rng.permutation(math.prod(split.train_x.shape[1:]))
        train_x, test_x = (
            x.reshape(len(x), -1)[:, order].reshape(x.shape) for x in (split.train_x, split.test_x)
        )
        split = split._replace(train_x=train_x, test_x=test_x)
    labels = split.train_y.copy()
    chosen = rng.permutation(len(labels))[: round(config.shuffled_labels * len(labels))]
    labels[chosen] = rng.integers(labels.max() + 1, size=len(chosen))
    return split._replace(train_y=labels)


def toy(config: ConfigDict) -> Problem:
    """1000 numbers in ten groups; the i-th group has to sum to i. Scored by exp(-loss).

    The solutions have dimension 990, so the intrinsic dimension is 10 exactly.

    Reference: Li et al. (2018), section 2.
    """
    del config
    targets = jnp.arange(1.0, 11.0)

    def loss(params):
        return jnp.mean((params.reshape(10, 100).sum(axis=1) - targets) ** 2)

    return Problem(
        init=lambda key: jnp.zeros(1000),
        loss=loss,
        scores=lambda params: jnp.exp(-loss(params))[None],
        examples=(),
        batches=lambda step: (),
    )


IMAGES_AND_SUMS: dict[str, Callable[[ConfigDict], Problem]] = {
    "mlp": partial(classification, lambda config, num: models.MLP((*config.hidden, num))),
    "lenet": partial(classification, lambda config, num: models.LeNet(num)),
    "untied_lenet": partial(classification, lambda config, num: models.LeNet(num, "untied")),
    "dense_lenet": partial(classification, lambda config, num: models.LeNet(num, "dense")),
    "toy": toy,
}

AUTHORS = {
    10: (0.20, 0.16, 0.16), 100: (0.61, 0.58, 0.58), 300: (0.82, 0.82, 0.82),
    500: (0.869, 0.862, 0.863), 750: (0.900, 0.891, 0.891), 1000: (0.916, 0.902, 0.902),
    1500: (0.930, 0.923, 0.923),
}  # fmt: skip
"""The accuracy of three seeds of the 784-200-200-10 network on all of MNIST, by d.

Reference: the notebook of Li et al. (2018).
"""


def authors(config: ConfigDict) -> dict[int, tuple[float, ...]]:
    """`AUTHORS`, if it is of this network on all or a part of these images; else nothing."""
    same = config.problem == "mlp" and tuple(config.hidden) == (200, 200)
    same &= config.data.startswith("mnist") and not (config.data_path or config.validation)
    return AUTHORS if same and not (config.shuffled_pixels or config.shuffled_labels) else {}
