import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import tree

X = {"a": jnp.array([3.0, 0.0]), "b": (jnp.array([[4.0]]),)}


def test_norm_is_that_of_the_ravelled_vector():
    assert tree.norm(X) == 5
    assert tree.size(X) == 3
    np.testing.assert_array_equal(tree.ravel(X), [3, 0, 4])


def test_norm_has_a_finite_derivative_at_zero():
    zero = jax.tree.map(jnp.zeros_like, X)
    grads = jax.grad(tree.norm)(zero)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(grads))


def test_vdot_is_conjugate_linear_in_its_first_argument():
    x, y = jnp.array([1 + 2j, 3j]), jnp.array([2 - 1j, 1.0])
    np.testing.assert_allclose(tree.vdot(2j * x, y), -2j * tree.vdot(x, y))
    assert tree.vdot(x, x).imag == 0


def test_axpy_keeps_the_dtype_of_y():
    y = jnp.ones(3, jnp.bfloat16)
    assert tree.axpy(2.0, jnp.ones(3), y).dtype == jnp.bfloat16


@pytest.mark.parametrize("function", [tree.vdot, lambda x, y: tree.axpy(1.0, x, y)])
def test_unequal_trees_are_named(function):
    with pytest.raises(ValueError, match=r"x\['a'\] has shape \(2,\), y\['a'\] has shape \(3,\)"):
        function({"a": jnp.ones(2)}, {"a": jnp.ones(3)})
    with pytest.raises(ValueError, match="differ in structure"):
        function({"a": jnp.ones(2)}, [jnp.ones(2)])
