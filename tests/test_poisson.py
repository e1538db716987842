"""The problem of the Poisson experiment, and that a killed run keeps its finished solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import poisson as configs
from experiments import photograph, poisson, poisson_methods


@pytest.mark.parametrize("options", ["smoke", "smoke,d3"])
@pytest.mark.parametrize("image", sorted(photograph.IMAGES))
def test_the_matrix_and_the_operator_are_the_same_map(image, options):
    config = configs.get_config(options)
    config.image = image
    with jax.enable_x64(True):
        problem = photograph.make_problem(config)
        u = np.random.default_rng(0).standard_normal(problem.inside.shape) * problem.inside
        product = np.asarray(problem.operator(jnp.asarray(u)))
    np.testing.assert_allclose(product[problem.inside], problem.matrix @ u[problem.inside])
    assert abs(problem.matrix - problem.matrix.T).max() == 0
    assert np.ptp(np.log(problem.coefficient)) <= np.log(config.contrast) + 1e-12


def test_the_blocks_are_those_of_the_matrix_on_the_whole_grid():
    config = configs.get_config("smoke")
    with jax.enable_x64(True):
        problem = photograph.make_problem(config)
        r = np.random.default_rng(0).standard_normal(problem.inside.shape)
        found = poisson_methods.block_jacobi(config, problem)(jnp.asarray(r))
    A, k = poisson_methods.everywhere(problem).toarray(), config.block
    wanted = [
        np.linalg.solve(A[i : i + k, i : i + k], r.ravel()[i : i + k]) for i in range(0, len(A), k)
    ]
    np.testing.assert_allclose(found.ravel(), np.concatenate(wanted), rtol=1e-10)
    config.block = 5
    with pytest.raises(ValueError, match="block must divide 32 cells, got 5"):
        poisson_methods.block_jacobi(config, problem)


def test_least_squares_solvers_stop_at_the_residual_and_say_how_they_end(tmp_path):
    config = configs.get_config("smoke")
    config.methods, config.tolerances, config.maxiter = ("lsmr", "cgls"), (1e-1, 1e-2), 4000
    results = poisson.run(config, tmp_path)
    assert results["missed"] == {}
    assert results["status"] == {"lsmr": "CONVERGED", "cgls": "CONVERGED"}


def test_a_run_that_was_cut_short_solves_only_what_is_left(tmp_path):
    config = configs.get_config("smoke")
    config.methods, config.tolerances = ("cg", "scipy cg"), (1e-1, 1e-2)
    whole = poisson.run(config, tmp_path)
    (tmp_path / "checkpoints" / "2.json").unlink()
    again = poisson.run(config, tmp_path)
    assert again["num_steps"] == whole["num_steps"]
    assert again["curves"]["cg"] == whole["curves"]["cg"]  # to the microsecond: not solved again
    assert again["curves"]["scipy cg"]["seconds"] != whole["curves"]["scipy cg"]["seconds"]


@pytest.mark.slow
def test_a_method_that_misses_a_tolerance_is_not_asked_for_the_next(tmp_path):
    config = configs.get_config("smoke")
    config.methods, config.maxiter = ("cg", "cg, multigrid"), 30
    results = poisson.run(config, tmp_path)
    assert list(results["missed"]) == ["cg"]
    assert len(results["curves"]["cg"]["steps"]) < len(config.tolerances)
    assert "cg" not in results["num_steps"]
