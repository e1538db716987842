"""Training in random subspaces: a step beside a step of all parameters and beside its products.

    python -m scripts.bench.subspace_training [--quick] [--output=FILE]

The 784-200-200-10 network on MNIST-5k, batches of 128, Adam, d = 750. "Products" are the matrix
products of a step alone (three forward, three for the kernels' gradients, two for the inputs'). The
sweep is the experiment's: 24 runs in subspaces and 2 of all parameters in one compiled call. Calls
are interleaved in one process, 20 steps each.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from configs.intrinsic_dimension import get_config
from experiments import harness, intrinsic_dimension, meshes, records
from experiments.intrinsic_problems import Problem
from scripts.bench.projections import interleaved
from subspace_jax import projections

OUTPUT = Path(__file__).resolve().parents[2] / "experiments/results/bench-subspace-training.json"
DIM, LAYERS = 750, (784, 200, 200, 10)
SCHEMES = ("hashed", "rolled", "fastfood")


def products(batch_size: int, num_steps: int) -> tuple[Callable[[Any], Any], Any]:
    """The products of as many steps, each step's on the one before, so that none is left out."""
    kernels = [jnp.ones(shape) / shape[0] for shape in itertools.pairwise(LAYERS)]
    x = jnp.ones((batch_size, LAYERS[0]))

    def step(kernels, _):
        seen = [x]
        for kernel in kernels:
            seen.append(seen[-1] @ kernel)
        back, gradients = seen[-1], []
        for i, kernel in reversed(list(enumerate(kernels))):
            gradients.append(seen[i].T @ back)
            back = back @ kernel.T if i else back
        return gradients[::-1], None

    run = jax.jit(lambda kernels: jax.lax.scan(step, kernels, length=num_steps)[0])
    return run.lower(kernels).compile(), kernels


def one_run(problem: Problem, batches: Any, scheme: str | None) -> tuple[Callable[[Any], Any], Any]:
    """As many steps of one run as there are batches, of z or (scheme None) of all parameters."""
    params = problem.init(jax.random.key(0))
    optimizer = optax.adam(1e-3)
    if scheme is None:
        loss, variables, constants = (
            (lambda p, constants, *batch: problem.loss(p, *batch)),
            params,
            (),
        )
    else:
        basis = getattr(projections, scheme)(jax.random.key(1), params, DIM)
        constants = (basis, params)
        variables = jnp.zeros(DIM)

        def loss(z, constants, *batch):
            return projections.restrict(problem.loss, *constants)(z, *batch)

    def step(carry, batch, constants):
        variables, memory = carry
        gradient = jax.grad(loss)(variables, constants, *batch)
        updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(variables, updates), memory), None

    run = jax.jit(lambda carry, constants: jax.lax.scan(
        partial(lambda constants, carry, batch: step(carry, batch, constants), constants),
        carry, batches,
    )[0])  # fmt: skip
    carry = (variables, optimizer.init(variables))
    compiled = run.lower(carry, constants).compile()
    return lambda carry: compiled(carry, constants), carry


def sweep(config: ConfigDict, problem: Problem) -> tuple[Callable[[Any], Any], Any]:
    """A call of the experiment: all runs, ``steps_per_call`` steps."""
    mesh = meshes.of(config)
    constants = intrinsic_dimension.start(problem, config)
    state = intrinsic_dimension.initial_state(problem, constants[0], config)
    state = jax.device_put(state, meshes.shardings(mesh, config.sharding, state))
    stack = harness.stacked(mesh, config, problem.batches, 0)
    step = partial(intrinsic_dimension.train_steps, problem, config)
    compiled = harness.compiled(mesh, config, step, state, 0, stack, *constants, at_once=True)
    held = [state]

    def call(stack):  # the state is donated
        held[0], metrics = compiled(held[0], 0, stack, *constants)
        return metrics

    return call, stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few runs, a second a row")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    config = get_config()
    if arguments.quick:
        config.update(dims=(50, 750), num_seeds=1)
    problem = intrinsic_dimension.PROBLEMS["mlp"](config)
    num_steps, num_runs = config.steps_per_call, config.num_seeds * (1 + len(config.dims))
    stack = jax.tree.map(
        lambda *xs: jnp.stack(xs)[:, :, 0], *map(problem.batches, range(num_steps))
    )
    calls = {
        "products": products(config.batch_size, num_steps),
        "all parameters": one_run(problem, stack, None),
        **{scheme: one_run(problem, stack, scheme) for scheme in SCHEMES},
        f"a sweep of {num_runs} runs, a run": sweep(config, problem),
    }
    times = interleaved(calls, 1000.0 if arguments.quick else 15_000.0)
    runs = {name: num_runs if name.startswith("a sweep") else 1 for name in calls}
    middle = {name: np.median(t) / num_steps / runs[name] for name, t in times.items()}
    least = {name: np.min(t) / num_steps / runs[name] for name, t in times.items()}
    rows = [
        {
            "step of": name,
            "ms": f"{middle[name]:.3f} ({least[name]:.3f})",
            "/ products": f"{middle[name] / middle['products']:.2f}",
            "/ all parameters": f"{middle[name] / middle['all parameters']:.2f}",
        }
        for name in calls
    ]
    for row in rows:
        print(row)
    name = list(calls)[-1]
    record = {
        "benchmark": "subspace-training",
        "title": "Training in random subspaces, a step",
        "protocol": "median (minimum) of interleaved calls of 20 steps; d = 750 of D = 199,210",
        "summary": f"a step of z (hashed) takes {middle['hashed'] / middle['all parameters']:.2f} "
        f"times a step of all parameters; in {name.removesuffix(', a run')}, a step of a run "
        f"{middle[name] / middle['products']:.2f} times its matrix products",
        "rows": rows,
    }
    records.write_json(arguments.output, record | records.provenance())


if __name__ == "__main__":
    main()
