"""Rows of the contract's table: clustering by subspaces."""

import jax
import jax.numpy as jnp

from subspace_jax.clustering import k_subspaces
from tests.rows import FIELD, Row, arrays, normal

KEY = jax.random.key(0)


def fitted(X):
    model = k_subspaces.fit(KEY, X, num_clusters=2, dim=2, num_restarts=2, maxiter=3)
    projectors = model.Q @ model.Q.conj().swapaxes(1, 2)
    return jnp.sum(projectors, axis=0), model.error  # in no order, of no frame


def bases_and_points(rng, dtype):
    return jnp.linalg.qr(normal(rng, (2, 5, 2), dtype))[0], normal(rng, (7, 5), dtype)


def model(Q):
    return k_subspaces.KSubspaces(Q, jnp.zeros((), Q.real.dtype), jnp.int32(0))


CLUSTERING_ROWS = {
    "k_subspaces.fit": Row(fitted, arrays((12, 5)), FIELD, grad=False),
    "k_subspaces.predict": Row(
        lambda Q, X: jnp.where(k_subspaces.predict(model(Q), X)[:, None] == 0, X, 0),
        bases_and_points,
        FIELD,
    ),
    "k_subspaces.score": Row(lambda Q, X: k_subspaces.score(model(Q), X), bases_and_points, FIELD),
}
