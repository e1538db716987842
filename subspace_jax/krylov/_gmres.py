"""Generalised minimal residuals, restarted, preconditioned on the right."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from subspace_jax.krylov._arithmetic import hypot, times
from subspace_jax.krylov._iterate import RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._operands import InnerProduct, Options, Tolerance, check_count
from subspace_jax.krylov._problem import solve
from subspace_jax.krylov._rows import absent, combine, orthogonalize, put
from subspace_jax.krylov._solution import Solution, Status
from subspace_jax.krylov.recycling import solve_deflated
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


def gmres(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    restart: int = 40,
    num_deflated: int = 0,
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
    """The solution of A x = b for general square A, by minimal residuals over a Krylov space.

    Vectors are orthogonalised twice by classical Gram-Schmidt, so that float32 keeps its digits.
    Memory: ``restart`` + 1 vectors. Two cycles without a gain of 1e-3 are ``STAGNATION``. Without a
    preconditioner it knows what rounding makes of b - A x, and that a tolerance far below that is
    out of reach: one more cycle of half the steps so far, then ``ATTAINABLE_ACCURACY``.

    Args:
        A: see `cg`; any nonsingular linear map.
        b: see `cg`.
        x0: see `cg`.
        restart: steps in a cycle, after which the space is given up.
        num_deflated: harmonic Ritz vectors that each cycle hands to the next, among its
            ``restart``: what restarts otherwise lose, of the slowest directions. See `gcrodr`.
        preconditioner: see `cg`; any linear map, applied on the right.
        rtol: see `cg`.
        atol: see `cg`.
        maxiter: see `cg`; counts the steps inside cycles.
        history: see `cg`.
        check_every: see `cg`.
        AT: the adjoint v -> A^H v, for derivatives where JAX cannot transpose A.
        adjoint_rtol: see `cg`.
        inner_product: see `cg`.

    Returns:
        See `cg`. Solves for derivatives use A^H and the preconditioner's adjoint by JAX's
        transpose; a preconditioner that has none is left out there.

    Raises:
        ValueError: as in `cg`, ``restart`` < 1, not 0 <= ``num_deflated`` < ``restart``, or
            ``num_deflated`` together with ``rtol`` None.

    Reference: Saad & Schultz (1986); twice is enough: Giraud et al. (2005).
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    if num_deflated:
        x, info = solve_deflated(A, b, x0, options, restart, num_deflated)[0]
        return Solution(x, info._replace(drift=None))
    return _restarted(A, b, x0, options, restart, flexible=False)


def fgmres(
    A: LinearMap,
    b: PyTree,
    x0: PyTree | None = None,
    *,
    restart: int = 40,
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
    """The solution of A x = b by `gmres` with a preconditioner that need not be linear.

    An inner solver or a network will do, at the price of ``restart`` vectors more. Adjoint
    solves run without it. Other arguments and errors as in `gmres`.

    Reference: Saad (1993).
    """
    options = Options(
        preconditioner, rtol, atol, maxiter, history, check_every, AT, adjoint_rtol, inner_product
    )
    return _restarted(A, b, x0, options, restart, flexible=True)


def _restarted(A, b, x0, options, restart, *, flexible) -> Solution:
    restart = check_count("restart", restart, 1)
    return solve(
        lambda system: _method(system, restart, flexible=flexible),
        A, b, x0, options, hermitian=False, transposed_preconditioner=not flexible,
    )  # fmt: skip


class _State(NamedTuple):
    x: PyTree
    V: PyTree
    """Orthonormal rows (m + 1, ...) at every leaf."""
    Z: PyTree | None
    """The preconditioned rows, where they cannot be made again from V."""
    R: Array
    """(m, m) upper triangular; unit columns past the last step."""
    G: Array
    """(m + 1, m + 1) unitary, the product of all rotations."""
    g: Array
    """(m + 1,) the rotated right-hand side."""
    j: Any
    """Steps of the cycle so far, one number for all lanes of a vmap; unsigned, as indices are."""
    count: Any
    """Steps of this lane."""
    size: Any
    """The largest product of A, without or with M, with a unit vector."""
    error: Any
    status: Any


def _method(system: System, m: int, *, flexible: bool) -> Method:
    precondition = system.precondition or (lambda v: v)
    stored = flexible and system.precondition is not None

    def begin(x, r, norm):
        v = times(1 / jnp.where(norm > 0, norm, 1), r)
        V = jax.tree.map(lambda leaf: jnp.pad(leaf[None], [(0, m), *[(0, 0)] * leaf.ndim]), v)
        Z = absent(m, r) if stored else None
        dtype = jnp.result_type(norm, *jax.tree.leaves(r))
        g = jnp.zeros(m + 1, dtype).at[0].set(norm.astype(dtype))
        eye = jnp.eye(m + 1, dtype=dtype)
        return _State(
            x, V, Z, eye[:m, :m], eye, g, jnp.uint32(0), jnp.int32(0), jnp.zeros_like(norm), norm,
            jnp.int32(RUNNING),
        )  # fmt: skip

    def step(s, on):
        z = precondition(jax.tree.map(lambda rows: rows[s.j], s.V))
        w = system.apply(z)
        norm_w = system.norm(w)
        h, w = orthogonalize(system.inner, s.V, w)
        h2, w = orthogonalize(system.inner, s.V, w)
        h = h + h2
        last = system.norm(w)
        happy = last <= jnp.finfo(last.dtype).eps * norm_w
        last = jnp.where(happy, 0, last)
        v = times(jnp.where(on & ~happy, 1, 0) / jnp.where(happy, 1, last), w)
        h = put(h, s.j + 1, last)

        column = matmul(s.G, h)
        rotation = _rotation(column[s.j], column[s.j + 1])
        rows = jax.lax.dynamic_slice_in_dim(s.G, s.j, 2)
        G = jax.lax.dynamic_update_slice_in_dim(s.G, matmul(rotation, rows), s.j, 0)
        pair = matmul(rotation, jax.lax.dynamic_slice_in_dim(s.g, s.j, 2))
        g = jax.lax.dynamic_update_slice_in_dim(s.g, pair, s.j, 0)
        diagonal = rotation[0, 0] * column[s.j] + rotation[0, 1] * column[s.j + 1]
        column = put(jnp.where(jnp.arange(m, dtype=s.j.dtype) < s.j, column[:m], 0), s.j, diagonal)
        R = jax.lax.dynamic_update_index_in_dim(s.R, column, s.j, 1)
        error = jnp.abs(pair[1])
        singular = jnp.abs(diagonal) <= jnp.finfo(error.dtype).eps * norm_w
        status = jnp.where(happy & singular, int(Status.BREAKDOWN), RUNNING)
        finite = jnp.isfinite(error) & jnp.isfinite(norm_w)
        status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)

        V = jax.tree.map(lambda rows, leaf: put(rows, s.j + 1, leaf), s.V, v)
        Z = s.Z
        if stored:
            Z = jax.tree.map(lambda rows, leaf: put(rows, s.j, jnp.where(on, leaf, 0)), s.Z, z)
        size = jnp.maximum(s.size, norm_w)
        small = hold(
            on,
            (R, G, g, s.count + 1, size, error, status),
            (s.R, s.G, s.g, s.count, s.size, s.error, s.status),
        )
        R, G, g, count, size, error, status = small
        return _State(s.x, V, Z, R, G, g, s.j + 1, count, size, error, status)

    def finish(s):
        live = jnp.arange(m) < s.count
        diagonal = jnp.where(live, jnp.abs(jnp.diagonal(s.R)), 0)
        dead = diagonal <= jnp.finfo(diagonal.dtype).eps * jnp.max(diagonal)
        R = jnp.where(jnp.eye(m, dtype=bool) & dead, 1, s.R)
        y = solve_triangular(R, jnp.where(live & ~dead, s.g[:m], 0))
        if stored:
            return jax.tree.map(jnp.add, s.x, combine(y, s.Z))
        step = precondition(combine(y, jax.tree.map(lambda rows: rows[:m], s.V)))
        return jax.tree.map(jnp.add, s.x, step)

    eps = float(jnp.finfo(system.tolerance.dtype).eps)

    def rounding(s, x):
        """Of |A| |x|, |A| from below by its products with V; of a preconditioned A not known."""
        return eps * s.size * system.norm(x)

    known = rounding if system.precondition is None else None
    return Method(
        begin, step, finish, resumes=False, period=m, drop=eps, rounding=known, max_idle=2
    )


def _rotation(a: Array, b: Array) -> Array:
    """The unitary [[c, s], [-conj(s), c]], c real, that takes (a, b) to (r, 0)."""
    size = jnp.abs(a)
    radius = hypot(size, jnp.abs(b))
    safe = jnp.where(radius > 0, radius, 1)
    c = jnp.where(radius > 0, size / safe, 1)
    phase = jnp.where(size > 0, a / jnp.where(size > 0, size, 1), 1)
    s = phase * b.conj() / safe
    return jnp.array([[c.astype(s.dtype), s], [-s.conj(), c.astype(s.dtype)]])
