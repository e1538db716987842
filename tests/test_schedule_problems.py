import numpy as np
import pytest
import scipy.linalg

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
