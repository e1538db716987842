"""Eigenpairs and singular triplets against dense solvers, and against ARPACK's matvecs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from subspace_jax import krylov, tree
from subspace_jax.krylov import Status
from tests.problems import normal, unitary
from tests.spectra import MATRICES, ring, with_values

pytestmark = pytest.mark.usefixtures("x64")

ARPACK = {"largest": "LA", "smallest": "SA", "both_ends": "BE"}


def start(A, columns=(), seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(normal(rng, (A.shape[1], *columns), A.dtype), A.dtype)


def residuals(A, ritz):
    V, values = np.asarray(ritz.vectors), np.asarray(ritz.values)
    return np.linalg.norm(A @ V - V * values, axis=0)


def rounding(A):
    return len(A) * np.finfo(A.dtype).eps * np.linalg.norm(A, 2)


def arpack(A, v0, which, **options):
    """Its eigenvalues, ascending, and the products that it took."""
    count = 0

    def matvec(x):
        nonlocal count
        count += 1
        return A @ x

    operator = scipy.sparse.linalg.LinearOperator(A.shape, matvec=matvec, dtype=A.dtype)
    values = scipy.sparse.linalg.eigsh(operator, which=ARPACK[which], v0=v0, **options)[0]
    return np.sort(values), count


CASES = [(name, which) for name in MATRICES for which in ("largest", "smallest")]
CASES.remove(("decaying", "smallest"))  # neither converges within 3000 restarts
CASES += [(name, "both_ends") for name in ("bar", "unit_cube", "neighbours", "square", "clustered")]
QUICK = ("ring",)


@pytest.mark.parametrize(
    ("name", "which"),
    [pytest.param(*case, marks=[] if case[0] in QUICK else pytest.mark.slow) for case in CASES],
)
def test_the_pairs_of_arpack_for_no_more_matvecs_than_1_2_times_its_own(name, which):
    """Counted over three starts, as both can be a restart more or less lucky."""
    A = MATRICES[name]()
    spectrum, ours, theirs = np.linalg.eigvalsh(A), 0, 0
    size, exact = np.abs(spectrum).max(), wanted(spectrum, which, 6)
    solve = jax.jit(lambda A, v: krylov.eigsh(A, v, k=6, which=which, num_basis=20))
    for seed in range(3):
        v0 = start(A, seed=seed)
        ritz, info = solve(A, v0)
        values, count = arpack(A, np.asarray(v0), which, k=6, ncv=20, tol=1e-10)
        assert Status(int(info.status)) == Status.CONVERGED
        # Every pair is one: within its residual norm there is an eigenvalue, and it is small.
        np.testing.assert_array_less(residuals(A, ritz), ritz.residual_norms + rounding(A))
        apart = np.abs(np.asarray(ritz.values)[:, None] - spectrum).min(axis=1)
        np.testing.assert_array_less(apart, np.asarray(ritz.residual_norms) + rounding(A))
        tolerance = np.maximum(1e-10 * np.abs(ritz.values), rounding(A))
        np.testing.assert_array_less(ritz.residual_norms, tolerance)
        if simple(spectrum, which, k=6):
            np.testing.assert_allclose(np.sort(ritz.values), exact, rtol=1e-10, atol=1e-14 * size)
        if np.allclose(values, exact, rtol=1e-8, atol=1e-12 * size):
            ours, theirs = ours + int(info.num_matvecs), theirs + count
        else:  # ARPACK has missed a copy of a multiple eigenvalue
            assert not simple(spectrum, which, k=6)
    assert ours <= 1.2 * theirs


def wanted(spectrum, which, k):
    ends = {"largest": spectrum[-k:], "smallest": spectrum[:k]}
    return ends.get(which, np.r_[spectrum[: k // 2], spectrum[k // 2 - k :]])


def simple(spectrum, which, k):
    """Whether no eigenvalue among the wanted ones, or next to them, is multiple."""
    gaps = np.diff(spectrum) > 1e-8 * np.abs(spectrum).max()
    ends = {"largest": gaps[-k:], "smallest": gaps[:k]}
    return ends.get(which, np.r_[gaps[: k // 2], gaps[k // 2 - k :]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("which", list(ARPACK))
@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_pairs_of_a_small_matrix(n, which):
    A = np.diag(np.arange(1.0, n + 1))
    ritz, info = krylov.eigsh(A, jnp.ones(n), k=n, which=which)
    assert info.status == Status.CONVERGED
    values = np.arange(1.0, n + 1)
    np.testing.assert_allclose(
        ritz.values, values[::-1] if which == "largest" else values, rtol=1e-12
    )
    np.testing.assert_allclose(ritz.vectors.T @ ritz.vectors, np.eye(n), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("A", [np.eye(30), np.zeros((30, 30))], ids=["identity", "zero"])
def test_an_invariant_start_is_no_end(A):
    for v0 in (jnp.ones(30), jnp.zeros(30)):
        ritz, info = jax.jit(lambda A, v: krylov.eigsh(A, v, k=3))(A, v0)
        assert info.status == Status.CONVERGED
        np.testing.assert_allclose(ritz.vectors.T @ ritz.vectors, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(ritz.values, np.diag(A)[:3], atol=1e-14)


@pytest.mark.slow
def test_single_precision_reaches_its_own_tolerance():
    A = with_values(np.geomspace(1, 1e4, 200)).astype("float32")
    ritz, info = jax.jit(lambda A, v: krylov.eigsh(A, v, k=4))(A, start(A))
    assert info.status == Status.CONVERGED
    assert ritz.vectors.dtype == jnp.float32
    np.testing.assert_allclose(ritz.values, np.geomspace(1, 1e4, 200)[:-5:-1], rtol=1e-5)


@pytest.mark.slow
def test_pytrees_and_lanes():
    A = with_values(np.linspace(-1, 1, 60) ** 3)
    v0 = start(A, (2,))

    def solve(v):
        tree_of = {"a": v[:40].reshape(8, 5), "b": [v[40:]]}
        flat = tree.ravel

        def product(u):
            w = A @ flat(u)
            return {"a": w[:40].reshape(8, 5), "b": [w[40:]]}

        return krylov.eigsh(product, tree_of, k=3)

    ritz, info = jax.jit(jax.vmap(solve, -1))(v0)
    assert ritz.vectors["a"].shape == (2, 8, 5, 3)
    for lane in range(2):
        alone, alone_info = jax.jit(lambda A, v: krylov.eigsh(A, v, k=3))(A, v0[:, lane])
        assert info.num_matvecs[lane] == alone_info.num_matvecs
        np.testing.assert_allclose(ritz.values[lane], alone.values, rtol=1e-10)
        rows = np.concatenate([ritz.vectors["a"][lane].reshape(40, 3), ritz.vectors["b"][0][lane]])
        np.testing.assert_allclose(np.abs(rows), np.abs(alone.vectors), atol=1e-7)


@pytest.mark.slow
def test_too_few_restarts_and_numbers_that_are_none_are_reported():
    A = with_values(np.linspace(0, 1, 200))
    ritz, info = krylov.eigsh(A, start(A), k=4, maxiter=1)
    assert (info.status, info.num_steps) == (Status.MAX_STEPS, 1)
    np.testing.assert_array_less(residuals(A, ritz), ritz.residual_norms + rounding(A))
    broken = np.where(np.eye(200) > 0, np.nan, A)
    assert krylov.eigsh(broken, start(A), k=4)[1].status == Status.NONFINITE
    assert krylov.lobpcg(broken, start(A, (2,)))[1].status == Status.NONFINITE
    assert krylov.svds(broken, broken.T, start(A), k=2)[1].status == Status.NONFINITE


MULTIPLE = np.r_[np.linspace(0, 1, 80), [2.0] * 3, [3.0] * 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_lobpcg_finds_multiple_eigenvalues_with_their_multiplicity(which, dtype):
    sign = 1 if which == "largest" else -1
    A = with_values(sign * MULTIPLE, dtype)
    ritz, info = jax.jit(lambda A, X: krylov.lobpcg(A, X, which=which))(A, start(A, (5,)))
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(ritz.values, sign * np.array([4.0, 3, 3, 2, 2]), rtol=1e-10)
    np.testing.assert_allclose(residuals(A, ritz), ritz.residual_norms, atol=rounding(A))
    gram = ritz.vectors.conj().T @ ritz.vectors
    np.testing.assert_allclose(gram, np.eye(5), atol=1e-12)


def test_subspace_iteration_finds_the_largest_in_absolute_value():
    values = np.r_[np.linspace(-1, 1, 60), [-3.0] * 2, [2.5] * 2]
    A = with_values(values, "complex128")
    ritz, info = jax.jit(lambda A, X: krylov.subspace_iteration(A, X, k=3))(A, start(A, (5,)))
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(ritz.values, [-3, -3, 2.5], rtol=1e-10)
    np.testing.assert_allclose(residuals(A, ritz), ritz.residual_norms, atol=rounding(A))


@pytest.mark.parametrize("n", [2, 4, 7])
def test_a_block_may_fill_the_space(n):
    A = with_values(np.arange(1.0, n + 1))
    ritz, info = jax.jit(krylov.lobpcg)(A, start(A, (n,)))
    assert info.status == Status.CONVERGED
    np.testing.assert_allclose(ritz.values, np.arange(n, 0, -1.0), rtol=1e-10)
    ritz, _ = jax.jit(krylov.lobpcg)(A, start(A, (n // 2,)))
    np.testing.assert_allclose(ritz.values, np.arange(n, n - n // 2, -1.0), rtol=1e-9)


def test_a_preconditioner_saves_lobpcg_most_of_its_steps():
    A = ring(400) + 1e-3 * np.eye(400)
    inverse = np.linalg.inv(A + 1e-2 * np.eye(400))
    X0 = start(A, (4,))
    solve = jax.jit(lambda M, X: krylov.lobpcg(A, X, which="smallest", preconditioner=M, rtol=1e-7))
    (ritz, fast), (_, slow) = solve(inverse, X0), solve(np.eye(400), X0)
    np.testing.assert_allclose(ritz.values, np.linalg.eigvalsh(A)[:4], rtol=1e-9)
    assert fast.status == slow.status == Status.CONVERGED
    assert 5 * fast.num_steps < slow.num_steps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (4, 4)])
def test_svds_equals_the_dense_decomposition(shape, dtype):
    rng = np.random.default_rng(0)
    r = min(shape)
    U, V = (unitary(rng, n, dtype)[:, :r] for n in shape)
    A = (U * np.geomspace(1, 1e-6, r)) @ V.conj().T
    k = min(6, r)
    solve = jax.jit(lambda A, v: krylov.svds(A, A.conj().T, v, k=k))
    triplets, info = solve(A, start(A))
    assert info.status == Status.CONVERGED
    U, values, V = triplets.U, triplets.values, triplets.V
    np.testing.assert_allclose(values, np.geomspace(1, 1e-6, r)[:k], rtol=1e-9)
    forward = np.linalg.norm(A @ V - U * values, axis=0)
    backward = np.linalg.norm(A.conj().T @ U - V * values, axis=0)
    np.testing.assert_allclose(np.hypot(forward, backward), triplets.residual_norms, atol=1e-13)
    np.testing.assert_allclose(U.conj().T @ U, np.eye(k), atol=1e-12)
