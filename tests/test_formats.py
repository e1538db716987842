import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental import sparse
from jax.test_util import check_grads

from subspace_jax.linalg import operators

pytestmark = pytest.mark.usefixtures("x64")


def random(shape, dtype=float, seed=0):
    rng = np.random.default_rng(seed)
    imaginary = 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else 0
    return jnp.asarray(rng.normal(size=shape) + imaginary, dtype)


@pytest.mark.parametrize("shape", [(1, 1), (6, 9), (9, 6), (40, 40), (5, 1), (1, 5)])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_formats_multiply_like_scipy(shape, density):
    A = sp.random(*shape, density, rng=np.random.default_rng(5))
    v = random(shape[1])
    np.testing.assert_allclose(operators.ell(A)(v), A @ v, atol=1e-13)
    if shape[0] == shape[1]:
        np.testing.assert_allclose(operators.dia(A)(v), A @ v, atol=1e-13)


@pytest.mark.parametrize("build", [operators.ell, operators.dia])
def test_formats_take_bcoo_with_padding_and_sum_duplicates(build):
    data = jnp.array([1.0, 2.0, 4.0, 0.0])
    indices = jnp.array([[0, 1], [0, 1], [2, 0], [3, 3]])
    A = sparse.BCOO((data, indices), shape=(3, 3))
    np.testing.assert_array_equal(build(A)(jnp.array([1.0, 10.0, 100.0])), [30, 0, 4])
    assert build(A)(jnp.ones(3, jnp.float32)).dtype == jnp.float64  # the matrix's precision


@pytest.mark.parametrize("build", [operators.ell, operators.dia])
def test_formats_refuse_what_they_cannot_convert(build):
    with pytest.raises(ValueError, match="scipy sparse matrix or a BCOO, got ndarray"):
        build(np.eye(3))
    for other in (sparse.BCSR.fromdense(jnp.eye(3)), sparse.BCOO.fromdense(jnp.eye(3), n_dense=1)):
        with pytest.raises(ValueError, match=f"or a BCOO, got {type(other).__name__}"):
            build(other)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda A: build(A).values)(sparse.BCOO.fromdense(jnp.eye(3)))
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(4,\)"):
        build(sp.eye(3))(jnp.ones(4))


def test_dia_is_for_square_matrices():
    with pytest.raises(ValueError, match=r"square matrices, got \(2, 3\)"):
        operators.dia(sp.random(2, 3, 0.5))


@pytest.mark.parametrize("build", [operators.ell, operators.dia])
def test_formats_are_differentiable_in_their_values(build):
    A = build(sp.random(5, 5, 0.5, rng=np.random.default_rng(5)))
    field = "values" if build is operators.ell else "diagonals"

    def square(values, v):
        return jnp.sum(dataclasses.replace(A, **{field: values})(jnp.asarray(v)) ** 2)

    check_grads(square, (getattr(A, field), random(5)), order=1, rtol=1e-6)
