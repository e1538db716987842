"""Rows of the contract's table: the shape of a loss."""

from functools import partial

import jax
import jax.numpy as jnp

from subspace_jax import landscape
from tests.rows import FIELD, Row, arrays, bases, keys, normal, params

KEY = jax.random.key(0)


def losses(p):
    return jnp.sum(jnp.tanh(p["w"]), axis=1) ** 2 + jnp.sum(jnp.sin(p["b"]))


def loss(p):
    return jnp.sum(losses(p))


def two(rng, dtype):
    return params(rng, dtype), params(rng, dtype)


def three(rng, dtype):
    return *two(rng, dtype), params(rng, dtype)


def quadratic(B):
    """With eigenvalues apart."""
    return B + B.T + jnp.diag(6 * jnp.arange(len(B), dtype=B.dtype))


def top(B):
    A = quadratic(B)
    ritz = landscape.top_eigenspace(lambda v: A @ v, jnp.zeros(len(B), B.dtype), k=2)[0]
    return ritz.values, ritz.vectors @ ritz.vectors.T


def principal(X):
    found = landscape.trajectory_pca({"x": X}, k=2)
    return found.center, found.coordinates @ found.directions["x"].T, found.explained


def saturating(key, dim):
    return (dim / (dim + jax.random.uniform(key))).astype(jnp.float32)


def swept(key):
    direct = partial(saturating, dim=1000)
    found = landscape.intrinsic_dimension(
        key, saturating, direct, (2, 9), num_seeds=3, num_rounds=2, num_bootstrap=5
    )
    return found.scores, found.individual, found.common


LANDSCAPE_ROWS = {
    "landscape.hessian": Row(lambda p, v: landscape.hessian(loss, p)(v), two),
    "landscape.gradient_second_moment": Row(
        lambda p, v: landscape.gradient_second_moment(losses, p)(v), two
    ),
    "landscape.top_eigenspace": Row(top, arrays((6, 6)), dtypes=("float64", "float32")),
    "landscape.gradient_fraction": Row(
        landscape.gradient_fraction, lambda r, d: (*bases(2)(r, d), normal(r, (6,), d)), FIELD
    ),
    "landscape.component": Row(
        landscape.component, lambda r, d: (*bases(2)(r, d), normal(r, (6,), d)), FIELD
    ),
    "landscape.overlap": Row(landscape.overlap, bases(2, 3), FIELD),
    "landscape.trajectory_pca": Row(principal, arrays((7, 4))),
    "landscape.intrinsic_dimension": Row(swept, keys, dtypes=("float32",), grad=False),
    "landscape.smallest_dimension": Row(
        lambda scores, baseline: landscape.smallest_dimension(
            jax.random.key(0), jnp.arange(1, 5), scores, baseline, num_bootstrap=5
        ),
        arrays((4, 3, 6), (3, 6)),
        grad=False,
    ),
    "landscape.path": Row(lambda *trees: landscape.path(0.3, *trees), three),
    "landscape.path_losses": Row(
        lambda ts, *trees: landscape.path_losses(loss, ts, *trees),
        lambda r, d: (normal(r, (2,), d), *three(r, d)),
    ),
    "landscape.path_loss": Row(
        lambda key: landscape.path_loss(key, jnp.sum, jnp.zeros(3), jnp.ones(3)),
        keys,
        dtypes=("float32",),
        grad=False,
    ),
    "landscape.utilized_rank": Row(
        lambda W, X: landscape.utilized_rank(W, X, energy=0.8).weights, arrays((4, 3), (9, 4))
    ),
}
