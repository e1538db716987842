"""Matrices (m, n) of rank r, never formed: factors U S V^H, in the metric of all matrices.

U and V have orthonormal columns, S (r, r) is any invertible matrix: rotations of the factors make
the same point, and S need not be diagonal, which keeps every step smooth. A tangent is the sum
U M V^H + Up V^H + U Vp^H with Up across U and Vp across V. There are no exp and log: they have no
closed form. ``retract`` is the orthographic retraction up to third order, hence one of second order
like the truncated singular value decomposition, but smooth and in closed form. All costs are
O((m + n) r^2); leading axes are a batch.

Reference: Vandereycken (2013), "Low-rank matrix completion by Riemannian optimization"; Absil &
Malick (2012), "Projection-like retractions on matrix manifolds", section 4.2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.linalg import orthonormalize, project_out
from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds._ambient import adjoint, distance, largest, real_inner
from subspace_jax.manifolds._frames import drift
from subspace_jax.typing import Array, Inexact, Key

__all__ = [
    "Point",
    "Tangent",
    "check",
    "dense",
    "dense_tangent",
    "dist",
    "from_dense",
    "gradient",
    "inner",
    "norm",
    "project_tangent",
    "random_point",
    "random_tangent",
    "retract",
    "transport",
    "update",
]


class Point(NamedTuple):
    """The matrix U S V^H; or what is added to its factors, or a gradient with respect to them."""

    U: Array
    """(..., m, r), orthonormal columns."""
    S: Array
    """(..., r, r), invertible."""
    V: Array
    """(..., n, r), orthonormal columns."""


class Tangent(NamedTuple):
    """The matrix U M V^H + Up V^H + U Vp^H at the point (U, S, V)."""

    M: Array
    """(..., r, r)."""
    Up: Array
    """(..., m, r), U^H Up = 0."""
    Vp: Array
    """(..., n, r), V^H Vp = 0."""


def dense(p: Point) -> Inexact[Array, "*b m n"]:
    """The matrix U S V^H."""
    return matmul(p.U, matmul(p.S, adjoint(p.V)))


def dense_tangent(p: Point, v: Tangent) -> Inexact[Array, "*b m n"]:
    """The matrix U M V^H + Up V^H + U Vp^H."""
    _check_tangent(p, v)
    return matmul(matmul(p.U, v.M) + v.Up, adjoint(p.V)) + matmul(p.U, adjoint(v.Vp))


def from_dense(A: Inexact[Array, "*b m n"], rank: int) -> Point:
    """The point of rank ``rank`` nearest to ``A``, by its singular value decomposition.

    Raises:
        ValueError: the rank is out of bounds.
    """
    if not 1 <= rank <= min(A.shape[-2:]):
        raise ValueError(f"rank must lie in 1..{min(A.shape[-2:])}, got {rank}")
    U, s, Vh = jnp.linalg.svd(A, full_matrices=False)
    S = s[..., :rank, None] * jnp.eye(rank, dtype=A.dtype)
    return Point(U[..., :rank], S, adjoint(Vh[..., :rank, :]))


def project_tangent(p: Point, g: Inexact[Array, "*b m n"] | Point | Tangent) -> Tangent:
    """The tangent nearest to a matrix (..., m, n), or the gradient made of those of the factors.

    Args:
        p: the point.
        g: a dense matrix, such as a Euclidean gradient; or a `Point` that holds the gradients of
            f(U S V^H) with respect to U, S and V, which gives the same without the dense one.
            For complex factors, conjugate what `jax.grad` returns first. Of a `Tangent` only the
            parts across U and V are taken.

    Raises:
        ValueError: shapes that do not fit.
    """
    if isinstance(g, Point):
        _check_point(p, g)
        # From G V S^H = dU and G^H U S = dV, with G the gradient that is never formed.
        S_inverse = jnp.linalg.inv(p.S)
        left = matmul(project_out(p.U, g.U), adjoint(S_inverse))
        return Tangent(g.S, left, matmul(project_out(p.V, g.V), S_inverse))
    if isinstance(g, Tangent):
        _check_tangent(p, g)
        return Tangent(g.M, project_out(p.U, g.Up), project_out(p.V, g.Vp))
    shape = (*p.U.shape[:-1], p.V.shape[-2])
    if g.shape != shape:
        raise ValueError(f"need a matrix of shape {shape}, got {g.shape}")
    right, left = matmul(g, p.V), matmul(adjoint(g), p.U)
    return Tangent(matmul(adjoint(p.U), right), project_out(p.U, right), project_out(p.V, left))


def gradient(p: Point, g: Inexact[Array, "*b m n"] | Point | Tangent) -> Tangent:
    """The Riemannian gradient of a function with the Euclidean gradient ``g``: `project_tangent`.

    Raises:
        ValueError: shapes that do not fit.
    """
    return project_tangent(p, g)


def update(p: Point, v: Tangent) -> Point:
    """What to add to the factors of p to take the step ``v``; U and V stay orthonormal.

    U and V turn by Cayley transforms, of Up (S + M)^-1 and Vp (S + M)^-H.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_tangent(p, v)
    moved = p.S + v.M
    inverse = jnp.linalg.inv(moved)
    dU, BU = _turned(p.U, matmul(v.Up, inverse))
    dV, BV = _turned(p.V, matmul(v.Vp, adjoint(inverse)))
    # A turned frame is shorter along the old one by half of B: S makes up for it.
    return Point(dU, v.M + (matmul(BU, moved) + matmul(moved, BV)) / 2, dV)


def retract(p: Point, v: Tangent) -> Point:
    """The point p + update(p, v), factor by factor.

    Raises:
        ValueError: shapes that do not fit.
    """
    return Point(*(x + dx for x, dx in zip(p, update(p, v), strict=True)))


def transport(p: Point, v: Tangent, x: Tangent) -> Tangent:
    """The tangent ``x`` projected to the tangents at retract(p, v): no isometry, never longer.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_tangent(p, x)
    q = retract(p, v)
    a, b = matmul(adjoint(p.U), q.U), matmul(adjoint(p.V), q.V)
    au, bv = matmul(adjoint(x.Up), q.U), matmul(adjoint(x.Vp), q.V)
    # x V' and x^H U', with x = U (M V^H + Vp^H) + Up V^H
    right = matmul(p.U, matmul(x.M, b) + bv) + matmul(x.Up, b)
    left = matmul(p.V, matmul(adjoint(x.M), a) + au) + matmul(x.Vp, a)
    return Tangent(matmul(adjoint(q.U), right), project_out(q.U, right), project_out(q.V, left))


def inner(p: Point, u: Tangent, v: Tangent) -> Array:
    """The inner product Re tr(u^H v) of the two matrices, one number a point.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_tangent(p, u)
    _check_tangent(p, v)
    return real_inner(u.M, v.M) + real_inner(u.Up, v.Up) + real_inner(u.Vp, v.Vp)


def norm(p: Point, v: Tangent) -> Array:
    """The Frobenius norm of the matrix ``v``; its derivative at zero is zero.

    Raises:
        ValueError: shapes that do not fit.
    """
    return root(inner(p, v, v))


def dist(p: Point, q: Point) -> Array:
    """The Frobenius norm of q - p in the space of all matrices, a lower bound of the geodesic one.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_point(p, q)
    a, b = matmul(adjoint(p.U), q.U), matmul(adjoint(p.V), q.V)
    U, V = project_out(p.U, q.U), project_out(p.V, q.V)
    # In the frames of p: of four blocks only one holds a difference, so that digits are kept.
    both = real_inner(matmul(matmul(adjoint(U), U), q.S), matmul(q.S, matmul(adjoint(V), V)))
    parts = (
        matmul(a, matmul(q.S, adjoint(b))) - p.S,
        matmul(U, matmul(q.S, adjoint(b))),
        matmul(V, matmul(adjoint(q.S), adjoint(a))),
    )
    scale = p.S.shape[-1] * largest(p.S)
    return distance(sum((real_inner(part, part) for part in parts), both), scale)


def random_point(key: Key, m: int, n: int, rank: int, *, dtype: Any = None) -> Point:
    """A point with uniform U and V, and singular values between 1 and 2."""
    keys = jax.random.split(key, 3)
    U = orthonormalize(jax.random.normal(keys[0], (m, rank), dtype))
    V = orthonormalize(jax.random.normal(keys[1], (n, rank), dtype))
    s = 1 + jax.random.uniform(keys[2], (rank,), U.real.dtype)
    return Point(U, jnp.diag(s).astype(U.dtype), V)


def random_tangent(key: Key, p: Point) -> Tangent:
    """A normal tangent at p."""
    keys = jax.random.split(key, 3)
    M, Up, Vp = (
        jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, (p.S, p.U, p.V), strict=True)
    )
    return Tangent(M, project_out(p.U, Up), project_out(p.V, Vp))


def check(p: Point) -> Array:
    """The largest entry of |I - U^H U| and |I - V^H V|, one number a point."""
    return jnp.maximum(largest(drift(p.U)), largest(drift(p.V)))


def _turned(Q: Array, W: Array) -> tuple[Array, Array]:
    """The change of Q by the Cayley transform that moves it along W, and B = W^H W.

    Q's own departure from orthonormality is taken out on the way.
    """
    B = matmul(adjoint(W), W)
    eye = jnp.eye(B.shape[-1], dtype=B.dtype)
    change = matmul(W - matmul(Q, B) / 2, jnp.linalg.inv(eye + B / 4))
    return change + matmul(Q + change, drift(Q) / 2), B


def _check_point(p: Point, q: Point) -> None:
    for x, y in zip(p, q, strict=True):
        if x.shape != y.shape:
            raise ValueError(f"need points of one shape, got {x.shape} and {y.shape}")


def _check_tangent(p: Point, v: Tangent) -> None:
    for x, y in zip((p.S, p.U, p.V), v, strict=True):
        if x.shape != y.shape:
            raise ValueError(f"a tangent must fit its point, got {y.shape} for {x.shape}")
