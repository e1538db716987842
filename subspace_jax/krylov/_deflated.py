"""The cycle of GCRO-DR: minimal residuals over a recycled space and a Krylov space together.

A pair of rows U, C = A U, C orthonormal, goes from cycle to cycle. A cycle extends C by the Arnoldi
vectors V of (I - C C^H) A, minimises the residual over U and V, and harvests the new U from both:
the harmonic Ritz vectors of least size. While there is no U yet, V alone fills the cycle.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from subspace_jax import tree
from subspace_jax.krylov._arithmetic import divide, hypot, normalized
from subspace_jax.krylov._iterate import FULL, RUNNING, Method, System
from subspace_jax.krylov._lanes import hold
from subspace_jax.krylov._rows import absent, combine, gram, orthogonalize, put
from subspace_jax.krylov._solution import Status
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, PyTree

_SWEEPS = 5


class RecycleSpace(NamedTuple):
    """What a solver hands to the next solve: k vectors along the leading axis of every leaf.

    A pytree of arrays; rows of zeros are vectors that are not there, all zeros an empty space.
    """

    U: PyTree
    """(k, ...) a basis; for a preconditioned `gcrodr` of y in x = M y."""
    C: PyTree
    """(k, ...) the products A U (A M U), for the A of the solve that the space comes from."""


class _State(NamedTuple):
    x: PyTree
    W: PyTree
    """Orthonormal rows (m + 1, ...): V from the first on, C in the last k."""
    U: PyTree
    """(k, ...) unit rows."""
    G: Array
    """(m + 1, m) the matrix of A from [V, U] to W; unit columns where there is no vector."""
    g: Array
    """(m + 1,) the residual at the start of the cycle, in W."""
    null: Array
    """(m + 1,) the unit vector orthogonal to the Arnoldi columns of G: the residual's direction."""
    empty: Any
    """There is no U: V may fill all rows."""
    j: Any
    """Steps of the cycle so far, one number for all lanes of a vmap; unsigned, as indices are."""
    count: Any
    """Steps of this lane."""
    error: Any
    status: Any


def deflated(system: System, m: int, k: int, space: RecycleSpace) -> Method:
    """Cycles with a basis of m vectors, k of them recycled; C of ``space`` orthonormal or empty.

    Reference: Parks, de Sturler, Mackey, Johnson & Maiti (2006), algorithm GCRO-DR.
    """
    precondition = system.precondition or (lambda v: v)

    def begin(x, r, norm, space):
        del norm
        return _begin(system, m, k, x, r, space)

    def step(s, on):
        v_next, h, status = _expand(system, precondition, s)
        old = jax.tree.map(lambda rows: rows[s.j + 1], s.W)
        v_next = hold(on, v_next, old)
        W = jax.tree.map(lambda rows, leaf: put(rows, s.j + 1, leaf), s.W, v_next)
        last = h[s.j + 1].real
        # null^H h = 0 determines the new entry, and the residual shrinks as the old ones do.
        entry = -divide(tree.vdot(h, s.null), last)
        size = hypot(1.0, jnp.abs(entry)).astype(s.error.dtype)
        null = put(s.null, s.j + 1, entry) / size
        done = (last == 0) & (status == RUNNING)
        error = jnp.where(done, 0, s.error / size)
        status = jnp.where(jnp.isfinite(error), status, int(Status.NONFINITE))
        limit = jnp.where(s.empty, m, m - k)
        status = jnp.where((status == RUNNING) & (s.count + 1 >= limit), FULL, status)
        G = jax.lax.dynamic_update_index_in_dim(s.G, h, s.j, 1)
        new = (G, null, s.count + 1, error, status.astype(jnp.int32))
        G, null, count, error, status = hold(on, new, (s.G, s.null, s.count, s.error, s.status))
        return _State(s.x, W, s.U, G, s.g, null, s.empty, s.j + 1, count, error, status)

    def finish(s):
        recycled = (jnp.arange(m) >= m - k) & ~s.empty
        used = recycled | (jnp.arange(m) < s.count)
        Q, R = jnp.linalg.qr(s.G)
        R, regular = _regular(R)
        y = solve_triangular(R, matmul(Q.conj().T, s.g))
        y = jnp.where(used & regular, y, 0)
        # A singular A: no step whose rounding alone would exceed the residual.
        rounding = jnp.finfo(s.error.dtype).eps * jnp.max(jnp.abs(R)) * jnp.linalg.norm(y)
        y = jnp.where(rounding < jnp.linalg.norm(s.g), y, 0)
        dx = precondition(_combine_both(y, s, recycled))
        stalled = s.error > (1 - _STALL) * jnp.linalg.norm(s.g)
        return jax.tree.map(jnp.add, s.x, dx), _harvest(system, s, Q, R, recycled, used, stalled)

    eps = float(jnp.finfo(system.tolerance.dtype).eps)
    return Method(
        begin, step, finish, memory=space, resumes=False, period=m, drop=eps, max_idle=_MAX_IDLE
    )


_STALL = 1e-5
"""The least gain of a cycle. With less, x and so the next cycle's Krylov space hardly change: the
same harvest would give the same cycle again, for ever."""
_MAX_IDLE = 20
"""Cycles without a gain: more than in GMRES, since each of them improves the space."""


def _begin(system: System, m: int, k: int, x: PyTree, r: PyTree, space: RecycleSpace) -> _State:
    U, C = space
    c, r = orthogonalize(system.inner, C, r)
    correction, r = orthogonalize(system.inner, C, r)
    beta = system.norm(r)
    v = normalized(r, beta)
    sizes = jax.vmap(system.norm)(U)
    U = jax.vmap(normalized)(U, sizes)
    W = jax.tree.map(
        lambda leaf, zeros, C: jnp.concatenate([leaf[None], zeros, C]), v, absent(m - k, v), C
    )
    dtype = jnp.result_type(beta, *jax.tree.leaves(r))
    scales = jnp.ones(m, beta.dtype).at[m - k :].set(divide(1, sizes) + (sizes == 0))
    G = jnp.eye(m + 1, m, -1, dtype) * scales.astype(dtype)
    g = jnp.zeros(m + 1, dtype).at[0].set(beta.astype(dtype))
    g = g.at[m - k + 1 :].set((c + correction).astype(dtype))
    null = jnp.zeros(m + 1, dtype).at[0].set(1)
    return _State(
        x, W, U, G, g, null, ~jnp.any(sizes > 0), jnp.uint32(0), jnp.int32(0), beta,
        jnp.int32(RUNNING),
    )  # fmt: skip


def _expand(system: System, precondition, s: _State) -> tuple[PyTree, Array, Array]:
    """The next Arnoldi vector, its column of G, and whether A is found to be singular."""
    w = system.apply(precondition(jax.tree.map(lambda rows: rows[s.j], s.W)))
    norm_w = system.norm(w)
    h, w = orthogonalize(system.inner, s.W, w)
    again, w = orthogonalize(system.inner, s.W, w)
    h = h + again
    last = system.norm(w)
    least = jnp.finfo(last.dtype).eps * norm_w
    happy = last <= least
    last = jnp.where(happy, 0, last)
    v = normalized(jax.tree.map(lambda leaf: jnp.where(happy, 0, leaf), w), last)
    h = put(h, s.j + 1, last)
    # An invariant space holds the solution, unless A maps the new vector into the others' image.
    singular = happy & (jnp.abs(tree.vdot(h, s.null)) <= least)
    return v, h, jnp.where(singular, int(Status.BREAKDOWN), RUNNING)


def _harvest(system: System, s: _State, Q, R, recycled, used, stalled) -> RecycleSpace:
    """The new pair: harmonic Ritz vectors of the cycle, those of the least Ritz values.

    After a cycle that ``stalled``, the vectors that A shortens most instead, which leaves the
    fixed point; the cycles that follow find the Ritz vectors again.
    """
    m, k = len(used), len(jax.tree.leaves(s.U)[0])
    overlaps = jnp.eye(m + 1, m, dtype=s.G.dtype)
    overlaps = overlaps.at[:, m - k :].set(
        jnp.where(s.empty, overlaps[:, m - k :], gram(system.inner, s.W, s.U))
    )
    overlaps = jnp.where(used, overlaps, 0)
    # G^H G z = theta G^H (W^H [V, U]) z, without the square of G's condition: T z = z / theta.
    T = solve_triangular(R, matmul(Q.conj().T, overlaps))
    P = _dominant(T, k, s.empty, stalled)
    P = jnp.where(used[:, None], P, 0)
    Q, R = jnp.linalg.qr(matmul(s.G, P))
    R, regular = _regular(R)
    Y = jnp.where(regular, solve_triangular(R, P.T, trans="T").T, 0)
    C = combine(jnp.where(regular, Q, 0).T, s.W)
    return RecycleSpace(_combine_both(Y.T, s, recycled), C)


def _dominant(T: Array, k: int, empty: Array, stalled: Array) -> Array:
    """An orthonormal basis of the invariant space of T's k eigenvalues largest in size, nearly.

    Orthogonal iteration instead of a nonsymmetric eigensolver: it stays real, it maps, it runs on
    any device. Eigenvalues close in size are told apart only in part, and need not be. It starts
    from the vectors of U, the last k; if there are none from T's first k left singular vectors,
    which are also what is returned where ``stalled``.
    """

    def singular():
        return jnp.linalg.eigh(matmul(T, T.conj().T))[1][:, -k:][:, ::-1]

    old = jnp.eye(len(T), dtype=T.dtype)[:, -k:]
    start = jax.lax.cond(empty | stalled, singular, lambda: old)
    square = matmul(T, T)  # two steps for one QR
    P = jax.lax.fori_loop(0, _SWEEPS, lambda _, P: jnp.linalg.qr(matmul(square, P))[0], start)
    return jnp.where(stalled, start, P)


def _regular(R: Array) -> tuple[Array, Array]:
    """R with ones where its diagonal is zero to rounding, and the columns where it is not."""
    diagonal = jnp.abs(jnp.diagonal(R))
    regular = diagonal > len(R) * jnp.finfo(diagonal.dtype).eps * jnp.max(diagonal)
    return jnp.where(jnp.eye(len(R), dtype=bool) & ~regular, 1, R), regular


def _combine_both(y: Array, s: _State, recycled: Array) -> PyTree:
    """The combination of the columns [V, U]; the last are U's where they are ``recycled``."""
    num = len(jax.tree.leaves(s.U)[0])
    over_V = jnp.where(recycled, 0, y)
    over_V = jnp.concatenate([over_V, jnp.zeros_like(over_V[..., :1])], axis=-1)
    over_U = jnp.where(recycled, y, 0)[..., -num:]
    return jax.tree.map(jnp.add, combine(over_V, s.W), combine(over_U, s.U))
