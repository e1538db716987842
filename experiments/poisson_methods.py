"""The solvers and preconditioners that `poisson` sets side by side: ours, jax's, scipy's, pyamg's.

A method is (config, problem) -> (rtol -> `Found`), compiled before it is called.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict
from pyamg import smoothed_aggregation_solver
from scipy import sparse
from scipy.sparse import linalg as scipy_linalg
from threadpoolctl import ThreadpoolController

from experiments.photograph import Problem
from subspace_jax import krylov
from subspace_jax.krylov import precondition


class Found(NamedTuple):
    """What a solve leaves."""

    u: np.ndarray
    steps: int
    matvecs: int
    status: str = ""
    """As the library says it; empty for others'."""


def ours(solver: str, preconditioner: str = "") -> Callable:
    """A method of this library: (config, problem) -> (rtol -> `Found`), compiled."""

    def build(config, problem):
        M = PRECONDITIONERS[preconditioner](config, problem) if preconditioner else None
        b = jnp.asarray(problem.inside, config.dtype)

        @jax.jit
        def solve(operator, M, b, rtol):
            how: dict[str, Any] = {"preconditioner": M}
            if solver == "flexible_cg":
                how = {"direction": M}
            how |= {"restart": config.restart} if "gmres" in solver else {}
            how |= {"rtol": rtol, "maxiter": config.maxiter}  # traced: one program for all
            if solver in ("lsmr", "cgls"):  # these would stop at A^H r: what counts here is r
                size = jnp.linalg.norm(b.ravel())
                how = {"AT": operator, "rtol": 0.0, "atol": rtol * size, "maxiter": config.maxiter}
            return getattr(krylov, solver)(operator, b, **how)

        compiled = solve.lower(problem.operator, M, b, config.tolerances[0]).compile()

        def call(rtol):
            u, info = jax.block_until_ready(compiled(problem.operator, M, b, rtol))
            status = krylov.Status(int(info.status)).name
            return Found(np.asarray(u), int(info.num_steps), int(info.num_matvecs), status)

        return call

    return build


def jax_cg(config: ConfigDict, problem: Problem) -> Callable:
    """jax.scipy's, which does not say how many steps it takes: counted beforehand, untimed."""
    count = 0

    def tick(_):
        nonlocal count
        count += 1
        return np.int32(0)

    def counted(v):
        zero = jax.pure_callback(tick, jax.ShapeDtypeStruct((), np.int32), v.ravel()[0])
        return problem.operator(v + zero)

    def solve(A, b, rtol):
        return jax.scipy.sparse.linalg.cg(A, b, tol=rtol, maxiter=config.maxiter)[0]

    b = jnp.asarray(problem.inside, config.dtype)
    compiled = jax.jit(solve).lower(problem.operator, b, config.tolerances[0]).compile()
    counting, totals = jax.jit(partial(solve, counted)), {}
    for rtol in config.tolerances:
        before = count
        jax.block_until_ready(counting(b, rtol))
        totals[rtol] = count - before

    def call(rtol):
        u = jax.block_until_ready(compiled(problem.operator, b, rtol))
        return Found(np.asarray(u), totals[rtol] - 1, totals[rtol])

    return call


def scipy_cg(config: ConfigDict, problem: Problem, *, multilevel: bool = False) -> Callable:
    """scipy's, on the stored matrix; with one BLAS thread, as more wait for each other."""
    blas = ThreadpoolController()
    M = hierarchy(problem.matrix).aspreconditioner() if multilevel else None
    b = np.ones(problem.matrix.shape[0])

    def call(rtol):
        steps = []
        options = {"maxiter": config.maxiter, "M": M, "callback": steps.append}
        with blas.limit(limits=1, user_api="blas"):
            x, _ = scipy_linalg.cg(problem.matrix, b, rtol=rtol, **options)
        u = np.zeros(problem.inside.shape)
        u[problem.inside] = x
        return Found(u, len(steps), len(steps))

    return call


def everywhere(problem: Problem) -> sparse.csr_matrix:
    """The matrix on the whole grid: cells outside are coupled to none."""
    select = sparse.eye_array(problem.inside.size).tocsr()[problem.inside.ravel()]
    outside = sparse.diags_array((~problem.inside).ravel() * problem.matrix.diagonal().mean())
    return sparse.csr_matrix(select.T @ problem.matrix @ select + outside)


def hierarchy(matrix: Any) -> Any:
    """Smoothed aggregation by pyamg."""
    return smoothed_aggregation_solver(sparse.csr_matrix(matrix))


def jitted(build: Callable) -> Callable:
    return lambda config, problem: jax.jit(build)(problem.operator)


def chebyshev(config: ConfigDict, problem: Problem) -> Callable:
    """Of the matrix that Jacobi has scaled: no eigenvalue of it lies above 2."""
    return precondition.chebyshev(
        problem.operator,
        degree=config.degree,
        lower=2 / config.degree**2,
        upper=2.0,
        preconditioner=precondition.jacobi(problem.operator.diagonal),
    )


def pyamg(config: ConfigDict, problem: Problem) -> Callable:
    return Partial(_on_grid, precondition.pyamg(hierarchy(everywhere(problem))))


def block_jacobi(config: ConfigDict, problem: Problem) -> Callable:
    """The inverses of the blocks of so many cells in a row."""
    matrix, k = everywhere(problem), config.block
    if problem.inside.shape[-1] % k:
        raise ValueError(f"block must divide {problem.inside.shape[-1]} cells, got {k}")
    bands = sum(
        np.eye(k, k=d) * _diagonal(matrix, d).reshape(-1, k)[:, :, None] for d in (-1, 0, 1)
    )
    blocks = jnp.asarray(bands, config.dtype)
    return Partial(_on_grid, precondition.block_jacobi(blocks))


def _diagonal(matrix: Any, offset: int) -> np.ndarray:
    """The entries (i, i + offset) for every row i; zero where there is none."""
    entries = matrix.diagonal(offset)
    short = len(matrix.indptr) - 1 - len(entries)
    return np.pad(entries, (short, 0) if offset < 0 else (0, short))


def _on_grid(cycle, r):
    return cycle(r.ravel()).reshape(r.shape)


PRECONDITIONERS = {
    "jacobi": jitted(lambda A: precondition.jacobi(A.diagonal)),
    "blocks": block_jacobi,
    "chebyshev": chebyshev,
    "ssor": jitted(lambda A: precondition.ssor(A)),
    "multigrid": jitted(lambda A: precondition.multigrid(A)),
    "pyamg": pyamg,
}
METHODS = {
    "cg": ours("cg"),
    "minres": ours("minres"),
    "bicgstab": ours("bicgstab"),
    "gmres": ours("gmres"),
    "lsmr": ours("lsmr"),
    "cgls": ours("cgls"),
    "cg, one reduction": ours("single_reduction_cg"),
    "cg, jacobi": ours("cg", "jacobi"),
    "cg, blocks": ours("cg", "blocks"),
    "cg, chebyshev": ours("cg", "chebyshev"),
    "cg, ssor": ours("cg", "ssor"),
    "cg, multigrid": ours("cg", "multigrid"),
    "cg, pyamg": ours("cg", "pyamg"),
    "flexible, multigrid": ours("flexible_cg", "multigrid"),
    "gmres, multigrid": ours("gmres", "multigrid"),
    "fgmres, multigrid": ours("fgmres", "multigrid"),
    "minres, multigrid": ours("minres", "multigrid"),
    "bicgstab, multigrid": ours("bicgstab", "multigrid"),
    "jax cg": jax_cg,
    "scipy cg": scipy_cg,
    "scipy cg, pyamg": partial(scipy_cg, multilevel=True),
}
