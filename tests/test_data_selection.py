"""The problems of the experiment on data selection, and its scores."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.data_selection import get_config
from experiments import data, data_selection
from experiments import selection_problems as problems

CONFIG = get_config("smoke")


def problem(setting, seed=0):
    split = data.load("digits")
    return split, problems.TARGETS[setting](CONFIG, split, np.random.default_rng(seed))


def test_of_the_examples_to_choose_from_the_stated_share_is_wrong_and_none_is_in_the_target():
    split, found = problem("classes")
    images = {image.tobytes(): label for image, label in zip(*split[:2], strict=True)}
    wrong = np.array([images[x.tobytes()] != y for x, y in zip(found.x, found.y, strict=True)])
    assert wrong.sum() == pytest.approx(CONFIG.noise * len(wrong), abs=3)  # equal images exist
    assert len(found.x) + len(found.target_x) == len(split.train_x)
    assert len(np.unique(found.target_y)) == CONFIG.num_classes
    assert all(
        images[x.tobytes()] == y for x, y in zip(found.target_x, found.target_y, strict=True)
    )
    assert not np.any(wrong & found.is_useful)
    assert set(found.y[found.is_useful]) == set(found.target_y)
    assert set(found.test_y[found.is_tested]) == set(found.target_y)


def test_the_target_of_one_rotation_is_turned_as_its_test_images_are():
    split, found = problem("rotation")
    turns = [k for k in range(4) if np.array_equal(np.rot90(split.test_x, k, (1, 2)), found.test_x)]
    assert len(turns) == 1
    known = {np.rot90(x, turns[0]).tobytes() for x in split.train_x}
    assert all(np.ascontiguousarray(x).tobytes() in known for x in found.target_x)
    assert np.mean(found.is_useful) == pytest.approx((1 - CONFIG.noise) / 4, abs=0.03)


def test_with_all_directions_the_whole_norm_makes_gist_the_plain_cosine():
    rng = np.random.default_rng(0)
    pool, target = (jnp.asarray(rng.normal(size=(n, 40)), jnp.float32) for n in (30, 6))
    config = CONFIG.copy_and_resolve_references()
    given = (None, data_selection.kept(pool), data_selection.kept(target))
    for groups in ("each", "mean"):
        _, filtered = data_selection.gist_whole_norm(config, (1.0, groups), *given)
        _, plain = data_selection.cosine(config, groups, *given)
        np.testing.assert_allclose(filtered, plain, atol=1e-4)


def test_training_sees_the_first_examples_of_an_order_and_no_other():
    found = problem("classes")[1]
    start = problems.started(CONFIG, 10, jnp.stack([jax.random.key(0)]))
    start = jax.tree.map(lambda x: x[0], start)
    order = jnp.arange(len(found.y))[::-1]
    fit = jax.jit(partial(problems.fit, CONFIG, start))
    changed = found.y.copy()
    changed[:-7] = (changed[:-7] + 1) % 10
    first, second = (fit(found.x, y, order, 7)[0] for y in (found.y, changed))
    jax.tree.map(np.testing.assert_array_equal, first, second)
