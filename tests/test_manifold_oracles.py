"""Manifolds against dense oracles in float64: what the table of properties cannot see."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax import linalg
from subspace_jax.manifolds import fixed_rank as fixed_rank_module
from subspace_jax.manifolds import flag, means, product
from subspace_jax.manifolds import oblique as oblique_module
from subspace_jax.manifolds import orthogonal as orthogonal_module
from subspace_jax.manifolds import spd as spd_module

pytestmark = pytest.mark.usefixtures("x64")

HOST = ("random_point", "from_dense")


def functions(M):
    """Those of a manifold, each compiled as one program: eager ones take seconds."""
    names = [name for name in getattr(M, "__all__", dir(M)) if name[0].islower()]
    found = {name: getattr(M, name) for name in names if callable(getattr(M, name))}
    return SimpleNamespace(**{n: f if n in HOST else jax.jit(f) for n, f in found.items()})


fixed_rank, oblique = functions(fixed_rank_module), functions(oblique_module)
orthogonal, spd = functions(orthogonal_module), functions(spd_module)
field = pytest.mark.parametrize(
    "dtype", [jnp.float64, pytest.param(jnp.complex128, marks=pytest.mark.slow)]
)


def at(M, *sizes, dtype=jnp.float64, seed=0):
    """A point and a tangent."""
    point, tangent = jax.random.split(jax.random.key(seed))
    p = M.random_point(point, *sizes, dtype=dtype)
    return p, M.random_tangent(tangent, p)


def adjoint(A):
    return np.asarray(A).conj().T


@field
def test_orthogonal_exp_and_log_are_scipys(dtype):
    p, v = at(orthogonal, 4, dtype=dtype)
    v = v / jnp.linalg.norm(v) * 2
    q = orthogonal.exp(p, v)
    np.testing.assert_allclose(q, p @ scipy.linalg.expm(adjoint(p) @ v), atol=1e-12)
    oracle = p @ scipy.linalg.logm(adjoint(p) @ q)
    np.testing.assert_allclose(orthogonal.log(p, q), oracle, atol=1e-11)


@pytest.mark.parametrize("angle", [1e-9, 0.5, 3.0, 3.13])
def test_orthogonal_log_finds_angles_close_to_a_half_turn(angle):
    q = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    found = orthogonal.log(jnp.eye(2), q)
    np.testing.assert_allclose(found, angle * np.array([[0, -1], [1, 0]]), rtol=1e-8, atol=1e-16)


def test_orthogonal_log_of_what_has_none_is_finite():
    for q in (jnp.diag(jnp.array([1.0, -1.0])), -jnp.eye(2)):
        assert jnp.all(jnp.isfinite(orthogonal.log(jnp.eye(2), q)))


@field
def test_spd_exp_log_and_dist_are_scipys(dtype):
    p, v = at(spd, 4, dtype=dtype)
    root = scipy.linalg.sqrtm(np.asarray(p))
    inverse = np.linalg.inv(root)
    q = spd.exp(p, v)
    oracle = root @ scipy.linalg.expm(inverse @ v @ inverse) @ root
    np.testing.assert_allclose(q, oracle, rtol=1e-10, atol=1e-10)
    oracle = root @ scipy.linalg.logm(inverse @ q @ inverse) @ root
    np.testing.assert_allclose(spd.log(p, q), oracle, rtol=1e-8, atol=1e-9)
    values = scipy.linalg.eigvalsh(np.asarray(p), np.asarray(q))
    np.testing.assert_allclose(spd.dist(p, q), np.linalg.norm(np.log(values)), rtol=1e-10)


def test_the_invariant_metric_does_not_see_congruences():
    p, v = at(spd, 3)
    A = jax.random.normal(jax.random.key(5), (3, 3))

    def moved(x):
        return A @ x @ A.T

    np.testing.assert_allclose(spd.norm(moved(p), moved(v)), spd.norm(p, v), rtol=1e-9)
    q = spd.exp(p, v)
    np.testing.assert_allclose(spd.dist(moved(p), moved(q)), spd.dist(p, q), rtol=1e-9)


def test_the_gradient_on_definite_matrices_is_the_one_of_the_metric():
    p, v = at(spd, 3)
    g = jax.grad(lambda p: jnp.linalg.slogdet(p)[1])(p)
    slope = jax.jvp(lambda p: jnp.linalg.slogdet(p)[1], (p,), (v,))[1]
    np.testing.assert_allclose(spd.inner(p, spd.gradient(p, g), v), slope, rtol=1e-10)


def test_close_definite_matrices_keep_the_digits_of_their_distance():
    p, v = at(spd, 3)
    near = spd.dist(p, spd.exp(p, 1e-9 * v))
    np.testing.assert_allclose(near, 1e-9 * spd.norm(p, v), rtol=1e-5)


@field
def test_flag_exp_and_transport_are_a_rotation_of_the_whole_space(dtype):
    M = functions(flag.blocks(1, 2))
    p, v = at(M, 6, dtype=dtype)
    W = v - p @ (adjoint(p) @ v) / 2
    rotation = scipy.linalg.expm(np.asarray(W @ adjoint(p) - p @ adjoint(W)))
    np.testing.assert_allclose(M.exp(p, v), rotation @ p, atol=1e-12)
    np.testing.assert_allclose(M.transport(p, v, v), rotation @ v, atol=1e-12)


@field
def test_flags_do_not_see_rotations_within_blocks(dtype):
    M = functions(flag.blocks(1, 2))
    p, v = at(M, 6, dtype=dtype)
    turn = scipy.linalg.block_diag(
        np.eye(1), linalg.orthonormalize(jax.random.normal(jax.random.key(3), (2, 2), dtype))
    )
    turned = M.exp(p @ turn, v @ turn)
    np.testing.assert_allclose(turned, M.exp(p, v) @ turn, atol=1e-12)
    np.testing.assert_allclose(M.dist(p, p @ turn), 0, atol=1e-14)
    np.testing.assert_allclose(M.norm(p @ turn, v @ turn), M.norm(p, v), rtol=1e-12)
    assert M.dist(p, p[:, jnp.array([1, 0, 2])]) > 0.5


def test_a_flag_of_one_block_is_a_grassmannian():
    M = functions(flag.blocks(2))
    p, v = at(M, 5)
    v = v / jnp.linalg.norm(v)
    q = M.exp(p, v)
    np.testing.assert_allclose(p.T @ v, 0, atol=1e-13)
    np.testing.assert_allclose(linalg.geodesic_distance(p, q), M.norm(p, v), rtol=1e-10)
    np.testing.assert_allclose(M.dist(p, q), linalg.chordal_distance(p, q), rtol=1e-12)


@field
def test_the_tangent_of_fixed_rank_is_the_dense_projection(dtype):
    p, _ = at(fixed_rank, 6, 5, 2, dtype=dtype)
    g = jax.random.normal(jax.random.key(1), (6, 5), dtype)
    Pu, Pv = p.U @ adjoint(p.U), p.V @ adjoint(p.V)
    oracle = Pu @ g + g @ Pv - Pu @ g @ Pv
    v = fixed_rank.project_tangent(p, g)
    np.testing.assert_allclose(fixed_rank.dense_tangent(p, v), oracle, atol=1e-12)
    np.testing.assert_allclose(fixed_rank.norm(p, v), np.linalg.norm(oracle), rtol=1e-12)


@field
def test_gradients_of_the_factors_make_the_gradient_of_the_matrix(dtype):
    p, _ = at(fixed_rank, 6, 5, 2, dtype=dtype)
    target = jax.random.normal(jax.random.key(1), (6, 5), dtype)

    def loss(A):
        return jnp.sum(jnp.abs(A - target) ** 2) + jnp.sum(A.real**3)

    dense = jax.grad(loss)(fixed_rank.dense(p)).conj()
    factors = jax.tree.map(jnp.conj, jax.grad(lambda p: loss(fixed_rank.dense(p)))(p))
    direct, found = (fixed_rank.project_tangent(p, g) for g in (dense, factors))
    for x, y in zip(direct, found, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10)


@field
def test_the_retraction_of_fixed_rank_agrees_with_the_projection_to_second_order(dtype):
    p, v = at(fixed_rank, 6, 5, 2, dtype=dtype)
    A, Z = fixed_rank.dense(p), fixed_rank.dense_tangent(p, v)

    def error(t):
        moved = fixed_rank.retract(p, jax.tree.map(lambda x: t * x, v))
        nearest = fixed_rank.from_dense(A + t * Z, 2)
        return np.linalg.norm(fixed_rank.dense(moved) - fixed_rank.dense(nearest))

    assert error(1e-3) < 12 * error(5e-4) + 1e-13
    np.testing.assert_allclose(np.log2(error(2e-3) / error(1e-3)), 3, atol=0.1)


def test_the_distance_of_fixed_rank_is_the_dense_one_and_keeps_digits():
    p, v = at(fixed_rank, 6, 5, 2)
    q, _ = at(fixed_rank, 6, 5, 2, seed=1)
    oracle = np.linalg.norm(fixed_rank.dense(p) - fixed_rank.dense(q))
    np.testing.assert_allclose(fixed_rank.dist(p, q), oracle, rtol=1e-12)
    near = fixed_rank.retract(p, jax.tree.map(lambda x: 1e-9 * x, v))
    np.testing.assert_allclose(fixed_rank.dist(p, near), 1e-9 * fixed_rank.norm(p, v), rtol=1e-5)


@pytest.mark.slow
def test_a_product_is_its_factors_with_squared_lengths_added():
    M = product.of({"a": oblique, "b": (orthogonal, spd)})
    p = M.random_point(jax.random.key(0), {"a": (4, 2), "b": ((3,), (2,))}, dtype=jnp.float64)
    v = M.random_tangent(jax.random.key(1), p)
    q = M.exp(p, jax.tree.map(lambda x: 0.3 * x, v))
    parts = [(oblique, "a", None), (orthogonal, "b", 0), (spd, "b", 1)]

    def of(tree, name, i):
        return tree[name] if i is None else tree[name][i]

    squares = [N.dist(of(p, *at), of(q, *at)) ** 2 for N, *at in parts]
    np.testing.assert_allclose(M.dist(p, q) ** 2, np.sum(squares), rtol=1e-12)
    squares = [N.norm(of(p, *at), of(v, *at)) ** 2 for N, *at in parts]
    np.testing.assert_allclose(M.norm(p, v) ** 2, np.sum(squares), rtol=1e-12)
    back = M.log(p, q)
    for _, *at in parts:
        np.testing.assert_allclose(of(back, *at), 0.3 * of(v, *at), atol=1e-10)
    nested = product.of([M, flag.blocks(1, 1)])
    sizes = [({"a": (4, 2), "b": ((3,), (2,))},), (5,)]
    assert nested.check(nested.random_point(jax.random.key(0), sizes)) < 1e-6
    with pytest.raises(ValueError, match="need a pytree of manifolds"):
        product.of({"a": 3})


@pytest.mark.parametrize(
    ("M", "sizes"),
    [
        (oblique, (4, 2)),
        (spd, (3,)),
        pytest.param(orthogonal, (3,), marks=pytest.mark.slow),
    ],
)
def test_the_karcher_mean_is_where_the_logarithms_cancel(M, sizes):
    center, _ = at(M, *sizes)
    keys = jax.random.split(jax.random.key(1), 5)
    tangents = jax.vmap(lambda key: 0.2 * M.random_tangent(key, center))(keys)
    points = jax.vmap(lambda v: M.exp(center, v))(tangents)
    weights = jnp.arange(1.0, 6)
    solve = jax.jit(lambda points: means.karcher_mean(points, weights, manifold=M))
    mean, info = solve(points)
    assert info.converged
    assert info.num_steps < 40
    logs = jax.jit(jax.vmap(M.log, (None, 0)))(mean, points)
    np.testing.assert_allclose(jnp.tensordot(weights, logs, 1), 0, atol=1e-12)
    cost = jax.jit(lambda p: weights @ jax.vmap(M.dist, (None, 0))(p, points) ** 2)
    for v in tangents:
        assert cost(mean) < cost(M.exp(mean, 0.1 * M.project_tangent(mean, v)))


def test_the_karcher_mean_of_commuting_matrices_is_the_geometric_one():
    values = jnp.array([[1.0, 4.0], [9.0, 1.0], [3.0, 2.0]])
    points = jax.vmap(jnp.diag)(values)
    mean, info = means.karcher_mean(points, manifold=spd)
    assert info.converged
    np.testing.assert_allclose(mean, jnp.diag(jnp.prod(values, axis=0) ** (1 / 3)), atol=1e-12)
    _, early = means.karcher_mean(points, manifold=spd, maxiter=0)
    assert not early.converged
