"""One class between two subspaces: generalized one-class discriminative subspaces (GODS).

Normal examples shall lie on the positive side of all K hyperplanes of one orthonormal frame and on
the negative side of all K of another. The minimum over coordinates depends on the frames, not only
on their spans: the frames are points of Stiefel manifolds.

Reference: Wang & Cherian (2019), "GODS: Generalized one-class discriminative subspaces for anomaly
detection"; Cherian & Wang (2021), arXiv 2106.13272.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.linalg._matmul import matmul
from subspace_jax.manifolds import euclidean, product, stiefel
from subspace_jax.optim import riemannian_conjugate_gradient
from subspace_jax.typing import Array, Float, Key

__all__ = ["Frames", "Gods", "fit", "objective", "score"]


class Frames(NamedTuple):
    """Two orthonormal frames and their offsets."""

    W1: Float[Array, "d K"]
    W2: Float[Array, "d K"]
    b1: Float[Array, " K"]
    b2: Float[Array, " K"]


class Gods(NamedTuple):
    """A fitted classifier."""

    frames: Frames
    margin: Float[Array, ""]
    info: Any
    """Of the minimizer."""


_MANIFOLD: Any = product.of(Frames._make([stiefel, stiefel, euclidean, euclidean]))


def fit(
    key: Key,
    X: Float[Array, "n d"],
    *,
    num_directions: int,
    margin: float = 0.1,
    penalty: float = 10.0,
    maxiter: int = 200,
) -> Gods:
    """Frames between which the normal examples lie, by Riemannian conjugate gradients.

    One direction in each frame is the basic form (BODS). Both frames start at the same random
    directions, each offset where a twentieth of the examples is on the wrong side. The loss has
    many minima; its leading term likes directions of little variance.

    Args:
        key: PRNG key.
        X: normal examples in rows; scale them so that their norms are about one.
        num_directions: K of each frame.
        margin: eta, the distance that normal examples keep from the hyperplanes.
        penalty: nu, the weight of violations.
        maxiter: steps of the minimizer.

    Raises:
        ValueError: fewer than two examples, K outside of 1 to d, a negative margin or penalty.

    Reference: Wang & Cherian (2019), equations (5) to (7).
    """
    if X.ndim != 2 or len(X) < 2:
        raise ValueError(f"X must be at least two examples in rows, got {X.shape}")
    if not 1 <= num_directions <= X.shape[1]:
        raise ValueError(f"num_directions must be in 1 to {X.shape[1]}, got {num_directions}")
    if margin < 0 or penalty < 0:
        raise ValueError(f"margin and penalty must be >= 0, got {margin} and {penalty}")
    loss = objective(X, margin=margin, penalty=penalty)
    frames, info = riemannian_conjugate_gradient(
        loss, _start(key, X, num_directions, margin), manifold=_MANIFOLD, maxiter=maxiter
    )
    return Gods(frames, jnp.asarray(margin, X.dtype), info)


def objective(
    X: Float[Array, "n d"], *, margin: float, penalty: float
) -> Callable[[Frames], Float[Array, ""]]:
    """The loss of frames: how far apart they hold the data, and who is on the wrong side."""

    def loss(frames: Frames) -> Array:
        above, below = matmul(X, frames.W1) + frames.b1, matmul(X, frames.W2) + frames.b2
        apart = jnp.mean(jnp.sum((above - below) ** 2, axis=1))
        apart += jnp.sum((frames.b1 - frames.b2) ** 2)
        wrong = jax.nn.relu(margin - _least(above)) ** 2
        wrong += jax.nn.relu(margin - _least(-below)) ** 2
        return (apart + penalty * jnp.mean(wrong)) / 2

    return loss


def score(model: Gods, X: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """How far examples are on the wrong side; normal ones have a score of at most zero.

    Raises:
        ValueError: examples with another number of features.
    """
    frames = model.frames
    if X.shape[-1] != len(frames.W1):
        raise ValueError(f"examples of {len(frames.W1)} features are expected, got {X.shape}")
    above, below = matmul(X, frames.W1) + frames.b1, matmul(X, frames.W2) + frames.b2
    return model.margin - jnp.minimum(_least(above), _least(-below))


def _least(x: Array) -> Array:
    """The least entry along the last axis.

    The derivative of `jnp.min` compares the entries with the result once more, and is 0 / 0 where a
    compiler has computed them anew, in another rounding.
    """
    return jnp.take_along_axis(x, jnp.argmin(x, axis=-1, keepdims=True), axis=-1)[..., 0]


def _start(key: Key, X: Array, num_directions: int, margin: float) -> Frames:
    W = stiefel.random_point(key, X.shape[1], num_directions, dtype=X.dtype)
    low, high = jnp.quantile(matmul(X, W), jnp.asarray([0.05, 0.95], X.dtype), axis=0)
    return Frames(W, W, margin - low, -margin - high)
