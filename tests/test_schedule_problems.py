import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from configs.fast_schedules import get_config
from experiments import subjects
from experiments.schedule_problems import frechet_distance, of_scans
from subspace_jax import diffusion

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num", [4, 50])
def test_the_frechet_distance_is_that_of_the_matrix_root(num):
    X = RNG.normal(size=(60, 5)) @ RNG.normal(size=(5, 5))
    Y = RNG.normal(size=(num, 5)) + 1
    C, D = np.cov(X.T), np.cov(Y.T)
    root = scipy.linalg.sqrtm(C @ D).real
    expected = np.sum((X.mean(0) - Y.mean(0)) ** 2) + np.trace(C + D - 2 * root)
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(X, X + 2) == pytest.approx(20)


@pytest.mark.parametrize(("size", "before"), [(6, 1), (7, 2), (3, 0)])
def test_zeros_stand_around_the_images(size, before):
    images = RNG.normal(size=(2, 3, 3))
    found = subjects.padded(images, size)
    assert found.shape == (2, size, size)
    inside = slice(before, before + 3)
    np.testing.assert_array_equal(found[:, inside, inside], images)
    assert np.count_nonzero(found) == images.size


def test_scans_are_reconstructed_with_the_masks_that_they_were_measured_with():
    config = get_config("smoke")
    problem = of_scans(config)
    masks = []
    for data in (problem.calibration, problem.test):
        mask, maps, y = (x[0] for x in data)
        masks.append(np.asarray(mask))
        assert np.all(np.asarray(y)[:, ~masks[-1]] == 0)
        op = diffusion.operators.multicoil_mri(mask, maps)
        start, sigma = jnp.zeros_like(y[0]), jnp.float32(0.1)
        found, expected = (
            dc.update(start, None, sigma, ())[0]
            for dc in (
                problem.consistency((mask, maps, y)),
                diffusion.cg_proximal(op, y, config.gamma),
            )
        )
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(*masks)
