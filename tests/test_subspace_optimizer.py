import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim, projections, tree

PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.ones(5)}
INNERS = {
    "sgd": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.05),
    "adamw": optax.adamw(0.05, weight_decay=0.1),
    "lion": optax.lion(0.01),
}


def loss(params):
    return jnp.sum(jnp.cosh(tree.ravel(params) - 0.5))


def train(optimizer, loss, params, num_steps=30):
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("scheme", ["hashed", "fastfood", "sparse"])
@pytest.mark.parametrize("name", INNERS)
def test_equals_training_z_for_every_inner_optimizer(name, scheme):
    projection = getattr(projections, scheme)(jax.random.key(0), PARAMS, 6)
    params, state = train(optim.subspace(INNERS[name], projection), loss, PARAMS)
    loss_z = projections.restrict(loss, projection, PARAMS)
    z, _ = train(INNERS[name], loss_z, jnp.zeros(6))
    np.testing.assert_allclose(state.z, z, atol=1e-5)
    expected = tree.axpy(1.0, projections.expand(projection, z), PARAMS)
    np.testing.assert_allclose(tree.ravel(params), tree.ravel(expected), atol=1e-5)
    assert loss(params) < loss(PARAMS)


def test_with_all_directions_it_is_the_inner_optimizer_in_another_basis():
    projection = projections.gaussian_orthonormal(jax.random.key(0), PARAMS, 17)
    inner = optax.sgd(0.05)
    params, _ = train(optim.subspace(inner, projection), loss, PARAMS)
    direct, _ = train(inner, loss, PARAMS)
    np.testing.assert_allclose(tree.ravel(params), tree.ravel(direct), atol=1e-5)


def test_its_state_has_the_size_of_z():
    projection = projections.hashed(jax.random.key(0), PARAMS, 6)
    state = optim.subspace(optax.adam(0.1), projection).init(PARAMS)
    assert tree.size(state) == 6 + 2 * 6 + 1


def test_extra_arguments_reach_the_inner_optimizer():
    projection = projections.hashed(jax.random.key(0), PARAMS, 6)
    inner = optax.contrib.reduce_on_plateau(patience=1, factor=0.5)
    optimizer = optim.subspace(optax.chain(optax.sgd(0.1), inner), projection)
    state = optimizer.init(PARAMS)
    for _ in range(4):
        _, state = optimizer.update(PARAMS, state, PARAMS, value=1.0)
    assert state.inner[-1].scale < 1
