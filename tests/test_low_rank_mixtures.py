"""Denoisers trained on points of subspaces: what their losses are, and what they find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_subspaces as configs
from experiments import diffusion_subspaces, low_rank_mixtures
from subspace_jax import linalg
from subspace_jax.clustering import k_subspaces


def config(**changes):
    found = configs.get_config("smoke")
    found.update(changes)
    return found


def bases(seed, *shape):
    return linalg.orthonormalize(jax.random.normal(jax.random.key(seed), shape))


@pytest.mark.slow
def test_at_low_noise_the_diffusion_loss_is_the_error_of_k_subspaces():
    """Plus what the noise in the subspace itself adds, sigma^2 d / (1 + sigma^2)^2."""
    sigma = 0.01
    few = config(sigma_range=(sigma, sigma), noise=0.05)
    samples = low_rank_mixtures.draw(few, jax.random.key(0), 4, 8, 8)
    U = linalg.orthonormalize(samples.U + 0.02 * jax.random.normal(jax.random.key(1), (3, 64, 4)))
    error = jnp.mean(
        k_subspaces.score(k_subspaces.KSubspaces(U, jnp.zeros(()), jnp.int32(0)), samples.X)
    )
    keys = jax.random.split(jax.random.key(2), 500)
    losses = jax.vmap(lambda key: low_rank_mixtures.denoising_loss(few, key, U, samples))(keys)
    assert jnp.mean(losses) == pytest.approx(float(error) + 4 * sigma**2, rel=3e-3)
    assert jnp.mean(losses) != pytest.approx(float(error), rel=3e-4)


@pytest.mark.slow
def test_one_subspace_trained_by_the_diffusion_loss_is_the_principal_one():
    one = config(num_clusters=1, noise=0.3, num_steps=1000)
    samples = low_rank_mixtures.draw(one, jax.random.key(0), 2, 20, 20)
    found = low_rank_mixtures.train(one, jax.random.key(1), samples, bases(2, 2, 1, 64, 2))
    principal = jnp.linalg.svd(samples.X)[2][:2].T
    assert linalg.projection_distance(found[0], principal) < 0.02


def test_fewer_points_are_some_of_more_points():
    few, many = (low_rank_mixtures.draw(config(), jax.random.key(0), 2, num, 5) for num in (3, 5))
    X, Y = (samples.X.reshape(3, 5, 64) for samples in (few, many))
    np.testing.assert_array_equal(X[:, :3], Y[:, :3])
    assert not jnp.any(X[:, 3:])
    assert jnp.sum(few.present) == 9
    away = Y - jnp.einsum("knd,kld,kml->kmn", many.U, many.U, Y)
    assert jnp.std(away) == pytest.approx(config().noise, rel=0.1)


def test_subspaces_in_another_order_and_frame_are_the_same():
    U = bases(3, 3, 9, 2)
    turned = U[jnp.asarray([2, 0, 1])] @ bases(4, 3, 2, 2)
    np.testing.assert_allclose(low_rank_mixtures.distances(U, turned), 0, atol=1e-5)


def test_orthogonal_subspaces_have_the_distance_one():
    Q = bases(5, 8, 8)
    U, V = (part.reshape(8, 2, 2).swapaxes(0, 1) for part in (Q[:, :4], Q[:, 4:]))
    np.testing.assert_allclose(low_rank_mixtures.distances(U, V), 1, atol=1e-5)


def test_a_transition_lasts():
    sines = [[0.1, 0.9, 0.9], [0.9, 0.2, 0.9], [0.3, 0.2, 0.9]]
    found = {"nums": [2, 3, 5], "sine": {"a": sines}}
    assert diffusion_subspaces.transitions(found, "a", 0.5) == [5, 3, np.inf]
