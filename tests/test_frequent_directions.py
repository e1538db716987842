"""The sketch of a stream's rows against the dense Gram matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.linalg import frequent_directions

RNG = np.random.default_rng(0)


def stream(num, n, dtype="float64"):
    """Rows with a decaying spectrum, turned while they come."""
    scales = np.geomspace(3, 0.05, n)
    turn = np.linalg.qr(RNG.normal(size=(n, n)))[0]
    rows = RNG.normal(size=(num, n)) * scales
    imaginary = 1j * RNG.normal(size=(num, n)) if "complex" in dtype else 0
    rows = rows + imaginary * scales
    rows[num // 2 :] = rows[num // 2 :] @ turn
    return rows.astype(dtype)


def sketched(A, num_rows, block):
    start = frequent_directions.init(A.shape[1], num_rows, dtype=A.dtype)
    whole = len(A) // block * block
    blocks = jnp.asarray(A[:whole]).reshape(-1, block, A.shape[1])
    state = jax.lax.scan(lambda s, X: (frequent_directions.update(s, X), None), start, blocks)[0]
    return frequent_directions.update(state, jnp.asarray(A[whole:])) if len(A) > whole else state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("num_rows", "block", "dtype"),
    [(1, 1, "float64"), (5, 1, "float64"), (5, 7, "float64"), (12, 3, "complex128")],
)
def test_what_is_missing_of_the_gram_matrix_is_positive_and_bounded(num_rows, block, dtype):
    A = stream(60, 20, dtype)
    state = sketched(A, num_rows, block)
    missing = A.conj().T @ A - np.asarray(state.B).conj().T @ np.asarray(state.B)
    values = np.linalg.eigvalsh(missing)
    energies = np.linalg.svd(A, compute_uv=False) ** 2
    rounding = 1e-12 * energies.sum()
    assert values[0] > -rounding
    assert values[-1] < float(state.shrinkage) + rounding
    for k in range(num_rows + 1):
        assert float(state.shrinkage) < energies[k:].sum() / (num_rows + 1 - k) + rounding
    assert values[-1] > 0.1 * float(state.shrinkage)  # the certificate is not far from the truth


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("num_rows", "rank", "n"), [(6, 6, 20), (20, 20, 20), (30, 8, 8)])
def test_a_stream_of_low_rank_is_kept_whole(num_rows, rank, n):
    A = RNG.normal(size=(50, rank)) @ RNG.normal(size=(rank, n))
    state = sketched(A, num_rows, 4)
    np.testing.assert_allclose(state.B.T @ state.B, A.T @ A, atol=1e-10 * np.linalg.norm(A) ** 2)
    assert float(state.shrinkage) < 1e-10 * np.linalg.norm(A) ** 2


def test_rows_of_the_sketch_are_orthogonal_and_descend():
    B = np.asarray(sketched(stream(40, 12, "float32"), 5, 4).B)
    gram = B @ B.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4 * gram.max())
    assert np.all(np.diff(np.diag(gram)) <= 0)


@pytest.mark.parametrize("A", [np.ones((2, 3)), np.ones(4)])
@pytest.mark.usefixtures("unchecked")
def test_rows_of_another_length_are_refused(A):
    with pytest.raises(ValueError, match="rows of length 4"):
        frequent_directions.update(frequent_directions.init(4, 2), jnp.asarray(A))
    with pytest.raises(ValueError, match="at least 1"):
        frequent_directions.init(4, 0)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.3, 0.7, 0.95, 1.0])
def test_the_energy_rank_is_the_first_sum_that_reaches_the_share(threshold):
    values = np.array([8.0, 4.0, 2.0, 1.0, 1.0, 0.0])  # sums are exact
    sums = np.concatenate([[0], np.cumsum(values)])
    expected = int(np.argmax(sums >= threshold * values.sum()))
    assert int(linalg.energy_rank(jnp.asarray(values), threshold)) == expected
    assert int(linalg.energy_rank(jnp.zeros(3), 0.9)) == 0


def test_directions_of_rounding_are_not_needed_for_all():
    values = jnp.array([1.0, 1e-2, 1e-9, 1e-10])
    assert int(linalg.energy_rank(values, 1.0)) == 2
