"""Rows of the contract's table: anomaly detectors and the inference of principal subspaces."""

import jax
import jax.numpy as jnp

from subspace_jax.anomaly import gods, kernel, pca_residual
from subspace_jax.manifolds import inference
from tests.rows import Row, arrays, normal

KEY = jax.random.key(0)


def sample_and_basis(rng, dtype):
    """Samples with distinct variances, and the basis of two directions."""
    scales = jnp.asarray([3.0, 2.0, 1.0, 0.5], dtype)
    turned = jnp.linalg.qr(jnp.eye(4, 2, dtype=dtype) + normal(rng, (4, 2), dtype) / 10)[0]
    return scales * normal(rng, (30, 4), dtype), turned


def fitted_gods(X):
    return gods.fit(KEY, X, num_directions=2, maxiter=2).frames


def gods_score(W1, W2, b, X):
    frames = gods.Frames(*(jnp.linalg.qr(W)[0] for W in (W1, W2)), b, -b)
    return gods.score(gods.Gods(frames, jnp.asarray(0.1, X.dtype), None), X)


def residual(X, new):
    return pca_residual.score(pca_residual.fit(X, energy=0.8), new)


def coordinates(X, new):
    return kernel.apply(kernel.fit(X, gamma=0.5, rank=3), new)


ANOMALY_ROWS = {
    "inference.principal_subspace_test": Row(
        lambda X, Q: tuple(inference.principal_subspace_test(X, Q)[::2]), sample_and_basis
    ),
    "inference.robust_subspace_test": Row(
        lambda X, Q: tuple(inference.robust_subspace_test(X, Q)[::2]), sample_and_basis
    ),
    "gods.fit": Row(fitted_gods, arrays((20, 4)), grad=False),
    "gods.objective": Row(
        lambda W, b, X: gods.objective(X, margin=0.3, penalty=1.0)(gods.Frames(W, -W, b, b)),
        arrays((4, 2), (2,), (20, 4)),
    ),
    "gods.score": Row(gods_score, arrays((4, 2), (4, 2), (2,), (6, 4))),
    "kernel.fit": Row(
        lambda X: kernel.fit(X, gamma=0.5, rank=3).map ** 2, arrays((9, 4)), grad=False
    ),
    "kernel.apply": Row(lambda X, new: coordinates(X, new) ** 2, arrays((9, 4), (5, 4))),
    "pca_residual.fit": Row(
        lambda X: pca_residual.fit(X, energy=0.8).mean, arrays((9, 4)), grad=False
    ),
    "pca_residual.fit_above_noise": Row(
        lambda X: pca_residual.fit_above_noise(X).mean, arrays((9, 4)), grad=False
    ),
    "pca_residual.score": Row(residual, arrays((9, 4), (5, 4))),
    "pca_residual.image_score": Row(pca_residual.image_score, arrays((5, 4))),
    "pca_residual.score_map": Row(
        lambda scores: pca_residual.score_map(scores, (10, 8), sigma=1.0), arrays((5, 4))
    ),
}
