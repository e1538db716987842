"""The sequences of systems: operators and matrices, fields and their spectrum."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import families
from tests import darcy


@pytest.mark.parametrize("name", families.SEQUENCES)
def test_the_operators_and_the_matrices_are_the_same_maps(name):
    systems = families.SEQUENCES[name](3, 7)
    assert len(systems.bs) == len(systems.features) == 3
    with jax.enable_x64(True):
        for i in range(3):
            params = jax.tree.map(lambda leaf, i=i: leaf[i], systems.params)
            apply = systems.family.apply
            columns = jax.vmap(partial(apply, jax.tree.map(jnp.asarray, params)))(jnp.eye(49))
            matrix = systems.family.assemble(params)
            np.testing.assert_allclose(columns.T, matrix.toarray(), atol=1e-13)
            np.testing.assert_allclose(systems.family.diagonal(params), matrix.diagonal())
            asymmetry = abs(matrix - matrix.T).max()
            assert (asymmetry > 1e-3) == (systems.family.kind == "general")


def test_the_helmholtz_systems_are_indefinite():
    systems = families.SEQUENCES["Helmholtz, indefinite"](4, 20)
    for w, k in zip(*systems.params, strict=True):
        values = np.linalg.eigvalsh(families.helmholtz_matrix((w, k)).toarray())
        assert 3 <= np.sum(values < 0) <= 60


def test_the_plate_s_temperatures_lie_between_those_of_its_edges_and_in_a_plane():
    systems = families.SEQUENCES["thermal, one matrix"](6, 20)
    A = systems.family.assemble(systems.params[0]).toarray()
    x = np.linalg.solve(A, systems.bs.T).T.reshape(6, 20, 20)
    cold, hot = systems.features.T
    assert np.all(cold < 0)
    assert np.all(hot > 0)
    assert np.all(x.min((1, 2)) >= cold)
    assert np.all(x.max((1, 2)) <= hot)
    np.testing.assert_array_less(x[:, :, 0].mean(1), 0.5 * cold)
    np.testing.assert_array_less(0.5 * hot, x[:, :, -1].mean(1))
    values = np.linalg.svd(x.reshape(6, -1), compute_uv=False)
    assert np.all(values[2:] < 1e-12 * values[0] * len(A))


def test_only_the_conservative_matrix_is_symmetric_and_definite():
    w = families.few_parameters(2, 12)[1]
    A, R = families.conservative_matrix(w).toarray(), families.released_matrix(w).toarray()
    np.testing.assert_array_equal(A, A.T)
    assert np.linalg.eigvalsh(A)[0] > 0
    assert 1e-3 < np.linalg.norm(R - R.T) / np.linalg.norm(R) < 0.2


def test_the_fields_have_the_spectrum_of_those_on_file():
    ours, theirs = families.gaussian_fields(40, 52), darcy.data()["log_full"]
    powers = [(np.abs(np.fft.fft2(f)) ** 2).mean(0)[:6, 1:6] for f in (ours, theirs)]
    assert abs(np.log(powers[0] / powers[1]).mean()) < 0.15
