"""The solvers against dense solves, and what they report against what is true."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.experimental import sparse

from subspace_jax import krylov, tree
from subspace_jax.krylov import Status
from tests.problems import (
    ALL,
    GENERAL,
    LEAST_SQUARES,
    RECYCLING,
    SQUARE,
    call,
    each,
    matrix,
    normal,
    of_condition,
    problem,
    relative_residual,
    status,
    unitary,
)

SINGLE = ("float32", "complex64")
DTYPES = ["float32", "complex128"]
DTYPES += [pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float64", "complex64")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", each(ALL))
def test_the_dense_solution_is_found_and_reported_truly(name, dtype):
    p = problem(name, dtype=dtype)
    x, info = call(name, p.A, p.b, rtol=1e-4 if dtype in SINGLE else 1e-11, history=True)
    assert x.dtype == p.b.dtype
    assert Status(int(info.status)) == Status.CONVERGED
    error = 3e-3 if dtype in SINGLE else 1e-9
    np.testing.assert_allclose(x, p.x, atol=error * np.abs(p.x).max())
    r = np.asarray(p.b) - np.asarray(p.A) @ np.asarray(x)
    rounding = np.finfo(dtype).eps * np.linalg.norm(p.A, 2) * np.linalg.norm(x)
    np.testing.assert_allclose(
        info.residual_norm, np.linalg.norm(r, axis=0), rtol=1e-3, atol=4 * rounding
    )
    steps = int(info.num_steps)
    assert np.isfinite(info.history[:steps]).all()
    assert np.isnan(info.history[steps:]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", each(ALL))
def test_tiny_systems_are_solved(name, n):
    p = problem(name, n=n)
    solution = call(name, p.A, p.b, rtol=1e-10)
    assert status(solution) == Status.CONVERGED
    np.testing.assert_allclose(solution.value, p.x, rtol=1e-7)


def odd_shapes(v):
    """A vector of 31 entries as a pytree; a second axis stays the last one of every leaf."""
    columns = v.shape[1:]
    return {"a": v[:6].reshape(2, 3, 1, *columns), "b": [v[6:30].reshape(24, *columns), v[30]]}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", each(SQUARE))
def test_operands_may_be_pytrees_of_odd_shapes(name):
    p = problem(name, n=31)
    solution = call(name, lambda v: odd_shapes(p.A @ tree.ravel(v)), odd_shapes(p.b), rtol=1e-11)
    assert status(solution) == Status.CONVERGED
    expected = odd_shapes(p.x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
        solution.value, expected,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_least_squares_between_spaces_of_pytrees(name):
    p = problem(name, n=30, dtype="float32")

    def A(v):
        u = p.A @ tree.ravel(v)
        return [u[:20].reshape(4, 5), u[20:]]

    b = [p.b[:20].reshape(4, 5), p.b[20:]]
    zero = {"x": jnp.zeros((5, 6))}
    x, info = call(name, A, b, zero, rtol=1e-6)
    np.testing.assert_allclose(x["x"].ravel(), p.x, atol=1e-4)
    assert Status(int(info.status)) in (Status.CONVERGED, Status.ATTAINABLE_ACCURACY)
    again, _ = call(
        name, A, b, AT=lambda u: {"x": (p.A.T @ tree.ravel(u)).reshape(5, 6)}, rtol=1e-6
    )
    np.testing.assert_allclose(again["x"].ravel(), p.x, atol=1e-4)


@pytest.mark.slow
def test_sparse_matrices_are_operators_too():
    p = problem("cg", n=30, dtype="float32", condition=10)
    for A in (sparse.BCOO.fromdense(p.A), np.asarray(p.A)):
        np.testing.assert_allclose(krylov.cg(A, p.b, rtol=1e-6).value, p.x, atol=1e-4)
    tall = problem("lsmr", n=30, dtype="float32")
    x = krylov.lsmr(sparse.BCOO.fromdense(tall.A), tall.b, rtol=1e-6).value
    np.testing.assert_allclose(x, tall.x, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", each(SQUARE))
def test_a_preconditioner_saves_steps_and_changes_no_answer(name, dtype):
    rng = np.random.default_rng(3)
    noise = matrix(name, 60, dtype, condition=5)
    scales = np.geomspace(1, 30, 60)
    A = scales[:, None] * noise * scales
    b = normal(rng, (60, 3) if name == "block_cg" else (60,), dtype)
    inverse = jnp.asarray(scales**-2)
    plain = call(name, jnp.asarray(A), jnp.asarray(b), rtol=1e-9)

    def M(r):
        return inverse * r

    helped = call(name, jnp.asarray(A), jnp.asarray(b), rtol=1e-9, preconditioner=M)
    assert status(helped) == Status.CONVERGED
    assert relative_residual(A, b, helped.value) < 1.01e-9
    assert int(helped.info.num_steps) < 0.7 * int(plain.info.num_steps)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["fgmres", "flexible_cg"])
def test_a_flexible_method_takes_a_nonlinear_preconditioner(name):
    p = problem(name)
    solution = call(name, p.A, p.b, rtol=1e-9, preconditioner=lambda r: r + 0.02 * jnp.tanh(r) ** 2)
    assert status(solution) == Status.CONVERGED
    assert relative_residual(p.A, p.b, solution.value) < 1.01e-9


@pytest.mark.usefixtures("x64")
def test_flexible_cg_along_residuals_is_cg():
    p = problem("cg", n=60)
    cg = krylov.cg(p.A, p.b, rtol=None, maxiter=12)
    flexible = krylov.flexible_cg(p.A, p.b, direction=lambda r: r, rtol=None, maxiter=12)
    np.testing.assert_allclose(flexible.value, cg.value, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_cg_minimises_the_energy_and_gmres_and_minres_the_residual():
    n, k = 30, 7
    for name in ("cg", "gmres", "minres"):
        p = problem(name, n=n)
        A, b = np.asarray(p.A), np.asarray(p.b)
        K = np.linalg.qr(np.stack([np.linalg.matrix_power(A, j) @ b for j in range(k)], 1))[0]
        if name == "cg":
            best = K @ np.linalg.solve(K.T @ A @ K, K.T @ b)
        else:
            best = K @ np.linalg.lstsq(A @ K, b)[0]
        x = call(name, p.A, p.b, rtol=None, maxiter=k).value
        np.testing.assert_allclose(x, best, atol=1e-8 * np.abs(best).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "condition"), [("cg", 300), ("minres", 20), ("bicgstab", 30)])
def test_the_tolerance_is_met_as_soon_as_by_scipy(name, condition):
    """The first iterate of true residual below it; to 1e-8 rounding has its say."""
    for seed in range(3):
        if name == "bicgstab":
            A, b = of_condition(name, condition, n=200, seed=seed, dtype="float64")
        else:
            A, b, _ = map(np.asarray, problem(name, n=200, condition=condition, seed=seed))
        iterates = []
        getattr(scipy.sparse.linalg, name)(
            A, b, rtol=1e-14, callback=lambda x, kept=iterates: kept.append(x.copy())
        )
        residuals = [relative_residual(A, b, x) for x in iterates]
        solve = jax.jit(lambda rtol, A=A, b=b: call(name, A, b, rtol=rtol).info.num_steps)
        for rtol in (1e-3, 1e-5, 1e-7):
            first = 1 + next(i for i, residual in enumerate(residuals) if residual <= rtol)
            slack = round(0.1 * first) if name == "bicgstab" else 2
            assert abs(int(solve(rtol)) - first) <= slack, (seed, rtol, first)


@pytest.mark.parametrize(("condition", "limit"), [(1e4, 5e-4), (1e6, 0.2)])
def test_gmres_in_float32_keeps_its_digits(condition, limit):
    n = 400
    rng = np.random.default_rng(0)
    Q = unitary(rng, n, "float64")
    A = (Q * np.geomspace(1, 1 / condition, n)) @ Q.T
    b = rng.normal(size=n)
    x, info = krylov.gmres(jnp.asarray(A, "f"), jnp.asarray(b, "f"), restart=200, maxiter=200)
    assert int(info.num_steps) <= 200
    assert relative_residual(A, b, x) < limit


@pytest.mark.usefixtures("x64")
def test_block_cg_takes_fewer_steps_than_single_columns():
    p = problem("cg", n=200, condition=1000)
    B = jnp.asarray(np.random.default_rng(0).normal(size=(200, 8)))
    block = krylov.block_cg(p.A, B, rtol=1e-8)
    single = krylov.cg(p.A, B[:, 0], rtol=1e-8)
    assert int(block.info.num_steps) < 0.5 * int(single.info.num_steps)
    assert block.info.residual_norm.shape == (8,)


@pytest.mark.usefixtures("x64")
def test_block_cg_drops_dependent_and_zero_columns():
    p = problem("block_cg", n=40)
    B = jnp.stack([p.b[:, 0], p.b[:, 0], 0 * p.b[:, 0], 1e-200 * p.b[:, 1]], 1)
    solution = krylov.block_cg(p.A, B, rtol=1e-9)
    assert status(solution) == Status.CONVERGED
    np.testing.assert_allclose(solution.value[:, 0], solution.value[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(solution.value[:, 2], 0)
    np.testing.assert_allclose(1e200 * solution.value[:, 3], p.x[:, 1], rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("damp", [0.0, pytest.param(0.7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(40, 15), (15, 40), (20, 20)])
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_least_squares_and_least_norm(name, shape, damp):
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=shape), rng.normal(size=shape[0])
    x, info = call(name, jnp.asarray(A), jnp.asarray(b), rtol=1e-12, damp=damp)
    stacked = np.concatenate([A, damp * np.eye(shape[1])])
    expected = np.linalg.pinv(stacked) @ np.concatenate([b, np.zeros(shape[1])])
    np.testing.assert_allclose(x, expected, atol=1e-9)
    np.testing.assert_allclose(info.residual_norm, np.linalg.norm(b - A @ x), atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_refinement_is_in_the_caller_s_inner_product_and_has_derivatives(dtype):
    p = problem("cg", n=30, dtype=dtype, condition=30)
    seen = []

    def inner(x, y):
        seen.append(x.dtype)
        return 4 * jnp.vdot(x, y)  # norms are twice as large, and so is the tolerance's

    def solve(b, product=inner, rtol=1e-11):
        single = partial(krylov.cg, rtol=1e-3)
        return krylov.refine(single, p.A, b, rtol=rtol, inner_product=product)

    found, plain = solve(p.b), solve(p.b, None)
    assert seen
    assert set(seen) == {jnp.dtype(dtype)}
    np.testing.assert_allclose(found.value, p.x, rtol=1e-8)
    assert float(found.info.residual_norm) < 2e-11 * float(jnp.linalg.norm(p.b))
    assert int(found.info.num_steps) == int(plain.info.num_steps)
    x, info = solve(p.b, rtol=1e-5)
    np.testing.assert_allclose(info.residual_norm, 2 * jnp.linalg.norm(p.b - p.A @ x), rtol=1e-6)
    direction = jnp.asarray(np.random.default_rng(0).normal(size=30), dtype)
    _, change = jax.jvp(lambda b: solve(b).value, (p.b,), (direction,))
    exact = np.linalg.solve(np.asarray(p.A), np.asarray(direction))
    np.testing.assert_allclose(change, exact, atol=1e-9 * np.abs(exact).max())


@pytest.mark.usefixtures("x64")
def test_refinement_reaches_float64_with_float32_solves():
    p = problem("cg", n=80, condition=1e3)
    seen = []

    def A(v):
        seen.append(str(v.dtype))
        return p.A.astype(v.dtype) @ v

    solution = krylov.refine(lambda A, r: krylov.cg(A, r, rtol=1e-3), A, p.b)
    assert status(solution) == Status.CONVERGED
    assert relative_residual(p.A, p.b, solution.value) < 1e-12
    assert {"float32", "float64"} == set(seen)
    plain = krylov.cg(p.A.astype("float32"), p.b.astype("float32"), rtol=1e-12)
    assert relative_residual(p.A, p.b, plain.value) > 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [n for n in ALL if n not in RECYCLING])
def test_fixed_steps_equal_stopped_ones(name):
    p = problem(name, n=60)
    options = {"restart": 5} if "gmres" in name else {}
    fixed = call(name, p.A, p.b, rtol=None, maxiter=8, **options)
    stopped = call(name, p.A, p.b, rtol=0.0, maxiter=8, **options)
    np.testing.assert_allclose(fixed.value, stopped.value, rtol=1e-6, atol=1e-9)
    assert status(fixed) == Status.CONVERGED
    assert status(stopped) == Status.MAX_STEPS
    assert int(fixed.info.num_steps) == 8


@pytest.mark.parametrize("name", ["cg", *GENERAL])
def test_a_matvec_is_counted_when_it_is_made(name):
    p = problem(name, n=30, dtype="float32")
    count = []

    def A(v):
        jax.debug.callback(lambda: count.append(1))
        return p.A @ v

    def AT(v):
        jax.debug.callback(lambda: count.append(1))
        return p.A.T @ v

    _, info = jax.block_until_ready(call(name, A, p.b, AT=AT, rtol=1e-4))
    jax.effects_barrier()
    assert int(info.num_matvecs) == len(count)
