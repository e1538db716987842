"""Iterative refinement: float64 residuals around a float32 solver."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import tree
from subspace_jax.krylov import _problem as problem
from subspace_jax.krylov._arithmetic import norm_of, times
from subspace_jax.krylov._iterate import RUNNING
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance, check_count, vector
from subspace_jax.krylov._solution import Info, Solution, Status
from subspace_jax.linalg.operators import as_callable
from subspace_jax.typing import LinearMap, PyTree

_LOW = {"float64": jnp.float32, "complex128": jnp.complex64}


def refine(
    solve: Callable[..., Solution],
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    rtol: Tolerance = 1e-12,
    atol: Tolerance = 0.0,
    max_refinements: int = 20,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> Solution:
    """The float64 solution of A x = b by a solver that works in float32.

    Each round takes the residual in float64 and solves for the correction in float32, where a
    product costs half the traffic; a round gains about the inner solver's ``rtol``.

    Args:
        solve: ``(A, r) -> Solution``, a solver of this package with its options:
            ``functools.partial(krylov.cg, rtol=1e-4)``.
        A: see `gmres`; a callable must take float32 vectors as well as float64 ones.
        b: the right-hand side, float64 or complex128 (``jax.enable_x64``).
        x0: see `cg`.
        rtol: see `cg`; here the float64 residual.
        atol: see `cg`.
        max_refinements: most rounds.
        AT: see `gmres`.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`; of float64 vectors. That of ``solve`` is bound to it.

    Returns:
        See `cg`. ``num_steps`` and ``num_matvecs`` are sums over the rounds. A round that gains
        less than a factor of two ends it: ``ATTAINABLE_ACCURACY`` if the inner solver converged,
        else ``STAGNATION``. Derivatives are refined solves too.

    Raises:
        ValueError: ``solve`` is no callable, ``b`` in single precision, ``max_refinements`` < 0;
            otherwise as in `gmres`.

    Reference: Wilkinson (1963); Carson & Higham (2018).
    """
    if not callable(solve):
        raise ValueError(f"solve must be a solver (A, r) -> Solution, got {solve!r}")
    b = vector("b", b)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(b)}
    if not dtypes <= set(_LOW):
        raise ValueError(
            f"refine needs b in float64 or complex128 (see jax.enable_x64), got {sorted(dtypes)}"
        )
    if rtol is None:
        raise ValueError("refine stops at a tolerance: rtol must not be None")
    max_refinements = check_count("max_refinements", max_refinements, 0)
    options = Options(
        _single(A), rtol, atol, max_refinements,
        AT=AT, adjoint_rtol=adjoint_rtol, inner_product=inner_product,
    )  # fmt: skip
    return problem.solve(solve, A, b, x0, options, hermitian=False, name="A", run=_run,
        adjoint_preconditioner=None if AT is None else _single(AT),
    )  # fmt: skip


def _single(A: LinearMap) -> Callable[[PyTree], PyTree]:
    """The product in single precision, between vectors of double precision."""
    if isinstance(A, jax.Array | np.ndarray):
        A = jnp.asarray(A, _LOW.get(str(A.dtype), A.dtype))
    return lambda v: _high(as_callable(A)(_low(v)))


class _Round(NamedTuple):
    x: PyTree
    r: PyTree
    norm: Any
    status: Any
    num_rounds: Any
    num_steps: Any
    num_matvecs: Any


def _run(solve, apply, single, b, x0, rtol, atol, limits, inner_product) -> Solution:
    norm = norm_of(inner_product or tree.vdot)
    scale, inverse, zero = problem.power_of_two(b, inner_product)
    b = times(inverse, b)
    tolerance = jnp.maximum(rtol * norm(b), atol * inverse)

    def residual(x):
        return jax.tree.map(jnp.subtract, b, apply(x))

    def improve(s):
        size = jnp.where(s.norm > 0, s.norm, 1)
        correction, info = solve(lambda v: _low(single(_high(v))), _low(times(1 / size, s.r)))
        x = tree.axpy(size, _high(correction), s.x)
        r = residual(x)
        after = norm(r)
        gained = after <= s.norm / 2
        fine = (info.status == Status.CONVERGED) | (info.status == Status.ATTAINABLE_ACCURACY)
        status = jnp.where(s.num_rounds + 1 < limits.maxiter, RUNNING, int(Status.MAX_STEPS))
        limit = jnp.where(fine, int(Status.ATTAINABLE_ACCURACY), int(Status.STAGNATION))
        status = jnp.where(gained, status, limit)
        status = jnp.where(jnp.isfinite(after), status, int(Status.NONFINITE))
        status = jnp.where(after <= tolerance, int(Status.CONVERGED), status).astype(jnp.int32)
        better = after < s.norm
        x, r, after = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (x, r, after), (s.x, s.r, s.norm)
        )
        return _Round(
            x, r, after, status, s.num_rounds + 1, s.num_steps + info.num_steps,
            s.num_matvecs + info.num_matvecs + 1,
        )  # fmt: skip

    x = jax.tree.map(jnp.zeros_like, b)
    if x0 is not None:
        x = problem.scaled_start(x0, inverse, zero)
    r = b if x0 is None else residual(x)
    size = norm(r)
    status = RUNNING if limits.maxiter else int(Status.MAX_STEPS)
    status = jnp.where(size <= tolerance, int(Status.CONVERGED), status)
    status = jnp.where(jnp.isfinite(size), status, int(Status.NONFINITE)).astype(jnp.int32)
    none = jnp.int32(0)
    first = _Round(x, r, size, status, none, none, jnp.int32(x0 is not None))
    last = jax.lax.while_loop(lambda s: s.status == RUNNING, improve, first)
    info = Info(last.status, last.num_steps, last.num_matvecs, last.norm * scale)
    return Solution(times(scale, last.x), info)


def _low(x: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(_LOW[str(leaf.dtype)]), x)


def _high(x: PyTree) -> PyTree:
    high = {"float32": jnp.float64, "complex64": jnp.complex128}
    return jax.tree.map(lambda leaf: leaf.astype(high.get(str(leaf.dtype), leaf.dtype)), x)
