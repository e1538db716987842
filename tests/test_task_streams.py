"""Streams of tasks, and the learners of the continual experiment on small ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.continual_learning import get_config
from experiments import continual_methods as methods
from experiments import data, frozen_networks, task_streams
from subspace_jax.continual import measures

RNG = np.random.default_rng(0)


def blobs(num_classes=4):
    """Images (3, 3) about a centre a class."""
    centres = 2 * RNG.random((num_classes, 3, 3)).astype(np.float32)
    labels = [np.repeat(np.arange(num_classes, dtype=np.int32), n) for n in (40, 10)]
    images = [centres[y] + RNG.normal(0, 0.1, (len(y), 3, 3)).astype(np.float32) for y in labels]
    shuffled = RNG.permutation(len(labels[0]))
    return data.Split(images[0][shuffled], labels[0][shuffled], images[1], labels[1])


SPLIT = blobs()


def test_a_permuted_task_has_the_pixels_of_the_images_in_one_other_order():
    stream = task_streams.permuted(SPLIT, 3, (0,))
    for task in range(3):
        for before, after in ((SPLIT.train_x, stream.train_x[task]),
                              (SPLIT.test_x, stream.test_x[task])):  # fmt: skip
            np.testing.assert_array_equal(np.sort(before.reshape(len(before), -1)), np.sort(after))
        np.testing.assert_array_equal(stream.train_y[task], SPLIT.train_y)
    order = [np.flatnonzero(stream.train_x[0][0] == v)[0] for v in SPLIT.train_x[0].ravel()]
    np.testing.assert_array_equal(
        stream.test_x[0][:, order], SPLIT.test_x.reshape(len(SPLIT.test_x), -1)
    )
    assert np.any(stream.train_x[0] != stream.train_x[1])


def test_split_tasks_have_all_classes_once_and_as_many_examples_of_each():
    stream = task_streams.split_classes(SPLIT, 2, (0,))
    np.testing.assert_array_equal(stream.classes.sum(0), 1)
    for y, test_y, classes in zip(stream.train_y, stream.test_y, stream.classes, strict=True):
        labels, counts = np.unique(y, return_counts=True)
        np.testing.assert_array_equal(labels, np.flatnonzero(classes))
        assert set(counts) == {40}
        assert set(np.unique(test_y)) == set(labels)


def test_an_order_that_recurs_comes_with_other_images():
    stream = task_streams.recurring(SPLIT, 4, (0,))
    for task in range(2):
        first, again = ({tuple(x) for x in stream.train_x[task + i]} for i in (0, 2))
        assert not first & again
        np.testing.assert_array_equal(stream.test_x[task], stream.test_x[task + 2])
    assert np.any(stream.test_x[0] != stream.test_x[1])


def config():
    small = get_config("smoke")
    small.num_epochs = 20
    return small


@pytest.mark.slow
def test_what_keeps_the_inputs_of_old_tasks_forgets_less_than_nothing_does():
    stream = task_streams.permuted(SPLIT, 3, (0,))
    learners = {
        "naive": methods.naive(optax.sgd(0.1)),
        "GPM": methods.by_gpm(config().gpm),
        "CoSO": methods.by_coso(config().coso),
    }
    found = {
        name: jax.jit(partial(methods.in_turn, config(), learner))(jax.random.key(0), stream)
        for name, learner in learners.items()
    }
    for name, result in found.items():
        assert float(jnp.diagonal(result.R)[0]) > 0.9, name
        counts = np.asarray(result.num_directions)
        assert np.all(np.diff(counts, axis=0) >= 0)
    for name in ("GPM", "CoSO"):
        assert float(measures.forgetting(found[name].R)) < float(
            measures.forgetting(found["naive"].R)
        )


@pytest.mark.slow
def test_prompts_of_other_tasks_change_nothing_about_a_task():
    stream = task_streams.recurring(SPLIT, 4, (0,))
    kernels = frozen_networks.pretrained(config(), SPLIT, jax.random.key(1))
    found = frozen_networks.by_sparc(config(), kernels, jax.random.key(0), stream)
    for task in range(4):
        np.testing.assert_array_equal(found.R[task:, task], found.R[task, task])


def test_an_adapter_that_adds_nothing_leaves_the_features():
    kernels = methods.init(jax.random.key(0), (9, 5, 4, 3))
    x = jnp.asarray(SPLIT.train_x[:6].reshape(6, -1))
    inputs, _ = methods.inputs(kernels, x)
    for adapter in (
        frozen_networks.no_adapter(kernels, 2),
        frozen_networks.new_adapter(jax.random.key(1), kernels, 2),
    ):
        found = frozen_networks.features(kernels, adapter, x)
        np.testing.assert_allclose(found, inputs[-1][:, :-1], rtol=1e-5)


def test_accuracies_are_among_the_classes_seen_and_among_a_tasks_own():
    stream = task_streams.split_classes(SPLIT, 2, (0,))
    kernels = methods.init(jax.random.key(0), (9, 4))
    seen = jnp.asarray(stream.classes[0])  # of the second task none is among them
    R, within = methods.scores(kernels, stream, seen)
    assert float(R[1]) == 0
    assert float(R[0]) == float(within[0])
    out = np.asarray(methods.logits(kernels, stream.test_x[1]))
    own = np.flatnonzero(stream.classes[1])
    expected = np.mean(own[out[:, own].argmax(1)] == stream.test_y[1])
    assert float(within[1]) == pytest.approx(expected)


def test_images_that_are_not_square_are_not_turned():
    with pytest.raises(ValueError, match="square"):
        frozen_networks.turned(SPLIT._replace(train_x=SPLIT.train_x[:, :2]))
