"""Conjugate gradients whose inner products of a step need one sum over devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import sqrt
from subspace_jax.krylov._iterate import RESTART, RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def single_reduction_cg(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    preconditioner: LinearMap | None = None,
    rtol: Tolerance | None = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> Solution:
    """The solution of A x = b as `cg` finds it, with one sum over devices in a step for its two.

    The inner products of a step do not wait for each other, so that XLA sums them in one
    all-reduce. The price is one vector more, A p by recurrence, more passes over vectors in a step,
    and one product more in all: on a single device `cg` is faster. The curvature comes by a
    recurrence too, with a bound of its rounding: where that may have decided the sign the method
    starts afresh. Arguments, derivatives and errors as in `cg`.

    Reference: Chronopoulos & Gear (1989); the recurrence of the curvature from their eq. 4.2.
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve(_method, A, b, x0, options, hermitian=True)


class _State(NamedTuple):
    x: PyTree
    r: PyTree
    z: PyTree | None
    """M r; None without a preconditioner: r itself."""
    w: PyTree
    """A z."""
    p: PyTree
    s: PyTree
    """A p."""
    rz: Any
    before: Any
    """<r, z> of the step that made p; zero before the first."""
    curvature: Any
    """<p, A p> of the next direction p."""
    doubt: Any
    """How far rounding may have taken it."""
    error: Any
    status: Any


def _method(system: System) -> Method:
    def products(r):
        """What the next step needs of r, every inner product independent of the others."""
        z = r if system.precondition is None else system.precondition(r)
        w = system.apply(z)
        rz, wz, ww = (system.inner(*pair).real for pair in ((r, z), (w, z), (w, w)))
        rr, zz = (rz, rz) if system.precondition is None else (
            system.inner(r, r).real, system.inner(z, z).real
        )  # fmt: skip
        unit = 4 * jnp.finfo(rz.dtype).eps
        doubt = unit * sqrt(ww) * sqrt(zz)
        return None if system.precondition is None else z, w, rz, wz, doubt, sqrt(rr)

    def status(rz, curvature, doubt, error):
        broken = jnp.where(curvature < -doubt, int(Status.INDEFINITE), RESTART)
        found = jnp.where(curvature > 0, RUNNING, broken)
        found = jnp.where(rz > 0, found, int(Status.PRECONDITIONER_BREAKDOWN))
        found = jnp.where(error > 0, found, RUNNING)
        finite = jnp.isfinite(curvature) & jnp.isfinite(rz)
        return jnp.where(finite, found, int(Status.NONFINITE)).astype(jnp.int32)

    def begin(x, r, norm):
        del norm
        z, w, rz, curvature, doubt, error = products(r)
        zeros = jax.tree.map(jnp.zeros_like, r)
        # Of a direction of no curvature at all there is no second opinion.
        sign = jnp.where(curvature == 0, -jnp.ones_like(curvature), curvature)
        found = status(rz, sign, jnp.zeros_like(rz), error)
        never = jnp.zeros_like(rz)
        return _State(x, r, z, w, zeros, zeros, rz, never, curvature, doubt, error, found)

    def step(state, on):
        beta = jnp.where(state.before > 0, state.rz, 0)
        beta = beta / jnp.where(state.before > 0, state.before, 1)
        z = state.r if state.z is None else state.z
        p = hold(on, tree.axpy(beta, state.p, z), state.p)
        s = hold(on, tree.axpy(beta, state.s, state.w), state.s)
        moves = (state.curvature > 0) & (state.error > system.floor)
        alpha = jnp.where(moves, state.rz, 0) / jnp.where(moves, state.curvature, 1)
        x = hold(on, tree.axpy(alpha, p, state.x), state.x)
        r = hold(on, tree.axpy(-alpha, s, state.r), state.r)
        z, w, rz, wz, own, error = products(r)
        ratio = jnp.where(state.rz > 0, rz, 0) / jnp.where(state.rz > 0, state.rz, 1)
        curvature = wz - ratio**2 * state.curvature
        doubt = own + ratio**2 * state.doubt
        found = status(rz, curvature, doubt, error)
        return _State(x, r, z, w, p, s, rz, state.rz, curvature, doubt, error, found)

    return Method(begin, step, begin_matvecs=1)
