"""The sequences of systems: operators and matrices, fields and their spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import families
from tests import darcy


@pytest.mark.parametrize("family", [families.CONSERVATIVE, families.RELEASED])
def test_the_operator_and_the_matrix_are_the_same_map(family):
    with jax.enable_x64(True):
        w = families.full_coefficients(1, 9, seed=3)[0]
        columns = jax.vmap(lambda v: family.apply(jnp.asarray(w), v))(jnp.eye(49))
        np.testing.assert_allclose(columns.T, family.assemble(w).toarray(), atol=1e-14)


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
