"""Curvature, alignment, trajectories, paths and ranks against dense matrices, in float64."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from subspace_jax import krylov, landscape, linalg

pytestmark = pytest.mark.usefixtures("x64")


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def network(sizes, seed=0):
    """Parameters of a tanh network, and its losses on some data, one an example."""
    params = {
        f"W{i}": normal(seed + i, (a, b)) / np.sqrt(a) for i, (a, b) in enumerate(pairwise(sizes))
    }
    data = normal(seed + 10, (40, sizes[0])), normal(seed + 11, (40, sizes[-1]))

    def losses(params, data):
        h, y = data
        for name in sorted(params)[:-1]:
            h = jnp.tanh(h @ params[name])
        return jnp.mean((h @ params[sorted(params)[-1]] - y) ** 2, axis=1)

    return params, data, losses


def matrix(product, params):
    """The dense matrix of a map on parameters."""
    flat, unravel = ravel_pytree(params)
    columns = jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))
    return np.asarray(columns(jnp.eye(flat.size)))


def dense_hessian(loss, params):
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: loss(unravel(x))))(flat))


def flat_basis(basis):
    return np.concatenate([np.asarray(V).reshape(-1, V.shape[-1]) for V in basis.values()])


def in_batches(data, num):
    return jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), data)


def random_basis(seed, params, k):
    flat, unravel = ravel_pytree(params)
    Q = np.linalg.qr(normal(seed, (flat.size, k)))[0]
    return jax.vmap(unravel, in_axes=1, out_axes=-1)(jnp.asarray(Q))


@pytest.mark.parametrize("num_batches", [None, 4])
def test_the_hessian_is_the_dense_one_from_whole_data_or_from_minibatches(num_batches):
    params, data, losses = network((3, 4, 2))
    expected = dense_hessian(lambda p: jnp.mean(losses(p, data)), params)
    if num_batches:
        batches = in_batches(data, num_batches)
        product = landscape.hessian(lambda p, d: jnp.mean(losses(p, d)), params, batches)
    else:
        product = landscape.hessian(lambda p: jnp.mean(losses(p, data)), params)
    np.testing.assert_allclose(matrix(product, params), expected, atol=1e-12)


@pytest.mark.parametrize("num_batches", [None, 4])
def test_the_second_moment_is_the_mean_of_outer_products_of_gradients(num_batches):
    params, data, losses = network((3, 4, 2))
    if num_batches:
        product = landscape.gradient_second_moment(losses, params, in_batches(data, num_batches))
    else:
        product = landscape.gradient_second_moment(lambda p: losses(p, data), params)
    _, unravel = ravel_pytree(params)
    rows = jax.jacobian(lambda x: losses(unravel(x), data))(ravel_pytree(params)[0])
    np.testing.assert_allclose(matrix(product, params), rows.T @ rows / 40, atol=1e-12)


def test_a_loss_of_some_leaves_has_their_block():
    params, data, losses = network((3, 4, 2))

    def of_one(leaf):
        return jnp.mean(losses(params | leaf, data))

    block = matrix(landscape.hessian(of_one, {"W1": params["W1"]}), {"W1": params["W1"]})
    whole = dense_hessian(lambda p: jnp.mean(losses(p, data)), params)
    np.testing.assert_allclose(block, whole[12:, 12:], atol=1e-12)


@pytest.mark.slow
def test_the_top_eigenspace_of_two_thousand_parameters_is_that_of_the_dense_hessian():
    params, data, losses = network((20, 60, 13))
    k = 6

    def loss(p):
        return jnp.mean(losses(p, data))

    values, vectors = np.linalg.eigh(dense_hessian(loss, params))
    assert values.size == 1980
    assert values[-k] - values[-k - 1] > 1e-3 * values[-1]
    find = jax.jit(
        lambda p: landscape.top_eigenspace(landscape.hessian(loss, p), p, k=k, rtol=1e-9)
    )
    space, info = find(params)
    assert info.status == krylov.Status.CONVERGED
    np.testing.assert_allclose(space.values, values[: -k - 1 : -1], rtol=1e-8)
    V = flat_basis(space.vectors)
    np.testing.assert_allclose(V @ V.T, vectors[:, -k:] @ vectors[:, -k:].T, atol=1e-5)


def test_another_key_finds_the_same_space():
    params, data, losses = network((3, 4, 2))

    def find(key):
        product = landscape.hessian(lambda p: jnp.mean(losses(p, data)), params)
        return landscape.top_eigenspace(product, params, k=2, key=key)[0].vectors

    found = jax.jit(jax.vmap(find))(jax.random.split(jax.random.key(1), 2))
    one, other = (jax.tree.map(lambda V, i=i: V[i], found) for i in range(2))
    np.testing.assert_allclose(landscape.overlap(one, other), 1, rtol=1e-9)


def test_the_fraction_and_the_component_are_those_of_the_projector():
    params = network((3, 4, 2))[0]
    basis = random_basis(3, params, 5)
    P = flat_basis(basis) @ flat_basis(basis).T
    g, unravel = ravel_pytree(network((3, 4, 2), seed=5)[0])
    inside = landscape.component(basis, unravel(g))
    np.testing.assert_allclose(ravel_pytree(inside)[0], P @ g, rtol=1e-12)
    fraction = landscape.gradient_fraction(basis, unravel(g))
    np.testing.assert_allclose(fraction, g @ P @ g / (g @ g), rtol=1e-12)
    assert landscape.gradient_fraction(basis, inside) == pytest.approx(1)
    rest = unravel(g - P @ g)
    assert landscape.gradient_fraction(basis, rest) == pytest.approx(0, abs=1e-30)


def test_the_fraction_of_a_zero_gradient_is_zero_and_of_a_tiny_one_exact():
    params = network((3, 4, 2))[0]
    basis = random_basis(3, params, 5)
    tiny = jax.tree.map(lambda x: 1e-200 * x, params)
    np.testing.assert_allclose(
        landscape.gradient_fraction(basis, tiny),
        landscape.gradient_fraction(basis, params),
        rtol=1e-12,
    )
    zero = jax.tree.map(jnp.zeros_like, params)
    assert landscape.gradient_fraction(basis, zero) == 0
    slope = jax.grad(landscape.gradient_fraction, 1)(basis, zero)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in slope.values())


def test_random_directions_have_a_fraction_of_k_over_d():
    params = network((3, 4, 2))[0]
    basis = random_basis(3, params, 5)
    flat, unravel = ravel_pytree(params)
    directions = jax.vmap(unravel)(normal(0, (4000, flat.size)))
    fractions = jax.vmap(partial(landscape.gradient_fraction, basis))(directions)
    error = np.std(fractions) / np.sqrt(4000)
    assert abs(np.mean(fractions) - 5 / flat.size) < 4 * error


def test_the_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    params = network((3, 4, 2))[0]
    a, b = random_basis(3, params, 4), random_basis(4, params, 4)
    angles = linalg.principal_angles(jnp.asarray(flat_basis(a)), jnp.asarray(flat_basis(b)))
    np.testing.assert_allclose(landscape.overlap(a, b), np.mean(np.cos(angles) ** 2), rtol=1e-12)
    turned = jax.tree.map(lambda V: V @ np.linalg.qr(normal(0, (4, 4)))[0], a)
    np.testing.assert_allclose(landscape.overlap(a, turned), 1, rtol=1e-12)
    few, many = random_basis(5, params, 2), random_basis(6, params, 6)
    P, R = (flat_basis(V) @ flat_basis(V).T for V in (few, many))
    np.testing.assert_allclose(
        landscape.overlap(few, many), np.trace(P @ R) / np.sqrt(12), rtol=1e-12
    )


def trajectory(num=9):
    return {"a": normal(1, (num, 3, 2)), "b": normal(2, (num, 5))}


@pytest.mark.parametrize("center", ["mean", "first", "last"])
def test_the_principal_directions_are_those_of_the_dense_points(center):
    points = trajectory()
    dense = np.concatenate([np.asarray(x).reshape(9, -1) for x in points.values()], axis=1)
    middle = {"mean": dense.mean(0), "first": dense[0], "last": dense[-1]}[center]
    U, s, Vh = np.linalg.svd(dense - middle, full_matrices=False)
    found = jax.jit(partial(landscape.trajectory_pca, k=3, center=center))(points)
    np.testing.assert_allclose(ravel_pytree(found.center)[0], middle, rtol=1e-12)
    np.testing.assert_allclose(found.explained, (s**2 / np.sum(s**2))[:3], rtol=1e-10)
    near = (U * s)[:, :3] @ Vh[:3] + middle
    V = flat_basis(found.directions)
    np.testing.assert_allclose(found.coordinates @ V.T + middle, near, atol=1e-12)


def test_a_planar_trajectory_is_explained_by_two_directions_and_a_still_one_by_none():
    points = jax.tree.map(lambda x: jnp.tensordot(normal(7, (30, 2)), x[:2], 1), trajectory())
    found = landscape.trajectory_pca(points, k=3, center="mean")
    np.testing.assert_allclose(jnp.sum(found.explained[:2]), 1, rtol=1e-12)
    still = jax.tree.map(lambda x: jnp.repeat(x[:1], 4, axis=0), points)
    np.testing.assert_array_equal(landscape.trajectory_pca(still, k=2).explained, 0)


def test_a_path_passes_its_ends_and_leaves_towards_its_bend():
    start, end, bend = (network((3, 4, 2), seed=i)[0] for i in (0, 20, 40))
    for t, expected in ((0.0, start), (1.0, end)):
        for curve in (None, bend):
            found = landscape.path(t, start, end, curve)
            for name, leaf in expected.items():
                np.testing.assert_allclose(found[name], leaf, atol=1e-15)
    leaving = jax.jvp(lambda t: landscape.path(t, start, end, bend), (0.0,), (1.0,))[1]
    np.testing.assert_allclose(leaving["W0"], 2 * (bend["W0"] - start["W0"]), rtol=1e-12)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, start, end)
    np.testing.assert_allclose(
        landscape.path(0.3, start, end, middle)["W0"],
        landscape.path(0.3, start, end)["W0"],
        rtol=1e-12,
    )


def test_the_random_loss_of_a_path_is_in_the_mean_its_integral():
    start, end, bend = ({"x": jnp.array(v)} for v in ([0.0, 0.0], [1.0, 0.0], [0.5, 2.0]))

    def loss(p):
        return jnp.sum(p["x"] ** 2)

    draw = jax.vmap(lambda key: landscape.path_loss(key, loss, start, end, bend))
    drawn = draw(jax.random.split(jax.random.key(0), 4000))
    ts = jnp.linspace(0, 1, 2001)
    along = landscape.path_losses(loss, ts, start, end, bend)
    at = jax.vmap(lambda t: loss(landscape.path(t, start, end, bend)))
    np.testing.assert_allclose(along, at(ts), rtol=1e-12, atol=1e-15)
    integral = np.trapezoid(along, ts)
    np.testing.assert_allclose(integral, 1 / 3 + 16 / 30, rtol=1e-5)  # of t^2 and (4 t (1 - t))^2
    assert abs(np.mean(drawn) - integral) < 4 * np.std(drawn) / np.sqrt(4000)


def test_bending_a_path_by_its_random_loss_goes_around_a_hill():
    start, end = {"x": jnp.array([-1.0, 0.0])}, {"x": jnp.array([1.0, 0.0])}

    def loss(p):
        return jnp.exp(-2 * jnp.sum(p["x"] ** 2)) + 0.01 * jnp.sum(p["x"] ** 2)

    @jax.jit
    def bent(key):
        def step(bend, key):
            g = jax.grad(lambda c: landscape.path_loss(key, loss, start, end, c))(bend)
            return jax.tree.map(lambda c, d: c - 0.2 * d, bend, g), None

        return jax.lax.scan(step, {"x": jnp.array([0.0, 0.3])}, jax.random.split(key, 500))[0]

    ts = jnp.linspace(0, 1, 51)
    straight = landscape.path_losses(loss, ts, start, end)
    around = landscape.path_losses(loss, ts, start, end, bent(jax.random.key(0)))
    assert jnp.max(around) < jnp.max(straight) / 3


def test_a_layer_keeps_its_outputs_and_loses_what_its_data_do_not_use():
    W, basis = normal(0, (8, 5)), normal(1, (3, 8))
    X = normal(2, (50, 3)) @ basis  # inputs of rank 3
    found = jax.jit(partial(landscape.utilized_rank, energy=1.0))(W, X)
    assert (found.rank_in, found.rank_out) == (3, 3)
    assert found.utilization == pytest.approx(3 / 5)
    np.testing.assert_allclose(X @ found.weights, X @ W, atol=1e-10)
    assert np.linalg.matrix_rank(found.weights) == 3


@pytest.mark.parametrize("energy", [0.5, 0.8, 0.99])
def test_the_ranks_are_the_least_that_hold_the_energy_on_each_side(energy):
    W, X = normal(0, (6, 7)), normal(2, (50, 6)) * 0.6 ** jnp.arange(6.0)
    found = landscape.utilized_rank(W, X, energy=energy)
    projectors = []
    for A, rank in ((np.asarray(X), found.rank_in), (np.asarray(X @ W), found.rank_out)):
        values, vectors = np.linalg.eigh(A.T @ A)
        held = np.cumsum(values[::-1]) / values.sum()
        assert held[rank - 1] >= energy
        assert np.all(held[: rank - 1] < energy)
        projectors.append(vectors[:, -int(rank) :] @ vectors[:, -int(rank) :].T)
    np.testing.assert_allclose(found.weights, projectors[0] @ W @ projectors[1], atol=1e-10)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_named():
    params, data, losses = network((3, 4, 2))
    with pytest.raises(TypeError, match=r"scalar-output functions.*\(40,\)"):
        landscape.hessian(lambda p: losses(p, data), params)(params)
    with pytest.raises(ValueError, match=r"vector, got shape \(\)"):
        landscape.gradient_second_moment(lambda p: jnp.mean(losses(p, data)), params)(params)
    with pytest.raises(ValueError, match="differ in structure"):
        landscape.hessian(lambda p: jnp.mean(losses(p, data)), params)({"W0": params["W0"]})
    basis = random_basis(0, params, 2)
    with pytest.raises(ValueError, match="differ in structure"):
        landscape.gradient_fraction(basis, {"W0": params["W0"]})
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.9, got 10"):
        landscape.trajectory_pca(trajectory(), k=10)
    with pytest.raises(ValueError, match="'median'"):
        landscape.trajectory_pca(trajectory(), k=1, center="median")
    with pytest.raises(ValueError, match=r"got \[3, 4\]"):
        landscape.trajectory_pca({"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2))}, k=1)
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(5, 4\)"):
        landscape.utilized_rank(jnp.ones((3, 2)), jnp.ones((5, 4)))
    with pytest.raises(ValueError, match="energy must be in"):
        landscape.utilized_rank(jnp.ones((3, 2)), jnp.ones((5, 3)), energy=1.5)
