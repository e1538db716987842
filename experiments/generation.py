"""Sequences of systems solved from the host: in saved portions, resumed after a kill.

`generate` calls `krylov.solve_sequence` for a portion at a time, one compiled program for all of
them, and writes each portion's solutions as a file before it goes on to the next. A system that
fails is solved once more by itself, without a space from others; if that fails too it is said, and
it is in no file.
"""

import contextlib
import os
import signal
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import checkpoints, records
from subspace_jax import krylov


class Sequence(NamedTuple):
    """Systems A(params_i) x_i = b and the way they are solved."""

    solver: Callable[..., Any]
    """As `krylov.solve_sequence` takes it."""
    operator: Callable[[Any], Callable]
    params: np.ndarray
    """(N, ...)."""
    b: np.ndarray
    """(n,), shared."""
    order: np.ndarray
    """(N,) a permutation."""
    num_chains: int = 1
    portion: int = 100
    """Systems between two files; each portion's chains start without a space."""


class Solved(NamedTuple):
    """The systems that converged, one row each."""

    index: np.ndarray
    """(M,) which of the sequence's; not in their order."""
    x: np.ndarray
    """(M, n)."""
    steps: np.ndarray
    matvecs: np.ndarray
    seconds: np.ndarray
    """() of the solves, those that failed included."""
    compile: np.ndarray
    """() before the first of them."""


def independently(solver: Callable[..., Any]) -> Callable[..., Any]:
    """A plain solver ``(A, b) -> (value, info)`` in the place of one that recycles."""

    def solve(A, b, recycle=None, **options):
        del recycle
        return solver(A, b, **options), np.zeros(())

    return solve


def generate(folder: Path, sequence: Sequence, recipe: dict[str, Any]) -> Solved:
    """Solve what the folder does not hold yet; return all that is solved, in the order given.

    Args:
        folder: of this sequence alone.
        sequence: the systems.
        recipe: what determines them, as JSON: kept in the folder.

    Raises:
        ValueError: the folder holds systems of another recipe, or in another order.
        SystemExit: SIGTERM (exit status 0) or Ctrl-C (130) came, and the portion is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.asarray(sequence.order, np.int64)
    _claim(folder, recipe | {"checksum of the order": zlib.crc32(order.tobytes())})
    num, portion = len(sequence.order), sequence.portion
    starts = range(0, num, portion)
    portions = {start: sequence.order[start : start + portion] for start in starts}
    found = {start: _load(folder / f"{start:06d}.npz") for start in starts}
    first = next((s for s in starts if not _complete(found[s], portions[s])), num)
    if first < num:
        _solve_all(folder, sequence, portions, found, first)
    parts = [found[start] for start in starts]
    rows = [np.concatenate(leaves) for leaves in zip(*(part[:4] for part in parts), strict=True)]
    place = np.argsort(np.argsort(sequence.order)[rows[0]])
    return Solved(
        *(leaf[place] for leaf in rows),
        seconds=sum(part.seconds for part in parts),
        compile=sum(part.compile for part in parts),
    )


def _solve_all(folder, sequence, portions, found, first):
    """Fill the portions from ``first`` on, a file and a line of progress each."""
    compiled = cache(partial(_compile, sequence))
    log = records.MetricsLog(folder, first, len(sequence.order), sequence.portion)
    with contextlib.closing(log), checkpoints.stop_signal() as stopped_by:
        for start in range(first, len(sequence.order), sequence.portion):
            indices = portions[start]
            solved = found[start] or _solve(compiled, sequence, indices)
            if not _complete(solved, indices):
                solved = _retry(sequence, solved, indices)
            found[start] = solved
            _save(folder / f"{start:06d}.npz", solved)
            failed = len(indices) - len(solved.index)
            mean = solved.steps.sum() / max(len(solved.steps), 1)
            metrics = {"mean_steps": mean, "seconds": solved.seconds, "failed": failed}
            log.update(start + len(indices), metrics)
            signum = checkpoints.agreed(stopped_by())
            if signum:
                records.say(f"stopped by {signum.name}; the same command goes on from there")
                sys.exit(0 if signum == signal.SIGTERM else 130)


def _compile(sequence: Sequence, length: int) -> tuple[Callable, float]:
    """The solves of that many systems in a row, and the seconds until they can begin."""
    start = time.perf_counter()
    solve = partial(
        krylov.solve_sequence, sequence.solver, sequence.operator,
        bs=sequence.b, num_chains=min(sequence.num_chains, length),
    )  # fmt: skip
    call = jax.jit(solve).lower(sequence.params[:length]).compile()
    return call, time.perf_counter() - start


def _solve(compiled: Callable, sequence: Sequence, indices: np.ndarray) -> Solved:
    before = time.perf_counter()
    call, _ = compiled(len(indices))
    params = jax.device_put(sequence.params[indices])
    start = time.perf_counter()
    x, info = jax.block_until_ready(call(params))
    seconds = time.perf_counter() - start
    good = np.asarray(info.status) == krylov.Status.CONVERGED
    rows = (indices, x, info.num_steps, info.num_matvecs)
    return Solved(
        *(np.asarray(leaf)[good] for leaf in rows),
        seconds=np.float64(seconds),
        compile=np.float64(start - before),
    )


def _retry(sequence: Sequence, solved: Solved, indices: np.ndarray) -> Solved:
    """Each missing system by itself, without a space; one that fails again stays missing."""
    cold = jax.jit(lambda params: sequence.solver(sequence.operator(params), sequence.b)[0])
    for index in np.setdiff1d(indices, solved.index):
        start = time.perf_counter()
        x, info = jax.block_until_ready(cold(sequence.params[index]))
        seconds = solved.seconds + time.perf_counter() - start
        solved = solved._replace(seconds=seconds)
        status = krylov.Status(int(info.status))
        if status != krylov.Status.CONVERGED:
            records.say(
                f"system {index} is not solved: {status.name} after {int(info.num_steps)} steps, "
                f"residual norm {float(info.residual_norm):.3g}"
            )
            continue
        records.say(f"system {index} failed in the sequence and is solved by itself")
        row = (index, x, info.num_steps, info.num_matvecs)
        joined = (np.append(a, [b], axis=0) for a, b in zip(solved[:4], row, strict=True))
        solved = Solved(*joined, *solved[4:])
    return solved


def _complete(solved: Solved | None, indices: np.ndarray) -> bool:
    return solved is not None and len(solved.index) == len(indices)


def _claim(folder: Path, recipe: dict[str, Any]) -> None:
    """Write the recipe, or compare it with the one that is there."""
    path = folder / "recipe.json"
    theirs = records.read_json(path, recipe)
    for key in recipe | theirs:
        if recipe.get(key) != theirs.get(key):
            raise ValueError(
                f"{folder} holds other systems ({key} = {theirs.get(key)} there, "
                f"{recipe.get(key)} here). Name another --workdir, or delete that one"
            )
    records.write_json(path, recipe)


def _load(path: Path) -> Solved | None:
    """A portion; one that cannot be read is moved aside and counts as absent."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Solved(*(arrays[name] for name in Solved._fields))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        aside = path.with_name(f"unreadable-{path.name}")
        if jax.process_index() == 0:
            path.replace(aside)
        records.say(f"{path} cannot be read, now at {aside}: {error}")
        return None


def _save(path: Path, solved: Solved) -> None:
    """The whole file or nothing of it; only process 0 writes."""
    if jax.process_index() != 0:
        return
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, **solved._asdict())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
