"""Eigenpairs by blocks: preconditioned conjugate gradients, and subspace iteration."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.krylov import _restart as restart
from subspace_jax.krylov._basis import Flat, Start, flat_map, start_vector
from subspace_jax.krylov._eigenpairs import Ritz, differentiable
from subspace_jax.krylov._operands import Tolerance, check_count, linear_map, vector
from subspace_jax.krylov._solution import Solution
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, LinearMap, PyTree


def lobpcg(
    A: LinearMap,
    X0: PyTree,
    *,
    preconditioner: LinearMap | None = None,
    which: str = "largest",
    rtol: Tolerance | None = None,
    maxiter: int | None = None,
) -> Solution:
    """Eigenpairs at one end of a Hermitian operator's spectrum, as many as ``X0`` has columns.

    A block finds multiple eigenvalues with their multiplicity, and a preconditioner makes the
    number of steps independent of the size of a discretised problem: for the smallest eigenvalues
    of a positive definite A one that is good for `cg`. Each step takes one product with all
    columns. Derivatives are implicit, as in `eigsh`.

    Args:
        A: Hermitian, see `cg`; acts on one vector.
        X0: where to start, k linearly independent vectors along the last axis of every leaf.
        preconditioner: approximates A^{-1}, Hermitian positive definite; acts on one vector.
        which: "largest" or "smallest" eigenvalues, algebraically.
        rtol: see `eigsh`.
        maxiter: steps; None: min(10 n, 10000).

    Returns:
        `Solution` (ritz, info): see `eigsh`. ``num_matvecs`` counts products with the whole block.

    Raises:
        ValueError: not a linear map on the columns, more columns than unknowns, or an option out
            of bounds.

    Reference: Knyazev (2001), with the basis of Duersch, Shao, Yang & Gu (2018).
    """
    apply, start, rows = _block(A, X0)
    if which not in ("largest", "smallest"):
        raise ValueError(f"which must be one of largest, smallest, got {which!r}")
    precondition = None
    if preconditioner is not None:
        like = start.unravel(start.x)
        linear_map("preconditioner", preconditioner)
        precondition = jax.vmap(flat_map("preconditioner", preconditioner, like).frozen())
    sign = 1.0 if which == "largest" else -1.0
    stop = restart.stopping(rows.shape[1], rows.dtype, rtol, maxiter)
    product = jax.vmap(apply.frozen())
    state = jax.lax.stop_gradient(_iterate(product, precondition, rows, sign, *stop))
    return _solution(apply, start, state, stop[0])


def subspace_iteration(
    A: LinearMap,
    X0: PyTree,
    *,
    k: int | None = None,
    rtol: Tolerance | None = None,
    maxiter: int | None = None,
) -> Solution:
    """The eigenpairs of largest absolute value of a Hermitian operator, by the power of a block.

    The simplest method, and the most forgiving: each step multiplies all columns, and errors fall
    by |theta_(columns + 1) / theta_k|. Multiple eigenvalues come with their multiplicity.
    Derivatives are implicit, as in `eigsh`.

    Args:
        A: Hermitian, see `cg`; acts on one vector.
        X0: where to start, linearly independent vectors along the last axis of every leaf; more
            than k of them make it faster.
        k: pairs that must be found; None: all.
        rtol: see `eigsh`.
        maxiter: steps; None: min(10 n, 10000).

    Returns:
        `Solution` (ritz, info): see `lobpcg`; k pairs, descending in absolute value.

    Raises:
        ValueError: as in `lobpcg`.

    Reference: Rutishauser (1969); Saad (2011), algorithm 5.3.
    """
    apply, start, rows = _block(A, X0)
    k = check_count("k", len(rows) if k is None else k, 1, len(rows))
    rtol, most = restart.stopping(rows.shape[1], rows.dtype, rtol, maxiter)
    product = jax.vmap(apply.frozen())

    def step(state):
        X = _orthonormal(state.AX)
        values, X, AX = _rayleigh_ritz(X, product(X))
        return _judged(state, X, AX, values, jnp.abs(values[0]), rtol)

    first = _State.begin(rows, rows)
    state = jax.lax.while_loop(lambda s: _unfinished(s, k, most + 1), step, first)
    state = state._replace(num_steps=state.num_steps - 1)  # the first only orthonormalizes
    state = jax.lax.stop_gradient(jax.tree.map(lambda leaf: leaf[:k] if leaf.ndim else leaf, state))
    return _solution(apply, start, state, rtol)


class _State(NamedTuple):
    X: Array
    """(k, n) orthonormal rows."""
    AX: Array
    values: Array
    errors: Array
    size: Array
    """The largest absolute value that A has shown, in or out of the block."""
    found: Array
    finite: Array
    num_steps: Any
    num_matvecs: Any

    @classmethod
    def begin(cls, X: Array, AX: Array) -> "_State":
        """Nothing found as yet."""
        nan = jnp.full(len(X), jnp.nan, X.real.dtype)
        none, zero = nan > 0, jnp.int32(0)
        size = jnp.zeros((), nan.dtype)
        return cls(X, AX, nan, nan, size, none, jnp.array(True), zero, zero)


def _block(A: LinearMap, X0: PyTree) -> tuple[Flat, Start, Array]:
    """The map on flat vectors, a zero vector with the way back, and X0's columns as flat rows."""
    X0 = vector("X0", X0)
    widths = {leaf.shape[-1:] for leaf in jax.tree.leaves(X0)}
    if len(widths) != 1 or widths == {()}:
        raise ValueError(f"X0 needs one number of columns on every last axis, got {sorted(widths)}")
    column = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-1], leaf.dtype), X0)
    rows = jax.vmap(lambda x: start_vector("X0", x).x, -1)(X0)
    if not 1 <= len(rows) <= rows.shape[1]:
        raise ValueError(f"X0 has {len(rows)} columns in dimension {rows.shape[1]}")
    return flat_map("A", A, column), start_vector("X0", column), rows


def _solution(apply: Flat, start: Start, state: _State, rtol: Any) -> Solution:
    true = restart.is_found(state.errors, state.values, state.size, rtol, restart.MANY)
    counts = state.num_steps, state.num_matvecs
    info = restart.info(*counts, state.found, state.errors, true)
    values, rows = differentiable(apply, state.values, state.X)
    return Solution(Ritz(values, start.columns(rows), state.errors), info)


def _unfinished(state: _State, k: int, most: int) -> Any:
    return ~jnp.all(state.found[:k]) & state.finite & (state.num_steps < most)


def _judged(state: _State, X: Array, AX: Array, values: Array, size: Any, rtol: Any) -> _State:
    """One step on, with the errors of the new pairs."""
    errors = jnp.linalg.norm(AX - values[:, None] * X, axis=1)
    size = jnp.maximum(size, state.size)
    found = restart.is_found(errors, values, size, rtol)
    finite = jnp.all(jnp.isfinite(errors))
    counts = state.num_steps + 1, state.num_matvecs + 1
    return _State(X, AX, values, errors, size, found, finite, *counts)


def _orthonormal(rows: Array) -> Array:
    return linalg.orthonormalize(rows.T).T


def _gram(X: Array, Y: Array) -> Array:
    """The matrix of inner products <x_i, y_j> of rows."""
    return matmul(X.conj(), Y.T)


def _rayleigh_ritz(X: Array, AX: Array) -> tuple[Array, Array, Array]:
    """Values, by descending absolute value, and rows rotated to them."""
    G = _gram(X, AX)
    values, Y = jnp.linalg.eigh((G + G.conj().T) / 2)
    order = jnp.argsort(-jnp.abs(values))
    values, Y = values[order], Y[:, order]
    return values, matmul(Y.T, X), matmul(Y.T, AX)


class _Search(NamedTuple):
    state: _State
    P: Array
    """(k, n) the last directions, orthonormal and orthogonal to X, or zero rows."""
    AP: Array
    G: Array
    """(2 k, 2 k) of A in the rows X, P."""
    live: Array
    """(2 k,) which of the rows are not zero."""


def _iterate(
    product: Callable[[Array], Array],
    precondition: Callable[[Array], Array] | None,
    rows: Array,
    sign: float,
    rtol: Any,
    maxiter: int,
) -> _State:
    k = len(rows)

    def step(search):
        state, P, AP, G, live = search
        X, AX = state.X, state.AX
        R = AX - state.values[:, None] * X
        W = R if precondition is None else precondition(R)
        W, fresh = _new_directions(jnp.concatenate([X, P]), W)
        AW = product(W)
        S, AS = jnp.concatenate([X, P, W]), jnp.concatenate([AX, AP, AW])
        live = jnp.concatenate([live, fresh])
        G = _bordered(G, _gram(S, AW))
        values, C, live, size = _best_combination(G, live, k, sign)
        (X, P), (AX, AP) = (jnp.split(matmul(C.T, rows), 2) for rows in (S, AS))
        state = _judged(state, X, AX, values, size, rtol)
        return _Search(state, P, AP, matmul(C.conj().T, matmul(G, C)), live)

    X = _orthonormal(rows)
    values, X, AX = _rayleigh_ritz(X, product(X))
    first = _judged(_State.begin(X, AX), X, AX, values, jnp.abs(values[0]), rtol)
    zero, live = jnp.zeros_like(X), jnp.arange(2 * k) < k
    G = jnp.diag(jnp.where(live, jnp.tile(values, 2), 0)).astype(X.dtype)
    search = _Search(first._replace(num_steps=jnp.int32(0)), zero, zero, G, live)
    search = jax.lax.while_loop(lambda s: _unfinished(s.state, k, maxiter), step, search)
    return _finished(search.state, product, sign, rtol)


def _finished(state: _State, product: Callable[[Array], Array], sign: float, rtol: Any) -> _State:
    """The true pairs: in the loop X and A X were combined, which rounds a little each step."""
    X = _orthonormal(state.X)
    values, X, AX = _rayleigh_ritz(X, product(X))
    order = jnp.argsort(-sign * values)
    done = _judged(state, X[order], AX[order], values[order], state.size, rtol)
    return done._replace(num_steps=state.num_steps, found=state.found)


def _new_directions(basis: Array, W: Array) -> tuple[Array, Array]:
    """Orthonormal rows of the span of W apart from that of the basis, and which are not zero."""
    live = jnp.ones(len(W), bool)
    for _ in range(2):
        W = W - matmul(_gram(basis, W).T, basis)
        size = jnp.linalg.norm(W, axis=1)
        scale = 1 / jnp.where(size > 0, size, 1)
        values, U = jnp.linalg.eigh(scale[:, None] * _gram(W, W) * scale)
        live = values > 10 * len(W) * jnp.finfo(values.dtype).eps
        weights = jnp.where(live, 1 / jnp.sqrt(jnp.where(live, values, 1)), 0)
        W = matmul((scale[:, None] * U * weights).T, W)
    return W, live


def _bordered(G: Array, last: Array) -> Array:
    """The Hermitian matrix (3 k, 3 k) of its first block and its last columns (3 k, k)."""
    upper, corner = last[: len(G)], last[len(G) :]
    corner = (corner + corner.conj().T) / 2
    return jnp.block([[G, upper], [upper.conj().T, corner]])


def _best_combination(
    G: Array, live: Array, k: int, sign: float
) -> tuple[Array, Array, Array, Array]:
    """The k best values of G among live rows, and coordinates (3 k, 2 k) of their X and P.

    P spans what X has gained from the two last blocks, orthogonal to X. Then which of the X and P
    are not zero, and the largest absolute value of G.
    """
    H = sign * jnp.where(live[:, None] & live[None, :], (G + G.conj().T) / 2, 0)
    beyond = 2 * jnp.linalg.norm(H) + 1
    values, Y = jnp.linalg.eigh(H - jnp.diag(jnp.where(live, 0, beyond).astype(H.dtype)))
    size = jnp.max(jnp.where(values > -beyond / 1.5, jnp.abs(values), 0))
    C = Y[:, ::-1][:, :k]
    Z = jnp.linalg.qr(jnp.concatenate([C, C.at[:k].set(0)], axis=1))[0][:, k:]
    # Where nothing was gained Z is any completion, which may lean on rows that are zero.
    whole = jnp.sum(jnp.abs(jnp.where(live[:, None], Z, 0)) ** 2, axis=0) > 0.99
    Z = jnp.where(live[:, None] & whole, Z, 0)
    live = jnp.concatenate([jnp.ones(k, bool), whole])
    return sign * values[::-1][:k], jnp.concatenate([C, Z], axis=1), live, size
