"""Solvers under vmap, in chunks, with rare tests, and over devices."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import krylov
from subspace_jax.krylov import Status
from subspace_jax.linalg import operators
from tests.problems import ALL, GENERAL, LEAST_SQUARES, SQUARE, call, each, matrix, problem, status


def systems(name, num=4, n=30):
    """Systems of one shape that take different numbers of steps."""
    conditions = np.geomspace(2, 200, num)
    As = np.stack([matrix(name, n, "float32", c, seed) for seed, c in enumerate(conditions)])
    if name in GENERAL:
        As = As + (np.arange(num) * np.eye(n)[..., None]).transpose(2, 0, 1)
    shape = (num, As.shape[1], 2) if name == "block_cg" else (num, As.shape[1])
    bs = np.random.default_rng(1).normal(size=shape)
    return jnp.asarray(As, "float32"), jnp.asarray(bs, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", each(ALL))
def test_every_lane_of_a_vmap_stops_on_its_own(name):
    As, bs = systems(name)

    def solve(A, b):
        return call(name, A, b, rtol=1e-4, history=True)

    together = jax.jit(jax.vmap(solve))(As, bs)
    apart = [jax.jit(solve)(A, b) for A, b in zip(As, bs, strict=True)]
    steps = [int(solution.info.num_steps) for solution in apart]
    assert len(set(steps)) > 1
    np.testing.assert_array_equal(together.info.status, 0)
    np.testing.assert_allclose(together.info.num_steps, steps, atol=1)
    for lane, alone in enumerate(apart):
        np.testing.assert_allclose(together.value[lane], alone.value, atol=2e-3)
        assert np.isfinite(together.info.history[lane]).sum() == together.info.num_steps[lane]


@pytest.mark.parametrize("name", ["cg", "gmres"])
def test_lanes_that_are_done_stay_as_they_are_beside_one_that_fails(name):
    As, bs = systems(name)
    solve = jax.jit(jax.vmap(lambda A, b: call(name, A, b, rtol=1e-4)))
    alone = solve(As[1:2], bs[1:2])
    As = As.at[0].set(jnp.nan).at[2].multiply(-1 if name == "cg" else 1)
    together = solve(As, bs)
    assert Status(int(together.info.status[0])) == Status.NONFINITE
    if name == "cg":
        assert Status(int(together.info.status[2])) == Status.INDEFINITE
    np.testing.assert_allclose(together.value[1], alone.value[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over", ["A", "b", "x0"])
def test_any_operand_may_be_the_mapped_one(over):
    As, bs = systems("cg")
    operands = {"A": As[0], "b": bs[0], "x0": 0 * bs[0]}
    operands[over] = {"A": As, "b": bs, "x0": bs}[over]
    axes = [0 if name == over else None for name in ("A", "b", "x0")]
    solve = jax.vmap(lambda A, b, x0: krylov.cg(A, b, x0, rtol=1e-4), in_axes=axes)
    np.testing.assert_array_equal(solve(*operands.values()).info.status, 0)


@pytest.mark.slow
def test_gradients_and_maps_commute():
    As, bs = systems("cg")

    def loss(A, b):
        return jnp.sum(krylov.cg(A, b, rtol=1e-6).value ** 2)

    inside = jax.vmap(jax.grad(loss, 1))(As, bs)
    outside = jax.grad(lambda bs: jnp.sum(jax.vmap(loss)(As, bs)))(bs)
    np.testing.assert_allclose(inside, outside, rtol=1e-4, atol=1e-3 * jnp.abs(inside).max())
    twice = jax.vmap(jax.vmap(loss, (None, 0)), (0, None))(As, bs)
    np.testing.assert_allclose(jnp.diagonal(twice), jax.vmap(loss)(As, bs), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", each(ALL))
def test_rare_tests_of_the_condition_change_nothing(name):
    p = problem(name, n=30, dtype="float32", condition=30)
    often = call(name, p.A, p.b, rtol=1e-4)
    rarely = call(name, p.A, p.b, rtol=1e-4, check_every=7)
    assert int(often.info.num_steps) == int(rarely.info.num_steps)
    assert int(often.info.num_matvecs) == int(rarely.info.num_matvecs)
    np.testing.assert_allclose(rarely.value, often.value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rare_tests_under_vmap():
    for name in ("cg", "gmres"):
        As, bs = systems(name)
        often = jax.vmap(lambda A, b, name=name: call(name, A, b, rtol=1e-4))(As, bs)
        rarely = jax.vmap(lambda A, b, name=name: call(name, A, b, rtol=1e-4, check_every=5))(
            As, bs
        )
        np.testing.assert_array_equal(often.info.num_steps, rarely.info.num_steps)
        np.testing.assert_allclose(rarely.value, often.value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_chunks_give_what_vmap_gives(chunk):
    As, bs = systems("cg")

    def solve(A, b):
        return krylov.cg(A, b, rtol=1e-4)

    expected = jax.vmap(solve)(As, bs)
    found = krylov.batched(krylov.cg, chunk=chunk)(As, bs, rtol=1e-4)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.info.num_steps, expected.info.num_steps, atol=1)


def test_chunks_are_differentiable_and_refuse_uneven_operands():
    As, bs = systems("cg")

    def solve(A, b):
        return krylov.cg(A, b, rtol=1e-5).value

    gradient = jax.grad(lambda bs: jnp.sum(krylov.batched(solve)(As, bs)))(bs)
    expected = jax.vmap(lambda A: jnp.linalg.solve(A, jnp.ones(len(A))))(As)
    np.testing.assert_allclose(gradient, expected, atol=1e-3 * jnp.abs(expected).max())
    with pytest.raises(ValueError, match=r"one common leading axis, got \[\(3,\), \(4,\)\]"):
        krylov.batched(solve)(As, bs[:3])
    with pytest.raises(ValueError, match="chunk must be an integer of at least 1, got 0"):
        krylov.batched(solve, chunk=0)


@pytest.mark.parametrize("name", each(SQUARE))
def test_the_operators_python_code_runs_once(name):
    p = problem(name, n=20, dtype="float32", condition=5)
    chex.clear_trace_counter()

    @chex.assert_max_traces(n=1)
    def A(v):
        return p.A @ v

    jax.jit(lambda b: call(name, A, b).value).lower(p.b)


def test_tolerances_may_be_traced():
    p = problem("cg", n=40, dtype="float32", condition=100)
    steps = jax.vmap(lambda rtol: krylov.cg(p.A, p.b, rtol=rtol).info.num_steps)
    found = steps(jnp.array([1e-1, 1e-3, 1e-5]))
    assert found[0] < found[1] < found[2]
    tall = problem("lsmr", n=20, dtype="float32")
    found = jax.jit(lambda rtol: krylov.lsmr(tall.A, tall.b, rtol=rtol).info.status)(1e-3)
    assert Status(int(found)) == Status.CONVERGED


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", each([name for name in ALL if name != "block_cg"]))
def test_half_precision_accumulates_in_single(name, dtype):
    """The sum of 100,000 ones is beyond float16, and in bfloat16 it ends at 256."""
    n = 100_000
    diagonal = jnp.linspace(1, 4, n).astype(dtype)
    A, b = (lambda v: diagonal * v), jnp.ones(n, dtype)
    x, info = call(name, A, b, jnp.zeros(n, dtype), rtol=2e-2)
    assert x.dtype == dtype
    assert Status(int(info.status)) == Status.CONVERGED
    r = 1 - np.asarray(diagonal, float) * np.asarray(x, float)
    assert np.linalg.norm(r) < (4e-2 if name in LEAST_SQUARES else 2.5e-2) * np.sqrt(n)
    np.testing.assert_allclose(info.residual_norm, np.linalg.norm(r), rtol=0.3)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import PartitionSpec as P
from subspace_jax import krylov

mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
n = 64
diagonal = jnp.linspace(1.0, 30.0, n)
b = jnp.sin(jnp.arange(n, dtype=jnp.float32))

def inner(x, y):
    return jax.lax.psum(jnp.vdot(x, y), "x")

for name, size in (("cg", 1.0), ("minres", 1.0), ("gmres", 1.0), ("bicgstab", 1.0), ("cg", 1e-30),
                   ("single_reduction_cg", 1.0), ("single_reduction_cg", 1e-30)):
    @partial(jax.shard_map, mesh=mesh, in_specs=(P("x"), P("x")), out_specs=(P("x"), P(), P()),
             check_vma=False)
    def solve(diagonal, b):
        def A(v):  # a periodic second difference, with neighbours from other devices
            left = jax.lax.ppermute(v[-1:], "x", [(i, (i + 1) % 8) for i in range(8)])
            right = jax.lax.ppermute(v[:1], "x", [(i, (i - 1) % 8) for i in range(8)])
            w = jnp.concatenate([left, v, right])
            return diagonal * v + 2 * v - w[:-2] - w[2:]
        x, info = getattr(krylov, name)(A, b, rtol=1e-5, inner_product=inner)
        return x, info.status, info.num_steps

    x, status, steps = jax.jit(solve)(diagonal, jnp.float32(size) * b)
    dense = np.diag(np.asarray(diagonal) + 2) - np.roll(np.eye(n), 1, 0) - np.roll(np.eye(n), -1, 0)
    error = np.abs(np.asarray(x) / np.float32(size) - np.linalg.solve(dense, np.asarray(b))).max()
    assert status == 0 and 5 < steps < 60 and error < 1e-4, (name, size, status, steps, error)
"""


def test_a_psum_in_the_inner_product_solves_over_eight_devices(
    on_eight_devices,
):
    on_eight_devices(SHARDED)


SUMS = """
import jax, jax.numpy as jnp, re
from functools import partial
from jax.sharding import PartitionSpec as P
from experiments import meshes
from subspace_jax import krylov

mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
diagonal = jnp.linspace(1.0, 30.0, 64)
b = jnp.sin(jnp.arange(64.0))

def inner(x, y):
    return jax.lax.psum(jnp.vdot(x, y), "x")

def sums_in_a_step(name, preconditioned):
    @partial(jax.shard_map, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False)
    def solve(diagonal, b):
        M = (lambda r: r / (1 + diagonal)) if preconditioned else None
        solver = partial(getattr(krylov, name), preconditioner=M, inner_product=inner)
        return solver(lambda v: diagonal * v, b, rtol=None, maxiter=30).value

    program = jax.jit(solve).lower(diagonal, b).compile().as_text()
    body, = re.findall(r"body=(%?[\\w.-]+)", program)
    text = program[program.index(f"\\n{body} ("):]
    return meshes.collectives(text[: text.index("\\n}")])

assert sums_in_a_step("cg", False) == {"all-reduce": (2, 2 * 4)}
assert sums_in_a_step("cg", True) == {"all-reduce": (2, 2 * 4)}
assert sums_in_a_step("single_reduction_cg", False) == {"all-reduce": (1, 2 * 4)}
assert sums_in_a_step("single_reduction_cg", True) == {"all-reduce": (1, 3 * 4)}
"""


def test_all_inner_products_of_a_step_are_one_sum_over_devices_where_cg_takes_two(
    on_eight_devices,
):
    on_eight_devices(SUMS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rtol", [1e-4, 1e-12])
def test_a_single_reduction_costs_no_steps_and_one_product_in_all(rtol):
    b = jnp.asarray(np.random.default_rng(0).normal(size=(32, 32)))
    usual, once = (
        solver(operators.laplacian, b, rtol=rtol).info
        for solver in (krylov.cg, krylov.single_reduction_cg)
    )
    assert abs(int(once.num_steps) - int(usual.num_steps)) <= 1
    beside_steps = [int(info.num_matvecs - info.num_steps) for info in (usual, once)]
    assert beside_steps[1] == beside_steps[0] + 1


def test_rounding_is_not_taken_for_negative_curvature(compiler_options):
    """Of some of these the recurrence of the curvature turns negative."""

    @partial(jax.jit, compiler_options=compiler_options)
    def solve(A, b):
        return krylov.single_reduction_cg(A, b, rtol=1e-12, maxiter=2000)

    problems = (problem("cg", 20, "float32", 1e6, seed) for seed in range(12))
    found = [status(solve(p.A, p.b)) for p in problems]
    assert Status.INDEFINITE not in found
    assert found.count(Status.ATTAINABLE_ACCURACY) >= 10


def test_arrays_over_devices_need_nothing_special():
    p = problem("cg", n=32, dtype="float32", condition=10)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=auto)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    solution = jax.jit(krylov.cg)(jax.device_put(p.A, rows), jax.device_put(p.b, rows))
    assert status(solution) == Status.CONVERGED


GRIDS = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from experiments import meshes
from subspace_jax import krylov
from subspace_jax.linalg import operators

def solvers(A):
    M = lambda r: r / 4
    for name in names:
        solver = getattr(krylov, name.removesuffix(" with M"))
        if name == "block_cg":
            yield lambda b: krylov.block_cg(A, jnp.stack([b, b**2], -1))
        elif name == "flexible_cg":
            yield partial(solver, A, direction=M)
        elif name in ("lsmr", "cgls"):
            yield partial(solver, A, AT=A)
        else:
            yield partial(solver, A, preconditioner=M if name.endswith("M") else None)

values = np.random.default_rng(0).normal(size=(16, 16)).astype("float32")
diagonal = np.linspace(1, 9, 256, dtype="float32").reshape(16, 16)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        put = partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("x", "y")))
        c = jnp.exp(values)
        for stencil in (operators.diffusion(c), operators.convection_diffusion(c, (1.0, -2.0))):
            product = jax.jit(stencil)(put(values))
            np.testing.assert_allclose(product, stencil(values), rtol=1e-4, atol=1e-4)
        d = put(diagonal)
        shared, alone = (lambda v, d=d: operators.laplacian(v) + d * v for d in (d, diagonal))
        for solve, plain in zip(solvers(shared), solvers(alone), strict=True):
            def loss(b, solve=solve):
                return jnp.sum(solve(b).value ** 3)
            program = jax.jit(jax.value_and_grad(loss)).lower(put(values)).compile()
            assert not {"all-gather", "all-to-all"} & set(meshes.collectives(program.as_text()))
            found, wanted = program(put(values))[1], jax.grad(partial(loss, solve=plain))(values)
            np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2 * np.abs(wanted).max())
"""


@pytest.mark.parametrize(
    "names",
    [
        ("cg",),
        pytest.param(
            ("cg with M", "single_reduction_cg", "minres", "bicgstab", "gmres", "gmres with M",
             "fgmres with M", "lsmr", "cgls", "flexible_cg", "block_cg"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cg", "others"],
)  # fmt: skip
def test_no_vector_is_gathered_from_a_grid_over_devices_in_two_axes(on_eight_devices, names):
    on_eight_devices(f"names = {names}\n{GRIDS}")


@pytest.mark.parametrize("name", each(LEAST_SQUARES))
def test_a_value_alone_compiles_no_solve_for_derivatives(name):
    p = problem(name)
    program = jax.jit(lambda b: call(name, p.A, b).value).lower(p.b).compile().as_text()
    assert program.count(" while(") == 2  # steps, and the checks between them
