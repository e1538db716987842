"""One table of manifolds, many properties, in float64; another manifold is another line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import tree
from subspace_jax.linalg import orthonormalize
from subspace_jax.manifolds import euclidean, flag, oblique, orthogonal, spd
from tests.geometries import (
    FLAG,
    TABLE,
    among,
    close,
    every,
    field,
    isometric,
    scaled,
    study,
    with_log,
)

pytestmark = pytest.mark.usefixtures("x64")


@every
@field
def test_random_points_and_steps_are_on_the_manifold(name, dtype):
    s = study(name, dtype)
    assert max(s.values["checks"]) < 1e-13
    assert all(x.dtype == dtype for x in jax.tree.leaves((s.p, s.v, s.q)))


@every
@field
def test_projection_is_idempotent_and_self_adjoint_and_keeps_tangents(name, dtype):
    values = study(name, dtype).values
    close(*values["projected"])
    close(*values["tangents"])
    close(*values["adjoint"])


@every
@field
def test_the_gradient_is_dual_to_the_differential_in_the_metric(name, dtype):
    close(*study(name, dtype).values["gradient"])


@every
@field
def test_an_update_is_the_difference_of_points(name, dtype):
    close(*study(name, dtype).values["update"])


@every
@field
def test_inner_products_make_norms_and_are_symmetric(name, dtype):
    values = study(name, dtype).values
    close(*values["norm"])
    close(*values["symmetry"])


@every
@field
def test_the_distance_of_a_short_step_is_its_norm(name, dtype):
    values = study(name, dtype).values
    np.testing.assert_allclose(values["tiny dist"], values["size"], rtol=1e-6, atol=1e-11)
    there, back, nowhere = values["dists"]
    np.testing.assert_allclose(there, back, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(nowhere, 0, atol=1e-14)


@with_log
@field
def test_exp_travels_the_norm_of_its_velocity_and_log_inverts_it(name, dtype):
    s = study(name, dtype)
    np.testing.assert_allclose(s.values["dists"][0], s.values["size"], rtol=1e-11, atol=1e-13)
    close(s.values["log"], s.v)
    close(s.values["exp of log"], s.q)


@with_log
@field
def test_the_velocity_carried_to_the_end_points_away_from_the_start(name, dtype):
    values = study(name, dtype).values
    close(values["carried"][2], scaled(-1, values["log back"]))


@isometric
@field
def test_transport_is_an_isometry_and_carries_the_velocity_to_the_velocity(name, dtype):
    s = study(name, dtype)
    close(s.values["carried inner"], s.values["inner"][0])
    close(s.values["carried"][2], s.velocity)


@every
@field
def test_transport_gives_tangents_at_the_end_never_longer(name, dtype):
    values = study(name, dtype).values
    close(values["carried projected"], values["carried"][0])
    after, before = values["carried norms"]
    assert after <= before * (1 + 1e-10)


@every
def test_a_tiny_step_keeps_its_digits_in_float32(name):
    case = TABLE[name]
    p = case.exact(*case.sizes)
    v = scaled(1e-6, jax.jit(case.manifold.random_tangent)(jax.random.key(1), p))
    p32, v32 = jax.tree.map(lambda x: x.astype(jnp.float32), (p, v))
    v = jax.tree.map(lambda x: x.astype(jnp.float64), v32)
    update = jax.jit(case.manifold.update)
    for coarse, fine in zip(
        jax.tree.leaves(update(p32, v32)), jax.tree.leaves(update(p, v)), strict=True
    ):
        assert coarse.dtype == jnp.float32
        np.testing.assert_allclose(coarse, fine, rtol=1e-5, atol=1e-12)


@every
def test_a_thousand_steps_in_float32_stay_on_the_manifold(name):
    case = TABLE[name]
    M = case.manifold

    @jax.jit
    def walk(key):
        def step(p, key):
            v = M.random_tangent(key, p)
            return tree.axpy(1.0, M.update(p, scaled(0.03, v)), p), M.check(p)

        start = M.random_point(key, *case.sizes, dtype=jnp.float32)
        return jax.lax.scan(step, start, jax.random.split(key, 1000))[1]

    assert jnp.max(walk(jax.random.key(0))) < 2e-6


@pytest.mark.slow
@among(lambda case: case.batched)
def test_leading_axes_are_a_batch(name):
    case = TABLE[name]
    M = case.manifold

    @jax.jit
    @jax.vmap
    def operands(key):
        p = M.random_point(key, *case.sizes, dtype=jnp.float64)
        return p, *(M.random_tangent(k, p) for k in jax.random.split(key))

    def everything(p, v, x):
        q = M.retract(p, scaled(0.3, v))
        out = [M.project_tangent(p, case.embed(p, v)), q, M.transport(p, scaled(0.3, v), x)]
        out += [M.inner(p, v, x), M.norm(p, v), M.dist(p, q), M.check(q)]
        return [*out, M.log(p, q)] if case.geodesic else out

    several = operands(jax.random.split(jax.random.key(0), 3))
    alone = jax.jit(jax.vmap(everything))(*several)
    close(jax.jit(everything)(*several), alone, atol=1e-9)


@field
def test_random_points_are_uniform(dtype):
    keys = jax.random.split(jax.random.key(0), 4000)

    def mean(function):
        return jnp.mean(jax.vmap(function)(keys), axis=0)

    def outer(Q):
        return Q @ Q.conj().T

    sphere = mean(lambda k: outer(oblique.random_point(k, 4, dtype=dtype)))
    np.testing.assert_allclose(sphere, np.eye(4) / 4, atol=0.03)
    rotation = jax.vmap(lambda k: orthogonal.random_point(k, 3, dtype=dtype))(keys)
    np.testing.assert_allclose(jnp.mean(rotation, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(jnp.mean(jnp.abs(rotation) ** 2, axis=0), 1 / 3, atol=0.03)
    first = mean(lambda k: outer(FLAG.random_point(k, 5, dtype=dtype)[:, :1]))
    np.testing.assert_allclose(first, np.eye(5) / 5, atol=0.03)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("M", [oblique, orthogonal, spd, FLAG, euclidean])
def test_unequal_shapes_are_named(M):
    for function in (M.project_tangent, M.update):
        with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 3\)"):
            function(jnp.eye(3), jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 3\)"):
        M.inner(jnp.eye(3), jnp.ones((4, 3)), jnp.ones((4, 3)))


def test_frames_of_the_wrong_width_do_not_make_a_flag():
    with pytest.raises(ValueError, match=r"\(1, 2\) need frames .* got \(5, 2\)"):
        FLAG.check(orthonormalize(jnp.ones((5, 2)) + jnp.eye(5, 2)))
    with pytest.raises(ValueError, match="at least one column"):
        flag.blocks(1, 0)
