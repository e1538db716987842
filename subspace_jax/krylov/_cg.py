"""Conjugate gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import divide, sqrt
from subspace_jax.krylov._iterate import RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import LinearMap, PyTree


def cg(
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
    """The solution of A x = b for Hermitian positive definite A, by conjugate gradients.

    Args:
        A: a linear callable on pytrees like ``b``, or anything with ``@`` for an array ``b``.
        b: the right-hand side, any pytree of real or of complex arrays.
        x0: where to start; zero if None. It does not change what the tolerances mean.
        preconditioner: a linear map r -> z that approximates A^{-1}; here Hermitian positive
            definite like A.
        rtol: stop at ||b - A x|| <= max(rtol ||b||, atol), the residual computed anew. None: make
            exactly ``maxiter`` steps with no test at all, differentiable by unrolling
            as long as the residual is not exactly zero.
        atol: see ``rtol``.
        maxiter: most steps; None means min(10 n, 10000) for n unknowns.
        history: record the residual norm of every step in ``info.history``.
        check_every: steps between two tests of the loop's condition, so that a GPU need not ask
            the host in every step; steps past the end change nothing.
        AT: the adjoint, used for derivatives of solvers of general A where JAX cannot transpose
            A. A Hermitian A is its own.
        adjoint_rtol: ``rtol`` of the solves that derivatives take; None: the same.
        inner_product: (x, y) -> <x, y>, conjugate-linear in x, in place of `tree.vdot`: a psum
            under ``shard_map`` (with ``check_vma=False``). With a weighted product in which A is
            self-adjoint values are right, but derivatives are not: they assume the Euclidean one.

    Returns:
        `Solution` (value, info), info an `Info`: status, steps, products, true residual norm.
        ``INDEFINITE`` comes with the last iterate before the direction of negative curvature.
        Derivatives with respect to b and all that A closes over are implicit: one more solve.
        They are NaN if that solve fails, unless it ended at a ``maxiter`` that the caller named.

    Raises:
        ValueError: operands that do not fit (both shapes or dtypes named), integer operands,
            negative tolerances or ``maxiter``.

    Reference: Hestenes & Stiefel (1952); residual replacement: van der Vorst & Ye (2000).
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve(method, A, b, x0, options, hermitian=True)


class _State(NamedTuple):
    x: PyTree
    r: PyTree
    z: PyTree
    p: PyTree
    rz: Any
    beta: Any
    """How much of p the next direction takes."""
    curvature: Any
    """Of A along p."""
    norm: Any
    """Of r; None without a preconditioner, where rz is its square."""
    least: Any
    """The rz that is rounding, in runs of a fixed number of steps; no norm needed for that."""
    kept: Any = None
    """What `recycled_cg` collects on the way."""

    # Small systems are bound by the number of a step's kernels: these two run in the loop's test.

    @property
    def error(self) -> Any:
        """The norm of r."""
        return sqrt(self.rz) if self.norm is None else self.norm

    @property
    def status(self) -> Any:
        """Whether the next step makes sense."""
        solved = self.error == 0
        status = jnp.where((self.rz > 0) | solved, RUNNING, int(Status.PRECONDITIONER_BREAKDOWN))
        status = jnp.where((self.curvature > 0) | solved, status, int(Status.INDEFINITE))
        finite = jnp.isfinite(self.curvature) & jnp.isfinite(self.rz)
        return jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)


def method(
    system: System, kept: Any = None, keep: Callable[..., Any] = lambda kept, *_: kept
) -> Method:
    """The recurrence; ``keep(kept, p, A p, curvature, on) -> kept`` sees every direction."""

    def precondition(r):
        if system.precondition is None:
            return None, system.inner(r, r).real, None
        z = system.precondition(r)
        return z, system.inner(r, z).real, system.norm(r)

    def begin(x, r, norm):
        z, rz, _ = (None, norm**2, None) if system.precondition is None else precondition(r)
        p, beta = r, jnp.zeros_like(rz)  # with this beta any p will do
        least = None if isinstance(system.floor, float) else divide(system.floor, norm) ** 2 * rz
        norm = None if system.precondition is None else norm
        return _State(x, r, z, p, rz, beta, jnp.ones_like(rz), norm, least, kept)

    def step(s, on):
        p = hold(on, tree.axpy(s.beta, s.p, s.r if s.z is None else s.z), s.p)
        q = system.apply(p)
        curvature = system.inner(p, q).real
        # What is rounding may lie where a singular A has next to no curvature: no step along it.
        above = s.rz > (0 if s.least is None else s.least)
        moves = (curvature > 0) & above
        alpha = jnp.where(moves, s.rz, 0) / jnp.where(moves, curvature, 1)
        x = hold(on, tree.axpy(alpha, p, s.x), s.x)
        r = hold(on, tree.axpy(-alpha, q, s.r), s.r)
        z, rz, norm = precondition(r)
        beta = jnp.where(s.rz > 0, rz, 0) / jnp.where(s.rz > 0, s.rz, 1)
        kept = keep(s.kept, p, q, curvature, on)
        return _State(x, r, z, p, rz, beta, curvature, norm, s.least, kept)

    return Method(begin, step)
