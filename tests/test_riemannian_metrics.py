"""First-order optimizers where the metric is not the ambient one, or points are pytrees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import optim
from subspace_jax.manifolds import fixed_rank, spd, stiefel
from tests.problems import descend


@pytest.mark.parametrize("make", [optim.riemannian_sgd, optim.riemannian_adam])
def test_one_step_along_the_gradient_of_the_metric_is_the_geodesic_to_the_target(make):
    """The gradient of dist^2 / 2 is minus the logarithm."""
    target, p = jnp.diag(jnp.array([4.0, 1.0, 0.5])), jnp.diag(jnp.array([3.0, 2.0, 0.6]))
    optimizer = make(0.25, manifold=spd, max_angle=None)
    gradient = jax.grad(lambda p: spd.dist(p, target) ** 2 / 2)(p)
    updates, _ = optimizer.update(gradient, optimizer.init(p), p)
    step = 0.25 if make is optim.riemannian_sgd else 0.25 / spd.dist(p, target)
    np.testing.assert_allclose(p + updates, spd.exp(p, step * spd.log(p, target)), rtol=1e-4)


@pytest.mark.parametrize("transport", ["projection", "parallel"])
def test_momentum_descends_in_the_metric_of_the_manifold(transport):
    target, p = jnp.diag(jnp.array([4.0, 1.0, 0.5])), jnp.eye(3)
    optimizer = optim.riemannian_sgd(0.05, 0.8, manifold=spd, transport=transport)
    found = descend(optimizer, lambda p: spd.dist(p, target) ** 2, p, 200)
    assert spd.dist(found, target) < 1e-3


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(optim.riemannian_sgd, 0.1, 0.8),
        partial(optim.riemannian_sgd, 0.1, 0.8, transport="parallel", nesterov=True),
        partial(optim.riemannian_sgd, 0.1, 0.5, transport="ambient"),
        partial(optim.riemannian_adam, optax.cosine_decay_schedule(0.1, 400)),
    ],
)
def test_points_that_are_pytrees_are_told_by_is_point(optimizer):
    """Matrices of rank 2, whose tangents have a structure of their own."""
    A = (
        stiefel.random_point(jax.random.key(0), 8, 6)
        @ jnp.diag(0.6 ** jnp.arange(6.0))
        @ stiefel.random_point(jax.random.key(1), 6, 6)
    )
    params = {"W": fixed_rank.random_point(jax.random.key(2), 8, 6, 2)}
    optimizer = optimizer(manifold=fixed_rank, is_point=lambda x: isinstance(x, fixed_rank.Point))

    def misfit(params):
        return jnp.sum((fixed_rank.dense(params["W"]) - A) ** 2)

    found = descend(optimizer, misfit, params, 400)["W"]
    best = fixed_rank.dense(fixed_rank.from_dense(A, 2))
    np.testing.assert_allclose(fixed_rank.dense(found), best, atol=2e-3)
    assert fixed_rank.check(found) < 1e-5
