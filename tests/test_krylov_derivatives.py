"""Derivatives of solves against those of dense solves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov
from tests.problems import (
    ALL,
    DEFINITE,
    LEAST_SQUARES,
    SQUARE,
    call,
    each,
    normal,
    problem,
)

HERMITIAN = (*DEFINITE, "minres")


def dense(name, A, b, wide=False):
    if name in LEAST_SQUARES:
        if wide:
            return A.conj().T @ jnp.linalg.solve(A @ A.conj().T, b)
        return jnp.linalg.solve(A.conj().T @ A, A.conj().T @ b)
    if name in HERMITIAN:
        A = (A + A.conj().T) / 2
    return jnp.linalg.solve(A, b)


def losses(name, weights, **options):
    """The same nonlinear, real function of the solver's answer and of the dense one."""

    def ours(A, b):
        if name in HERMITIAN:
            A = (A + A.conj().T) / 2
        x = call(name, A, b, rtol=1e-13, **options).value
        return jnp.sum(weights * jnp.abs(x) ** 2) + jnp.sum(x.real)

    def oracle(A, b):
        x = dense(name, A, b, wide=A.shape[0] < A.shape[1])
        return jnp.sum(weights * jnp.abs(x) ** 2) + jnp.sum(x.real)

    return ours, oracle


def assert_close(ours, oracle, rtol=1e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(oracle), strict=True):
        np.testing.assert_allclose(a, b, atol=rtol * float(jnp.abs(b).max()))


def weighted(p):
    return jnp.asarray(np.random.default_rng(9).normal(size=p.x.shape))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", each(ALL))
def test_gradients_equal_the_dense_solves(name, dtype):
    p = problem(name, n=25, dtype=dtype, condition=20)
    ours, oracle = losses(name, weighted(p))
    gradients = jax.jit(jax.grad(ours, (0, 1)))(p.A, p.b)
    assert_close(gradients, jax.grad(oracle, (0, 1))(p.A, p.b))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["cg", "minres", "gmres", "bicgstab", "lsmr", "cgls"])
def test_forward_mode_and_second_derivatives(name):
    p = problem(name, n=12, condition=10)
    ours, oracle = losses(name, weighted(p))
    rng = np.random.default_rng(5)
    dA, db = (jnp.asarray(rng.normal(size=x.shape)) for x in (p.A, p.b))
    tangents = jax.jit(lambda: jax.jvp(ours, (p.A, p.b), (dA, db))[1])()
    assert_close(tangents, jax.jvp(oracle, (p.A, p.b), (dA, db))[1])

    def along(loss):
        return jax.jit(jax.hessian(lambda t: loss(p.A + t * dA, p.b + t * db)))(0.0)

    assert_close(along(ours), along(oracle))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_gradients_of_the_solution_of_least_norm(name):
    rng = np.random.default_rng(0)
    A, b = jnp.asarray(rng.normal(size=(8, 20))), jnp.asarray(rng.normal(size=8))
    ours, oracle = losses(name, jnp.asarray(rng.normal(size=20)))
    assert_close(jax.jit(jax.grad(ours, (0, 1)))(A, b), jax.grad(oracle, (0, 1))(A, b))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_an_adjoint_of_the_callers_serves_where_jax_cannot_transpose(name):
    p = problem(name, n=15)
    _, oracle = losses(name, weighted(p))

    def opaque(A, v):  # a loop with a traced end has no transpose
        return jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, A @ c[1]), (0, v))[1]

    def loss(b, **options):
        x = call(name, lambda v: opaque(p.A, v), b, rtol=1e-13, **options).value
        return jnp.sum(weighted(p) * x**2) + jnp.sum(x)

    np.testing.assert_allclose(loss(p.b), oracle(p.A, p.b), rtol=1e-9)
    with pytest.raises(TypeError, match="transpose_solve required"):
        jax.grad(loss)(p.b)
    gradient = jax.grad(lambda b: loss(b, AT=lambda v: opaque(p.A.T, v)))(p.b)
    assert_close(gradient, jax.grad(oracle, 1)(p.A, p.b))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_an_adjoint_given_as_a_matrix_has_all_derivatives(name):
    p = problem(name, n=12, dtype="complex128")
    _, oracle = losses(name, weighted(p))

    def dilated(A, b):
        x = call(name, A, b, rtol=1e-13, AT=A.conj().T).value
        return jnp.sum(weighted(p) * jnp.abs(x) ** 2) + jnp.sum(x.real)

    assert_close(jax.jit(jax.grad(dilated, (0, 1)))(p.A, p.b), jax.grad(oracle, (0, 1))(p.A, p.b))
    dA = jnp.asarray(normal(np.random.default_rng(1), p.A.shape, "complex128"))

    def along(loss):
        return jax.jit(jax.hessian(lambda t: loss(p.A + t * dA, p.b)))(0.0)

    assert_close(along(dilated), along(oracle))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_the_adjoint_solve_uses_the_adjoint_preconditioner(name):
    p = problem(name, n=30)
    A = p.A * jnp.geomspace(1, 1e4, 30)  # hopeless without
    inverse = jnp.linalg.inv(A)
    b = p.b

    def loss(b, **options):
        return jnp.sum(
            call(name, A, b, rtol=1e-10, maxiter=5, preconditioner=inverse, **options).value
        )

    gradient = jax.grad(loss)(b)
    expected = jnp.linalg.solve(A.T, jnp.ones(30))
    assert_close(gradient, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", each(SQUARE))
def test_gradients_survive_a_tiny_cotangent_in_float32(name):
    p = problem(name, n=20, dtype="float32", condition=10)
    gradient = jax.grad(lambda b: 1e-30 * jnp.sum(call(name, p.A, b, rtol=1e-5).value))(p.b)
    expected = np.linalg.solve(np.asarray(p.A, float).T, np.ones(p.x.shape))
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient / 1e-30, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["cg", "minres", "gmres", "bicgstab", "lsmr", "cgls", "block_cg"])
def test_fixed_steps_are_differentiated_by_unrolling(name):
    p = problem(name, n=10, condition=5)
    options = {"restart": 3} if name == "gmres" else {}

    def loss(b):
        x = call(name, p.A, b, rtol=None, maxiter=4, **options).value
        return jnp.sum(jnp.sin(x))

    direction = jnp.asarray(np.random.default_rng(0).normal(size=p.b.shape))
    step = 1e-6
    slope = (loss(p.b + step * direction) - loss(p.b - step * direction)) / (2 * step)
    gradient = jax.grad(loss)(p.b)
    np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=1e-5)
    tangent = jax.jvp(loss, (p.b,), (direction,))[1]
    np.testing.assert_allclose(tangent, slope, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_solve_inside_an_operator():
    """A Schur complement: the outer operator holds an inner solve, and gradients go through."""
    rng = np.random.default_rng(0)
    F = jnp.asarray(rng.normal(size=(12, 12)))
    inner, B = F @ F.T + 12 * jnp.eye(12), jnp.asarray(rng.normal(size=(12, 5)))
    D, b = 30 * jnp.eye(5) + jnp.asarray(rng.normal(size=(5, 5))), jnp.asarray(rng.normal(size=5))

    def loss(inner, b):
        def schur(v):
            return D @ v - B.T @ krylov.cg(inner, B @ v, rtol=1e-13).value

        return jnp.sum(krylov.gmres(schur, b, rtol=1e-12).value ** 3)

    def oracle(inner, b):
        return jnp.sum(jnp.linalg.solve(D - B.T @ jnp.linalg.solve(inner, B), b) ** 3)

    def symmetric(f):
        return lambda inner, b: f((inner + inner.T) / 2, b)

    ours = jax.jit(jax.grad(symmetric(loss), (0, 1)))(inner, b)
    assert_close(ours, jax.grad(symmetric(oracle), (0, 1))(inner, b))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_adjoint_has_its_own_tolerance():
    p = problem("cg", n=60, condition=1e4)
    expected = jnp.linalg.solve(p.A, jnp.ones(60))

    def error(**options):
        gradient = jax.grad(lambda b: jnp.sum(krylov.cg(p.A, b, rtol=1e-3, **options).value))(p.b)
        return float(jnp.linalg.norm(gradient - expected) / jnp.linalg.norm(expected))

    assert error(adjoint_rtol=1e-10) < 1e-5 < error()


@pytest.mark.slow
def test_a_failed_adjoint_gives_nan_unless_maxiter_was_named():
    A = jnp.diag(jnp.array([1.0, 2.0, -1.0]))
    b = jnp.array([1.0, 1.0, 0.0])

    def loss(b, weights):
        return jnp.vdot(weights, krylov.cg(A, b).value)

    assert np.isfinite(loss(b, jnp.ones(3)))
    assert np.isnan(jax.grad(loss)(b, jnp.array([1.0, 0.0, 1.0]))).all()
    p = problem("cg", n=50, dtype="float32", condition=1e3)
    short = jax.grad(lambda b: jnp.sum(krylov.cg(p.A, b, maxiter=3).value))(p.b)
    assert np.isfinite(short).all()


@pytest.mark.slow
def test_only_what_a_pytree_needs_is_differentiated():
    p = problem("cg", n=10, dtype="float32", condition=5)

    def A(v):
        return {"u": p.A @ v["u"], "w": 2 * v["w"]}

    gradient = jax.grad(lambda u: krylov.cg(A, {"u": u, "w": jnp.ones(3)}).value["w"].sum())(p.b)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cg", "gmres", "lsmr"])
def test_start_tolerance_and_preconditioner_take_no_part(name):
    p = problem(name, n=10, dtype="float32", condition=5)
    zero = jnp.zeros(p.x.shape)

    def loss(x0, rtol, scale):
        M = {} if name == "lsmr" else {"preconditioner": lambda r: scale * r}
        return jnp.sum(call(name, p.A, p.b, x0, rtol=rtol, **M).value)

    for gradient in jax.grad(loss, (0, 1, 2))(zero, 1e-4, 1.0):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["cg", "bicgstab", "cgls"])
def test_unrolling_past_exact_convergence_stays_finite(name):
    p = problem(name, n=4, condition=3)
    for b in (p.b, 0 * p.b):
        gradient = jax.grad(lambda b: jnp.sum(call(name, p.A, b, rtol=None, maxiter=7).value))(b)
        assert np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_refinement_takes_the_callers_adjoint():
    p = problem("gmres", n=12)

    def opaque(A, v):
        A = A.astype(v.dtype)
        return jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, A @ c[1]), (0, v))[1]

    def loss(b):
        x = krylov.refine(
            partial(krylov.gmres, rtol=1e-4),
            lambda v: opaque(p.A, v),
            b,
            AT=lambda v: opaque(p.A.T, v),
        ).value
        return jnp.sum(x**2)

    expected = jax.grad(lambda b: jnp.sum(jnp.linalg.solve(p.A, b) ** 2))(p.b)
    assert_close(jax.grad(loss)(p.b), expected)
