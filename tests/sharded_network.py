"""A network whose hidden layer may lie over ``model``: what tests of many devices train."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.common import training

IN, HIDDEN, OUT = 6, 16, 3
BATCH = 32
RULES = (
    ("in/kernel$", (None, "model")),
    ("in/bias$", ("model",)),
    ("out/kernel$", ("model", None)),
)


def config(model, rules, **changes):
    knobs = training()
    knobs.update(num_steps=20, steps_per_call=5, log_every=10, checkpoint_every=10)
    knobs.update(mesh_model=model, sharding=rules, **changes)
    return knobs


def initial_state():
    keys = jax.random.split(jax.random.key(0))
    sizes = {"in": (IN, HIDDEN), "out": (HIDDEN, OUT)}
    params = {
        name: {"kernel": jax.random.normal(key, size) / 3, "bias": jnp.zeros(size[1])}
        for (name, size), key in zip(sizes.items(), keys, strict=True)
    }
    return {"params": params, "optimizer": optax.adam(1e-2).init(params)}


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"])
    return jnp.mean((hidden @ params["out"]["kernel"] + params["out"]["bias"] - y) ** 2)


def train_step(state, batch, key):
    del key
    value, grads = jax.value_and_grad(loss)(state["params"], *batch)
    updates, memory = optax.adam(1e-2).update(grads, state["optimizer"], state["params"])
    state = {"params": optax.apply_updates(state["params"], updates), "optimizer": memory}
    return state, {"loss": value}


def batches(step):
    x = np.random.default_rng(step).normal(size=(BATCH, IN)).astype(jnp.zeros(()).dtype)
    return x, np.sin(x[:, :OUT])


def assert_as_by_hand(state, num_steps):
    """The state is that of so many steps one at a time on one device; in float64."""
    alone, step = initial_state(), jax.jit(train_step)
    for i in range(num_steps):
        alone, _ = step(alone, batches(i), None)
    chex.assert_trees_all_close(state, alone, rtol=1e-10, atol=1e-13)
