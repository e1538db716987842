"""The experiment on low-rank optimizers: what it counts, and its step on many devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.low_rank_training import get_config
from experiments import low_rank_training

ROOT = Path(__file__).resolve().parents[1]


def state_shapes(method, rank):
    config = get_config("smoke")
    init, _ = low_rank_training.make_step(config, method, rank, 10)
    return jax.eval_shape(init, jax.random.key(0))


def test_embeddings_and_head_keep_the_moments_of_adam_and_other_matrices_do_not():
    params, memory = state_shapes("GaLore", 4)
    _, width, _, ff_width, vocab = get_config("smoke").shape
    outside = 2 * vocab * width + 3 * width
    per_matrix = {
        (width, width): 4 * (width + 2 * width),
        (width, ff_width): 4 * (width + 2 * ff_width),
        (ff_width, width): 4 * (width + 2 * ff_width),
    }
    inside = 4 * per_matrix[width, width] + 3 * per_matrix[width, ff_width]
    floats = sum(x.size for x in jax.tree.leaves(memory) if x.dtype == jnp.float32)
    assert floats == 2 * outside + inside
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < floats


@pytest.mark.parametrize("method", low_rank_training.METHODS)
def test_every_method_has_a_state_that_grows_with_the_rank_only_where_it_has_one(method):
    few, many = (
        sum(x.size for x in jax.tree.leaves(state_shapes(method, rank)[1])) for rank in (2, 8)
    )
    assert (many > few) == (method != "Adam")


STEPS = """
import json, jax, jax.numpy as jnp, numpy as np
from configs.low_rank_training import get_config
from experiments import low_rank_training
config = get_config("llama60m")
config.batch_size, config.context = 8, 16
config.shape = (2, *config.shape[1:])  # layers; the rest is the 60M shape
init, step = low_rank_training.make_step(config, "GaLore", config.rank, config.num_steps)
text = jnp.asarray(np.random.default_rng(0).integers(0, 256, 5000), jnp.uint8)
state, step = jax.jit(init)(jax.random.key(0)), jax.jit(step, donate_argnums=0)
losses = []
for i in range(2):
    state, loss = step(state, i, 1e-2, jax.random.key(1), text)
    losses.append(float(loss))
devices = len(loss.sharding.device_set)
finite = all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state[0]))
print(json.dumps({"losses": losses, "devices": devices, "finite": finite}))
"""


@pytest.mark.slow
def test_two_steps_of_two_layers_of_llama_60m_on_eight_devices_are_those_of_one():
    found = {}
    for count in (1, 8):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        done = subprocess.run(
            [sys.executable, "-c", STEPS],
            cwd=ROOT,
            env=os.environ | flags | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        found[count] = json.loads(done.stdout.splitlines()[-1])
        assert found[count]["devices"] == count
        assert found[count]["finite"]
    np.testing.assert_allclose(found[8]["losses"], found[1]["losses"], rtol=1e-3)
    assert found[1]["losses"][0] == pytest.approx(np.log(32_000), abs=0.7)
