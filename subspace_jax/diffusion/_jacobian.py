"""Data consistency by the denoiser's Jacobian J = Cov[x_0 | x] / sigma^2.

J of an exact denoiser is symmetric, that of a network is not: |J v - J^T v| was half of |J v| for a
small U-Net. The published methods take J^T v ("vjp"); J v ("jvp") needs no reverse mode.
"""

from typing import Any, Literal

import jax.numpy as jnp

from subspace_jax import tree
from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.diffusion._consistency import (
    DataConsistency,
    at,
    conjugate_gradients,
    measurement,
    of_operator,
)
from subspace_jax.diffusion._proximal import estimate_variance, noisy_measurement
from subspace_jax.diffusion.operators import LinearOperator
from subspace_jax.linalg.operators import shifted
from subspace_jax.typing import Array

Mode = Literal["vjp", "jvp"]


def pigdm(
    op: LinearOperator,
    y: Array,
    sigma_y: Any,
    sigma_data: Any = 1.0,
    num_steps: int = 5,
    *,
    jacobian: Mode = "vjp",
) -> DataConsistency:
    """x_0 + sigma^2 J A^H (sigma_y^2 + r^2 A A^H)^{-1} (y - A x_0): white covariance r^2 (PiGDM).

    The inverse by conjugate gradients in the space of y: for any A, no decomposition. r^2 as in
    `posterior_proximal`. Its direction is "conditional".

    Args:
        op: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, per real component.
        sigma_data: standard deviation of the data, positive.
        num_steps: of conjugate gradients.
        jacobian: which product with the Jacobian.

    Raises:
        ValueError: ``sigma_y`` negative, ``sigma_data`` not positive, no such ``jacobian``, or
            ``y`` of another shape than the operator's results.

    Reference: Song et al. (2023), "Pseudoinverse-guided diffusion models for inverse problems".
    """
    y = noisy_measurement(op, y, sigma_y, sigma_data)
    _check_mode(jacobian)

    def update(x0, linearize, sigma, state):
        r2 = estimate_variance(sigma, sigma_data)
        A = shifted(lambda v: r2 * op.apply(op.adjoint(v)), at(sigma_y, sigma) ** 2)
        v = conjugate_gradients(A, y - op.apply(x0), None, num_steps)
        return x0 + sigma**2 * linearize(jacobian)(op.adjoint(v)), state

    return of_operator(op, update)


def moment_matching(
    op: LinearOperator, y: Array, sigma_y: Any, num_steps: int = 3, *, jacobian: Mode = "vjp"
) -> DataConsistency:
    """x_0 + C A^H (sigma_y^2 + A C A^H)^{-1} (y - A x_0) with the covariance C = sigma^2 J (MMPS).

    Exact for Gaussian data once the conjugate gradients have converged; they stop by themselves
    at a direction in which a network's J is not positive. Its direction is "conditional".

    Args:
        op: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, per real component.
        num_steps: of conjugate gradients, a product with the Jacobian each and one more.
        jacobian: which product with the Jacobian.

    Raises:
        ValueError: ``sigma_y`` negative, no such ``jacobian``, or ``y`` of another shape than the
            operator's results.

    Reference: Rozet et al. (2024), arXiv 2405.13712.
    """
    y = noisy_measurement(op, y, sigma_y)
    _check_mode(jacobian)

    def update(x0, linearize, sigma, state):
        product = linearize(jacobian)

        def covariance(v):
            return sigma**2 * product(op.adjoint(v))

        A = shifted(lambda v: op.apply(covariance(v)), at(sigma_y, sigma) ** 2)
        v = conjugate_gradients(A, y - op.apply(x0), None, num_steps, real=True)
        return x0 + covariance(v), state

    return of_operator(op, update)


def dps(op: LinearOperator, y: Array, zeta: Any, *, jacobian: Mode = "vjp") -> DataConsistency:
    """x_0 - zeta d|y - A x_0(x)| / dx: one step down the norm of the residual (DPS).

    Its direction is "conditional". With ``ddim(direction="prior")`` the gradient is subtracted
    after the step, as published; its scaled variable x_t = s x makes the published constant c
    about ``zeta=lambda sigma: c * (1 + sigma**2)`` here.

    Args:
        op: the measurement.
        y: what was measured.
        zeta: the length of the step, positive, or a function of sigma.
        jacobian: which product with the Jacobian.

    Raises:
        ValueError: ``zeta`` not positive, no such ``jacobian``, or ``y`` of another shape than the
            operator's results.

    Reference: Chung et al. (2023), arXiv 2209.14687, algorithm 1.
    """
    check_at_least("zeta", zeta, 0, strict=True)
    y = measurement(op, y)
    _check_mode(jacobian)

    def update(x0, linearize, sigma, state):
        residual = y - op.apply(x0)
        norm = tree.norm(residual)
        direction = op.adjoint(residual / jnp.where(norm > 0, norm, 1))
        return x0 + at(zeta, sigma) * linearize(jacobian)(direction), state

    return of_operator(op, update)


def _check_mode(jacobian: str) -> None:
    if jacobian not in ("vjp", "jvp"):
        raise ValueError(f"jacobian must be 'vjp' or 'jvp', got {jacobian!r}")
