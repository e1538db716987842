"""A step of CG on a grid that lies over this process's devices in two axes, by each library.

    python -m scripts.bench._on_grids SIZE

prints JSON, by library: what the loop of the compiled solve sends in a step, how far the solution
is from that of one device, and the seconds of compiling. For `scripts.bench.scaling`.
"""

import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments import meshes
from scripts.bench import _systems as systems
from scripts.bench._solvers import from_jax, from_lineax, from_solvax, ours

STEPS = 100


def measure(size: int) -> dict[str, dict]:
    """All that is measured on the devices of this process."""
    mesh = jax.make_mesh(
        (jax.device_count() // 2, 2), ("rows", "columns"), axis_types=(AxisType.Auto,) * 2
    )
    system = systems.poisson(size, size, spacing=1 / size)
    (A,) = system.operators("float32")
    alone = jnp.asarray(system.b, jnp.float32)
    shared = jax.device_put(alone, NamedSharding(mesh, PartitionSpec("rows", "columns")))
    entries = (
        ours("cg", rtol=None, maxiter=STEPS),
        from_jax("cg", tol=0.0, maxiter=STEPS),
        from_lineax("CG", rtol=0.0, max_steps=STEPS),
        from_solvax("pcg", rtol=0.0, max_steps=STEPS),
    )
    found = {}
    for entry in entries:
        solve = jax.jit(partial(entry.solve, A))
        start = time.perf_counter()
        program = solve.lower(shared).compile()
        seconds = time.perf_counter() - start
        x, wanted = np.asarray(program(shared)), np.asarray(solve(alone))
        error = float(np.linalg.norm(x - wanted) / np.linalg.norm(wanted))
        # What is not in the program's entry is in its loop: of a branch, as if it were taken.
        loop = program.as_text().partition("\nENTRY")[0]
        found[entry.library] = {
            "sent": meshes.collectives(loop), "error": error, "compile": seconds
        }  # fmt: skip
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
