"""The learned directions: networks, domains, training data, and what the kept weights can do."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dcdm as configs
from experiments import dcdm, directions, obstacles, photograph
from subspace_jax import krylov, tree

WEIGHTS = Path(__file__).resolve().parents[1] / "experiments" / "results" / "dcdm.msgpack"


@pytest.mark.parametrize(("options", "count"), [("paper", 32_657), ("paper,d3", 97_457)])
def test_the_papers_network_has_its_number_of_weights(options, count):
    config = configs.get_config(options)
    assert tree.size(jax.eval_shape(lambda: directions.initial(config))) == count


@pytest.mark.slow
def test_the_gated_network_is_linear_in_the_residual():
    config = configs.get_config("smoke")
    net, params = directions.network(config), directions.initial(config)
    params = jax.tree.map(lambda p: jnp.where(jnp.all(p == 0), 0.1, p), params)  # gates begin at 0
    r, s = jax.random.normal(jax.random.key(0), (2, 1, 16, 16))
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (1, 16, 16))
    f = jax.jit(lambda r: net.apply(params, r, mask))
    np.testing.assert_allclose(
        f(2 * r - s), 2 * f(r) - f(s), rtol=1e-3, atol=1e-3 * jnp.abs(f(r)).max()
    )
    assert np.abs(f(r) - net.apply(params, r, ~mask)).max() > 1e-3  # it sees the domain


def test_the_loss_is_what_the_best_step_leaves():
    config = configs.get_config("smoke")
    net, params = directions.network(config), directions.initial(config)
    mask = obstacles.domains("coins", 1, (16, 16), 0)
    A = directions.poisson(mask[0], jnp.float32)
    batch = jax.tree.map(lambda leaf: leaf[None], A)
    r = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32) * mask
    r /= np.linalg.norm(r)
    f = net.apply(params, r, mask)[0] * mask[0]
    q = np.asarray(A(f))
    best = np.vdot(r, f) / np.vdot(f, q)
    left = [np.linalg.norm(r[0] - a * q) ** 2 for a in best * np.array([0.99, 1, 1.01])]
    value = float(directions.loss(net, params, batch, r))
    assert value == pytest.approx(left[1], rel=1e-4)
    energy = [
        np.vdot(f, a**2 * q) - 2 * a * np.vdot(r, f) for a in best * np.array([0.99, 1, 1.01])
    ]
    assert energy[1] < min(energy[0], energy[2])  # the least error in the norm of A


def test_training_residuals_are_mixtures_of_eigenvectors():
    config = configs.get_config("smoke")
    masks = directions.training_masks(config)
    operators = [directions.poisson(mask, jnp.float32) for mask in masks]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators)
    vectors = directions.ritz_vectors(config, stack, masks)
    flat = vectors[0].reshape(config.num_ritz, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(config.num_ritz), atol=1e-4)
    lowest = vectors[1][0]
    product = np.asarray(operators[1](jnp.asarray(lowest)))
    np.testing.assert_allclose(product, np.vdot(lowest, product) * lowest, atol=1e-3)
    batch = directions.mixtures(config, vectors)(3)
    again = directions.mixtures(config, vectors)(3)
    np.testing.assert_array_equal(batch["r"], again["r"])
    np.testing.assert_allclose(
        np.linalg.norm(batch["r"].reshape(len(batch["r"]), -1), axis=1), 1, rtol=1e-5
    )
    assert np.abs(batch["r"][~masks[batch["domain"]]]).max() < 1e-5


@pytest.mark.parametrize("image", sorted(obstacles.IMAGES))
@pytest.mark.parametrize("shape", [(16, 16), (128, 128), (8, 16, 16)])
def test_domains_are_boxes_with_obstacles(image, shape):
    masks = obstacles.domains(image, 3, shape, 0)
    assert masks.shape == (3, *shape)
    for mask in masks:
        assert 0.5 <= mask.mean() < 1
    np.testing.assert_array_equal(masks, obstacles.domains(image, 3, shape, 0))
    assert (masks != obstacles.domains(image, 3, shape, 1)).any()


def test_the_operator_is_the_matrix_that_residuals_are_measured_with():
    mask = obstacles.domains("horse", 1, (16, 16), 0)[0]
    u = np.random.default_rng(0).standard_normal(mask.shape) * mask
    matrix = photograph.assemble(np.ones(mask.shape), mask, 1.0)
    product = np.asarray(directions.poisson(mask, jnp.float32)(jnp.asarray(u, jnp.float32)))
    np.testing.assert_allclose(product[mask], matrix @ u[mask], rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    config = configs.get_config("smoke")
    directions.save(tmp_path / "weights", directions.initial(config))
    directions.load(tmp_path / "weights", config)
    config.width = 8
    with pytest.raises(ValueError, match="another shape"):
        directions.load(tmp_path / "weights", config)


def test_grids_that_cannot_be_halved_are_refused():
    config = configs.get_config("smoke")
    config.test_sizes = (18,)
    with pytest.raises(ValueError, match="4 must divide size, got 18"):
        directions.network(config)


@pytest.mark.slow
def test_the_kept_weights_take_few_steps_however_large_the_grid():
    """At most 8 on the training grid, and less than 1.5 times that on one four times as wide."""
    config = configs.get_config("demo")
    params = directions.load(WEIGHTS, config)
    net, means = directions.network(config), {}

    @jax.jit
    def learned(A, b):
        propose = directions.direction(net, params, A)
        return krylov.flexible_cg(A, b, direction=propose, rtol=1e-4)[1]

    plain = jax.jit(lambda A, b: krylov.cg(A, b, rtol=1e-4)[1])
    for size in (32, 128):
        steps = []
        for system in dcdm.systems(config, size):
            A = directions.poisson(system.mask, jnp.float32)
            b = jnp.asarray(system.b, jnp.float32)
            steps.append([int(solve(A, b).num_steps) for solve in (learned, plain)])
            if size == 32 and system.domain == "box":
                assert steps[-1][0] <= 8 < 35 <= steps[-1][1]
        means[size] = np.mean(steps, axis=0)
    growth = means[128] / means[32]
    assert growth[0] < 1.5
    assert growth[1] > 3
