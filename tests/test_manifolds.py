"""One table of manifolds, many properties, in float64; another manifold is another line."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import tree
from subspace_jax.linalg import orthonormalize
from subspace_jax.manifolds import euclidean, fixed_rank, flag, oblique, orthogonal, product, spd


def same(p, v):
    del p
    return v


class Case(NamedTuple):
    """A manifold, and which properties it has."""

    manifold: Any
    sizes: tuple
    """What its random_point takes."""
    geodesic: bool = True
    """dist is the length of a geodesic, and there is a log."""
    isometric: bool = True
    """transport is an isometry, and carries a velocity to the velocity."""
    batched: bool = True
    embed: Callable = same
    """(p, tangent) -> the ambient direction that it is."""
    exact: Callable = lambda n, k=1: jnp.eye(n, k)
    """(*sizes) -> a point without rounding."""


FLAG, LINES, PLANE = flag.blocks(1, 2), flag.blocks(1, 1, 1), flag.blocks(2)
FACTORS = {"a": oblique, "b": [euclidean, flag.blocks(2)], "c": orthogonal}
SIZES = {"a": (4, 2), "b": [(3,), (5,)], "c": (3,)}


def exact_flag(n, k=3):
    return jnp.eye(n, k)


def exact_rank(m, n, r):
    return fixed_rank.Point(jnp.eye(m, r), jnp.eye(r), jnp.eye(n, r))


TABLE = {
    "sphere": Case(oblique, (5,)),
    "oblique": Case(oblique, (6, 3)),
    "oblique n=1": Case(oblique, (1, 2)),
    "orthogonal": Case(orthogonal, (4,), exact=jnp.eye),
    "orthogonal n=1": Case(orthogonal, (1,), exact=jnp.eye),
    "spd": Case(spd, (4,), exact=jnp.eye),
    "spd n=1": Case(spd, (1,), exact=jnp.eye),
    "flag": Case(FLAG, (6,), geodesic=False, exact=exact_flag),
    "flag k=n": Case(LINES, (3,), geodesic=False, exact=exact_flag),
    "flag of one block": Case(PLANE, (5,), geodesic=False, exact=partial(exact_flag, k=2)),
    "fixed rank": Case(
        fixed_rank,
        (5, 4, 2),
        geodesic=False,
        isometric=False,
        embed=fixed_rank.dense_tangent,
        exact=exact_rank,
    ),
    "fixed rank r=n": Case(
        fixed_rank,
        (2, 2, 2),
        geodesic=False,
        isometric=False,
        embed=fixed_rank.dense_tangent,
        exact=exact_rank,
    ),
    "euclidean": Case(euclidean, (3, 2), batched=False, exact=lambda *shape: jnp.ones(shape)),
    "product": Case(
        product.of(FACTORS),
        (SIZES,),
        geodesic=False,
        batched=False,
        exact=lambda _: {"a": jnp.eye(4, 2), "b": [jnp.ones(3), jnp.eye(5, 2)], "c": jnp.eye(3)},
    ),
}
EDGES = ("sphere", "oblique n=1", "orthogonal n=1", "spd n=1", "flag k=n", "flag of one block")
SLOW = (*EDGES, "fixed rank r=n", "product")
"""Each compiles for seconds; without them the table takes half a minute."""


def among(condition=lambda case: True):
    names = [name for name, case in TABLE.items() if condition(case)]
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[slow] if name in SLOW else []) for name in names]
    )


every = among()
with_log = among(lambda case: case.geodesic)
isometric = among(lambda case: case.isometric)
field = pytest.mark.parametrize(
    "dtype", [jnp.float64, pytest.param(jnp.complex128, marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def scaled(a, v):
    return jax.tree.map(lambda x: (a * x).astype(x.dtype), v)


def like(key, x):
    return euclidean.random_tangent(key, x)


def ambient_inner(u, v):
    return tree.vdot(u, v).real


class Study(NamedTuple):
    """What the properties are about, computed by one program a manifold and dtype."""

    p: Any
    v: Any
    x: Any
    y: Any
    q: Any
    velocity: Any
    values: dict


@lru_cache
def study(name, dtype):
    case = TABLE[name]
    M = case.manifold

    @jax.jit
    def compute(key):
        keys = jax.random.split(key, 6)
        p = M.random_point(keys[0], *case.sizes, dtype=dtype)
        v, x, y = (M.random_tangent(k, p) for k in keys[1:4])
        size = M.norm(p, v)
        v = scaled(0.7 / jnp.where(size > 0, size, 1), v)
        ambient = case.embed(p, v)
        g, h = like(keys[4], ambient), like(keys[5], ambient)
        Pg, Ph = M.project_tangent(p, g), M.project_tangent(p, h)
        q, velocity = jax.jvp(
            lambda t: M.retract(p, scaled(t, v)), (jnp.ones(()),), (jnp.ones(()),)
        )
        tiny = scaled(1e-4, v)
        values = {
            "checks": (M.check(p), M.check(q)),
            "projected": (Pg, M.project_tangent(p, case.embed(p, Pg))),
            "tangents": (v, M.project_tangent(p, case.embed(p, v))),
            "adjoint": (
                ambient_inner(case.embed(p, Pg), h),
                ambient_inner(g, case.embed(p, Ph)),
            ),
            "update": (M.update(p, v), jax.tree.map(lambda a, b: a - b, q, p)),
            "size": M.norm(p, v),
            "tiny dist": M.dist(p, M.retract(p, tiny)) / 1e-4,
            "dists": (M.dist(p, q), M.dist(q, p), M.dist(p, p)),
            "norm": (M.norm(p, x) ** 2, M.inner(p, x, x)),
            "symmetry": (M.inner(p, x, y), M.inner(p, y, x)),
            "carried": tuple(M.transport(p, v, t) for t in (x, y, v)),
            "inner": (M.inner(p, x, y),),
        }
        carried = values["carried"]
        values["carried projected"] = M.project_tangent(q, case.embed(q, carried[0]))
        values["carried inner"] = M.inner(q, *carried[:2])
        values["carried norms"] = (M.norm(q, carried[0]), M.norm(p, x))
        if case.geodesic:
            values["log"] = M.log(p, q)
            values["log back"] = M.log(q, p)
            values["exp of log"] = M.exp(p, values["log"])
        return Study(p, v, x, y, q, velocity, values)

    return compute(jax.random.key(0))


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **{"rtol": 1e-10, "atol": 1e-11, **tolerance})


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
