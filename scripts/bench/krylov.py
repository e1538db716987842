"""Krylov solvers beside their peers: time, matvecs, compile time, and the accuracy reached.

    python -m scripts.bench.krylov [--quick] [--output=FILE]

The peers are jax.scipy, lineax, solvax, matfree and scipy. All contenders on one system run in one
process, in turns, each timed after its result is ready, on as many threads as they take but scipy,
which is fastest on one. Accuracy is the true relative residual in float64, computed outside JAX
from a matrix that was built outside JAX; of least squares that of the normal equations, of
gradients the relative error against a sparse LU, of many systems the worst. Matvecs are counted in
one more, untimed run. Compiling starts from Python, with JAX's caches empty. A stream is the time
in which one vector of n numbers is read or written by x -> a x + 1 in the same turns, where x is
five vectors long: as much memory as CG works on, so that both run in the same cache, or in none.
The share of the copy's speed is that of a step that moves 14 streams, the operator's two among
them. PETSc is not among the peers: PyPI has no wheel of it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import solvax

from scripts.bench import _report
from scripts.bench import _systems as systems
from scripts.bench._solvers import (
    Entry,
    Measured,
    compare,
    from_jax,
    from_lineax,
    from_scipy,
    from_solvax,
    lineax_lsmr,
    matfree_lsmr,
    ours,
)
from subspace_jax import krylov
from subspace_jax.krylov import precondition

STEPS = 100
VECTORS, STREAMS = 5, 14
"""What CG works on, b included, and what its step moves if every update is one pass."""
PEERS = ("jax", "lineax", "solvax")


def fixed_steps(quick: bool) -> Iterator[Measured]:
    """So many steps of CG: what a step costs, and how far that is from the memory's speed."""

    def one_pass(A, b):
        x = jnp.stack([b] * VECTORS)
        return jax.lax.fori_loop(0, STEPS, lambda _, x: 1.5 * x + 1, x)[0]

    entries = [
        ours("cg", rtol=None, maxiter=STEPS),
        ours("cg", "cg, rtol=0", rtol=0.0, maxiter=STEPS),
        from_jax("cg", tol=0.0, maxiter=STEPS),
        from_lineax("CG", rtol=0.0, max_steps=STEPS),
        from_solvax("pcg", rtol=0.0, max_steps=STEPS),
        Entry("pass", "floor", one_pass),
    ]
    sizes = [(512, "float32"), (512, "float64"), (2048, "float32")]
    for size, dtype in [(64, "float32")] if quick else sizes:
        # On the unit square: of curvature below 100 n eps |r|^2 lineax makes NaN in its first step.
        system = systems.poisson(size, size, spacing=1 / size)
        with jax.enable_x64(dtype == "float64"):
            *measured, floor = compare(
                system, dtype, entries, seconds=_report.share(quick, 20), counts=size < 1000
            )
        stream = np.median(floor.milliseconds) / (2 * STEPS * VECTORS)
        for m in measured:
            step = float(np.median(m.milliseconds)) / STEPS
            yield m._replace(step=1e3 * step, streams=step / stream)


def small(quick: bool) -> Iterator[Measured]:
    """n = 1024 to five digits: where dispatch and compilation count."""
    options = {"tol": 1e-5, "maxiter": 1000}
    groups = [
        [
            ours("cg", rtol=1e-5),
            from_jax("cg", **options),
            from_lineax("CG", rtol=1e-5),
            from_solvax("pcg", rtol=1e-5),
        ],
        [
            ours("gmres", rtol=1e-5, restart=40),
            from_jax("gmres", restart=40, **options),
            from_lineax("GMRES", rtol=1e-5, restart=40),
            from_solvax("gmres", rtol=1e-5, restart=40),
        ],
    ]
    for entries in groups:
        yield from compare(
            systems.poisson(32, 32), "float32", entries, seconds=_report.share(quick, 3), rounds=30
        )


def to_tolerance(quick: bool) -> Iterator[Measured]:
    """Eight digits in float64."""
    with jax.enable_x64(True):
        for make, entries in _problems(quick):
            system = make()
            systems.check(system)
            yield from compare(system, "float64", entries, seconds=_report.share(quick, 8))


def _problems(quick: bool) -> list[tuple[Callable[[], systems.System], list[Entry]]]:
    tol, many = 1e-8, 20_000
    plane, space, wave, flow = (32, 12, 24, 32) if quick else (256, 64, 64, 128)
    points, rows = (200, 400) if quick else (1500, 3000)

    def nystrom(A, b):
        return precondition.nystrom(jax.random.key(0), A, b, rank=points // 8, shift=1e-2)

    def nystrom_solvax(A, b):
        return solvax.nystrom_preconditioner(
            lambda v: A(v) - 1e-2 * v, points, points // 8, jax.random.key(0), mu=1e-2
        )

    definite = [
        ours("cg", rtol=tol, maxiter=many),
        from_jax("cg", tol=tol, maxiter=many),
        from_lineax("CG", rtol=tol),
        from_solvax("pcg", rtol=tol, max_steps=many),
        from_scipy("cg", rtol=tol, maxiter=many),
    ]
    indefinite = [
        ours("minres", rtol=tol, maxiter=many),
        ours("gmres", rtol=tol, maxiter=many, restart=400),
        from_scipy("minres", rtol=1e-4 * tol, maxiter=many),  # relative to |A| |x|
        from_scipy("gmres", rtol=tol, restart=400, maxiter=50),
        from_jax("gmres", tol=tol, restart=400, maxiter=50),
        from_lineax("GMRES", rtol=tol, restart=400, max_steps=50),
        from_solvax("gmres", rtol=tol, restart=400, max_restarts=50),
    ]
    general = [
        ours("bicgstab", rtol=tol, maxiter=many),
        ours("gmres", rtol=tol, maxiter=many, restart=40),
        from_jax("bicgstab", tol=tol, maxiter=many),
        from_jax("gmres", tol=tol, restart=40, maxiter=many // 40),
        from_lineax("BiCGStab", rtol=tol, max_steps=many),
        from_solvax("gmres", rtol=tol, restart=40, max_restarts=many // 40),
        from_scipy("bicgstab", rtol=tol, maxiter=many),
        from_scipy("gmres", rtol=tol, restart=40, maxiter=many // 40),
    ]
    kernels = [
        ours("cg", rtol=tol, maxiter=many),
        ours("cg", "cg, Nystrom", rtol=tol, maxiter=many, precondition=nystrom),
        from_jax("cg", tol=tol, maxiter=many),
        from_solvax("pcg", "pcg, Nystrom", rtol=tol, max_steps=many, precondition=nystrom_solvax),
        from_scipy("cg", rtol=tol, maxiter=many),
    ]
    tall = [
        ours("lsmr", rtol=tol, maxiter=many),
        ours("cgls", rtol=tol, maxiter=many),
        lineax_lsmr(rows // 10, rtol=1e-3 * tol),  # these three: relative to |A| |r|
        matfree_lsmr(1e-3 * tol),
        from_scipy("lsmr", atol=1e-3 * tol, btol=1e-3 * tol, maxiter=many),
    ]
    return [
        (lambda: systems.poisson(plane, plane), definite),
        (lambda: systems.poisson(space, space, space), definite),
        (lambda: systems.helmholtz(wave, below=20), indefinite),
        (lambda: systems.convection(flow, peclet=0.5), general),
        (lambda: systems.kernel(points, shift=1e-2), kernels),
        (lambda: systems.regression(rows, rows // 10, condition=1e2), tall),
    ]


def many_systems(quick: bool) -> Iterator[Measured]:
    """Stencil plus diagonal, conditions from 1e1 to 1e6: one call for all of them."""
    options = {"rtol": 1e-8, "maxiter": 20_000}

    def each(solve):
        def all_of_them(A, b):
            return jax.vmap(lambda d, b: solve(systems.plus_diagonal(d), b))(A.args[0], b)

        return all_of_them

    def in_chunks(A, b):
        solve = krylov.batched(
            lambda diagonal, b: krylov.cg(systems.plus_diagonal(diagonal), b, **options), chunk=1
        )
        return solve(A.args[0], b)[0]

    def peer(A, b):
        return jax.scipy.sparse.linalg.cg(A, b, tol=1e-8, maxiter=20_000)[0]

    entries = [
        Entry("cg, batched", "ours", in_chunks),
        Entry("cg, vmap", "ours", each(lambda A, b: krylov.cg(A, b, **options)[0])),
        Entry("cg, vmap", "jax", each(peer)),
    ]
    with jax.enable_x64(True):
        for count, size in [(8, 8)] if quick else [(64, 64), (256, 32), (4096, 16)]:
            system = systems.batch(count, size)
            yield from compare(
                system, "float64", entries, seconds=_report.share(quick, 15), counts=False
            )


def gradients(quick: bool) -> Iterator[Measured]:
    """The gradient of |x|^2 / 2 by the diagonal d of (stencil + d) x = b."""
    tol = 1e-10

    def of(entry):
        def solve(A, b):
            def loss(diagonal):
                x = entry.solve(systems.plus_diagonal(diagonal), b)
                return jnp.vdot(x, x) / 2

            return jax.value_and_grad(loss)(A.args[0])[1]

        return entry._replace(solver=f"gradient of {entry.solver}", solve=solve)

    entries = [
        ours("cg", rtol=tol, maxiter=20_000),
        from_jax("cg", tol=tol, maxiter=20_000),
        from_lineax("CG", rtol=tol),
        Entry("pcg", "solvax", _solvax_implicit(tol)),
    ]
    with jax.enable_x64(True):
        system = systems.differentiated(16 if quick else 128)
        yield from compare(
            system, "float64", list(map(of, entries)), seconds=_report.share(quick, 8), counts=False
        )


def _solvax_implicit(tol: float) -> Callable:
    def solve(A, b):
        return solvax.pcg_linear_solve(A, b, rtol=tol, max_steps=20_000).x

    return solve


def in_float32(quick: bool) -> Iterator[Measured]:
    """One cycle of GMRES(200) on 400 unknowns: does the basis stay orthogonal?"""
    n = 100 if quick else 400
    restart = n // 2
    entries = [
        ours("gmres", rtol=0.0, restart=restart, maxiter=restart),
        from_jax("gmres", tol=0.0, restart=restart, maxiter=1),
        from_jax(
            "gmres", "gmres, incremental",
            tol=0.0, restart=restart, maxiter=1, solve_method="incremental",
        ),
        from_lineax("GMRES", rtol=0.0, restart=restart, max_steps=2),
        from_solvax("gmres", rtol=0.0, restart=restart, max_restarts=1),
    ]  # fmt: skip
    for condition in (1e4, 1e6):
        system = systems.dense(n, condition=condition)
        yield from compare(system, "float32", entries, seconds=_report.share(quick, 3))


SECTIONS = (fixed_steps, small, to_tolerance, many_systems, gradients, in_float32)


def row(m: Measured) -> dict[str, Any]:
    times = m.milliseconds
    return {
        "system": m.system.name,
        "dtype": m.dtype,
        "solver": m.entry.solver,
        "library": m.entry.library,
        "time, ms": f"{np.median(times):.4g} ({times.min():.4g})",
        "/ ours": f"{m.ratio:.2f}" if np.isfinite(m.accuracy) else "",
        "step, us": "" if m.step is None else f"{m.step:.1f}",
        "streams": "" if m.streams is None else f"{m.streams:.1f}",
        "of copy": "" if m.streams is None else f"{STREAMS / m.streams:.0%}",
        "matvecs": "" if m.matvecs is None else m.matvecs,
        "accuracy": f"{m.accuracy:.1e}",
        "compile, s": "" if m.compile_seconds is None else f"{m.compile_seconds:.2f}",
    }


def summary(measured: dict[str, list[Measured]]) -> str:
    """One sentence out of the ratios."""

    def ratios(section, library, solvers):
        return [
            m.ratio
            for m in measured[section]
            if (m.entry.library, m.entry.solver in solvers) == (library, True)
            and np.isfinite(m.accuracy)
        ]

    fixed = {name: ratios("fixed_steps", name, ("cg", "pcg")) for name in PEERS}
    solved = {name: ratios("to_tolerance", name, ("cg", "pcg")) for name in PEERS}
    gate = [m for m in measured["in_float32"][:5] if m.entry.solver == "gmres"]
    return (
        f"in times of ours, {STEPS} steps of CG take {_spans(fixed)}, CG to eight digits "
        f"{_spans(solved)}; one cycle of float32 GMRES at condition 1e4 leaves a residual of "
        + ", ".join(f"{m.accuracy:.0e} ({m.entry.library})" for m in gate)
    )


def _spans(ratios: dict[str, list[float]]) -> str:
    return ", ".join(
        f"{min(values):.2f} to {max(values):.2f} ({name})"
        for name, values in ratios.items()
        if values
    )


def main() -> None:
    _report.run(
        "krylov",
        "Krylov solvers beside their peers",
        "median (minimum) of 3 to 90 interleaved calls",
        SECTIONS,
        row,
        summary,
    )


if __name__ == "__main__":
    main()
