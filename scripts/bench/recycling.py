"""Sequences of systems solved with recycling, beside solvax's: time, matvecs, accuracy.

    python -m scripts.bench.recycling [--quick] [--output=FILE]

Darcy systems of n = 2500 unknowns in float64, to rtol = 1e-5, without a preconditioner, in the
order of `sort_systems`, by one compiled scan a contender; times are those of one system. A basis
of 40 vectors of which 20 are recycled, (40, 20), is restart=40, num_recycled=20 here and m=20, k=20
in solvax, whose m does not include k; its m=40, k=20, half as large again, is shown too. Contenders
run in turns in one process, their LAPACK on one thread: on small matrices more of them wait for
each other, several times as long where other programs run. Matvecs are counted in one more, untimed
run, those that prepare the space of another system included; accuracy is the worst true relative
residual, by matrices
assembled without JAX. The section ``chains`` solves the same chains side by side and in turn.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import solvax
from jax.tree_util import Partial
from scipy import sparse
from threadpoolctl import ThreadpoolController

from experiments import families
from scripts.bench import _report
from scripts.bench._solvers import Entry, Measured, compare
from scripts.bench._systems import System
from subspace_jax import krylov

RTOL, MANY = 1e-5, 20_000
COEFFICIENTS = {"full field": families.full_coefficients, "3 parameters": families.few_parameters}


def ours(solver: Callable[..., Any], label: str, **options: Any) -> Entry:
    """Systems in one scan, or in as many chains as are asked for."""

    def solve(A, bs):
        (ws,) = A.args
        bound = partial(solver, rtol=RTOL, maxiter=MANY)
        return krylov.solve_sequence(bound, lambda w: partial(A.func, w), ws, bs, **options)[0]

    return Entry(label, "ours", solve)


def alone(solver: Callable[..., Any], label: str) -> Entry:
    """One system after another, nothing carried over."""

    def solve(A, bs):
        def one(operands):
            w, b = operands
            return solver(partial(A.func, w), b, rtol=RTOL, maxiter=MANY)[0]

        return jax.lax.map(one, (*A.args, bs))

    return Entry(label, "ours", solve)


def from_solvax(m: int, k: int, label: str) -> Entry:
    """GCROT with harmonic recycling, its best setting for a fixed (here no) preconditioner."""

    def solve(A, bs):
        def one(recycle, operands):
            w, b = operands
            solution = solvax.gcrot(
                partial(A.func, w), b, m=m, k=k, rtol=RTOL, max_restarts=MANY // m,
                recycle=recycle, recycle_strategy="harmonic", fixed_precond=True,
            )  # fmt: skip
            return solution.recycle, solution.x

        empty = jnp.zeros((bs.shape[1], k), bs.dtype)
        return jax.lax.scan(one, (empty, empty), (*A.args, bs))[1]

    return Entry(label, "solvax", solve)


def darcy(family: families.Family, coefficients: str, num: int, size: int) -> System:
    """The systems of one family, sorted."""
    ws = COEFFICIENTS[coefficients](num, size + 2)
    ws = ws[np.asarray(krylov.sort_systems(jnp.asarray(ws)))]
    return System(
        name=f"{family.name}, {coefficients}, {num} x n = {size * size}",
        operators=lambda dtype: (Partial(family.apply, jnp.asarray(ws, dtype)),),
        matrix=sparse.block_diag([family.assemble(w) for w in ws], format="csr"),
        b=np.tile(families.right_hand_side(size), (num, 1)),
        kind="batch",
    )


def sequences(quick: bool) -> Iterator[Measured]:
    """Ours and solvax's, on both matrices and both kinds of coefficients."""
    num, size = (3, 12) if quick else (20, 50)
    general = [
        ours(krylov.gcrodr, "gcrodr (40, 20)"),
        from_solvax(20, 20, "gcrot, harmonic (40, 20)"),
        from_solvax(40, 20, "gcrot, harmonic (60, 20)"),
        alone(partial(krylov.gmres, num_deflated=20), "gmres (40, 20), each alone"),
    ]
    definite = [ours(krylov.recycled_cg, "recycled_cg (20)"), alone(krylov.cg, "cg, each alone")]
    for family in (families.CONSERVATIVE, families.RELEASED):
        entries = general + (definite if family is families.CONSERVATIVE else [])
        for coefficients in COEFFICIENTS:
            system = darcy(family, coefficients, num, size)
            for m in compare(
                system, "float64", entries, seconds=_report.share(quick, 20), counts=False
            ):
                yield m._replace(matvecs=count_matvecs(m))


def chains(quick: bool) -> Iterator[Measured]:
    """Chains side by side under vmap against the same chains in one scan after another."""
    num_chains, length, size = (2, 2, 12) if quick else (64, 2, 50)
    system = darcy(families.CONSERVATIVE, "3 parameters", num_chains * length, size)

    def one_by_one(A, bs):
        (ws,) = A.args
        split = jax.tree.map(lambda x: x.reshape(num_chains, length, *x.shape[1:]), (ws, bs))
        solve = ours(krylov.gcrodr, "").solve
        xs = jax.lax.map(lambda chain: solve(Partial(A.func, chain[0]), chain[1]), split)
        return xs.reshape(bs.shape)

    entries = [
        ours(krylov.gcrodr, f"gcrodr, {num_chains} chains by vmap", num_chains=num_chains),
        Entry(f"gcrodr, {num_chains} chains in turn", "ours", one_by_one),
    ]
    yield from compare(system, "float64", entries, seconds=_report.share(quick, 20), counts=False)


SECTIONS = (sequences, chains)


def count_matvecs(m: Measured) -> int:
    """Products with A a system, in one more, untimed solve of the whole sequence."""
    count = 0

    def tick(_):
        nonlocal count
        count += 1
        return np.int32(0)  # the callback thread is outside enable_x64

    (A,) = m.system.operators(m.dtype)

    def product(w, v):
        like = jax.ShapeDtypeStruct((), np.int32)
        return A.func(w, v + jax.pure_callback(tick, like, v[0], vmap_method="sequential"))

    solve = jax.jit(lambda ws, bs: m.entry.solve(Partial(product, ws), bs))
    jax.block_until_ready(solve(*A.args, jnp.asarray(m.system.b, m.dtype)))
    return round(count / len(m.system.b))


def row(m: Measured) -> dict[str, Any]:
    times = m.milliseconds / len(m.system.b)
    return {
        "systems": m.system.name,
        "solver": m.entry.solver,
        "library": m.entry.library,
        "time a system, ms": f"{np.median(times):.3g} ({times.min():.3g})",
        "/ first": f"{m.ratio:.2f}",
        "matvecs a system": "" if m.matvecs is None else m.matvecs,
        "accuracy": f"{m.accuracy:.1e}",
        "compile, s": "" if m.compile_seconds is None else f"{m.compile_seconds:.2f}",
    }


def summary(measured: dict[str, list[Measured]]) -> str:
    """One sentence out of the ratios at equal size of the basis."""
    found = measured["sequences"]
    peers = [m for m in found if m.entry.solver == "gcrot, harmonic (40, 20)"]
    mine = {m.system.name: m.matvecs for m in found if m.entry.solver == "gcrodr (40, 20)"}
    ratios = [m.ratio for m in peers]
    matvecs = [m.matvecs / mine[m.system.name] for m in peers]
    together, apart = (np.median(m.milliseconds) for m in measured["chains"])
    chains = measured["chains"][0].entry.solver.removeprefix("gcrodr, ")
    return (
        f"solvax's harmonic recycling takes {min(ratios):.1f} to {max(ratios):.1f} times the time "
        f"and {min(matvecs):.2f} to {max(matvecs):.2f} times the matvecs of gcrodr at equal size "
        f"of the basis; {chains} have {apart / together:.2f} times the throughput of those in turn"
    )


def main() -> None:
    blas = ThreadpoolController().limit(limits=1, user_api="blas")
    with blas, jax.enable_x64(True):
        _report.run(
            "recycling",
            "Recycling beside solvax's",
            "median (minimum) of 3 to 30 interleaved calls",
            SECTIONS,
            row,
            summary,
        )


if __name__ == "__main__":
    main()
