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
from typing import Any

import jax
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import harness, plots, records
from experiments.photograph import Problem, make_problem
from experiments.poisson_methods import METHODS

CURVES = ("steps", "matvecs", "residual", "seconds")


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
