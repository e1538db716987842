"""The Stiefel manifold against matrix exponentials and decompositions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax.manifolds import Manifold, stiefel

CASES = [
    ((1, 1), "complex128"),
    ((5, 1), "float32"),
    ((4, 4), "float64"),
    ((9, 3), "complex64"),
    ((9, 3), "complex128"),
    ((40, 6), "float32"),
]


@pytest.fixture
def x64(request):
    dtype = request.getfixturevalue("dtype")
    with jax.enable_x64(dtype in ("float64", "complex128")):
        yield


def rounding(dtype):
    return float(jnp.finfo(dtype).eps)


def normal(seed, shape, dtype):
    parts = np.random.default_rng(seed).normal(size=(2, *shape))
    return parts[0] + 1j * parts[1] if "complex" in dtype else parts[0]


def frame(seed, shape, dtype):
    return jnp.asarray(np.linalg.qr(normal(seed, shape, dtype))[0], dtype)


def tangent(seed, Q, length=1.0):
    P, G = np.asarray(Q), normal(seed, Q.shape, str(Q.dtype))
    inside = P.conj().T @ G
    V = G - P @ (inside + inside.conj().T) / 2
    return jnp.asarray(V * length / max(np.linalg.norm(V), 1e-3), Q.dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_retract_is_the_polar_factor(shape, dtype):
    Q, retract = frame(0, shape, dtype), jax.jit(stiefel.retract)
    for length in (0.0, 1e-3, 1.0, 30.0):
        V = tangent(1, Q, length)
        oracle = scipy.linalg.polar(np.complex128(Q) + np.complex128(V))[0]
        found = retract(Q, V)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, oracle, atol=20 * rounding(dtype) * max(1, length))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_exp_starts_with_its_velocity_and_keeps_its_speed_and_its_frame(shape, dtype):
    Q = frame(0, shape, dtype)
    V = tangent(1, Q)
    path = jax.jit(lambda t: jax.jvp(lambda t: stiefel.exp(Q, t * V), (t,), (jnp.ones_like(t),)))
    start, velocity = path(jnp.zeros((), Q.real.dtype))
    np.testing.assert_allclose(start, Q, atol=10 * rounding(dtype))
    np.testing.assert_allclose(velocity, V, atol=10 * rounding(dtype))
    for t in (0.5, 2.0):
        R, velocity = path(jnp.asarray(t, Q.real.dtype))
        assert stiefel.check(R) < 50 * rounding(dtype)
        np.testing.assert_allclose(stiefel.norm(R, velocity), stiefel.norm(Q, V), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["complex128"])
@pytest.mark.usefixtures("x64")
def test_the_acceleration_of_a_geodesic_is_normal_to_the_manifold(dtype):
    Q = frame(0, (7, 3), dtype)
    V = tangent(1, Q, 2.0)

    @jax.jit
    def acceleration(t):
        def velocity(t):
            return jax.jvp(lambda t: stiefel.exp(Q, t * V), (t,), (1.0,))[1]

        R = stiefel.exp(Q, t * V)
        bend = jax.jvp(velocity, (t,), (1.0,))[1]
        return bend, stiefel.project_tangent(R, bend)

    for t in (0.0, 0.7):
        bend, sideways = acceleration(t)
        assert jnp.linalg.norm(bend) > 0.1
        np.testing.assert_allclose(sideways, 0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES[2:])
def test_projections_are_tangent_and_orthogonal_to_what_they_leave(shape, dtype):
    Q, G = frame(0, shape, dtype), jnp.asarray(normal(1, shape, dtype), dtype)
    V = jax.jit(stiefel.project_tangent)(Q, G)
    inside = Q.conj().T @ V
    bound = 50 * rounding(dtype)
    np.testing.assert_allclose(inside + inside.conj().T, 0, atol=bound)
    np.testing.assert_allclose(stiefel.inner(Q, G - V, tangent(2, Q)), 0, atol=bound)
    R = stiefel.retract(Q, tangent(3, Q))
    carried = R.conj().T @ stiefel.transport(Q, tangent(3, Q), V)
    np.testing.assert_allclose(carried + carried.conj().T, 0, atol=bound)


@pytest.mark.parametrize("dtype", ["complex128"])
@pytest.mark.usefixtures("x64")
def test_the_retraction_agrees_with_the_geodesic_to_second_order(dtype):
    Q = frame(0, (7, 3), dtype)
    V = tangent(1, Q)
    apart = jax.jit(lambda h: stiefel.dist(stiefel.retract(Q, h * V), stiefel.exp(Q, h * V)))
    np.testing.assert_allclose(jnp.log2(apart(2e-2) / apart(1e-2)), 3, atol=0.05)


@pytest.mark.parametrize("dtype", ["float32"])
@pytest.mark.usefixtures("x64")
def test_orthonormality_does_not_drift(dtype):
    Q = frame(0, (20, 4), dtype)

    def step(Q, key):
        return Q + stiefel.update(Q, 3 * stiefel.random_tangent(key, Q) + 1e-3 * Q), None

    Q = jax.jit(lambda Q, keys: jax.lax.scan(step, Q, keys)[0])(
        Q + 1e-2, jax.random.split(jax.random.key(0), 500)
    )
    Q = np.float64(Q)
    assert np.max(np.abs(Q.T @ Q - np.eye(4))) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["complex128"])
@pytest.mark.usefixtures("x64")
def test_leading_axes_are_one_call_after_another(dtype):
    Q = jnp.stack([frame(i, (6, 2), dtype) for i in range(4)]).reshape(2, 2, 6, 2)
    V = stiefel.random_tangent(jax.random.key(0), Q)
    for function in (stiefel.update, stiefel.exp, stiefel.dist):
        apart = jax.jit(jax.vmap(jax.vmap(function)))(Q, V)
        np.testing.assert_allclose(jax.jit(function)(Q, V), apart, atol=1e-13)


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_named():
    for function in (stiefel.update, stiefel.exp, stiefel.dist):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
            function(jnp.ones((4, 2)), jnp.ones((4, 3)))


def test_the_module_is_a_manifold():
    assert isinstance(stiefel, Manifold)
