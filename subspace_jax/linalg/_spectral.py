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


def function_of_eigenvalues(f: Callable[..., Array], *matrices: Array) -> Array:
    """The number f(x, y ...) of the eigenvalues x of one Hermitian (k, k), y of another ...

    All matrices commute, and ``f`` does not depend on the order of the eigenvalues (the same order
    in all). One of them, or C and a constant minus C: the eigenvectors are those of the first minus
    the others. First and second derivatives are finite, and right, at equal eigenvalues: the
    gradient is V diag(df/dx) V^H, without a difference of eigenvalues.

    Reference: Lewis & Sendov (2001), "Twice differentiable spectral functions".
    """
    return _of_eigenvalues(f, matrices)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_eigenvalues(f: Callable, matrices: tuple[Array, ...]) -> Array:
    return f(*_joint_eigen(matrices)[0])


@_of_eigenvalues.defjvp
def _of_eigenvalues_jvp(f, primals, tangents):
    (matrices,), (changes,) = primals, tangents
    slopes = zip(_gradient_of_eigenvalues(f, matrices), changes, strict=True)
    change = sum(jnp.sum((slope.conj() * dA).real) for slope, dA in slopes)
    return _of_eigenvalues(f, matrices), change


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradient_of_eigenvalues(f: Callable, matrices: tuple[Array, ...]) -> tuple[Array, ...]:
    values, _, V = _joint_eigen(matrices)
    slopes = jax.grad(f, tuple(range(len(matrices))))(*values)
    return tuple(matmul(V * slope, V.conj().T) for slope in slopes)


@_gradient_of_eigenvalues.defjvp
def _gradient_of_eigenvalues_jvp(f, primals, tangents):
    (matrices,), (changes,) = primals, tangents
    values, gaps, V = _joint_eigen(matrices)
    gradient = jax.grad(f, tuple(range(len(matrices))))
    moved = tuple(jnp.diagonal(matmul(V.conj().T, matmul(dA, V))).real for dA in changes)
    slopes, diagonal = jax.jvp(gradient, values, moved)
    signs = _signs(matrices)
    curvatures = jax.jacfwd(
        lambda u: gradient(*(x + sign * u for x, sign in zip(values, signs, strict=True)))
    )(jnp.zeros_like(values[0]))
    turn = _signed_mean(changes)
    close = jnp.abs(gaps) <= jnp.finfo(gaps.dtype).eps ** (1 / 3)
    out = []
    for slope, own, curvature in zip(slopes, diagonal, curvatures, strict=True):
        ends = jnp.diagonal(curvature)
        limit = (ends[:, None] + ends[None, :] - curvature - curvature.T) / 2
        quotient = (slope[:, None] - slope[None, :]) / jnp.where(close, 1, gaps)
        weights = jnp.where(close, limit, quotient) * (1 - jnp.eye(len(gaps), dtype=gaps.dtype))
        out.append(in_basis(V, weights, V.conj().T, turn) + matmul(V * own, V.conj().T))
    return _gradient_of_eigenvalues(f, matrices), tuple(out)


def _signs(matrices: tuple[Array, ...]) -> tuple[int, ...]:
    return (1, *(-1 for _ in matrices[1:]))


def _signed_mean(matrices: tuple[Array, ...]) -> Array:
    signed = [sign * A for A, sign in zip(matrices, _signs(matrices), strict=True)]
    return jnp.asarray(sum(signed)) / len(matrices)


def _joint_eigen(matrices: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array, Array]:
    """The eigenvalues of each, the gaps between those of all together, the eigenvectors."""
    values, V = jnp.linalg.eigh(_signed_mean(matrices))
    own = tuple(jnp.diagonal(matmul(V.conj().T, matmul(A, V))).real for A in matrices)
    return own, values[:, None] - values[None, :], V
