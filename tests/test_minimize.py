"""Minimizers on manifolds against eigenvectors and singular vectors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov, linalg, optim, tree
from subspace_jax.manifolds import (
    euclidean,
    fixed_rank,
    flag,
    grassmann,
    means,
    product,
    spd,
    stiefel,
)

pytestmark = pytest.mark.usefixtures("x64")

MINIMIZERS = {
    "cg": optim.riemannian_conjugate_gradient,
    "lbfgs": optim.riemannian_lbfgs,
    "trust region": optim.riemannian_trust_region,
}
ONE_FAST = [
    "cg",
    pytest.param("lbfgs", marks=pytest.mark.slow),
    pytest.param("trust region", marks=pytest.mark.slow),
]
SLOW_REAL = pytest.param("float64", marks=pytest.mark.slow)


def normal(seed, shape, dtype="float64"):
    parts = np.random.default_rng(seed).normal(size=(2, *shape))
    return jnp.asarray(parts[0] + 1j * parts[1] if "complex" in dtype else parts[0], dtype)


def frame(seed, shape, dtype="float64"):
    return jnp.linalg.qr(normal(seed, shape, dtype))[0]


def rayleigh(A):
    return lambda Q: -jnp.sum((Q.conj() * (A @ Q)).real)


@pytest.mark.parametrize("name", MINIMIZERS)
@pytest.mark.parametrize("dtype", [SLOW_REAL, "complex128"])
def test_the_rayleigh_quotient_is_least_on_the_leading_eigenvectors(name, dtype):
    B = normal(0, (14, 14), dtype)
    A = B + B.conj().T
    solve = jax.jit(lambda Q: MINIMIZERS[name](rayleigh(A), Q, manifold=grassmann, gtol=1e-9))
    Q, info = solve(frame(1, (14, 3), dtype))
    values, vectors = np.linalg.eigh(A)
    assert info.status == krylov.Status.CONVERGED
    assert linalg.geodesic_distance(Q, jnp.asarray(vectors[:, -3:])) < 1e-8
    np.testing.assert_allclose(info.value, -values[-3:].sum(), rtol=1e-12)
    assert grassmann.check(Q) < 1e-14


@pytest.mark.parametrize("name", MINIMIZERS)
def test_procrustes_rotation_is_found_on_the_stiefel_manifold(name):
    A, target = normal(0, (20, 4)), frame(2, (4, 4))
    B = A @ target

    def misfit(R):
        return jnp.sum((A @ R - B) ** 2)

    near = stiefel.retract(target, 0.8 * stiefel.random_tangent(jax.random.key(0), target))
    solve = jax.jit(lambda R: MINIMIZERS[name](misfit, R, manifold=stiefel, gtol=1e-8))
    R, info = solve(near)
    assert info.status == krylov.Status.CONVERGED
    np.testing.assert_allclose(R, target, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIMIZERS)
def test_the_steps_do_not_depend_on_the_frame(name):
    B, Q, turn = normal(0, (9, 9)), frame(1, (9, 2)), frame(2, (2, 2))
    solve = jax.jit(
        lambda Q: MINIMIZERS[name](rayleigh(B @ B.T), Q, manifold=grassmann, maxiter=4)[0]
    )
    np.testing.assert_allclose(solve(Q) @ turn, solve(Q @ turn), atol=1e-9)


def test_trust_regions_leave_a_saddle_and_converge_quadratically():
    A = jnp.diag(jnp.array([5.0, 3.0, 2.0, 1.0]))
    saddle = jnp.eye(4)[:, 1:3]
    start = grassmann.exp(saddle, 1e-3 * grassmann.random_tangent(jax.random.key(0), saddle))
    minimizer = optim.riemannian_trust_region
    solve = jax.jit(lambda Q: minimizer(rayleigh(A), Q, manifold=grassmann, gtol=1e-12)[1])
    info = solve(start)
    np.testing.assert_allclose(info.value, -8, atol=1e-12)
    assert info.num_steps < 15


@pytest.mark.parametrize("name", ONE_FAST)
def test_the_sum_of_squared_distances_is_least_at_the_karcher_mean(name):
    """Definite matrices, whose metric is not that of the ambient space."""
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = jnp.array([1, 10, 0.1, 3])
    matrices = sizes[:, None, None] * jax.vmap(lambda k: spd.random_point(k, 3))(keys)

    def spread(p):
        return jnp.sum(jax.vmap(partial(spd.dist, p))(matrices) ** 2)

    solve = jax.jit(lambda p: MINIMIZERS[name](spread, p, manifold=spd, gtol=1e-7))
    p, info = solve(jnp.diag(jnp.array([30.0, 5, 0.05])))
    assert info.status == krylov.Status.CONVERGED
    mean, _ = means.karcher_mean(matrices, manifold=spd)
    assert spd.dist(p, mean) < 1e-7


@pytest.mark.parametrize("name", ONE_FAST)
def test_a_weighted_trace_is_largest_on_the_flag_of_eigenvectors(name):
    """Brockett's function, in the canonical metric."""
    A, weights = jnp.diag(jnp.array([5.0, 3, 2, 1, 0.5])), jnp.array([2.0, 1, 1])
    M = flag.blocks(1, 2)

    def loss(Q):
        return -jnp.sum(weights * jnp.sum(Q * (A @ Q), axis=0))

    solve = jax.jit(lambda Q: MINIMIZERS[name](loss, Q, manifold=M, gtol=1e-8))
    Q, info = solve(M.random_point(jax.random.key(1), 5))
    assert info.status == krylov.Status.CONVERGED
    np.testing.assert_allclose(info.value, -15, rtol=1e-12)
    assert M.dist(Q, jnp.eye(5, 3)) < 1e-7


@pytest.mark.parametrize("name", ONE_FAST)
def test_the_nearest_matrix_of_a_rank_is_found_through_its_factors(name):
    """Tangents of another structure than their points."""
    A = frame(0, (8, 6)) @ jnp.diag(0.6 ** jnp.arange(6.0)) @ frame(1, (6, 6))

    def misfit(p):
        return jnp.sum((fixed_rank.dense(p) - A) ** 2)

    solve = jax.jit(lambda p: MINIMIZERS[name](misfit, p, manifold=fixed_rank, gtol=1e-7))
    p, info = solve(fixed_rank.random_point(jax.random.key(2), 8, 6, 2))
    assert info.status == krylov.Status.CONVERGED
    best = fixed_rank.dense(fixed_rank.from_dense(A, 2))
    np.testing.assert_allclose(fixed_rank.dense(p), best, atol=1e-6)


@pytest.mark.parametrize("name", ONE_FAST)
def test_points_may_be_trees_on_a_product_of_manifolds(name):
    """Low-rank approximation: a subspace, and coordinates that are not constrained."""
    A = frame(0, (8, 6)) @ jnp.diag(0.6 ** jnp.arange(6.0)) @ frame(1, (6, 6))
    manifold = product.of({"Q": stiefel, "C": euclidean})
    solve = jax.jit(
        lambda p: MINIMIZERS[name](
            lambda p: jnp.sum((p["Q"] @ p["C"] - A) ** 2), p, manifold=manifold, gtol=1e-7
        )
    )
    p, info = solve({"Q": frame(2, (8, 2)), "C": normal(3, (2, 6))})
    assert info.status == krylov.Status.CONVERGED
    missing = np.linalg.svd(A, compute_uv=False)[2:]
    np.testing.assert_allclose(info.value, np.sum(missing**2), rtol=1e-9)
    U = jnp.asarray(np.linalg.svd(A)[0][:, :2])
    assert linalg.geodesic_distance(p["Q"], U) < 1e-5


@pytest.mark.parametrize("name", ONE_FAST)
def test_a_start_at_the_minimum_takes_no_step_and_the_limit_is_kept(name):
    A = jnp.diag(jnp.arange(6.0))
    best = jnp.eye(6)[:, 4:]
    solve = jax.jit(
        lambda Q: MINIMIZERS[name](rayleigh(A), Q, manifold=grassmann, maxiter=2, gtol=1e-14)
    )
    Q, info = solve(best)
    assert info.status == krylov.Status.CONVERGED
    assert info.num_steps == 0
    np.testing.assert_array_equal(Q, best)
    Q, info = solve(frame(0, (6, 2)))
    assert info.status == krylov.Status.MAX_STEPS
    assert info.num_steps == 2


@pytest.mark.parametrize("name", ONE_FAST)
def test_trouble_is_told_by_the_status(name):
    def spoiled(Q):
        return rayleigh(jnp.eye(5))(Q) + jnp.nan

    solve = jax.jit(lambda Q: MINIMIZERS[name](spoiled, Q, manifold=grassmann)[1].status)
    assert solve(frame(0, (5, 2))) == krylov.Status.NONFINITE
    with pytest.raises(ValueError, match="maxiter must be at least 0, got -1"):
        MINIMIZERS[name](spoiled, frame(0, (5, 2)), manifold=grassmann, maxiter=-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIMIZERS)
def test_in_float32_rounding_ends_the_descent_and_the_point_is_good(name):
    B = normal(0, (10, 10)).astype(jnp.float32)
    A = B + B.T
    solve = jax.jit(
        lambda Q: MINIMIZERS[name](rayleigh(A), Q, manifold=grassmann, gtol=0.0, maxiter=300)
    )
    Q, info = solve(frame(1, (10, 2)).astype(jnp.float32))
    assert Q.dtype == info.value.dtype == jnp.float32
    vectors = jnp.linalg.eigh(A)[1][:, -2:]
    assert linalg.geodesic_distance(Q, vectors) < 2e-3


@pytest.mark.slow
def test_vmap_over_starts_equals_one_after_another():
    A = jnp.diag(jnp.arange(7.0))
    starts = jnp.stack([frame(i, (7, 2)) for i in range(3)])
    for minimizer in MINIMIZERS.values():
        solve = jax.jit(lambda Q, m=minimizer: m(rayleigh(A), Q, manifold=grassmann, maxiter=5))
        together = jax.jit(jax.vmap(solve))(starts)
        for i in range(3):
            one = solve(starts[i])
            np.testing.assert_allclose(together.point[i], one.point, atol=1e-9)
            assert together.info.num_steps[i] == one.info.num_steps


@pytest.mark.slow
def test_minimizing_over_leading_axes_is_one_problem():
    A = jnp.stack([jnp.diag(jnp.arange(5.0)), jnp.diag(jnp.arange(5.0)[::-1])])

    def total(Q):
        return -jnp.sum(Q * (A @ Q))

    Q, info = jax.jit(lambda Q: optim.riemannian_lbfgs(total, Q, manifold=grassmann, gtol=1e-9))(
        jnp.stack([frame(0, (5, 2)), frame(1, (5, 2))])
    )
    np.testing.assert_allclose(info.value, -14, atol=1e-12)
    assert tree.size(Q) == 20
