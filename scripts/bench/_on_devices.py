"""A training step over the forced devices of this process, for `scripts.bench.scaling`.

    python -m scripts.bench._on_devices MODEL BATCH WIDTH

prints JSON: what the compiled step sends, how far its result is from that of one device, the
seconds of compiling, and of saving and restoring its state.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from configs.common import training
from experiments import harness, meshes

IN, OUT = 64, 16
RULES = (
    ("in/kernel$", (None, "model")),
    ("in/bias$", ("model",)),
    ("out/kernel$", ("model", None)),
)
_OPTIMIZER = optax.adam(1e-3)


def config(model: int) -> ConfigDict:
    """One step a call; sharded where there is a ``model`` axis."""
    knobs = training()
    knobs.steps_per_call = 1
    knobs.update(mesh_model=model, sharding=RULES if model > 1 else ())
    return knobs


def initial_state(width: int) -> dict:
    """Parameters of a network with one hidden layer, and Adam's moments."""
    keys = jax.random.split(jax.random.key(0))
    sizes = {"in": (IN, width), "out": (width, OUT)}
    params = {
        name: {"kernel": jax.random.normal(key, size) / size[0] ** 0.5, "bias": jnp.zeros(size[1])}
        for (name, size), key in zip(sizes.items(), keys, strict=True)
    }
    return {"params": params, "optimizer": _OPTIMIZER.init(params)}


def train_step(state, batch, key):
    """Adam on a mean square."""
    del key

    def loss(params):
        x, y = batch
        hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"])
        return jnp.mean((hidden @ params["out"]["kernel"] + params["out"]["bias"] - y) ** 2)

    value, grads = jax.value_and_grad(loss)(state["params"])
    updates, memory = _OPTIMIZER.update(grads, state["optimizer"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "optimizer": memory}, {"loss": value}


def examples(size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step."""
    x = np.random.default_rng(step).normal(size=(size, IN)).astype(jnp.zeros(()).dtype)
    return x, np.sin(x[:, :OUT])


def measure(model: int, batch: int, width: int) -> dict:
    """All that is measured on the devices of this process."""
    knobs = config(model)
    mesh = meshes.of(knobs)
    lies = meshes.shardings(mesh, knobs.sharding, jax.eval_shape(lambda: initial_state(width)))
    state = jax.device_put(initial_state(width), lies)
    stack = harness.stacked(mesh, knobs, lambda step: examples(batch, step), 0)
    start = time.perf_counter()
    call = harness.compiled(mesh, knobs, train_step, state, 0, stack)
    seconds = time.perf_counter() - start
    saved = _checkpoint(state)
    found, _ = call(state, 0, stack)
    alone, _ = jax.jit(train_step)(initial_state(width), examples(batch, 0), None)
    sent = meshes.collectives(call.as_text())
    # Of the moments, that is of the gradient: Adam's first step is its sign.
    error = _distance(found["optimizer"][0].mu, alone["optimizer"][0].mu)
    return {"sent": sent, "error": error, "compile": seconds} | saved


def _checkpoint(state: dict) -> dict:
    """Median seconds of three turns, and bytes."""
    times, like = [], jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    with (
        tempfile.TemporaryDirectory() as folder,
        ocp.CheckpointManager(Path(folder).absolute()) as manager,
    ):
        for step in range(1, 4):
            start = time.perf_counter()
            manager.save(step, args=ocp.args.StandardSave(state))
            manager.wait_until_finished()
            saved = time.perf_counter()
            jax.block_until_ready(manager.restore(step, args=ocp.args.StandardRestore(like)))
            times.append((saved - start, time.perf_counter() - saved))
        files = [file for file in (Path(folder) / "3").rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    save, restore = np.median(times, axis=0)
    return {"save": save, "restore": restore, "num_bytes": size}


def _distance(x: dict, y: dict) -> float:
    """Relative, of all leaves together."""
    x, y = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (x, y))
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
