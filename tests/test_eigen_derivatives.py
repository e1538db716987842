"""Derivatives of eigenpairs, singular triplets and projectors against dense perturbation theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov, linalg
from tests.problems import normal
from tests.spectra import with_values

pytestmark = pytest.mark.usefixtures("x64")

DTYPES = ("float64", "complex128")


def direction(n, dtype, seed=1):
    B = normal(np.random.default_rng(seed), (n, n), dtype)
    return jnp.asarray(B + B.conj().T, dtype)


def block(n, k, dtype):
    return jnp.asarray(normal(np.random.default_rng(2), (n, k), dtype), dtype)


SPECTRUM = np.r_[-4, -3.5, np.linspace(-1, 1, 36), 3, 5]
SOLVERS = {
    "largest": lambda A, X: krylov.eigsh(A, X[:, 0], k=2, rtol=1e-12),
    "smallest": lambda A, X: krylov.eigsh(A, X[:, 0], k=2, which="smallest", rtol=1e-12),
    "both ends": lambda A, X: krylov.eigsh(A, X[:, 0], k=3, which="both_ends", rtol=1e-12),
    "lobpcg": lambda A, X: krylov.lobpcg(A, X[:, :2], rtol=1e-12),
    "subspace iteration": lambda A, X: krylov.subspace_iteration(A, X, k=2, rtol=1e-12),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOLVERS)
def test_tangents_of_simple_pairs_are_those_of_perturbation_theory(name, dtype):
    A = jnp.asarray(with_values(SPECTRUM, dtype))
    X, dA = block(40, 4, dtype), direction(40, dtype)

    def solve(A):
        return SOLVERS[name](A, X).value[:2]

    (values, V), (dvalues, dV) = jax.jit(lambda A: jax.jvp(solve, (A,), (dA,)))(A)
    exact, U = np.linalg.eigh(A)
    coupling = U.conj().T @ dA @ V
    gaps = np.asarray(values)[None] - exact[:, None]
    others = np.abs(gaps) > 1e-8
    expected = U @ np.where(others, coupling / np.where(others, gaps, 1), 0)
    np.testing.assert_allclose(dvalues, np.sum(V.conj() * (dA @ V), axis=0).real, atol=1e-9)
    np.testing.assert_allclose(dV, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_dense_eigh(dtype):
    A, X = jnp.asarray(with_values(SPECTRUM, dtype)), block(40, 4, dtype)
    weights = jnp.arange(40.0)

    def of(pairs):
        def loss(A):
            values, V = pairs((A + A.conj().T) / 2)
            return jnp.sum(values**3) + jnp.sum(weights[:, None] * jnp.abs(V) ** 2 * values)

        return jax.jit(jax.grad(loss))(A)

    ours = of(lambda A: krylov.eigsh(A, X[:, 0], k=2, rtol=1e-12).value[:2])
    dense = of(lambda A: tuple(x[..., -2:] for x in jnp.linalg.eigh(A)))
    np.testing.assert_allclose(ours, dense, atol=1e-7)


def test_second_derivatives_of_an_eigenvalue():
    A, dA = jnp.asarray(with_values(SPECTRUM)), direction(40, "float64")
    v0 = jnp.ones(40)

    def curvature(value):
        return jax.jit(jax.grad(jax.grad(lambda t: value(A + t * dA))))(0.0)

    ours = curvature(lambda A: krylov.eigsh(A, v0, k=1, rtol=1e-12).value.values[0])
    dense = curvature(lambda A: jnp.linalg.eigh(A)[0][-1])
    np.testing.assert_allclose(ours, dense, rtol=1e-7)


def test_values_of_a_tie_have_finite_derivatives_and_their_sum_the_right_one():
    A = jnp.asarray(with_values([3.0, 3.0, *np.linspace(0, 1, 20)]))
    X, dA = block(22, 2, "float64"), direction(22, "float64")

    def total(A):
        return jnp.sum(krylov.lobpcg(A, X, rtol=1e-13).value.values)

    h = 1e-5
    _, tangent = jax.jvp(jax.jit(total), (A,), (dA,))
    dense = [jnp.sum(jnp.linalg.eigvalsh(A + s * h * dA)[-2:]) for s in (1, -1)]
    np.testing.assert_allclose(tangent, (dense[0] - dense[1]) / (2 * h), rtol=1e-7)
    gradient = jax.grad(
        lambda A: jnp.sum(jnp.abs(krylov.lobpcg(A, X, rtol=1e-13).value.vectors) ** 4)
    )
    assert np.isfinite(jax.jit(gradient)(A)).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_tangents_of_singular_triplets_are_finite_differences(dtype):
    rng = np.random.default_rng(0)
    A, dA = (jnp.asarray(normal(rng, (30, 20), dtype), dtype) for _ in range(2))
    v0 = jnp.ones(20, dtype)

    @jax.jit
    def solve(A):
        triplets = krylov.svds(A, A.conj().T, v0, k=3, rtol=1e-12).value
        rank_two = (triplets.U[:, :2] * triplets.values[:2]) @ triplets.V[:, :2].conj().T
        return triplets.values, rank_two

    _, tangents = jax.jvp(solve, (A,), (dA,))
    h = 1e-5
    plus, minus = solve(A + h * dA), solve(A - h * dA)
    for tangent, a, b in zip(tangents, plus, minus, strict=True):
        np.testing.assert_allclose(tangent, (a - b) / (2 * h), atol=1e-7)


def test_what_a_callable_closes_over_has_a_gradient():
    A, v0 = jnp.asarray(with_values(SPECTRUM)), jnp.ones(40)

    def largest(scale):
        return krylov.eigsh(lambda v: scale * (A @ v), v0, k=1).value.values[0]

    np.testing.assert_allclose(jax.grad(largest)(2.0), 5, rtol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_projector_of_a_tie_is_differentiable(dtype):
    A = jnp.asarray(with_values([2.0, 2.0, 1.5, 0.0, 0.0, 0.0], dtype))
    dA = direction(6, dtype)

    def projector(A):
        return linalg.spectral_projector(A, 3)

    P, dP = jax.jvp(projector, (A,), (dA,))
    np.testing.assert_allclose(P @ P, P, atol=1e-13)
    h = 1e-5
    plus, minus = projector(A + h * dA), projector(A - h * dA)
    np.testing.assert_allclose(dP, (plus - minus) / (2 * h), atol=1e-8)
    tie = jnp.diag(jnp.array([0.0, 0.0, 1.0, 2.0, 2.0, 2.0]))
    _, dV = jax.jvp(lambda A: jnp.linalg.eigh(A)[1], (tie,), (dA.real,))
    assert not np.isfinite(dV).all()
    gradient = jax.grad(lambda A: jnp.sum(projector(A)[0] ** 2))(tie)
    assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_of_the_projector_are_named():
    with pytest.raises(ValueError, match=r"square matrix, got shape \(2, 3\)"):
        linalg.spectral_projector(jnp.ones((2, 3)), 1)
    with pytest.raises(ValueError, match=r"integer in 0..3, got 4"):
        linalg.spectral_projector(jnp.eye(3), 4)
