"""Mixtures of low-rank Gaussians: a prior whose denoiser and posterior are known exactly.

x_0 ~ sum_k w_k N(0, U_k U_k^T) is what samplers are measured against: given y = A x_0 + sigma_y e
the posterior is a mixture again, and so is what a conditional denoiser should return.

Reference: arXiv 2409.02426.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Key

__all__ = ["Mixture", "denoise", "denoise_posterior", "moments", "posterior", "sample"]


class Mixture(NamedTuple):
    """sum_k weights_k N(means_k, factors_k factors_k^T)."""

    weights: Float[Array, " K"]
    means: Float[Array, "K n"]
    factors: Float[Array, "K n d"]


def denoise(
    U: Float[Array, "K n d"],
    weights: Float[Array, " K"],
    x: Float[Array, " n"],
    sigma: float | Float[Array, ""],
) -> Float[Array, " n"]:
    """The expected x_0 given x = x_0 + sigma n.

    Args:
        U: orthonormal columns each.
        weights: of the components, positive; they need not sum to one.
        x: the noisy point.
        sigma: positive.

    Raises:
        ValueError: arrays that do not fit.

    Reference: arXiv 2409.02426, the posterior mean, in the variable x = x_0 + sigma n.
    """
    _check(U, weights, x)
    h = matmul(U.swapaxes(1, 2), x)
    logits = jnp.log(weights) + jnp.sum(h**2, axis=1) / (2 * sigma**2 * (1 + sigma**2))
    return _combine(logits, matmul(U, h[..., None])[..., 0]) / (1 + sigma**2)


def posterior(
    U: Float[Array, "K n d"],
    weights: Float[Array, " K"],
    A: Float[Array, "m n"],
    y: Float[Array, " m"],
    sigma_y: float | Float[Array, ""],
) -> Mixture:
    """The distribution of x_0 given y = A x_0 + sigma_y e.

    Args:
        U: bases or any other factors.
        weights: of the components, positive; they need not sum to one.
        A: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, positive.

    Raises:
        ValueError: arrays that do not fit, or ``sigma_y`` not positive.
    """
    precision, h = _likelihood(U, weights, A, y, sigma_y)
    L = jnp.linalg.cholesky(precision)
    logits, z = _evidence(L, weights, h)
    # P = L L^T, so the covariance P^{-1} of the coordinates has the factor L^{-T}
    transposed = jax.lax.linalg.triangular_solve(L, U, lower=True, transpose_a=True)
    return Mixture(jax.nn.softmax(logits), matmul(U, z[..., None])[..., 0], transposed)


def denoise_posterior(
    U: Float[Array, "K n d"],
    weights: Float[Array, " K"],
    A: Float[Array, "m n"],
    y: Float[Array, " m"],
    sigma_y: float | Float[Array, ""],
    x: Float[Array, " n"],
    sigma: float | Float[Array, ""],
) -> Float[Array, " n"]:
    """The expected x_0 given both x = x_0 + sigma n and y = A x_0 + sigma_y e.

    Args:
        U: orthonormal columns each.
        weights: of the components, positive; they need not sum to one.
        A: the measurement.
        y: what was measured.
        sigma_y: standard deviation of its noise, positive.
        x: the noisy point.
        sigma: positive.

    Raises:
        ValueError: arrays that do not fit, or ``sigma_y`` not positive.
    """
    _check(U, weights, x)
    precision, h = _likelihood(U, weights, A, y, sigma_y)
    precision = precision + jnp.eye(U.shape[2], dtype=U.dtype) / sigma**2
    h = h + matmul(U.swapaxes(1, 2), x) / sigma**2
    logits, z = _evidence(jnp.linalg.cholesky(precision), weights, h)
    return _combine(logits, matmul(U, z[..., None])[..., 0])


def moments(mixture: Mixture) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """The mean and the covariance of a mixture."""
    weights, means, factors = mixture
    weights = weights / jnp.sum(weights)
    mean = matmul(weights, means)
    away = means - mean
    inside = jnp.einsum("k,kid,kjd->ij", weights, factors, factors, precision="highest")
    return mean, inside + jnp.einsum("k,ki,kj->ij", weights, away, away, precision="highest")


def sample(
    key: Key,
    U: Float[Array, "K n d"],
    weights: Float[Array, " K"],
    num: int,
    *,
    means: Float[Array, "K n"] | None = None,
) -> Float[Array, "num n"]:
    """Independent points of the mixture; of a posterior with its factors for U, and its means.

    Args:
        key: PRNG key.
        U: bases or any other factors.
        weights: of the components, positive; they need not sum to one.
        num: how many points.
        means: of the components; None: all zero.

    Raises:
        ValueError: arrays that do not fit.
    """
    _check(U, weights, U[0, :, 0])
    if means is not None and means.shape != U.shape[:2]:
        raise ValueError(f"means must have shape {U.shape[:2]}, got {means.shape}")
    which, normal = jax.random.split(key)
    k = jax.random.categorical(which, jnp.log(weights), shape=(num,))
    z = jax.random.normal(normal, (num, U.shape[2]), U.dtype)
    points = matmul(U[k], z[..., None])[..., 0]
    return points if means is None else points + means[k]


def _likelihood(U: Array, weights: Array, A: Array, y: Array, sigma_y: Any) -> tuple[Array, Array]:
    """P_k = I + B_k^T B_k / sigma_y^2 and B_k^T y / sigma_y^2 for B_k = A U_k."""
    _check(U, weights, U[0, :, 0])
    if A.ndim != 2 or A.shape[1] != U.shape[1] or y.shape != A.shape[:1]:
        raise ValueError(f"U of shape {U.shape}, A of {A.shape} and y of {y.shape} do not fit")
    check_at_least("sigma_y", sigma_y, 0, strict=True)
    B = matmul(A, U)
    BT = B.swapaxes(1, 2)
    return jnp.eye(U.shape[2], dtype=U.dtype) + matmul(BT, B) / sigma_y**2, matmul(BT, y) / (
        sigma_y**2
    )


def _evidence(L: Array, weights: Array, h: Array) -> tuple[Array, Array]:
    """log(w_k det(M_k)^{-1/2} exp(h_k^T M_k^{-1} h_k / 2)) and M_k^{-1} h_k, for M = L L^T.

    By Woodbury's identity this is the evidence N(y; 0, B_k B_k^T + sigma_y^2 I) up to a factor
    that all components share.
    """
    half = jax.lax.linalg.triangular_solve(L, h[..., None], left_side=True, lower=True)
    z = jax.lax.linalg.triangular_solve(L, half, left_side=True, lower=True, transpose_a=True)
    halved_logdet = jnp.sum(jnp.log(jnp.diagonal(L, axis1=1, axis2=2)), axis=1)
    logits = jnp.log(weights) - halved_logdet + jnp.sum(half[..., 0] ** 2, axis=1) / 2
    return logits, z[..., 0]


def _combine(logits: Array, points: Array) -> Array:
    return matmul(jax.nn.softmax(logits), points)


def _check(U: Array, weights: Array, x: Array) -> None:
    if U.ndim != 3 or weights.shape != U.shape[:1] or x.shape != U.shape[1:2]:
        raise ValueError(
            f"U must be (K, n, d), weights (K,), points (n,): got {U.shape}, {weights.shape}, "
            f"{x.shape}"
        )
