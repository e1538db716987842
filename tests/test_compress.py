"""Networks as files: what is read is what was written, here and in another process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.compress import get_config
from experiments import compress, model_files
from experiments.model_files import Network
from subspace_jax import projections, tree

NETWORK = Network((8, 6), (5, 3), 2)


def params():
    return NETWORK.init(jax.random.key(0))


def test_pooled_pixels_are_means_of_squares():
    x = np.random.default_rng(0).normal(size=(2, 8, 6))
    pooled = [[[x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(3)]
               for i in range(4)] for n in range(2)]  # fmt: skip
    expected = Network((4, 3), (5, 3)).apply(params(), jnp.array(pooled))
    np.testing.assert_allclose(NETWORK.apply(params(), jnp.array(x)), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_come_back_as_they_are_in_that_dtype(dtype, tmp_path):
    model_files.save_weights(tmp_path / "x.npz", params(), dtype)
    found = model_files.load(tmp_path / "x.npz", NETWORK)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(params()), strict=True):
        np.testing.assert_array_equal(one, np.asarray(other).astype(dtype).astype("float32"))


def test_eight_bits_err_by_half_a_step_of_the_largest_weight(tmp_path):
    model_files.save_weights(tmp_path / "x.npz", params(), "int8")
    found = model_files.load(tmp_path / "x.npz", NETWORK)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(params()), strict=True):
        step = np.abs(other).max() / 127
        np.testing.assert_allclose(one, other, rtol=0, atol=0.501 * step)
        assert len(np.unique(np.rint(one / step if step else one))) <= 255


@pytest.mark.slow
def test_what_a_new_process_reads_is_the_network_to_the_last_bit(tmp_path):
    key, z = jax.random.key(3), jnp.linspace(-1, 1, 7, dtype=jnp.float16)
    params0 = model_files.initial(NETWORK, key)
    projections.save(tmp_path / "z.npz", "hashed", key, params0, z)
    model_files.save_weights(tmp_path / "w.npz", params(), "float32")
    moved = jax.tree.map(
        jnp.add, params0, projections.expand(projections.hashed(key, params0, 7), z)
    )
    found = [
        {"file": name, "network": NETWORK, "digest": model_files.digest(meant)}
        for name, meant in (("z.npz", moved), ("w.npz", params()))
    ]
    assert compress.compare(tmp_path, found) == 2
    projections.save(tmp_path / "z.npz", "hashed", key, params0, z.at[3].add(1e-7))
    with pytest.raises(ValueError, match=r"z.npz does not hold the bits"):
        compress.compare(tmp_path, found)


@pytest.mark.slow
def test_a_process_that_fails_says_why(tmp_path):
    with pytest.raises(OSError, match="FileNotFoundError"):
        model_files.digests_elsewhere([(tmp_path / "none.npz", NETWORK)])


@pytest.mark.parametrize("kept", [0.1, 0.5, 1.0])
def test_the_largest_weights_survive(kept):
    before, after = tree.ravel(params()), np.asarray(tree.ravel(compress.pruned(params(), kept)))
    order = np.argsort(-np.abs(before), kind="stable")
    number = int(np.sum(after != 0))
    assert abs(number - min(kept * len(before), np.sum(before != 0))) <= 1
    np.testing.assert_array_equal(np.sort(order[:number]), np.flatnonzero(after))
    np.testing.assert_array_equal(after[after != 0], np.asarray(before)[after != 0])


def test_the_smallest_model_is_the_first_that_is_good_enough():
    rows = [
        {"method": "float32", "setting": 1, "bytes": [100, 100], "accuracy": [0.8, 1.0]},
        {"method": "int8", "setting": 1, "bytes": [20, 20], "accuracy": [0.7, 0.7]},
        {"method": "small, int8", "setting": 9, "bytes": [7, 9], "accuracy": [0.81, 0.81]},
        {"method": "small, int8", "setting": 99, "bytes": [10, 12], "accuracy": [0.9, 0.9]},
    ]
    found = compress.smallest(rows, 0.9)
    assert (found["float32"], found["int8"], found["small, int8"]) == (100, None, 8)


def test_the_models_are_gathered_by_method_and_size():
    models = [
        {"method": method, "setting": setting, "bytes": size, "accuracy": seed}
        for seed in (0.1, 0.2)
        for method, setting, size in (("int8", 1, 9), ("float32", 1, 5), ("int8", 2, 3))
    ]
    found = compress.gathered(models)
    assert [(row["method"], row["setting"]) for row in found] == [
        ("float32", 1), ("int8", 2), ("int8", 1)
    ]  # fmt: skip
    assert all(row["accuracy"] == [0.1, 0.2] for row in found)


def test_training_reaches_the_minimum_of_a_quadratic():
    rows = np.zeros((400, 1), int)
    xs = jnp.ones(1)
    found = compress.fit(
        0.1, lambda v, x, y: jnp.sum((v - 3 * x - y) ** 2), jnp.zeros(2), xs, xs, rows
    )
    np.testing.assert_allclose(found, [4, 4], atol=1e-3)


def test_the_default_config_is_the_papers_network():
    assert get_config().hidden == (200, 200)
    assert get_config("fashion").data == "fashion_mnist"
