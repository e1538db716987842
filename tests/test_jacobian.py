"""Products with a Jacobian against the dense one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import linalg
from subspace_jax.diffusion import jacobian
from subspace_jax.diffusion import low_rank_gaussians as lrg

KEY = jax.random.key(0)


def normal(seed, shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def network(n, m):
    """A smooth function of images (n, 2) with m values, of a decaying spectrum."""
    W = normal(1, (m, 2 * n)) * 0.7 ** jnp.arange(2 * n)
    return lambda x: jnp.tanh(W @ x.ravel() / 4)


def test_the_triplets_are_those_of_the_dense_jacobian():
    f, x = network(6, 9), normal(2, (6, 2))
    J = np.asarray(jax.jit(jax.jacobian(f))(x)).reshape(9, 12)
    U, values, Vt = np.linalg.svd(J, full_matrices=False)
    triplets = partial(jacobian.singular_triplets, KEY, f, rank=3, num_oversamples=3)
    found = jax.jit(triplets)(x)
    np.testing.assert_allclose(found.values, values[:3], rtol=1e-3)
    assert found.U.shape == (9, 3)
    assert found.V.shape == (6, 2, 3)
    for i in range(3):  # up to a sign
        assert abs(np.vdot(found.V[..., i], Vt[i])) == pytest.approx(1, abs=1e-3)
        assert abs(np.vdot(found.U[:, i], U[:, i])) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_residual_norms_say_how_far_a_triplet_is_from_one():
    f, x = network(6, 9), normal(2, (6, 2))
    J = jax.jacobian(f)(x).reshape(9, 12)
    found = jacobian.singular_triplets(KEY, f, x, rank=2, num_oversamples=0, num_power_iterations=0)
    V = found.V.reshape(12, 2)
    np.testing.assert_allclose(J.T @ found.U, V * found.values, atol=1e-5)
    expected = jnp.linalg.norm(J @ V - found.U * found.values, axis=0)
    np.testing.assert_allclose(found.residual_norms, expected, rtol=1e-3, atol=1e-5)
    better = jacobian.singular_triplets(KEY, f, x, rank=2, num_power_iterations=4)
    assert jnp.all(better.residual_norms < expected / 10)


@pytest.mark.slow
def test_a_function_of_complex_arrays_is_a_real_linear_one():
    W = normal(3, (5, 4), "complex64")

    def f(x):
        return W @ jnp.conj(x) + 2 * x.real.sum()

    def of_parts(v):
        y = f(v[:4] + 1j * v[4:])
        return jnp.concatenate([y.real, y.imag])

    x = normal(4, (4,), "complex64")
    J = jax.jacobian(of_parts)(jnp.concatenate([x.real, x.imag]))
    values = jnp.linalg.svd(J, compute_uv=False)
    found = jacobian.singular_triplets(KEY, f, x, rank=8, num_power_iterations=1)
    np.testing.assert_allclose(found.values, values, rtol=1e-4, atol=1e-4)
    assert found.V.dtype == jnp.complex64
    gram = jnp.real(found.V.conj().T @ found.V)
    np.testing.assert_allclose(gram, np.eye(8), atol=1e-4)


@pytest.mark.slow
def test_the_remaining_energy_is_what_the_directions_do_not_hold():
    f, x = network(6, 9), normal(2, (6, 2))
    J = jax.jacobian(f)(x).reshape(9, 12)
    V = linalg.orthonormalize(normal(5, (12, 4)))
    expected = jnp.sum(J**2) - jnp.sum((J @ V) ** 2)
    found = jacobian.remaining_energy(KEY, f, x, V.reshape(6, 2, 4), num_probes=4000)
    assert abs(found.mean - expected) < 5 * found.standard_error
    assert found.standard_error < 0.05 * expected
    everything = jnp.eye(12).reshape(6, 2, 12)
    nothing = jacobian.remaining_energy(KEY, f, x, everything, num_probes=2)
    assert abs(nothing.mean) < 1e-8


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_the_numerical_rank_is_the_dense_one_or_more_than_was_seen(share):
    values = 0.8 ** np.arange(20)
    held = np.cumsum(values**2) / np.sum(values**2)
    expected = 1 + int(np.sum(held < share))
    for k in (3, 10, 19):
        rest = np.sum(values[k:] ** 2)
        found = jacobian.numerical_rank(jnp.asarray(values[:k]), rest, share)
        assert found == min(expected, k + 1)


def test_the_denoiser_of_a_subspace_has_its_rank_and_its_directions():
    Q = linalg.orthonormalize(normal(6, (2, 30, 3)))
    x = Q[1] @ normal(7, (3,))

    def f(x):
        return lrg.denoise(Q, jnp.ones(2), x, 0.05)

    @jax.jit
    def measured(x):
        found = jacobian.singular_triplets(KEY, f, x, rank=5, num_power_iterations=3)
        return found, jacobian.remaining_energy(KEY, f, x, found.V, num_probes=10).mean

    found, rest = measured(x)
    assert jacobian.numerical_rank(found.values, rest) == 3
    assert linalg.projection_distance(Q[1], found.V[:, :3]) < 1e-2


def test_nothing_of_the_size_of_the_jacobian_is_made():
    n = 500
    traced = jax.make_jaxpr(
        lambda x: jacobian.singular_triplets(KEY, lambda x: jnp.tanh(3 * x), x, rank=2)
    )(jnp.ones(n))
    assert max(sizes(traced.jaxpr)) <= 12 * n


def sizes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.usefixtures("unchecked")
def test_directions_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"\(4, 'k'\) are expected, got \(5, 2\)"):
        jacobian.remaining_energy(KEY, jnp.tanh, jnp.ones(4), jnp.ones((5, 2)), num_probes=1)
    with pytest.raises(ValueError, match="rank"):
        jacobian.singular_triplets(KEY, jnp.tanh, jnp.ones(4), rank=5)
