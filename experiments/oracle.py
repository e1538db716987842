"""Inverse problems whose posterior is known, and how far samples are from it.

The prior is a mixture of low-rank Gaussians, the measurement a random matrix of chosen condition.
And points of a subspace, of which the denoiser is known.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import diffusion, linalg
from subspace_jax.diffusion import low_rank_gaussians as lrg
from subspace_jax.typing import Array, Bool, Float, Key

_BOUND = 1e3  # samples of a sampler that diverged count as if they had stopped here


class Problem(NamedTuple):
    """A prior sum_k w_k N(0, U_k U_k^T), and what a measurement saw of one of its points."""

    U: Float[Array, "K n d"]
    weights: Float[Array, " K"]
    A: Float[Array, "m n"]
    y: Float[Array, " m"]
    sigma_y: Float[Array, ""]
    truth: Float[Array, " n"]


class Errors(NamedTuple):
    """How far samples are from the exact posterior."""

    distance: Float[Array, ""]
    """Sliced 2-Wasserstein, to as many exact samples."""
    mean: Float[Array, ""]
    """Of the mean, in posterior standard deviations: |found - exact| / sqrt(trace)."""
    covariance: Float[Array, ""]
    """Of the covariance, Frobenius, relative to the exact one."""
    ranks: Float[Array, " n"]
    """The share of samples below the truth, in every coordinate."""
    finite: Float[Array, ""]
    """The share of samples that are finite and within bounds."""


class Population(NamedTuple):
    """x = A z, z with a Gaussian around each of the codes."""

    A: Float[Array, "D d"]
    codes: Float[Array, "num d"]
    bandwidth: float

    def sample(self, key: Key, num: int) -> Array:
        """Codes (num, d)."""
        which, noise = jax.random.split(key)
        rows = jax.random.randint(which, (num,), 0, len(self.codes))
        n = jax.random.normal(noise, (num, self.codes.shape[1]))
        return self.codes[rows] + self.bandwidth * n

    def denoise(self, z: Array, sigma: Array) -> Array:
        """The expected code (d,) given z, noise of that level on it."""
        total = self.bandwidth**2 + sigma**2
        w = jax.nn.softmax(-jnp.sum((z - self.codes) ** 2, 1) / (2 * total))
        return (sigma**2 * w @ self.codes + self.bandwidth**2 * z) / total


def make_problem(
    key: Key,
    one: Bool[Array, ""] | bool,
    *,
    num_components: int,
    n: int,
    rank: int,
    m: int,
    condition: float,
    sigma_y: float,
) -> Problem:
    """Random subspaces of equal weight, a random measurement, a point of the prior and its y.

    Args:
        key: PRNG key.
        one: whether all components are the first one: a single Gaussian in the shapes of a
            mixture, so that one program serves both.
        num_components: K.
        n: dimension of the point.
        rank: d, of each component.
        m: number of measurements.
        condition: of the measurement, largest over smallest singular value; the largest is 1.
        sigma_y: standard deviation of the noise.
    """
    keys = jax.random.split(key, 4)
    U = linalg.orthonormalize(jax.random.normal(keys[0], (num_components, n, rank)))
    U = jnp.where(one, U[:1], U)
    weights = jnp.ones(num_components) / num_components
    A = random_matrix(keys[1], m, n, condition)
    return measure(keys[2:], U, weights, A, sigma_y)


def measure(keys: Array, U: Array, weights: Array, A: Array, sigma_y: float | Array) -> Problem:
    """The problem of a point drawn from the prior and what A sees of it; takes two keys."""
    truth = lrg.sample(keys[0], U, weights, 1)[0]
    y = A @ truth + sigma_y * jax.random.normal(keys[1], A.shape[:1])
    return Problem(U, weights, A, y, jnp.asarray(sigma_y, y.dtype), truth)


def random_matrix(key: Key, m: int, n: int, condition: float, dtype: Any = None) -> Array:
    """A random matrix (m, n), its singular values geometric from 1 down to 1 / condition.

    Raises:
        ValueError: more rows than columns.
    """
    if m > n:
        raise ValueError(f"m must be at most n = {n}, got {m}")
    dtype = jnp.zeros((), dtype).dtype
    left, right = jax.random.split(key)
    P = linalg.orthonormalize(diffusion.standard_normal(left, (m, m), dtype))
    Q = linalg.orthonormalize(diffusion.standard_normal(right, (n, m), dtype))
    return (P * jnp.geomspace(1.0, 1 / condition, m)) @ Q.conj().T


def operator(problem: Problem) -> diffusion.operators.LinearOperator:
    """The measurement as samplers take it."""
    return diffusion.operators.linear(lambda x: problem.A @ x, problem.truth.shape)


def denoise(problem: Problem, x: Array, sigma: Array) -> Array:
    """The exact denoiser of the prior."""
    return lrg.denoise(problem.U, problem.weights, x, sigma)


def denoise_posterior(problem: Problem, x: Array, sigma: Array) -> Array:
    """The exact denoiser of the posterior."""
    U, weights, A, y, sigma_y, _ = problem
    return lrg.denoise_posterior(U, weights, A, y, sigma_y, x, sigma)


@partial(jax.jit, static_argnames="num")
def posterior_samples(key: Key, problem: Problem, num: int) -> Float[Array, "num n"]:
    """Independent points of the exact posterior."""
    post = _posterior(problem)
    return lrg.sample(key, post.factors, post.weights, num, means=post.means)


@partial(jax.jit, static_argnames="num_slices")
def errors(key: Key, problem: Problem, X: Float[Array, "num n"], *, num_slices: int) -> Errors:
    """How far the rows of X are from samples of the exact posterior; reference drawn by ``key``."""
    inside: Bool[Array, " num"] = jnp.all(jnp.abs(X) < _BOUND, axis=1)  # false for NaN too
    X = jnp.clip(jnp.nan_to_num(X, nan=_BOUND, posinf=_BOUND, neginf=-_BOUND), -_BOUND, _BOUND)
    mean, covariance = lrg.moments(_posterior(problem))
    reference, slices = jax.random.split(key)
    exact = posterior_samples(reference, problem, len(X))
    away = X - jnp.mean(X, axis=0)
    found = away.T @ away / (len(X) - 1)
    return Errors(
        sliced_wasserstein(slices, X, exact, num_slices),
        jnp.linalg.norm(jnp.mean(X, axis=0) - mean) / jnp.sqrt(jnp.trace(covariance)),
        jnp.linalg.norm(found - covariance) / jnp.linalg.norm(covariance),
        jnp.mean(problem.truth > X, axis=0),
        jnp.mean(inside),
    )


def sliced_wasserstein(
    key: Key, X: Float[Array, "num n"], Y: Float[Array, "num n"], num_slices: int = 128
) -> Float[Array, ""]:
    """The root mean squared distance of sorted random projections; equally many samples each."""
    directions = jax.random.normal(key, (num_slices, X.shape[1]))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    apart = jnp.sort(X @ directions.T, axis=0) - jnp.sort(Y @ directions.T, axis=0)
    return jnp.sqrt(jnp.mean(apart**2))


def coverage(ranks: Array, levels: Array) -> Array:
    """The share of ranks within the central interval of each nominal level."""
    return jnp.mean(jnp.abs(2 * ranks.ravel() - 1)[:, None] <= levels, axis=0)


def _posterior(problem: Problem) -> lrg.Mixture:
    U, weights, A, y, sigma_y, _ = problem
    return lrg.posterior(U, weights, A, y, sigma_y)
