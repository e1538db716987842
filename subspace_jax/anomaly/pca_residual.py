"""Anomalies as what the principal subspace of normal examples does not explain (SubspaceAD).

For images the examples are features of patches: `fit` on those of the normal images, `score` a
grid of patches, `image_score` for the whole image, `score_map` for its pixels.

Reference: "SubspaceAD: Training-Free Few-Shot Anomaly Detection via Subspace Modeling" (2026).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Integer

__all__ = ["PrincipalSubspace", "fit", "fit_above_noise", "image_score", "score", "score_map"]


class PrincipalSubspace(NamedTuple):
    """A mean and an orthonormal basis; columns past ``rank`` are zero."""

    mean: Float[Array, " d"]
    Q: Float[Array, "d m"]
    rank: Integer[Array, ""]


def fit(X: Float[Array, "n d"], *, energy: float = 0.99) -> PrincipalSubspace:
    """The smallest principal subspace that holds ``energy`` of the variance of the rows of ``X``.

    Args:
        X: normal examples in rows.
        energy: share of the variance, in (0, 1].

    Raises:
        ValueError: an energy outside of (0, 1], or fewer than two examples.

    Reference: the paper's threshold is 0.99.
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], got {energy}")
    mean, values, vectors = _principal(X)
    return _truncated(mean, vectors, linalg.energy_rank(values, energy))


def fit_above_noise(X: Float[Array, "n d"]) -> PrincipalSubspace:
    """The principal subspace of the singular values above the Marchenko-Pastur bulk of noise.

    The threshold is omega(d / n) times the median singular value, for white noise of unknown size.

    Args:
        X: normal examples in rows.

    Raises:
        ValueError: fewer than two examples.

    Reference: Gavish & Donoho (2014), "The optimal hard threshold for singular values is
    4/sqrt(3)", equation (5), the cubic fit of omega.
    """
    mean, values, vectors = _principal(X)
    aspect = min(X.shape) / max(X.shape)
    omega = 0.56 * aspect**3 - 0.95 * aspect**2 + 1.82 * aspect + 1.43
    singular = jnp.sqrt(values[: min(X.shape)])
    return _truncated(mean, vectors, jnp.sum(singular > omega * jnp.median(singular)))


def score(model: PrincipalSubspace, X: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """The squared distance of examples to the subspace; high means abnormal."""
    if X.shape[-1:] != model.mean.shape:
        raise ValueError(f"examples of {model.mean.shape} features are expected, got {X.shape}")
    centred = X - model.mean
    residual = centred - matmul(matmul(centred, model.Q), model.Q.T)
    return jnp.sum(residual**2, axis=-1)


def image_score(scores: Float[Array, "h w"], *, top: float = 0.01) -> Float[Array, ""]:
    """The mean of the ``top`` share of an image's patch scores, of one patch at least.

    Raises:
        ValueError: a share outside of (0, 1].

    Reference: the paper's share is 1 %.
    """
    if not 0 < top <= 1:
        raise ValueError(f"top must be in (0, 1], got {top}")
    count = max(1, round(top * scores.size))
    return jnp.mean(jax.lax.top_k(scores.ravel(), count)[0])


def score_map(
    scores: Float[Array, "h w"], shape: tuple[int, int], *, sigma: float = 4.0
) -> Float[Array, "H W"]:
    """Patch scores as an image of ``shape`` pixels: interpolated, then smoothed.

    Args:
        scores: of a grid of patches.
        shape: of the image.
        sigma: of the Gaussian, in pixels.

    Raises:
        ValueError: a sigma that is not positive.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    radius = round(4 * sigma)
    offsets = jnp.arange(-radius, radius + 1, dtype=scores.dtype)
    kernel = jnp.exp(-((offsets / sigma) ** 2) / 2)
    smooth = kernel / jnp.sum(kernel)
    image = jnp.pad(jax.image.resize(scores, shape, "linear"), radius, mode="edge")
    for _ in range(2):  # along the lines, then along the columns
        image = jax.vmap(lambda line: jnp.convolve(line, smooth, mode="valid"))(image).T
    return image


def _principal(X: Array) -> tuple[Array, Array, Array]:
    """The mean, the eigenvalues of the scatter matrix descending, the eigenvectors."""
    if X.ndim != 2 or len(X) < 2:
        raise ValueError(f"X must be at least two examples in rows, got {X.shape}")
    mean = jnp.mean(X, axis=0)
    values, vectors = jnp.linalg.eigh(matmul((X - mean).T, X - mean))
    return mean, jnp.maximum(values[::-1], 0), vectors[:, ::-1]


def _truncated(mean: Array, vectors: Array, rank: Array) -> PrincipalSubspace:
    kept = jnp.arange(vectors.shape[1]) < rank
    return PrincipalSubspace(mean, jnp.where(kept, vectors, 0), rank)
