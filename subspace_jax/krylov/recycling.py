"""Solvers that hand a space on to the next solve: for sequences of similar systems.

Both return ``((value, info), space)``; the space of one solve is the ``recycle`` of the next. A
system that differs in A, in b or in both has most of its slow directions in common with the last,
and those are solved for first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.krylov import _cg
from subspace_jax.krylov._arithmetic import sqrt, times
from subspace_jax.krylov._deflated import RecycleSpace, deflated
from subspace_jax.krylov._iterate import Limits, Method, System, iterate_and_keep
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import (
    InnerProduct,
    Options,
    Tolerance,
    check_count,
    check_same_spaces,
    vector,
)
from subspace_jax.krylov._problem import rescale, scaled_system, solve
from subspace_jax.krylov._rows import (
    absent,
    combine,
    count,
    gram,
    mean_sine,
    orthonormal_pair,
    whitening,
)
from subspace_jax.krylov._solution import Info, Solution
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree

__all__ = ["RecycleSpace", "gcrodr", "recycled_cg"]


def gcrodr(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    recycle: RecycleSpace | None = None,
    restart: int = 40,
    num_recycled: int = 20,
    preconditioner: LinearMap | None = None,
    same_operator: bool = False,
    rtol: Tolerance = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> tuple[Solution, RecycleSpace]:
    """The solution of A x = b for general square A, and the space for the next system.

    Minimal residuals over ``num_recycled`` harmonic Ritz vectors and ``restart - num_recycled``
    Krylov vectors in each cycle. Without ``recycle`` the first cycle is one of `gmres`, and the
    vectors it leaves make the later ones of this same solve faster (GMRES with deflated restarts).
    A cycle that gains less than 1e-5 hands on the vectors that A shortens most: with harmonic Ritz
    vectors the next cycles could be the same for ever.

    Args:
        A: see `cg`; any nonsingular linear map.
        b: see `cg`.
        x0: see `cg`.
        recycle: what an earlier call of this solver returned, for an A (and a preconditioner) like
            this one; its use costs ``num_recycled`` products with A, which are counted. Zeros are
            as None. A random space costs few steps, but one that misleads can cost as many again:
            that of a flow in another direction, or of a system whose slow directions are others.
        restart: the size of the whole basis, m; memory for m + 5 k + 1 vectors, those of the
            space that came and of the one that goes included.
        num_recycled: k, with 1 <= k < m.
        preconditioner: see `gmres`.
        same_operator: the A and the preconditioner are those that ``recycle`` comes from, and so
            is the solver: its products are known.
        rtol: see `cg`; not None.
        atol: see `cg`.
        maxiter: see `cg`; counts the Arnoldi steps.
        history: see `cg`.
        check_every: see `cg`.
        AT: see `gmres`.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`.

    Returns:
        ``((value, info), space)``; ``info.drift`` is the mean sine of the angles between the
        images A U of the space that came and the one that goes, 1 for the first. Derivatives as in
        `gmres`; the solves for them begin with ``recycle`` too. The space has none. Where a solve
        breaks down to NaN the space that came is handed on.

    Raises:
        ValueError: as in `cg`, ``num_recycled`` or ``restart`` out of bounds, ``recycle`` of other
            shapes than k vectors like ``b``, or ``rtol`` None.

    Reference: Parks, de Sturler, Mackey, Johnson & Maiti (2006).
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return solve_deflated(A, b, x0, options, restart, num_recycled, recycle, same_operator)


def recycled_cg(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    recycle: RecycleSpace | None = None,
    num_recycled: int = 20,
    num_directions: int = 40,
    preconditioner: LinearMap | None = None,
    same_operator: bool = False,
    rtol: Tolerance = 1e-5,
    atol: Tolerance = 0.0,
    maxiter: int | None = None,
    history: bool = False,
    check_every: int = 1,
    AT: LinearMap | None = None,
    adjoint_rtol: Tolerance | None = None,
    inner_product: InnerProduct = None,
) -> tuple[Solution, RecycleSpace]:
    """The solution of A x = b for Hermitian positive definite A, and the space for the next.

    Conjugate gradients with the recycled directions projected out, at two more passes over
    ``num_recycled`` vectors a step. The first ``num_directions`` search directions and the old
    space yield the new one, whose vectors approximate the eigenvectors of least eigenvalues.

    Args:
        A: see `cg`.
        b: see `cg`.
        x0: see `cg`.
        recycle: see `gcrodr`.
        num_recycled: k >= 1; choose it so small that its vectors cost less than they save.
        num_directions: search directions that are kept, l >= 1; memory for 2 (k + l) vectors.
        preconditioner: see `cg`.
        same_operator: see `gcrodr`.
        rtol: see `gcrodr`.
        atol: see `cg`.
        maxiter: see `cg`.
        history: see `cg`.
        check_every: see `cg`.
        AT: see `cg`.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`.

    Returns:
        ``((value, info), space)``, with ``info.drift`` the mean sine of the angles between the
        space that came and the one that goes, in the inner product of A. Derivatives as in `cg`,
        with solves that use ``recycle`` as well.

    Raises:
        ValueError: as in `gcrodr`.

    Reference: Saad, Yeung, Erhel & Guyomarc'h (2000); the projection in the form A-DEF2 of Tang,
    Nabben, Vuik & Erlangga (2009), which rounding does not spoil.
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    k = check_count("num_recycled", num_recycled, 1)
    num_directions = check_count("num_directions", num_directions, 1)
    recycling = _Recycling(
        lambda system, space: _deflated_cg(system, space, num_directions),
        lambda system, space: _conjugate_pair(system, *space),
        _harvest_cg,
        lambda space: space.U,
    )
    return _solve(recycling, A, b, x0, options, k, recycle, same_operator, hermitian=True)


def solve_deflated(
    A, b, x0, options: Options, restart, num_recycled, recycle=None, same_operator=False
) -> tuple[Solution, RecycleSpace]:
    """`gcrodr` with its options in one piece."""
    m, k = check_count("restart", restart, 1), check_count("num_recycled", num_recycled, 1)
    if k >= m:
        raise ValueError(f"need num_recycled < restart, got {k} and {m}")
    recycling = _Recycling(
        lambda system, space: deflated(system, m, k, space),
        _orthonormal_image,
        lambda system, space, memory: memory,
        lambda space: space.C,
    )
    return _solve(recycling, A, b, x0, options, k, recycle, same_operator, hermitian=False)


class _Recycling(NamedTuple):
    """What distinguishes the two solvers."""

    method: Callable[[System, RecycleSpace], Method]
    start: Callable[[System, RecycleSpace], RecycleSpace]
    """A space of another system -> the pair for this one."""
    harvest: Callable[[System, RecycleSpace, Any], RecycleSpace]
    """(system, the pair it began with, what the loop leaves) -> the pair to hand on."""
    dual: Callable[[RecycleSpace], PyTree]
    """The rows of which C is the dual basis: <dual_i, c_j> = delta_ij."""


class _Kept(NamedTuple):
    """What leaves a solve beside its value."""

    info: Info
    space: RecycleSpace

    @property
    def status(self) -> Array:
        return self.info.status


def _solve(recycling, A, b, x0, options, k, recycle, same_operator, *, hermitian):
    if options.rtol is None:
        raise ValueError("a solver that recycles needs a tolerance: rtol must not be None")
    b = vector("b", b)
    zeros = absent(k, b)
    space = RecycleSpace(zeros, zeros) if recycle is None else _checked(recycle, zeros)

    def run(_, apply, precondition, b, x0, rtol, atol, limits, inner_product, known):
        system, scale = scaled_system(apply, precondition, b, x0, rtol, atol, inner_product)
        (x, info), after = _cycle(recycling, system, limits, space, recycle is None or known)
        kept: Any = _Kept(rescale(info, scale), after)
        return Solution(times(scale, x), kept)

    solution: Any = solve(
        recycling.method, A, b, x0, options, hermitian=hermitian,
        run=lambda *operands: run(*operands, known=same_operator),
        run_adjoint=lambda *operands: run(*operands, known=False),
    )  # fmt: skip
    return Solution(solution.value, solution.info.info), solution.info.space


def _cycle(
    recycling: _Recycling, system: System, limits: Limits, before: RecycleSpace, known: bool
) -> tuple[Solution, RecycleSpace]:
    """One system, from the space that comes to the space that goes."""
    num = jnp.zeros((), jnp.int32)
    space = before
    if not known:
        given = count(system.inner, before.U) > 0
        space = jax.lax.cond(given, lambda: recycling.start(system, before), lambda: before)
        num = jnp.where(given, len(jax.tree.leaves(before.U)[0]), 0)
    (x, info), left = iterate_and_keep(system, recycling.method(system, space), limits)
    after = recycling.harvest(system, space, left)
    finite = jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), after)
    )
    after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    drift = mean_sine(system.inner, recycling.dual(space), after.C)
    info = info._replace(num_matvecs=info.num_matvecs + num.astype(jnp.int32), drift=drift)
    return Solution(x, info), after


def _orthonormal_image(system: System, space: RecycleSpace) -> RecycleSpace:
    """The same U with C = A M U, both combined so that C is orthonormal."""
    precondition = system.precondition or (lambda v: v)
    C = jax.vmap(lambda u: system.apply(precondition(u)))(space.U)
    return RecycleSpace(*orthonormal_pair(system.inner, space.U, C))


def _conjugate_pair(system: System, U: PyTree, C: PyTree) -> RecycleSpace:
    """The span of U in a basis W with <W, A W> = I, and A W."""
    del C
    C = jax.vmap(system.apply)(U)
    S = whitening(_hermitian(gram(system.inner, U, C))).T
    return RecycleSpace(combine(S, U), combine(S, C))


class _Directions(NamedTuple):
    P: PyTree
    """(l, ...) the first directions, with <p, A p> = 1."""
    AP: PyTree
    num: Array


def _deflated_cg(system: System, space: RecycleSpace, num_directions: int) -> Method:
    """`cg` on what is left when the error's part in W is solved for: W^H r = 0."""
    W, AW = space

    def precondition(r):
        z = r if system.precondition is None else system.precondition(r)
        overlaps = jax.vmap(system.inner, (0, None))
        step = overlaps(W, r) - overlaps(AW, z)
        return jax.tree.map(jnp.add, z, combine(step, W))

    def keep(kept, p, q, curvature, on):
        index = jnp.where(on & (curvature > 0), kept.num, num_directions)
        factor = 1 / sqrt(jnp.where(curvature > 0, curvature, 1))

        def put(rows, leaf):
            return rows.at[index].set((factor * leaf).astype(leaf.dtype), mode="drop")

        P, AP = jax.tree.map(put, kept.P, p), jax.tree.map(put, kept.AP, q)
        return _Directions(P, AP, hold(on, kept.num + 1, kept.num))

    none = absent(num_directions, system.b)
    plain = _cg.method(
        system._replace(precondition=precondition), _Directions(none, none, jnp.int32(0)), keep
    )

    def begin(x, r, norm):
        del norm
        overlaps = jax.vmap(system.inner, (0, None))(W, r)
        r = tree.axpy(-1.0, combine(overlaps, AW), r)
        return plain.begin(tree.axpy(1.0, combine(overlaps, W), x), r, system.norm(r))

    return plain._replace(begin=begin)


def _harvest_cg(system: System, space: RecycleSpace, state: Any) -> RecycleSpace:
    """Rayleigh-Ritz for M A in the span of W and P, in the inner product of A: least values."""
    k = len(jax.tree.leaves(space.U)[0])
    Z, AZ = (
        jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *pair)
        for pair in zip(space, (state.kept.P, state.kept.AP), strict=True)
    )
    MAZ = AZ if system.precondition is None else jax.vmap(system.precondition)(AZ)
    F, G = (_hermitian(gram(system.inner, *pair)) for pair in ((Z, AZ), (AZ, MAZ)))
    S = whitening(F, float(jnp.finfo(F.real.dtype).eps) ** (2 / 3))
    H = _hermitian(matmul(S.conj().T, matmul(G, S)))
    absent = jnp.all(S == 0, axis=0)  # those to the end of the spectrum
    H = H + jnp.diag(jnp.where(absent, 2 * jnp.trace(H).real + 1, 0)).astype(H.dtype)
    Y = matmul(S, jnp.linalg.eigh(H)[1][:, :k]).T
    return RecycleSpace(combine(Y, Z), combine(Y, AZ))


def _hermitian(F: Array) -> Array:
    return (F + F.conj().T) / 2


def _checked(recycle: RecycleSpace, zeros: PyTree) -> RecycleSpace:
    recycle = jax.lax.stop_gradient(RecycleSpace(*recycle))
    for name, rows in zip(("recycle.U", "recycle.C"), recycle, strict=True):
        check_same_spaces(name, rows, "num_recycled vectors like b", zeros)
    return recycle
