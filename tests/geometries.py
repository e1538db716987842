"""A table of manifolds, and what their properties are about, for tests in float64."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import tree
from subspace_jax.manifolds import (
    euclidean,
    fixed_rank,
    flag,
    grassmann,
    oblique,
    orthogonal,
    product,
    spd,
    stiefel,
)
from subspace_jax.manifolds._manifold import gradient


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
    "grassmann": Case(grassmann, (6, 2)),
    "stiefel": Case(stiefel, (6, 2), geodesic=False, isometric=False),
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
EDGES = (
    "sphere",
    "oblique n=1",
    "orthogonal n=1",
    "spd n=1",
    "flag k=n",
    "flag of one block",
)
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
            "gradient": (M.inner(p, gradient(M, p, g), x), ambient_inner(g, case.embed(p, x))),
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
