"""Square orthogonal matrices O(n), or unitary ones U(n): points (..., n, n), p^H p = I.

Tangents are p W with W skew-Hermitian; the metric is Re tr(u^H v), invariant from both sides, so
that geodesics are p exp(t W). Points of O(n) with determinants of different signs are not joined by
any.

Reference: Edelman, Arias & Smith (1998), section 2.2.
"""

from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg import orthonormalize
from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds._ambient import (
    adjoint,
    check_shapes,
    distance,
    largest,
    real_inner,
    skew,
)
from subspace_jax.manifolds._frames import drift
from subspace_jax.typing import Array, Float, Inexact, Key

__all__ = [
    "check",
    "dist",
    "exp",
    "inner",
    "log",
    "norm",
    "project_tangent",
    "random_point",
    "random_tangent",
    "retract",
    "transport",
    "update",
]

Points = Inexact[Array, "*b n n"]

_NUM_ROOTS = 3
_FIRST_STEPS, _STEPS = 24, 6
"""Newton-Schulz steps of the first square root, from cosines down to 1e-3, and of the others."""
_NUM_TERMS = 11


def project_tangent(p: Points, g: Points) -> Points:
    """The nearest tangent p skew(p^H g).

    For a gradient of a real function of complex p, conjugate what `jax.grad` returns first.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, g, square=True)
    return matmul(p, skew(matmul(adjoint(p), g)))


def update(p: Points, v: Points) -> Points:
    """The step u to p + u = exp(p, v); p's own departure from orthogonality is taken out.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, v, square=True)
    half = jax.scipy.linalg.expm(_rate(p, v) / 2)
    # exp(W) - I = exp(W / 2) (exp(W / 2) - exp(-W / 2)): nothing is taken from the identity.
    turn = matmul(half, half - adjoint(half))
    half_drift = drift(p) / 2
    return matmul(p, turn + half_drift + matmul(half_drift, turn))


def retract(p: Points, v: Points) -> Points:
    """The point p + update(p, v), which is `exp`.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    return p + update(p, v)


def exp(p: Points, v: Points) -> Points:
    """Where the geodesic that starts at p with the velocity ``v`` is at time 1.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    return retract(p, v)


def log(p: Points, q: Points) -> Points:
    """The shortest tangent at p whose `exp` is q.

    By square roots of p^H q until all angles are below pi/8, then a series: matrix products and
    one solve, with all derivatives, for angles up to 3.13. Beyond, and where q lies in the other
    part of O(n), the result is finite but no logarithm.

    Raises:
        ValueError: shapes that differ, or are not square.

    Reference: Higham (2008), "Functions of matrices", section 11.5.
    """
    check_shapes(p, q, square=True)
    R = matmul(adjoint(p), q)
    eye = jnp.eye(R.shape[-1], dtype=R.dtype)
    for i in range(_NUM_ROOTS):
        # The square root of a unitary matrix is the polar factor of I + R.
        R = jax.lax.fori_loop(0, _STEPS if i else _FIRST_STEPS, _newton_schulz, (eye + R) / 2)
    tangent = skew(jnp.linalg.solve(eye + R, R - eye))  # tanh of half the logarithm
    square, series = matmul(tangent, tangent), jnp.zeros_like(R)
    for j in reversed(range(_NUM_TERMS)):
        series = eye / (2 * j + 1) + matmul(square, series)
    return matmul(p, 2 ** (_NUM_ROOTS + 1) * matmul(tangent, series))


def transport(p: Points, v: Points, x: Points) -> Points:
    """The tangent ``x`` carried in parallel along the geodesic of ``v``: an isometry.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, v, x, square=True)
    half = jax.scipy.linalg.expm(_rate(p, v) / 2)
    return matmul(p, matmul(half, matmul(matmul(adjoint(p), x), half)))


def inner(p: Points, u: Points, v: Points) -> Float[Array, "*b"]:
    """The Euclidean inner product Re tr(u^H v), one number a point.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, u, v, square=True)
    return real_inner(u, v)


def norm(p: Points, v: Points) -> Float[Array, "*b"]:
    """The length of ``v``; its derivative at zero is zero.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    return root(inner(p, v, v))


def dist(p: Points, q: Points) -> Float[Array, "*b"]:
    """The length of `log`, the norm of all angles of p^H q; its derivative at zero is zero.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    v = log(p, q)
    return distance(inner(p, v, v), p.shape[-1], digits=16.0)


def random_point(key: Key, n: int, *, dtype: Any = None) -> Inexact[Array, "n n"]:
    """A point uniform in the Haar measure of O(n) or U(n); ``dtype`` None is the default float."""
    return orthonormalize(jax.random.normal(key, (n, n), dtype))


def random_tangent(key: Key, p: Points) -> Points:
    """A normal tangent at p."""
    return project_tangent(p, jax.random.normal(key, p.shape, p.dtype))


def check(p: Points) -> Float[Array, "*b"]:
    """The largest entry of |I - p^H p|, one number a point.

    Raises:
        ValueError: not square.
    """
    check_shapes(p, square=True)
    return largest(drift(p))


def _newton_schulz(_: Any, X: Array) -> Array:
    return 1.5 * X - 0.5 * matmul(X, matmul(adjoint(X), X))


def _rate(p: Array, v: Array) -> Array:
    return skew(matmul(adjoint(p), v))
