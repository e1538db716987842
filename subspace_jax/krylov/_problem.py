"""From a user's operands to a `System`: checks, scaling, implicit derivatives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import tree
from subspace_jax.krylov._iterate import Limits, Method, System, iterate, iterate_fixed
from subspace_jax.krylov._solution import Info, Solution, Status
from subspace_jax.linalg.operators import as_callable
from subspace_jax.typing import LinearMap, PyTree

InnerProduct = Callable[[PyTree, PyTree], Any] | None
Tolerance = Any
"""A float, or a traced real scalar."""


class Options(NamedTuple):
    """The keywords that all solvers share."""

    preconditioner: LinearMap | None = None
    rtol: Tolerance | None = 1e-5
    atol: Tolerance = 0.0
    maxiter: int | None = None
    history: bool = False
    check_every: int = 1
    AT: LinearMap | None = None
    adjoint_rtol: Tolerance | None = None
    inner_product: InnerProduct = None


def solve(
    method: Callable[[System], Method],
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None,
    options: Options,
    *,
    hermitian: bool,
    transposed_preconditioner: bool = True,
    name: str = "preconditioner",
    name_b: str = "b",
    run: Callable[..., Solution] | None = None,
) -> Solution:
    """The solution of A x = b by a method, differentiable in b and in all that A closes over."""
    b = vector(name_b, b)
    apply = traced("A", A, b)
    precondition = None
    if options.preconditioner is not None:
        precondition = traced(name, options.preconditioner, b)
    if x0 is not None:
        x0 = vector("x0", x0)
        check_same_spaces("x0", x0, name_b, b)
    plain = run or _run
    limits = check_limits(options, tree.size(b))

    def solve_once(apply, precondition, b, x0, rtol, atol) -> Solution:
        return plain(
            method, apply, precondition, b, x0, rtol, atol, limits, options.inner_product
        )

    if options.rtol is None:
        return solve_once(apply, precondition, b, x0, None, options.atol)
    implicit = _Implicit(solve_once, apply, precondition, b, x0, options, transposed_preconditioner)
    if hermitian:
        return implicit.hermitian()
    if options.AT is not None:
        return implicit.dilated(traced("AT", options.AT, b))
    return implicit.general()


def _run(method, apply, precondition, b, x0, rtol, atol, limits, inner_product) -> Solution:
    """The plain loop, on b scaled by a power of two so that squares neither vanish nor overflow."""
    inner = inner_product or tree.vdot
    scale, zero = power_of_two(b, inner_product)
    b = times(1 / scale, b)
    if x0 is not None:
        x0 = jax.tree.map(lambda leaf: jnp.where(zero, 0, leaf), times(1 / scale, x0))
    norm = norm_of(inner)
    norm_b = norm(b)
    tolerance = jnp.maximum((0.0 if rtol is None else rtol) * norm_b, atol / scale)
    system = System(
        apply, precondition, inner, norm, b, x0, tolerance.astype(norm_b.dtype), lambda r, size: size
    )
    x, info = (iterate_fixed if rtol is None else iterate)(system, method(system), limits)
    return Solution(times(scale, x), rescale(info, scale))


def norm_of(inner: Callable[[PyTree, PyTree], Any]) -> Callable[[PyTree], Any]:
    """The norm of an inner product."""
    return lambda x: jnp.sqrt(inner(x, x).real)


def rescale(info: Info, scale: Any) -> Info:
    """The norms in the units of the caller."""
    history = None if info.history is None else info.history * scale
    return info._replace(residual_norm=info.residual_norm * scale, history=history)


class _Implicit(NamedTuple):
    """A solve bound to `lax.custom_linear_solve`, so that derivatives are solves too.

    Vectors pass as their real and imaginary parts: in real form a transpose is the adjoint, and a
    Hermitian operator is symmetric. One component more, ``flag``, is 1 in the user's own solve and
    0 in solves for derivatives, which have their own tolerance and start at zero.
    """

    run: Callable[..., Solution]
    apply: Callable[[PyTree], PyTree]
    precondition: Callable[[PyTree], PyTree] | None
    b: PyTree
    x0: PyTree | None
    options: Options
    transposed_preconditioner: bool

    def hermitian(self) -> Solution:
        """A = A^H: every derivative is a solve with A."""
        (x, _), info = jax.lax.custom_linear_solve(
            self._flagged_apply,
            self._flagged_rhs(),
            lambda _, v: self._forward(*v),
            symmetric=True,
            has_aux=True,
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

        def dual_solve(_, v):
            b, c, flag = v
            (x, _), info = self._forward(b, flag)
            y, _ = self._backward(adjoint, c)
            return (y, x, flag), info

        b, flag = self._flagged_rhs()
        zeros = tie(jax.tree.map(jnp.zeros_like, b), b)
        (_, x, _), info = jax.lax.custom_linear_solve(
            apply, (b, zeros, flag), dual_solve, symmetric=True, has_aux=True
        )
        return Solution(merge(x, self.b), info)

    def _forward(self, rhs: PyTree, flag: Any) -> tuple[PyTree, Info]:
        own, x0, rtol, atol = asked(flag, self.x0, self.options)
        x, info = self.run(self.apply, self.precondition, merge(rhs, self.b), x0, rtol, atol)
        return (parts(surface(x, (info,), own, self.options.maxiter)), flag), info

    def _backward(self, adjoint: Callable, rhs: PyTree) -> tuple[PyTree, Info]:
        precondition = self.precondition
        if precondition is not None:
            precondition = self._adjoint_preconditioner()
        rtol = self.options.adjoint_rtol
        rtol = self.options.rtol if rtol is None else rtol
        x, info = self.run(adjoint, precondition, merge(rhs, self.b), None, rtol, 0.0)
        return parts(surface(x, (info,), False, self.options.maxiter)), info

    def _adjoint_preconditioner(self) -> Callable[[PyTree], PyTree] | None:
        like = parts(self.b)

        def apply(v):
            return _in_parts(self.precondition, v, self.b)

        if not self.transposed_preconditioner or not _transposes(apply, like):
            return None
        transpose = jax.linear_transpose(apply, like)
        return lambda v: merge(transpose(parts(v))[0], self.b)

    def _flagged_apply(self, v: PyTree) -> PyTree:
        Ax = tied(_in_parts(self.apply, v[0], self.b))
        return Ax, tie(v[1], Ax)

    def _flagged_rhs(self) -> PyTree:
        return tied(parts(self.b)), own_flag(self.b)


def surface(x: PyTree, infos: tuple[Info, ...], own: Any, maxiter: int | None) -> PyTree:
    """NaN if a solve for a derivative failed; a ``maxiter`` the caller named may have ended it."""
    fine = True
    for info in infos:
        ended = (info.status == Status.CONVERGED) | (info.status == Status.ATTAINABLE_ACCURACY)
        fine &= ended | ((maxiter is not None) & (info.status == Status.MAX_STEPS))
    return jax.tree.map(lambda leaf: jnp.where(own | fine, leaf, jnp.nan), x)


def asked(flag: Any, x0: PyTree | None, options: Options) -> tuple[Any, PyTree | None, Any, Any]:
    """Whether it is the user's own solve, where it starts, and its tolerances."""
    own = flag != 0
    start = None if x0 is None else jax.tree.map(lambda leaf: jnp.where(own, leaf, 0), x0)
    rtol = options.rtol
    if options.adjoint_rtol is not None:
        rtol = jnp.where(own, rtol, options.adjoint_rtol)
    return own, start, rtol, jnp.where(own, options.atol, 0.0)


def own_flag(b: PyTree) -> Any:
    """The component that tells the user's own solve, 1, from those for derivatives, 0."""
    return tie(jnp.ones((), jax.tree.leaves(b)[0].real.dtype), parts(b))


def tied(x: PyTree) -> PyTree:
    """x itself, each leaf a function of all leaves: see `tie`."""
    return tie(x, x)


def tie(x: PyTree, source: PyTree) -> PyTree:
    """x itself, as a function of ``source``: JAX wants tangents for all of a linear system or none."""
    zero = sum(0 * jnp.sum(leaf.ravel()[:1]) for leaf in jax.tree.leaves(source))
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


def traced(name: str, A: LinearMap, like: PyTree) -> Callable[[PyTree], PyTree]:
    """The map as a callable whose Python code runs once, checked to keep the space of ``like``.

    Raises:
        ValueError: not a linear map, or one that changes structure, shape or dtype.
    """
    try:
        apply = as_callable(A)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if hasattr(A, "shape") and (len(A.shape) != 2 or A.shape[0] != A.shape[1]):
        raise ValueError(f"{name} must be a square matrix, got shape {A.shape}")
    space = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    if hasattr(A, "shape") and jnp.shape(like) != A.shape[1:]:
        raise ValueError(f"{name} has shape {A.shape}, the right-hand side {jnp.shape(like)}")
    check_same_spaces(f"the result of {name}", jax.eval_shape(apply, space), "its operand", space)
    return traced_once(apply, like)


def traced_once(apply: Callable, like: PyTree) -> Callable[[PyTree], PyTree]:
    """The same function as a jaxpr, so that later calls do not run its Python code again."""
    converted, constants = jax.closure_convert(lambda v: apply(v), like)
    return lambda v: converted(v, *constants)


def vector(name: str, x: PyTree) -> PyTree:
    """The pytree with arrays at its leaves.

    Raises:
        ValueError: no leaves, integer leaves, or real leaves beside complex ones.
    """
    x = jax.tree.map(jnp.asarray, x)
    kinds = {leaf.dtype.kind if leaf.dtype != jnp.bfloat16 else "f" for leaf in jax.tree.leaves(x)}
    if len(kinds) != 1 or not kinds <= {"f", "c"}:
        dtypes = ", ".join(str(leaf.dtype) for leaf in jax.tree.leaves(x)) or "no leaves"
        raise ValueError(f"{name} must be all real or all complex floating point, got {dtypes}")
    return x


def check_same_spaces(name_x: str, x: PyTree, name_y: str, y: PyTree) -> None:
    """Return if structure, shapes and dtypes agree; else raise.

    Raises:
        ValueError: names both structures, or the first leaf that differs and what both are.
    """
    tree.check_same_shapes(name_x, x, name_y, y)
    leaves, _ = jax.tree_util.tree_flatten_with_path(x)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(y), strict=True):
        if leaf.dtype != other.dtype:
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name_x}{where} has dtype {leaf.dtype}, {name_y}{where} has dtype {other.dtype}"
            )


def check_limits(options: Options, dimension: int) -> Limits:
    """The limits as given, or min(10 n, 10000) steps.

    Raises:
        ValueError: a negative tolerance or ``maxiter``, ``rtol=None`` without ``maxiter``, or a
            ``check_every`` below 1.
    """
    for name in ("rtol", "atol", "adjoint_rtol"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    maxiter = options.maxiter
    if maxiter is None:
        if options.rtol is None:
            raise ValueError("rtol=None means exactly maxiter steps: name maxiter")
        maxiter = min(10 * dimension, 10_000)
    for name, value, least in (("maxiter", maxiter, 0), ("check_every", options.check_every, 1)):
        if value != int(value) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
    return Limits(int(maxiter), options.history, int(options.check_every))


def times(a: Any, x: PyTree) -> PyTree:
    """The vector a x, in the dtypes of x; ``a`` is a scalar."""
    return jax.tree.map(lambda leaf: (a * leaf).astype(leaf.dtype), x)


def power_of_two(b: PyTree, inner_product: InnerProduct) -> tuple[Any, Any]:
    """A power of two near the largest entry of b (1 if there is none), and whether b is zero.

    With an inner product of the caller's, which may sum over shards, "largest entry" is the norm,
    taken at three magnitudes, since squares of small or large entries leave the dtype's range.
    """
    dtype = jax.tree.leaves(b)[0].real.dtype
    if inner_product is None:
        leaves = (jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(b) if leaf.size)
        largest = jax.tree.reduce(jnp.maximum, list(leaves), jnp.zeros((), dtype))
    else:
        far = 2.0 ** (jnp.finfo(dtype).maxexp // 2)
        largest = jnp.zeros((), dtype)
        for factor in (1 / far, far, 1.0):  # the last whose square is in range
            scaled = times(factor, b)
            square = inner_product(scaled, scaled).real
            inside = jnp.isfinite(square) & (square > float(jnp.finfo(dtype).tiny) * far)
            largest = jnp.where(inside, jnp.sqrt(square) / factor, largest)
    wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
    integer, mask = (jnp.int32, 0x7F800000) if wide == jnp.float32 else (jnp.int64, 0x7FF << 52)
    bits = jax.lax.bitcast_convert_type(largest.astype(wide), integer)
    scale = jax.lax.bitcast_convert_type(bits & integer(mask), wide)  # the mantissa is gone
    limit = 2.0 ** (jnp.finfo(dtype).maxexp - 4)
    scale = jnp.clip(scale, 1 / limit, limit).astype(dtype)
    usable = jnp.isfinite(largest) & (largest > 0)
    return jnp.where(usable, scale, 1), largest == 0
