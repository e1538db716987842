"""Rows of the contract's table: low-rank optimizers and what moves their bases."""

import jax
import jax.numpy as jnp
import optax

from subspace_jax import optim
from tests.rows import Row, arrays, params

KEY = jax.random.key(0)


def moved(policy):
    """The subspace to which a policy moves that of the first unit vectors."""

    def function(grad):
        Q = policy(KEY, jnp.eye(*grad.shape, dtype=grad.dtype)[:, :2], grad)
        return Q @ Q.T

    return Row(function, arrays((6, 5)), grad=False)


def updates(optimizer, *, grad=False):
    """The second update, with the first's basis."""

    def function(grads):
        _, state = optimizer.update(grads, optimizer.init(grads))
        return optimizer.update(jax.tree.map(jnp.cos, grads), state)[0]

    return Row(function, lambda rng, dtype: (params(rng, dtype),), grad=grad)


def avoiding(grad):
    used = jnp.eye(6, dtype=grad.dtype)[:, 3:]
    return optim.complement(used)(KEY, jnp.eye(6, dtype=grad.dtype)[:, :2], grad)[3:]


LOW_RANK_ROWS = {
    "optim.singular": moved(optim.singular()),
    "optim.sampled": moved(optim.sampled(3)),
    "optim.online": moved(optim.online(optax.sgd(0.1))),
    "optim.walk": moved(optim.walk(0.1)),
    "optim.jump": moved(optim.jump()),
    "optim.track": moved(optim.track(0.5)),
    "optim.complement": Row(avoiding, arrays((6, 5)), grad=False),
    "optim.low_rank": updates(optim.low_rank(rank=2, basis=optim.jump()), grad=True),
    "optim.recover": updates(
        optim.low_rank(rank=2, basis=optim.jump(), residual=optim.recover()), grad=True
    ),
    "optim.matrix_axes": updates(optim.low_rank(rank=3, axes=optim.matrix_axes)),
    "optim.scale_by_subset_norm": updates(optim.scale_by_subset_norm(), grad=True),
    **{
        f"optim.{paper}": updates(getattr(optim, paper)(0.1, rank=2))
        for paper in (
            "galore",
            "online_subspace_descent",
            "sara",
            "grasswalk",
            "grassjump",
            "subspace_momentum",
        )
    },
}
