"""Flags, nested subspaces of dimensions k1, k1 + k2 ...: frames (..., n, k) with columns in blocks.

A point is the chain of spans of its leading blocks; the columns of a block may be rotated among
themselves. `blocks` makes the manifold of given block sizes: one block is a Grassmannian, blocks of
one column are eigenvectors up to sign. A tangent v is one of the Stiefel manifold for which the
diagonal blocks of p^H v vanish, in the frame of its point.

The metric is the canonical one, Re tr(u^H (I - p p^H / 2) v), of the rotations modulo those in the
blocks. Its geodesics are one-parameter groups of rotations, and `transport` moves tangents by the
same rotation: an isometry, along a Grassmannian (one block) the parallel one. There is no log: it
has no closed form. ``dist`` is not the length of a geodesic but the chordal distance, that of the
projectors on the blocks and on the complement of all, which agrees with the metric for near points.

Reference: Ye, Wong & Lim (2022), "Optimization on flag manifolds".
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax.linalg import orthonormalize, project_out
from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds._ambient import (
    adjoint,
    check_shapes,
    distance,
    hermitian,
    largest,
    mean_exponential,
    real_inner,
    skew,
)
from subspace_jax.manifolds._frames import drift
from subspace_jax.manifolds._manifold import Geometry
from subspace_jax.typing import Array, Key

__all__ = ["blocks"]


def blocks(*sizes: int) -> Geometry:
    """The manifold of flags with these numbers of columns in its blocks, k1, k2 ...

    ``random_point(key, n, *, dtype)`` is uniform; its other functions are those of every manifold.
    ``gradient(p, g)`` is that of the canonical metric, which turns between blocks twice as fast as
    ``project_tangent``. They raise ValueError for frames that do not have k1 + k2 + ... columns.

    Raises:
        ValueError: no block, or a size below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"a flag needs blocks of at least one column, got sizes {sizes}")
    return Geometry(
        project_tangent=partial(_project_tangent, sizes),
        update=partial(_update, sizes),
        retract=partial(_exp, sizes),
        transport=partial(_transport, sizes),
        inner=partial(_inner, sizes),
        norm=partial(_norm, sizes),
        dist=partial(_dist, sizes),
        random_point=partial(_random_point, sizes),
        random_tangent=partial(_random_tangent, sizes),
        check=partial(_departure, sizes),
        exp=partial(_exp, sizes),
        gradient=partial(_gradient, sizes),
    )


def _project_tangent(sizes: tuple[int, ...], p: Array, g: Array) -> Array:
    _check(sizes, p, g)
    inside = matmul(adjoint(p), g)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    gauge = jnp.where(ids[:, None] == ids, skew(inside), 0)
    return g - matmul(p, hermitian(inside) + gauge)


def _gradient(sizes: tuple[int, ...], p: Array, g: Array) -> Array:
    """The metric counts what is within the span of p by half."""
    v = _project_tangent(sizes, p, g)
    return v + matmul(p, matmul(adjoint(p), v))


def _update(sizes: tuple[int, ...], p: Array, v: Array) -> Array:
    _check(sizes, p, v)
    turn = _turn(p, v, p)
    # A rotation keeps p's departure from orthonormality; one Newton-Schulz step takes it out.
    return turn + matmul(p + turn, drift(p) / 2)


def _exp(sizes: tuple[int, ...], p: Array, v: Array) -> Array:
    return p + _update(sizes, p, v)


def _transport(sizes: tuple[int, ...], p: Array, v: Array, x: Array) -> Array:
    _check(sizes, p, v, x)
    return x + _turn(p, v, x)


def _inner(sizes: tuple[int, ...], p: Array, u: Array, v: Array) -> Array:
    _check(sizes, p, u, v)
    inside = real_inner(matmul(adjoint(p), u), matmul(adjoint(p), v))
    return real_inner(u, v) - inside / 2


def _norm(sizes: tuple[int, ...], p: Array, v: Array) -> Array:
    return root(_inner(sizes, p, v, v))


def _dist(sizes: tuple[int, ...], p: Array, q: Array) -> Array:
    """The root of |P_i - Q_i|_F^2 / 4 summed over the blocks and the complement of all."""
    _check(sizes, p, q)
    cuts = np.cumsum(sizes)[:-1].tolist()
    pairs = zip(jnp.split(p, cuts, axis=-1), jnp.split(q, cuts, axis=-1), strict=True)
    rests = [project_out(a, b) for a, b in (*pairs, (p, q))]
    rest = jnp.concatenate(rests, axis=-1)
    return distance(real_inner(rest, rest) / 2, p.shape[-1])


def _random_point(sizes: tuple[int, ...], key: Key, n: int, *, dtype: Any = None) -> Array:
    return orthonormalize(jax.random.normal(key, (n, sum(sizes)), dtype))


def _random_tangent(sizes: tuple[int, ...], key: Key, p: Array) -> Array:
    return _project_tangent(sizes, p, jax.random.normal(key, p.shape, p.dtype))


def _departure(sizes: tuple[int, ...], p: Array) -> Array:
    """The largest entry of |I - p^H p|."""
    _check(sizes, p)
    return largest(drift(p))


def _turn(p: Array, v: Array, x: Array) -> Array:
    """The change exp(Z) x - x by the rotation whose rate is Z = W p^H - p W^H, with Z p = v.

    Z has rank 2 k, so that exp(Z) - I = X (exp(Y X) - I) / (Y X) Y is a matter of 2 k x 2 k.
    """
    W = v - matmul(p, matmul(adjoint(p), v)) / 2
    # X and Y are scaled to one size, or a small v would drown in the rounding of p^H p.
    square = jax.lax.stop_gradient(real_inner(W, W))[..., None, None]
    size = jnp.where(square > 0, square, 1) ** 0.25
    X = jnp.concatenate([W / size, p * size], axis=-1)
    Y = jnp.concatenate([adjoint(p * size), -adjoint(W / size)], axis=-2)
    return matmul(X, matmul(mean_exponential(matmul(Y, X)), matmul(Y, x)))


def _check(sizes: tuple[int, ...], p: Array, *others: Array) -> None:
    check_shapes(p, *others)
    if p.shape[-1] != sum(sizes) or p.shape[-1] > p.shape[-2]:
        raise ValueError(f"blocks {sizes} need frames (..., n, {sum(sizes)}), got {p.shape}")
