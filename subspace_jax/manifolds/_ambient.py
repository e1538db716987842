"""What manifolds of matrices share: the Euclidean inner product, Hermitian parts, exponentials."""

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import root
from subspace_jax.typing import Array


def real_inner(u: Array, v: Array) -> Array:
    """Re tr(u^H v), one number a matrix."""
    return jnp.sum((u.conj() * v).real, axis=(-2, -1))


def distance(square: Array, unit: int | float | Array, digits: float = 4.0) -> Array:
    """A distance from its square, flat where it is within a few roundings of ``unit`` of zero."""
    eps = float(jnp.finfo(square.dtype).eps)
    return root(square, jax.lax.stop_gradient((digits * eps * jnp.asarray(unit)) ** 2))


def adjoint(A: Array) -> Array:
    """A^H."""
    return A.conj().mT


def hermitian(A: Array) -> Array:
    """The Hermitian part of A."""
    return (A + adjoint(A)) / 2


def skew(A: Array) -> Array:
    """The skew-Hermitian part of A."""
    return (A - adjoint(A)) / 2


def largest(A: Array) -> Array:
    """The largest entry in modulus, one number a matrix."""
    return jnp.max(jnp.abs(A), axis=(-2, -1))


def mean_exponential(A: Array) -> Array:
    """The entire function (exp(A) - I) / A = I + A / 2 + A^2 / 6 + ... of square matrices.

    By the exponential of [[A, I], [0, 0]], so that it keeps the digits of a small A.

    Reference: Higham (2008), "Functions of matrices", section 10.7.4.
    """
    k = A.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(k, dtype=A.dtype), A.shape)
    zero = jnp.zeros_like(A)
    both = jnp.concatenate(
        [jnp.concatenate([A, eye], axis=-1), jnp.concatenate([zero, zero], axis=-1)], axis=-2
    )
    return jax.scipy.linalg.expm(both)[..., :k, k:]


def check_shapes(p: Array, *others: Array, square: bool = False) -> None:
    """Return if all are matrices (..., n, k) of one shape, square if asked; else raise.

    Raises:
        ValueError: names the shapes.
    """
    if p.ndim < 2 or (square and p.shape[-1] != p.shape[-2]):
        raise ValueError(f"need {'square ' if square else ''}matrices, got shape {p.shape}")
    for other in others:
        if other.shape != p.shape:
            raise ValueError(f"need matrices of one shape, got {p.shape} and {other.shape}")
