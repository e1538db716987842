"""Data consistency without Jacobians: conjugate gradients from the estimate, and projections."""

from typing import Any

import jax.numpy as jnp

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.diffusion._consistency import (
    DataConsistency,
    at,
    check_measurement,
    conjugate_gradients,
    of_operator,
)
from subspace_jax.diffusion.operators import LinearOperator
from subspace_jax.linalg.operators import shifted
from subspace_jax.typing import Array


def cg_normal(op: LinearOperator, y: Array, num_steps: int = 5) -> DataConsistency:
    """A few steps on the normal equations A^H A x = A^H y from the estimate (DDS, no noise).

    The number of steps is the regularisation: with noise in y, more steps are worse. Its direction
    is "prior".

    Args:
        op: the measurement.
        y: what was measured.
        num_steps: of conjugate gradients.

    Raises:
        ValueError: ``y`` of another shape than the operator's results.

    Reference: Chung et al. (2024), "Decomposed diffusion sampler for accelerating large-scale
    inverse problems".
    """
    check_measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize, sigma
        return conjugate_gradients(op.gram, b, x0, num_steps), state

    return of_operator(op, update, direction="prior")


def cg_proximal(op: LinearOperator, y: Array, gamma: Any, num_steps: int = 5) -> DataConsistency:
    """A few steps towards the minimum of gamma |y - A x|^2 / 2 + |x - x_0|^2 / 2 (DDS, noise).

    Its direction is "prior". `posterior_proximal` finds gamma from the noise.

    Args:
        op: the measurement.
        y: what was measured.
        gamma: positive; the weight of the measurement, which depends on the scale of A.
        num_steps: of conjugate gradients.

    Raises:
        ValueError: ``gamma`` not positive, or ``y`` of another shape than the operator's results.

    Reference: Chung et al. (2024), "Decomposed diffusion sampler for accelerating large-scale
    inverse problems".
    """
    check_at_least("gamma", gamma, 0, strict=True)
    check_measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        weight = at(gamma, sigma)
        A = shifted(lambda v: weight * op.gram(v), 1.0)
        return conjugate_gradients(A, x0 + weight * b, x0, num_steps), state

    return of_operator(op, update, direction="prior")


def posterior_proximal(
    op: LinearOperator, y: Array, sigma_y: Any, sigma_data: Any = 1.0, num_steps: int = 5
) -> DataConsistency:
    """The proximal step that the noise calibrates: gamma = r^2 / sigma_y^2 (DiffPIR).

    r^2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2) is the variance of x_0 given the noisy
    x, were the data white of variance sigma_data^2. Its direction is "conditional".

    Args:
        op: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, per real component; 0: the normal equations.
        sigma_data: standard deviation of the data, positive.
        num_steps: of conjugate gradients.

    Raises:
        ValueError: ``sigma_y`` negative, ``sigma_data`` not positive, or ``y`` of another shape
            than the operator's results.

    Reference: Zhu et al. (2023), arXiv 2305.08995.
    """
    check_noise(op, y, sigma_y, sigma_data)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        r2, noise = estimate_variance(sigma, sigma_data), at(sigma_y, sigma) ** 2
        # Times sigma_y^2: the same iterates, and no division by a noise of zero.
        A = shifted(lambda v: r2 * op.gram(v), noise)
        return conjugate_gradients(A, noise * x0 + r2 * b, x0, num_steps), state

    return of_operator(op, update)


def null_space(
    op: LinearOperator, y: Array, sigma_y: Any = 0.0, *, num_steps: int = 20
) -> DataConsistency:
    """x_0 - l A^+ (A x_0 - y): what A sees from the measurement, the rest from the prior (DDNM).

    The pseudo-inverse by conjugate gradients: no singular value decomposition. With noise
    l = min(1, sigma / sigma_y), sigma the level of this step. Its direction is "prior".

    Args:
        op: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, per real component.
        num_steps: of conjugate gradients, enough to converge.

    Raises:
        ValueError: ``sigma_y`` negative, or ``y`` of another shape than the operator's results.

    Reference: Wang, Yu & Zhang (2023), arXiv 2212.00490.
    """
    check_noise(op, y, sigma_y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        noise = at(sigma_y, sigma)
        share = jnp.where(noise > sigma, sigma / jnp.where(noise > sigma, noise, 1), 1)
        missing = conjugate_gradients(op.gram, b - op.gram(x0), None, num_steps)
        return x0 + share * missing, state

    return of_operator(op, update, direction="prior")


def hard_projection(op: LinearOperator, y: Array, *, step_size: Any = 1.0) -> DataConsistency:
    """x_0 - step_size A^H (A x_0 - y): the projection on the data if A A^H = I.

    Its direction is "prior".

    Args:
        op: the measurement.
        y: what was measured.
        step_size: positive.

    Raises:
        ValueError: ``step_size`` not positive, or ``y`` of another shape than the operator's
            results.

    Reference: Chung & Ye (2022), arXiv 2110.05243.
    """
    check_at_least("step_size", step_size, 0, strict=True)
    check_measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        return x0 + at(step_size, sigma) * (b - op.gram(x0)), state

    return of_operator(op, update, direction="prior")


def estimate_variance(sigma: Array, sigma_data: Any) -> Array:
    """The variance r^2 of white data given x = x_0 + sigma n."""
    data = at(sigma_data, sigma) ** 2
    return sigma**2 * data / (sigma**2 + data)


def check_noise(op: LinearOperator, y: Array, sigma_y: Any, sigma_data: Any = 1.0) -> None:
    """Return if the measurement and its noise make sense; else raise.

    Raises:
        ValueError: names what does not.
    """
    check_at_least("sigma_y", sigma_y, 0)
    check_at_least("sigma_data", sigma_data, 0, strict=True)
    check_measurement(op, y)
