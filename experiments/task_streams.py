"""Streams of tasks: permuted pixels, and classes a few at a time."""

from typing import NamedTuple

import numpy as np

from experiments import data


class Stream(NamedTuple):
    """Tasks one after another, with as many examples each."""

    train_x: np.ndarray
    """(num_tasks, n, d), the pixels in one axis."""
    train_y: np.ndarray
    test_x: np.ndarray
    """(num_tasks, m, d)."""
    test_y: np.ndarray
    classes: np.ndarray
    """(num_tasks, num_classes), booleans: which labels a task has."""


def permuted(split: data.Split, num_tasks: int, seed: tuple[int, ...]) -> Stream:
    """The same images with their pixels in another random order in every task, all classes."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(split.train_x[0].size) for _ in range(num_tasks)]
    return _permuted(split, orders)


def recurring(split: data.Split, num_tasks: int, seed: tuple[int, ...]) -> Stream:
    """As `permuted`, of half as many orders: the second half of the tasks has those of the first.

    What returns are the orders, with other images: tasks of the first half have every second one.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(split.train_x[0].size) for _ in range(num_tasks // 2)]
    even, odd = (_permuted(_part(split, slice(i, None, 2)), orders) for i in range(2))
    n = min(even.train_x.shape[1], odd.train_x.shape[1])
    halves = [part._replace(train_x=part.train_x[:, :n], train_y=part.train_y[:, :n])
              for part in (even, odd)]  # fmt: skip
    return Stream(*(np.concatenate(arrays) for arrays in zip(*halves, strict=True)))


def split_classes(split: data.Split, per_task: int, seed: tuple[int, ...]) -> Stream:
    """``per_task`` classes a task, in a random order.

    Of every class as many examples are taken as the smallest has.
    """
    order = np.random.default_rng(seed).permutation(np.unique(split.train_y))
    groups = order.reshape(-1, per_task)
    classes = np.zeros((len(groups), order.max() + 1), bool)
    for task, group in enumerate(groups):
        classes[task, group] = True
    train = _by_group(split.train_x, split.train_y, groups)
    return Stream(*train, *_by_group(split.test_x, split.test_y, groups), classes)


def _permuted(split: data.Split, orders: list[np.ndarray]) -> Stream:
    train, test = (x.reshape(len(x), -1) for x in (split.train_x, split.test_x))
    num_tasks, num_classes = len(orders), int(split.train_y.max()) + 1
    return Stream(
        np.stack([train[:, order] for order in orders]),
        np.tile(split.train_y, (num_tasks, 1)),
        np.stack([test[:, order] for order in orders]),
        np.tile(split.test_y, (num_tasks, 1)),
        np.ones((num_tasks, num_classes), bool),
    )


def _part(split: data.Split, rows: slice) -> data.Split:
    return split._replace(train_x=split.train_x[rows], train_y=split.train_y[rows])


def _by_group(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    num = np.unique(y, return_counts=True)[1].min()
    rows = [np.concatenate([np.flatnonzero(y == c)[:num] for c in group]) for group in groups]
    return x.reshape(len(x), -1)[rows], y[rows]
