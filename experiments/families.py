"""Sequences of linear systems that differ in their coefficients, as JAX operators and as matrices.

The Darcy families are those of the recycling paper (Wang et al., 2024): -div(w grad u) = 1 with
w the exponential of a Gaussian random field, on the s x s inner cells of a grid with a ring of
ghost cells around. An operator is (w, v) -> A v for one w (s + 2, s + 2), a matrix is assembled
from the same w without JAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse


class Family(NamedTuple):
    """One kind of matrix."""

    name: str
    apply: Callable[[jax.Array, jax.Array], jax.Array]
    """(parameters of one system, v (n,)) -> A v."""
    assemble: Callable[[np.ndarray], sparse.csr_array]


def gaussian_fields(
    num: int, size: int, *, alpha: float = 2.5, tau: float = 7.0, seed: int = 0
) -> np.ndarray:
    """(num, size, size) fields of covariance tau^(2 alpha - 2) (tau^2 - Laplacian)^(-alpha).

    Periodic, without their mean.
    """
    waves = 2 * np.pi * np.fft.fftfreq(size, 1 / size)
    power = tau ** (2 * alpha - 2) * (waves[:, None] ** 2 + waves**2 + tau**2) ** -alpha
    power[0, 0] = 0
    noise = np.fft.fft2(np.random.default_rng(seed).standard_normal((num, size, size)))
    return size * np.fft.ifft2(np.sqrt(power) * noise).real


def full_coefficients(num: int, size: int, seed: int = 0) -> np.ndarray:
    """Independent fields: as many dimensions as cells."""
    return np.exp(gaussian_fields(num, size, seed=seed))


def few_parameters(num: int, size: int, dimension: int = 3, seed: int = 0) -> np.ndarray:
    """Fields in a space of few dimensions: one base and a random combination of three modes."""
    base, *modes = gaussian_fields(1 + dimension, size, seed=seed)
    weights = np.random.default_rng(seed + 1).standard_normal((num, dimension))
    return np.exp(base + np.tensordot(weights, np.array(modes), 1))


def right_hand_side(size: int) -> np.ndarray:
    """The source 1 on s x s cells, times the square of their width 1 / (s - 1)."""
    return np.full(size * size, 1.0 / (size - 1) ** 2)


def conservative(w: jax.Array, v: jax.Array) -> jax.Array:
    """Finite volumes with arithmetic means on the faces, zero outside: symmetric, definite."""
    c, (down, up, right, left) = w[1:-1, 1:-1], _faces(w)
    u = jnp.pad(v.reshape(c.shape), 1)
    out = (down + up + right + left) * u[1:-1, 1:-1] - down * u[2:, 1:-1] - up * u[:-2, 1:-1]
    return (out - right * u[1:-1, 2:] - left * u[1:-1, :-2]).ravel()


def conservative_matrix(w: np.ndarray) -> sparse.csr_array:
    """The matrix of `conservative`."""
    s = w.shape[0] - 2
    down, up, right, left = (np.array(face) for face in _faces(w))
    diagonal = (down + up + right + left).ravel()
    right[:, -1] = 0
    across, along = right.ravel()[:-1], down.ravel()[:-s]
    return sparse.diags_array(
        [diagonal, -across, -across, -along, -along], offsets=[0, 1, -1, s, -s]
    ).tocsr()


def released(w: jax.Array, v: jax.Array) -> jax.Array:
    """The released code's matrix as it acts: scaled by columns, its lowest diagonal misplaced.

    Slightly nonsymmetric: see `released_matrix`.
    """
    s, n = w.shape[0] - 2, v.size
    right = w[1:-1, 2:].at[:, -1].set(0).ravel()
    left = w[1:-1, :-2].at[:, 0].set(0).ravel()
    above = jnp.pad(w[:-2, 1:-1].ravel()[s - 2 : n - 2], (s, 0))
    below = jnp.pad(w[2:, 1:-1].ravel()[: n - s], (0, s))
    right, left = jnp.pad(right[:-1], (0, 1)), jnp.pad(left[1:], (1, 0))
    u = jnp.pad(v, s)
    out = 4 * w[1:-1, 1:-1].ravel() * v - right * u[s + 1 : s + 1 + n] - left * u[s - 1 : s - 1 + n]
    return out - below * u[2 * s :] - above * u[:n]


def released_matrix(w: np.ndarray) -> sparse.csr_array:
    """The matrix that ``scipy.sparse.diags`` makes of the released code's diagonals.

    The one below the main block starts two entries late, since it is two entries too long.
    """
    s = w.shape[0] - 2
    c, n = w[1:-1, 1:-1], s * s
    before, after = np.array(w[1:-1, :-2]), np.array(w[1:-1, 2:])
    before[:, 0] = after[:, -1] = 0
    above, below = w[:-2, 1:-1].ravel()[s - 2 :][: n - s], w[2:, 1:-1].ravel()[: n - s]
    diagonals = [4 * c.ravel(), -after.ravel()[:-1], -before.ravel()[1:], -below, -above]
    return sparse.diags_array(diagonals, offsets=[0, 1, -1, s, -s]).tocsr()


CONSERVATIVE = Family("Darcy, symmetric", conservative, conservative_matrix)
RELEASED = Family("Darcy, released matrix", released, released_matrix)


def _faces(w):
    c = w[1:-1, 1:-1]
    return tuple((c + f) / 2 for f in (w[2:, 1:-1], w[:-2, 1:-1], w[1:-1, 2:], w[1:-1, :-2]))
