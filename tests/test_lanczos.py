"""Krylov factorizations: their relations, orthogonality, breakdowns, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov, tree
from tests.problems import normal
from tests.spectra import with_values

pytestmark = pytest.mark.usefixtures("x64")

DTYPES = ("float32", "float64", "complex64", "complex128")


def random(shape, dtype, seed=0):
    return jnp.asarray(normal(np.random.default_rng(seed), shape, dtype), dtype)


def assert_orthonormal(Q, num, tolerance):
    gram = np.asarray(Q.conj().T @ Q)
    live = np.arange(len(gram)) < num
    np.testing.assert_allclose(gram, np.diag(live.astype(float)), atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [1, 50, 70])
@pytest.mark.parametrize("name", ["lanczos", "arnoldi"])
def test_the_operator_maps_the_basis_to_itself_but_for_the_residual(name, steps, dtype):
    A, v0 = random((70, 70), dtype), random(70, dtype, 1)
    A = A + A.conj().T if name == "lanczos" else A
    function = jax.jit(lambda A, v: getattr(krylov, name)(A, v, steps))
    Q, H, residual, num = function(A, v0)
    eps = float(jnp.finfo(dtype).eps)
    last = np.eye(steps)[-1]
    assert num == steps
    size = np.linalg.norm(A, 2)
    np.testing.assert_allclose(A @ Q, Q @ H + np.outer(residual, last), atol=100 * eps * size)
    np.testing.assert_allclose(Q.conj().T @ residual, 0, atol=100 * eps * size)
    assert_orthonormal(Q, steps, 100 * eps)
    np.testing.assert_allclose(np.tril(H, -2), 0)
    if name == "lanczos":
        assert not jnp.iscomplexobj(H)
        np.testing.assert_array_equal(H, H.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 45), (45, 60)])
def test_golub_kahan_bidiagonalizes(shape, dtype):
    A, v0 = random(shape, dtype), random(shape[1], dtype, 1)
    function = jax.jit(lambda A, v: krylov.golub_kahan(A, A.conj().T, v, 40))
    U, B, V, residual, num = function(A, v0)
    eps = float(jnp.finfo(dtype).eps)
    tolerance = 100 * eps * np.linalg.norm(A, 2)
    assert num == 40
    np.testing.assert_allclose(A @ V, U @ B, atol=tolerance)
    last = np.outer(residual, np.eye(40)[-1])
    np.testing.assert_allclose(A.conj().T @ U, V @ B.T + last, atol=tolerance)
    for Q in (U, V):
        assert_orthonormal(Q, 40, 100 * eps)
    np.testing.assert_array_equal(B, np.triu(B) - np.triu(B, 2))


def test_float32_keeps_a_basis_of_200_orthonormal_at_condition_1e8():
    values = np.geomspace(1e-8, 1, 500)
    A = with_values(values).astype("float32")
    Q = np.asarray(jax.jit(lambda A, v: krylov.lanczos(A, v, 200).Q)(A, random(500, "float32")))
    assert np.abs(Q.T.astype(float) @ Q - np.eye(200)).max() < 1e-5


@pytest.mark.parametrize("name", ["lanczos", "arnoldi"])
def test_a_space_that_ends_leaves_zeros(name):
    A = jnp.asarray(with_values(np.repeat([1.0, 2.0, 5.0], 10)))
    Q, H, residual, num = getattr(krylov, name)(A, random(30, "float64"), 8)
    assert num == 3
    assert_orthonormal(Q, 3, 1e-13)
    np.testing.assert_allclose(np.linalg.eigvals(H[:3, :3]).real.sum(), 8, rtol=1e-12)
    np.testing.assert_array_equal(H[:, 3:], 0)
    np.testing.assert_array_equal(residual, 0)


def test_golub_kahan_ends_too():
    A = jnp.asarray(with_values(np.repeat([1.0, 2.0], 5)))
    U, B, V, residual, num = krylov.golub_kahan(A, A.T, random(10, "float64"), 5)
    assert num == 2
    for Q in (U, V):
        assert_orthonormal(Q, 2, 1e-13)
    np.testing.assert_allclose(np.linalg.svd(B)[1], [2, 1, 0, 0, 0], atol=1e-12)
    np.testing.assert_array_equal(residual, 0)


def test_pytrees_are_vectors():
    A, v0 = random((30, 30), "float64"), random(30, "float64", 1)
    A = A + A.T

    def split(v):
        return {"a": v[:24].reshape(4, 6), "b": v[24:]}

    together = krylov.lanczos(A, v0, 5)
    apart = krylov.lanczos(lambda u: split(A @ tree.ravel(u)), split(v0), 5)
    assert apart.Q["a"].shape == (4, 6, 5)
    np.testing.assert_allclose(apart.Q["a"].reshape(24, 5), together.Q[:24], atol=1e-12)
    np.testing.assert_allclose(apart.residual["b"], together.residual[24:], atol=1e-12)


def test_the_python_of_an_operator_runs_once():
    count = 0

    def A(v):
        nonlocal count
        count += 1
        return 2 * v

    krylov.eigsh(A, jnp.arange(30.0), k=2)
    assert count == 1


A4, V4 = jnp.eye(4), jnp.ones(4)
KEY = jax.random.key(0)
PROBES = {"num_probes": 1, "num_steps": 2}
BAD = {
    r"num_steps must be at most 4 here, got 5": lambda: krylov.lanczos(A4, V4, 5),
    r"num_steps must be an integer of at least 1, got 0": lambda: krylov.arnoldi(A4, V4, 0),
    r"A has shape \(4, 4\), the right-hand side \(3,\)": lambda: krylov.lanczos(A4, jnp.ones(3), 1),
    r"the result of AT has shape \(4,\), v0 has shape \(3,\)": lambda: krylov.golub_kahan(
        lambda v: jnp.ones((4, 3)) @ v, lambda u: u, jnp.ones(3), 2
    ),
    r"A has shape \(4, 3\), v0 \(4,\)": lambda: krylov.svds(
        jnp.ones((4, 3)), jnp.ones((3, 4)), V4, k=1
    ),
    r"k must be at most 4 here, got 5": lambda: krylov.eigsh(A4, V4, k=5),
    r"k must be an integer of at least 1, got 0": lambda: krylov.eigsh(A4, V4, k=0),
    r"num_basis must be an integer of at least 3, got 2": lambda: krylov.eigsh(
        A4, V4, k=2, num_basis=2
    ),
    r"which must be one of largest, smallest, both_ends, got 'LA'": lambda: krylov.eigsh(
        A4, V4, k=1, which="LA"
    ),
    r"which must be one of largest, smallest, got 'both_ends'": lambda: krylov.lobpcg(
        A4, jnp.eye(4)[:, :1], which="both_ends"
    ),
    r"rtol must not be negative, got -1": lambda: krylov.eigsh(A4, V4, k=1, rtol=-1.0),
    r"X0 has 5 columns in dimension 4": lambda: krylov.lobpcg(A4, jnp.ones((4, 5))),
    r"X0 needs one number of columns": lambda: krylov.subspace_iteration(A4, jnp.ones(())),
    r"k must be at most 2 here, got 3": lambda: krylov.subspace_iteration(
        A4, jnp.ones((4, 2)), k=3
    ),
    r"preconditioner: a linear map must be callable": lambda: krylov.lobpcg(
        A4, jnp.ones((4, 1)), preconditioner="M"
    ),
    r"v0 must be all real or all complex floating point, got int": lambda: krylov.eigsh(
        A4, jnp.arange(4), k=1
    ),
    r"num_probes must be an integer of at least 1, got 0": lambda: krylov.logdet(
        KEY, A4, V4, num_probes=0, num_steps=1
    ),
    r"num_points must be an integer of at least 2, got 1": lambda: krylov.spectral_density(
        KEY, A4, V4, num_points=1, **PROBES
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
