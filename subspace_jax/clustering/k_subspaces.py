"""K subspaces through the origin, each the principal subspace of the points nearest to it.

The mean squared distance of points to their nearest subspace never rises: points are assigned to
the subspace that keeps most of their energy, then each subspace becomes the principal one of its
points. It has many local minima, so the best of several starts is returned. A start chooses a
point with the probability of its squared distance to the subspaces so far, and spans it and the
points that are best aligned with it. A cluster that loses all points takes the worst explained.

Reference: Bradley & Mangasarian (2000), "k-Plane clustering"; Tseng (2000), "Nearest q-flat to m
points"; the starts are those of Arthur & Vassilvitskii (2007), "k-means++", with subspaces for
centres.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.linalg._matmul import matmul
from subspace_jax.typing import Array, Float, Inexact, Integer, Key

__all__ = ["KSubspaces", "fit", "predict", "score"]


class KSubspaces(NamedTuple):
    """Fitted subspaces."""

    Q: Inexact[Array, "K n d"]
    """Orthonormal columns each."""
    error: Float[Array, ""]
    """Mean squared distance of the training points to their nearest subspace."""
    num_steps: Integer[Array, ""]
    """Of the start that was best; ``maxiter`` if it had not come to rest."""


def fit(
    key: Key,
    X: Inexact[Array, "N n"],
    *,
    num_clusters: int,
    dim: int,
    num_restarts: int = 10,
    maxiter: int = 100,
) -> KSubspaces:
    """Subspaces to which the rows of ``X`` are near, by the best of several starts.

    The starts run together; each takes num_clusters min(N, n)^2 numbers. Subspaces of fewer than
    ``dim`` independent points have surplus directions that are arbitrary.

    Args:
        key: PRNG key of the starts.
        X: points in rows, not centred.
        num_clusters: K.
        dim: of each subspace, 1 <= dim <= min(N, n).
        num_restarts: starts.
        maxiter: most steps of each; none are made once no point changes its cluster.

    Raises:
        ValueError: points that are not rows of a matrix, or a number out of bounds.
    """
    if X.ndim != 2 or not 1 <= dim <= min(X.shape):
        raise ValueError(f"dim must be in 1 to min(N, n) of X, got {dim} for {X.shape}")
    if min(num_clusters, num_restarts) < 1 or maxiter < 0:
        raise ValueError(
            "num_clusters and num_restarts must be >= 1, maxiter >= 0: "
            f"got {num_clusters}, {num_restarts}, {maxiter}"
        )
    # Nothing leaves the span of the points: its coordinates are fewer if N < n.
    B, R = jnp.linalg.qr(X.T) if len(X) < X.shape[1] else (None, X.T)
    run = partial(_descend, Z=R.T, num_clusters=num_clusters, dim=dim, maxiter=maxiter)
    models = jax.vmap(run)(jax.random.split(key, num_restarts))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(models.error)], models)
    return best if B is None else best._replace(Q=matmul(B, best.Q))


def predict(model: KSubspaces, X: Inexact[Array, "*batch n"]) -> Integer[Array, "*batch"]:
    """The subspace that keeps most energy of each point: the nearest.

    Raises:
        ValueError: points of another dimension.
    """
    _check_points(model, X)
    return jnp.argmax(_energies(X, model.Q), axis=-1)


def score(model: KSubspaces, X: Inexact[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """The squared distance of each point to the nearest subspace.

    Raises:
        ValueError: points of another dimension.
    """
    _check_points(model, X)
    Q = model.Q[jnp.argmax(_energies(X, model.Q), axis=-1)]
    # by the residual: a difference of energies would lose the digits of a small one
    return jnp.sum(jnp.abs(linalg.project_out(Q, X[..., None])[..., 0]) ** 2, axis=-1)


def _descend(key: Key, *, Z: Array, num_clusters: int, dim: int, maxiter: int) -> KSubspaces:
    """One start, and steps until no point changes its cluster."""

    def unfinished(state):
        _, _, moving, num_steps = state
        return moving & (num_steps < maxiter)

    def step(state):
        Q, labels, _, num_steps = state
        Q = _principal(Z, labels, _distances(Z, Q), num_clusters, dim)
        new = jnp.argmax(_energies(Z, Q), axis=1)
        return Q, new, jnp.any(new != labels), num_steps + 1

    Q = _start(key, Z, num_clusters, dim)
    start = Q, jnp.argmax(_energies(Z, Q), axis=1), jnp.array(True), jnp.int32(0)
    Q, _, _, num_steps = jax.lax.while_loop(unfinished, step, start)
    model = KSubspaces(Q, jnp.zeros((), Z.real.dtype), num_steps)
    return model._replace(error=jnp.mean(score(model, Z)))


def _start(key: Key, Z: Array, num_clusters: int, dim: int) -> Array:
    sizes = jnp.linalg.norm(Z, axis=1, keepdims=True)
    directions = Z / jnp.where(sizes > 0, sizes, 1)

    def add(distances, key):
        chosen = jax.random.categorical(key, jnp.log(distances))
        cosines = jnp.abs(matmul(directions, directions[chosen].conj()))
        aligned = jax.lax.top_k(cosines, dim)[1]
        Q = linalg.orthonormalize(Z[aligned].T)
        return jnp.minimum(distances, _distances(Z, Q[None])), Q

    return jax.lax.scan(add, sizes[:, 0] ** 2, jax.random.split(key, num_clusters))[1]


def _principal(Z: Array, labels: Array, distances: Array, num_clusters: int, dim: int) -> Array:
    """The principal subspace of each cluster; of an empty one, that of the farthest points."""
    members = labels[:, None] == jnp.arange(num_clusters)
    empty = ~jnp.any(members, axis=0)
    # The first empty cluster takes the ``dim`` farthest points, the second the next, and so on.
    turn = jnp.argsort(jnp.argsort(-distances)) // dim
    members = jnp.where(empty, turn[:, None] == jnp.cumsum(empty) - 1, members)
    weighted = members.T[:, None, :] * Z.T
    vectors = jnp.linalg.eigh(matmul(weighted, Z.conj()))[1]
    return vectors[..., ::-1][..., :dim]


def _energies(X: Array, Q: Array) -> Array:
    """|Q_k^H x|^2, (*batch, K)."""
    K, n, d = Q.shape
    coordinates = matmul(X, Q.conj().swapaxes(0, 1).reshape(n, K * d))
    return jnp.sum(jnp.abs(coordinates.reshape(*X.shape[:-1], K, d)) ** 2, axis=-1)


def _distances(Z: Array, Q: Array) -> Array:
    """Squared, to the nearest subspace, up to the rounding of |z|^2."""
    left = jnp.sum(jnp.abs(Z) ** 2, axis=1) - jnp.max(_energies(Z, Q), axis=1)
    return jnp.maximum(left, 0)


def _check_points(model: KSubspaces, X: Array) -> None:
    if X.shape[-1:] != model.Q.shape[1:2]:
        raise ValueError(f"points of dimension {model.Q.shape[1]} are expected, got {X.shape}")
