"""From a user's operands to a `System`: tracing, scaling, derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import norm_of, times
from subspace_jax.krylov._implicit import Implicit
from subspace_jax.krylov._iterate import System, iterate, iterate_fixed
from subspace_jax.krylov._operands import (
    InnerProduct,
    Options,
    check_limits,
    check_same_spaces,
    traced,
    vector,
)
from subspace_jax.krylov._solution import Info, Solution
from subspace_jax.typing import LinearMap, PyTree


def solve(
    method: Callable[..., Any],
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None,
    options: Options,
    *,
    hermitian: bool,
    transposed_preconditioner: bool = True,
    adjoint_preconditioner: LinearMap | None = None,
    name: str = "preconditioner",
    name_b: str = "b",
    run: Callable[..., Solution] | None = None,
    run_adjoint: Callable[..., Solution] | None = None,
) -> Solution:
    """The solution of A x = b by a method, differentiable in b and in all that A closes over."""
    b = vector(name_b, b)
    apply = traced("A", A, b)
    precondition = None
    if options.preconditioner is not None:
        precondition = traced(name, options.preconditioner, b, frozen=options.rtol is not None)
    if x0 is not None:
        x0 = vector("x0", x0)
        check_same_spaces("x0", x0, name_b, b)
    plain = run or _run
    limits = check_limits(options, tree.size(b))

    def solve_once(apply, precondition, b, x0, rtol, atol, run=plain) -> Solution:
        return run(method, apply, precondition, b, x0, rtol, atol, limits, options.inner_product)

    if options.rtol is None:
        return solve_once(apply, precondition, b, x0, None, options.atol)
    implicit = Implicit(
        solve_once,
        partial(solve_once, run=run_adjoint or plain),
        apply,
        precondition,
        b,
        None if x0 is None else jax.lax.stop_gradient(x0),
        options.frozen(),
        adjoint_preconditioner,
        transposed_preconditioner,
    )
    if hermitian:
        return implicit.hermitian()
    if options.AT is not None:
        return implicit.dilated(traced("AT", options.AT, b))
    return implicit.general()


def _run(method, apply, precondition, b, x0, rtol, atol, limits, inner_product) -> Solution:
    """The plain loop."""
    system, scale = scaled_system(apply, precondition, b, x0, rtol, atol, inner_product)
    x, info = (iterate_fixed if rtol is None else iterate)(system, method(system), limits)
    return Solution(times(scale, x), rescale(info, scale))


def scaled_system(apply, precondition, b, x0, rtol, atol, inner_product) -> tuple[System, Any]:
    """The system with b divided by a power of two, so that squares neither vanish nor overflow."""
    inner = inner_product or tree.vdot
    scale, inverse, zero = power_of_two(b, inner_product)
    b = times(inverse, b)
    x0 = scaled_start(x0, inverse, zero)
    norm = norm_of(inner)
    norm_b = norm(b)
    tolerance = jnp.maximum((0.0 if rtol is None else rtol) * norm_b, atol * inverse)
    system = System(
        apply,
        precondition,
        inner,
        norm,
        b,
        x0,
        tolerance.astype(norm_b.dtype),
        lambda r, size: size,
        floor=10 * jnp.finfo(norm_b.dtype).eps * norm_b if rtol is None else 0.0,
    )
    return system, scale


def rescale(info: Info, scale: Any) -> Info:
    """The norms in the units of the caller."""
    history = None if info.history is None else info.history * scale
    return info._replace(residual_norm=info.residual_norm * scale, history=history)


def power_of_two(b: PyTree, inner_product: InnerProduct) -> tuple[Any, Any, Any]:
    """A power of two near the largest entry of b (1 if there is none), 1 / it, whether b is zero.

    With an inner product of the caller's, which may sum over shards, "largest entry" is the norm,
    taken at three magnitudes, since squares of small or large entries leave the dtype's range.
    """
    dtype = jax.tree.leaves(b)[0].real.dtype
    maxexp = jnp.finfo(dtype).maxexp
    if inner_product is None:
        leaves = (jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(b) if leaf.size)
        largest = jax.tree.reduce(jnp.maximum, list(leaves), jnp.zeros((), dtype))
    else:
        far = 2.0 ** (maxexp // 2)
        largest = jnp.zeros((), dtype)
        for factor in (1 / far, far, 1.0):  # the last whose square is in range
            scaled = times(factor, b)
            square = inner_product(scaled, scaled).real
            least = float(jnp.finfo(dtype).tiny) / float(jnp.finfo(dtype).eps)
            inside = jnp.isfinite(square) & (square > least)
            largest = jnp.where(inside, jnp.sqrt(square) / factor, largest)
    wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
    integer, mask = (jnp.int32, 0x7F800000) if wide == jnp.float32 else (jnp.int64, 0x7FF << 52)
    bits = jax.lax.bitcast_convert_type(largest.astype(wide), integer)
    one, least, most = (
        np.asarray(2.0**power, wide).view(integer) for power in (0, 4 - maxexp, maxexp - 4)
    )
    usable = jnp.isfinite(largest) & (largest > 0)
    bits = jnp.where(usable, jnp.clip(bits & integer(mask), least, most), one)  # no mantissa
    scale, inverse = (
        jax.lax.bitcast_convert_type(power, wide).astype(dtype) for power in (bits, 2 * one - bits)
    )
    return scale, inverse, largest == 0


def scaled_start(x0: PyTree | None, factor: Any, is_zero: Any) -> PyTree | None:
    """The start for the right-hand side that was multiplied by ``factor``: zero if that is zero."""
    if x0 is None:
        return None
    return jax.tree.map(lambda leaf: jnp.where(is_zero, 0, leaf), times(factor, x0))
