"""What all manifolds of frames share: their inner product, random frames, the distance off them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from subspace_jax.linalg import orthonormalize
from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds._ambient import check_shapes, largest, real_inner
from subspace_jax.typing import Array, Float, Inexact, Key

_BLOCK = 128


def inner(
    p: Inexact[Array, "*b n k"], u: Inexact[Array, "*b n k"], v: Inexact[Array, "*b n k"]
) -> Float[Array, "*b"]:
    """The Euclidean inner product Re tr(u^H v) of two tangents, one number a point.

    Raises:
        ValueError: shapes that differ.
    """
    check_frames(p, u, v)
    return real_inner(u, v)


def norm(p: Inexact[Array, "*b n k"], v: Inexact[Array, "*b n k"]) -> Float[Array, "*b"]:
    """The Frobenius norm of a tangent; its derivative at zero is zero, not NaN.

    Raises:
        ValueError: shapes that differ.
    """
    return root(inner(p, v, v))


def random_point(key: Key, n: int, k: int, *, dtype: Any = None) -> Inexact[Array, "n k"]:
    """A frame (n, k), uniformly distributed; ``vmap`` over keys gives many.

    Args:
        key: PRNG key.
        n: dimension of the space.
        k: number of columns.
        dtype: real or complex; None: the default float.

    Raises:
        ValueError: more columns than rows.
    """
    return orthonormalize(jax.random.normal(key, (n, k), dtype))


def check(p: Inexact[Array, "*b n k"]) -> Float[Array, "*b"]:
    """The largest entry of |p^H p - I|: zero up to rounding for a frame.

    Raises:
        ValueError: not a matrix, or more columns than rows.
    """
    check_frames(p)
    return largest(drift(p))


def gram(A: Array, B: Array) -> Array:
    """A^H B, the sum over the rows taken in blocks.

    Its rounding is where the frames settle: in one sweep it grows with the number of rows.
    """
    n = A.shape[-2]
    whole = n - n % _BLOCK
    if n < 2 * _BLOCK:
        return matmul(A.mT.conj(), B)

    def blocks(X):
        return X[..., :whole, :].reshape(*X.shape[:-2], -1, _BLOCK, X.shape[-1])

    sums = jnp.sum(matmul(blocks(A).mT.conj(), blocks(B)), axis=-3)
    rest = A[..., whole:, :].mT.conj(), B[..., whole:, :]
    return sums + matmul(*rest) if whole < n else sums


def drift(Q: Array, gram: Callable[[Array, Array], Array] = gram) -> Array:
    """I - Q^H Q, given how frames are multiplied."""
    found = gram(Q, Q)
    return jnp.eye(found.shape[-1], dtype=found.dtype) - found


def check_frames(p: Array, *others: Array) -> None:
    """Return if all are matrices (..., n, k) of one shape with k <= n; else raise.

    Raises:
        ValueError: names the shapes.
    """
    if p.ndim < 2 or p.shape[-1] > p.shape[-2]:
        raise ValueError(f"a frame needs shape (..., n, k) with k <= n, got {p.shape}")
    check_shapes(p, *others)
