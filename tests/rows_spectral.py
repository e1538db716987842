"""Rows of the contract's table: factorizations, eigensolvers, functions of operators."""

import jax
import jax.numpy as jnp

from subspace_jax import krylov, linalg
from tests.rows import FIELD, Row, arrays

TWO = ("float64", "complex64")
KEY = jax.random.key(0)


def hermitian(B):
    """With eigenvalues apart, also for perturbed B, so that those at the ends are simple."""
    return B + B.conj().T + jnp.diag(jnp.arange(len(B), dtype=B.dtype) * 6)


def definite(B):
    return B @ B.conj().T + jnp.eye(len(B), dtype=B.dtype)


def on_hermitian(solver):
    def solve(B, v):
        ritz = solver(hermitian(B), v)[0]
        return ritz.values, ritz.vectors @ ritz.vectors.conj().T

    return solve


def on_definite(function):
    return lambda B, v: function(definite(B), v)


SQUARE = arrays((6, 6), (6,))
BLOCK = arrays((6, 6), (6, 3))
SIZES = {"num_probes": 3, "num_steps": 4}
SPECTRAL_ROWS = {
    "krylov.lanczos": Row(lambda B, v: krylov.lanczos(hermitian(B), v, 4)[:3], SQUARE, FIELD),
    "krylov.arnoldi": Row(lambda A, v: krylov.arnoldi(A, v, 4)[:3], SQUARE, FIELD),
    "krylov.golub_kahan": Row(
        lambda A, v: krylov.golub_kahan(A, A.conj().T, v, 3)[:4], arrays((7, 5), (5,)), FIELD
    ),
    "krylov.eigsh": Row(
        on_hermitian(lambda A, v: krylov.eigsh(A, jnp.ones_like(v), k=2)), SQUARE, TWO
    ),
    "krylov.svds": Row(
        lambda A, v: krylov.svds(A, A.conj().T, jnp.ones_like(v), k=2)[0].values,
        arrays((7, 5), (5,)),
        TWO,
    ),
    "krylov.lobpcg": Row(
        on_hermitian(lambda A, X: krylov.lobpcg(A, jax.lax.stop_gradient(X))), BLOCK, TWO
    ),
    "krylov.subspace_iteration": Row(
        on_hermitian(lambda A, X: krylov.subspace_iteration(A, jax.lax.stop_gradient(X), k=2)),
        BLOCK,
        TWO,
    ),
    "krylov.funm_hermitian": Row(
        on_definite(lambda A, b: krylov.funm_hermitian(jnp.log, A, b, num_steps=4)), SQUARE, FIELD
    ),
    "krylov.funm": Row(
        lambda A, b: krylov.funm(lambda x: jnp.exp(x / 4), A, b, num_steps=4), SQUARE, FIELD
    ),
    "krylov.trace_funm": Row(
        on_definite(lambda A, b: krylov.trace_funm(KEY, jnp.sqrt, A, b, **SIZES)), SQUARE, FIELD
    ),
    "krylov.logdet": Row(
        on_definite(lambda A, b: krylov.logdet(KEY, A, b, **SIZES)), SQUARE, FIELD
    ),
    "krylov.spectral_density": Row(
        lambda B, b: krylov.spectral_density(KEY, hermitian(B), b, num_points=9, **SIZES),
        SQUARE,
        FIELD,
        grad=False,
    ),
    "linalg.spectral_projector": Row(
        lambda B: linalg.spectral_projector(hermitian(B), 2), arrays((6, 6)), FIELD
    ),
}
