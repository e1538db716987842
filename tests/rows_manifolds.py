"""Rows of the contract's table: distances, the algebra of subspaces, manifolds, means."""

import jax
import jax.numpy as jnp

from subspace_jax import linalg
from subspace_jax.linalg import subspaces
from subspace_jax.manifolds import euclidean, fixed_rank, flag, means, oblique, orthogonal, spd
from subspace_jax.manifolds import product as products
from tests.rows import FIELD, Row, arrays, bases, keys, normal

ONE = ("float32",)
"""Each program takes a second to compile; tests of their own have the other dtypes."""
DISTANCES = (
    "binet_cauchy_distance",
    "chordal_distance",
    "fubini_study_distance",
    "geodesic_distance",
    "martin_distance",
    "procrustes_distance",
    "projection_distance",
    "squared_geodesic_distance",
)


def compiled(function):
    """One program: what is not takes seconds to compile, operation by operation."""
    program = jax.jit(function)
    return lambda *operands: program(*operands)


def projector(Q):
    return Q @ Q.conj().T


def algebra(function):
    """The projector on a result: its basis is one of many."""
    return compiled(lambda *operands: projector(function(*operands)))


def reshaped(rng, dtype):
    """Bases, and a map of (6,) to (6,) beside them."""
    return normal(rng, (6, 6), dtype), *bases(4)(rng, dtype)


SUBSPACE_ROWS = {
    "span": Row(algebra(lambda A: subspaces.span(A, rank=3)), arrays((6, 3)), ONE, grad=False),
    "null_space": Row(
        algebra(lambda A: subspaces.null_space(A, rank=3)), arrays((3, 5)), ONE, grad=False
    ),
    "sum": Row(algebra(lambda Q, S: subspaces.sum(Q, S, rank=4)), bases(2, 2), ONE, grad=False),
    "intersection": Row(
        algebra(lambda Q, S: subspaces.intersection(Q, S, rank=2)), bases(4, 4), ONE, grad=False
    ),
    "complement": Row(algebra(subspaces.complement), bases(2), ONE, grad=False),
    "contains": Row(
        lambda Q, x: subspaces.contains(Q, x).astype(Q.dtype), bases(2, 1), ONE, grad=False
    ),
    "projection": Row(
        algebra(lambda Q, S: subspaces.projection(Q, S, rank=2)), bases(3, 2), ONE, grad=False
    ),
    "image": Row(algebra(lambda A, Q: subspaces.image(A, Q, rank=4)), reshaped, ONE, grad=False),
    "pullback": Row(
        algebra(lambda A, Q: subspaces.pullback(A, Q, rank=4)), reshaped, ONE, grad=False
    ),
    "restriction": Row(
        algebra(lambda V: subspaces.restriction(V, [0, 2, 3], rank=2)), bases(2), ONE, grad=False
    ),
    "contraction": Row(
        algebra(lambda V: subspaces.contraction(V, [0, 2, 3, 4], rank=2)), bases(4), ONE, grad=False
    ),
    "composition": Row(
        algebra(lambda V, W: subspaces.composition(V, W, num_shared=2, rank=5)),
        bases(4, 3),
        ONE,
        grad=False,
    ),
    "decomposition": Row(
        lambda V: projector(
            subspaces.composition(
                *subspaces.decomposition(V, 3, ranks=(1, 1)), num_shared=2, rank=4
            )
        ),
        bases(4),
        ONE,
        grad=False,
    ),
}


def definite(B):
    return B @ B.conj().T + jnp.eye(len(B), dtype=B.dtype)


def low_rank(B):
    eye = 3 * jnp.eye(2, dtype=B.dtype)
    return fixed_rank.Point(linalg.orthonormalize(B[:, :2]), eye, linalg.orthonormalize(B[:4, 2:]))


def unit_columns(B):
    return B / jnp.linalg.norm(B, axis=0)


SQUARE, TALL = (4, 4), (5, 4)
POINTS = {
    "oblique": (oblique, unit_columns, TALL, (5, 4)),
    "orthogonal": (orthogonal, linalg.orthonormalize, SQUARE, (4,)),
    "spd": (spd, definite, SQUARE, (4,)),
    "euclidean": (euclidean, lambda B: B, TALL, (5, 4)),
    "fixed_rank": (fixed_rank, low_rank, TALL, (5, 4, 2)),
}


def rows_of(name):
    """Every function of one manifold, at a point made of the first operand."""
    M, point, shape, sizes = POINTS[name]

    def at(function):
        """On a point, a tangent and another tangent made of three matrices."""

        def call(A, B, C):
            p = point(A)
            dense = (5, 4) if name == "fixed_rank" else shape
            B, C = (X.reshape(dense) / 8 for X in (B, C))
            return function(p, M.project_tangent(p, B), M.project_tangent(p, C))

        return Row(compiled(call), arrays(shape, shape, shape), ONE)

    def random(key):
        return M.random_point(key, *sizes, dtype=jnp.float32)

    rows = {
        "project_tangent": at(lambda p, v, x: v),
        "update": at(lambda p, v, x: M.update(p, v)),
        "retract": at(lambda p, v, x: M.retract(p, v)),
        "transport": at(M.transport),
        "inner": at(M.inner),
        "norm": at(lambda p, v, x: M.norm(p, v)),
        "dist": at(lambda p, v, x: M.dist(p, M.retract(p, v))),
        "check": Row(lambda A: M.check(point(A)), arrays(shape), ONE, grad=False),
        "random_point": Row(random, keys, ("float32",), grad=False),
        "random_tangent": Row(
            lambda key: M.random_tangent(key, random(key)), keys, ("float32",), grad=False
        ),
    }
    if name != "fixed_rank":
        rows["exp"] = at(lambda p, v, x: M.exp(p, v))
        rows["log"] = at(lambda p, v, x: M.log(p, M.exp(p, v)))
    if name == "spd":
        rows["gradient"] = at(lambda p, v, x: spd.gradient(p, v))
    if name == "fixed_rank":
        rows["gradient"] = at(
            lambda p, v, x: fixed_rank.gradient(p, fixed_rank.dense_tangent(p, v))
        )
        rows["dense"] = at(lambda p, v, x: fixed_rank.dense(p))
        rows["dense_tangent"] = at(lambda p, v, x: fixed_rank.dense_tangent(p, v))
        rows["from_dense"] = Row(
            lambda A: fixed_rank.dense(fixed_rank.from_dense(A, 2)), arrays(TALL), ONE, grad=False
        )
    return {f"{name}.{function}": row for function, row in rows.items()}


def flag_step(A, B):
    M, p = flag.blocks(1, 2), linalg.orthonormalize(A)
    return M.retract(p, M.project_tangent(p, B))


def product_step(A, B):
    M = products.of({"a": oblique, "b": euclidean})
    p = {"a": unit_columns(A), "b": A}
    return M.retract(p, M.project_tangent(p, {"a": B, "b": B}))


def karcher(A, B):
    points = jnp.stack([definite(A / 4), definite(B / 4)])
    return means.karcher_mean(points, manifold=spd, maxiter=4)[0]


def gram(G):
    return G.conj().T @ G


MEAN_ROWS = {
    "flag_mean": Row(
        algebra(lambda Q, S: means.flag_mean(jnp.stack([Q, S]))), bases(2, 2), ONE, grad=False
    ),
    "flag_median": Row(
        lambda G: projector(means.flag_median(G, num_directions=2, num_steps=3)[0]),
        arrays((7, 4)),
        ONE,
        grad=False,
    ),
    "flag_median_coefficients": Row(
        lambda G: projector(
            G @ means.flag_median_coefficients(gram(G), num_directions=2, num_steps=3)[0]
        ),
        arrays((7, 4)),
        ONE,
        grad=False,
    ),
    "karcher_mean": Row(compiled(karcher), arrays(SQUARE, SQUARE), ONE, grad=False),
}
MANIFOLD_ROWS = {
    **{f"linalg.{name}": Row(getattr(linalg, name), bases(2, 2), FIELD) for name in DISTANCES},
    **{f"subspaces.{name}": row for name, row in SUBSPACE_ROWS.items()},
    **{f"means.{name}": row for name, row in MEAN_ROWS.items()},
    **{name: row for manifold in POINTS for name, row in rows_of(manifold).items()},
    "flag.blocks": Row(compiled(flag_step), arrays((5, 3), (5, 3)), ONE),
    "product.of": Row(compiled(product_step), arrays((5, 3), (5, 3)), ONE),
}
