"""Structured subspaces, redrawn bases and given directions, against dense matrices and chains."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from subspace_jax import landscape, optim, projections, tree
from tests.problems import descend

PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.ones(5)}
INNERS = {"sgd": optax.sgd(0.05, momentum=0.9), "adam": optax.adam(0.05)}


def loss(params):
    return jnp.sum(jnp.cosh(tree.ravel(params) - 0.5))


@pytest.mark.parametrize("name", INNERS)
@pytest.mark.parametrize("scheme", ["hashed", "fastfood"])
def test_a_structured_subspace_is_the_inner_optimizer_on_z_and_the_scales(name, scheme):
    P = getattr(projections, scheme)(jax.random.key(0), PARAMS, 6)

    def at(variables):
        z, scales = variables
        moved = projections.expand(P, z)
        return {k: PARAMS[k] + a * moved[k] for k, a in zip(sorted(PARAMS), scales, strict=True)}

    found = descend(optim.structured_subspace(INNERS[name], P), loss, PARAMS, 30)
    start = jnp.zeros(6), jnp.ones(2)
    expected = at(descend(INNERS[name], lambda v: loss(at(v)), start, 30))
    np.testing.assert_allclose(tree.ravel(found), tree.ravel(expected), atol=1e-5)
    plain = descend(optim.subspace(INNERS[name], P), loss, PARAMS, 30)
    assert tree.norm(tree.axpy(-1.0, plain, found)) > 1e-3  # the scales have moved


def test_its_state_counts_a_number_for_every_leaf():
    P = projections.hashed(jax.random.key(0), PARAMS, 6)
    state = optim.structured_subspace(optax.sgd(0.1), P).init(PARAMS)
    assert tree.size(state) == 6 + 2
    np.testing.assert_array_equal(state.variables.scales, 1)


def matrix(key, dim, like=PARAMS):
    return np.asarray(projections.materialize(projections.hashed(key, like, dim)))


@pytest.mark.parametrize("redraw_every", [1, 2])
def test_a_redrawn_basis_projects_with_the_matrix_of_its_step(redraw_every):
    key, g = jax.random.key(3), jax.grad(loss)(PARAMS)
    transform = optim.random_bases(key, projections.hashed, 4, redraw_every=redraw_every)
    state, update, seen = transform.init(PARAMS), jax.jit(transform.update), []
    for step in range(4):
        found, state = update(g, state)
        P = matrix(jax.random.fold_in(key, step // redraw_every), 4)
        np.testing.assert_allclose(tree.ravel(found), P @ P.T @ tree.ravel(g), atol=1e-5)
        seen.append(np.asarray(tree.ravel(found)))
    same = [np.allclose(a, b) for a, b in pairwise(seen)]
    assert same == [redraw_every == 2, False, redraw_every == 2]


def test_compartments_have_a_basis_for_every_leaf():
    key, g = jax.random.key(3), jax.grad(loss)(PARAMS)
    transform = optim.random_bases(key, projections.hashed, 8, per_leaf=True)
    found, _ = transform.update(g, transform.init(PARAMS))
    keys = jax.random.split(jax.random.fold_in(key, 0), 2)
    for k, name in zip(keys, sorted(PARAMS), strict=True):
        P = matrix(k, min(8, g[name].size), g[name])
        np.testing.assert_allclose(found[name].ravel(), P @ P.T @ g[name].ravel(), atol=1e-5)
    np.testing.assert_allclose(found["b"], g["b"], atol=1e-5)  # 5 directions of 5


def test_in_the_mean_d_of_big_d_of_the_gradient_passes_and_descent_goes_on_everywhere():
    g = jax.grad(loss)(PARAMS)

    def share(key):
        transform = optim.random_bases(key, projections.hashed, 4)
        return tree.vdot(transform.update(g, transform.init(PARAMS))[0], g) / tree.vdot(g, g)

    shares = jax.jit(jax.vmap(share))(jax.random.split(jax.random.key(0), 2000))
    assert abs(np.mean(shares) - 4 / 17) < 4 * np.std(shares) / np.sqrt(2000)
    assert np.max(shares) <= 1 + 1e-5
    fixed = projections.hashed(jax.random.key(0), PARAMS, 4)
    stuck = descend(optim.subspace(optax.sgd(0.3), fixed), loss, PARAMS, 300)
    redrawn = optim.random_bases(jax.random.key(0), projections.hashed, 4)
    free = descend(optax.chain(redrawn, optax.sgd(0.3)), loss, PARAMS, 300)
    assert loss(stuck) > 17.5  # the least is 17
    assert loss(free) < 17 + 1e-4


def test_given_directions_are_the_columns():
    basis = {"w": jax.random.normal(jax.random.key(0), (3, 4, 2)), "b": jnp.ones((5, 2))}
    P = projections.spanned(basis)
    dense = np.concatenate([np.asarray(V).reshape(-1, 2) for V in (basis["b"], basis["w"])])
    np.testing.assert_allclose(projections.materialize(P), dense, rtol=1e-6)
    g = jax.grad(loss)(PARAMS)
    np.testing.assert_allclose(projections.contract(P, g), dense.T @ tree.ravel(g), rtol=1e-5)


def test_a_lottery_subspace_holds_the_end_of_the_run_it_is_from():
    """Full training, its principal directions from the start, training in these alone."""
    optimizer, points = optax.sgd(0.05, momentum=0.9), [PARAMS]
    for steps in (1, 2, 4, 8, 60):
        points.append(descend(optimizer, loss, PARAMS, steps))
    trajectory = jax.tree.map(lambda *xs: jnp.stack(xs), *points)
    found = landscape.trajectory_pca(trajectory, k=3, center="first")
    lottery = optim.subspace(optimizer, projections.spanned(found.directions))
    chance = optim.subspace(optimizer, projections.hashed(jax.random.key(0), PARAMS, 3))
    in_lottery, by_chance = (descend(o, loss, PARAMS, 60) for o in (lottery, chance))
    assert loss(in_lottery) < 17 + 0.02 * (loss(by_chance) - 17)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        optim.random_bases(jax.random.key(0), projections.hashed, 0)
    with pytest.raises(ValueError, match=r"got \[\(3, 2\), \(3,\)\]"):
        projections.spanned({"a": jnp.ones((3, 2)), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match="at most D = 3 columns, got 4"):
        projections.spanned({"a": jnp.ones((3, 4))})
    P = projections.hashed(jax.random.key(0), PARAMS, 6)
    transform = optim.structured_subspace(optax.sgd(0.1), P)
    with pytest.raises(ValueError, match="differ in structure"):
        transform.update({"w": PARAMS["w"]}, transform.init(PARAMS))
