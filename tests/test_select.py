"""Targeted data selection against dense singular value decompositions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import optim


def gradients(num, dimension, *, decay=0.5, seed=0):
    """Rows with the singular values 1, decay, decay^2 ..., and their right singular vectors."""
    rng = np.random.default_rng(seed)
    k = min(num, dimension)
    U = np.linalg.qr(rng.normal(size=(num, k)))[0]
    V = np.linalg.qr(rng.normal(size=(dimension, k)))[0]
    s = decay ** np.arange(k)
    return (U * s) @ V.T, s, V


def cosines(A, B):
    A, B = (X / np.linalg.norm(X, axis=1, keepdims=True) for X in (A, B))
    return A @ B.T


@pytest.mark.parametrize("shape", [(1, 9), (6, 40), (12, 5)])
@pytest.mark.parametrize("decay", [0.8, 0.3])
def test_a_direction_is_exact_up_to_eps_times_the_squared_ratio_of_singular_values(shape, decay):
    G, s, V = gradients(*shape, decay=decay)
    found = optim.target_subspace(jnp.asarray(G, jnp.float32), energy=1.0)
    eps, rank = np.finfo(np.float32).eps, int(found.rank)
    assert rank == min(np.sum(s**2 > shape[0] * eps), len(s))
    misses = np.linalg.norm(np.asarray(found.Q) - V @ (V.T @ np.asarray(found.Q)), axis=0)
    assert np.all(misses[:rank] < 20 * eps / s[:rank])  # as far as they are in the span at all
    parallel = np.abs(np.sum(np.asarray(found.Q) * V, axis=0))
    sines = np.sqrt(np.maximum(1 - parallel[:rank] ** 2, 0))
    # sqrt(eps) is what a cosine resolves
    assert np.all(sines < 20 * eps / s[:rank] ** 2 / (1 - decay) + 4 * np.sqrt(eps))
    np.testing.assert_allclose(found.Q[:, rank:], 0)


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999, 1.0])
def test_the_rank_is_the_least_that_holds_the_energy(energy):
    G, s, _ = gradients(6, 20)
    with jax.enable_x64(True):
        found = optim.target_subspace(jnp.asarray(G), energy=energy)
        least = next(
            k for k in range(1, 7) if np.sum(s[:k] ** 2) >= (energy - 1e-12) * np.sum(s**2)
        )
        assert found.rank == least
        assert optim.target_subspace(jnp.asarray(G), rank=2, energy=energy).rank == min(least, 2)


def test_repeated_gradients_add_no_direction():
    """The released code divides by their singular values, about 1e-4 of rounding, plus 1e-6."""
    G = np.asarray(gradients(4, 30)[0], np.float32)
    twice = jnp.asarray(np.concatenate([G, G, G]))
    found = optim.target_subspace(twice, energy=1.0)
    assert found.rank == 4
    np.testing.assert_allclose(found.Q.T @ found.Q, np.diag(np.arange(12) < 4), atol=1e-4)
    train = jnp.asarray(np.random.default_rng(1).normal(size=(9, 30)), jnp.float32)
    scores = optim.select(train, twice, 2, energy=1.0).scores
    expected = optim.select(train, jnp.asarray(G), 2, energy=1.0).scores
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_scores_are_cosines_of_the_projections_on_the_leading_singular_vectors():
    G = gradients(6, 20)[0]
    train = np.random.default_rng(1).normal(size=(30, 20))
    V = np.linalg.svd(G)[2][:3].T
    expected = cosines(train @ V, G @ V).max(1)
    with jax.enable_x64(True):
        found = optim.select(jnp.asarray(train), jnp.asarray(G), 8, rank=3, energy=1.0)
        np.testing.assert_allclose(found.scores, expected, rtol=1e-10)
        np.testing.assert_array_equal(found.indices, np.argsort(-expected)[:8])
        assert found.projections.shape == (30, 3)


def test_what_is_orthogonal_to_the_target_and_how_long_a_gradient_is_change_nothing():
    G, _, V = gradients(5, 20)
    rng = np.random.default_rng(2)
    train, noise = rng.normal(size=(2, 8, 20))
    changed = rng.uniform(0.1, 9, size=(8, 1)) * train + 50 * (noise - noise @ V @ V.T)
    with jax.enable_x64(True):
        scores, other = (
            optim.select(jnp.asarray(rows), jnp.asarray(G), 2, energy=1.0).scores
            for rows in (train, changed)
        )
    np.testing.assert_allclose(scores, other, atol=1e-9)


def test_one_group_compares_with_the_mean_gradient():
    G = gradients(6, 20)[0]
    train = np.random.default_rng(3).normal(size=(10, 20))
    V = np.linalg.svd(G)[2][:6].T
    with jax.enable_x64(True):
        found = [
            optim.select(jnp.asarray(train), jnp.asarray(G), 2, energy=1.0, num_groups=m).scores
            for m in (1, 3)
        ]
    np.testing.assert_allclose(found[0], cosines(train @ V, G.mean(0)[None] @ V)[:, 0], atol=1e-9)
    thirds = G.reshape(3, 2, 20).mean(1)
    np.testing.assert_allclose(found[1], cosines(train @ V, thirds @ V).max(1), atol=1e-9)


def test_a_zero_gradient_scores_zero():
    assert optim.target_scores(jnp.zeros((1, 3)), jnp.ones((2, 3))) == 0
    found = optim.select(jnp.ones((2, 4)), jnp.zeros((2, 4)), 1)
    np.testing.assert_array_equal(found.scores, [0, 0])


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_gradients_in_chunks_are_those_of_one_example_after_another(chunk_size):
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3))), "b": jnp.asarray(rng.normal(size=3))}
    x, y = jnp.asarray(rng.normal(size=(7, 4))), jnp.asarray(rng.normal(size=(7, 3)))

    def loss(params, example):
        x, y = example
        return jnp.sum((jnp.tanh(x @ params["w"]) + params["b"] - y) ** 2)

    rows = [jax.grad(loss)(params, example) for example in zip(x, y, strict=True)]
    rows = np.array([np.concatenate([row["b"], np.ravel(row["w"])]) for row in rows])
    given = {"chunk_size": chunk_size}
    found = optim.per_example_gradients(loss, params, (x, y), **given)
    np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-6)
    Q = optim.target_subspace(found, rank=2).Q
    found = optim.per_example_gradients(loss, params, (x, y), Q=Q, **given)
    np.testing.assert_allclose(found, rows @ Q, rtol=1e-4, atol=1e-5)


def test_wrong_shapes_are_named():
    G = jnp.ones((4, 6))
    with pytest.raises(ValueError, match=r"\(3, 5\) for training and \(4, 6\)"):
        optim.select(jnp.ones((3, 5)), G, 1)
    with pytest.raises(ValueError, match="1 to 4, got 5"):
        optim.select(G, G, 5)
    with pytest.raises(ValueError, match="3 groups do not divide 4"):
        optim.select(G, G, 1, num_groups=3)
    with pytest.raises(ValueError, match="energy"):
        optim.target_subspace(G, energy=0.0)
    with pytest.raises(ValueError, match=r"\(4, 6\) and \(3, 5\)"):
        optim.target_scores(G, jnp.ones((3, 5)))
    with pytest.raises(ValueError, match=r"\(4, 6\), there are 5 parameters"):
        optim.per_example_gradients(lambda p, x: jnp.sum(p * x), jnp.ones(5), jnp.ones((2, 5)), Q=G)
