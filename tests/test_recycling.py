"""What the recycling solvers promise beside a solution: their space, its cost, its use."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov
from subspace_jax.krylov import RecycleSpace, Status
from tests.problems import RECYCLING, matrix, normal, problem, relative_residual

pytestmark = pytest.mark.usefixtures("x64")

K, M = 4, 10
SOLVERS = {
    "gcrodr": partial(krylov.gcrodr, restart=M, num_recycled=K),
    "recycled_cg": partial(krylov.recycled_cg, num_recycled=K, num_directions=M),
}


def slow_problem(name, n=40, dtype="float64", seed=0):
    """A few eigenvalues near zero, which a recycled space takes away."""
    rng = np.random.default_rng(seed)
    values = np.append(np.geomspace(1e-3, 1e-2, K), np.linspace(1, 2, n - K))
    Q = np.linalg.qr(normal(rng, (n, n), dtype))[0]
    A = (Q * values) @ Q.conj().T
    if name == "gcrodr":
        A = A + 1e-4 * normal(rng, (n, n), dtype)
    return jnp.asarray(A, dtype), jnp.asarray(normal(rng, (n,), dtype), dtype)


def as_matrix(rows):
    return np.asarray(rows).T


def counting(A):
    """The product with A, and a list that grows with each."""
    calls = []

    def tick(_):
        calls.append(1)
        return np.int32(0)

    def product(v):
        like = jax.ShapeDtypeStruct((), np.int32)
        return A @ (v + jax.pure_callback(tick, like, v[0], vmap_method="sequential"))

    return product, calls


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("name", RECYCLING)
def test_the_space_belongs_to_the_operator_and_saves_steps(name, dtype):
    A, b = slow_problem(name, dtype=dtype)
    rtol = 1e-9 if "32" not in dtype else 1e-4
    solve = jax.jit(partial(SOLVERS[name], rtol=rtol))
    (x, first), space = solve(A, b)
    (y, second), space = solve(A, b[::-1], recycle=space)
    assert relative_residual(A, b, x) <= 1.01 * rtol
    assert relative_residual(A, b[::-1], y) <= 1.01 * rtol
    assert int(second.num_steps) < int(first.num_steps)
    U, C = map(as_matrix, space)
    tolerance = 1e-9 if "32" not in dtype else 1e-3
    np.testing.assert_allclose(A @ U, C, atol=tolerance * np.abs(C).max())
    left = C if name == "gcrodr" else U
    np.testing.assert_allclose(left.conj().T @ C, np.eye(K), atol=tolerance)
    assert space.U.dtype == space.C.dtype == b.dtype


@pytest.mark.parametrize("name", RECYCLING)
def test_the_space_holds_the_slow_directions(name):
    A, b = slow_problem(name)
    solve = jax.jit(partial(SOLVERS[name], rtol=1e-9))
    space = solve(A, b)[1]
    for _ in range(3):
        space = solve(A, b, recycle=space)[1]
    slow = np.linalg.svd(np.asarray(A))[2][-K:]
    U = np.linalg.qr(as_matrix(space.U))[0]
    assert np.linalg.norm(slow.T - U @ (U.T @ slow.T)) < 0.1


@pytest.mark.parametrize("name", RECYCLING)
@pytest.mark.slow
def test_every_product_is_counted_those_of_the_start_too(name):
    A, b = slow_problem(name)
    counted, calls = counting(A)

    def num_products(**options):
        calls.clear()
        solution, space = jax.block_until_ready(
            jax.jit(lambda b: SOLVERS[name](counted, b, **options))(b)
        )
        assert len(calls) == int(solution.info.num_matvecs)
        return solution.info, space

    cold, space = num_products()
    warm, _ = num_products(recycle=space)
    known, _ = num_products(recycle=space, same_operator=True)
    assert int(warm.num_matvecs) - int(known.num_matvecs) == K
    assert int(warm.num_steps) == int(known.num_steps) < int(cold.num_steps)


@pytest.mark.parametrize("name", RECYCLING)
@pytest.mark.slow
def test_drift_is_small_for_equal_systems_and_one_for_the_first(name):
    A, b = slow_problem(name)
    solve = jax.jit(partial(SOLVERS[name], rtol=1e-9))
    (_, info), space = solve(A, b)
    assert float(info.drift) == 1
    for _ in range(3):
        (_, info), space = solve(A, b, recycle=space)
    assert float(info.drift) < 0.1
    U = jax.random.normal(jax.random.key(0), space.U.shape)
    assert float(solve(A, b, recycle=RecycleSpace(U, U))[0].info.drift) > 0.5


@pytest.mark.parametrize("name", RECYCLING)
def test_an_empty_space_is_no_space(name):
    A, b = slow_problem(name)
    solve = jax.jit(SOLVERS[name])
    zeros = jnp.zeros((K, b.size))
    none, empty = solve(A, b), solve(A, b, recycle=RecycleSpace(zeros, zeros))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), none, empty)


@pytest.mark.parametrize("name", RECYCLING)
def test_a_dependent_space_does_no_harm(name):
    A, b = slow_problem(name)
    solve = jax.jit(SOLVERS[name])
    space = solve(A, b)[1]
    twice = space.U.at[1].set(2 * space.U[0]).at[2].set(0)
    (x, info), after = solve(A, b, recycle=RecycleSpace(twice, twice))
    assert Status(int(info.status)) == Status.CONVERGED
    assert relative_residual(A, b, x) < 1.01e-5
    assert np.linalg.matrix_rank(after.U) == K


@pytest.mark.slow
@pytest.mark.parametrize("name", RECYCLING)
def test_preconditioned_warm_started_and_on_pytrees(name):
    A, b = slow_problem(name)
    scale = jnp.linspace(1, 30, b.size)
    A = scale[:, None] * A * scale
    plain = jax.jit(partial(SOLVERS[name], rtol=1e-9, preconditioner=lambda r: r / scale**2))
    tree = {"u": b[:15].reshape(3, 5), "v": b[15:]}

    def on_tree(v):
        out = A @ jnp.concatenate([v["u"].ravel(), v["v"]])
        return {"u": out[:15].reshape(3, 5), "v": out[15:]}

    def precondition(r):
        return {"u": r["u"] / scale[:15].reshape(3, 5) ** 2, "v": r["v"] / scale[15:] ** 2}

    x0 = jnp.asarray(np.random.default_rng(5).normal(size=b.size))
    start = {"u": x0[:15].reshape(3, 5), "v": x0[15:]}
    nested = jax.jit(
        lambda b, x0, space: SOLVERS[name](
            on_tree, b, x0, recycle=space, rtol=1e-9, preconditioner=precondition
        )
    )
    (_, first), space = plain(A, b)
    (x, info), _ = plain(A, b, x0, recycle=space)
    _, leaves = nested(tree, None, None)
    (y, other), _ = nested(tree, start, leaves)
    assert int(info.num_steps) < int(first.num_steps)
    assert relative_residual(A, b, x) < 1.01e-9
    np.testing.assert_allclose(y["v"], x[15:], atol=1e-6 * np.abs(x).max())
    assert abs(int(other.num_steps) - int(info.num_steps)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECYCLING)
def test_lanes_of_a_vmap_carry_their_own_space(name):
    systems = [slow_problem(name, seed=seed) for seed in range(3)]
    As, bs = (jnp.stack(parts) for parts in zip(*systems, strict=True))
    solve = jax.jit(partial(SOLVERS[name], rtol=1e-9))
    spaces = [solve(A, b)[1] for A, b in systems]
    spaces[1] = jax.tree.map(jnp.zeros_like, spaces[1])  # a cold lane beside warm ones
    alone = [
        solve(A, b[::-1], recycle=space) for (A, b), space in zip(systems, spaces, strict=True)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *spaces)
    together = jax.jit(jax.vmap(lambda A, b, space: solve(A, b, recycle=space)))(
        As, bs[:, ::-1], stacked
    )
    (x, info), _ = together
    np.testing.assert_array_equal(info.status, 0)
    for lane, ((y, single), _) in enumerate(alone):
        np.testing.assert_allclose(info.num_steps[lane], single.num_steps, atol=1)
        np.testing.assert_allclose(x[lane], y, atol=1e-6 * np.abs(y).max())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", RECYCLING)
def test_gradients_with_a_space_equal_those_of_the_dense_solve(name, dtype):
    p = problem(name, n=25, dtype=dtype, condition=20)
    space = jax.jit(SOLVERS[name])(p.A, p.b)[1]

    def hermitian(A):
        return (A + A.conj().T) / 2 if name == "recycled_cg" else A

    def loss(solve):
        return lambda A, b: jnp.sum(jnp.abs(solve(hermitian(A), b)) ** 4)

    def ours(A, b):
        return SOLVERS[name](A, b, recycle=space, same_operator=True, rtol=1e-13)[0].value

    found = jax.jit(jax.grad(loss(ours), (0, 1)))(p.A, p.b)
    for a, d in zip(found, jax.grad(loss(jnp.linalg.solve), (0, 1))(p.A, p.b), strict=True):
        np.testing.assert_allclose(a, d, atol=1e-6 * np.abs(d).max())


@pytest.mark.slow
def test_a_hermitian_adjoint_reuses_the_space():
    A, b = slow_problem("recycled_cg")
    space = jax.jit(SOLVERS["recycled_cg"])(A, b)[1]
    counted, calls = counting(A)

    def products_of_gradient(space):
        calls.clear()

        def value(b):
            return SOLVERS["recycled_cg"](counted, b, recycle=space, same_operator=True)[0]

        x, pullback, _ = jax.vjp(value, b, has_aux=True)
        forward = len(calls)
        jax.block_until_ready(pullback(jnp.roll(x, 1)))
        return len(calls) - forward

    assert products_of_gradient(space) < products_of_gradient(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECYCLING)
def test_a_failed_solve_hands_on_the_space_that_came(name):
    A, b = slow_problem(name)
    solve = jax.jit(SOLVERS[name])
    space = solve(A, b)[1]
    (_, info), after = solve(A.at[3, 3].set(jnp.nan), b, recycle=space)
    assert Status(int(info.status)) == Status.NONFINITE
    jax.tree.map(np.testing.assert_array_equal, after, space)
    (_, info), _ = jax.jit(partial(SOLVERS[name], maxiter=3, rtol=1e-12))(A, b, recycle=space)
    assert Status(int(info.status)) == Status.MAX_STEPS
    assert int(info.num_steps) == 3


def test_deflated_restarts_pass_where_plain_ones_stall():
    A, b = slow_problem("gcrodr", n=60)
    plain = jax.jit(partial(krylov.gmres, restart=M, maxiter=400))(A, b).info
    deflated = jax.jit(partial(krylov.gmres, restart=M, num_deflated=K, maxiter=400))(A, b).info
    assert int(deflated.status) == 0
    assert int(deflated.num_steps) < 0.5 * int(plain.num_steps)


WRONG = {
    "need num_recycled < restart": lambda A, b: krylov.gcrodr(A, b, restart=5, num_recycled=5),
    "num_recycled must be an integer": lambda A, b: krylov.recycled_cg(A, b, num_recycled=0),
    "num_directions must be": lambda A, b: krylov.recycled_cg(A, b, num_directions=0),
    "rtol must not be None": lambda A, b: krylov.gcrodr(A, b, rtol=None, maxiter=3),
    "recycle.U has shape": lambda A, b: krylov.recycled_cg(
        A, b, recycle=RecycleSpace(jnp.zeros((3, 40)), jnp.zeros((3, 40)))
    ),
    "recycle.C has dtype": lambda A, b: krylov.gcrodr(
        A, b, recycle=RecycleSpace(jnp.zeros((20, 40)), jnp.zeros((20, 40), "float32"))
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG)
def test_wrong_operands_are_named(message):
    A, b = jnp.asarray(matrix("cg")), jnp.ones(40)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: WRONG[message](A, b))
