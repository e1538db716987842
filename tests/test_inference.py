"""Tests of principal subspaces: their distribution under the hypothesis, and what they reject."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.manifolds import inference

SCALES = jnp.sqrt(jnp.asarray([8.0, 5.0, 1.5, 1.0, 0.5, 0.25]))
TRUTH = jnp.eye(6)[:, :2]


def normal_sample(key, size):
    return SCALES * jax.random.normal(key, (size, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    "test", [inference.principal_subspace_test, inference.robust_subspace_test]
)
def test_the_statistic_of_normal_samples_is_chi_square(test):
    keys = jax.random.split(jax.random.key(0), 400)
    outcome = jax.jit(jax.vmap(lambda key: test(normal_sample(key, 4000), TRUTH)))(keys)
    assert test(normal_sample(keys[0], 50), TRUTH).num_degrees == 8
    standard_error = np.sqrt(2 * 8 / 400)
    assert abs(np.mean(outcome.statistic) - 8) < 4 * standard_error
    assert abs(np.mean(outcome.p_value < 0.1) - 0.1) < 4 * np.sqrt(0.09 / 400)


@pytest.mark.slow
def test_heavy_tails_mislead_the_normal_test_and_not_the_robust_one():
    def student(key):
        first, second = jax.random.split(key)
        radius = jnp.sqrt(2 * jax.random.gamma(second, 3.0, (3000, 1)) / 6)  # 6 degrees of freedom
        return normal_sample(first, 3000) / radius

    keys = jax.random.split(jax.random.key(1), 300)
    rejected = {
        test.__name__: np.mean(
            jax.jit(jax.vmap(lambda key, test=test: test(student(key), TRUTH).p_value))(keys) < 0.1
        )
        for test in (inference.principal_subspace_test, inference.robust_subspace_test)
    }
    assert rejected["principal_subspace_test"] > 0.2
    assert rejected["robust_subspace_test"] < 0.16


def test_it_depends_on_the_subspace_and_not_on_its_basis_or_the_units():
    X = normal_sample(jax.random.key(2), 100)
    angle = 0.7
    turn = jnp.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for test in (inference.principal_subspace_test, inference.robust_subspace_test):
        here = test(X, TRUTH)
        np.testing.assert_allclose(
            test(3 * X + 5, TRUTH @ turn).statistic, here.statistic, rtol=1e-3
        )


def test_another_subspace_is_rejected():
    X = normal_sample(jax.random.key(3), 500)
    Q = jnp.eye(6)[:, 1:3]
    assert inference.principal_subspace_test(X, Q).p_value < 1e-6
    assert inference.robust_subspace_test(X, Q).p_value < 1e-6


def test_multiplicities_average_the_eigenvalues_of_equal_directions():
    equal = jnp.sqrt(jnp.asarray([4.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    keys = jax.random.split(jax.random.key(4), 400)

    def statistic(key):
        X = equal * jax.random.normal(key, (3000, 6))
        return inference.principal_subspace_test(X, TRUTH, multiplicities=(2, 4)).statistic

    assert abs(np.mean(jax.jit(jax.vmap(statistic))(keys)) - 8) < 4 * np.sqrt(16 / 400)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"X must be \(n, d\) and Q \(d, k\)", lambda X: (X[:, :5], TRUTH, {})),
        ("need k < d", lambda X: (X, jnp.eye(6), {})),
        ("must sum to d = 6", lambda X: (X, TRUTH, {"multiplicities": (2, 3)})),
        ("must sum to d = 6", lambda X: (X, TRUTH, {"multiplicities": (3, 3)})),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_named(message, call):
    X, Q, options = call(normal_sample(jax.random.key(5), 20))
    with pytest.raises(ValueError, match=message):
        inference.principal_subspace_test(X, Q, **options)


def test_the_robust_test_asks_for_more_samples_than_degrees():
    with pytest.raises(ValueError, match="8 degrees of freedom need more than 8 samples"):
        inference.robust_subspace_test(normal_sample(jax.random.key(6), 8), TRUTH)
