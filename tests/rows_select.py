"""Rows of the contract's table: targeted data selection."""

import jax.numpy as jnp

from subspace_jax import optim
from tests.rows import Row, arrays, normal, params


def selected(train, validation):
    found = optim.select(train, validation, 3, rank=2, energy=1.0)
    return found.scores, jnp.sum(found.projections**2, axis=1), found.scores[found.indices]


def projector(grads):
    found = optim.target_subspace(grads, rank=3, energy=0.8)
    return found.Q @ found.Q.T, found.singular_values


def loss(p, x):
    return jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) ** 2)


def examples(rng, dtype):
    return params(rng, dtype), normal(rng, (3, 5), dtype), normal(rng, (24, 2), dtype)


SELECT_ROWS = {
    "optim.select": Row(selected, arrays((7, 6), (4, 6)), grad=False),
    "optim.target_subspace": Row(projector, arrays((4, 6)), grad=False),
    "optim.target_scores": Row(optim.target_scores, arrays((7, 3), (4, 3))),
    "optim.per_example_gradients": Row(
        lambda p, x, Q: optim.per_example_gradients(loss, p, x, Q=Q, chunk_size=2), examples
    ),
}
