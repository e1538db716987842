"""Positive definite matrices (..., n, n), real symmetric or Hermitian, in the invariant metric.

Tangents are Hermitian matrices. The inner product Re tr(p^-1 u p^-1 v) does not change under
p -> A p A^H, and no point at a finite distance is singular.

Reference: Bhatia (2007), "Positive definite matrices", chapter 6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._spectral import function_of_eigenvalues, hermitian_function
from subspace_jax.manifolds._ambient import (
    adjoint,
    check_shapes,
    distance,
    hermitian,
    largest,
    mean_exponential,
    real_inner,
)
from subspace_jax.typing import Array, Float, Inexact, Key

__all__ = [
    "check",
    "dist",
    "exp",
    "gradient",
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


def project_tangent(p: Points, g: Points) -> Points:
    """The Hermitian part of ``g``, in the Euclidean sense the nearest tangent.

    Of a Euclidean gradient it is a direction of ascent; the gradient of the metric is `gradient`.
    Conjugate what `jax.grad` returns for complex p first.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, g, square=True)
    return hermitian(g)


def gradient(p: Points, g: Points) -> Points:
    """The gradient p g p in the invariant metric, from the Euclidean one (Hermitian part of g).

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    return hermitian(matmul(p, matmul(project_tangent(p, g), p)))


def update(p: Points, v: Points) -> Points:
    """The step u to p + u = exp(p, v), by exp(W) - I = W + W^2 / 2 + ... of W = L^-1 v L^-H.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, v, square=True)
    L = jnp.linalg.cholesky(p)
    W = _whitened(L, v)
    return _coloured(L, matmul(W, mean_exponential(W)))


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
    """The one tangent at p whose `exp` is q.

    The first derivative is safe at equal eigenvalues, and so at q = p; the second is not.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, q, square=True)
    L = jnp.linalg.cholesky(p)
    logarithm = _of_one(lambda A: hermitian_function(jnp.log1p, A), "(n,n)->(n,n)")
    # Of q - p, not of q: points close to each other keep their digits.
    return _coloured(L, logarithm(_whitened(L, q - p)))


def transport(p: Points, v: Points, x: Points) -> Points:
    """The tangent ``x`` carried in parallel along the geodesic of ``v``: an isometry.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, v, x, square=True)
    L = jnp.linalg.cholesky(p)
    half = jax.scipy.linalg.expm(_whitened(L, v) / 2)
    return _coloured(L, matmul(half, matmul(_whitened(L, x), half)))


def inner(p: Points, u: Points, v: Points) -> Float[Array, "*b"]:
    """The inner product Re tr(p^-1 u p^-1 v), one number a point.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, u, v, square=True)
    L = jnp.linalg.cholesky(p)
    return real_inner(_whitened(L, u), _whitened(L, v))


def norm(p: Points, v: Points) -> Float[Array, "*b"]:
    """The length of ``v``; its derivative at zero is zero.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    return root(inner(p, v, v))


def dist(p: Points, q: Points) -> Float[Array, "*b"]:
    """The norm of the logarithms of the eigenvalues of p^-1 q; its derivative at zero is zero.

    Second derivatives are safe at equal eigenvalues.

    Raises:
        ValueError: shapes that differ, or are not square.
    """
    check_shapes(p, q, square=True)
    square = _of_one(
        lambda A: function_of_eigenvalues(lambda x: jnp.sum(jnp.log1p(x) ** 2), A), "(n,n)->()"
    )
    return distance(square(_whitened(jnp.linalg.cholesky(p), q - p)), p.shape[-1])


def random_point(key: Key, n: int, *, dtype: Any = None) -> Inexact[Array, "n n"]:
    """The exponential at I of a normal tangent: log-eigenvalues of the size of sqrt(n)."""
    eye = jnp.eye(n, dtype=jnp.zeros((), dtype).dtype)
    return exp(eye, random_tangent(key, eye))


def random_tangent(key: Key, p: Points) -> Points:
    """A tangent at p that is normal in its metric."""
    W = hermitian(jax.random.normal(key, p.shape, p.dtype))
    return _coloured(jnp.linalg.cholesky(p), W)


def check(p: Points) -> Float[Array, "*b"]:
    """How far p is off, one number a point: infinite unless positive definite, |p - p^H| else.

    Raises:
        ValueError: not square.
    """
    check_shapes(p, square=True)
    definite = jnp.linalg.eigvalsh(p)[..., 0] > 0
    return jnp.where(definite, largest(p - adjoint(p)), jnp.inf)


def _whitened(L: Array, v: Array) -> Array:
    """L^-1 v L^-H."""
    once = jax.lax.linalg.triangular_solve(L, v, left_side=True, lower=True)
    return hermitian(
        jax.lax.linalg.triangular_solve(
            L, once, left_side=False, lower=True, transpose_a=True, conjugate_a=True
        )
    )


def _coloured(L: Array, W: Array) -> Array:
    """L W L^H."""
    return hermitian(matmul(L, matmul(W, adjoint(L))))


def _of_one(f: Callable[[Array], Array], signature: str) -> Callable[[Array], Array]:
    return jnp.vectorize(f, signature=signature)
