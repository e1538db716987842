import numpy as np
import pytest
import scipy.linalg

from experiments import subjects
from experiments.schedule_problems import frechet_distance

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
