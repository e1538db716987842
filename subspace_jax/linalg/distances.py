"""How far apart two subspaces of one dimension are: functions of their principal angles.

Bases (..., n, k) have orthonormal columns; leading axes are a batch. All distances are computed
from the sines and the cosines, so that an angle of 1e-7 keeps its digits, and no singular value is
differentiated: with N = S - Q Q^H S and M = Q^H S they are symmetric functions of the eigenvalues
of N^H N and M^H M. First and second derivatives are finite everywhere and right wherever they
exist, repeated angles included. A distance has none where it is zero, up to rounding: zero is
returned there. So is it in the direction of an angle of exactly pi/2, where distances have a kink.

Reference: Ye & Lim (2016), "Schubert varieties and distances between subspaces of different
dimensions", table 2.
"""

from collections.abc import Callable

import jax.numpy as jnp

from subspace_jax.linalg._angle import root, squared_angle
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._spectral import function_of_eigenvalues
from subspace_jax.linalg.basis import check_same, project_out
from subspace_jax.typing import Array, Float, Inexact

Bases = Inexact[Array, "*batch n k"]
Distances = Float[Array, "*batch"]


def geodesic_distance(Q: Bases, S: Bases) -> Distances:
    """The length of the shortest path on the Grassmannian: the norm of the principal angles.

    Raises:
        ValueError: shapes that differ.
    """
    return _root(Q, squared_geodesic_distance(Q, S))


def squared_geodesic_distance(Q: Bases, S: Bases) -> Distances:
    """The sum of the squared principal angles: smooth at equal subspaces too.

    Raises:
        ValueError: shapes that differ.
    """
    return _of_angles(_sum_of_squares, Q, S)


def chordal_distance(Q: Bases, S: Bases) -> Distances:
    """The norm of the sines of the principal angles, = |Q Q^H - S S^H|_F / sqrt(2).

    Matmuls only.

    Raises:
        ValueError: shapes that differ.
    """
    check_same(Q, S)
    return _root(Q, jnp.sum(jnp.abs(project_out(Q, S)) ** 2, axis=(-2, -1)))


def projection_distance(Q: Bases, S: Bases) -> Distances:
    """The sine of the largest principal angle, = |Q Q^H - S S^H|_2.

    Where that angle is repeated, the derivative is the mean of those of its copies.

    Raises:
        ValueError: shapes that differ.
    """
    check_same(Q, S)

    def largest(sines):
        return function_of_eigenvalues(jnp.max, matmul(sines.conj().T, sines))

    return _root(Q, jnp.vectorize(largest, signature="(n,k)->()")(project_out(Q, S)))


def procrustes_distance(Q: Bases, S: Bases) -> Distances:
    """The distance of the nearest two bases, min |Q - S R|_F: 2 |sin(theta / 2)|.

    Raises:
        ValueError: shapes that differ.
    """
    return _root(Q, _of_angles(_procrustes, Q, S))


def binet_cauchy_distance(Q: Bases, S: Bases) -> Distances:
    """The distance sqrt(1 - |det(Q^H S)|^2): the sine of the angle between volumes.

    Raises:
        ValueError: shapes that differ.
    """
    return _root(Q, _of_angles(_sine_of_volumes, Q, S))


def fubini_study_distance(Q: Bases, S: Bases) -> Distances:
    """The angle arccos |det(Q^H S)| between volumes; pi/2 where one principal angle is.

    Raises:
        ValueError: shapes that differ.
    """
    return _root(Q, _of_angles(_angle_of_volumes, Q, S))


def martin_distance(Q: Bases, S: Bases) -> Distances:
    """The distance sqrt(-log |det(Q^H S)|^2); infinite where a principal angle is pi/2.

    Raises:
        ValueError: shapes that differ.

    Reference: Martin (2000), "A metric for ARMA processes"; De Cock & De Moor (2002).
    """
    return _root(Q, _of_angles(_martin, Q, S))


def _root(Q: Array, square: Array) -> Array:
    """A distance from its square, with the derivative zero where it is the rounding of zero."""
    return root(square, Q.shape[-1] * float(jnp.finfo(Q.dtype).eps) ** 2)


def _of_angles(f: Callable[[Array, Array], Array], Q: Array, S: Array) -> Array:
    """The number f(sin^2, cos^2) of the principal angles."""
    check_same(Q, S)

    def single(sines, cosines):
        grams = (matmul(A.conj().T, A) for A in (sines, cosines))
        return function_of_eigenvalues(f, *grams)

    batched = jnp.vectorize(single, signature="(n,k),(k,k)->()")
    return batched(project_out(Q, S), matmul(Q.conj().mT, S))


def _cosine(y: Array) -> Array:
    """A cosine from its square, flat where it is the rounding of zero."""
    return root(y, float(jnp.finfo(y.dtype).eps) ** 2)


def _sum_of_squares(x: Array, y: Array) -> Array:
    return jnp.sum(squared_angle(x, _cosine(y)))


def _procrustes(x: Array, y: Array) -> Array:
    return 2 * jnp.sum(x / (1 + _cosine(y)))


def _sine_of_volumes(x: Array, y: Array) -> Array:
    near = jnp.max(x) < 1 / 2
    exact_near_zero = -jnp.expm1(jnp.sum(jnp.log1p(jnp.where(near, -x, 0))))
    return jnp.where(near, exact_near_zero, 1 - jnp.prod(y))


def _angle_of_volumes(x: Array, y: Array) -> Array:
    return squared_angle(_sine_of_volumes(x, y), _cosine(jnp.prod(y)))


def _martin(x: Array, y: Array) -> Array:
    near, right = x < 1 / 2, y <= 0
    small = jnp.log1p(jnp.where(near, -x, 0))
    large = jnp.log(jnp.where(near | right, 1, y))
    return -jnp.sum(jnp.where(right, -jnp.inf, small + large))
