"""Linear systems with a known answer, and a loop of descent, for the tests of the solvers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import krylov

DEFINITE = ("cg", "block_cg", "flexible_cg", "recycled_cg", "single_reduction_cg")
GENERAL = ("gmres", "fgmres", "bicgstab", "gcrodr")
RECYCLING = ("gcrodr", "recycled_cg")
LEAST_SQUARES = ("lsmr", "cgls")
SQUARE = (*DEFINITE, "minres", *GENERAL)
ALL = (*SQUARE, *LEAST_SQUARES)
QUICK = ("cg", "minres", "gmres", "bicgstab", "lsmr")


def each(names):
    """A parameter for each solver; those that share their loop with a quick one are slow."""
    return [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in names]


class Problem(NamedTuple):
    A: jax.Array
    b: jax.Array
    x: np.ndarray
    """The answer of a dense solve in float64."""


def normal(rng, shape, dtype):
    imaginary = 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else 0
    return rng.normal(size=shape) + imaginary


def unitary(rng, n, dtype):
    return np.linalg.qr(normal(rng, (n, n), dtype))[0]


def matrix(name, n=40, dtype="float64", condition=100.0, seed=0):
    """A matrix of the kind that the solver of this name is for, in numpy's double precision."""
    rng = np.random.default_rng(seed)
    values = np.geomspace(1, condition, n)
    if name == "minres":
        values = values * np.where(rng.random(n) < 0.4, -1, 1)
    if name in GENERAL:
        noise = normal(rng, (n, n), dtype)
        return 2 * np.eye(n) + noise / np.sqrt(2 * n if np.iscomplexobj(noise) else n)
    if name in LEAST_SQUARES:
        tall = normal(rng, (n + n // 2, n), dtype)
        return tall
    U = unitary(rng, n, dtype)
    return (U * values) @ U.conj().T


def problem(name, n=40, dtype="float64", condition=100.0, seed=0):
    A = matrix(name, n, dtype, condition, seed)
    shape = (len(A), 3) if name == "block_cg" else (len(A),)
    b = normal(np.random.default_rng(seed + 1), shape, dtype)
    A, b = A.astype(dtype), b.astype(dtype)
    x = np.linalg.lstsq(A.astype(complex), b.astype(complex))[0]
    return Problem(jnp.asarray(A), jnp.asarray(b), x if np.iscomplexobj(A) else x.real)


def of_condition(name, condition, n=100, seed=0, dtype="float32"):
    """A system of eigenvalues from 1 to ``condition`` in size; not normal for general solvers."""
    rng = np.random.default_rng(seed)
    values = np.geomspace(1, condition, n)
    if name == "minres":
        values = values * np.where(rng.random(n) < 0.4, -1, 1)
    U = unitary(rng, n, "float64")
    T = np.diag(values) + (name in GENERAL) * 0.5 * np.triu(rng.normal(size=(n, n)), 1) / n
    b = rng.normal(size=(n, 3) if name == "block_cg" else n)
    return (U @ T @ U.T).astype(dtype), b.astype(dtype)


def call(name, A, b, x0=None, **options):
    """The solver of this name; the flexible one along residuals."""
    if name == "flexible_cg":
        options = {"direction": options.pop("preconditioner", lambda r: r), **options}
    solution = getattr(krylov, name)(A, b, x0, **options)
    return solution[0] if name in RECYCLING else solution


def relative_residual(A, b, x):
    """In double precision, of the largest column."""
    A, b, x = (np.asarray(a, complex) for a in (A, b, x))
    return np.max(np.linalg.norm(b - A @ x, axis=0) / np.linalg.norm(b, axis=0))


def status(solution):
    return krylov.Status(int(solution.info.status))


def num_cg_steps(A, b, M=lambda r: r, rtol=1e-8, maxiter=2000, compiler_options=None):
    """Textbook preconditioned CG, here the measure."""
    A, M = (jax.jit(f, compiler_options=compiler_options) for f in (A, M))
    r = p = z = np.zeros_like(b)
    r, g = np.asarray(b), 1.0
    for k in range(maxiter):
        if np.linalg.norm(r) <= rtol * np.linalg.norm(b):
            return k
        z = np.asarray(M(r))
        g, old = np.vdot(r, z).real, g
        p = z + (g / old if k else 0) * p
        q = np.asarray(A(p))
        r = r - g / np.vdot(p, q).real * q
    return maxiter


def descend(optimizer, loss, params, steps):
    """The parameters after ``steps``, in one compiled scan."""

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]

    return run(params)
