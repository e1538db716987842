"""The oracle of posteriors, the tangent spaces, and the iteration that forgets to conjugate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import off_tangent as off_tangent_config
from experiments import dds_ablation, off_tangent, oracle
from subspace_jax import krylov

SIZES = {"num_components": 3, "n": 12, "rank": 2, "m": 5, "condition": 8.0, "sigma_y": 0.2}
make = jax.jit(lambda key, one: oracle.make_problem(key, one, **SIZES))
random_matrix = jax.jit(oracle.random_matrix, static_argnums=(1, 2, 3, 4))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_singular_values_go_from_one_down_to_the_inverse_of_the_condition(dtype):
    A = random_matrix(jax.random.key(0), 4, 9, 27.0, dtype)
    assert A.dtype == dtype
    values = np.linalg.svd(np.asarray(A), compute_uv=False)
    np.testing.assert_allclose(values, [1, 1 / 3, 1 / 9, 1 / 27], rtol=1e-4)


def test_more_rows_than_columns_are_refused():
    with pytest.raises(ValueError, match="m must be at most n = 3, got 4"):
        oracle.random_matrix(jax.random.key(0), 4, 3, 2.0)


def test_one_component_is_a_mixture_of_equal_ones():
    one, mixture = make(jax.random.key(0), True), make(jax.random.key(0), False)
    np.testing.assert_array_equal(one.U, np.broadcast_to(one.U[:1], one.U.shape))
    np.testing.assert_array_equal(one.A, mixture.A)
    assert np.linalg.norm(mixture.U[0] - mixture.U[1]) > 0.1


def test_a_translation_is_as_far_as_its_length_over_the_root_of_the_dimension():
    X = jax.random.normal(jax.random.key(0), (50, 8))
    shift = jnp.arange(8.0)
    distance = jax.jit(oracle.sliced_wasserstein, static_argnums=3)
    found = distance(jax.random.key(1), X[::-1] + shift, X, 4000)
    np.testing.assert_allclose(found, jnp.linalg.norm(shift) / 8**0.5, rtol=0.05)
    assert distance(jax.random.key(1), X[::-1], X, 4000) < 1e-6


def test_exact_samples_have_only_the_errors_of_monte_carlo():
    num, problem = 4000, make(jax.random.key(2), False)

    @jax.jit
    def found(key, shift):
        X = oracle.posterior_samples(key, problem, num) + shift
        return oracle.errors(jax.random.key(9), problem, X, num_slices=16)

    exact, shifted = found(jax.random.key(3), 0.0), found(jax.random.key(3), 0.5)
    assert exact.mean < 5 / num**0.5
    assert exact.covariance < 0.1
    assert exact.distance < 0.1 < shifted.distance
    assert shifted.mean > 1
    lost = found(jax.random.key(3), jnp.where(jnp.arange(num)[:, None] < num // 4, jnp.nan, 0.0))
    np.testing.assert_allclose(lost.finite, 0.75)
    assert jnp.isfinite(lost.distance)


def test_the_exact_posterior_covers_the_truth_as_often_as_it_says():
    @jax.jit
    def ranks(key):
        keys = jax.random.split(key, 3)
        problem = oracle.make_problem(keys[0], False, **SIZES)
        X = oracle.posterior_samples(keys[1], problem, 300)
        return oracle.errors(keys[2], problem, X, num_slices=2).ranks

    found = jax.vmap(ranks)(jax.random.split(jax.random.key(4), 400))
    levels = jnp.asarray([0.2, 0.5, 0.8])
    # 400 problems of rank 2: about 800 independent coordinates, three standard errors
    np.testing.assert_allclose(oracle.coverage(found, levels), levels, atol=0.055)
    narrow = jnp.where(found > 0.5, 1.0, 0.0)  # samples all on one side of every truth
    np.testing.assert_array_equal(oracle.coverage(narrow, levels), 0)


def tangent_problem(kind):
    config = off_tangent_config.get_config("smoke")
    make = jax.jit(lambda key: off_tangent.make_problem(key, False, kind, config))
    return config, make(jax.random.key(5))


@pytest.mark.parametrize("name", off_tangent.OPERATORS)
def test_only_compatible_operators_leave_every_subspace_invariant(name):
    _, problem = tangent_problem(jnp.int32(list(off_tangent.OPERATORS).index(name)))
    image = problem.A.T @ (problem.A @ problem.U)
    outside = image - problem.U @ (problem.U.swapaxes(1, 2) @ image)
    shares = np.linalg.norm(outside, axis=(1, 2)) / np.linalg.norm(image, axis=(1, 2))
    if name.startswith("compatible"):
        assert np.all(shares < 1e-5)
    else:
        assert np.all(shares > 0.1)


def test_weighted_rows_of_the_cosine_transform_are_orthogonal():
    rows = jax.jit(off_tangent.cosine_rows, static_argnums=(1, 2, 3))(jax.random.key(0), 3, 9, 4.0)
    np.testing.assert_allclose(rows @ rows.T, np.diag([1, 1 / 4, 1 / 16]), atol=1e-6)


def test_updates_stay_in_the_tangent_space_where_the_premise_holds_and_leave_it_elsewhere():
    config = off_tangent_config.get_config("smoke")
    config.num_draws = 5
    draw_problem, measure = off_tangent.compiled(config)
    shares = {
        name: measure(draw_problem(jnp.bool_(1), jnp.int32(i)))[0]
        for i, name in enumerate(off_tangent.OPERATORS)
    }
    dds, mmps = (list(off_tangent.METHODS).index(name) for name in ("DDS, normal", "MMPS"))
    assert jnp.max(shares["compatible, no noise"][:, :, dds]) < 1e-4
    assert jnp.median(shares["random"][:, :, dds]) > 0.5
    assert jnp.max(shares["random"][:, :, mmps]) < 1e-4  # its update is a product with J


def system(dtype):
    A = random_matrix(jax.random.key(6), 6, 6, 3.0, dtype)
    b = random_matrix(jax.random.key(7), 1, 6, 1.0, dtype)[0]
    return (lambda v: A.conj().T @ (A @ v)), b


def test_forgetting_to_conjugate_changes_nothing_on_real_data():
    A, b = system(jnp.float32)
    found = jax.jit(lambda b: dds_ablation.steps_without_conjugation(A, b, 0 * b, 4))(b)
    expected = jax.jit(lambda b: krylov.cg(A, b, rtol=None, maxiter=4).value)(b)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_forgetting_to_conjugate_loses_convergence_on_complex_data():
    A, b = system(jnp.complex64)

    def residual(x):
        return jnp.linalg.norm(b - A(x)) / jnp.linalg.norm(b)

    theirs = jax.jit(lambda b: dds_ablation.steps_without_conjugation(A, b, 0 * b, 6))(b)
    ours = jax.jit(lambda b: krylov.cg(A, b, rtol=None, maxiter=6).value)(b)
    assert residual(ours) < 1e-3
    assert residual(theirs) > 10 * residual(ours)


def test_the_parts_of_a_complex_signal_see_the_same_measurement():
    x = jnp.asarray([1 + 2j, -3j, 0.5])
    np.testing.assert_array_equal(dds_ablation.to_complex(dds_ablation.to_parts(x)), x)
