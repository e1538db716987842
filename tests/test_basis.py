"""Subspaces against dense oracles in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax import linalg

SHAPES = [(1, 1), (5, 1), (6, 3), (4, 4)]
DTYPES = [jnp.float32, jnp.complex64]


def random(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def basis(seed, shape, dtype=jnp.float32):
    return linalg.orthonormalize(random(seed, shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_orthonormalize_spans_the_same_space_with_positive_pivots(shape, dtype):
    A = random(0, shape, dtype)
    Q = linalg.orthonormalize(A)
    np.testing.assert_allclose(Q.conj().T @ Q, np.eye(shape[1]), atol=1e-6)
    np.testing.assert_allclose(linalg.project(Q, A), A, atol=1e-5)
    pivots = jnp.diagonal(Q.conj().T @ A)
    assert jnp.all(pivots.real > 0)
    np.testing.assert_allclose(pivots.imag, 0, atol=1e-6)


def test_orthonormalize_of_a_zero_column_is_finite_and_orthonormal():
    Q = linalg.orthonormalize(jnp.array([[1.0, 0], [0, 0], [0, 0]]))
    np.testing.assert_allclose(Q.T @ Q, np.eye(2), atol=1e-6)


def test_more_columns_than_rows_is_an_error():
    with pytest.raises(ValueError, match="3 columns cannot be orthonormal in dimension 2"):
        linalg.orthonormalize(jnp.ones((2, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_and_complement_split_the_space(shape, dtype):
    Q, x = basis(0, shape, dtype), random(1, shape[:1], dtype)
    N = linalg.complement(Q)
    assert N.shape == (shape[0], shape[0] - shape[1])
    np.testing.assert_allclose(linalg.project(Q, x) + linalg.project(N, x), x, atol=1e-5)
    np.testing.assert_allclose(linalg.project_out(Q, x), linalg.project(N, x), atol=1e-5)


def test_projecting_out_leaves_nothing_even_of_a_large_vector_in_the_space():
    Q = basis(0, (200, 5))
    x = 1e4 * Q @ random(1, (5,)) + 1e-3 * random(2, (200,))
    rest = linalg.project_out(Q, x)
    assert jnp.linalg.norm(Q.T @ rest) <= 1e-6 * jnp.linalg.norm(rest)


@pytest.mark.parametrize("shapes", [((6, 2), (6, 2)), ((6, 1), (6, 3)), ((6, 4), (6, 3))])
def test_principal_angles_equal_scipys(shapes):
    Q, S = basis(0, shapes[0]), basis(1, shapes[1])
    oracle = scipy.linalg.subspace_angles(np.float64(Q), np.float64(S))
    np.testing.assert_allclose(linalg.principal_angles(Q, S), oracle[::-1], atol=1e-6)


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 1.0, np.pi / 2 - 1e-6, np.pi / 2])
def test_angles_are_accurate_at_both_ends(angle):
    with jax.enable_x64(True):
        Q = jnp.eye(3)[:, :1]
        S = jnp.array([[jnp.cos(angle)], [jnp.sin(angle)], [0.0]])
        np.testing.assert_allclose(linalg.principal_angles(Q, S)[0], angle, rtol=1e-9)
        np.testing.assert_allclose(linalg.geodesic_distance(Q, S), angle, rtol=1e-9)
        np.testing.assert_allclose(linalg.chordal_distance(Q, S), np.sin(angle), rtol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_do_not_depend_on_the_basis(dtype):
    Q, S, R = basis(0, (7, 3), dtype), basis(1, (7, 3), dtype), basis(2, (3, 3), dtype)
    for distance in (linalg.geodesic_distance, linalg.chordal_distance):
        np.testing.assert_allclose(distance(Q, S), distance(Q @ R, S), rtol=1e-5)
        np.testing.assert_allclose(distance(Q, S), distance(S, Q), rtol=1e-5)
        np.testing.assert_allclose(distance(Q, Q @ R), 0, atol=1e-6)


def test_chordal_distance_is_that_of_the_projectors():
    Q, S = basis(0, (7, 3)), basis(1, (7, 3))
    oracle = jnp.linalg.norm(Q @ Q.T - S @ S.T) / jnp.sqrt(2)
    np.testing.assert_allclose(linalg.chordal_distance(Q, S), oracle, rtol=1e-5)


def test_chordal_distance_has_a_finite_derivative_at_zero():
    Q = basis(0, (7, 3))
    assert jnp.all(jnp.isfinite(jax.grad(linalg.chordal_distance)(Q, jnp.copy(Q))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_procrustes_recovers_the_rotation(dtype):
    A, R = random(0, (9, 4), dtype), basis(1, (4, 4), dtype)
    np.testing.assert_allclose(linalg.procrustes(A, A @ R), R, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_unequal_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(5, 2\)"):
        linalg.principal_angles(jnp.ones((4, 2)), jnp.ones((5, 2)))
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        linalg.geodesic_distance(jnp.ones((4, 2)), jnp.ones((4, 3)))
