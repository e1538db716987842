"""One solve by each library, timed in turns, its matvecs counted and its residual checked outside.

Every solver here is a function ``(A, b) -> x`` that stops on the 2-norm of the residual at
``rtol * |b|``, as far as its library lets it: lineax, which wants the last step small as well, gets
that number as its absolute tolerance in the 2-norm.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
import matfree.lstsq
import numpy as np
import scipy.sparse.linalg as scipy_linalg
import solvax
from jax.custom_derivatives import linear_call
from jax.tree_util import Partial
from threadpoolctl import ThreadpoolController

from scripts.bench._systems import System
from subspace_jax import krylov

_BLAS = ThreadpoolController()


class Entry(NamedTuple):
    """A contender: which method, whose, and how to call it."""

    solver: str
    library: str
    solve: Callable[..., Any]
    """(A, b) -> x; for least squares (A, AT, b) -> x."""
    on_host: bool = False
    """scipy, with the matrix stored in ``System.matrix`` and one BLAS thread: on small vectors
    more of them wait for each other, ten times as long where other programs run."""
    batches: bool = False
    """It multiplies several vectors at once, by ``vmap``."""


class Measured(NamedTuple):
    """What one contender did on one system."""

    system: System
    dtype: str
    entry: Entry
    milliseconds: np.ndarray
    matvecs: int | None
    accuracy: float
    compile_seconds: float | None
    ratio: float
    """Median time over that of the first contender on this system."""
    step: float | None = None
    """Microseconds a step, and how many streams that is; where the steps are given."""
    streams: float | None = None


def ours(name: str, label: str = "", *, precondition=None, **options) -> Entry:
    solver = getattr(krylov, name)

    def solve(A, *operands):
        *AT, b = operands
        extra = {"AT": AT[0]} if AT else {}
        if precondition:
            extra["preconditioner"] = precondition(A, b)
        return solver(A, b, **extra, **options)[0]

    return Entry(label or name, "ours", solve, batches=precondition is not None)


def from_jax(name: str, label: str = "", **options) -> Entry:
    solver = getattr(jax.scipy.sparse.linalg, name)

    def solve(A, b):
        return solver(A, b, **options)[0]

    return Entry(label or name, "jax", solve)


def from_lineax(name: str, *, rtol: float, max_steps: int | None = None, **options) -> Entry:
    tags = (lineax.positive_semidefinite_tag,) if name == "CG" else ()

    def solve(A, b):
        solver = getattr(lineax, name)(
            rtol=0.0,
            atol=rtol * jnp.linalg.norm(b.ravel()) if rtol else 0.0,
            norm=lineax.internal.two_norm,
            max_steps=max_steps,
            **options,
        )
        operator = lineax.FunctionLinearOperator(A, jax.ShapeDtypeStruct(b.shape, b.dtype), tags)
        return lineax.linear_solve(operator, b, solver, throw=False).value

    return Entry(name.lower(), "lineax", solve)


def lineax_lsmr(columns: int, *, rtol: float) -> Entry:
    """Its tolerance is relative to |A| |r|, as scipy's is."""

    def solve(A, AT, b):
        operator = lineax.FunctionLinearOperator(A, jax.ShapeDtypeStruct((columns,), b.dtype))
        return lineax.linear_solve(operator, b, lineax.LSMR(rtol, rtol), throw=False).value

    return Entry("lsmr", "lineax", solve)


def from_solvax(name: str, label: str = "", *, precondition=None, **options) -> Entry:
    solver = getattr(solvax, name)

    def solve(A, b):
        extra = {"precond": precondition(A, b)} if precondition else {}
        return solver(A, b, **extra, **options).x

    return Entry(label or name, "solvax", solve, batches=precondition is not None)


def from_scipy(name: str, **options) -> Entry:
    solver = getattr(scipy_linalg, name)

    def solve(A, b):
        return solver(A, b, **options)[0]

    return Entry(name, "scipy", solve, on_host=True)


def matfree_lsmr(rtol: float) -> Entry:
    solver = matfree.lstsq.lsmr(atol=rtol, btol=rtol)

    def solve(A, AT, b):
        return solver(AT, b)[0]

    return Entry("lsmr", "matfree", solve)


def compare(
    system: System,
    dtype: str,
    entries: list[Entry],
    *,
    seconds: float,
    rounds: int = 10,
    counts: bool = True,
) -> Iterator[Measured]:
    """All contenders on one system in one process; the first is what ``ratio`` refers to."""
    calls, compiled = {}, {}
    for entry in entries:
        calls[entry], compiled[entry] = prepared(system, dtype, entry)
    first = {entry: _timed(call) for entry, call in calls.items()}
    once = {entry: milliseconds for entry, (_, milliseconds) in first.items()}
    times = interleaved(calls, once, seconds, rounds)
    reference = np.median(times[entries[0]])
    for entry in entries:
        yield Measured(
            system,
            dtype,
            entry,
            times[entry],
            count_matvecs(system, dtype, entry) if counts else None,
            system.error(np.asarray(first[entry][0])),
            compiled[entry],
            float(np.median(times[entry]) / reference),
        )


def prepared(system: System, dtype: str, entry: Entry) -> tuple[Callable[[], Any], float | None]:
    """A call without arguments, and the seconds it takes to trace, lower and compile it: less of
    two, since the first in a process pays for what all share, with nothing traced before."""
    if entry.on_host:
        matrix, b = system.matrix.astype(dtype), system.b.astype(dtype).ravel()

        def on_one_thread():
            with _BLAS.limit(limits=1, user_api="blas"):
                return entry.solve(matrix, b)

        return on_one_thread, None
    operands = (*system.operators(dtype), jnp.asarray(system.b, dtype))
    seconds = []
    for _ in range(2):
        jax.clear_caches()
        start = time.perf_counter()
        call = jax.jit(lambda *xs: entry.solve(*xs)).lower(*operands).compile()
        seconds.append(time.perf_counter() - start)
    return lambda: jax.block_until_ready(call(*operands)), min(seconds)


def count_matvecs(system: System, dtype: str, entry: Entry) -> int:
    """Products with A and its adjoint in one more, untimed solve, whatever the library reports."""
    count = 0

    def tick(v):
        nonlocal count
        count += 1
        return np.int32(0)  # the callback thread is outside enable_x64

    def ticking(A, v):
        like = jax.ShapeDtypeStruct((), np.int32)
        return A(v + jax.pure_callback(tick, like, v.ravel()[0], vmap_method="sequential"))

    def counted(A, AT):
        if entry.batches:
            return Partial(lambda v: ticking(A, v))
        return Partial(  # some libraries transpose their operator, and callbacks have no transpose
            lambda v: linear_call(lambda _, v: ticking(A, v), lambda _, w: ticking(AT, w), (), v)
        )

    if entry.on_host:
        matrix = system.matrix.astype(dtype)
        products = [lambda v, M=M: M @ v + tick(v[0]) for M in (matrix, matrix.T)]
        operator = scipy_linalg.LinearOperator(matrix.shape, *products, dtype=dtype)
        entry.solve(operator, system.b.astype(dtype).ravel())
        return count
    operators, b = system.operators(dtype), jnp.asarray(system.b, dtype)
    if system.kind == "least squares":
        A, AT = operators
        operands = [counted(A, AT), counted(AT, A)]
    else:
        (A,) = operators
        operands = [counted(A, lambda w: jax.linear_transpose(A, b)(w)[0])]
    jax.block_until_ready(jax.jit(lambda b: entry.solve(*operands, b))(b))
    return count


def interleaved(
    calls: dict[Any, Callable], once: dict[Any, float], seconds: float, rounds: int
) -> dict[Any, np.ndarray]:
    """Milliseconds of repeated calls, in turns: at least 3 each, at most three times ``rounds``."""
    share = 1e3 * seconds / len(calls)
    wanted = {name: int(np.clip(share / t, 3, 3 * rounds)) for name, t in once.items()}
    times = {name: [] for name in calls}
    for turn in range(max(wanted.values())):
        for name, call in calls.items():
            if turn < wanted[name]:
                times[name].append(_timed(call)[1])
    return {name: np.array(values) for name, values in times.items()}


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Its value, and milliseconds."""
    start = time.perf_counter()
    value = call()
    return value, 1e3 * (time.perf_counter() - start)
