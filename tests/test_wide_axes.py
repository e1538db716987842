"""What is wide lies over eight devices: the result is that of one, and little travels.

Tests of the diffusion sampler's measurements, of low-rank states and of an inner product that sums
over devices stand with those methods.
"""

import pytest

CLASSES = """
import chex, jax, jax.numpy as jnp, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from experiments import meshes
from subspace_jax import optim
from subspace_jax.manifolds import GrassmannHead, grassmann
from subspace_jax.optim import _chunks

_chunks._WHOLE_BYTES = 0  # as if there were very many classes
jax.config.update("jax_enable_x64", True)
classes, n, k, batch = 16, 12, 3, 8
S = GrassmannHead.init(jax.random.key(0), classes, n, k)
x, y = jax.random.normal(jax.random.key(1), (batch, n)), jnp.arange(batch)
optimizer = optim.riemannian_sgd(0.1, 0.9, manifold=grassmann)

def step(S, memory, x, y):
    def loss(S):
        logits = GrassmannHead.logits(S, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    value, grads = jax.value_and_grad(loss)(S)
    updates, memory = optimizer.update(grads, memory, S)
    return optax.apply_updates(S, updates), memory, value

memory = optimizer.init(S)
alone = jax.jit(step)(S, memory, x, y)
for data, model in ((1, 8), (2, 4)):
    mesh = jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rules = (("^0|momentum", ("model",)), ("^[23]", ("data",)))
    operands = (S, memory, x, y)
    operands = jax.device_put(operands, meshes.shardings(mesh, rules, operands))
    program = jax.jit(step).lower(*operands).compile()
    found = program(*operands)
    chex.assert_trees_all_close(found, alone, rtol=1e-12, atol=1e-13)
    over_classes = NamedSharding(mesh, P("model"))
    assert found[0].sharding == found[1].momentum.sharding == over_classes
    # Of each example the largest logit, then the sum of exponentials and its own class's logit;
    # the gradient and the loss; whether any step is too long for the exponential's plain series.
    flags, examples = 1, batch // data
    gradient = classes // model * n * k + 1 if data > 1 else 0
    expected = (3 + (data > 1), 8 * (3 * examples + gradient) + flags)
    assert meshes.collectives(program.as_text()) == {"all-reduce": expected}
"""


@pytest.mark.slow
def test_classes_over_devices_send_three_numbers_an_example_and_never_a_frame(on_eight_devices):
    on_eight_devices(CLASSES)


SWEEP = """
import chex, jax, jax.numpy as jnp
from functools import partial
from jax.sharding import AxisType, PartitionSpec as P
from configs.intrinsic_dimension import get_config
from experiments import harness, intrinsic_dimension, meshes

jax.config.update("jax_enable_x64", True)
harness.each = jax.vmap  # as on accelerators

def trained(config, mesh):
    problem = intrinsic_dimension.PROBLEMS[config.problem](config)
    constants = intrinsic_dimension.start(problem, config)
    state = intrinsic_dimension.initial_state(problem, constants[0], config)
    state = jax.device_put(state, meshes.shardings(mesh, config.sharding, state))
    constants = jax.device_put(constants, meshes.replicated(mesh))
    stack = harness.stacked(mesh, config, problem.batches, 0)
    step = partial(intrinsic_dimension.train_steps, problem, config)
    call = harness.compiled(mesh, config, step, state, 0, stack, *constants, at_once=True)
    return *call(state, 0, stack, *constants), meshes.collectives(call.as_text())

one_device = jax.make_mesh(
    (1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:1]
)
for option, axis, model, size in (("toy", "data", 1, 8), ("d=1", "model", 8, 4)):
    config = get_config(f"smoke,{option}")
    config.dims, config.mesh_model = tuple(range(1, 9)), model
    config.sharding = (("^z", (None, axis)),)  # (seeds, dims, ...)
    state, metrics, sent = trained(config, meshes.of(config))
    assert state["z"].sharding.spec == state["z_optimizer"][0].mu.sharding.spec == P(None, axis)
    alone = trained(config, one_device)[:2]
    atol = 1e-13 if size == 8 else 1e-6
    chex.assert_trees_all_close((state, metrics), alone, rtol=atol, atol=atol)
    # Nothing in the loop over steps; after it, for the log, the losses of all runs.
    assert sent == {"all-gather": (1, config.num_seeds * 8 * size)}, sent
"""


@pytest.mark.slow
def test_runs_of_a_sweep_over_devices_send_nothing_but_their_last_losses(on_eight_devices):
    on_eight_devices(SWEEP)


CHAINS = """
import chex, jax, jax.numpy as jnp
from functools import partial
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from experiments import meshes
from subspace_jax import krylov

jax.config.update("jax_enable_x64", True)
num, n = 32, 20
shifts = 0.1 * jax.random.normal(jax.random.key(0), (num, n)) ** 2
b = jax.random.normal(jax.random.key(1), (n,))
solver = partial(krylov.recycled_cg, num_recycled=4, num_directions=8, rtol=1e-9)

def solve(shifts, num_chains):
    def operator(shift):
        return lambda v: (jnp.linspace(1.0, 30.0, n) + shift) * v
    return krylov.solve_sequence(solver, operator, shifts, b, num_chains=num_chains)

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rows = P("data")
over = jax.shard_map(partial(solve, num_chains=1), mesh=mesh, in_specs=rows, out_specs=rows,
                     check_vma=False)
shared = jax.device_put(shifts, NamedSharding(mesh, rows))
program = jax.jit(over).lower(shared).compile()
assert meshes.collectives(program.as_text()) == {}
xs, infos = program(shared)
alone, alone_infos = jax.jit(partial(solve, num_chains=8))(shifts)
chex.assert_trees_all_close(xs, alone, rtol=1e-12)
chex.assert_trees_all_equal(infos.num_steps, alone_infos.num_steps)
chex.assert_trees_all_close(xs, b / (jnp.linspace(1.0, 30.0, n) + shifts), rtol=1e-7)
assert len(set(infos.num_steps.tolist())) > 1
"""


@pytest.mark.slow
def test_chains_over_devices_send_nothing_and_each_system_stops_on_its_own(on_eight_devices):
    on_eight_devices(CHAINS)


SLICES = """
import chex, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from experiments import ct, meshes
from subspace_jax import diffusion

jax.config.update("jax_enable_x64", True)
size, num = 16, 24
angles = jnp.linspace(0, jnp.pi, 8, endpoint=False)
y = jax.random.normal(jax.random.key(0), (num, 8, ct.num_detectors(size)))
sigmas = diffusion.karras_sigmas(4, sigma_min=0.01, sigma_max=5.0)
settings = {"eta": 1.0, "rho": 0.01, "lam": 1e-3}

def denoise(x, sigma):
    assert x.shape == (size, size)
    return x / (1 + 16 * sigma**2)

def reconstruct(y):
    op = ct.volume(ct.projection(angles, size), num)
    return ct.across_slices(jax.random.key(1), denoise, op, y, 0.2, sigmas, settings)

rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), P("data"))
program = jax.jit(reconstruct).lower(jax.device_put(y, rows)).compile()
x = program(jax.device_put(y, rows))
assert x.sharding.is_equivalent_to(rows, 3)
# Slices of neighbours, for a difference and its adjoint, in conjugate gradients and twice around
# them; inner products, and the scale of a right-hand side. No Fourier transform is gathered.
assert meshes.collectives(program.as_text()) == {
    "collective-permute": (6, 6 * 8 * size**2), "all-reduce": (4, 8 * 5)
}
meshes.in_parts = lambda function: function
alone = jax.jit(reconstruct)(y)
chex.assert_trees_all_close(jax.device_put(x, y.sharding), alone, atol=1e-12)
"""


@pytest.mark.slow
def test_slices_over_devices_send_their_neighbours_a_slice_and_sums(on_eight_devices):
    on_eight_devices(SLICES)
