"""Sequences of gradients, and what an optimizer makes of them."""

import jax
import jax.numpy as jnp
import numpy as np


def gradients(num, shape=(6, 4), seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(num, *shape)), jnp.float32)


def run(optimizer, grads):
    """The updates and states on a given sequence of gradients."""
    state, found = optimizer.init(grads[0]), []
    step = jax.jit(optimizer.update)
    for grad in grads:
        update, state = step(grad, state)
        found.append((update, state))
    return found
