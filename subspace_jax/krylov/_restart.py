"""What the restarted methods share: their options, what a restart keeps, when a pair is found."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov._operands import Options, Tolerance, check_count, check_limits
from subspace_jax.krylov._solution import Info, Status
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array

MANY = 1000.0
"""Roundings that may add up in a pair's true residual, over many restarts."""


class Plan(NamedTuple):
    """The options of a restarted method, checked."""

    k: int
    num_basis: int
    rtol: Any
    maxiter: int


def plan(
    n: int,
    dtype: Any,
    k: int,
    num_basis: int | None,
    rtol: Tolerance | None,
    maxiter: int | None,
) -> Plan:
    """The options for a space of dimension ``n``.

    Raises:
        ValueError: one is out of bounds.
    """
    k = check_count("k", k, 1, n)
    if num_basis is None:
        num_basis = min(n, max(2 * k + 1, 20))
    m = check_count("num_basis", num_basis, min(k + 1, n), n)
    return Plan(k, m, *stopping(n, dtype, rtol, maxiter))


def stopping(
    n: int, dtype: Any, rtol: Tolerance | None, maxiter: int | None
) -> tuple[Tolerance, int]:
    """The tolerance, by default 1e-10 or in single precision 1e-5, and the most steps.

    Raises:
        ValueError: one is negative.
    """
    if rtol is None:
        rtol = 1e-10 if jnp.finfo(dtype).bits == 64 else 1e-5
    limits = check_limits(Options(rtol=rtol, maxiter=maxiter), n)
    return jax.lax.stop_gradient(rtol), limits.maxiter


def num_kept(num_found: Any, k: int, m: int) -> Any:
    """Ritz vectors to keep: k, and one more for each that is found, as ARPACK does.

    More of them, or those that a gap suggests, save steps on easy spectra and cost twice as many on
    hard ones.
    """
    return k + jnp.minimum(num_found, (m - k) // 2).astype(jnp.int32)


def most_kept(k: int, m: int) -> int:
    """The largest value of `num_kept`."""
    return k + (m - k) // 2


def compressed(V: Array, Y: Array, kept: Any, most: int) -> Array:
    """The first rows of V combined by the first ``kept`` columns of Y; zeros below."""
    Y = jnp.where(jnp.arange(most) < kept, Y[:, :most], 0)
    return jnp.zeros_like(V).at[:most].set(matmul(Y.conj().T, V[: len(Y)]))


def is_found(errors: Array, values: Array, size: Any, rtol: Any, roundings: float = 10.0) -> Array:
    """Whether errors are below the tolerance, or ``roundings`` beside the ``size`` of A."""
    floor = roundings * jnp.finfo(values.dtype).eps * size
    return errors <= jnp.maximum(rtol * jnp.abs(values), floor)


def info(
    num_steps: Any,
    num_matvecs: Any,
    found: Array,
    errors: Array,
    true: Array,
) -> Info:
    """How it ended: which pairs the method has ``found``, and which the ``true`` residuals."""
    status = jnp.where(jnp.all(true), int(Status.CONVERGED), int(Status.ATTAINABLE_ACCURACY))
    status = jnp.where(jnp.all(found), status, int(Status.MAX_STEPS))
    status = jnp.where(jnp.all(jnp.isfinite(errors)), status, int(Status.NONFINITE))
    return Info(status.astype(jnp.int32), num_steps, num_matvecs, jnp.max(errors))
