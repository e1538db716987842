"""Coordinates in the span of the training examples under a kernel: kernel forms of linear methods.

A linear method on these coordinates is its kernel form: inner products of coordinates are values of
the kernel, exactly so where no direction is dropped.
"""

from typing import NamedTuple

import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float

__all__ = ["KernelCoordinates", "apply", "fit"]


class KernelCoordinates(NamedTuple):
    """Training examples and the map from kernel values to coordinates."""

    X: Float[Array, "n d"]
    gamma: Float[Array, ""]
    map: Float[Array, "n rank"]


def fit(X: Float[Array, "n d"], *, gamma: float, rank: int) -> KernelCoordinates:
    """The ``rank`` leading coordinates of the Gaussian kernel exp(-gamma |x - y|^2).

    Args:
        X: training examples in rows.
        gamma: inverse squared width.
        rank: number of coordinates, at most n; directions that rounding has lost are zero.

    Raises:
        ValueError: gamma <= 0, or a rank outside of 1 to n.

    Reference: Schölkopf, Smola & Müller (1998), without centring.
    """
    if gamma <= 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    if not 1 <= rank <= len(X):
        raise ValueError(f"rank must be in 1 to {len(X)}, got {rank}")
    width = jnp.asarray(gamma, X.dtype)
    values, vectors = jnp.linalg.eigh(_gaussian(X, X, width))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    held = values > len(X) * jnp.finfo(X.dtype).eps * values[0]
    scales = jnp.where(held, 1 / jnp.sqrt(jnp.where(held, values, 1)), 0)
    return KernelCoordinates(X, width, vectors * scales)


def apply(model: KernelCoordinates, X: Float[Array, "m d"]) -> Float[Array, "m rank"]:
    """The coordinates of examples.

    Raises:
        ValueError: examples with another number of features.
    """
    if X.shape[-1] != model.X.shape[1]:
        raise ValueError(f"examples of {model.X.shape[1]} features are expected, got {X.shape}")
    return matmul(_gaussian(X, model.X, model.gamma), model.map)


def _gaussian(X: Array, Y: Array, gamma: Array) -> Array:
    squares = jnp.sum(X**2, axis=1)[:, None] + jnp.sum(Y**2, axis=1) - 2 * matmul(X, Y.T)
    return jnp.exp(-gamma * jnp.maximum(squares, 0))
