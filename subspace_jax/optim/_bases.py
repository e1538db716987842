"""Policies that say where the low-rank basis of a gradient moves: (key, basis, grad) -> basis."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from subspace_jax.linalg import orthonormalize, project_out, range_finder
from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds import grassmann
from subspace_jax.typing import Array, Float, Key, PyTree

_Basis = Float[Array, "m r"]


@dataclasses.dataclass(frozen=True, eq=False)
class BasisPolicy:
    """How a basis (m, r) of the columns of gradients (m, n) moves, r <= min(m, n).

    A policy is called as ``policy(key, basis, grad)`` and returns an orthonormal basis of the same
    shape. Any function of that signature may stand in its place; the parts here are for policies
    that begin otherwise than they go on, or remember something.
    """

    move: Callable[[Key, Array, Array, PyTree], tuple[Array, PyTree]]
    """(key, basis, grad, memory) -> the next basis and memory."""
    first: Callable[[Key, Array, Array], Array] | None = None
    """(key, basis, grad) -> the basis of the first step; None: as at every other."""
    init: Callable[[Array], PyTree] = lambda basis: ()
    """basis -> memory."""

    def __call__(self, key: Key, basis: _Basis, grad: Float[Array, "m n"]) -> _Basis:
        return self.move(key, basis, grad, self.init(basis))[0]


def as_policy(basis: Any) -> BasisPolicy:
    """A policy of a policy, or of a function (key, basis, grad) -> basis."""
    if isinstance(basis, BasisPolicy):
        return basis
    return BasisPolicy(lambda key, Q, grad, memory: (basis(key, Q, grad), memory))


def singular(method: str = "range") -> BasisPolicy:
    """The leading left singular vectors of the gradient.

    Signs are those that face the old basis: moments that are kept across a refresh mean the same
    direction, where an SVD alone may flip it.

    Args:
        method: "svd": LAPACK's; "range": of a randomized range with 10 vectors to spare and one
            power iteration, then ``eigh`` of a small Gram matrix, some hundred times cheaper;
            "power": one step of subspace iteration from the old basis, cheap enough for every
            step (its columns span the singular subspace, but are not singular vectors).

    Raises:
        ValueError: another method.

    Reference: Zhao et al. (2024), "GaLore", algorithm 2; Halko, Martinsson & Tropp (2011).
    """
    if method == "svd":
        return BasisPolicy(_without_memory(_svd))
    if method == "range":
        return BasisPolicy(_without_memory(_by_range))
    if method == "power":
        return BasisPolicy(_without_memory(_power), first=_by_range)
    raise ValueError(f"method must be 'svd', 'range' or 'power', got {method!r}")


def sampled(num_candidates: int | None = None) -> BasisPolicy:
    """Left singular vectors drawn without replacement, likelier the larger their singular value.

    The dominant subspace may freeze, and then nothing is learned outside of it; a drawn one visits
    every direction in the end, which the proof of convergence needs.

    Args:
        num_candidates: leading triplets to draw from, found as by `singular`; None: four times the
            rank, at most all. The paper draws from all of them: give min(m, n) or more.

    Raises:
        ValueError: fewer candidates than directions.

    Reference: SARA, arXiv 2502.05790, algorithm 1.
    """

    def draw(key, basis, grad):
        rank = basis.shape[1]
        num = min(num_candidates or 4 * rank, *grad.shape)
        if num < rank:
            raise ValueError(f"cannot draw {rank} directions from {num} candidates")
        sketch_key, draw_key = jax.random.split(key)
        U, s = _leading(sketch_key, grad, num)
        scores = jnp.log(s) + jax.random.gumbel(draw_key, s.shape, s.dtype)
        _, chosen = jax.lax.top_k(scores, rank)
        return U[:, jnp.sort(chosen)]

    return BasisPolicy(_without_memory(draw))


def online(optimizer: optax.GradientTransformation, *, penalty: float = 1.0) -> BasisPolicy:
    """A step of ``optimizer`` on |P P^T g - g|^2 + penalty |P^T P - I|^2, g = grad / |grad|.

    The basis is then made orthonormal, by the Cholesky factor of its Gram matrix and a Newton-
    Schulz step: on an orthonormal basis the penalty has no gradient, so alone it only bounds the
    drift (and the released code leaves it out). It begins with the singular subspace of the first
    gradient. For `low_rank` with ``refresh_every=1``.

    Args:
        optimizer: of the basis, such as ``optax.adam(5e-3)``; its state is kept between steps.
        penalty: on what is not orthonormal.

    Reference: Liang et al. (2024), "Memory-efficient LLM training with online subspace descent",
    eq. 5.
    """

    def loss(P, g):
        residual = matmul(P, matmul(P.mT, g)) - g
        drift = matmul(P.mT, P) - jnp.eye(P.shape[1], dtype=P.dtype)
        return jnp.sum(residual**2) + penalty * jnp.sum(drift**2)

    def move(key, basis, grad, memory):
        del key
        slope = jax.grad(loss)(basis, _unit(grad))
        step, memory = optimizer.update(slope, memory, basis)
        return _cholesky_orthonormal(basis + step), memory

    return BasisPolicy(move, first=_by_range, init=optimizer.init)


def walk(step: float) -> BasisPolicy:
    """A geodesic step on the Grassmann manifold in a random direction.

    It begins with the singular subspace of the first gradient.

    Args:
        step: root mean square of the principal angles between old and new, in radians (up to
            pi/2; with m - r < r some angles are zero and the others larger).

    Reference: "Randomized gradient subspaces for efficient large language model training"
    (GrassWalk), arXiv 2510.01878. Its own scale of the step is not public.
    """

    def move(key, basis, grad):
        del grad
        if basis.shape[0] == basis.shape[1]:
            return basis  # the whole space has nowhere to go
        V = grassmann.random_tangent(key, basis)
        return grassmann.exp(basis, step * math.sqrt(basis.shape[1]) / grassmann.norm(basis, V) * V)

    return BasisPolicy(_without_memory(move), first=_by_range)


def jump() -> BasisPolicy:
    """A subspace drawn uniformly, whatever the gradient.

    Reference: GrassJump, arXiv 2510.01878; GoLore.
    """

    def move(key, basis, grad):
        del grad
        return grassmann.random_point(key, *basis.shape, dtype=basis.dtype)

    return BasisPolicy(_without_memory(move))


def track(step: float) -> BasisPolicy:
    """A geodesic step down the slope of |S S^T g - g|^2 / 2, g = grad / |grad|.

    It begins with the singular subspace of the first gradient. The tangent is (I - S S^T) g g^T S,
    on the side of the basis, of wide and of tall matrices.

    Args:
        step: the time along the geodesic of that tangent, whose norm is at most 1/2.

    Reference: SubTrack++, Rajabi et al. (2025), whose tangent is this one's leading part.
    """

    def move(key, basis, grad):
        del key
        g = _unit(grad)
        V = grassmann.project_tangent(basis, matmul(g, matmul(g.mT, basis)))
        return grassmann.exp(basis, step * V)

    return BasisPolicy(_without_memory(move), first=_by_range)


def complement(of: Float[Array, "m k"], basis: Any = None) -> BasisPolicy:
    """What a policy makes of the gradient's part outside a subspace; and it stays outside.

    Args:
        of: basis of the subspace to avoid, with orthonormal columns; zero columns are none. It may
            be traced, so that one compiled step serves a growing subspace.
        basis: policy for the rest; None: `singular`.

    The result's columns are orthonormal and orthogonal to ``of`` even where the gradient's rank is
    below r; with fewer than r dimensions left the surplus columns are zero.

    Reference: CoSO (2025), algorithm 1, orthogonal projection.
    """
    inside = as_policy(singular() if basis is None else basis)

    def move(key, Q, grad, memory):
        Q, memory = inside.move(key, Q, project_out(of, grad), memory)
        return _outside(of, Q), memory

    def first(key, Q, grad):
        start = inside.first or inside
        return _outside(of, start(key, Q, project_out(of, grad)))

    return BasisPolicy(move, first if inside.first else None, inside.init)


def _without_memory(move: Callable[[Key, Array, Array], Array]) -> Callable:
    return lambda key, basis, grad, memory: (move(key, basis, grad), memory)


def _svd(key, basis, grad):
    del key
    U, _, _ = jnp.linalg.svd(grad, full_matrices=False)
    return _facing(U[:, : basis.shape[1]], basis)


def _by_range(key, basis, grad):
    rank = basis.shape[1]
    U, _ = _leading(key, grad, min(rank + 10, *grad.shape))
    return _facing(U[:, :rank], basis)


def _power(key, basis, grad):
    del key
    g = _unit(grad)
    return orthonormalize(matmul(g, matmul(g.mT, basis)))


def _leading(key: Key, grad: Array, num: int) -> tuple[Array, Array]:
    """The leading ``num`` left singular vectors and values, from their randomized range."""
    Q = range_finder(key, grad, num, num_power_iterations=1)
    B = matmul(Q.mT, grad)
    values, V = jnp.linalg.eigh(matmul(B, B.mT))
    return matmul(Q, V[:, ::-1]), jnp.sqrt(jnp.maximum(values[::-1], 0))


def _facing(Q: Array, old: Array) -> Array:
    """Q with each column's sign such that it does not point away from the old one."""
    return Q * jnp.where(jnp.sum(Q * old, axis=0) < 0, -1, 1)


def _unit(grad: Array) -> Array:
    size = jnp.linalg.norm(grad)
    return grad / jnp.where(size > 0, size, 1)


def _cholesky_orthonormal(P: Array) -> Array:
    """An orthonormal basis of the span of P with columns near its own: matrix products but one."""
    L = jnp.linalg.cholesky(matmul(P.mT, P))
    Q = jax.scipy.linalg.solve_triangular(L, P.mT, lower=True).mT
    return 1.5 * Q - 0.5 * matmul(Q, matmul(Q.mT, Q))


def _outside(H: Array, S: Array) -> Array:
    """S made orthonormal after the nonzero columns of H, by one QR; zero where no room is left.

    The zero columns of H go last: a QR fills in for them, and would take directions from S.
    """
    n, num, rank = H.shape[0], H.shape[1], S.shape[1]
    used = jnp.any(H != 0, axis=0)
    order = jnp.argsort(jnp.concatenate([jnp.where(used, 0, 2), jnp.ones(rank)]), stable=True)
    ordered = jnp.concatenate([H, S], axis=1)[:, order]
    Q = orthonormalize(ordered[:, :n])
    Q = jnp.pad(Q, ((0, 0), (0, num + rank - Q.shape[1])))
    return jax.lax.dynamic_slice_in_dim(Q, jnp.sum(used), rank, axis=1)
