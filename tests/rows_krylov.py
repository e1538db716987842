"""Rows of the contract's table: operators, solvers, preconditioners."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from subspace_jax import krylov, linalg
from subspace_jax.krylov import precondition
from subspace_jax.linalg import operators
from tests.rows import FIELD, Row, arrays, normal, params


def positive_grid(rng, dtype):
    return (jnp.exp(normal(rng, (4, 3), dtype)), normal(rng, (4, 3), dtype))


def gram(rng, dtype):
    B = normal(rng, (6, 6), dtype)
    return (B @ B.conj().T + jnp.eye(6, dtype=dtype), normal(rng, (6,), dtype))


def sparse_rows(build, field):
    matrix = build(sp.csr_array(np.tril(np.ones((4, 4)))))

    def product(values, v):
        return dataclasses.replace(matrix, **{field: values})(v)

    return product


def gaussian_kernel(x, y):
    return jnp.exp(-jnp.sum((x - y) ** 2))


def quadratic_of(outputs):
    return jnp.sum(outputs**2) + jnp.sum(outputs) ** 2


def quartic(params):
    return sum(jnp.sum(leaf**4) for leaf in params.values())


TWO = ("float64", "complex64")  # test_krylov.py has all four


def definite(solver, **options):
    """A solver's value for A = B B^H + 1, so that perturbed operands stay definite."""

    def solve(B, b):
        A = B @ B.conj().T + jnp.eye(len(B), dtype=B.dtype)
        rtol = 30 * float(jnp.finfo(b.dtype).eps)
        return solver(A, b, rtol=rtol, **options).value

    return Row(solve, arrays((6, 6), (6,)), TWO)


def block(B, b):
    return krylov.block_cg(
        B @ B.conj().T + jnp.eye(6, dtype=B.dtype), b, rtol=30 * float(jnp.finfo(b.dtype).eps)
    ).value


def least_squares(solver):
    def solve(A, b):
        return solver(A, b, rtol=30 * float(jnp.finfo(b.dtype).eps)).value

    return Row(solve, arrays((8, 4), (8,)), TWO)


def refined(B, b):
    A = B @ B.T + jnp.eye(6, dtype=B.dtype)
    return krylov.refine(lambda A, r: krylov.cg(A, r, rtol=1e-4), A, b).value


def first(solver):
    """The solution of a solver that returns a space as well."""
    return lambda *operands, **options: solver(*operands, **options)[0]


def in_order(features):
    return features[krylov.sort_systems(features)]


def two_systems(B, b):
    def gram_of(B):
        return B @ B.conj().T + jnp.eye(6, dtype=B.dtype)

    solver = partial(
        krylov.gcrodr, restart=6, num_recycled=2, rtol=30 * float(jnp.finfo(b.dtype).eps)
    )
    return krylov.solve_sequence(solver, gram_of, jnp.stack([B, 2 * B]), b)[0]


def chunks(B, b):
    solve = krylov.batched(lambda B, b: krylov.cg(B @ B.T + jnp.eye(6), b, rtol=1e-12).value)
    return solve(jnp.stack([B, 2 * B]).astype(b.dtype), jnp.stack([b, b])).astype(b.dtype)


SOLVER_ROWS = {
    "krylov.cg": definite(krylov.cg),
    "krylov.minres": definite(krylov.minres),
    "krylov.gmres": definite(krylov.gmres, restart=6),
    "krylov.fgmres": definite(krylov.fgmres, restart=6),
    "krylov.gcrodr": definite(first(krylov.gcrodr), restart=6, num_recycled=2),
    "krylov.recycled_cg": definite(first(krylov.recycled_cg), num_recycled=2, num_directions=4),
    "krylov.solve_sequence": Row(two_systems, arrays((6, 6), (6,)), TWO),
    "krylov.sort_systems": Row(in_order, arrays((6, 2)), FIELD),
    "krylov.bicgstab": definite(krylov.bicgstab),
    "krylov.flexible_cg": definite(krylov.flexible_cg, direction=lambda r: r),
    "krylov.single_reduction_cg": definite(krylov.single_reduction_cg),
    "krylov.block_cg": Row(block, arrays((6, 6), (6, 2)), TWO),
    "krylov.lsmr": least_squares(krylov.lsmr),
    "krylov.cgls": least_squares(krylov.cgls),
    "krylov.refine": Row(refined, arrays((6, 6), (6,)), ("float64",)),
    "krylov.batched": Row(chunks, arrays((6, 6), (6,)), ("float64",)),
}

V_CYCLE = SimpleNamespace(
    levels=[
        SimpleNamespace(A=sp.diags_array([4.0] * 4), P=sp.eye_array(4, 2), R=sp.eye_array(2, 4)),
        SimpleNamespace(A=sp.diags_array([4.0] * 2)),
    ]
)
OPERATOR_ROWS = {
    "linalg.nystrom": Row(
        lambda B, v: linalg.nystrom(jax.random.key(0), B @ B.conj().T, 3)[1],
        arrays((6, 6), (6,)),
        FIELD,
    ),
    "operators.adjoint": Row(
        lambda A, u: operators.adjoint(jax.tree_util.Partial(jnp.matmul, A), u)(u), gram, FIELD
    ),
    "operators.as_callable": Row(lambda A, v: operators.as_callable(A)(v), gram, FIELD),
    "operators.as_operator": Row(lambda A, v: operators.as_operator(A)(v), gram, FIELD),
    "operators.convection_diffusion": Row(
        lambda c, v: operators.convection_diffusion(c, (1.0, -2.0))(v), positive_grid
    ),
    "operators.dia": Row(sparse_rows(operators.dia, "diagonals"), arrays((4, 4), (4,)), FIELD),
    "operators.diagonal": Row(
        lambda c, v: operators.diagonal(operators.diffusion(c)), positive_grid
    ),
    "operators.diffusion": Row(lambda c, v: operators.diffusion(c)(v), positive_grid),
    "operators.ell": Row(sparse_rows(operators.ell, "values"), arrays((4, 4), (4,)), FIELD),
    "operators.ggn": Row(
        lambda p, v: operators.ggn(lambda p: p["w"] @ p["b"], quadratic_of, p)(v),
        lambda r, d: (params(r, d), params(r, d)),
    ),
    "operators.hvp": Row(
        lambda p, v: operators.hvp(quartic, p)(v), lambda r, d: (params(r, d), params(r, d))
    ),
    "operators.kernel": Row(
        lambda X, v: operators.kernel(gaussian_kernel, X, shift=0.1, chunk=3)(v),
        arrays((5, 2), (5,)),
    ),
    "operators.laplacian": Row(operators.laplacian, arrays((4, 3)), FIELD),
    "operators.materialize": Row(lambda A, v: operators.materialize(A, v), gram, FIELD),
    "operators.normal": Row(lambda A, v: operators.normal(A, shift=0.5)(v), gram, FIELD),
    "operators.shifted": Row(lambda A, v: operators.shifted(A, 0.5)(v), gram, FIELD),
    "precondition.block_jacobi": Row(
        lambda A, r: precondition.block_jacobi(jnp.stack([A[:3, :3], A[3:, 3:]]))(r), gram, FIELD
    ),
    "precondition.chebyshev": Row(
        lambda A, r: precondition.chebyshev(A, degree=3, lower=1.0, upper=30.0)(r), gram, FIELD
    ),
    "precondition.jacobi": Row(lambda A, r: precondition.jacobi(jnp.diagonal(A))(r), gram, FIELD),
    "precondition.multigrid": Row(
        lambda c, r: precondition.multigrid(operators.diffusion(c), coarsest_size=4)(r),
        positive_grid,
    ),
    "precondition.nystrom": Row(
        lambda B, r: precondition.nystrom(jax.random.key(0), B @ B.conj().T, r, rank=3, shift=0.1)(
            r
        ),
        arrays((6, 6), (6,)),
        FIELD,
    ),
    "precondition.pyamg": Row(
        lambda r: precondition.pyamg(V_CYCLE)(r).astype(r.dtype), arrays((4,))
    ),
    "precondition.spectral_bound": Row(
        lambda A, v: precondition.spectral_bound(jax.random.key(0), A, v, num_steps=4), gram, FIELD
    ),
    "precondition.ssor": Row(
        lambda c, r: precondition.ssor(operators.diffusion(c), omega=1.3)(r), positive_grid
    ),
}
