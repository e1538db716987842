"""The loop that all solvers share: steps of a recurrence between checks of the true residual.

A recurrence's own residual norm only says when to look. Convergence, stagnation and the limit that
rounding sets are decided on b - A x, computed anew. When the recurrence has run ahead of the truth
the method starts afresh from the true residual; when that gains nothing either, the accuracy is
what the arithmetic can attain. Where a method knows what rounding makes of b - A x, and the
tolerance is a tenth of it or less, the last fresh start gets half the steps that were made before.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov._lanes import hold, repeat, select
from subspace_jax.krylov._solution import Info, Solution, Status
from subspace_jax.typing import PyTree

RUNNING = -1
RESTART = -2
"""A method's wish to start afresh from the true residual."""
FULL = -3
"""A method's wish to end a cycle that does not resume, before its ``period``."""
PERIOD = 50
"""Steps between checks of the true residual, if nothing asks for one earlier."""


class System(NamedTuple):
    """A linear system as a loop sees it: checked, scaled, its operators traced."""

    apply: Callable[[PyTree], PyTree]
    precondition: Callable[[PyTree], PyTree] | None
    inner: Callable[[PyTree, PyTree], Any]
    norm: Callable[[PyTree], Any]
    """The norm of ``inner``; for a block, of every column."""
    b: PyTree
    x0: PyTree | None
    tolerance: Any
    """The error to reach; real scalar."""
    error: Callable[[PyTree, Any], Any]
    """(residual, its norm) -> what is compared with the tolerance."""
    error_matvecs: int = 0
    """Products with the adjoint that ``error`` takes."""
    zero: PyTree | None = None
    """The zero of the domain, where that is not the space of b."""
    floor: Any = 0.0
    """The error below which a residual is rounding: steps of a fixed number stand still there."""


class Method(NamedTuple):
    """A recurrence. Its state is a NamedTuple with fields x, error, status among others."""

    begin: Callable[..., Any]
    """(x, r, norm) -> state; r is the true residual of x. With a memory a fourth: that."""
    step: Callable[[Any, Any], Any]
    """(state, on) -> state; lanes of a vmap that are not ``on`` stay as they are: `hold`."""
    finish: Callable[[Any], PyTree] = lambda state: state.x
    """state -> x. With a memory state -> (x, memory)."""
    memory: Any = None
    """What the first cycle is told, and each cycle tells the next; None: nothing."""
    resumes: bool = True
    """The recurrence goes on after a check; else each cycle begins anew."""
    matvecs: int = 1
    """Products with A and its adjoint in a step."""
    begin_matvecs: int = 0
    """Products in ``begin``."""
    period: int = PERIOD
    """Steps until the next check of the true residual."""
    drop: float | None = None
    """The recurrence's error relative to the last true one that asks for a check."""
    rounding: Callable[[Any, PyTree], Any] | None = None
    """(state, x of `finish`) -> the error that rounding makes of b - A x; None: not known."""
    max_idle: int | None = None
    """Fresh starts without a gain of 1e-3 in all that mean stagnation, once they have taken as many
    steps as all before them; None: no such test."""


class Limits(NamedTuple):
    """When to stop, apart from the tolerance, and what to record."""

    maxiter: int
    history: bool
    check_every: int


class _Gain(NamedTuple):
    """The last time that the true error fell by 1e-3, and the fresh starts since."""

    error: Any
    num_steps: Any
    num_idle: Any


class _Outer(NamedTuple):
    x: PyTree
    r: PyTree
    norm: Any
    error: Any
    target: Any
    """The recurrence's error that asks for the next check."""
    fresh: Any
    """The recurrence starts anew from the true residual."""
    last: Any
    """The tolerance is out of reach: this fresh start is the last, if the error is as rounding
    has it. None where the method does not know that."""
    gain: _Gain
    status: Any
    num_steps: Any
    num_matvecs: Any
    state: Any
    """The recurrence's own, where it resumes."""
    memory: Any
    best: tuple[PyTree, Any, Any]
    """The checked iterate of least error, and its residual norm and error."""
    history: Any


def iterate(system: System, method: Method, limits: Limits) -> Solution:
    """Run the method until the true residual decides; never more than ``maxiter`` steps."""
    return iterate_and_keep(system, method, limits)[0]


def iterate_and_keep(system: System, method: Method, limits: Limits) -> tuple[Solution, Any]:
    """As `iterate`, and what the method leaves: its memory, or the state where it resumes."""
    first = _begin(system, method, limits)

    def cycle(outer: _Outer, on: Any) -> _Outer:
        start = (outer.x, outer.r, outer.norm)
        begin = partial(method.begin, *start if outer.memory is None else (*start, outer.memory))
        state = begin() if not method.resumes else jax.lax.cond(
            outer.fresh, begin, lambda: outer.state
        )  # fmt: skip

        def active(carry):
            state, num_steps, _ = carry
            done = num_steps - outer.num_steps
            # A cycle makes a step whatever the target rounds to, or it would repeat for ever.
            wanted = (state.error > outer.target) | (done == 0)
            inside = (done < method.period) & (num_steps < limits.maxiter)
            if outer.last is not None:
                inside &= ~outer.last | (2 * done < outer.num_steps)
            return (state.status == RUNNING) & inside & wanted & on

        def advance(carry, on):
            state, num_steps, history = carry
            state = _held_step(method, state, on)
            if history is not None:
                index = jnp.where(on, num_steps, limits.maxiter)
                history = history.at[index].set(state.error, mode="drop")
            return state, num_steps + on, history

        carry = (state, outer.num_steps, outer.history)
        state, num_steps, history = repeat(active, advance, carry, limits.check_every)
        checked = _check(system, method, limits, outer, state, num_steps)
        return hold(on, checked, outer._replace(history=None))._replace(history=history)

    last = repeat(lambda outer: outer.status == RUNNING, cycle, first, 1)
    x, norm, _ = last.best
    info = Info(last.status, last.num_steps, last.num_matvecs, norm, last.history)
    return Solution(x, info), last.state if method.resumes else last.memory


def iterate_fixed(system: System, method: Method, limits: Limits) -> Solution:
    """Run exactly ``maxiter`` steps in scans, without any test, to be differentiated through."""
    outer = _begin(system, method, limits)

    def steps(carry, count):
        x, r, norm = carry
        state = method.begin(x, r, norm)

        def advance(state, _):
            state = method.step(state, True)
            return state, (state.error,) if limits.history else ()

        state, errors = jax.lax.scan(advance, state, None, length=count)
        x = method.finish(state)
        r = _residual(system, x)
        return (x, r, system.norm(r)), errors

    period = max(limits.maxiter, 1) if method.resumes else method.period
    num_cycles, rest = divmod(limits.maxiter, period)
    carry = (outer.x, outer.r, outer.norm)
    carry, errors = jax.lax.scan(lambda c, _: steps(c, period), carry, None, length=num_cycles)
    (x, _, norm), last = steps(carry, rest) if rest else (carry, ())
    status = jnp.where(jnp.all(jnp.isfinite(norm)), int(Status.CONVERGED), int(Status.NONFINITE))
    num_cycles += bool(rest)
    matvecs = outer.num_matvecs + method.matvecs * limits.maxiter
    matvecs += num_cycles * (1 + method.begin_matvecs) - system.error_matvecs
    history = None
    if limits.history:
        history = jnp.concatenate([part.ravel() for part in (*errors, *last)])
    info = Info(status.astype(jnp.int32), jnp.int32(limits.maxiter), matvecs, norm, history)
    return Solution(x, info)


def _begin(system: System, method: Method, limits: Limits) -> _Outer:
    zeros = system.b if system.zero is None else system.zero
    x = jax.tree.map(jnp.zeros_like, zeros) if system.x0 is None else system.x0
    r = system.b if system.x0 is None else _residual(system, x)
    norm = system.norm(r)
    error = system.error(r, norm)
    status = jnp.where(limits.maxiter > 0, RUNNING, int(Status.MAX_STEPS))
    status = jnp.where(error <= system.tolerance, int(Status.CONVERGED), status)
    status = jnp.where(jnp.all(jnp.isfinite(norm)), status, int(Status.NONFINITE))
    history = jnp.full(limits.maxiter, jnp.nan, norm.dtype) if limits.history else None
    state = None
    if method.resumes:
        shapes = jax.eval_shape(method.begin, x, r, norm)
        state = jax.tree.map(jnp.zeros_like, shapes)
    matvecs = (system.x0 is not None) + system.error_matvecs
    zero = jnp.zeros((), jnp.int32)
    last = None if method.rounding is None else jnp.array(False)
    return _Outer(
        x, r, norm, error, _target(system, method, error, 1, False), jnp.array(True), last,
        _Gain(error, zero, zero), status.astype(jnp.int32), zero, jnp.int32(matvecs), state,
        method.memory, (x, norm, error), history,
    )  # fmt: skip


def _check(
    system: System, method: Method, limits: Limits, outer: _Outer, state: Any, num_steps: Any
) -> _Outer:
    """The true residual after a cycle, and what it means."""
    finished = method.finish(state)
    x, memory = (finished, None) if method.memory is None else finished
    r = _residual(system, x)
    norm = system.norm(r)
    error = system.error(r, norm)
    limited = state.error < error / 2  # the recurrence has run ahead of the truth
    restart = state.status == RESTART
    counted = restart if method.resumes else True
    since = outer.gain._replace(num_idle=outer.gain.num_idle + counted)
    now = _Gain(error, jnp.int32(num_steps), jnp.zeros((), jnp.int32))
    gain = jax.tree.map(partial(jnp.where, error > 0.999 * outer.gain.error), since, now)
    idle = jnp.asarray(method.max_idle is not None and gain.num_idle >= (method.max_idle or 0))
    idle &= num_steps >= 2 * gain.num_steps
    attained, last = limited & (error > outer.error / 2), None
    if method.rounding is not None:
        rounding = method.rounding(state, x)
        hopeless = system.tolerance < rounding / 10
        attained |= hopeless & outer.last & (error <= rounding)
        last = hopeless & limited
    verdicts = (  # the last that holds is the status
        (num_steps >= limits.maxiter, Status.MAX_STEPS),
        (attained, Status.ATTAINABLE_ACCURACY),
        (restart & (num_steps <= outer.num_steps + 1), Status.BREAKDOWN),
        (idle & ~limited, Status.STAGNATION),
    )
    status = jnp.int32(RUNNING)
    for holds, verdict in verdicts:
        status = jnp.where(holds, int(verdict), status)
    status = jnp.where(state.status >= 0, state.status, status)
    status = jnp.where(jnp.all(jnp.isfinite(norm)), status, int(Status.NONFINITE))
    status = jnp.where(error <= system.tolerance, int(Status.CONVERGED), status)
    best = (x, norm, error)
    # Newton's methods use the iterate before a direction of negative curvature, whatever its r.
    better = (error < outer.best[-1]) | (status == int(Status.INDEFINITE))
    best = select(better, best, outer.best)
    resumed = jnp.where(outer.fresh, 1, 0) if method.resumes else 1
    done = method.begin_matvecs * resumed + 1 + system.error_matvecs
    done += (num_steps - outer.num_steps) * method.matvecs
    ratio = jnp.where(limited | restart, 1, jnp.minimum(state.error / error, 1))
    return _Outer(
        x, r, norm, error, _target(system, method, error, ratio, limited),
        limited | restart, last, gain, status.astype(jnp.int32),
        num_steps, outer.num_matvecs + done, state if method.resumes else None, memory, best,
        None,
    )  # fmt: skip


def _target(system: System, method: Method, error: Any, ratio: Any, limited: Any) -> Any:
    """The recurrence's error to check at; ``ratio`` is what it was over the true one, at most 1."""
    drop = method.drop or float(jnp.finfo(error.dtype).eps) ** 0.25
    factor = jnp.where(limited, 0.25, drop).astype(error.dtype)
    return jnp.maximum(system.tolerance, error * factor) * ratio


def _residual(system: System, x: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, system.b, system.apply(x))


def _held_step(method: Method, state: Any, on: Any) -> Any:
    """A step; the method holds its vectors, here its scalars are held."""
    new = method.step(state, on)
    if not method.resumes:
        return new
    scalars = [i for i, leaf in enumerate(jax.tree.leaves(new)) if jnp.ndim(leaf) == 0]
    leaves, structure = jax.tree.flatten(new)
    old = jax.tree.leaves(state)
    held = hold(on, [leaves[i] for i in scalars], [old[i] for i in scalars])
    for i, leaf in zip(scalars, held, strict=True):
        leaves[i] = leaf
    return structure.unflatten(leaves)
