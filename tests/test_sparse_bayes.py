"""What the experiment on sparse Bayesian networks computes besides training."""

import jax.numpy as jnp
import numpy as np

from experiments import sparse_bayes


def test_the_calibration_error_is_the_gap_of_every_bin_weighted_by_its_members():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.01, 1, 500)
    is_right = rng.uniform(size=500) < confidence**2
    expected = 0.0
    for low in np.arange(10) / 10:
        members = (confidence > low) & (confidence <= low + 0.1)
        if members.any():
            gap = abs(is_right[members].mean() - confidence[members].mean())
            expected += members.mean() * gap
    found = sparse_bayes.calibration_error(confidence, is_right, 10)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_pruning_keeps_the_weights_of_the_largest_ratio_or_size():
    mean, scale = jnp.array([3.0, -1.0, 0.5, 2.0]), jnp.array([3.0, 0.1, 1.0, 0.5])
    kept = sparse_bayes.pruned(sparse_bayes.Belief(mean, scale), 0.5)
    np.testing.assert_array_equal(kept.mean, [0, -1, 0, 2])
    np.testing.assert_array_equal(kept.scale, [0, np.float32(0.1), 0, 0.5])
    kept = sparse_bayes.pruned(sparse_bayes.Belief(mean, jnp.zeros(4)), 0.5)
    np.testing.assert_array_equal(kept.mean, [3, 0, 0, 2])
