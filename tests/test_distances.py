"""Distances between subspaces against scipy's angles and finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from subspace_jax import linalg

pytestmark = pytest.mark.usefixtures("x64")


def log_volume(t):
    near = np.sin(t) ** 2 < 0.5
    return np.sum(np.where(near, np.log1p(-(np.sin(t * near) ** 2)) / 2, np.log(np.cos(t))))


ORACLES = {
    "geodesic_distance": lambda t: np.linalg.norm(t),
    "squared_geodesic_distance": lambda t: np.sum(t**2),
    "chordal_distance": lambda t: np.linalg.norm(np.sin(t)),
    "projection_distance": lambda t: np.max(np.sin(t)),
    "procrustes_distance": lambda t: 2 * np.linalg.norm(np.sin(t / 2)),
    "binet_cauchy_distance": lambda t: np.sqrt(-np.expm1(2 * log_volume(t))),
    "fubini_study_distance": lambda t: np.arctan2(
        np.sqrt(-np.expm1(2 * log_volume(t))), np.exp(log_volume(t))
    ),
    "martin_distance": lambda t: np.sqrt(-2 * log_volume(t)),
}
SHAPES = [(1, 1), (5, 1), (6, 3), (5, 4), (4, 4)]
FIELDS = [jnp.float64, jnp.complex128]
DERIVED = [jnp.float64, pytest.param(jnp.complex128, marks=pytest.mark.slow)]


def normal(seed, shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def basis(seed, shape, dtype=jnp.float64):
    return linalg.orthonormalize(normal(seed, shape, dtype))


def at_angles(angles, dtype=jnp.float64, seed=0):
    """Two bases with these principal angles, in general position."""
    k = len(angles)
    frame, mix = basis(seed, (2 * k + 1, 2 * k), dtype), basis(seed + 1, (k, k), dtype)
    Q, N = frame[:, :k], frame[:, k:]
    return Q, (Q * jnp.cos(jnp.asarray(angles)) + N * jnp.sin(jnp.asarray(angles))) @ mix


@jax.jit
def distances(Q, S):
    return {name: getattr(linalg, name)(Q, S) for name in ORACLES}


def moved(t, Q, S, X):
    """All distances, of a subspace that moves, at time t."""
    return distances(linalg.orthonormalize(Q + t * X), S)


def two_derivatives(t, Q, S, X):
    """Of all distances of a subspace that moves, at time t: by reverse mode, then forward."""
    return _two_derivatives(jnp.asarray(t, Q.real.dtype), Q, S, X)


@jax.jit
def _two_derivatives(t, Q, S, X):
    def both(name):
        slope = jax.grad(lambda t: getattr(linalg, name)(linalg.orthonormalize(Q + t * X), S))
        return jax.jvp(slope, (t,), (jnp.ones_like(t),))

    return {name: both(name) for name in ORACLES}


def assert_equal_oracles(found, angles, **tolerance):
    for name, oracle in ORACLES.items():
        np.testing.assert_allclose(found[name], oracle(angles), err_msg=name, **tolerance)


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_their_formulas_in_the_principal_angles(shape, dtype):
    Q, S = basis(0, shape, dtype), basis(1, shape, dtype)
    angles = np.where(shape[0] == shape[1], 0, scipy.linalg.subspace_angles(Q, S))
    assert_equal_oracles(distances(Q, S), angles, rtol=1e-12, atol=1e-14)


def test_distances_are_symmetric_and_do_not_depend_on_the_bases():
    Q, S, R = (basis(seed, (6, 3), jnp.complex128) for seed in range(3))
    turn = basis(3, (3, 3), jnp.complex128)
    here, swapped, turned = distances(Q, S), distances(S, Q), distances(Q @ turn, S)
    same, triangle = distances(Q, Q @ turn), (distances(Q, R), distances(R, S))
    for name in ORACLES:
        np.testing.assert_allclose(swapped[name], here[name], rtol=1e-12)
        np.testing.assert_allclose(turned[name], here[name], rtol=1e-12)
        np.testing.assert_allclose(same[name], 0, atol=1e-14)
        if name not in ("squared_geodesic_distance", "martin_distance"):
            assert here[name] <= triangle[0][name] + triangle[1][name]


@pytest.mark.parametrize("angles", [[1e-7, 1e-7, 1e-7], [3e-7, 1e-7, 0], [1e-3, 1e-7, 0]])
def test_tiny_angles_keep_their_digits(angles):
    assert_equal_oracles(distances(*at_angles(angles)), np.array(angles), rtol=1e-6)


@pytest.mark.parametrize("angles", [[np.pi / 2 - 1e-6, 0.0, 0.3], [1.57, 1.57, 1.0]])
def test_angles_near_a_right_one_keep_their_digits(angles):
    assert_equal_oracles(distances(*at_angles(angles)), np.array(angles), rtol=1e-5)


def test_at_a_right_angle_the_limit_comes_back():
    found = distances(jnp.eye(6)[:, :3], jnp.eye(6)[:, 1:4])
    assert np.isinf(found.pop("martin_distance"))
    for name, value in found.items():
        limit = ORACLES[name](np.array([0, 0, np.pi / 2 - 1e-9]))
        np.testing.assert_allclose(value, limit, rtol=1e-8, err_msg=name)


def test_the_chordal_and_the_projection_distance_are_norms_of_the_difference_of_projectors():
    Q, S = basis(0, (6, 3)), basis(1, (6, 3))
    difference, found = Q @ Q.T - S @ S.T, distances(Q, S)
    frobenius, spectral = np.linalg.norm(difference), np.linalg.norm(difference, 2)
    np.testing.assert_allclose(found["chordal_distance"], frobenius / np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(found["projection_distance"], spectral, rtol=1e-12)


def test_the_procrustes_distance_is_that_of_the_best_rotation():
    Q, S = basis(0, (6, 3), jnp.complex128), basis(1, (6, 3), jnp.complex128)
    oracle = np.linalg.norm(Q @ linalg.procrustes(Q, S) - S)
    np.testing.assert_allclose(distances(Q, S)["procrustes_distance"], oracle, rtol=1e-12)


def test_leading_axes_are_a_batch():
    Q, S = basis(0, (2, 2, 6, 3)), basis(1, (2, 2, 6, 3))
    together, one = distances(Q, S), distances(Q[1, 0], S[1, 0])
    for name, values in together.items():
        assert values.shape == (2, 2)
        np.testing.assert_allclose(values[1, 0], one[name], rtol=1e-12)


PLACES = {
    "apart": [0.3, 0.7, 1.1],
    "repeated": [0.5, 0.5, 0.5],
    "partly zero": [0.0, 0.5, 0.5],
    "nearly repeated": [0.5, 0.5 + 1e-9, 1.0],
    "near a right one": [0.3, 1.0, 1.5],
}


@pytest.mark.parametrize("dtype", DERIVED)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.slow
def test_first_and_second_derivatives_equal_finite_differences(place, dtype):
    Q, S = at_angles(PLACES[place], dtype)
    X, step = normal(5, Q.shape, dtype), 1e-4
    here, there, back = (two_derivatives(t, Q, S, X) for t in (0.0, step, -step))
    ahead, behind = moved(step, Q, S, X), moved(-step, Q, S, X)
    for name in ORACLES:
        if name == "projection_distance" and place in ("repeated", "partly zero"):
            continue  # the largest angle has a kink where it is repeated
        first, second = here[name]
        difference = (ahead[name] - behind[name]) / (2 * step)
        np.testing.assert_allclose(first, difference, rtol=1e-5, atol=1e-6, err_msg=name)
        difference = (there[name][0] - back[name][0]) / (2 * step)
        np.testing.assert_allclose(second, difference, rtol=1e-4, atol=1e-5, err_msg=name)


DEGENERATE = {
    "equal": [0.0, 0.0, 0.0],
    "repeated": [0.5, 0.5, 0.5],
    "right": [np.pi / 2, np.pi / 2, 0.2],
    "all right": [np.pi / 2, np.pi / 2, np.pi / 2],
    "tiny": [1e-12, 1e-12, 1e-12],
}


@pytest.mark.parametrize("dtype", [jnp.float32, *DERIVED])
@pytest.mark.parametrize("place", DEGENERATE)
@pytest.mark.slow
def test_derivatives_are_finite_everywhere(place, dtype):
    Q, S = (A.astype(dtype) for A in at_angles(DEGENERATE[place], dtype))
    derivatives = two_derivatives(0.0, Q, S, normal(5, Q.shape, dtype))
    for name, pair in derivatives.items():
        assert np.all(np.isfinite(pair)), (name, pair)


def test_derivatives_are_finite_at_exactly_equal_and_at_exactly_orthogonal_subspaces():
    Q, X = jnp.eye(7)[:, :3], normal(5, (7, 3))
    for start in (0, 1, 3):
        derivatives = two_derivatives(0.0, Q, jnp.eye(7)[:, start : start + 3], X)
        assert np.all(np.isfinite(jax.tree.leaves(derivatives))), (start, derivatives)
        if start == 0:
            assert all(first == 0 for first, _ in derivatives.values())


def test_the_hessian_of_the_squared_distance_at_equal_subspaces_is_twice_the_identity():
    Q, X = basis(0, (7, 3)), normal(5, (7, 3))
    second = two_derivatives(0.0, Q, Q @ basis(1, (3, 3)), X)["squared_geodesic_distance"][1]
    np.testing.assert_allclose(second, 2 * jnp.sum(linalg.project_out(Q, X) ** 2), rtol=1e-9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ORACLES)
def test_unequal_shapes_are_named(name):
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(4, 3\)"):
        getattr(linalg, name)(jnp.ones((4, 2)), jnp.ones((4, 3)))
