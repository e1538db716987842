"""What a solver returns: the value, and what happened."""

from enum import IntEnum
from typing import NamedTuple

import jax
import numpy as np

from subspace_jax.typing import Array, PyTree


class Status(IntEnum):
    """Why a solver stopped; only ``CONVERGED`` is zero."""

    CONVERGED = 0
    """The true residual is below the tolerance (or the asked number of steps is done)."""
    MAX_STEPS = 1
    """``maxiter`` steps were not enough."""
    STAGNATION = 2
    """The method makes no progress: a singular system, or a restart that is too short."""
    ATTAINABLE_ACCURACY = 3
    """The recurrence goes on falling while the true residual does not: rounding's limit."""
    BREAKDOWN = 4
    """A division by zero of the method, also after a restart."""
    INDEFINITE = 5
    """A direction of negative or zero curvature: A is not positive definite."""
    PRECONDITIONER_BREAKDOWN = 6
    """The preconditioner is not positive definite, where the method needs it to be."""
    NONFINITE = 7
    """A NaN or an infinity in the operands, the operator or the preconditioner."""


class Info(NamedTuple):
    """What happened in a solve: a pytree of arrays, without derivatives."""

    status: Array
    """int32, a `Status`."""
    num_steps: Array
    """int32, iterations (inner ones for restarted methods)."""
    num_matvecs: Array
    """int32, products with A and its adjoint, those of the checks included."""
    residual_norm: Array
    """The true ||b - A x||, computed from ``value``."""
    history: Array | None = None
    """(maxiter,) residual norms of the recurrence after each step, NaN past ``num_steps``."""
    drift: Array | None = None
    """Solvers that carry a space between calls: how far it has turned."""


class Solution(NamedTuple):
    """``value, info = solver(...)``."""

    value: PyTree
    info: Info


def raise_if_failed(solution: Solution) -> Solution:
    """The solution itself, if every system of it converged; else an error. Not for use under jit.

    Raises:
        RuntimeError: the statuses that are not ``CONVERGED``, with steps and residual norms.
    """
    status, steps, norms = (
        np.atleast_1d(jax.device_get(leaf)) for leaf in (
            solution.info.status, solution.info.num_steps, solution.info.residual_norm
        )
    )  # fmt: skip
    norms = norms.reshape(status.size, -1).max(1)  # of a block: the largest
    failed = np.flatnonzero(status)
    if len(failed):
        first = failed[0]
        which = f"{len(failed)} of {status.size} systems failed, the first " if status.ndim else ""
        which = which if status.size > 1 else "the solver stopped "
        raise RuntimeError(
            f"{which}with {Status(int(status.flat[first])).name} after {steps.flat[first]} steps "
            f"at a residual norm of {norms.flat[first]:.3g}"
        )
    return solution
