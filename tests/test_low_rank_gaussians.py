"""The mixture of low-rank Gaussians against dense Gaussian algebra, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.diffusion import low_rank_gaussians as lrg

pytestmark = pytest.mark.usefixtures("x64")

K, N, D, M = 3, 7, 2, 4


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def mixture():
    return linalg.orthonormalize(normal(0, (K, N, D))), jnp.asarray([0.5, 0.3, 0.2])


def log_gaussian(x, mean, covariance):
    r = x - mean
    return -(r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1]) / 2


def dense_posterior(U, weights, H, z, noise):
    """Weights, means and covariances given z = H x_0 + N(0, noise), by n-dimensional algebra."""
    logs, means, covariances = [], [], []
    for basis, weight in zip(np.asarray(U), np.asarray(weights), strict=True):
        C = basis @ basis.T
        S = H @ C @ H.T + noise
        gain = C @ H.T @ np.linalg.inv(S)
        logs.append(np.log(weight) + log_gaussian(z, np.zeros(len(z)), S))
        means.append(gain @ z)
        covariances.append(C - gain @ H @ C)
    exponentials = np.exp(np.asarray(logs) - max(logs))
    return exponentials / exponentials.sum(), np.asarray(means), np.asarray(covariances)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_the_denoiser_is_the_mean_of_the_dense_posterior(sigma):
    U, weights = mixture()
    x = np.asarray(normal(1, (N,)))
    w, means, _ = dense_posterior(U, weights, np.eye(N), x, sigma**2 * np.eye(N))
    np.testing.assert_allclose(jax.jit(lrg.denoise)(U, weights, x, sigma), w @ means, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_denoiser_is_tweedies(sigma):
    U, weights = mixture()

    def log_density(x):
        C = U @ U.swapaxes(1, 2) + sigma**2 * jnp.eye(N)
        quadratic = jnp.einsum("i,kij,j->k", x, jnp.linalg.inv(C), x)
        return jax.nn.logsumexp(jnp.log(weights) - quadratic / 2 - jnp.linalg.slogdet(C)[1] / 2)

    x = normal(2, (N,))
    expected = x + sigma**2 * jax.jit(jax.grad(log_density))(x)
    np.testing.assert_allclose(lrg.denoise(U, weights, x, sigma), expected, atol=1e-10)


@pytest.mark.parametrize("sigma_y", [0.1, 3.0])
def test_the_posterior_is_the_one_of_dense_algebra(sigma_y):
    U, weights = mixture()
    A, y = normal(3, (M, N)), normal(4, (M,))
    w, means, covariances = dense_posterior(
        U, weights, np.asarray(A), np.asarray(y), sigma_y**2 * np.eye(M)
    )
    found = jax.jit(lrg.posterior)(U, weights, A, y, sigma_y)
    np.testing.assert_allclose(found.weights, w, atol=1e-9)
    np.testing.assert_allclose(found.means, means, atol=1e-9)
    squares = found.factors @ found.factors.swapaxes(1, 2)
    np.testing.assert_allclose(squares, covariances, atol=1e-9)
    mean, covariance = lrg.moments(found)
    np.testing.assert_allclose(mean, w @ means, atol=1e-9)
    second = np.einsum("k,kij->ij", w, covariances + means[:, :, None] * means[:, None])
    np.testing.assert_allclose(covariance, second - np.outer(mean, mean), atol=1e-9)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 50.0])
def test_the_conditional_denoiser_joins_both_measurements(sigma):
    U, weights = mixture()
    A, y, x, sigma_y = normal(3, (M, N)), normal(4, (M,)), normal(5, (N,)), 0.5
    both, seen = np.concatenate([A, np.eye(N)]), np.concatenate([y, x])
    noise = np.diag([sigma_y**2] * M + [sigma**2] * N)
    w, means, _ = dense_posterior(U, weights, both, seen, noise)
    found = jax.jit(lrg.denoise_posterior)(U, weights, A, y, sigma_y, x, sigma)
    np.testing.assert_allclose(found, w @ means, atol=1e-9)


def test_without_a_measurement_the_posterior_is_the_prior():
    U, weights = mixture()
    x, A, y = normal(5, (N,)), jnp.zeros((M, N)), normal(4, (M,))
    found = lrg.denoise_posterior(U, weights, A, y, 1.0, x, 0.4)
    np.testing.assert_allclose(found, lrg.denoise(U, weights, x, 0.4), atol=1e-12)
    mean, covariance = lrg.moments(lrg.posterior(U, weights, A, y, 1.0))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    expected = np.einsum("k,kid,kjd->ij", weights, U, U)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_samples_have_the_moments_of_the_mixture():
    U, weights = mixture()
    post = lrg.posterior(U, weights, normal(3, (M, N)), normal(4, (M,)), 0.5)
    draw = jax.jit(lrg.sample, static_argnums=3)
    num = 40_000
    points = np.asarray(draw(jax.random.key(6), post.factors, post.weights, num, means=post.means))
    mean, covariance = lrg.moments(post)
    error = np.sqrt(np.diagonal(covariance) / num)
    assert np.all(np.abs(points.mean(0) - mean) < 5 * error)
    np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.03)


def test_samples_of_the_prior_lie_in_the_subspaces_as_often_as_their_weights_say():
    U, weights = mixture()
    points = lrg.sample(jax.random.key(7), U, 10 * weights, 20_000)
    outside = points[None] - (points @ U) @ U.swapaxes(1, 2)
    counts = jnp.mean(jnp.linalg.norm(outside, axis=-1) < 1e-9, axis=1)
    np.testing.assert_allclose(counts, weights, atol=0.02)


def test_float32_stays_float32_and_agrees():
    U, weights = mixture()
    x = normal(1, (N,))
    low = lrg.denoise(*(a.astype(jnp.float32) for a in (U, weights, x)), 0.1)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, lrg.denoise(U, weights, x, 0.1), atol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    U, weights = mixture()
    with pytest.raises(ValueError, match=r"\(3, 7, 2\), \(3,\), \(6,\)"):
        lrg.denoise(U, weights, jnp.ones(6), 1.0)
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        lrg.posterior(U, weights, jnp.ones((4, 6)), jnp.ones(4), 1.0)
    with pytest.raises(ValueError, match=r"sigma_y must be > 0, got 0\.0"):
        lrg.posterior(U, weights, jnp.ones((4, 7)), jnp.ones(4), 0.0)
    with pytest.raises(ValueError, match=r"\(3, 7\), got \(3, 6\)"):
        lrg.sample(jax.random.key(0), U, weights, 5, means=jnp.ones((3, 6)))
