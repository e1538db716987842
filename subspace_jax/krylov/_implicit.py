"""Implicit derivatives: a solve bound to ``lax.custom_linear_solve``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov._operands import Options, traced_once
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.typing import PyTree


class Implicit(NamedTuple):
    """A solve bound to `lax.custom_linear_solve`, so that derivatives are solves too.

    Vectors pass as their real and imaginary parts: in real form a transpose is the adjoint, and a
    Hermitian operator is symmetric. One component more, ``flag``, is 1 in the user's own solve and
    0 in solves for derivatives, which have their own tolerance and start at zero.
    """

    run: Callable[..., Solution]
    """Its info may be anything with a ``status``."""
    run_adjoint: Callable[..., Solution]
    apply: Callable[[PyTree], PyTree]
    precondition: Callable[[PyTree], PyTree] | None
    b: PyTree
    x0: PyTree | None
    options: Options
    adjoint_preconditioner: Callable[[PyTree], PyTree] | None
    """Where the caller knows it; else JAX's transpose, if allowed and possible."""
    transposed_preconditioner: bool

    def hermitian(self) -> Solution:
        """A = A^H: every derivative is a solve with A."""
        (x, _), info = symmetric(
            self._flagged_apply, self._flagged_rhs(), lambda v: self._forward(*v)
        )
        return Solution(merge(x, self.b), info)

    def general(self) -> Solution:
        """The adjoint by JAX's transpose; where JAX has none, no reverse mode."""

        def transpose_solve(vecmat, v):
            cotangent, flag = v
            adjoint = traced_once(lambda y: merge(vecmat((parts(y), flag))[0], y), self.b)
            x, info = self._backward(adjoint, cotangent)
            return (x, flag), info

        rhs = self._flagged_rhs()
        (x, _), info = jax.lax.custom_linear_solve(
            self._flagged_apply,
            rhs,
            lambda _, v: self._forward(*v),
            transpose_solve if _transposes(self._flagged_apply, rhs) else None,
            has_aux=True,
        )
        return Solution(merge(x, self.b), info)

    def dilated(self, adjoint: Callable[[PyTree], PyTree]) -> Solution:
        """The adjoint by the caller: (y, x) -> (A x, A^H y) is Hermitian, whatever A is."""

        def apply(v):
            y, x, flag = v
            Ax = tied(_in_parts(self.apply, x, self.b))
            return Ax, tie(_in_parts(adjoint, y, self.b), Ax), tie(flag, Ax)

        def dual_solve(v):
            b, c, flag = v
            (x, _), info = self._forward(b, flag)
            y, _ = self._backward(adjoint, c)
            return (y, x, flag), info

        b, flag = self._flagged_rhs()
        zeros = jax.tree.map(jnp.zeros_like, b)
        (_, x, _), info = symmetric(apply, (b, tie(zeros, b), flag), dual_solve)
        return Solution(merge(x, self.b), info)

    def _forward(self, rhs: PyTree, flag: Any) -> tuple[PyTree, Any]:
        own, x0, rtol, atol = asked(flag, self.x0, self.options)
        x, info = self.run(self.apply, self.precondition, merge(rhs, self.b), x0, rtol, atol)
        return (parts(surface(x, (info,), own, self.options.maxiter)), flag), info

    def _backward(self, adjoint: Callable, rhs: PyTree) -> tuple[PyTree, Any]:
        rtol = self.options.adjoint_rtol
        rtol = self.options.rtol if rtol is None else rtol
        x, info = self.run_adjoint(
            adjoint, self._adjoint_preconditioner(), merge(rhs, self.b), None, rtol, 0.0
        )
        return parts(surface(x, (info,), False, self.options.maxiter)), info

    def _adjoint_preconditioner(self) -> Callable[[PyTree], PyTree] | None:
        if self.adjoint_preconditioner is not None:
            return self.adjoint_preconditioner
        precondition, like = self.precondition, parts(self.b)
        if precondition is None or not self.transposed_preconditioner:
            return None

        def apply(v):
            return _in_parts(precondition, v, self.b)

        if not _transposes(apply, like):
            return None
        transpose = jax.linear_transpose(apply, like)
        return lambda v: merge(transpose(parts(v))[0], self.b)

    def _flagged_apply(self, v: PyTree) -> PyTree:
        Ax = tied(_in_parts(self.apply, v[0], self.b))
        return Ax, tie(v[1], Ax)

    def _flagged_rhs(self) -> PyTree:
        return tied(parts(self.b)), own_flag(self.b)


def symmetric(
    apply: Callable, rhs: PyTree, solve: Callable[[PyTree], tuple[PyTree, Any]]
) -> tuple[PyTree, Any]:
    """``solve(rhs)`` -> (x, info), with derivatives of the x of A x = rhs for symmetric A."""
    once = traced_once(solve, rhs)  # JAX traces it for itself and for its transpose
    return jax.lax.custom_linear_solve(
        apply, rhs, lambda _, v: once(v), symmetric=True, has_aux=True
    )


def surface(x: PyTree, infos: tuple[Any, ...], own: Any, maxiter: int | None) -> PyTree:
    """NaN if a solve for a derivative failed; a ``maxiter`` the caller named may have ended it."""
    fine = jnp.array(True)
    for info in infos:
        ended = (info.status == Status.CONVERGED) | (info.status == Status.ATTAINABLE_ACCURACY)
        fine &= ended | ((maxiter is not None) & (info.status == Status.MAX_STEPS))
    return jax.tree.map(lambda leaf: jnp.where(own | fine, leaf, jnp.nan), x)


def asked(flag: Any, x0: PyTree | None, options: Options) -> tuple[Any, PyTree | None, Any, Any]:
    """Whether it is the user's own solve, where it starts, and its tolerances."""
    own = flag != 0
    start = None if x0 is None else jax.tree.map(lambda leaf: jnp.where(own, leaf, 0), x0)
    rtol: Any = options.rtol
    if options.adjoint_rtol is not None:
        rtol = jnp.where(own, rtol, options.adjoint_rtol)
    return own, start, rtol, jnp.where(own, options.atol, 0.0)


def own_flag(b: PyTree) -> Any:
    """The component that tells the user's own solve, 1, from those for derivatives, 0."""
    return tie(jnp.ones((), jax.tree.leaves(b)[0].real.dtype), parts(b))


def tied(x: PyTree) -> PyTree:
    """A copy of ``x``, each leaf dependent on all leaves: see `tie`."""
    return tie(x, x)


def tie(x: PyTree, source: PyTree) -> PyTree:
    """A copy of ``x`` that JAX takes to depend on ``source``: it wants all entries linear, or none.

    XLA knows that it does not, and compiles no branch for derivatives where the flag is a 1.
    """
    zero = sum(jnp.sum(jnp.where(False, leaf, 0)) for leaf in jax.tree.leaves(source))
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(zero, leaf.dtype), x)


def parts(x: PyTree) -> PyTree:
    """Real and imaginary part of a complex vector; a real one as it is."""
    if not _is_complex(x):
        return x
    return jax.tree.map(jnp.real, x), jax.tree.map(jnp.imag, x)


def merge(x: PyTree, like: PyTree) -> PyTree:
    """The vector of these `parts`, complex if ``like`` is."""
    return jax.tree.map(jax.lax.complex, *x) if _is_complex(like) else x


def _in_parts(apply: Callable, x: PyTree, like: PyTree) -> PyTree:
    return parts(apply(merge(x, like)))


def _is_complex(x: PyTree) -> bool:
    return jnp.iscomplexobj(jax.tree.leaves(x)[0])


def _transposes(apply: Callable, like: PyTree) -> bool:
    """Whether JAX can transpose the map: loops with dynamic ends and callbacks it cannot."""
    try:
        jax.eval_shape(jax.linear_transpose(apply, like), like)
    except (NotImplementedError, ValueError):
        return False
    return True
