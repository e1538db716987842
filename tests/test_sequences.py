"""The order of many systems, and the chains in which they are solved."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov
from subspace_jax.krylov import sequences
from tests.test_recycling import SOLVERS, slow_problem

N = 7


def brute_force(features):
    """Greedy nearest neighbours with all distances in a table."""
    rows = features.reshape(len(features), -1)
    distances = np.linalg.norm(rows[:, None] - rows, axis=2)
    order = [0]
    while len(order) < len(rows):
        distances[:, order[-1]] = np.inf
        order.append(int(np.argmin(distances[order[-1]])))
    return order


def length(features, order):
    path = np.asarray(features).reshape(len(features), -1)[np.asarray(order)]
    return np.linalg.norm(np.diff(path, axis=0), axis=1).sum()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3), "float32"), ((2, 1), "float32"), ((60, 3), "complex64"),
                         ((50, 4, 5), "float32")]
)  # fmt: skip
def test_the_order_is_the_brute_force_greedy_one(shape, dtype):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("complex64")
    features = features if dtype == "complex64" else features.real
    order = jax.jit(krylov.sort_systems)(features)
    np.testing.assert_array_equal(order, brute_force(features))
    if shape == (60, 3):  # a numpy array outside jit
        np.testing.assert_array_equal(krylov.sort_systems(features), order)


@pytest.mark.parametrize(
    "features",
    [
        np.array([0, 1e25, 2e20, 1e20, -1e10], "float32"),
        np.array([0, 3e-30, 1e-30, 2e-30], "float32"),
        np.array([0, 60000, -60000, 300], "float16"),
        np.array([10, 0, 200, 12, 11], "uint8"),
        np.array([5, -3, 4, 2**40], "int64"),
        np.zeros((4, 2), "float32"),
        np.array([1, np.nan, 2, np.inf, np.nan, 1.5], "float32"),
    ],
    ids=lambda features: f"{features.dtype}-{len(features)}",
)
def test_features_of_any_size_give_a_permutation_that_starts_with_the_nearest(features):
    order = np.asarray(krylov.sort_systems(features))
    np.testing.assert_array_equal(np.sort(order), np.arange(len(features)))
    rest = np.asarray(features, float).reshape(len(features), -1)[:, 0]
    assert abs(rest[order[1]] - rest[0]) == np.nanmin(np.abs(rest[1:] - rest[0]))
    in_cells = krylov.sort_systems(features, max_greedy=1)
    np.testing.assert_array_equal(np.sort(in_cells), np.arange(len(features)))


def chunks_alone(features):
    """Greedy among 512 in a row, without cells."""
    return sequences._greedy_in_chunks(jnp.asarray(features), jnp.arange(len(features)))


def test_cells_sort_many_systems_nearly_as_well():
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.uniform(size=(3000, 2)) @ rng.normal(size=(2, 30)))
    order = jax.jit(partial(krylov.sort_systems, max_greedy=100))(features)
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))
    greedy = length(features, krylov.sort_systems(features))
    assert length(features, order) < 1.25 * greedy
    assert length(features, chunks_alone(features)) > 2.25 * greedy


def test_fields_are_told_apart_by_their_low_frequencies():
    x = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    waves = np.stack([np.cos(x)[:, None] + 0 * x, np.sin(x) + 0 * x[:, None]])
    weights = np.random.default_rng(2).uniform(size=(3000, 2))
    fields = np.tensordot(weights, waves, 1).astype("float32")
    order = jax.jit(partial(krylov.sort_systems, max_greedy=100))(fields)
    assert length(fields, order) < 0.5 * length(fields, chunks_alone(fields.reshape(3000, -1)))


@pytest.mark.parametrize("parts", [(2,) * 7, (16, 8, 1, 1, 1, 1, 1), (128, 1, 1, 1, 1, 1, 1)])
def test_the_order_goes_from_cell_to_neighbouring_cell(parts):
    """Of a box as long along an axis as it has cells there, the sides of none equal."""
    sides = np.array(parts) * (1 + 1e-3 * np.arange(7)[::-1])
    cells = np.stack(np.meshgrid(*map(np.arange, parts)), axis=-1).reshape(-1, 7)
    at = np.where(sides < 1.5, 0.01, 1) * (cells + 0.5) * sides / parts
    box = np.concatenate([at, np.zeros((1, 7)), [np.where(sides < 1.5, 0.01, 1) * sides]])
    rank = np.asarray(sequences._cell_rank(jnp.asarray(box)))[:-2]
    np.testing.assert_array_equal(np.sort(rank), np.arange(128))
    np.testing.assert_array_equal(np.abs(np.diff(cells[np.argsort(rank)], axis=0)).sum(1), 1)


@pytest.fixture
def systems():
    with jax.enable_x64(True):
        A, b = slow_problem("gcrodr")
        noise = np.random.default_rng(3).normal(size=(N, *A.shape))
        bs = np.random.default_rng(4).normal(size=(N, b.size))
        yield A + 1e-4 * jnp.asarray(noise), jnp.asarray(bs)


def sequence(params, bs, **options):
    solver = partial(SOLVERS["gcrodr"], rtol=1e-9)
    return jax.jit(
        lambda params, bs: krylov.solve_sequence(solver, lambda A: A, params, bs, **options)
    )(params, bs)


@pytest.mark.parametrize("num_chains", [1, 2, 3, 7])
@pytest.mark.parametrize("shared", [True, False])
def test_every_system_is_solved_once_and_stands_where_the_caller_put_it(
    systems, num_chains, shared
):
    As, bs = systems
    order = np.random.default_rng(5).permutation(N)
    right = bs[0] if shared else bs
    xs, infos = sequence(As, right, order=order.tolist(), num_chains=num_chains)
    np.testing.assert_array_equal(infos.status, 0)
    exact = jnp.linalg.solve(As, jnp.broadcast_to(right, bs.shape)[..., None])[..., 0]
    np.testing.assert_allclose(xs, exact, atol=1e-5 * np.abs(exact).max())
    starts = order[:: -(-N // num_chains)]  # each chain's first system has no space yet
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(infos.drift) == 1), np.sort(starts))


@pytest.mark.slow
def test_chains_take_the_steps_of_calls_by_hand(systems):
    As, bs = systems
    order = np.array([3, 1, 4, 0, 5, 2, 6])
    _, infos = sequence(As, bs, order=jnp.asarray(order), num_chains=2)
    solve = jax.jit(partial(SOLVERS["gcrodr"], rtol=1e-9))
    for chain in (order[:4], order[4:]):
        space = None
        for i in chain:
            (_, info), space = solve(As[i], bs[i], recycle=space)
            assert abs(int(info.num_steps) - int(infos.num_steps[i])) <= 1


def test_a_system_that_fails_says_so_and_leaves_the_others_alone(systems):
    As, bs = systems
    xs, infos = sequence(As.at[2, 0, 0].set(jnp.nan), bs)
    statuses = np.zeros(N)
    statuses[2] = int(krylov.Status.NONFINITE)
    np.testing.assert_array_equal(infos.status, statuses)
    exact = jnp.linalg.solve(As, bs[..., None])[..., 0]
    others = np.arange(N) != 2
    np.testing.assert_allclose(xs[others], exact[others], atol=1e-5 * np.abs(exact).max())
    assert np.all(infos.drift[3:] < 1)


def test_every_system_has_a_preconditioner_of_its_own(systems):
    As, bs = systems
    scales = jnp.asarray(np.random.default_rng(6).uniform(1, 1e3, (N, bs.shape[1])))
    solver = partial(SOLVERS["gcrodr"], rtol=1e-9)
    scaled = {"A": As / scales[:, None], "d": 1 / scales}  # of the columns

    def jacobi(params):
        return lambda r: r / params["d"]

    def solve(**options):
        return jax.jit(
            lambda params: krylov.solve_sequence(
                solver, lambda params: params["A"], params, bs[0], **options
            )
        )(scaled)

    xs, infos = solve(preconditioner=jacobi)
    plain, without = sequence(As, bs[0])
    np.testing.assert_array_equal(infos.status, 0)
    np.testing.assert_allclose(xs / scales, plain, rtol=1e-6, atol=1e-6)
    assert np.all(np.abs(infos.num_steps - without.num_steps) <= 1)
    assert solve()[1].num_steps.sum() > 1.2 * infos.num_steps.sum()


@pytest.mark.slow
def test_right_hand_sides_of_one_axis_on_every_leaf_are_shared(systems):
    As, bs = systems
    parts = {"u": bs[0, :15], "v": bs[0, 15:]}

    def operator(A):
        def product(v):
            out = A @ jnp.concatenate([v["u"], v["v"]])
            return {"u": out[:15], "v": out[15:]}

        return product

    solver = partial(SOLVERS["gcrodr"], rtol=1e-9)
    xs, _ = jax.jit(lambda As: krylov.solve_sequence(solver, operator, As, parts))(As)
    plain, _ = sequence(As, bs[0])
    np.testing.assert_allclose(xs["v"], plain[:, 15:], atol=1e-5)


def test_systems_that_a_traced_order_leaves_out_are_not_solved(systems):
    As, bs = systems
    xs, infos = jax.jit(lambda order: sequence(As, bs, order=order))(
        jnp.array([0, 1, 1, 2, 5, 6, 9])
    )
    left_out = np.isin(np.arange(N), [3, 4])
    np.testing.assert_array_equal(np.asarray(infos.status) < 0, left_out)
    np.testing.assert_array_equal(np.all(np.isnan(xs), axis=1), left_out)


WRONG = {
    "order must be a permutation of 0 .. 6": lambda As, b: sequence(
        As, b, order=[1, 2, 3, 4, 5, 6, 7]
    ),
    r"common leading axis of systems, got \[\(0,\)\]": lambda As, b: sequence(As[:0], b),
    "need one common leading axis": lambda As, b: sequence({"A": As, "c": As[:2]}, b),
    "7 systems in params, 3 right-hand sides": lambda As, b: sequence(As, jnp.ones((3, 40))),
    r"order must have shape \(7,\)": lambda As, b: sequence(As, b, order=jnp.arange(3)),
    "num_chains must be at most 7 here, got 8": lambda As, b: sequence(As, b, num_chains=8),
    "features need a leading axis": lambda As, b: krylov.sort_systems(jnp.zeros((0, 3))),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG)
def test_wrong_operands_are_named(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message](jnp.ones((N, 40, 40)), jnp.ones(40))
