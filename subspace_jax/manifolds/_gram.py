"""Moves of a frame as functions of a Gram matrix: no decomposition of anything tall.

A tangent V with Q^H V = 0 and Gram matrix M = V^H V moves the frame Q to

    Q (I + M a) + V b,

where a and b are functions of M, entire ones for the geodesic: smooth at V = 0 and at equal angles,
where the singular vectors of V are not. They obey (I + M a)^2 + M b^2 = I.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array

_MAX_DOUBLINGS = 8
_SLACK = 1.02
"""How far beyond (pi/2)^2 the Gram matrix may be for the series: a clipped step has rounding."""
_NEWTON_SCHULZ_STEPS = 22


def polynomial(coefficients: Sequence[float], powers: Sequence[Array]) -> Array:
    """The sum of c_j M^j, given the powers I, M ... M^q.

    Reference: Paterson & Stockmeyer (1973).
    """
    q = len(powers) - 1
    starts = range(0, max(len(coefficients) - 1, 1), q)
    total = None
    for start in reversed(starts):
        stop = len(coefficients) if total is None else start + q  # the last has one power more
        block = coefficients[start] * powers[0]
        for c, power in zip(coefficients[start + 1 : stop], powers[1:], strict=False):
            block = block + c * power
        total = block if total is None else block + matmul(powers[q], total)
    return jnp.asarray(total)


def powers(M: Array, q: int) -> list[Array]:
    """I, M ... M^q; the identity is not batched."""
    found = [jnp.eye(M.shape[-1], dtype=M.dtype), M]
    while len(found) <= q:
        found.append(matmul(found[-1], M))
    return found


def geodesic(M: Array) -> tuple[Array, Array]:
    """The a and b of the geodesic: (cos sqrt(M) - I) / M and sin sqrt(M) / sqrt(M).

    Series for angles up to pi/2; where there are larger ones, a quarter of M is taken often enough
    and the angle doubled as often, each time at the price of a bit or two.
    """
    size = jax.lax.stop_gradient(jnp.sqrt(jnp.sum(jnp.abs(M) ** 2, axis=(-2, -1))))
    ratio = jnp.maximum(size / (math.pi / 2) ** 2, 1)
    halvings = jnp.where(ratio <= _SLACK, 0, jnp.ceil(jnp.log2(ratio) / 2))
    halvings = jnp.minimum(halvings, _MAX_DOUBLINGS)[..., None, None]
    return jax.lax.cond(jnp.any(halvings > 0), _doubled, lambda M, _: _series(M), M, halvings)


def _series(M: Array) -> tuple[Array, Array]:
    degree = 6 if jnp.finfo(M.dtype).eps > 1e-10 else 10
    found = powers(M, 3)
    a = [(-1) ** (j + 1) / math.factorial(2 * j + 2) for j in range(degree)]
    b = [(-1) ** j / math.factorial(2 * j + 1) for j in range(degree + 1)]
    return polynomial(a, found), polynomial(b, found)


def _doubled(M: Array, halvings: Array) -> tuple[Array, Array]:
    M = M * 0.25**halvings

    def double(step, carry):
        M, a, b = carry
        lost = matmul(M, a)  # cos - I
        doubled = 4 * M, a + matmul(a, lost) / 2, b + matmul(b, lost)
        return tuple(
            jnp.where(step < halvings, new, old) for new, old in zip(doubled, carry, strict=True)
        )

    _, a, b = jax.lax.fori_loop(0, _MAX_DOUBLINGS, double, (M, *_series(M)))
    return a, b


def cayley(M: Array) -> tuple[Array, Array]:
    """The a and b of the Cayley transform, whose angle is 2 arctan(theta / 2)."""
    b = jnp.linalg.inv(jnp.eye(M.shape[-1], dtype=M.dtype) + M / 4)
    return -b / 2, b


def polar(M: Array) -> tuple[Array, Array]:
    """The a and b of the polar factor (Q + V) (I + M)^{-1/2}, whose angle is arctan(theta)."""
    shifted = jnp.eye(M.shape[-1], dtype=M.dtype) + M
    root, inverse_root = square_roots(shifted)
    return -jnp.linalg.inv(root + shifted), inverse_root


def square_roots(A: Array) -> tuple[Array, Array]:
    """The square root and its inverse of a Hermitian positive definite A, of condition below 1e6.

    By products alone, the coupled Newton-Schulz iteration: smooth at equal eigenvalues.

    Reference: Higham (2008), "Functions of Matrices", equation (6.35).
    """
    eye = jnp.eye(A.shape[-1], dtype=A.dtype)
    size = jnp.sqrt(jnp.sum(jnp.abs(A) ** 2, axis=(-2, -1), keepdims=True))

    def step(_, carry):
        Y, Z = carry
        half = (3 * eye - matmul(Z, Y)) / 2
        return matmul(Y, half), matmul(half, Z)

    start = A / size, jnp.broadcast_to(eye, A.shape)
    Y, Z = jax.lax.fori_loop(0, _NEWTON_SCHULZ_STEPS, step, start)
    return Y * jnp.sqrt(size), Z / jnp.sqrt(size)
