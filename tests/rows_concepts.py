"""Rows of the contract's table: concepts in networks."""

import jax.numpy as jnp

from subspace_jax.concepts import wanda
from tests.rows import Row, arrays

CONCEPT_ROWS = {
    "wanda.norms": Row(wanda.norms, arrays((5, 4))),
    "wanda.scores": Row(wanda.scores, arrays((5, 4), (5,))),
    "wanda.top": Row(lambda S: jnp.where(wanda.top(S, 0.4), S, 0), arrays((5, 4)), grad=False),
    "wanda.located": Row(
        lambda S, R: jnp.where(wanda.located(S, R, 0.4), S, 0),
        arrays((5, 4), (5, 4)),
        grad=False,
    ),
    "wanda.shared": Row(
        lambda S: jnp.where(wanda.shared(S > 0, 2), S[0], 0), arrays((3, 5, 4)), grad=False
    ),
    "wanda.remove": Row(lambda W, S: wanda.remove(W, S > 0), arrays((5, 4), (5, 4)), grad=False),
}
