import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.linalg._fusion import apart

WITNESS = jnp.ones(2)


def read_thrice(x, witness):
    u = apart(lambda x: x**3 - x, x, witness)
    return u[2:] - 2 * u[1:-1] + u[:-2]


def plainly(x, witness):
    del witness
    u = x**3 - x
    return u[2:] - 2 * u[1:-1] + u[:-2]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a branch is what stays on a CPU")
def test_a_stage_is_compiled_apart_from_what_reads_it():
    x = jnp.linspace(-1, 1, 64)
    compiled = [jax.jit(f).lower(x, WITNESS).compile().as_text() for f in (read_thrice, plainly)]
    assert [" conditional(" in text for text in compiled] == [True, False]


def test_a_stage_apart_has_the_same_values_and_derivatives():
    x = jnp.linspace(-1, 1, 12).reshape(2, 6)
    for transform in (lambda f: f, lambda f: jax.jacfwd(f), lambda f: jax.jacrev(f)):
        found, wanted = (
            jax.jit(jax.vmap(transform(lambda x, f=f: f(x, WITNESS))))(x)
            for f in (read_thrice, plainly)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
