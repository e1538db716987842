"""Bad input raises at trace time and names what does not fit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from subspace_jax import krylov
from tests.problems import ALL, LEAST_SQUARES, SQUARE, call, problem

A = jnp.eye(3)
b = jnp.ones(3)

WRONG = {
    "A must be a square matrix, got shape (3, 2)": lambda f: f(jnp.ones((3, 2)), b),
    "A has shape (3, 3), the right-hand side (4,)": lambda f: f(A, jnp.ones(4)),
    "the result of A has shape (2,), its operand has shape (3,)": lambda f: f(lambda v: v[:2], b),
    "the result of A has dtype complex64, its operand has dtype float32": lambda f: f(1j * A, b),
    "the result of A and its operand differ in structure": lambda f: f(lambda v: (v, v), b),
    "b must be all real or all complex floating point, got int32": lambda f: f(A, jnp.arange(3)),
    "A must be floating point, got int32": lambda f: f(jnp.eye(3, dtype=int), b),
    "A: a linear map must be callable or have @, got float": lambda f: f(2.0, b),
    "rtol must not be negative, got -1.0": lambda f: f(A, b, rtol=-1.0),
    "atol must not be negative, got -0.5": lambda f: f(A, b, atol=-0.5),
    "adjoint_rtol must not be negative, got -1": lambda f: f(A, b, adjoint_rtol=-1),
    "maxiter must be an integer of at least 0, got -1": lambda f: f(A, b, maxiter=-1),
    "maxiter must be an integer of at least 0, got 2.5": lambda f: f(A, b, maxiter=2.5),
    "check_every must be an integer of at least 1, got 0": lambda f: f(A, b, check_every=0),
    "rtol=None means exactly maxiter steps: name maxiter": lambda f: f(A, b, rtol=None),
    "x0 has shape (2,), b has shape (3,)": lambda f: f(A, b, jnp.ones(2)),
    "x0 has dtype complex64, b has dtype float32": lambda f: f(A, b, 1j * b),
    "the result of preconditioner has shape (2,), its operand has shape (3,)": lambda f: f(
        A, b, preconditioner=lambda r: r[:2]
    ),
    "preconditioner: a linear map must be callable or have @, got str": lambda f: f(
        A, b, preconditioner="jacobi"
    ),
    "b must be all real or all complex floating point, got complex64, float32": lambda f: f(
        lambda v: v, {"a": 1j * b, "b": b}
    ),
    "b must be all real or all complex floating point, got no leaves": lambda f: f(lambda v: v, ()),
    "A is a matrix: the right-hand side must be one array, got a pytree of 3 leaves, list": (
        lambda f: f(A, [1.0, 2.0, 3.0])
    ),
    "csr_array multiplies on the host only: convert it": lambda f: f(sparse.csr_array(A), b),
    "maxiter must be an integer of at least 0, got inf": lambda f: f(A, b, maxiter=np.inf),
    "maxiter must be a number known at trace time": lambda f: jax.vmap(
        lambda m: f(A, b, maxiter=m)
    )(jnp.arange(3)),
    "rtol must be a real number, got 'tight'": lambda f: f(A, b, rtol="tight"),
    "atol must be a real number, got 1j": lambda f: f(A, b, atol=1j),
    "rtol must be a real number, got array([0., 0.])": lambda f: f(A, b, rtol=np.zeros(2)),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG)
@pytest.mark.parametrize(
    "name", ["cg", "minres", "gmres", "fgmres", "bicgstab", "single_reduction_cg"]
)
def test_mistakes_are_named_at_trace_time(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(lambda: WRONG[message](getattr(krylov, name)))


WRONG_LEAST_SQUARES = {
    "A has shape (4, 2), the right-hand side (3,)": lambda f: f(jnp.ones((4, 2)), b),
    "a callable A needs its adjoint AT=, or x0 to name its domain": lambda f: f(lambda v: v, b),
    "damp must not be negative, got -1.0": lambda f: f(A, b, damp=-1.0),
    "damp must be a real number, got 1j": lambda f: f(A, b, damp=1j),
    "damp must be a number known at trace time": lambda f: jax.vmap(
        lambda damp: f(A, b, damp=damp)
    )(jnp.ones(3)),
    "A is a matrix: the right-hand side must be one array": lambda f: f(A, [1.0, 2.0, 3.0]),
    "csr_array multiplies on the host only: convert it": lambda f: f(sparse.csr_array(A), b),
    "x0 has shape (2,), A's domain has shape (3,)": lambda f: f(A, b, jnp.ones(2)),
    "A's result has shape (2,), b has shape (3,)": lambda f: f(lambda v: v[:2], b, b),
    "AT's result has shape (2,), A's domain has shape (3,)": lambda f: f(A, b, AT=lambda v: v[:2]),
    "b must be all real or all complex floating point, got int32": lambda f: f(A, jnp.arange(3)),
    "rtol must not be negative, got -1.0": lambda f: f(A, b, rtol=-1.0),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG_LEAST_SQUARES)
@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_mistakes_in_least_squares_are_named(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(lambda: WRONG_LEAST_SQUARES[message](getattr(krylov, name)))


OWN = {
    "restart must be an integer of at least 1, got 0": lambda: krylov.gmres(A, b, restart=0),
    "num_conjugate must be an integer of at least 0, got -1": lambda: krylov.flexible_cg(
        A, b, direction=lambda r: r, num_conjugate=-1
    ),
    "the result of direction has shape (2,)": lambda: krylov.flexible_cg(
        A, b, direction=lambda r: r[:2]
    ),
    "B needs one number of columns on every last axis": lambda: krylov.block_cg(
        lambda v: v, {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 4))}
    ),
    "A must be a square matrix, got shape (5, 4)": lambda: krylov.block_cg(
        jnp.ones((5, 4)), jnp.ones((5, 2))
    ),
    "B needs at least one column": lambda: krylov.block_cg(A, jnp.ones((3, 0))),
    "preconditioner has shape (2, 2), the right-hand side (3,)": lambda: krylov.block_cg(
        A, jnp.ones((3, 2)), preconditioner=jnp.eye(2)
    ),
    "direction must be a function of a residual, got None": lambda: krylov.flexible_cg(
        A, b, direction=None
    ),
    "solve must be a solver (A, r) -> Solution, got 3": lambda: krylov.refine(3, A, b),
    "refine needs b in float64 or complex128": lambda: krylov.refine(krylov.cg, A, b),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", OWN)
def test_mistakes_of_single_solvers(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        OWN[message]()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_numpy_arrays_are_taken(name):
    p = problem(name, n=5, dtype="float32", condition=3)
    found = call(name, np.asarray(p.A), np.asarray(p.b), rtol=1e-4).value
    np.testing.assert_allclose(found, p.x, atol=1e-2)


@pytest.mark.slow
def test_every_square_solver_takes_the_same_keywords():
    shared = {"preconditioner": None, "rtol": 1e-3, "atol": 0.0, "maxiter": 9, "history": False}
    more = {"check_every": 1, "AT": None, "adjoint_rtol": None, "inner_product": None}
    for name in SQUARE:
        p = problem(name, n=4, dtype="float32", condition=3)
        options = shared | more
        if name == "flexible_cg":
            options.pop("preconditioner")
        call(name, p.A, p.b, None, **options)
