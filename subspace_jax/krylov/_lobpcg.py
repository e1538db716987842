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
    """(k, n) the last directions, orthonormal to X, or zero rows."""
    AP: Array


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
        state, P, AP = search
        X, AX = state.X, state.AX
        R = AX - state.values[:, None] * X
        W = R if precondition is None else precondition(R)
        W = _new_directions(jnp.concatenate([X, P]), W)
        S, AS = jnp.concatenate([X, P, W]), jnp.concatenate([AX, AP, product(W)])
        values, C, size = _best_combination(_gram(S, S), _gram(S, AS), k, sign)
        (X, P), (AX, AP) = (jnp.split(matmul(C.T, rows), 2) for rows in (S, AS))
        return _Search(_judged(state, X, AX, values, size, rtol), P, AP)

    X = _orthonormal(rows)
    values, X, AX = _rayleigh_ritz(X, product(X))
    first = _judged(_State.begin(X, AX), X, AX, values, jnp.abs(values[0]), rtol)
    zero = jnp.zeros_like(X)
    search = _Search(first._replace(num_steps=jnp.int32(0)), zero, zero)
    search = jax.lax.while_loop(lambda s: _unfinished(s.state, k, maxiter), step, search)
    X, state = search.state.X, search.state
    return _judged(state, X, product(X), state.values, state.size, rtol)._replace(
        num_steps=state.num_steps, found=state.found
    )  # the true residual: AX was combined, not multiplied


def _new_directions(basis: Array, W: Array) -> Array:
    """Orthonormal rows, or zero ones, of the span of W apart from that of the basis."""
    for _ in range(2):
        W = W - matmul(_gram(basis, W).T, basis)
        size = jnp.linalg.norm(W, axis=1, keepdims=True)
        W = W / jnp.where(size > 0, size, 1)
        values, U = jnp.linalg.eigh(_gram(W, W))
        live = values > 10 * len(W) * jnp.finfo(values.dtype).eps
        weights = jnp.where(live, 1 / jnp.sqrt(jnp.where(live, values, 1)), 0)
        W = matmul((U * weights).T, W)
    return W


def _best_combination(B: Array, G: Array, k: int, sign: float) -> tuple[Array, Array, Array]:
    """The k best values of G in the metric B, coordinates (3 k, 2 k) of their X and P; G's size.

    P spans what X has gained from the two last blocks, orthogonal to X.
    """
    metric, U = jnp.linalg.eigh(B)
    live = metric > 0.01  # the rows are orthonormal, up to rounding, or zero
    root = jnp.sqrt(jnp.where(live, metric, 1))
    T = jnp.where(live, U / root, 0)
    H = matmul(T.conj().T, matmul(sign * (G + G.conj().T) / 2, T))
    beyond = 2 * jnp.linalg.norm(H) + 1
    values, Y = jnp.linalg.eigh(H - jnp.diag(jnp.where(live, 0, beyond).astype(H.dtype)))
    size = jnp.max(jnp.where(values > -beyond / 1.5, jnp.abs(values), 0))
    values, Y = values[::-1][:k], Y[:, ::-1][:, :k]
    C = matmul(T, Y)
    gain = matmul((jnp.where(live, root, 0) * U).conj().T, C.at[:k].set(0))
    Z = jnp.linalg.qr(jnp.concatenate([Y, gain], axis=1))[0][:, k:]
    return sign * values, jnp.concatenate([C, matmul(T, Z)], axis=1), size
