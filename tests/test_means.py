"""Means and medians of subspaces against dense eigenproblems and known answers, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.manifolds import means

pytestmark = pytest.mark.usefixtures("x64")

median = jax.jit(
    means.flag_median, static_argnames=("num_directions", "pairwise", "num_steps", "smoothing")
)
FIELDS = [jnp.float64, jnp.complex128]


def normal(seed, shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def basis(seed, shape, dtype=jnp.float64):
    return linalg.orthonormalize(normal(seed, shape, dtype))


def same_space(Q, S, atol=1e-10):
    np.testing.assert_allclose(Q @ Q.conj().T, S @ S.conj().T, atol=atol)


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize(
    ("p", "n", "k", "r"), [(3, 11, 2, 2), (5, 4, 2, 3), (2, 9, 3, 1), (1, 5, 2, 2)]
)
def test_the_flag_mean_spans_the_leading_eigenvectors_of_the_mean_projector(p, n, k, r, dtype):
    bases, weights = basis(0, (p, n, k), dtype), 1.0 + jnp.arange(p)
    Y = jax.jit(lambda b, w: means.flag_mean(b, w, rank=r))(bases, weights)
    projectors = np.einsum("p,pik,pjk->ij", weights, bases, bases.conj())
    same_space(Y, np.linalg.eigh(projectors)[1][:, n - r :])
    np.testing.assert_allclose(Y.conj().T @ Y, np.eye(r), atol=1e-13)


def test_the_flag_mean_is_nearest_in_squared_chordal_distance():
    bases = basis(0, (4, 8, 2))
    distance = jax.jit(
        lambda Y: jnp.sum(jax.vmap(linalg.chordal_distance, (0, None))(bases, Y) ** 2)
    )
    Y = means.flag_mean(bases)
    for seed in range(5):
        assert distance(Y) < distance(linalg.orthonormalize(Y + 0.1 * normal(seed, Y.shape)))


def test_more_directions_than_the_subspaces_span_are_orthonormal():
    Y = means.flag_mean(jnp.stack([jnp.eye(6)[:, :2]] * 2), rank=5)
    np.testing.assert_allclose(Y.T @ Y, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(jnp.linalg.norm(Y[:2]), np.sqrt(2), rtol=1e-12)


def objective(G, Y, pairwise):
    """Of the flag median, by definition, a loop over pairs."""
    G = np.asarray(G)
    units = [g / np.linalg.norm(g) for g in G.T if np.linalg.norm(g) > 0]
    p = G.shape[1]

    def sine(g):
        return np.sqrt(max(0, 1 - np.linalg.norm(np.asarray(Y).conj().T @ g) ** 2))

    total = sum(sine(g) for g in units)
    for i, g in enumerate(units):
        for j, h in enumerate(units):
            if i != j and np.linalg.norm(g - h) > 1e-7:
                total += pairwise / (p * (p - 1)) * sine((g - h) / np.linalg.norm(g - h))
    return total


MEDIANS = [(7, 30, 3, 0.0), (7, 30, 3, 2.0), (5, 3, 2, 1.0), (1, 4, 1, 1.0), (4, 6, 4, 1.0)]


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize(("p", "n", "m", "pairwise"), MEDIANS)
def test_reweighting_never_ascends_and_the_objective_is_the_one_of_the_definition(
    p, n, m, pairwise, dtype
):
    G = normal(0, (n, p), dtype)
    Y, info = median(G, num_directions=m, pairwise=pairwise, num_steps=40, smoothing=1e-12)
    np.testing.assert_allclose(info.objectives[-1], objective(G, Y, pairwise), atol=1e-5)
    assert jnp.all(jnp.diff(info.objectives) <= 1e-8)
    present = min(m, n, p)
    np.testing.assert_allclose(Y.conj().T @ Y, np.diag(np.arange(m) < present), atol=1e-8)


def test_the_start_is_the_least_squares_solution():
    G = normal(0, (20, 6))
    Y, _ = median(G, num_directions=2, num_steps=0)
    U = np.linalg.svd(G / np.linalg.norm(G, axis=0), full_matrices=False)[0]
    same_space(Y, U[:, :2])


@pytest.mark.parametrize("pairwise", [0.0, 1.0])
def test_the_median_is_a_local_minimum(pairwise):
    G = normal(0, (9, 6))
    Y, _ = median(G, num_directions=3, pairwise=pairwise, num_steps=300)
    here = objective(G, Y, pairwise)
    for seed in range(6):
        X = linalg.project_out(Y, normal(seed, Y.shape))
        ahead, back = (
            objective(G, linalg.orthonormalize(Y + t * X), pairwise) for t in (1e-4, -1e-4)
        )
        assert min(ahead, back) > here - 1e-8


def test_a_minority_of_outliers_does_not_move_the_median():
    plane = basis(0, (50, 2))
    inliers, outliers = plane @ normal(1, (2, 12)), 100 * normal(2, (50, 3))
    G = jnp.concatenate([inliers, outliers], axis=1)
    Y, _ = median(G, num_directions=2, num_steps=50)
    assert linalg.chordal_distance(Y, plane) < 1e-6
    least_squares, _ = median(G, num_directions=2, num_steps=0)
    assert linalg.chordal_distance(least_squares, plane) > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("pairwise", [0.0, 1.0])
def test_zero_and_equal_columns_are_safe(pairwise, dtype):
    G = normal(0, (8, 4), dtype)
    with_more = jnp.concatenate([G, jnp.zeros((8, 1), dtype), 3 * G[:, :1]], axis=1)
    Y, info = median(with_more, num_directions=5, pairwise=pairwise)
    assert jnp.all(jnp.isfinite(Y))
    assert jnp.all(jnp.isfinite(info.objectives))
    assert info.rank == 4
    np.testing.assert_allclose(Y[:, 4], 0, atol=1e-6)
    nothing, _ = median(jnp.zeros((8, 3), dtype), num_directions=2, pairwise=pairwise)
    np.testing.assert_array_equal(nothing, 0)


def test_lengths_of_the_vectors_do_not_matter():
    G = normal(0, (20, 5))
    Y, _ = median(G, num_directions=2, pairwise=1.0)
    S, _ = median(G * jnp.array([1, 10, 0.1, 3, 7]), num_directions=2, pairwise=1.0)
    same_space(Y, S, atol=1e-9)


@pytest.mark.slow
def test_the_gram_matrix_may_be_summed_over_pieces():
    G = normal(0, (24, 5))
    K = sum(piece.T @ piece for piece in jnp.split(G, 4))
    X, _ = means.flag_median_coefficients(K, num_directions=2, pairwise=0.5)
    pieces = jnp.concatenate([piece @ X for piece in jnp.split(G, 4)])
    Y, _ = median(G, num_directions=2, pairwise=0.5)
    np.testing.assert_allclose(pieces, Y, atol=1e-6)


def test_the_median_of_bases_descends_and_ignores_outliers():
    plane = basis(0, (30, 2))
    bases = jnp.stack([plane @ basis(s, (2, 2)) for s in range(5)] + [basis(9, (30, 2))])
    Y, info = median(bases, num_directions=2, num_steps=50)
    assert jnp.all(jnp.diff(info.objectives) <= 1e-8)
    assert linalg.chordal_distance(Y, plane) < 1e-6


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"1\.\.4, got 5"):
        means.flag_median(jnp.ones((9, 4)), num_directions=5)
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        means.flag_median_coefficients(jnp.ones((3, 4)), num_directions=1)
    with pytest.raises(ValueError, match=r"\(3,\), got \(2,\)"):
        means.flag_mean(jnp.ones((3, 5, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match=r"1\.\.5, got 6"):
        means.flag_mean(jnp.ones((3, 5, 2)), rank=6)
    with pytest.raises(ValueError, match="pairwise"):
        means.flag_median(jnp.ones((3, 5, 2)), num_directions=1, pairwise=1.0)
