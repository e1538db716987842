"""Small measurements and priors whose answers are known, for the tests of diffusion."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from subspace_jax import diffusion
from subspace_jax.diffusion.operators import coils, masks
from tests import rows

LINE = masks.uniform(0, 10, acceleration=2.0, num_center=2)
ANGLES = np.array([0.0, 0.3, np.pi / 2, 2.0, 4.0])
birdcage = jax.jit(coils.birdcage, static_argnums=(0, 1))
N, M = 5, 3
SIGMA_Y = 0.3


def normal(seed, shape, dtype="float64"):
    return rows.normal(np.random.default_rng(seed), shape, dtype)


def standard_normal(seed, shape, dtype=jnp.float64):
    return diffusion.standard_normal(jax.random.key(seed), shape, dtype)


def materialize(op, dtype):
    """The matrix of ``op`` from its products with the unit images."""
    units = jnp.eye(math.prod(op.in_shape), dtype=dtype).reshape(-1, *op.in_shape)
    columns = jax.jit(jax.vmap(op.apply))(units)
    return np.asarray(columns).reshape(len(units), -1).T


@cache
def problem(dtype=jnp.float64):
    """An operator, its matrix, a measurement, an estimate and a noisy point."""
    A = standard_normal(0, (M, N), dtype)
    op = diffusion.operators.linear(lambda x: A @ x, (N,), dtype=dtype)
    return (
        op,
        np.asarray(A),
        *(standard_normal(i, (k,), dtype) for i, k in ((1, M), (2, N), (3, N))),
    )


def covariance(n):
    G = np.random.default_rng(0).normal(size=(n, n))
    return G @ G.T / n


def gaussian_denoiser(C):
    """Of N(0, C); float64 constants, in the dtype of x."""
    values, Q = np.linalg.eigh(C)

    def denoise(x, sigma):
        return ((Q * (values / (values + sigma**2))) @ (Q.T @ x)).astype(x.dtype)

    return denoise


def levels(n):
    return diffusion.karras_sigmas(n, sigma_min=0.05, sigma_max=20.0)
