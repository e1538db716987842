from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyamg
import pytest
import scipy.sparse as sp

from subspace_jax import linalg, tree
from subspace_jax.krylov import precondition
from subspace_jax.linalg import operators
from tests.problems import num_cg_steps

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
GRIDS = [(12, 7), (11, 1), (3, 4, 5)]


def random(shape, dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    imaginary = 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else 0
    return jnp.asarray(rng.normal(size=shape) + imaginary, dtype)


def positive(n, dtype=float, condition=100.0, seed=0):
    """A Hermitian matrix with eigenvalues from 1 to ``condition``."""
    Q = linalg.orthonormalize(random((n, n), dtype, seed))
    A = (Q * jnp.geomspace(1, condition, n)) @ Q.conj().T
    return (A + A.conj().T) / 2


def jumps(shape, contrast=1e3):
    indices = np.indices(shape) * 4 // np.array(shape).reshape((-1,) + (1,) * len(shape))
    return jnp.asarray(np.where(indices.sum(0) % 2, contrast, 1.0))


def disc(shape):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij")
    return jnp.asarray(sum(axis**2 for axis in axes) <= 0.97)


def assert_positive_definite(M, like, compiler_options=None):
    matrix = materialized(M, like, compiler_options)
    size = jnp.abs(matrix).max()
    np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-12 * size)
    assert jnp.linalg.eigvalsh(matrix).min() > 0
    transposed = materialized(operators.adjoint(M, like), like, compiler_options)
    np.testing.assert_allclose(transposed, matrix, atol=1e-12 * size)


def materialized(M, like, compiler_options=None):
    return jax.jit(operators.materialize, compiler_options=compiler_options)(M, like)


def bounded(A):
    return precondition.spectral_bound(KEY, A, jnp.zeros_like(A.diagonal))


ON_GRIDS = {
    "jacobi": lambda A: precondition.jacobi(A.diagonal),
    "chebyshev": lambda A: precondition.chebyshev(
        A, degree=4, lower=bounded(A) / 30, upper=bounded(A)
    ),
    "chebyshev, scaled": lambda A: precondition.chebyshev(
        A, degree=3, lower=0.2, upper=2.0, preconditioner=precondition.jacobi(A.diagonal)
    ),
    "ssor": precondition.ssor,
    "ssor, twice, over-relaxed": lambda A: precondition.ssor(A, omega=1.6, num_sweeps=2),
    "multigrid": lambda A: precondition.multigrid(A, coarsest_size=4),
    "multigrid, one level": lambda A: precondition.multigrid(A, coarsest_size=10**3),
}
"""By name what makes a preconditioner of a `diffusion`."""


def on_grid(name, shape):
    return ON_GRIDS[name](operators.diffusion(jumps(shape), mask=disc(shape)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", GRIDS)
def test_on_a_grid_each_is_symmetric_positive_definite(shape):
    for name in ON_GRIDS:
        assert_positive_definite(on_grid(name, shape), jnp.zeros(shape))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_GRIDS)
def test_a_preconditioner_goes_through_jit_and_vmap_and_keeps_the_dtype(name):
    M = on_grid(name, (12, 7))
    R = random((3, 12, 7))
    together = jax.jit(lambda M, R: jax.vmap(M)(R))(M, R)
    np.testing.assert_allclose(together, jnp.stack([M(r) for r in R]), rtol=1e-9, atol=1e-12)
    arrays = jax.tree.map(jnp.asarray, M)
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == float else x, arrays)
    assert single(R[0].astype(jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [float, complex])
def test_the_algebraic_ones_are_hermitian_positive_definite(dtype):
    A = positive(12, dtype)
    blocks = jnp.stack([A[i : i + 3, i : i + 3] for i in range(0, 12, 3)])
    for M in (
        precondition.jacobi(jnp.diagonal(A).real),
        precondition.block_jacobi(blocks),
        precondition.chebyshev(A, degree=5, lower=1.0, upper=100.0),
        precondition.nystrom(KEY, A, jnp.zeros(12, dtype), rank=4, shift=0.1),
    ):
        assert_positive_definite(M, jnp.zeros(12, dtype))


@pytest.mark.parametrize("dtype", [float, complex])
def test_jacobi_inverts_a_diagonal_on_any_pytree(dtype):
    diagonal = {"a": random(3, dtype) + 3, "b": (random((2, 2), dtype, 1) + 3,)}
    r = jax.tree.map(lambda d: random(d.shape, dtype, 2), diagonal)
    z = precondition.jacobi(diagonal)(r)
    for d, x, y in zip(*map(jax.tree.leaves, (diagonal, z, r)), strict=True):
        np.testing.assert_allclose(d * x, y, rtol=1e-14)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(("num", "k"), [(4, 3), (1, 5), (6, 1)])
def test_block_jacobi_inverts_a_block_diagonal(num, k, dtype):
    blocks = random((num, k, k), dtype) + 3 * jnp.eye(k)
    A = jax.scipy.linalg.block_diag(*blocks)
    r = random(num * k, dtype, 1)
    np.testing.assert_allclose(precondition.block_jacobi(blocks)(r), jnp.linalg.solve(A, r))


def test_the_inverse_of_a_hermitian_block_is_hermitian():
    blocks = jnp.stack([positive(3, complex, 1e6), positive(3, complex, 1e3, seed=1)])
    M = operators.materialize(precondition.block_jacobi(blocks), jnp.zeros(6, complex))
    np.testing.assert_allclose(M, M.conj().T, rtol=1e-15)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("degree", [1, 2, 7, 20])
def test_chebyshev_reaches_its_theoretical_error(degree, dtype):
    A = positive(15, dtype, 50.0)
    M = precondition.chebyshev(A, degree=degree, lower=1.0, upper=50.0)
    error = jnp.eye(15) - operators.materialize(M, jnp.zeros(15, dtype)) @ A
    bound = 1 / np.cosh(degree * np.arccosh(51 / 49))
    assert 0.5 * bound < jnp.linalg.norm(error, 2) <= bound * (1 + 1e-10)


def test_chebyshev_takes_pytrees():
    def A(v):
        return {"a": 2 * v["a"], "b": 5 * v["b"]}

    r = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones((2, 1))}
    z = precondition.chebyshev(A, degree=20, lower=1.0, upper=6.0)(r)
    np.testing.assert_allclose(z["a"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(z["b"], 0.2, rtol=1e-5)
    assert z["a"].dtype == jnp.float32


@pytest.mark.parametrize("n", [1, 5, 60])
@pytest.mark.parametrize("dtype", [float, complex])
def test_spectral_bound_is_above_the_spectrum_and_near_it(n, dtype):
    A = positive(n, dtype, 1e3)
    largest = jnp.linalg.eigvalsh(A)[-1]
    for seed in range(5):
        bound = precondition.spectral_bound(jax.random.key(seed), A, jnp.zeros(n, dtype))
        assert largest * (1 - 1e-12) <= bound <= 1.5 * largest


def test_spectral_bound_of_the_laplacian():
    bound = precondition.spectral_bound(KEY, operators.laplacian, jnp.zeros((40, 40)))
    assert 7.98 < bound < 12


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64), (129, 100), (300,), (20, 17, 24)])
def test_multigrid_steps_do_not_grow_with_the_grid(shape):
    A = operators.diffusion(jnp.ones(shape))
    assert num_cg_steps(A, random(shape), precondition.multigrid(A)) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("n", [32, 99])
def test_multigrid_sees_jumps_and_masks(n):
    jump = operators.diffusion(jumps((n, n)))
    assert num_cg_steps(jump, random((n, n)), precondition.multigrid(jump)) <= 15
    domain = operators.diffusion(jnp.ones((n, n)), mask=disc((n, n)))
    b = random((n, n)) * disc((n, n))
    assert num_cg_steps(domain, b, precondition.multigrid(domain)) <= 12


def test_multigrid_is_exact_where_it_solves_directly():
    A = operators.diffusion(jumps((6, 5)))
    matrix = operators.materialize(A, jnp.zeros((6, 5)))
    M = operators.materialize(precondition.multigrid(A), jnp.zeros((6, 5)))
    np.testing.assert_allclose(M @ matrix, jnp.eye(30), atol=1e-10)


def test_multigrid_follows_vmap_over_coefficients():
    cs = jnp.stack([jumps((20, 12), contrast) for contrast in (1.0, 10.0)])
    r = random((20, 12))

    @jax.jit
    def solve(c):
        return precondition.multigrid(operators.diffusion(c))(r)

    together = jax.vmap(solve)(cs)
    np.testing.assert_allclose(together, jnp.stack([solve(c) for c in cs]), rtol=1e-10)


def test_ssor_saves_steps_and_over_relaxation_more():
    A = operators.diffusion(jnp.ones((64, 64)))
    b = random((64, 64))
    plain, once = num_cg_steps(A, b), num_cg_steps(A, b, precondition.ssor(A))
    twice = num_cg_steps(A, b, precondition.ssor(A, num_sweeps=2))
    assert twice < once < 0.6 * plain


def decaying(n, rank, dtype=float):
    """A Hermitian matrix of low rank."""
    Q = linalg.orthonormalize(random((n, rank), dtype))
    return (Q * 2.0 ** -jnp.arange(rank)) @ Q.conj().T


@pytest.mark.parametrize("dtype", [float, complex])
def test_nystrom_inverts_a_matrix_of_its_rank_plus_the_shift_up_to_scale(dtype):
    A, like = decaying(20, 4, dtype), jnp.zeros(20, dtype)
    M = operators.materialize(precondition.nystrom(KEY, A, like, rank=5, shift=1e-2), like)
    product = M @ (A + 1e-2 * jnp.eye(20))
    np.testing.assert_allclose(product, 1e-2 * jnp.eye(20), atol=1e-10)


def test_nystrom_with_a_max_rank_uses_what_the_shift_asks_for():
    like = jnp.zeros(40)
    A = decaying(40, 20)
    adaptive = precondition.nystrom(KEY, A, like, rank=2, shift=1e-3, max_rank=20)
    values = np.linalg.eigvalsh(operators.materialize(adaptive, like))
    needed = 1 + np.count_nonzero(2.0 ** -np.arange(20) > 1e-2)
    assert np.count_nonzero(values < 1 - 1e-6) == needed - 1  # the last one is the reference
    assert num_cg_steps(operators.shifted(A, 1e-3), random(40), adaptive) <= 15


def test_nystrom_takes_pytrees():
    A = decaying(6, 2)
    like = {"a": jnp.zeros(2), "b": jnp.zeros((2, 2))}

    def on_tree(v):
        out = A @ tree.ravel(v)
        return {"a": out[:2], "b": out[2:].reshape(2, 2)}

    M = precondition.nystrom(KEY, on_tree, like, rank=3, shift=0.1)
    flat = precondition.nystrom(KEY, A, jnp.zeros(6), rank=3, shift=0.1)
    np.testing.assert_allclose(
        operators.materialize(M, like), operators.materialize(flat, jnp.zeros(6)), atol=1e-12
    )


@pytest.mark.slow
def test_nystrom_takes_the_steps_away_from_a_kernel_system():
    """The paper's claim, on a Gaussian kernel of 500 points: thousands of steps become a few."""
    X = jnp.asarray(np.random.default_rng(0).random((500, 2)))
    K = jnp.exp(-jnp.sum((X[:, None] - X[None]) ** 2, -1) / 2 / 0.25**2)
    b, shift = random(500), 1e-5
    A = operators.shifted(K, shift)
    ranks = (50, 100, 200)
    steps = [
        num_cg_steps(A, b, precondition.nystrom(KEY, K, b, rank=rank, shift=shift))
        for rank in ranks
    ]
    assert num_cg_steps(A, b) > 10 * steps[0]
    assert steps[0] > 5 * steps[1]
    assert steps[2] <= 3


class Hierarchy:
    """Aggregation by pairs, as pyamg would hand it over."""

    def __init__(self, A, num_levels):
        self.levels = []
        for _ in range(num_levels):
            n = A.shape[0]
            P = sp.csr_matrix((np.ones(n), (np.arange(n), np.arange(n) // 2)))
            P = P - 0.6 * sp.diags(1 / A.diagonal()) @ A @ P  # smoothed
            self.levels.append(SimpleNamespace(A=A, P=P, R=P.T))
            A = (P.T @ A @ P).tocsr()
        self.levels.append(SimpleNamespace(A=A))


def sparse_laplacian(m):
    T = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    return sp.csr_matrix(sp.kron(sp.eye(m), T) + sp.kron(T, sp.eye(m)))


@pytest.mark.slow
def test_an_algebraic_hierarchy_becomes_a_symmetric_v_cycle(compiler_options):
    A = sparse_laplacian(8)
    M = precondition.pyamg(Hierarchy(A, 2))
    options = {"compiler_options": compiler_options}
    assert_positive_definite(M, jnp.zeros(64), **options)
    assert num_cg_steps(operators.ell(A), random(64), M, **options) <= 12


def test_the_v_cycle_of_pyamg_takes_few_steps(compiler_options):
    A = sparse_laplacian(64)
    M = precondition.pyamg(pyamg.smoothed_aggregation_solver(A))
    b, options = random(64**2), {"compiler_options": compiler_options}
    assert num_cg_steps(operators.ell(A), b, M, **options) <= 15


def test_bad_arguments_are_named():
    A = operators.diffusion(jnp.ones((4, 4)))
    like = jnp.zeros(4)
    for match, call in {
        r"diagonal\['a'\] has an entry that is zero": lambda: precondition.jacobi(
            {"a": jnp.zeros(2)}
        ),
        r"r has shape \(3,\), diagonal has shape \(2,\)": lambda: precondition.jacobi(jnp.ones(2))(
            jnp.ones(3)
        ),
        r"4 blocks of size 2 need a vector \(8,\), got \(7,\)": lambda: precondition.block_jacobi(
            jnp.stack([jnp.eye(2)] * 4)
        )(jnp.ones(7)),
        "a block is singular": lambda: precondition.block_jacobi(jnp.zeros((1, 2, 2))),
        "degree must be at least 1, got 0": lambda: precondition.chebyshev(
            A, degree=0, lower=1.0, upper=2.0
        ),
        "need 0 < lower < upper": lambda: precondition.chebyshev(A, degree=2, lower=2.0, upper=2.0),
        "need 0 < omega < 2, got 2": lambda: precondition.ssor(A, omega=2.0),
        "num_sweeps = 0": lambda: precondition.ssor(A, num_sweeps=0),
        r"the grid \(4, 4\) got values of shape \(5,\)": lambda: precondition.ssor(A)(jnp.ones(5)),
        "shift must be positive": lambda: precondition.nystrom(
            KEY, jnp.eye(4), like, rank=2, shift=0.0
        ),
        "max_rank = 1 is below rank = 2": lambda: precondition.nystrom(
            KEY, jnp.eye(4), like, rank=2, shift=1.0, max_rank=1
        ),
        "for size 4, got r of 5": lambda: precondition.nystrom(
            KEY, jnp.eye(4), like, rank=2, shift=1.0
        )(jnp.ones(5)),
        "a hierarchy with levels, got int": lambda: precondition.pyamg(3),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.usefixtures("unchecked")
def test_an_operator_of_another_kind_is_named():
    for build in (precondition.ssor, precondition.multigrid):
        with pytest.raises(ValueError, match="diffusion, got function"):
            build(operators.laplacian)
    with pytest.raises(ValueError, match=r"\(num, k, k\), got \(2, 3, 4\)"):
        precondition.block_jacobi(jnp.ones((2, 3, 4)))
