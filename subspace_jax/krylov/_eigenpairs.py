"""Derivatives of eigenpairs, from the pairs alone: no step that found them is differentiated."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.krylov._basis import Flat, coefficients
from subspace_jax.krylov._minres import minres
from subspace_jax.linalg._matmul import matmul
from subspace_jax.linalg._spectral import inverse_gaps
from subspace_jax.typing import Array, PyTree


class Ritz(NamedTuple):
    """Approximate eigenpairs of a Hermitian operator."""

    values: Array
    """(k,), real."""
    vectors: PyTree
    """Orthonormal, k columns on the last axis of every leaf; (n, k) for arrays."""
    residual_norms: Array
    """(k,), ||A v - theta v||, computed anew: some eigenvalue of A is as near to theta."""


def true_errors(A: Flat, values: Array, rows: Array) -> Array:
    """The norms ||A v - theta v|| of all pairs, with a product for each."""
    R = jax.vmap(A)(rows) - values[:, None] * rows
    return jnp.linalg.norm(R, axis=1)


def differentiable(A: Flat, values: Array, rows: Array) -> tuple[Array, Array]:
    """The pairs (k,), (k, n) of a Hermitian A themselves, with derivatives by A's constants.

    d theta_i = <v_i, dA v_i>. d v_i is orthogonal to v_i; the part of it among the given vectors
    has the quotients <v_j, dA v_i> / (theta_i - theta_j), left out where the gap is rounding; the
    rest solves (A - theta_i) d v_i = -dA v_i in their complement, by MINRES.
    """
    values, rows = jax.lax.stop_gradient((values, rows))
    return _pairs(A.product, A.constants, values, rows)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _pairs(product: Callable, constants: tuple, values: Array, rows: Array) -> tuple[Array, Array]:
    del product, constants
    return values, rows


@_pairs.defjvp
def _pairs_jvp(product, primals, tangents):
    constants, values, rows = primals
    values, rows = _pairs(product, constants, values, rows)

    def change(v):  # dA v
        return jax.jvp(lambda c: product(c, v), (constants,), (tangents[0],))[1]

    changes = jax.vmap(change)(rows)
    coupling = matmul(changes, rows.conj().T)  # [i, j] = <v_j, dA v_i>
    inside = matmul(coupling * inverse_gaps(values), rows)

    def project(x):
        return x - matmul(coefficients(rows, x), rows)

    def outside(value, change):
        def shifted(x):
            return project(product(constants, x) - value * x)

        rtol = 30 * float(jnp.finfo(values.dtype).eps)
        return project(minres(shifted, project(-change), rtol=rtol).value)

    moved = inside + jax.vmap(outside)(values, changes)
    return (values, rows), (jnp.diagonal(coupling).real, moved)
