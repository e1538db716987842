"""What the experiment on outliers of the Hessian computes, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import outlier_eigenspaces as configs
from experiments import outlier_eigenspaces


def test_outliers_are_those_before_the_widest_gap():
    assert outlier_eigenspaces.outliers(np.array([9.0, 8.0, 7.0, 0.5, 0.4, 0.1]), 5) == 3
    assert outlier_eigenspaces.outliers(np.array([9.0, 0.5, 0.4, 0.3, -1.0]), 4) == 1


@pytest.mark.slow
def test_a_class_s_weights_in_the_span_of_the_means_lie_in_its_block_s_outliers():
    """Softmax regression: the block is the mean of p (1 - p) x x^T, a sum over the means."""
    config = configs.get_config("smoke")
    config.precision, config.num_examples = 1e4, 600
    problem = outlier_eigenspaces.gaussians(config)
    examples = problem.sample(jax.random.key(0), config.num_examples)
    inside = jnp.zeros((3, 30)).at[:, :3].set(jax.random.normal(jax.random.key(1), (3, 3)))
    outside = jnp.zeros((3, 30)).at[:, 3:].set(1.0)
    for weights, share in ((inside, 1.0), (outside, 0.0), (inside + outside, None)):
        found = outlier_eigenspaces.shares(problem, {"classes": weights}, examples)
        if share is None:
            share = jnp.mean(jnp.sum(inside**2, 1) / jnp.sum((inside + outside) ** 2, 1))
        for value in found.values():
            np.testing.assert_allclose(value, share, atol=0.05)


def test_opposite_gaussians_of_xor_are_of_one_class():
    config = configs.get_config("smoke")
    config.precision = 1e6
    x, labels = outlier_eigenspaces.xor(config).sample(jax.random.key(0), 200)
    np.testing.assert_array_equal(labels, np.abs(x[:, 1]) > 0.5)
    assert {-1, 1} == set(np.round(np.asarray(x[:, 0])).tolist()) - {0}
