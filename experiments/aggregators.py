"""What a parameter server may make of its workers' gradients, and what liars may send.

Gradients are a matrix (p, n), a row for each of the p workers. Every rule takes the number f of
Byzantine workers, which may be traced; the flag aggregator and the median do not use it.
"""

from functools import partial

import jax
import jax.numpy as jnp

from subspace_jax.manifolds import means
from subspace_jax.typing import Array, Float, Integer

matmul = partial(jnp.matmul, precision="highest")
Gradients = Float[Array, "p n"]
Update = Float[Array, " n"]
Count = Integer[Array, ""] | int
_PIECE = 1 << 15


def mean(G: Gradients, f: Count) -> Update:
    """The mean: one liar is enough to make it anything."""
    del f
    return jnp.mean(G, axis=0)


def median(G: Gradients, f: Count) -> Update:
    """The median of each coordinate."""
    del f
    return jnp.median(G, axis=0)


def trimmed_mean(G: Gradients, f: Count) -> Update:
    """The mean of each coordinate without its f largest and f smallest values.

    Reference: Yin, Chen, Ramchandran & Bartlett (2018).
    """
    return _middle_mean(jnp.sort(G, axis=0), f, len(G) - 2 * f)


def krum(G: Gradients, f: Count) -> Update:
    """The gradient nearest to its p - f - 2 nearest neighbours.

    Reference: Blanchard, El Mhamdi, Guerraoui & Stainer (2017).
    """
    return G[jnp.argmin(_krum_scores(_squared_distances(G), jnp.ones(len(G), bool), f))]


def multi_krum(G: Gradients, f: Count) -> Update:
    """The mean of the p - f gradients of the best Krum scores."""
    scores = _krum_scores(_squared_distances(G), jnp.ones(len(G), bool), f)
    chosen = jnp.argsort(jnp.argsort(scores)) < len(G) - f
    return chosen @ G / jnp.sum(chosen)


def bulyan(G: Gradients, f: Count) -> Update:
    """Krum's choice, p - 2 f times, then the mean of the values nearest to their median.

    Sound for p >= 4 f + 3 only.

    Reference: El Mhamdi, Guerraoui & Rouault (2018).
    """
    p = len(G)
    distances = _squared_distances(G)

    def choose(step, left):
        best = jnp.argmin(_krum_scores(distances, left, f))
        return left & ((jnp.arange(p) != best) | (step >= p - 2 * f))

    left = jax.lax.fori_loop(0, p, choose, jnp.ones(p, bool))
    num_chosen = p - 2 * f
    ascending = jnp.sort(jnp.where(left[:, None], jnp.inf, G), axis=0)
    middle = jnp.where(
        num_chosen % 2 == 1,
        ascending[num_chosen // 2],
        (ascending[num_chosen // 2 - 1] + ascending[num_chosen // 2]) / 2,
    )
    distance = jnp.abs(ascending - middle)
    nearest = jnp.argsort(jnp.argsort(distance, axis=0), axis=0) < num_chosen - 2 * f
    return jnp.sum(jnp.where(nearest, ascending, 0), axis=0) / (num_chosen - 2 * f)


def flag(G: Gradients, f: Count) -> Update:
    """The mean of the unit gradients, projected to their flag median, in the median length.

    The median length makes its learning rates comparable: the paper's update has none.

    Reference: Almasi, Mishra, Vamanan & Ravi (2024), "Flag Aggregator", algorithm 1.
    """
    del f
    return matmul(flag_coefficients(gram_matrix(G)), G)


def gram_matrix(G: Gradients) -> Float[Array, "p p"]:
    """G G^T; the sum over n goes by pieces, which fit the cache and round less."""
    width = min(_PIECE, G.shape[1])
    whole = G.shape[1] // width

    def add(i, K):
        piece = jax.lax.dynamic_slice_in_dim(G, i * width, width, axis=1)
        return K + matmul(piece, piece.T)

    rest = G[:, whole * width :]
    return jax.lax.fori_loop(0, whole, add, matmul(rest, rest.T))


def flag_coefficients(K: Float[Array, "p p"], *, pairwise: float = 1.0) -> Float[Array, " p"]:
    """What to multiply the gradients by, from their Gram matrix: all that workers exchange.

    The flag has (p + 1) / 2 directions, rounded up, and the differences of gradients have the
    weight ``pairwise``.
    """
    p = len(K)
    X, _ = means.flag_median_coefficients(K, num_directions=(p + 2) // 2, pairwise=pairwise)
    sizes = jnp.sqrt(jnp.diagonal(K))
    units = jnp.where(sizes > 0, 1 / jnp.where(sizes > 0, sizes, 1), 0) / p
    return jnp.median(sizes) * matmul(X, matmul(X.T, matmul(K, units)))


def _krum_scores(distances: Array, among: Array, f: Count) -> Array:
    """The sum of squared distances to the nearest neighbours, infinite for rows not ``among``."""
    rows = jnp.sort(jnp.where(among[None, :], distances, jnp.inf), axis=1)
    counted = jnp.arange(len(rows)) < jnp.maximum(jnp.sum(among) - f - 2, 1)
    scores = jnp.sum(jnp.where(counted, rows, 0), axis=1)
    return jnp.where(among, jnp.minimum(scores, jnp.finfo(scores.dtype).max), jnp.inf)


def _squared_distances(G: Gradients) -> Array:
    """Between rows; infinite from a row to itself."""
    gram = gram_matrix(G)
    squares = jnp.diagonal(gram)
    distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
    return distances + jnp.diag(jnp.full(len(G), jnp.inf))


def _middle_mean(ascending: Array, first: Count, count: Count) -> Array:
    row = jnp.arange(len(ascending))
    kept = (row >= first) & (row < first + count)
    return jnp.sum(jnp.where(kept[:, None], ascending, 0), axis=0) / count


def random_attack(key: jax.Array, G: Gradients, liars: Array) -> Gradients:
    """Noise ten times as long as an honest gradient."""
    noise = jax.random.normal(key, G.shape, G.dtype)
    honest = jnp.sqrt(jnp.mean(_honest(G, liars) ** 2))
    return jnp.where(liars[:, None], 10 * honest * noise, G)


def sign_flip(key: jax.Array, G: Gradients, liars: Array) -> Gradients:
    """The liar's own gradient, reversed."""
    del key
    return jnp.where(liars[:, None], -G, G)


def scaled_flip(key: jax.Array, G: Gradients, liars: Array) -> Gradients:
    """The honest mean, reversed and ten times as long."""
    del key
    return jnp.where(liars[:, None], -10 * _honest(G, liars), G)


def little_is_enough(key: jax.Array, G: Gradients, liars: Array) -> Gradients:
    """The honest mean less 1.5 standard deviations: inside the honest spread, all liars alike.

    Reference: Baruch, Baruch & Goldberg (2019).
    """
    del key
    middle = _honest(G, liars)
    spread = jnp.sqrt(_honest((G - middle) ** 2, liars))
    return jnp.where(liars[:, None], middle - 1.5 * spread, G)


def _honest(G: Gradients, liars: Array) -> Update:
    """The mean of the honest rows."""
    return jnp.where(liars, 0, 1) @ G / jnp.sum(~liars)
