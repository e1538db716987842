"""Poisson's equation on a photograph: which Krylov solver, which preconditioner?

Claim (Hestenes & Stiefel, 1952; Saad, 2003, chapters 9 and 13): conjugate gradients solve
-div(c grad u) = 1 with a coefficient that jumps by three orders of magnitude, in a number of steps
that grows with the grid; a multigrid cycle as preconditioner makes it a few, at a few products
each. The domain is cut from a photograph, the coefficient is its grey values.

    python -m experiments.poisson                                            a retina, 256 x 256
    python -m experiments.poisson --config=configs/poisson.py:d3             a solid of 32 layers
    python -m experiments.poisson --config=configs/poisson.py:size=512

Expected: to a true residual of 1e-8 on 50,037 cells, cg takes 4448 steps, with jacobi 1538, with
blocks of 16 cells 1124, with ssor 769, with chebyshev 219, with multigrid 30; gmres(40) is far off
after 10,000, bicgstab there or not as its rounding goes, minres near its best at 1.5e-8. lsmr and
cgls, which square the condition, have gained 2 % of the residual after 10,000. On 64 x 64 and
128 x 128 cells cg takes 815 and 2043, with multigrid 15 and 20. In d3, as above but for blocks:
1106, 283, 142, 40 and 13.

Every point of the curves is a solve of its own, stopped at that tolerance: its matvecs are what
the solver reports, its seconds the least of a few runs, its residual the true one, by a
matrix that is assembled without JAX. Finished solvers are kept: a killed run goes on with the next.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from pyamg import smoothed_aggregation_solver
from scipy import sparse
from scipy.sparse import linalg as scipy_linalg
from threadpoolctl import ThreadpoolController

from experiments import harness, plots, records
from experiments.photograph import Problem, make_problem
from subspace_jax import krylov
from subspace_jax.krylov import precondition

CURVES = ("steps", "matvecs", "residual", "seconds")


class Found(NamedTuple):
    """What a solve leaves."""

    u: np.ndarray
    steps: int
    matvecs: int
    status: str = ""
    """As the library says it; empty for others'."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Solve with every method to every tolerance; print the table, draw the figure."""
    if list(config.tolerances) != sorted(set(config.tolerances), reverse=True):
        raise ValueError(f"tolerances must descend, got {tuple(config.tolerances)}")
    with jax.enable_x64(config.dtype == "float64"):
        problem = make_problem(config)
        solved, solution = solve_all(config, workdir, problem)
    results = summarize(config, problem, solved, solution)
    records.say(table(config, results), sys.stdout)
    figure = partial(draw, config, problem, solution, results)
    plots.save(workdir / "poisson.png", figure, size=(11, 9.2))
    seconds = {"compile": "compile", "train": "spent"}
    return results | {"seconds": {k: sum(r[v] for r in solved) for k, v in seconds.items()}}


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


def solve_all(config: ConfigDict, workdir: Path, problem: Problem) -> tuple[list, np.ndarray]:
    """A record per method, each kept when it is finished; and the most accurate solution."""
    methods = list(config.methods)
    for name in methods:
        harness.pick("methods", name, METHODS)
    solved = records.piecewise(
        workdir,
        [(name,) for name in methods],
        partial(solve, config, problem),
        lambda r: {name: r[name][-1] for name in ("steps", "matvecs", "residual", "seconds")},
    )
    best = min(solved, key=lambda r: (r["residual"][-1], r["method"]))
    return solved, METHODS[best["method"]](config, problem)(config.tolerances[-1]).u


def solve(config: ConfigDict, problem: Problem, method: str) -> dict[str, Any]:
    """One method to every tolerance, up to the first that it misses."""
    record: dict[str, Any] = {"method": method} | {name: [] for name in CURVES}
    start = time.perf_counter()
    call = METHODS[method](config, problem)
    built = time.perf_counter()
    for rtol in config.tolerances:
        found, seconds = timed(call, rtol)
        residual, all_seconds = problem.residual(found.u), [seconds]
        missed = residual > 1.01 * rtol
        while not missed and len(all_seconds) < config.num_repeats and sum(all_seconds) < 3:
            all_seconds.append(timed(call, rtol)[1])
        values = (found.steps, found.matvecs, residual, min(all_seconds))
        for name, value in zip(CURVES, values, strict=True):
            record[name].append(value)
        record["status"] = found.status
        if missed:
            break
    return record | {"compile": built - start, "spent": time.perf_counter() - built}


def timed(call: Callable, rtol: float) -> tuple[Any, float]:
    start = time.perf_counter()
    value = call(rtol)
    return value, time.perf_counter() - start


def summarize(config: ConfigDict, problem: Problem, solved: list, solution: np.ndarray) -> dict:
    """What goes into result.json; ``converged`` names those that reached the last tolerance."""
    ends = {r["method"]: r for r in solved if r["residual"][-1] <= 1.01 * config.tolerances[-1]}
    results = {
        "num_unknowns": int(problem.inside.sum()),
        "num_steps": {name: r["steps"][-1] for name, r in ends.items()},
        "num_matvecs": {name: r["matvecs"][-1] for name, r in ends.items()},
        "solve_seconds": {name: r["seconds"][-1] for name, r in ends.items()},
        "fewest_steps": min((r["steps"][-1] for r in ends.values()), default=None),
        "largest": float(solution.max()),
        "curves": {r["method"]: {k: r[k] for k in CURVES} for r in solved},
        "missed": {r["method"]: r["residual"][-1] for r in solved if r["method"] not in ends},
        "status": {r["method"]: r["status"] for r in solved if r["status"]},
    }
    return results | {"summary": headline(config, results)}


def headline(config: ConfigDict, results: dict) -> str:
    """One line for a table of many experiments."""
    steps, seconds = results["num_steps"], results["solve_seconds"]
    told = [
        f"{name} {steps[name]:,} steps in {seconds[name]:.2g} s"
        for name in ("cg", "cg, jacobi", "cg, multigrid", "jax cg", "scipy cg", "scipy cg, pyamg")
        if name in steps
    ]
    return (
        f"{config.image}, {results['num_unknowns']:,} unknowns, contrast {config.contrast:g}, to "
        f"{config.tolerances[-1]:g}: {'; '.join(told)}"
    )


def table(config: ConfigDict, results: dict) -> str:
    """The numbers as a person reads them."""
    lines = [
        f"-div(c grad u) = 1 on {config.image}, {results['num_unknowns']:,} unknowns, "
        f"contrast {config.contrast:g}, {config.dtype}",
        "",
        f"{'method':<20} {'steps':>7} {'matvecs':>8} {'seconds':>9} {'true residual':>14}",
    ]
    for name, curve in results["curves"].items():
        steps, matvecs, residual, seconds = (curve[k][-1] for k in CURVES)
        status = results["status"].get(name, "")
        note = f"  missed: {status}".rstrip(": ") if name in results["missed"] else ""
        lines.append(f"{name:<20} {steps:7,} {matvecs:8,} {seconds:9.4f} {residual:14.1e}{note}")
    return "\n".join(lines)


COLOURS = {
    "": plots.BLUE,
    "one reduction": plots.SKY,
    "blocks": plots.GREY,
    "jacobi": plots.ORANGE,
    "chebyshev": plots.PURPLE,
    "ssor": plots.VERMILION,
    "multigrid": plots.GREEN,
    "pyamg": plots.SKY,
}
LOOKS = {
    "cg": ("-", "o"),
    "minres": ("-", "s"),
    "bicgstab": ("-", "^"),
    "gmres": ("-", "v"),
    "flexible": ("-", "D"),
    "fgmres": ("-", "<"),
    "lsmr": ("-", "*"),
    "cgls": ("-", "1"),
    "jax cg": (":", "x"),
    "scipy cg": ("--", "+"),
}


def draw(config: ConfigDict, problem: Problem, u: np.ndarray, results: dict, figure: Figure):
    """The coefficient, the solution, and the residual against products and seconds."""
    top, bottom = figure.subplots(2, 2)
    layer = (config.depth // 2,) if config.depth else ()
    inside, where = problem.inside[layer], ", the middle layer" if config.depth else ""
    c = np.where(inside, problem.coefficient[layer], np.nan)
    picture(figure, top[0], c, f"coefficient c{where}", cmap="cividis", norm=LogNorm())
    picture(figure, top[1], np.where(inside, u[layer], np.nan), f"solution u{where}", cmap="magma")
    for axes, key in zip(bottom, ("matvecs", "seconds"), strict=True):
        for name, curve in results["curves"].items():
            solver, _, preconditioner = name.partition(", ")
            line, marker = LOOKS[solver]
            label = f"{name} (missed)" if name in results["missed"] else name
            style = {"ls": line, "marker": marker, "ms": 4.5, "lw": 1.3, "label": label}
            colour = plots.GREY if name in ("jax cg", "scipy cg") else COLOURS[preconditioner]
            axes.loglog(curve[key], curve["residual"], color=colour, **style)
    bottom[0].set(xlabel="products with A", ylabel="true residual |b - Au| / |b|")
    bottom[1].set(xlabel="seconds", ylabel="")
    figure.legend(*bottom[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def picture(figure: Figure, axes: Any, values: np.ndarray, title: str, **colours) -> None:
    image = axes.imshow(values, interpolation="nearest", **colours)
    axes.set_title(title, loc="center")
    axes.axis("off")
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02).outline.set_visible(False)


if __name__ == "__main__":
    harness.main(run)
