"""Subspaces of dimension k: the Grassmann manifold, by orthonormal frames (..., n, k).

A point is the span of its frame Q; all frames Q O, O unitary, are the same point, and all functions
here agree with that. A tangent is horizontal, Q^H V = 0, in the frame of its point. Everything is
matrix products and functions of k x k Gram matrices: nothing tall is decomposed, no column changes
its sign from one step to the next, and all derivatives exist at V = 0 and at equal angles.

Objectives must not depend on the frame, f(Q O) = f(Q) (`optim.check_invariance`); others belong on
`stiefel`. Weight decay is meaningless here: the frame cannot shrink. Frames want float32 or finer:
in bfloat16 a step is lost in the rounding of Q.

Reference: Edelman, Arias & Smith (1998), "The geometry of algorithms with orthogonality
constraints", section 2.5; Bendokat, Zimmermann & Absil (2024), "A Grassmann manifold handbook".
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._polar import polar_factor
from subspace_jax.manifolds import _gram, _rows
from subspace_jax.manifolds._frames import (
    check,
    check_frames,
    drift,
    gram,
    inner,
    norm,
    random_point,
)
from subspace_jax.manifolds._manifold import Geometry, InRows
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
    "with_retraction",
]

Frames = Inexact[Array, "*b n k"]
_Coefficients = Callable[[Array], tuple[Array, Array]]


class _Storage(NamedTuple):
    """The two products of frames, however they are stored."""

    gram: Callable[[Array, Array], Array]
    """A^H B."""
    times: Callable[[Array, Array], Array]
    """A M."""


_COLUMNS, _ROWS = _Storage(gram, matmul), _Storage(_rows.gram, _rows.times)


def project_tangent(Q: Frames, G: Frames) -> Frames:
    """The horizontal part of ``G``: what is left of it outside the span of Q.

    For a gradient of a real function of complex Q, conjugate what `jax.grad` returns first.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(Q, G)
    return _project(_COLUMNS, Q, G)


def update(Q: Frames, V: Frames) -> Frames:
    """The step u to a frame Q + u of the point where the geodesic of ``V`` is at time 1.

    It is computed as such, not as a difference of frames, so that a small step keeps its digits;
    and it takes Q's own departure from orthonormality and V's from the horizontal out on the way,
    so that they never add up.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(Q, V)
    return _update(_gram.geodesic, _COLUMNS, Q, V)


def retract(Q: Frames, V: Frames) -> Frames:
    """The frame Q + update(Q, V), which is `exp`.

    Raises:
        ValueError: shapes that differ.
    """
    return Q + update(Q, V)


def exp(Q: Frames, V: Frames) -> Frames:
    """Where the geodesic that starts at Q with the velocity ``V`` is at time 1.

    The frame is the parallel one: Q^H exp(Q, V) is Hermitian. V may be of any length up to 100 or
    so, at a loss of a bit or two for each doubling beyond pi/2.

    Raises:
        ValueError: shapes that differ.

    Reference: Edelman, Arias & Smith (1998), theorem 2.3.
    """
    return retract(Q, V)


def log(Q: Frames, R: Frames) -> Frames:
    """The shortest velocity whose geodesic from Q reaches R, as a subspace, at time 1.

    Where an angle between the two is pi/2 there are several, of one length: one of them. The
    derivative, which does not exist there, leaves out the directions in question.

    Raises:
        ValueError: shapes that differ.

    Reference: Bendokat, Zimmermann & Absil (2024), section 5.2.
    """
    check_frames(Q, R)
    overlap = matmul(Q.mT.conj(), R)
    aligned = matmul(R, polar_factor(overlap).mT.conj())  # makes Q^H R the cosines, semidefinite
    cosines = matmul(Q.mT.conj(), aligned)
    cosines = (cosines + cosines.mT.conj()) / 2
    return matmul(project_tangent(Q, aligned), _angle_over_sine(cosines))


def transport(Q: Frames, V: Frames, X: Frames) -> Frames:
    """The tangent ``X`` carried in parallel along the geodesic of ``V``, in the frame exp(Q, V).

    An isometry: inner products stay. In another frame exp(Q, V) O it is X O.

    Raises:
        ValueError: shapes that differ.

    Reference: Edelman, Arias & Smith (1998), theorem 2.4.
    """
    check_frames(Q, V, X)
    return _transport(_gram.geodesic, _COLUMNS, Q, V, X)


def dist(Q: Frames, R: Frames) -> Float[Array, "*b"]:
    """The length of the shortest geodesic, the norm of the principal angles.

    Its derivative at equal points, where there is none, is finite.

    Raises:
        ValueError: shapes that differ.
    """
    return norm(Q, log(Q, R))


def random_tangent(key: Key, Q: Frames) -> Frames:
    """A normal tangent at Q: the horizontal part of a Gaussian matrix."""
    return project_tangent(Q, jax.random.normal(key, Q.shape, Q.dtype))


def with_retraction(name: str) -> Geometry:
    """The same manifold, another move along a tangent in `update`, `retract` and `transport`.

    Only "geodesic" stays on the geodesic for long steps, and it is not slower than the others
    ("cayley" takes the same time in `scripts/bench/manifolds.py`). The transport is an isometry
    with each of them.

    Args:
        name: "geodesic"; "cayley", which agrees to second order, by one inverse of I + V^H V / 4;
            "polar", the frame nearest to Q + V; "cholesky_qr", cheap and safe as the condition of
            I + V^H V is small, but it turns the frame: directions kept across a step must be
            transported, "projection" or "ambient" momentum would mix their columns.

    Raises:
        ValueError: an unknown name.
    """
    moves = {"geodesic": _gram.geodesic, "cayley": _gram.cayley, "polar": _gram.polar}
    if name == "cholesky_qr":
        step, carry = _cholesky_update, _cholesky_transport
    elif name in moves:
        step, carry = partial(_update, moves[name]), partial(_transport, moves[name])
    else:
        raise ValueError(f"retraction must be one of {[*moves, 'cholesky_qr']}, got {name!r}")

    def move(Q, V):
        check_frames(Q, V)
        return step(_COLUMNS, Q, V)

    def carried(Q, V, X):
        check_frames(Q, V, X)
        return carry(_COLUMNS, Q, V, X)

    return Geometry(
        project_tangent=project_tangent,
        update=move,
        retract=lambda Q, V: Q + move(Q, V),
        transport=carried,
        inner=inner,
        norm=norm,
        dist=dist,
        random_point=random_point,
        random_tangent=random_tangent,
        check=check,
        in_rows=_in_rows(step, carry),
    )


def _project(storage: _Storage, Q: Array, G: Array) -> Array:
    inside = storage.gram(Q, G)
    # I + E is the inverse of Q^H Q to first order: Q need only be orthonormal to half precision.
    return G - storage.times(Q, inside + matmul(drift(Q, storage.gram), inside))


def _update(coefficients: _Coefficients, storage: _Storage, Q: Array, V: Array) -> Array:
    inside, M, half_drift = _gram_matrices(storage, Q, V)
    a, b = coefficients(M)
    shortened = matmul(M, a)
    # One Newton-Schulz step, Q (I + E / 2), merged with the move. The order E M a, not M a E:
    # the other one leaves an error of first order in E.
    head = shortened + half_drift + matmul(half_drift, shortened) - matmul(inside, b)
    return storage.times(Q, head) + storage.times(V, b)


def _gram_matrices(storage: _Storage, Q: Array, V: Array) -> tuple[Array, Array, Array]:
    """Q^H V, the Gram matrix of V's horizontal part, and (I - Q^H Q) / 2."""
    inside = storage.gram(Q, V)
    M = storage.gram(V, V) - matmul(inside.mT.conj(), inside)
    return inside, M, drift(Q, storage.gram) / 2


def _transport(
    coefficients: _Coefficients, storage: _Storage, Q: Array, V: Array, X: Array
) -> Array:
    a, b = coefficients(storage.gram(V, V))
    along = storage.gram(V, X)
    return X - storage.times(Q, matmul(b, along)) + storage.times(V, matmul(a, along))


def _cholesky_update(storage: _Storage, Q: Array, V: Array) -> Array:
    inside, M, half_drift = _gram_matrices(storage, Q, V)
    inverse = _inverse_cholesky(M)
    eye = jnp.eye(M.shape[-1], dtype=M.dtype)
    head = inverse - eye + matmul(half_drift - inside, inverse)
    return storage.times(Q, head) + storage.times(V, inverse)


def _cholesky_transport(storage: _Storage, Q: Array, V: Array, X: Array) -> Array:
    M = storage.gram(V, V)
    eye = jnp.eye(M.shape[-1], dtype=M.dtype)
    root, _ = _gram.square_roots(eye + M)
    polar = _transport(_gram.polar, storage, Q, V, X)
    return storage.times(polar, matmul(root, _inverse_cholesky(M)))


def _inverse_cholesky(M: Array) -> Array:
    """L^{-H} of I + M = L L^H."""
    eye = jnp.broadcast_to(jnp.eye(M.shape[-1], dtype=M.dtype), M.shape)
    L = jnp.linalg.cholesky(eye + M)
    return jax.lax.linalg.triangular_solve(
        L, eye, left_side=True, lower=True, transpose_a=True, conjugate_a=True
    )


def _angle_over_sine(C: Array) -> Array:
    """The matrix arccos(C) / sqrt(I - C^2) of a Hermitian C with eigenvalues in [0, 1].

    It is analytic there, C = I included; a polynomial in 2 C - I, whose coefficients fall as
    5.8^-j.
    """
    degree, q = (11, 3) if jnp.finfo(C.dtype).eps > 1e-10 else (23, 5)
    eye = jnp.eye(C.shape[-1], dtype=C.dtype)
    return _gram.polynomial(_series(degree), _gram.powers(2 * C - eye, q))


def _series(degree: int) -> list[float]:
    nodes = chebyshev.chebpts1(degree + 1)  # inside (-1, 1): no division by zero
    half = np.arccos((nodes + 1) / 2) / 2
    values = half / (np.sin(half) * np.cos(half))
    return chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, degree)).tolist()


def _in_rows(update: Callable[..., Array], transport: Callable[..., Array]) -> InRows:
    return InRows(
        project_tangent=partial(_project, _ROWS),
        update=partial(update, _ROWS),
        transport=partial(transport, _ROWS),
        norm=lambda Q, V: _rows.norm(V),
    )


in_rows = _in_rows(partial(_update, _gram.geodesic), partial(_transport, _gram.geodesic))
"""The steps of an optimizer for frames in another storage, which it converts to and from."""
