"""Orthonormal frames (..., n, k): the Stiefel manifold, in the Euclidean metric.

Here the frame matters, not only its span; for k = n it is the orthogonal (unitary) group. Tangents
have a skew-Hermitian Q^H V. `update` and `retract` take the polar factor of Q + V, by a k x k Gram
matrix and no decomposition; `exp` is the geodesic. There is no log, which has no closed form:
`dist` is the Euclidean distance of the frames, and `transport` a projection, no isometry.

Reference: Edelman, Arias & Smith (1998), "The geometry of algorithms with orthogonality
constraints", section 2.4; Absil, Mahony & Sepulchre (2008), example 4.1.3.
"""

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds import _gram
from subspace_jax.manifolds._frames import (
    check,
    check_frames,
    drift,
    gram,
    inner,
    norm,
    random_point,
)
from subspace_jax.typing import Array, Float, Inexact, Key

__all__ = [
    "check",
    "dist",
    "exp",
    "inner",
    "norm",
    "project_tangent",
    "random_point",
    "random_tangent",
    "retract",
    "transport",
    "update",
]

Frames = Inexact[Array, "*b n k"]


def project_tangent(Q: Frames, G: Frames) -> Frames:
    """The tangent nearest to ``G``: G less Q times the Hermitian part of Q^H G.

    For a gradient of a real function of complex Q, conjugate what `jax.grad` returns first.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(Q, G)
    inside = matmul(Q.mT.conj(), G)
    return G - matmul(Q, (inside + inside.mT.conj()) / 2)


def update(Q: Frames, V: Frames) -> Frames:
    """The step u for which Q + u is the polar factor of Q + V, the frame nearest to it.

    A retraction of second order. Computed as such, not as a difference of frames, from the Gram
    matrix of Q + V itself: departures from orthonormality do not add up.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(Q, V)
    inside = gram(Q, V)
    # For a tangent at an exact frame the rest is rounding, and M the Gram matrix of V.
    M = gram(V, V) + (inside + inside.mT.conj()) - drift(Q)
    shortening, inverse_root = _gram.polar(M)
    return matmul(Q, matmul(M, shortening)) + matmul(V, inverse_root)


def retract(Q: Frames, V: Frames) -> Frames:
    """The frame Q + update(Q, V).

    Raises:
        ValueError: shapes that differ.
    """
    return Q + update(Q, V)


def exp(Q: Frames, V: Frames) -> Frames:
    """Where the geodesic that starts at Q with the velocity ``V`` is at time 1.

    By one exponential of a 2k x 2k matrix and one of a k x k matrix.

    Raises:
        ValueError: shapes that differ.

    Reference: Edelman, Arias & Smith (1998), equation (2.42).
    """
    check_frames(Q, V)
    k = Q.shape[-1]
    A, S = matmul(Q.mT.conj(), V), matmul(V.mT.conj(), V)
    eye = jnp.broadcast_to(jnp.eye(k, dtype=Q.dtype), A.shape)
    generator = jnp.block([[A, -S], [eye, A]])
    flow = matmul(jax.scipy.linalg.expm(generator)[..., :k], jax.scipy.linalg.expm(-A))
    return matmul(Q, flow[..., :k, :]) + matmul(V, flow[..., k:, :])


def transport(Q: Frames, V: Frames, X: Frames) -> Frames:
    """The tangent ``X`` projected onto the tangents at retract(Q, V); it may get shorter.

    Raises:
        ValueError: shapes that differ.
    """
    return project_tangent(retract(Q, V), X)


def dist(Q: Frames, R: Frames) -> Float[Array, "*b"]:
    """The Euclidean distance |Q - R|_F of two frames; its derivative at zero is zero.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(Q, R)
    return norm(Q, Q - R)


def random_tangent(key: Key, Q: Frames) -> Frames:
    """A normal tangent at Q: the projection of a Gaussian matrix."""
    return project_tangent(Q, jax.random.normal(key, Q.shape, Q.dtype))
