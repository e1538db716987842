"""Recycling over sequences of systems: what it gains, and over which baseline.

Claim (Wang et al., 2024, "SKR"): data for neural operators come from many similar systems; sorted,
and solved with GCRO-DR that recycles, they take up to 13.9 times less time and 30 times fewer steps
than GMRES. Here the same systems, those of the released code and those of a conservative scheme,
stand beside what one would use without recycling: deflated restarts within each system, conjugate
gradients, multigrid, a sparse factorisation.

    python -m experiments.krylov_recycling
    python -m experiments.krylov_recycling --config=configs/krylov_recycling.py:size=100
    python -m scripts.sweep --config=configs/krylov_recycling.py

Expected, 100 systems of 2500 unknowns, to 1e-5: on the released Darcy matrices GMRES(40) stalls, in
32 and 51 of 100 systems for good, after 4309 and 5746 steps in the mean; deflated restarts alone
take 227 and 261, recycling 201 and 210, with sorting 195 and 129. So GMRES takes 22 times the
steps of sorted recycling (the paper: 22) and 12 times its time (2.6: there a step that recycles
costs 8 of GMRES, here 2), with Jacobi 24 and 14. But BiCGStab without any of it is 5 times faster,
for three parameters 1.9 times, and plain CG is on the symmetric matrices: 144 steps against 56 that
each cost more. Where coefficients are independent fields sorting gains 2 or 3 %. Where the matrix
is one (Poisson; thermal, where two temperatures are all that varies) a factorisation for all takes
0.1 ms a system, the best that recycles 3.5 and 4.5, and block CG more than CG one by one. To 1e-2
GMRES leaves 17 and 31 of the released systems unsolved and takes 17 and 45 times the steps, to 1e-8
38 and 62, 22 and 38 times. Of indefinite Helmholtz it leaves 57 unsolved and takes 41 times the
steps of sorted recycling, to 1e-8 71 and 28 (the paper, of definite systems and with Schwarz's
preconditioner to 1e-7: 30); MINRES is nearly 4 times faster still. Thermal systems of 11,025 take
GMRES 4.5 times the steps to 1e-5, 5.5 to 1e-8, for 21 and 24 in the paper, on a mesh of its own.

With 6,400 unknowns, a size of the paper's, GMRES(40) leaves 38, 64 and 80 of 100 full fields
unsolved to 1e-2, 1e-5 and 1e-8 and takes 18.4, 19.6 and 17.5 times the steps of sorted recycling
(the paper: 19.2, 21.1, 19.1) and 12.1, 12.3 and 11.1 times its time (2.6, 2.9, 2.7); with Jacobi
18.4, 21.8 and 21.0 times the steps (22.6, 24.5, 22.9) and 12.1, 14.0 and 13.7 times the time.

With 10,000 unknowns GMRES(40) leaves 86, 97 and 97 of 100 systems of the released matrices and of
Helmholtz unsolved (the paper: 9375 steps in the mean and, recycled, 682). Of Helmholtz it takes 33
times the steps of sorted recycling and 22 times the time to 1e-2, 10.4 and 7.0 times to 1e-7, where
it solves none (the paper: 17.3 and 7.7, 13.7 and 6.5). On the released matrices recycling now
*costs* steps, 724 and 1449 for 657 and 1317 of deflated restarts; on the symmetric Darcy ones of
random fields it takes less than half of CG's, 128 of 304 and 147 of 343, at more than twice the
time. With 22,500 GMRES(40) solves none of the released systems, BiCGStab 61 and 29, sorted
recycling 99 and 80, in 50 and 100 times the time of a factorisation. With 40,000 GMRES and BiCGStab
solve none, sorted recycling 16 and none in 15 and 18 s each; of the full fields deflated restarts
solve 27 and unsorted recycling 10 in 14 s, where there are three parameters none either. A
factorisation takes 0.15. (The paper lets GMRES take 93,298 steps, ten times what is allowed here.)
Of Helmholtz GMRES solves none then, deflated restarts 47, recycling 53, sorted 85 in 4199 steps and
6.7 s each, and MINRES all, in 1410 and 0.25. On the symmetric matrix of full fields GMRES(40) takes
3658 steps there, ten times those of recycled CG and twenty times its time; on photographs 9311,
with 12 unsolved, again ten and twenty times. Of the thermal matrix it takes 3068, 4.8 times those
of sorted recycling and 3 times its time: 1.1 s a system, where CG takes 0.11, block CG, whose block
has rank two, 1.5, and one factorisation 0.003.

On the symmetric families recycled CG keeps taking about half of CG's steps (352 of 644 and, sorted,
374 of 785 at 40,000) where coefficients are random fields, and .9 of them on photographs;
in time CG wins, at 40,000 level with multigrid or behind it. A space that another flow's direction
left misleads: on convection-diffusion recycling takes 1.4 to 1.9 times the steps of deflated
restarts with 22,500 unknowns, 1.6 to 2.1 with 40,000.

Steps and products are what the solvers report, a mean over the systems, those that end unsolved
before their 10,000 steps included; residuals are true, by matrices assembled without JAX; seconds
are a compiled run's, its sorting included. A method that leaves systems unsolved is said to.
Finished pairs of family and method are kept: a killed run goes on with the next.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from pyamg import smoothed_aggregation_solver
from scipy.sparse import linalg as scipy_linalg
from threadpoolctl import ThreadpoolController

from experiments import harness, plots, records, recycling_report
from experiments.families import SEQUENCES, Systems
from subspace_jax import krylov
from subspace_jax.krylov import precondition

WARM_UP = 10  # seconds; a longer run needs no other before it
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Solutions (N, n), steps (N,), products with A (N,)."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Solve every family by every method that fits it; print the tables, draw the figure."""
    # JAX's LAPACK too: on small matrices many threads only wait for each other.
    blas = ThreadpoolController().limit(limits=1, user_api="blas")
    with blas, jax.enable_x64(config.dtype == "float64"):
        solved = records.piecewise(workdir, pairs(config), partial(solve, config), told)
        results = recycling_report.summarize(config, solved)
    records.say(recycling_report.table(config, results), sys.stdout)
    rows = -(-len(config.families) // 2)
    draw = partial(recycling_report.draw, results)
    plots.save(workdir / "krylov_recycling.png", draw, size=(11, 1 + 2.8 * rows))
    return results | {
        "seconds": {name: sum(r[key] for r in solved) for name, key in
                    {"compile": "compile", "train": "spent"}.items()}
    }  # fmt: skip


def alone(solver: str, *, scaled: bool = False, **options: Any) -> Callable:
    """One system after another, in one compiled loop; ``scaled`` by the diagonal, or not."""

    def solve(config, systems, operator):
        known = {name: getattr(config, key) for name, key in options.items()}
        limits = {"rtol": config.rtol, "maxiter": config.maxiter}

        def one(operands):
            params, b = operands
            M = jacobi(systems, params) if scaled else None
            x, info = getattr(krylov, solver)(
                operator(params), b, preconditioner=M, **limits, **known
            )
            return x, info.num_steps, info.num_matvecs

        return lambda params, bs: jax.lax.map(one, (params, bs))

    return compiled(solve)


def recycled(
    solver: str, *, is_sorted: bool = False, scaled: bool = False, **options: str
) -> Callable:
    """The sequence in one scan, as given or sorted."""

    def solve(config, systems, operator):
        known = {name: getattr(config, key) for name, key in options.items()}
        bound = partial(getattr(krylov, solver), rtol=config.rtol, maxiter=config.maxiter, **known)

        def sequence(params, bs):
            order = None
            if is_sorted:  # behind a barrier: XLA would compute with constants for long seconds
                features = jax.lax.optimization_barrier(jnp.asarray(systems.features))
                order = krylov.sort_systems(features)
            M = partial(jacobi, systems) if scaled else None
            xs, infos = krylov.solve_sequence(
                bound, operator, params, bs, order=order, preconditioner=M
            )
            return xs, infos.num_steps, infos.num_matvecs

        return sequence

    return compiled(solve)


def jacobi(systems: Systems, params: Any) -> Callable:
    """The preconditioner that divides by the matrix's diagonal."""
    return precondition.jacobi(systems.family.diagonal(params))


def block(config: ConfigDict, systems: Systems, operator: Callable) -> Callable:
    """All right-hand sides of one matrix at once; the steps are those of the block."""

    def solve(params, bs):
        first = jax.tree.map(lambda leaf: leaf[0], params)
        limits = {"rtol": config.rtol, "maxiter": config.maxiter}
        X, info = krylov.block_cg(operator(first), bs.T, **limits)
        num = jnp.ones(len(bs), jnp.int32)
        return X.T, info.num_steps * num, info.num_matvecs * num

    return solve


def compiled(build: Callable) -> Callable:
    """(config, systems) -> a call without arguments that returns what was `Found`."""

    def prepare(config, systems):
        def operator(params):
            return partial(systems.family.apply, params)

        as_arrays = partial(jnp.asarray, dtype=config.dtype)
        operands = (jax.tree.map(as_arrays, systems.params), as_arrays(systems.bs))
        program = jax.jit(build(config, systems, operator)).lower(*operands).compile()
        return lambda: jax.tree.map(np.asarray, jax.block_until_ready(program(*operands)))

    return prepare


def on_host(solve_one: Callable) -> Callable:
    """Scipy or pyamg, system after system; assembly is not timed."""

    def prepare(config, systems):
        matrices = assembled(systems)

        def call():
            found = [solve_one(config, A, b) for A, b in zip(matrices, systems.bs, strict=True)]
            xs, steps = zip(*found, strict=True)
            return np.array(xs), np.array(steps), np.array(steps)

        return call

    return prepare


def factorized(config: ConfigDict, A: Any, b: np.ndarray) -> tuple[np.ndarray, int]:
    return scipy_linalg.splu(A.tocsc()).solve(b), 1


def factorized_once(config: ConfigDict, systems: Systems) -> Callable:
    """One factorisation for all right-hand sides, timed with them."""
    del config
    A = assembled(systems)[0].tocsc()

    def call():
        num = np.ones(len(systems.bs), int)
        return scipy_linalg.splu(A).solve(systems.bs.T).T, num, num

    return call


def multigrid(config: ConfigDict, A: Any, b: np.ndarray) -> tuple[np.ndarray, int]:
    """CG with a smoothed-aggregation V-cycle, its set-up timed with it."""
    M, steps = smoothed_aggregation_solver(A).aspreconditioner(), []
    options = {"maxiter": config.maxiter, "M": M, "callback": steps.append}
    x, _ = scipy_linalg.cg(A, b, rtol=config.rtol, **options)
    return x, len(steps)


def assembled(systems: Systems) -> list:
    return [
        systems.family.assemble(jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), systems.params))
        for i in range(len(systems.bs))
    ]


GENERAL, SYMMETRIC, DEFINITE = 0, 1, 2
KINDS = {"general": GENERAL, "symmetric": SYMMETRIC, "definite": DEFINITE}
SPACE = {"restart": "restart", "num_recycled": "num_recycled"}
DIRECTIONS = {"num_recycled": "num_recycled", "num_directions": "num_directions"}
METHODS = {
    "gmres": (GENERAL, alone("gmres", restart="restart")),
    "gmres, Jacobi": (GENERAL, alone("gmres", scaled=True, restart="restart")),
    "gmres, deflated": (
        GENERAL, alone("gmres", restart="restart", num_deflated="num_recycled")
    ),
    "bicgstab": (GENERAL, alone("bicgstab")),
    "cg": (DEFINITE, alone("cg")),
    "minres": (SYMMETRIC, alone("minres")),
    "block cg": (DEFINITE, compiled(block)),
    "scipy splu": (GENERAL, on_host(factorized)),
    "scipy splu, once": (GENERAL, factorized_once),
    "pyamg cg": (DEFINITE, on_host(multigrid)),
    "gcrodr": (GENERAL, recycled("gcrodr", **SPACE)),
    "gcrodr, sorted": (GENERAL, recycled("gcrodr", is_sorted=True, **SPACE)),
    "gcrodr, sorted, Jacobi": (
        GENERAL, recycled("gcrodr", is_sorted=True, scaled=True, **SPACE)
    ),
    "recycled cg": (DEFINITE, recycled("recycled_cg", **DIRECTIONS)),
    "recycled cg, sorted": (DEFINITE, recycled("recycled_cg", is_sorted=True, **DIRECTIONS)),
}  # fmt: skip
"""What a method needs the matrix to be, and how it is prepared."""
ONE_MATRIX = ("block cg", "scipy splu, once")


def pairs(config: ConfigDict) -> list[tuple[str, str]]:
    """The families with the methods that fit them."""
    for name in config.families:
        harness.pick("families", name, SEQUENCES)
    for name in config.methods:
        harness.pick("methods", name, METHODS)
    harness.pick("baseline", config.baseline, dict.fromkeys(config.methods))
    found = []
    for family in config.families:
        kind = KINDS[SEQUENCES[family](1, 4).family.kind]
        for method in config.methods:
            fits = method not in ONE_MATRIX or family.endswith("one matrix")
            if kind >= METHODS[method][0] and fits:
                found.append((family, method))
    return found


def solve(config: ConfigDict, family: str, method: str) -> dict[str, Any]:
    """One family by one method; where a run is short, a second one counts."""
    systems = SEQUENCES[family](config.num_systems, config.size)
    start = time.perf_counter()
    call = METHODS[method][1](config, systems)
    built = again = time.perf_counter()
    xs, steps, matvecs = call()
    if time.perf_counter() - built < WARM_UP:
        again = time.perf_counter()
        xs, steps, matvecs = call()
    end = time.perf_counter()
    residuals = [
        np.linalg.norm(b - A @ x) / np.linalg.norm(b)
        for A, b, x in zip(assembled(systems), systems.bs, xs, strict=True)
    ]
    return {
        "family": family, "method": method, "steps": steps.tolist(), "matvecs": matvecs.tolist(),
        "residual": float(np.max(residuals)), "each": (end - again) / len(steps),
        "missed": int(np.sum(~(np.array(residuals) <= 1.01 * config.rtol))),
        "compile": built - start, "spent": end - built,
    }  # fmt: skip


def told(record: dict[str, Any]) -> dict[str, Any]:
    return {"steps": np.mean(record["steps"]), "seconds": record["each"]}


if __name__ == "__main__":
    harness.main(run)
