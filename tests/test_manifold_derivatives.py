"""Derivatives of the functions of manifolds, in float64, and descent in their metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.geometries import TABLE, ambient_inner, close, every, like, scaled, study, with_log

pytestmark = pytest.mark.usefixtures("x64")


@every
def test_derivatives_at_a_zero_tangent_are_finite_and_equal_finite_differences(name):
    case = TABLE[name]
    M = case.manifold
    s = study(name, jnp.float64)
    weights = like(jax.random.key(7), s.p)
    carry_weights = like(jax.random.key(8), s.v)

    def along(t):
        v = scaled(t, s.v)
        moved = ambient_inner(weights, M.retract(s.p, v))
        return moved + ambient_inner(carry_weights, M.transport(s.p, v, s.x))

    @jax.jit
    def all_orders(t):
        slope, second = jax.jvp(jax.grad(along), (t,), (jnp.ones_like(t),))
        return along(t), slope, second

    step = 1e-5
    (_, first, second), there, back = (all_orders(jnp.array(t)) for t in (0.0, step, -step))
    np.testing.assert_allclose(first, (there[0] - back[0]) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(second, (there[1] - back[1]) / (2 * step), atol=1e-7)


@every
def test_distances_have_finite_derivatives_at_equal_points(name):
    M, s = TABLE[name].manifold, study(name, jnp.float64)
    gradient = jax.grad(lambda q: M.dist(s.p, q))
    first, second = jax.jit(lambda q: jax.jvp(gradient, (q,), (q,)))(s.p)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((first, second)))
    close(first, scaled(0, first))


@with_log
def test_the_derivative_of_log_at_equal_points_is_the_identity(name):
    M, s = TABLE[name].manifold, study(name, jnp.float64)
    change = jax.jit(lambda v: jax.jvp(lambda q: M.log(s.p, q), (s.p,), (v,))[1])
    close(change(s.v), s.v)
