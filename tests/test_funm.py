"""Functions of operators against scipy's of matrices, and traces against exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax import krylov
from subspace_jax.krylov import precondition
from subspace_jax.linalg import operators
from tests.problems import normal, num_cg_steps
from tests.spectra import with_values

pytestmark = pytest.mark.usefixtures("x64")

FUNCTIONS = {
    "exp": (jnp.exp, np.exp),
    "sqrt": (jnp.sqrt, np.sqrt),
    "inverse sqrt": (lambda x: 1 / jnp.sqrt(x), lambda x: 1 / np.sqrt(x)),
    "log": (jnp.log, np.log),
    "sign": (lambda x: jnp.sign(x - 5), lambda x: np.sign(x - 5)),
}


def random(shape, dtype="float64", seed=0):
    return jnp.asarray(normal(np.random.default_rng(seed), shape, dtype), dtype)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_a_hermitian_operator(name, dtype):
    f, exact = FUNCTIONS[name]
    values = np.r_[np.linspace(1, 3, 60), np.linspace(7, 9, 60)]
    A, b = jnp.asarray(with_values(values, dtype)), random(120, dtype)
    ours = jax.jit(lambda A, b: krylov.funm_hermitian(f, A, b, num_steps=60))(A, b)
    expected = with_values(exact(values), dtype) @ b
    assert ours.dtype == b.dtype
    np.testing.assert_allclose(ours, expected, atol=1e-8 * np.linalg.norm(expected))


@pytest.mark.parametrize("num_steps", [30, 120])
def test_the_exponential_of_a_laplacian_to_eight_digits(num_steps):
    A = with_values(np.linspace(0, 8, 300))
    b = random(300)
    ours = jax.jit(
        lambda A, b: krylov.funm_hermitian(lambda x: jnp.exp(-x), A, b, num_steps=num_steps)
    )
    expected = scipy.linalg.expm(-A) @ b
    error = np.linalg.norm(ours(A, b) - expected) / np.linalg.norm(expected)
    assert error < 1e-8


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.slow
def test_functions_of_a_general_operator(dtype):
    A = 4 * jnp.eye(80, dtype=dtype) + random((80, 80), dtype) / 9
    b = random(80, dtype, 1)
    matrices = {
        jnp.exp: scipy.linalg.expm,
        jnp.sqrt: scipy.linalg.sqrtm,
        jnp.log: scipy.linalg.logm,
    }
    for f, exact in matrices.items():
        ours = jax.jit(lambda A, b, f=f: krylov.funm(f, A, b, num_steps=40))(A, b)
        expected = exact(np.asarray(A)) @ b
        assert ours.dtype == b.dtype
        assert np.linalg.norm(ours - expected) < 1e-8 * np.linalg.norm(expected)


@pytest.mark.slow
def test_an_early_end_is_exact_and_differentiable():
    def total(scale):
        return jnp.sum(krylov.funm_hermitian(jnp.log, lambda v: scale * v, b, num_steps=4))

    b = jnp.arange(1.0, 6.0)
    value, slope = jax.value_and_grad(total)(2.0)
    np.testing.assert_allclose([value, slope], [15 * np.log(2), 7.5], rtol=1e-12)


@pytest.mark.slow
def test_parameters_of_the_function_have_derivatives():
    A, b = jnp.asarray(with_values(np.linspace(1, 2, 30))), random(30)

    def total(power):
        return jnp.vdot(b, krylov.funm_hermitian(lambda x: x**power, A, b, num_steps=20))

    expected = b @ scipy.linalg.logm(np.asarray(A)) @ A @ b
    np.testing.assert_allclose(jax.grad(total)(1.0), expected, rtol=1e-10)


@pytest.mark.slow
def test_the_gradient_of_log_det_is_the_inverse_on_average():
    A = jnp.asarray(with_values(np.linspace(1, 4, 12), "complex128"))

    def value(A):
        estimate = krylov.logdet(jax.random.key(0), A, A[0], num_probes=4000, num_steps=12)
        return estimate.mean

    gradient = jax.jit(jax.grad(value))(A)
    np.testing.assert_allclose(gradient.conj(), jnp.linalg.inv(A), atol=0.03)


@pytest.mark.slow
def test_a_trace_without_variance_is_exact():
    diagonal = jnp.linspace(1, 9, 20)
    estimate = krylov.trace_funm(
        jax.random.key(0), jnp.sqrt, lambda v: diagonal * v, diagonal, num_probes=3, num_steps=20
    )
    np.testing.assert_allclose(estimate.mean, jnp.sum(jnp.sqrt(diagonal)), rtol=1e-10)
    assert estimate.standard_error < 1e-9
    single = krylov.logdet(jax.random.key(0), jnp.eye(4), jnp.ones(4), num_probes=1, num_steps=2)
    assert np.isnan(single.standard_error)


@pytest.mark.slow
def test_the_density_holds_every_eigenvalue_at_its_place():
    A = with_values(np.r_[np.zeros(60), np.full(40, 3.0)])
    density = jax.jit(
        lambda A: krylov.spectral_density(
            jax.random.key(0), A, A[0], num_probes=20, num_steps=10, width=0.02
        )
    )(A)
    step = density.points[1] - density.points[0]
    np.testing.assert_allclose(jnp.sum(density.values) * step, 1, rtol=1e-4)
    upper = jnp.sum(jnp.where(density.points > 1.5, density.values, 0)) * step
    np.testing.assert_allclose(upper, 0.4, atol=0.05)
    middle = jnp.abs(density.points - 1.5) < 0.5
    np.testing.assert_allclose(density.values[middle], 0, atol=1e-8)


def gaussian_kernel(n, length, seed=0):
    X = np.random.default_rng(seed).random((n, 2))
    squares = ((X[:, None] - X[None]) ** 2).sum(-1)
    return np.exp(-squares / (2 * length**2))


@pytest.mark.slow
def test_log_det_of_a_kernel_lies_within_two_standard_errors():
    """In at least 16 of 20 seeds, n = 4096."""
    n = 4096
    K = gaussian_kernel(n, 0.2) + 1e-2 * np.eye(n)
    exact = 2 * np.log(np.diag(scipy.linalg.cholesky(K, check_finite=False))).sum()
    estimate = jax.jit(lambda key, K: krylov.logdet(key, K, K[0], num_probes=10, num_steps=50))
    K, hits = jnp.asarray(K), 0
    for seed in range(20):
        mean, error = estimate(jax.random.key(seed), K)
        hits += bool(abs(mean - exact) <= 2 * error)
    assert hits >= 16


@pytest.mark.slow
def test_nystrom_leaves_the_steps_of_the_paper():
    """K + 1e-4 I with 1500 points: about 1571 steps without, 190, 17 and 4 at ranks 50 to 200."""
    n, shift = 1500, 1e-4
    K = jnp.asarray(gaussian_kernel(n, 0.2))
    b = random(n)
    A = operators.shifted(K, shift)

    def steps(rank):
        M = precondition.nystrom(jax.random.key(0), K, b, rank=rank, shift=shift)
        return num_cg_steps(A, b, M)

    assert 1200 < num_cg_steps(A, b, maxiter=3000) < 2000
    for rank, most in {50: 190, 100: 17, 200: 4}.items():
        assert steps(rank) <= most
