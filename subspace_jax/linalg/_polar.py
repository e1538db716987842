"""The unitary polar factor of small square matrices, with derivatives at equal singular values."""

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array


@jax.custom_jvp
def polar_factor(A: Array) -> Array:
    """The unitary W of A = W H, H positive semidefinite; A is (..., k, k).

    It is smooth wherever A is invertible, and so are all its derivatives here: they divide by sums
    of singular values, never by differences. Of a singular A it is one of the factors, and the
    derivative leaves out the pairs of zeros.

    Reference: Kenney & Laub (1991), for the derivative.
    """
    U, _, Vh = jnp.linalg.svd(A)
    return matmul(U, Vh)


@polar_factor.defjvp
def _polar_factor_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    W = polar_factor(A)
    H = matmul(W.mT.conj(), A)
    turned = matmul(W.mT.conj(), dA)
    return W, matmul(W, lyapunov((H + H.mT.conj()) / 2, turned - turned.mT.conj()))


def lyapunov(H: Array, C: Array) -> Array:
    """The X of H X + X H = C for a positive semidefinite H; zero where eigenvalues sum to zero.

    Its derivatives, of any order, are solutions of such equations: the eigenvectors, which have
    none at equal eigenvalues, are never differentiated.
    """
    values, V = jnp.linalg.eigh(jax.lax.stop_gradient(H))
    sums = values[..., :, None] + values[..., None, :]
    largest = jnp.max(values, axis=-1, initial=0)[..., None, None]
    zero = sums <= jnp.finfo(values.dtype).eps * largest
    inverse = jnp.where(zero, 0, 1 / jnp.where(zero, 1, sums))

    def solve(V, C):
        return matmul(V, matmul(inverse * matmul(V.mT.conj(), matmul(C, V)), V.mT.conj()))

    return jax.lax.custom_linear_solve(
        lambda X: matmul(H, X) + matmul(X, H),
        C,
        lambda _, C: solve(V, C),
        lambda _, C: solve(V.conj(), C),  # of the transpose, H^T
    )
