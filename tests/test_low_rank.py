import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim
from subspace_jax.linalg import orthonormalize, principal_angles
from tests.gradient_runs import gradients, run

PARAMS = {"w": jnp.linspace(-1, 1, 24).reshape(6, 4), "b": jnp.ones(5), "v": jnp.ones((3, 7))}


def loss(params):
    return sum(jnp.sum(jnp.cosh(p - 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape)))
               for p in jax.tree.leaves(params))  # fmt: skip


def train(optimizer, params, num_steps, state=None):
    state = optimizer.init(params) if state is None else state

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("inner", [optax.identity(), optax.trace(0.9), optax.ema(0.9)])
def test_of_full_rank_it_is_a_rotation_equivariant_inner_transformation(inner):
    options = {"rank": 9, "carry": "rotate", "refresh_every": 2}
    ours, _ = train(optax.chain(optim.low_rank(inner, **options), optax.scale(-0.1)), PARAMS, 7)
    theirs, _ = train(optax.chain(inner, optax.scale(-0.1)), PARAMS, 7)
    for name in PARAMS:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_on_the_memory_side_it_is_the_galore_of_optax(shape):
    params = {"w": jnp.reshape(PARAMS["w"], shape), "b": PARAMS["b"]}
    peer = optax.contrib.galore(0.05, rank=2, update_proj_gap=100, scale=0.5)
    ours = optim.galore(0.05, rank=2, method="svd", scale=0.5, side="memory", stagger=False,
                        adam=optax.scale_by_adam())  # fmt: skip
    found, expected = (train(o, params, 20)[0]["w"] for o in (ours, peer))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("side", "second"), [("paper", [1.0, 1.0, 0.0]), ("memory", [1.0, 2.0])])
def test_two_steps_of_three_by_two_are_galore_by_hand(side, second):
    G = jnp.array([[[3.0, 0], [0, 1], [0, 0]], [[1, 2], [1, 0], [0, 0]]])
    optimizer = optim.low_rank(
        optax.scale_by_adam(0.5, 0.5, 0.0, eps_root=1e-30), rank=1, side=side,
        basis=optim.singular("svd"),
    )  # fmt: skip
    (one, _), (two, state) = run(optimizer, G)
    np.testing.assert_allclose(one, [[1, 0], [0, 0], [0, 0]], atol=1e-6)
    first = np.eye(len(second))[0] * 3
    m = 0.25 * first + 0.5 * np.array(second)
    v = 0.25 * first**2 + 0.5 * np.array(second) ** 2
    core = np.divide(m, np.sqrt(0.75 * v), where=v > 0, out=np.zeros_like(m))
    expected = np.zeros((3, 2))
    if side == "paper":  # a basis of the two columns
        expected[:, 0] = core
        assert state.leaves.inner.mu.shape == (1, 3)
    else:
        expected[0] = core
        assert state.leaves.inner.mu.shape == (1, 2)
    np.testing.assert_allclose(two, expected, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 4, 6])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_the_shorter_side_gets_the_basis_also_where_the_rank_is_its_length(shape, rank):
    leaf = optim.low_rank(rank=rank).init(jnp.zeros(shape)).leaves
    assert leaf.basis.shape == (4, min(rank, 4))
    assert leaf.inner.mu.shape == (min(rank, 4), 6)


def test_a_reset_begins_the_inner_state_anew_for_the_moved_matrix_alone():
    optimizer = optim.low_rank(rank=2, refresh_every=4, carry="reset")
    _, state = train(optimizer, PARAMS, 3)  # the turn of v is the second step, counted from one
    counts = {name: int(leaf.inner.count) for name, leaf in state.leaves.items()}
    assert counts == {"w": 3, "b": 3, "v": 1} or counts == {"w": 1, "b": 3, "v": 3}


def test_recovery_scales_columns_as_the_inner_update_does_and_limits_growth():
    optimizer = optim.low_rank(
        optax.scale_by_adam(), rank=2, residual=optim.recover(1.01), side="rows", scale=0.5
    )
    grads = gradients(5) * jnp.array([1, 5, 1, 1, 1.0])[:, None, None]
    norms = []
    for grad, (update, state) in zip(grads, run(optimizer, grads), strict=True):
        S = state.leaves.basis
        core = S.T @ grad
        step = 2 * S.T @ update  # its part in the subspace, without the scale
        rest = grad - S @ core
        recovered = rest * jnp.linalg.norm(step, axis=0) / jnp.linalg.norm(core, axis=0)
        size = jnp.linalg.norm(recovered)
        norms.append(min(float(size), 1.01 * norms[-1] if norms else np.inf))
        np.testing.assert_allclose(
            update - S @ S.T @ update, recovered * norms[-1] / size, atol=1e-4
        )
        np.testing.assert_allclose(state.leaves.recovered, norms[-1], rtol=1e-4)


def test_subspace_momentum_is_momentum_inside_and_the_gradient_outside():
    grads = gradients(6)
    optimizer = optim.subspace_momentum(0.5, rank=2, side="rows", refresh_every=3, eps=0.0)
    momentum, nu, before = 0, 0, None
    for t, (grad, (update, state)) in enumerate(
        zip(grads, run(optimizer, grads), strict=True), start=1
    ):
        S = state[0].numerator.leaves.basis
        if before is not None and not np.allclose(S, before):
            momentum = 0
        before = S
        momentum = 0.9 * momentum + 0.1 * S.T @ grad
        nu = 0.999 * nu + 0.001 * jnp.sum(grad**2, axis=1, keepdims=True)
        top = S @ momentum + grad - S @ S.T @ grad
        np.testing.assert_allclose(
            update, -0.5 * top / jnp.sqrt(nu / (1 - 0.999**t)), rtol=1e-3, atol=1e-5
        )


def test_refreshes_take_turns():
    optimizer = optim.low_rank(rank=2, basis=optim.jump(), refresh_every=4)
    params = {k: jnp.ones((5, 5)) for k in "abcd"}
    step = jax.jit(optimizer.update)
    _, state = step(params, optimizer.init(params))
    for _ in range(8):
        old = state.leaves
        _, state = step(params, state)
        moved = [bool(jnp.any(old[k].basis != state.leaves[k].basis)) for k in "abcd"]
        assert sum(moved) == 1


def test_gradients_of_zero_or_nan_leave_the_basis():
    optimizer = optim.low_rank(rank=2, refresh_every=1)
    step = jax.jit(optimizer.update)
    _, state = step(PARAMS["w"], optimizer.init(PARAMS["w"]))
    for bad in (jnp.zeros((6, 4)), jnp.full((6, 4), jnp.nan)):
        _, after = step(bad, state)
        assert jnp.all(after.leaves.basis == state.leaves.basis)


def test_low_precision_parameters_have_a_float32_state_and_their_own_updates():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    optimizer = optim.low_rank(rank=2)
    update, state = optimizer.update(params, optimizer.init(params))
    assert {x.dtype for x in jax.tree.leaves(update)} == {jnp.dtype("bfloat16")}
    floating = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floating} == {jnp.dtype("float32")}


def test_a_convolution_is_the_matrix_of_its_output_channels():
    kernels = gradients(4, (3, 2, 2, 5))
    optimizer = optim.low_rank(rank=2, basis=optim.singular("svd"))
    for (ours, _), (flat, _) in zip(
        run(optimizer, kernels), run(optimizer, kernels.reshape(4, 12, 5)), strict=True
    ):
        np.testing.assert_allclose(ours.reshape(12, 5), flat, atol=1e-5)


def test_batch_axes_are_matrices_by_themselves():
    stacked = gradients(4, (4, 3, 6))  # (rows, batch, columns)

    def axes(path, leaf):
        del path, leaf
        return optim.MatrixAxes((0,), (2,))

    options = {"rank": 2, "basis": optim.singular("svd")}
    together = run(optim.low_rank(**options, axes=axes), stacked)
    for i in range(3):
        alone = run(optim.low_rank(**options), stacked[:, :, i])
        for (ours, _), (theirs, _) in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[:, i], theirs, atol=1e-5)


@pytest.mark.parametrize("counters", ["of each lane", "shared"])
def test_a_vmap_gives_each_lane_its_own_and_keeps_the_refresh_conditional(counters):
    optimizer = optim.low_rank(rank=2, refresh_every=3)
    grads = gradients(3 * 4).reshape(3, 4, 6, 4)
    in_axes = 0
    state = jax.vmap(optimizer.init)(grads[:, 0])
    if counters == "shared":
        state = state._replace(num_steps=jnp.int32(0))
        in_axes = optim.LowRankState(None, 0)
    step = jax.jit(jax.vmap(optimizer.update, (0, in_axes), (0, in_axes)))
    program = str(jax.make_jaxpr(step)(grads[:, 0], state))
    assert "cond[" in program
    assert program.count("eigh") == str(
        jax.make_jaxpr(optimizer.update)(grads[0, 0], optimizer.init(grads[0, 0]))
    ).count("eigh")
    updates = []
    for t in range(4):
        update, state = step(grads[:, t], state)
        updates.append(update)
    for lane in range(3):
        for t, (alone, _) in enumerate(run(optimizer, grads[lane])):
            np.testing.assert_allclose(updates[t][lane], alone, atol=1e-4)


def test_a_run_that_is_resumed_ends_in_the_same_bits():
    optimizer = optim.grasswalk(0.05, rank=2, refresh_every=3)
    whole, _ = train(optimizer, PARAMS, 9)
    half, state = train(optimizer, PARAMS, 4)
    leaves, structure = jax.tree.flatten((half, state))
    half, state = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(x)) for x in leaves])
    resumed, _ = train(optimizer, half, 5, state)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), whole, resumed))


def test_the_state_has_the_size_of_the_subspace():
    big = jnp.zeros((64, 256))
    numbers = sum(x.size for x in jax.tree.leaves(optim.low_rank(rank=8).init(big)))
    assert numbers == 64 * 8 + 2 * 8 * 256 + 2  # a basis, two moments, two counters


def test_policies_may_differ_between_parameters():
    basis = {"w": optim.jump(), "b": optim.jump(), "v": lambda key, Q, grad: Q}
    optimizer = optim.low_rank(rank=2, basis=basis, refresh_every=1)
    before = optimizer.init(PARAMS)
    _, after = optimizer.update(PARAMS, before)
    assert jnp.all(after.leaves["v"].basis == before.leaves["v"].basis)
    assert jnp.any(after.leaves["w"].basis != before.leaves["w"].basis)


@pytest.mark.parametrize(
    "paper", ["galore", "online_subspace_descent", "sara", "grasswalk", "grassjump",
              "subspace_momentum"]
)  # fmt: skip
def test_every_paper_descends(paper):
    params, _ = train(getattr(optim, paper)(0.1, rank=2, refresh_every=5), PARAMS, 80)
    least = sum(p.size for p in jax.tree.leaves(PARAMS))
    assert loss(params) - least < 0.5 * (loss(PARAMS) - least)


def test_sharded_parameters_keep_their_sharding(on_eight_devices):
    on_eight_devices("""
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from subspace_jax import optim
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
W = jax.random.normal(jax.random.key(0), (16, 24))
optimizer = optim.low_rank(rank=4, refresh_every=2, carry="rotate", residual=optim.recover())
def two(W):
    state = optimizer.init(W)
    for _ in range(2):
        update, state = optimizer.update(jnp.sin(W), state)
        W = W - update
    return W, state
alone, _ = jax.jit(two)(W)
for spec in (P("data", "model"), P(None, "model"), P("data", None)):
    sharded = jax.device_put(W, NamedSharding(mesh, spec))
    found, state = jax.jit(two)(sharded)
    assert found.sharding.is_equivalent_to(sharded.sharding, 2), (found.sharding, spec)
    np.testing.assert_allclose(found, alone, atol=1e-4)
""")


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"refresh_every": 0}, {"carry": "lose"}, {"residual": "lose"}, {"side": "up"}],
)
def test_options_out_of_bounds_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        optim.low_rank(**options)


def test_parameters_that_cannot_be_folded_are_named():
    with pytest.raises(ValueError, match=r"\['w'\].*complex64"):
        optim.low_rank().init({"w": jnp.zeros((2, 2), jnp.complex64)})
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        optim.low_rank(axes=lambda p, x: optim.MatrixAxes((0,), (2,))).init(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="limit"):
        optim.recover(0.0)


def test_walking_and_principal_angles_agree_on_the_step():
    S = orthonormalize(gradients(1, (9, 3))[0])
    R = optim.walk(0.3)(jax.random.key(0), S, jnp.zeros((9, 5)))
    angles = principal_angles(S, R)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(angles**2)), 0.3, rtol=1e-4)
