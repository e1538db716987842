"""What tests of many devices train: a network whose hidden layer may lie over ``model``."""

import chex
import jax

from configs.common import training
from scripts.bench import _on_devices

HIDDEN, BATCH = 16, 32


def config(model, rules, **changes):
    knobs = training()
    knobs.update(num_steps=20, steps_per_call=5, log_every=10, checkpoint_every=10)
    knobs.update(mesh_model=model, sharding=rules, **changes)
    return knobs


def initial_state():
    return _on_devices.initial_state(HIDDEN)


def batches(step):
    return _on_devices.examples(BATCH, step)


def assert_as_by_hand(state, num_steps):
    """The state is that of so many steps one at a time on one device; in float64."""
    alone, step = initial_state(), jax.jit(_on_devices.train_step)
    for i in range(num_steps):
        alone, _ = step(alone, batches(i), None)
    chex.assert_trees_all_close(state, alone, rtol=1e-10, atol=1e-13)
