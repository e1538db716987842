"""Data consistency without Jacobians: conjugate gradients from the estimate, and projections."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.diffusion._consistency import (
    DataConsistency,
    at,
    conjugate_gradients,
    measurement,
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
    y = measurement(op, y)
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
    y = measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        weight = at(gamma, sigma)
        A = shifted(lambda v: weight * op.gram(v), 1.0)
        return conjugate_gradients(A, x0 + weight * b, x0, num_steps), state

    return of_operator(op, update, direction="prior")


def posterior_proximal(
    op: LinearOperator,
    y: Array,
    sigma_y: Any,
    sigma_data: Any = 1.0,
    num_steps: int = 5,
    *,
    variance: Callable[[Array, Array], Array] | None = None,
) -> DataConsistency:
    """The proximal step that the noise calibrates: gamma = r^2 / sigma_y^2 (DiffPIR).

    r^2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2) is the variance of x_0 given the noisy
    x, were the data white of variance sigma_data^2. Its direction is "conditional". The published
    noise, of a share zeta of variance, is ``ddim(zeta**0.5, noise="churned")``.

    Args:
        op: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, per real component; 0: the normal equations.
        sigma_data: standard deviation of the data, positive.
        num_steps: of conjugate gradients.
        variance: (x_0, sigma) -> r^2, a number or one a pixel, not negative, in place of the above;
            `local_variance` makes one.

    Raises:
        ValueError: ``sigma_y`` negative, ``sigma_data`` not positive, ``y`` of another shape than
            the operator's results, or a variance whose shape is not that of x_0.

    Reference: Zhu et al. (2023), arXiv 2305.08995; with a variance a pixel Peng et al. (2024),
    "Improving diffusion models for inverse problems using optimal posterior covariance".
    """
    y = noisy_measurement(op, y, sigma_y, sigma_data)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        if variance is None:
            r2 = estimate_variance(sigma, sigma_data)
        else:
            r2 = jnp.asarray(variance(x0, sigma), sigma.dtype)
            if r2.shape not in ((), x0.shape):
                raise ValueError(f"variance must have shape {x0.shape} or (), got {r2.shape}")
        r, noise = jnp.sqrt(r2), at(sigma_y, sigma) ** 2
        # For (x - x_0) / r, times sigma_y^2: Hermitian, and no division by a noise of zero.
        A = shifted(lambda v: r * op.gram(r * v), noise)
        return x0 + r * conjugate_gradients(A, r * (b - op.gram(x0)), None, num_steps), state

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
    y = noisy_measurement(op, y, sigma_y)
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
    y = measurement(op, y)
    b = op.adjoint(y)

    def update(x0, linearize, sigma, state):
        del linearize
        return x0 + at(step_size, sigma) * (b - op.gram(x0)), state

    return of_operator(op, update, direction="prior")


def estimate_variance(sigma: Array, sigma_data: Any) -> Array:
    """The variance r^2 of white data given x = x_0 + sigma n."""
    data = at(sigma_data, sigma) ** 2
    return sigma**2 * data / (sigma**2 + data)


def local_variance(
    contrast: Any = 0.25, *, width: int = 5, floor: Any = 0.1
) -> Callable[[Array, Array], Array]:
    """The variance of x_0 given the noisy x, from how bright the estimate is around each pixel.

    r^2 = sigma^2 s^2 / (sigma^2 + s^2) with s = contrast times the root of the mean square of x_0
    around: what is dark, like the air around a body, is known to be dark, and what the measurement
    leaves open is corrected where the body is. For `posterior_proximal`.

    Args:
        contrast: the data's standard deviation as a share of the local root mean square, positive.
        width: of the windows, odd, over the last two axes.
        floor: share of the image's own mean square that is added, positive.

    Raises:
        ValueError: ``contrast`` or ``floor`` not positive, ``width`` not odd and positive, or, from
            the function, an estimate of one axis.
    """
    check_at_least("contrast", contrast, 0, strict=True)
    check_at_least("floor", floor, 0, strict=True)
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd and positive, got {width}")

    def variance(x0: Array, sigma: Array) -> Array:
        if x0.ndim < 2:
            raise ValueError(f"local_variance is for images, got shape {x0.shape}")
        power = jnp.abs(x0) ** 2
        window = (*(1,) * (power.ndim - 2), width, width)
        # NumPy's zero: of a traced one JAX does not know that it is zero, and has no derivative
        around = lax.reduce_window(
            power, np.zeros((), power.dtype), lax.add, window, (1,) * power.ndim, "SAME"
        )
        image = jnp.mean(power, (-2, -1), keepdims=True)
        data = contrast**2 * (around / width**2 + floor * image)
        return sigma**2 * data / (sigma**2 + data)

    return variance


def noisy_measurement(op: LinearOperator, y: Array, sigma_y: Any, sigma_data: Any = 1.0) -> Array:
    """The array ``y``, if it and its noise make sense.

    Raises:
        ValueError: names what does not.
    """
    check_at_least("sigma_y", sigma_y, 0)
    check_at_least("sigma_data", sigma_data, 0, strict=True)
    return measurement(op, y)
