"""K-subspaces against brute force over all partitions, singular values and known subspaces."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.clustering import k_subspaces


def normal(seed, shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def in_subspaces(seed, K, n, d, num):
    """Bases of independent random subspaces, and ``num`` points of each, shuffled."""
    Q = linalg.orthonormalize(normal(seed, (K, n, d)))
    X = (normal(seed + 1, (K, num, d)) @ Q.swapaxes(1, 2)).reshape(K * num, n)
    order = np.random.default_rng(seed).permutation(K * num)
    return Q, X[order], order // num


def nearest_partition(X, K, d):
    """The least error over all partitions."""
    errors = []
    for labels in itertools.product(range(K), repeat=len(X)):
        left = 0.0
        for k in range(K):
            values = np.linalg.svd(X[np.asarray(labels) == k], compute_uv=False)
            left += np.sum(values[d:] ** 2)
        errors.append(left / len(X))
    return min(errors)


@pytest.mark.parametrize(("K", "n", "d"), [(1, 4, 4), (3, 12, 2), (2, 30, 5)])
def test_noiseless_subspaces_are_found_from_twice_their_dimension(K, n, d):
    Q, X, labels = in_subspaces(0, K, n, d, 2 * d)
    fit = jax.jit(partial(k_subspaces.fit, num_clusters=K, dim=d))
    model = fit(jax.random.key(1), X)
    to_each = jax.vmap(linalg.projection_distance, (None, 0))
    distances = np.asarray(jax.jit(jax.vmap(to_each, (0, None)))(Q, model.Q))
    assert np.all(distances.min(axis=1) < 1e-3)
    np.testing.assert_array_equal(distances.argmin(axis=1)[labels], k_subspaces.predict(model, X))
    assert model.error < 1e-10


def test_the_best_of_several_starts_is_returned():
    X, key = normal(3, (40, 4)), jax.random.key(0)
    fit = partial(k_subspaces.fit, num_clusters=3, dim=2, maxiter=2)
    fit = jax.jit(fit, static_argnames="num_restarts")
    many = fit(key, X, num_restarts=3)
    # A key splits into the keys of the starts: fewer starts are the first of them.
    errors = [float(fit(key, X, num_restarts=n).error) for n in range(1, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == float(many.error) < errors[0]
    assert float(jnp.mean(k_subspaces.score(many, X))) == pytest.approx(errors[-1], rel=1e-5)


@pytest.mark.slow
def test_the_best_of_many_starts_is_the_best_of_all_partitions():
    X = normal(3, (7, 3))
    model = k_subspaces.fit(jax.random.key(0), X, num_clusters=2, dim=1, num_restarts=100)
    assert model.error == pytest.approx(nearest_partition(np.asarray(X), 2, 1), rel=1e-4)


def test_no_step_raises_the_error():
    X = normal(4, (40, 8))
    fit = jax.jit(
        lambda maxiter: k_subspaces.fit(
            jax.random.key(2), X, num_clusters=4, dim=2, num_restarts=1, maxiter=maxiter
        ),
        static_argnums=0,
    )
    models = [fit(maxiter) for maxiter in (*range(6), 100)]
    errors = np.array([model.error for model in models])
    assert np.all(np.diff(errors) <= 1e-6)
    assert errors[-1] < errors[0]
    assert models[1].num_steps == 1
    assert models[-1].num_steps < 100


def test_one_subspace_is_the_principal_one():
    X = normal(5, (20, 6))
    model = k_subspaces.fit(jax.random.key(0), X, num_clusters=1, dim=2, num_restarts=1)
    _, values, Vt = np.linalg.svd(X)
    assert linalg.projection_distance(model.Q[0], jnp.asarray(Vt[:2].T)) < 1e-4
    assert model.error == pytest.approx(np.sum(values[2:] ** 2) / 20, rel=1e-4)


def test_the_score_is_the_least_squared_distance():
    X, Q = normal(6, (9, 5)), linalg.orthonormalize(normal(7, (3, 5, 2)))
    model = k_subspaces.KSubspaces(Q, jnp.zeros(()), jnp.int32(0))
    residuals = jnp.stack([X - X @ q @ q.T for q in Q])
    squares = jnp.sum(residuals**2, axis=-1)
    np.testing.assert_allclose(k_subspaces.score(model, X), squares.min(0), rtol=1e-4)
    np.testing.assert_array_equal(k_subspaces.predict(model, X), squares.argmin(0))
    assert k_subspaces.score(model, X[0]) == pytest.approx(float(squares[:, 0].min()), rel=1e-4)


@pytest.mark.slow
def test_turned_points_have_turned_subspaces():
    X, turn = normal(8, (30, 5)), linalg.orthonormalize(normal(9, (5, 5)))
    here, there = (
        k_subspaces.fit(jax.random.key(3), points, num_clusters=3, dim=2)
        for points in (X, X @ turn.T)
    )
    np.testing.assert_allclose(here.error, there.error, rtol=1e-4)
    assert np.all(linalg.projection_distance(turn @ here.Q, there.Q) < 1e-3)


def test_subspaces_lie_in_the_span_of_few_points():
    X = normal(10, (6, 50))
    model = k_subspaces.fit(jax.random.key(4), X, num_clusters=2, dim=2)
    np.testing.assert_allclose(
        model.Q.swapaxes(1, 2) @ model.Q, np.broadcast_to(np.eye(2), (2, 2, 2)), atol=1e-5
    )
    span = linalg.orthonormalize(X.T)
    assert jnp.max(jnp.abs(linalg.project_out(span, model.Q.swapaxes(0, 1).reshape(50, 4)))) < 1e-5


def test_a_cluster_without_points_takes_the_farthest():
    X = jnp.asarray([[1.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1]])
    labels, distances = jnp.zeros(4, jnp.int32), jnp.asarray([0.0, 0, 9, 1])
    Q = k_subspaces._principal(X, labels, distances, 3, 1)
    np.testing.assert_allclose(jnp.abs(Q[1, :, 0]), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(jnp.abs(Q[2, :, 0]), [0, 0, 1], atol=1e-6)


@pytest.mark.slow
def test_zero_points_change_nothing():
    _, X, _ = in_subspaces(11, 2, 10, 2, 5)
    padded = jnp.concatenate([X, jnp.zeros((4, 10))])
    model = k_subspaces.fit(jax.random.key(5), padded, num_clusters=2, dim=2)
    assert model.error < 1e-10


@pytest.mark.slow
def test_more_subspaces_than_points_need_is_no_trouble():
    X = jnp.tile(jnp.eye(2, 3), (4, 1))
    model = k_subspaces.fit(jax.random.key(6), X, num_clusters=5, dim=1)
    assert jnp.all(jnp.isfinite(model.Q))
    assert model.error < 1e-10


@pytest.mark.slow
def test_complex_lines_are_found():
    with jax.enable_x64(True):
        Q = linalg.orthonormalize(normal(12, (2, 4, 1), "complex128"))
        X = (normal(13, (2, 6, 1), "complex128") @ Q.swapaxes(1, 2)).reshape(12, 4)
        model = k_subspaces.fit(jax.random.key(7), X, num_clusters=2, dim=1)
        distances = np.array([[linalg.chordal_distance(q, s) for s in model.Q] for q in Q])
        assert np.all(distances.min(axis=1) < 1e-6)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    X, key = jnp.ones((4, 3)), jax.random.key(0)
    with pytest.raises(ValueError, match=r"got 4 for \(4, 3\)"):
        k_subspaces.fit(key, X, num_clusters=2, dim=4)
    with pytest.raises(ValueError, match="got 0, 10, 100"):
        k_subspaces.fit(key, X, num_clusters=0, dim=1)
    model = k_subspaces.KSubspaces(jnp.eye(3)[None, :, :1], jnp.zeros(()), jnp.int32(0))
    with pytest.raises(ValueError, match=r"dimension 3 are expected, got \(4,\)"):
        k_subspaces.score(model, jnp.ones(4))
