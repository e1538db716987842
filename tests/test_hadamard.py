import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax import linalg


@pytest.mark.parametrize("n", [1, 2, 8, 64, 128, 2048, 8192])
def test_equals_the_dense_matrix_in_sylvester_order(n):
    x = np.random.default_rng(n).normal(size=n)
    oracle = scipy.linalg.hadamard(n) @ x / np.sqrt(n)
    np.testing.assert_allclose(linalg.hadamard_transform(jnp.array(x)), oracle, atol=3e-6)


@pytest.mark.parametrize("n", [1, 3, 7, 31, 100, 1025])
def test_block_transform_is_symmetric_and_its_own_inverse(n):
    H = linalg.block_hadamard_transform(jnp.eye(n))
    np.testing.assert_allclose(H, H.T, atol=1e-7)
    np.testing.assert_allclose(H @ H, np.eye(n), atol=2e-6)


def test_acts_on_the_last_axis_of_any_batch():
    x = jax.random.normal(jax.random.key(0), (2, 3, 128))
    rows = jnp.stack([linalg.hadamard_transform(row) for row in x.reshape(6, 128)])
    np.testing.assert_allclose(linalg.hadamard_transform(x).reshape(6, 128), rows, atol=1e-6)


@pytest.mark.parametrize("n", [0, 3, 12])
def test_other_lengths_are_an_error(n):
    with pytest.raises(ValueError, match=f"power of two, got {n}"):
        linalg.hadamard_transform(jnp.ones(n))
    with pytest.raises(ValueError, match="empty axis"):
        linalg.block_hadamard_transform(jnp.ones(0))
