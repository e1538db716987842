"""Functions of matrices by their eigenvalues, with derivatives that survive equal ones."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Inexact


def spectral_projector(A: Inexact[Array, "n n"], k: int) -> Inexact[Array, "n n"]:
    """The orthogonal projector onto the ``k`` leading eigenvectors of a Hermitian matrix.

    A smooth function of A as long as there is a gap after the k-th eigenvalue, whatever ties there
    are on either side of it, where the derivatives of `jnp.linalg.eigh` are NaN. At a tie across
    the cut, where the projector jumps, the derivative leaves the tied pairs out.

    Args:
        A: Hermitian; its Hermitian part is used.
        k: number of eigenvectors, of the algebraically largest eigenvalues, 0 <= k <= n.

    Raises:
        ValueError: A is not a square matrix, or k is out of bounds.

    Reference: Kato (1966), section II.2.1.
    """
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be a square matrix, got shape {A.shape}")
    if k != int(k) or not 0 <= k <= len(A):
        raise ValueError(f"k must be an integer in 0..{len(A)}, got {k}")
    return _projector(int(k), (A + A.conj().T) / 2)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _projector(k: int, A: Array) -> Array:
    leading = jnp.linalg.eigh(A)[1][:, len(A) - k :]
    return matmul(leading, leading.conj().T)


@_projector.defjvp
def _projector_jvp(k, primals, tangents):
    (A,), (dA,) = primals, tangents
    values, V = jnp.linalg.eigh(A)
    leading = jnp.arange(len(A)) >= len(A) - k
    across = leading[:, None] != leading[None, :]
    differences = jnp.where(leading[:, None], 1, -1) * inverse_gaps(values)
    P = matmul(V * leading, V.conj().T)
    return P, in_basis(V, jnp.where(across, differences, 0), V.conj().T, dA)


def inverse_gaps(values: Array) -> Array:
    """The matrix 1 / (values_i - values_j), zero where they differ by less than sqrt(eps)."""
    gaps = values[:, None] - values[None, :]
    eps = jnp.finfo(values.dtype).eps
    apart = jnp.abs(gaps) > jnp.sqrt(eps) * jnp.max(jnp.abs(values), initial=0)
    return jnp.where(apart, 1 / jnp.where(apart, gaps, 1), 0)


def in_basis(V: Array, weights: Array, inverse: Array, dA: Array) -> Array:
    """V (weights * (V^{-1} dA V)) V^{-1}: the derivative of a function of V diag V^{-1}."""
    return matmul(V, matmul(weights * matmul(inverse, matmul(dA, V)), inverse))


def hermitian_function(f: Callable[[Array], Array], A: Array) -> Array:
    """The matrix V f(values) V^H of a Hermitian A (n, n); ``f`` maps arrays entry by entry.

    Reference: Daleckii & Krein (1951), for the derivative.
    """
    converted, constants = jax.closure_convert(f, jnp.zeros(len(A), A.real.dtype))
    return _function(_hermitian_eigen, converted, A, tuple(constants))


def general_function(f: Callable[[Array], Array], A: Array) -> Array:
    """The matrix V f(values) V^{-1} of a diagonalisable A (n, n), complex.

    Digits are lost in the measure of the condition of V; a defective A is out of reach.
    """
    A = A.astype(jnp.result_type(A, jnp.complex64))
    converted, constants = jax.closure_convert(f, jnp.zeros(len(A), A.dtype))
    return _function(_general_eigen, converted, A, tuple(constants))


def _hermitian_eigen(A: Array) -> tuple[Array, Array, Array]:
    values, V = jnp.linalg.eigh(A)
    return values, V, V.conj().T


def _general_eigen(A: Array) -> tuple[Array, Array, Array]:
    values, V = jnp.linalg.eig(A)
    return values, V, jnp.linalg.inv(V)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _function(eigen: Callable, f: Callable, A: Array, constants: tuple) -> Array:
    values, V, inverse = eigen(A)
    return matmul(V * f(values, *constants), inverse)


@_function.defjvp
def _function_jvp(eigen, f, primals, tangents):
    (A, constants), (dA, dconstants) = primals, tangents
    values, V, inverse = eigen(A)
    images, moved = jax.jvp(lambda c: f(values, *c), (constants,), (dconstants,))
    change = in_basis(V, _divided_differences(lambda x: f(x, *constants), values), inverse, dA)
    return matmul(V * images, inverse), change + matmul(V * moved, inverse)


def _divided_differences(f: Callable[[Array], Array], values: Array) -> Array:
    """(f(a) - f(b)) / (a - b) for all pairs, f' in the middle of those that are too close."""
    a, b = (x.reshape(-1) for x in jnp.meshgrid(values, values, indexing="ij"))
    scale = jnp.max(jnp.abs(values), initial=0)
    close = jnp.abs(a - b) <= jnp.finfo(values.dtype).eps ** (1 / 3) * scale
    middle = (a + b) / 2
    slopes = jax.jvp(f, (middle,), (jnp.ones_like(middle),))[1]
    quotients = (f(a) - f(b)) / jnp.where(close, 1, a - b)
    return jnp.where(close, slopes, quotients).reshape(len(values), -1)
