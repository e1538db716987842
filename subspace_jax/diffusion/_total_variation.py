"""Data consistency of a stack of slices, with total variation across them."""

from typing import Any

import jax.numpy as jnp

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.diffusion._consistency import (
    DataConsistency,
    at,
    conjugate_gradients,
    measurement,
    of_operator,
)
from subspace_jax.diffusion.operators import LinearOperator
from subspace_jax.typing import Array


def admm_tv(
    op: LinearOperator, y: Array, rho: Any, lam: Any, *, num_steps: int = 5, axis: int = 0
) -> DataConsistency:
    """One step of ADMM for |y - A x|^2 / 2 + lam |D x|_1, D x the jumps from slice to slice (DDS).

    The split variables d and u go on from one diffusion step to the next. Differences are periodic.
    rho and lam are in units of A^H A. Its direction is "prior".

    Args:
        op: the measurement of the whole stack.
        y: what was measured.
        rho: positive, the penalty of ADMM.
        lam: not negative, the weight of the total variation.
        num_steps: of conjugate gradients.
        axis: of the slices.

    Raises:
        ValueError: ``rho`` not positive, ``lam`` negative, or ``y`` of another shape than the
            operator's results.

    Reference: Chung et al. (2024), "Decomposed diffusion sampler for accelerating large-scale
    inverse problems"; Chung et al. (2023), arXiv 2211.10655.
    """
    check_at_least("rho", rho, 0, strict=True)
    check_at_least("lam", lam, 0)
    y = measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        d, u = state
        penalty, weight = at(rho, sigma), at(lam, sigma)

        def A(v):
            return op.gram(v) + penalty * _adjoint(_difference(v, axis), axis)

        target = b + penalty * _adjoint(d - u, axis)
        x = conjugate_gradients(A, target, x0, num_steps)
        jumps = _difference(x, axis)
        d = _soft(jumps + u, weight / penalty)
        return x, (d, u + jumps - d)

    def init(x):
        return jnp.zeros_like(x), jnp.zeros_like(x)

    return of_operator(op, update, init=init, direction="prior")


def _difference(x: Array, axis: int) -> Array:
    return jnp.roll(x, -1, axis) - x


def _adjoint(v: Array, axis: int) -> Array:
    return jnp.roll(v, 1, axis) - v


def _soft(v: Array, threshold: Array) -> Array:
    """Shrunk towards zero in modulus."""
    size = jnp.abs(v)
    return v * (jnp.maximum(size - threshold, 0) / jnp.where(size > 0, size, 1))
