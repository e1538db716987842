"""Many frames stored as rows, in blocks: what a CPU multiplies fastest.

A frame A (..., n, k) is stored as (..., b, k, m): b blocks of m of its rows, each transposed, zeros
after the last. Sums over n run along contiguous entries, and are short.
"""

import jax
import jax.numpy as jnp

from subspace_jax.linalg._angle import root
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array

_MAX_WIDTH = 512
_MAX_COLUMNS = 24
_PRECISION = jax.lax.Precision.HIGHEST


def is_faster(A: Array) -> bool:
    """Whether products of such frames are: there are kernels for float32, and thin ones gain."""
    return A.dtype == jnp.float32 and A.shape[-1] <= _MAX_COLUMNS


def stored(A: Array) -> Array:
    """(..., n, k) -> (..., b, k, m)."""
    n, k = A.shape[-2:]
    blocks = -(-n // _MAX_WIDTH)
    width = -(-n // blocks)
    padding = [(0, 0)] * (A.ndim - 2) + [(0, blocks * width - n), (0, 0)]
    rows = jnp.pad(A, padding).reshape(*A.shape[:-2], blocks, width, k).mT
    return jax.lax.optimization_barrier(rows)  # or every product would undo it


def restored(X: Array, n: int) -> Array:
    """(..., b, k, m) -> (..., n, k), the inverse of `stored`."""
    *lead, blocks, k, width = X.shape
    return X.mT.reshape(*lead, blocks * width, k)[..., :n, :]


def gram(A: Array, B: Array) -> Array:
    """A^H B, (..., k, k)."""
    products = jnp.einsum("...im,...jm->...ij", A.conj(), B, precision=_PRECISION)
    return jnp.sum(products, axis=-3)


def times(A: Array, M: Array) -> Array:
    """A M, stored as A is, for M (..., k, k)."""
    turned = jax.lax.optimization_barrier(M.mT)[..., None, :, :]
    return matmul(jnp.broadcast_to(turned, (*A.shape[:-1], M.shape[-1])), A)


def norm(X: Array) -> Array:
    """The Frobenius norm of each."""
    return root(jnp.sum(jnp.abs(X) ** 2, axis=(-3, -2, -1)))
