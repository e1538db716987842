import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from subspace_jax import linalg

KEY = jax.random.key(0)


def matrix(shape, decay, dtype=jnp.float32):
    """A matrix with singular values 1, decay, decay^2, ..."""
    k = min(shape)
    U = linalg.orthonormalize(jax.random.normal(jax.random.key(1), (shape[0], k), dtype))
    V = linalg.orthonormalize(jax.random.normal(jax.random.key(2), (shape[1], k), dtype))
    return (U * decay ** jnp.arange(k)) @ V.conj().T


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (5, 1), (1, 5)])
def test_a_matrix_of_low_rank_is_recovered(shape, dtype):
    rank = min(3, *shape)
    A = matrix(shape, 0.5, dtype)
    U, s, Vh = jnp.linalg.svd(A, full_matrices=False)
    A = (U[:, :rank] * s[:rank]) @ Vh[:rank]
    U, s, Vh = linalg.randomized_svd(KEY, A, rank, num_oversamples=0)
    np.testing.assert_allclose((U * s) @ Vh, A, atol=1e-5)
    np.testing.assert_allclose(U.conj().T @ U, np.eye(rank), atol=1e-5)
    np.testing.assert_allclose(Vh @ Vh.conj().T, np.eye(rank), atol=1e-5)


def test_leading_singular_values_are_near_the_exact_ones():
    A = matrix((60, 40), 0.8)
    _, s, _ = linalg.randomized_svd(KEY, A, 5)
    np.testing.assert_allclose(s, 0.8 ** np.arange(5), rtol=1e-3)


def test_the_error_is_near_the_best_of_that_rank():
    A = matrix((60, 40), 0.8)
    Q = linalg.range_finder(KEY, A, 10)
    error = jnp.linalg.norm(linalg.project_out(Q, A), 2)
    assert error <= 1.5 * 0.8**10


def test_power_iterations_sharpen_a_flat_spectrum():
    A = matrix((80, 80), 0.97)
    errors = [
        jnp.linalg.norm(
            linalg.project_out(linalg.range_finder(KEY, A, 10, num_power_iterations=q), A)
        )
        for q in (0, 1, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_array_sparse_matrix_and_callable_agree():
    A = matrix((12, 9), 0.5)
    like = jax.ShapeDtypeStruct((9,), A.dtype)
    expected = linalg.randomized_svd(KEY, A, 3)
    as_callable = linalg.randomized_svd(KEY, lambda v: A @ v, 3, AT=lambda u: A.T @ u, like=like)
    as_sparse = linalg.randomized_svd(KEY, sparse.BCOO.fromdense(A), 3)
    for other in (as_callable, as_sparse):
        for a, b in zip(expected, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_complex_sparse_matrix_is_conjugated():
    A = matrix((12, 9), 0.5, jnp.complex64)
    for a, b in zip(
        linalg.randomized_svd(KEY, A, 3),
        linalg.randomized_svd(KEY, sparse.BCOO.fromdense(A), 3),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 5])
def test_rank_out_of_bounds_is_named(rank):
    for function in (linalg.range_finder, linalg.randomized_svd):
        with pytest.raises(ValueError, match=rf"1..min\(m, n\) = 4, got {rank}"):
            function(KEY, jnp.ones((6, 4)), rank)


def test_a_callable_without_its_adjoint_is_an_error():
    with pytest.raises(ValueError, match="AT="):
        linalg.range_finder(KEY, lambda v: v, 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
@pytest.mark.parametrize(("n", "rank"), [(30, 4), (5, 5), (1, 1)])
def test_nystrom_recovers_a_positive_matrix_of_low_rank(n, rank, dtype):
    B = jax.random.normal(jax.random.key(3), (n, rank), dtype)
    A = B @ B.conj().T
    U, values = linalg.nystrom(KEY, A, rank)
    np.testing.assert_allclose((U * values) @ U.conj().T, A, atol=1e-4 * jnp.linalg.norm(A))
    np.testing.assert_allclose(U.conj().T @ U, np.eye(rank), atol=1e-5)
    assert jnp.all(jnp.diff(values) <= 0)


def test_nystrom_never_exceeds_the_matrix():
    A = matrix((40, 40), 0.7)
    A = A @ A.T
    U, values = linalg.nystrom(KEY, A, 8)
    exact = jnp.linalg.eigvalsh(A)[::-1]
    assert jnp.all(values <= exact[:8] + 1e-5)
    assert jnp.linalg.norm(A - (U * values) @ U.T, 2) <= 10 * exact[8]
    assert jnp.linalg.eigvalsh(A - (U * values) @ U.T)[0] >= -1e-5


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1.0, 1e15])
def test_nystrom_stays_finite_in_float32_far_beyond_the_numerical_rank(scale):
    x = jnp.linspace(0, 1, 60)
    A = scale * jnp.exp(-((x[:, None] - x[None]) ** 2))  # numerical rank 6
    U, values = linalg.nystrom(KEY, A, 40)
    assert jnp.all(jnp.isfinite(U))
    assert jnp.all(values >= 0)
    np.testing.assert_allclose((U * values) @ U.T, A, atol=2e-5 * scale)


def test_nystrom_takes_callables_and_sparse_matrices():
    A = matrix((12, 12), 0.5)
    A = A @ A.T
    U, values = linalg.nystrom(KEY, A, 3)
    like = jax.ShapeDtypeStruct((12,), A.dtype)
    for other in (
        linalg.nystrom(KEY, lambda v: A @ v, 3, like=like),
        linalg.nystrom(KEY, sparse.BCOO.fromdense(A), 3),
    ):
        np.testing.assert_allclose(other[1], values, rtol=1e-4)
        np.testing.assert_allclose(linalg.project(U, other[0]), other[0], atol=1e-3)


def test_nystrom_names_what_is_wrong():
    with pytest.raises(ValueError, match="like="):
        linalg.nystrom(KEY, lambda v: v, 2)
    with pytest.raises(ValueError, match=r"square, got \(3, 4\)"):
        linalg.nystrom(KEY, jnp.ones((3, 4)), 2)
    with pytest.raises(ValueError, match="got 5"):
        linalg.nystrom(KEY, jnp.eye(4), 5)
