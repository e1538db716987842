"""Honest about failure: every way a solve can end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov
from subspace_jax.krylov import Status
from tests.problems import (
    ALL,
    DEFINITE,
    GENERAL,
    LEAST_SQUARES,
    SQUARE,
    call,
    each,
    of_condition,
    problem,
    relative_residual,
    status,
    unitary,
)


def test_converged_is_zero_and_nothing_else():
    assert [member for member in Status if member == 0] == [Status.CONVERGED]


@pytest.mark.parametrize("name", each(ALL))
def test_a_zero_right_hand_side_takes_no_step(name):
    p = problem(name, n=20, dtype="float32")
    start = jnp.ones_like(jnp.asarray(p.x, p.b.dtype))
    for x0 in (None, start):
        x, info = call(name, p.A, 0 * p.b, x0)
        assert int(info.num_steps) == 0
        assert Status(int(info.status)) == Status.CONVERGED
        np.testing.assert_array_equal(x, 0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("name", each(ALL))
def test_the_size_of_the_right_hand_side_does_not_matter(name, size):
    p = problem(name, n=20, dtype="float32", condition=10)
    x, info = call(name, p.A, jnp.float32(size) * p.b, rtol=1e-4)
    reference, same = call(name, p.A, p.b, rtol=1e-4)
    assert Status(int(info.status)) == Status.CONVERGED
    assert abs(int(info.num_steps) - int(same.num_steps)) <= 3
    np.testing.assert_allclose(x / jnp.float32(size), reference, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("name", each(ALL))
def test_an_exact_start_returns_at_once(name):
    p = problem(name, n=20, dtype="float32", condition=10)
    _, info = call(name, p.A, p.b, jnp.asarray(p.x, p.b.dtype), rtol=1e-3)
    assert int(info.num_steps) == 0
    assert Status(int(info.status)) == Status.CONVERGED


@pytest.mark.parametrize("name", each(SQUARE))
def test_a_good_start_does_not_tighten_the_tolerance(name):
    p = problem(name, n=40, dtype="float32", condition=10)
    cold = call(name, p.A, p.b, rtol=1e-4)
    warm = call(name, p.A, p.b, jnp.asarray(p.x * 1.001, p.b.dtype), rtol=1e-4)
    assert int(warm.info.num_steps) < int(cold.info.num_steps)


@pytest.mark.parametrize("name", each(ALL))
def test_maxiter_bounds_the_steps(name):
    p = problem(name, n=60, dtype="float32", condition=1e3)
    for maxiter in (0, 3):
        x, info = call(name, p.A, p.b, rtol=1e-6, maxiter=maxiter)
        assert (int(info.num_steps), Status(int(info.status))) == (maxiter, Status.MAX_STEPS)
        assert np.isfinite(x).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", each(ALL))
def test_nan_anywhere_is_nonfinite(name):
    p = problem(name, n=20, dtype="float32")
    assert status(call(name, p.A * jnp.nan, p.b)) == Status.NONFINITE
    assert status(call(name, p.A, p.b.at[0].set(jnp.nan))) == Status.NONFINITE
    if name in SQUARE:
        nan = call(name, p.A, p.b, preconditioner=lambda r: r * jnp.nan)
        assert status(nan) == Status.NONFINITE
        assert np.isfinite(nan.value).all()


@pytest.mark.parametrize("name", each(DEFINITE))
def test_negative_curvature_is_indefinite_with_the_last_good_iterate(name):
    rng = np.random.default_rng(0)
    Q = unitary(rng, 30, "float64")
    values = np.append(np.linspace(1, 2, 29), -0.5)
    A = jnp.asarray((Q * values) @ Q.T, "float32")
    b = jnp.asarray(Q @ np.append(np.ones(29), 1e-3), "float32")
    b = jnp.stack([b, b[::-1]], 1) if name == "block_cg" else b
    x, info = call(name, A, b, rtol=1e-6)
    assert Status(int(info.status)) == Status.INDEFINITE
    assert np.isfinite(x).all()
    assert np.linalg.norm(x) > 0
    assert status(call(name, -A, b)) == Status.INDEFINITE


def test_an_indefinite_preconditioner_is_named():
    p = problem("cg", n=20, dtype="float32")
    for name in ("cg", "minres"):
        solution = call(name, p.A, p.b, preconditioner=lambda r: -r)
        assert status(solution) == Status.PRECONDITIONER_BREAKDOWN


UNATTAINABLE = [
    pytest.param(*name.values, condition, marks=name.marks)
    for name in each(SQUARE)
    for condition in (10.0, 100.0, 1000.0, 10_000.0)
    if condition < 10_000 or "gmres" in name.values[0]
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "condition"), UNATTAINABLE)
def test_an_impossible_tolerance_ends_soon_after_the_useful_steps(name, condition):
    A, b = of_condition(name, condition)
    options = {"restart": 100} if "gmres" in name else {}
    x, info = call(name, A, b, rtol=1e-12, **options)
    assert Status(int(info.status)) == Status.ATTAINABLE_ACCURACY
    last = int(info.num_steps)
    best = relative_residual(A, b, x)
    for share in (0.5, 0.35, 0.2):  # not yet useful before half of the steps
        early = call(name, A, b, rtol=1e-12, maxiter=int(share * last) - 1, **options)
        assert relative_residual(A, b, early.value) > 2 * best


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LEAST_SQUARES)
@pytest.mark.parametrize(
    ("rtol", "atol", "damp"),
    [(0.0, 1e-2, 0.0), (1e-6, 1.0, 0.0), (1e-3, 1e-9, 0.0), (1e-6, 2.0, 0.5), (1e-6, 100.0, 0.0)],
)
def test_least_squares_that_claim_to_converge_meet_one_of_the_two_tests(name, rtol, atol, damp):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(40, 10)) * np.geomspace(1, 1e-3, 10)
    b = rng.normal(size=40)
    x, info = call(name, A, b, rtol=rtol, atol=atol, damp=damp)
    failure = Status.CONVERGED if rtol else Status.ATTAINABLE_ACCURACY
    assert Status(int(info.status)) in (Status.CONVERGED, failure)
    r = b - A @ np.asarray(x)
    whole = np.hypot(np.linalg.norm(r), damp * np.linalg.norm(x))
    normal = np.linalg.norm(A.T @ r - damp**2 * np.asarray(x))
    small = whole <= 1.001 * max(rtol * np.linalg.norm(b), atol)
    stationary = normal <= max(1.001 * rtol, 1e-13) * np.linalg.norm(A.T @ b)
    assert small or stationary
    assert small == (atol == 100.0)


@pytest.mark.parametrize("name", each(SQUARE))
def test_a_singular_but_consistent_system_is_solved(name):
    rng = np.random.default_rng(0)
    Q = unitary(rng, 30, "float64")
    values = np.append(np.linspace(1, 2, 29), 0.0)
    values[:5] *= -1 if name in ("minres", *GENERAL) else 1
    A = (Q * values) @ Q.T
    b = A @ rng.normal(size=(30, 2) if name == "block_cg" else 30)
    x, info = call(name, jnp.asarray(A, "float32"), jnp.asarray(b, "float32"), rtol=1e-4)
    assert Status(int(info.status)) == Status.CONVERGED
    assert relative_residual(A, b, x) < 2e-4


@pytest.mark.parametrize("name", each(SQUARE))
def test_an_inconsistent_system_never_claims_success(name):
    rng = np.random.default_rng(0)
    Q = unitary(rng, 30, "float64")
    A = (Q * np.append(np.linspace(1, 2, 29), 0.0)) @ Q.T
    b = Q.sum(1)
    b = np.stack([b, b + Q[:, 0]], 1) if name == "block_cg" else b
    x, info = call(name, jnp.asarray(A, "float32"), jnp.asarray(b, "float32"), rtol=1e-4)
    assert int(info.status) != 0
    assert np.isfinite(x).all()
    np.testing.assert_allclose(
        np.max(info.residual_norm / np.linalg.norm(b, axis=0)),
        relative_residual(A, b, x),
        rtol=1e-2,
        atol=1e-5 * np.linalg.norm(x) / np.linalg.norm(b),  # x may grow along the null space
    )


def test_minres_ends_at_a_least_squares_solution():
    rng = np.random.default_rng(0)
    Q = unitary(rng, 30, "float64")
    A, b = (Q * np.append(np.linspace(1, 2, 29), 0.0)) @ Q.T, Q.sum(1)
    x, info = krylov.minres(jnp.asarray(A, "float32"), jnp.asarray(b, "float32"))
    assert Status(int(info.status)) == Status.STAGNATION
    assert relative_residual(A, b, x) < 1.01 / np.sqrt(30)


def test_a_short_restart_that_gets_nowhere_is_stagnation():
    n = 30
    shift = jnp.eye(n)[jnp.roll(jnp.arange(n), 1)]
    b = jnp.eye(n)[0]
    solution = krylov.gmres(shift, b, restart=10)
    assert status(solution) == Status.STAGNATION
    assert int(solution.info.num_steps) == 20
    assert status(krylov.gmres(shift, b, restart=n)) == Status.CONVERGED


def test_bicgstab_restarts_once_and_then_breaks_down():
    rotation = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    assert status(krylov.bicgstab(rotation, jnp.array([1.0, 0.0]))) == Status.BREAKDOWN


def test_raise_if_failed_returns_or_says_what_happened():
    p = problem("cg", n=30, dtype="float32")
    good = krylov.cg(p.A, p.b, rtol=1e-4)
    assert krylov.raise_if_failed(good) is good
    with pytest.raises(RuntimeError, match="MAX_STEPS after 3 steps at a residual norm of"):
        krylov.raise_if_failed(krylov.cg(p.A, p.b, maxiter=3))
    batch = jax.vmap(lambda b: krylov.cg(p.A, b, maxiter=3))(jnp.stack([p.b, 0 * p.b, p.b]))
    with pytest.raises(RuntimeError, match="2 of 3 systems failed, the first with MAX_STEPS"):
        krylov.raise_if_failed(batch)


def test_nothing_raises_under_jit_for_numerical_reasons():
    p = problem("cg", n=20, dtype="float32")
    info = jax.jit(lambda A: krylov.cg(A, p.b).info)(-p.A)
    assert Status(int(info.status)) == Status.INDEFINITE


def test_a_tolerance_one_rounding_below_the_true_residual_ends():
    """The recurrence may meet a target that the truth misses by the last bit: no step, for ever."""
    p = problem("cg", n=30, dtype="float32", condition=1e3, seed=0)
    solution = jax.jit(lambda atol: krylov.cg(p.A, p.b, rtol=0.0, atol=atol, maxiter=200))
    norm = solution(1e-4 * float(jnp.linalg.norm(p.b))).info.residual_norm
    for ulps in range(-3, 4):
        info = solution(norm * (1 + ulps * np.finfo("float32").eps)).info
        assert int(info.num_steps) <= 200


@pytest.mark.parametrize("size", [1e-15, 1e15])
@pytest.mark.parametrize("name", ["cg", "minres", "gmres", "fgmres", "lsmr", "cgls"])
def test_the_size_of_the_operator_does_not_matter(name, size):
    p = problem(name, n=40, dtype="float32", condition=10)
    x, info = call(name, jnp.float32(size) * p.A, p.b, rtol=1e-4)
    assert Status(int(info.status)) == Status.CONVERGED
    np.testing.assert_allclose(x * jnp.float32(size), p.x, atol=5e-3 * np.abs(p.x).max())


def test_a_preconditioner_that_vanishes_is_named():
    p = problem("cg", n=20, dtype="float32")
    solution = krylov.cg(p.A, p.b, preconditioner=lambda r: 0 * r)
    assert status(solution) == Status.PRECONDITIONER_BREAKDOWN


def test_a_residual_along_small_eigenvectors_is_not_stagnation():
    A = jnp.diag(jnp.array([1.0, 0.5, 0.25, 1e-6]))
    solution = krylov.minres(A, jnp.ones(4))
    assert status(solution) in (Status.CONVERGED, Status.ATTAINABLE_ACCURACY)
    assert float(solution.info.residual_norm) < 1e-3


def test_the_largest_column_of_a_failed_block_is_named():
    p = problem("block_cg", n=30, dtype="float32")
    batch = jnp.stack([0 * p.b, p.b])
    solution = jax.vmap(lambda b: krylov.block_cg(p.A, b, maxiter=2))(batch)
    largest = float(solution.info.residual_norm[1].max())
    with pytest.raises(RuntimeError, match=f"residual norm of {largest:.3g}"):
        krylov.raise_if_failed(solution)
