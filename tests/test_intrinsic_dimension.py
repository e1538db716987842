"""The toy problem has intrinsic dimension 10; the statistics of d_int90 against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.intrinsic_dimension import get_config
from experiments import intrinsic_dimension as experiment
from experiments import models
from subspace_jax import projections, tree

TARGETS = np.arange(1.0, 11.0)


def best_scores(scheme, dim):
    """exp(-loss) at the exact minimum over z, by least squares on the ten group sums; 20 keys."""

    def matrix(key):
        projection = getattr(projections, scheme)(key, jnp.zeros(1000), dim)
        return projections.materialize(projection)

    keys = jax.random.split(jax.random.key(0), 20)
    scores = []
    for P in np.asarray(jax.jit(jax.vmap(matrix))(keys), np.float64):
        sums = P.reshape(10, 100, dim).sum(1)
        z, *_ = np.linalg.lstsq(sums, TARGETS, rcond=None)
        scores.append(np.exp(-np.mean((sums @ z - TARGETS) ** 2)))
    return scores


@pytest.mark.parametrize("scheme", experiment.PROJECTIONS)
def test_ten_dimensions_solve_the_toy_problem_and_nine_do_not(scheme):
    assert min(best_scores(scheme, 10)) > 0.999
    assert np.median(best_scores(scheme, 9)) < 0.6
    assert np.median(best_scores(scheme, 8)) < 0.2


@pytest.mark.slow
def test_training_finds_what_least_squares_finds(tmp_path):
    config = get_config("toy")
    config.update(num_seeds=3, dims=(8, 9, 10, 16), num_bootstrap=50)
    results = experiment.run(config, tmp_path)
    score = np.array(results["score"])
    assert np.median(score[1]) < 0.9
    assert np.max(score[2]) > 0.99
    assert np.min(score[3]) > 0.999
    assert results["d_int"]["global"]["value"] == 10


def test_the_network_has_the_papers_size():
    params = jax.eval_shape(models.MLP((200, 200, 10)).init, jax.random.key(0), jnp.zeros((1, 784)))
    assert tree.size(params) == 199_210


def test_d_int_is_the_first_dim_whose_mean_reaches_the_fraction():
    config = get_config()
    config.update(dims=(1, 2, 3), num_bootstrap=200)
    direct = np.ones((2, 50))
    subspace = np.zeros((2, 3, 50))
    subspace[:, 1, :46] = 1
    found = experiment.smallest_dim(config, direct, subspace)
    assert found["value"] == 2
    assert found["interval"] == [2, None]
    none = {"value": None, "interval": [None, None], "mean": None, "std": None}
    assert experiment.smallest_dim(config, direct, 0 * subspace) == none


def test_its_bootstrap_is_certain_when_the_scores_are():
    config = get_config()
    config.update(dims=(1, 2, 3), num_bootstrap=200)
    subspace = np.zeros((2, 3, 50))
    subspace[:, 1:] = 1
    found = experiment.smallest_dim(config, np.ones((2, 50)), subspace)
    assert found == {"value": 2, "interval": [2, 2], "mean": 2, "std": 0}


def test_the_default_config_is_the_issues():
    config = get_config()
    assert (len(config.dims), config.num_seeds, config.data) == (12, 2, "mnist5k")
    assert get_config("smoke,d=20").dims == (20,)
    assert get_config("mnist").num_seeds == 3
