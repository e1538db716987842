"""The Grassmann manifold against the textbook's singular value decompositions in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.manifolds import _rows, grassmann

CASES = [
    ((1, 1), "float64"),
    ((5, 1), "complex64"),
    ((4, 4), "complex128"),
    ((10, 3), "float64"),
    ((10, 3), "complex64"),
    ((64, 8), "float32"),
]
DTYPES = ["float32", "complex128"]
RETRACTIONS = ["geodesic", "cayley", "polar", "cholesky_qr"]
SINGLE = {"float32": True, "complex64": True, "float64": False, "complex128": False}


def slow(*values):
    operands = (value if isinstance(value, tuple) else (value,) for value in values)
    return [pytest.param(*each, marks=pytest.mark.slow) for each in operands]


@pytest.fixture
def x64(request):
    with jax.enable_x64(not SINGLE[request.getfixturevalue("dtype")]):
        yield


def rounding(dtype):
    return float(jnp.finfo(dtype).eps)


def normal(seed, shape, dtype):
    parts = np.random.default_rng(seed).normal(size=(2, *shape))
    return parts[0] + 1j * parts[1] if "complex" in dtype else parts[0]


def frame(seed, shape, dtype):
    return jnp.asarray(np.linalg.qr(normal(seed, shape, dtype))[0], dtype)


def tangent(seed, Q, angle=1.0):
    """A tangent whose largest principal angle is ``angle``; zero where k = n."""
    P, V = np.asarray(Q), normal(seed, Q.shape, str(Q.dtype))
    V = V - P @ (P.conj().T @ V)
    V = V - P @ (P.conj().T @ V)
    size = np.linalg.norm(V, 2)
    return jnp.asarray(V * (angle / size if Q.shape[0] > Q.shape[1] else 0), Q.dtype)


def svd_geodesic(Q, V):
    """Edelman, Arias & Smith, theorem 2.3, as it stands there, in double precision."""
    double = complex if np.iscomplexobj(Q) else float
    Q, V = np.asarray(Q, double), np.asarray(V, double)
    U, angles, Wh = np.linalg.svd(V, full_matrices=False)
    return (Q @ Wh.conj().T * np.cos(angles) + U * np.sin(angles)) @ Wh


def svd_transport(Q, V, X):
    """Theorem 2.4 there."""
    Q, V, X = (np.asarray(A, complex) for A in (Q, V, X))
    U, angles, Wh = np.linalg.svd(V, full_matrices=False)
    along = U.conj().T @ X
    return X - U @ along + (U * np.cos(angles) - Q @ Wh.conj().T * np.sin(angles)) @ along


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_exp_is_the_svd_geodesic(shape, dtype):
    Q, exp = frame(0, shape, dtype), jax.jit(grassmann.exp)
    for angle in (0.0, 1e-6, 0.3, np.pi / 2, 3.0, 20.0):
        V = tangent(1, Q, angle)
        R = exp(Q, V)
        assert R.dtype == dtype
        bound = (1e-6 if SINGLE[dtype] else 1e-14) * max(1, angle)
        np.testing.assert_allclose(R, svd_geodesic(Q, V), atol=bound)
        if angle <= np.pi / 2:
            assert grassmann.check(R) <= (5e-7 if SINGLE[dtype] else 2e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_log_is_the_inverse_of_exp(shape, dtype):
    Q = frame(0, shape, dtype)
    V = tangent(1, Q, 1.4)
    turn = frame(2, shape[1:] * 2, dtype)
    found = jax.jit(grassmann.log)(Q, grassmann.exp(Q, V) @ turn)
    np.testing.assert_allclose(found, V, atol=100 * rounding(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_a_velocity_is_carried_to_the_one_that_leads_back(shape, dtype):
    Q, R = frame(0, shape, dtype), frame(1, shape, dtype)

    @jax.jit
    def sum_of_both(Q, R):
        V = grassmann.log(Q, R)
        return grassmann.transport(Q, V, V) + grassmann.log(grassmann.exp(Q, V), Q)

    bound = 1e-6 if SINGLE[dtype] else 1e-12
    middle = grassmann.exp(Q, grassmann.log(Q, R) / 2)  # random subspaces may be at the cut locus
    np.testing.assert_allclose(sum_of_both(Q, middle), 0, atol=bound)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize(("shape", "dtype"), [*slow(*CASES[2:4]), CASES[4]])
def test_transport_keeps_inner_products_and_ends_in_the_tangent_space(shape, dtype, retraction):
    manifold = grassmann.with_retraction(retraction)
    Q = frame(0, shape, dtype)
    V, X, Y = tangent(1, Q), tangent(2, Q), tangent(3, Q)
    carry = jax.jit(manifold.transport)
    tX, tY, R = carry(Q, V, X), carry(Q, V, Y), manifold.retract(Q, V)
    bound = 40 * rounding(dtype)
    np.testing.assert_allclose(manifold.inner(R, tX, tY), manifold.inner(Q, X, Y), atol=bound * 10)
    np.testing.assert_allclose(R.conj().T @ tX, 0, atol=bound)
    if retraction == "geodesic":
        np.testing.assert_allclose(tX, svd_transport(Q, V, X), atol=bound)


@pytest.mark.parametrize("retraction", RETRACTIONS[1:])
@pytest.mark.parametrize("dtype", ["complex128"])
def test_other_retractions_agree_with_the_geodesic_to_second_order(retraction, dtype):
    with jax.enable_x64(True):
        manifold = grassmann.with_retraction(retraction)
        Q = frame(0, (9, 3), dtype)
        V = tangent(1, Q)
        step = jax.jit(
            lambda h: grassmann.dist(manifold.retract(Q, h * V), grassmann.exp(Q, h * V))
        )
        ratio = step(2e-2) / step(1e-2)
        np.testing.assert_allclose(jnp.log2(ratio), 3, atol=0.02)


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.usefixtures("x64")
def test_a_step_lands_on_the_manifold_also_from_a_frame_a_little_off_it(retraction, dtype):
    manifold = grassmann.with_retraction(retraction)
    Q = frame(0, (40, 5), dtype)
    off = Q + 1e-4 * frame(3, (40, 5), dtype)  # a departure of 1e-4 is squared: 1e-8
    for angle in (0.0, 1e-3, 1.5):
        R = jax.jit(manifold.retract)(off, tangent(1, Q, angle))
        assert manifold.check(R) <= 5e-7
        assert manifold.check(off) > 1e-5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32"])
def test_a_tiny_step_keeps_its_digits(dtype):
    Q = frame(0, (30, 4), dtype)
    V = tangent(1, Q, 1e-7)
    u = jax.jit(grassmann.update)(Q, V)
    flat = grassmann.project_tangent(Q, u)
    np.testing.assert_allclose(flat, V, atol=1e-5 * np.abs(V).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [*slow("float32"), "complex128"])
def test_the_frame_turns_the_result_and_nothing_else(dtype):
    Q, T = frame(0, (12, 4), dtype), frame(5, (4, 4), dtype)
    V, X = tangent(1, Q), tangent(2, Q)
    bound = {"atol": 40 * rounding(dtype)}
    for retraction in ("polar", "geodesic"):
        manifold = grassmann.with_retraction(retraction)
        update, carry = jax.jit(manifold.update), jax.jit(manifold.transport)
        np.testing.assert_allclose(update(Q @ T, V @ T), update(Q, V) @ T, **bound)
        np.testing.assert_allclose(carry(Q @ T, V @ T, X @ T), carry(Q, V, X) @ T, **bound)
    R, log = Q + update(Q, V), jax.jit(grassmann.log)
    np.testing.assert_allclose(log(Q @ T, R), log(Q, R) @ T, **bound)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_dist_is_the_norm_of_the_principal_angles(shape, dtype):
    Q, R = frame(0, shape, dtype), frame(1, shape, dtype)
    oracle = linalg.geodesic_distance(Q, R)
    np.testing.assert_allclose(grassmann.dist(Q, R), oracle, atol=30 * rounding(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_projecting_twice_is_projecting_once(dtype):
    Q, G = frame(0, (11, 4), dtype), frame(1, (11, 4), dtype) * 3
    once = grassmann.project_tangent(Q, G)
    np.testing.assert_allclose(Q.conj().T @ once, 0, atol=10 * rounding(dtype))
    np.testing.assert_allclose(once, linalg.project_out(Q, G), atol=20 * rounding(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", slow("float32", "complex128"))
def test_leading_axes_are_one_call_after_another(dtype):
    Q = jnp.stack(
        [jnp.stack([frame(3 * i + j, (8, 2), dtype) for j in range(3)]) for i in range(2)]
    )
    V = grassmann.random_tangent(jax.random.key(9), Q) * jnp.array([0.1, 1.0, 4.0])[:, None, None]
    R = grassmann.exp(Q, V / 4)
    functions = [(grassmann.log, (Q, R)), (grassmann.dist, (Q, R))]
    for manifold in map(grassmann.with_retraction, RETRACTIONS):
        functions += [(manifold.update, (Q, V)), (manifold.transport, (Q, V, V))]
    for function, operands in functions:
        together = jax.jit(function)(*operands)
        apart = jax.jit(jax.vmap(jax.vmap(function)))(*operands)
        np.testing.assert_allclose(together, apart, atol=200 * rounding(dtype))


@pytest.mark.parametrize("angle", [*slow(np.pi / 2 - 1e-9), np.pi / 2])
def test_at_the_cut_locus_log_is_one_of_the_shortest_and_derivatives_are_finite(angle):
    with jax.enable_x64(True):
        Q = jnp.eye(5)[:, :2]
        R = jnp.stack([jnp.cos(angle) * Q[:, 0] + jnp.sin(angle) * jnp.eye(5)[2], Q[:, 1]], axis=1)
        V = jax.jit(grassmann.log)(Q, R)
        np.testing.assert_allclose(grassmann.norm(Q, V), angle, rtol=1e-9)
        missed = linalg.project_out(R, jax.jit(grassmann.exp)(Q, V))
        np.testing.assert_allclose(missed, 0, atol=1e-7)
        slope = jax.jit(lambda R: jax.grad(lambda R: weighted(grassmann.log, 0)(Q, R))(R))(R)
        assert jnp.all(jnp.isfinite(slope))


def weighted(function, seed):
    """A scalar function of a matrix-valued one, with weights that see every entry."""

    def scalar(*xs):
        value = function(*xs)
        weights = jax.random.normal(jax.random.key(seed), value.shape, value.dtype)
        return jnp.sum((weights.conj() * value).real)

    return scalar


def points_of_trouble(dtype):
    """Zero tangents, equal angles, equal points: where singular vectors have no derivative."""
    Q = frame(0, (7, 3), dtype)
    U = np.linalg.qr(np.asarray(Q), mode="complete")[0][:, 3:6]
    equal = U * 0.7
    mixed = U * jnp.array([0.0, 0.7, 0.7])
    return Q, [jnp.zeros_like(Q), equal, mixed, tangent(4, Q, 1.2)]


MAPS = {
    "carried": lambda Q, V: grassmann.transport(
        Q, V, grassmann.project_tangent(Q, jnp.ones_like(Q))
    ),
    "cayley": grassmann.with_retraction("cayley").retract,
    "polar": grassmann.with_retraction("polar").retract,
    "log": lambda Q, V: grassmann.log(Q, grassmann.exp(frame(0, Q.shape, str(Q.dtype)), V)),
    "exp": grassmann.exp,
}


@pytest.mark.parametrize("name", [*slow(*MAPS)[:-1], "exp"])
@pytest.mark.parametrize("dtype", [*slow("float64"), "complex128"])
def test_first_and_second_derivatives_equal_differences_also_where_angles_are_equal(name, dtype):
    with jax.enable_x64(True):
        Q, tangents = points_of_trouble(dtype)
        f = weighted(MAPS[name], 1)
        dQ, dV = frame(5, (7, 3), dtype), frame(6, (7, 3), dtype)

        @jax.jit
        def along(t, V):
            return f(Q + t * dQ, V + t * dV)

        @jax.jit
        def slope(t, V):
            gQ, gV = jax.grad(f, argnums=(0, 1))(Q + t * dQ, V + t * dV)
            return jnp.sum((gQ * dQ + gV * dV).real)  # jax.grad conjugates

        second = jax.jit(lambda V: jax.jvp(lambda t: slope(t, V), (0.0,), (1.0,))[1])
        h = 1e-5
        for V in tangents:
            first = (along(h, V) - along(-h, V)) / (2 * h)
            np.testing.assert_allclose(slope(0.0, V), first, rtol=1e-6, atol=1e-7)
            change = (slope(h, V) - slope(-h, V)) / (2 * h)
            np.testing.assert_allclose(second(V), change, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [*slow("float32"), "complex64"])
def test_derivatives_of_dist_are_finite_at_equal_points(dtype):
    Q = frame(0, (7, 3), dtype)
    first = jax.jit(jax.grad(grassmann.dist))
    second = jax.jit(lambda R: jax.jvp(lambda R: first(R, Q), (R,), (R,))[1])
    assert jnp.all(jnp.isfinite(first(Q, Q)))
    assert jnp.all(jnp.isfinite(second(Q)))
    eye = jnp.eye(5, 2, dtype=dtype)  # an exact zero, without rounding
    np.testing.assert_array_equal(first(eye, eye), 0)


def test_random_points_are_uniform_in_their_projectors():
    keys = jax.random.split(jax.random.key(0), 4000)
    points = jax.vmap(partial(grassmann.random_point, n=5, k=2))(keys)
    mean = jnp.mean(points @ points.mT, axis=0)
    np.testing.assert_allclose(mean, 0.4 * np.eye(5), atol=0.03)


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_named():
    for function in (grassmann.update, grassmann.log, grassmann.project_tangent, grassmann.exp):
        with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
            function(jnp.ones((4, 2)), jnp.ones((4, 3)))
    with pytest.raises(ValueError, match=r"k <= n, got \(2, 4\)"):
        grassmann.check(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="3 columns cannot be orthonormal in dimension 2"):
        grassmann.random_point(jax.random.key(0), 2, 3)
    with pytest.raises(ValueError, match=r"retraction must be one of .* got 'qr'"):
        grassmann.with_retraction("qr")


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("n", [9, 1025])
def test_frames_stored_as_rows_move_as_columns_do(n, dtype, x64):
    """Every retraction and its transport; three blocks of 342 rows, the last with a zero."""
    Q = jnp.stack([frame(seed, (n, 3), dtype) for seed in range(2)])
    V = jnp.stack([tangent(2, each) for each in Q])
    X = jnp.asarray(normal(3, Q.shape, dtype))
    for manifold in (grassmann, *map(grassmann.with_retraction, RETRACTIONS)):
        steps = {"project_tangent": (Q, X), "update": (Q, V), "transport": (Q, V, X)}
        for name, operands in steps.items():
            rows = getattr(manifold.in_rows, name)(*map(_rows.stored, operands))
            columns = getattr(manifold, name)(*operands)
            np.testing.assert_allclose(_rows.restored(rows, n), columns, atol=1e-13)
        norms = manifold.in_rows.norm(_rows.stored(Q), _rows.stored(X))
        np.testing.assert_allclose(norms, manifold.norm(Q, X), rtol=1e-13)
