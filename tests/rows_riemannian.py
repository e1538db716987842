"""Rows of the contract's table: manifolds of frames and the optimizers on them."""

import jax
import jax.numpy as jnp

from subspace_jax import optim
from subspace_jax.manifolds import grassmann, head, stiefel
from tests.rows import Row, arrays, bases, keys, normal

KEY = jax.random.key(0)
FIELD = ("float32", "complex64")  # float64: the derivatives, and test_grassmann


def frame_and(*shapes):
    """A frame (6, 2), and arrays."""
    return lambda rng, dtype: (*bases(2)(rng, dtype), *(normal(rng, s, dtype) / 4 for s in shapes))


def horizontal(function):
    """The function with its ambient operands made tangent."""

    def on_tangents(Q, *others):
        return function(Q, *(grassmann.project_tangent(Q, G) for G in others))

    return on_tangents


def update_of(optimizer):
    return lambda Q, G: optimizer.update(G, optimizer.init(Q), Q)[0]


def minimizing(minimizer):
    """The subspace after a few steps, of a Rayleigh quotient."""

    def solve(B, Q):
        A = B + B.conj().T

        def rayleigh(Q):
            return -jnp.sum((Q.conj() * (A @ Q)).real)

        Q, info = minimizer(rayleigh, Q, manifold=grassmann, maxiter=4)
        return Q @ Q.conj().T, info.value, info.gradient_norm

    operands = arrays((6, 6))
    return Row(solve, lambda r, d: (*operands(r, d), *bases(2)(r, d)), ("float64",), grad=False)


ONE, TWO = frame_and((6, 2)), frame_and((6, 2), (6, 2))
FRAME_ROWS = {
    "project_tangent": Row(grassmann.project_tangent, ONE, FIELD),
    "update": Row(horizontal(grassmann.update), ONE, FIELD),
    "retract": Row(horizontal(grassmann.retract), ONE, ("complex64",)),
    "exp": Row(horizontal(grassmann.exp), ONE, ("complex64",)),
    "transport": Row(horizontal(grassmann.transport), TWO, FIELD),
    "inner": Row(grassmann.inner, TWO, FIELD),
    "norm": Row(grassmann.norm, ONE, FIELD),
    "log": Row(grassmann.log, bases(2, 2), FIELD),
    "dist": Row(grassmann.dist, bases(2, 2), FIELD),
    "random_point": Row(lambda key: grassmann.random_point(key, 5, 2), keys, ("float32",), False),
    "random_tangent": Row(lambda Q: grassmann.random_tangent(KEY, Q), bases(2), FIELD),
    "check": Row(grassmann.check, arrays((6, 2)), FIELD, grad=False),
    "with_retraction": Row(
        horizontal(grassmann.with_retraction("cholesky_qr").transport), TWO, FIELD
    ),
}
ONCE = ("complex64",)
STIEFEL_ROWS = {
    "project_tangent": Row(stiefel.project_tangent, ONE, FIELD),
    "update": Row(stiefel.update, ONE, FIELD),
    "retract": Row(stiefel.retract, ONE, ONCE),
    "exp": Row(stiefel.exp, ONE, FIELD),
    "transport": Row(stiefel.transport, TWO, ONCE),
    "inner": Row(stiefel.inner, TWO, ONCE),
    "norm": Row(stiefel.norm, ONE, ONCE),
    "dist": Row(stiefel.dist, bases(2, 2), FIELD),
    "random_point": Row(lambda key: stiefel.random_point(key, 5, 2), keys, ("float32",), False),
    "random_tangent": Row(lambda Q: stiefel.random_tangent(KEY, Q), bases(2), ONCE),
    "check": Row(stiefel.check, arrays((6, 2)), ONCE, grad=False),
}
RIEMANNIAN_ROWS = {
    **{f"stiefel.{name}": row for name, row in STIEFEL_ROWS.items()},
    **{f"grassmann.{name}": row for name, row in FRAME_ROWS.items()},
    "head.init": Row(lambda key: head.init(key, 3, 5, 2), keys, ("float32",), False),
    "head.logits": Row(lambda A, x: head.logits(A[None], x), arrays((6, 2), (3, 6))),
    "optim.riemannian_sgd": Row(
        update_of(optim.riemannian_sgd(0.1, 0.9, manifold=grassmann)), ONE, FIELD
    ),
    "optim.riemannian_adam": Row(
        update_of(optim.riemannian_adam(0.1, manifold=grassmann)), ONE, FIELD
    ),
    **{
        f"optim.{name}": minimizing(getattr(optim, name))
        for name in (
            "riemannian_conjugate_gradient",
            "riemannian_lbfgs",
            "riemannian_trust_region",
        )
    },
    "optim.check_invariance": Row(
        lambda Q: optim.check_invariance(KEY, lambda Q: jnp.sum(Q.real[0]), Q), bases(2), FIELD
    ),
}
