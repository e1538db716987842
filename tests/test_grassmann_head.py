"""Classes as subspaces: the logits of `GrassmannHead`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import optim
from subspace_jax.manifolds import GrassmannHead


def test_logits_are_lengths_of_projections():
    S, x = (
        GrassmannHead.init(jax.random.key(0), 5, 9, 3),
        4 * jax.random.normal(jax.random.key(1), (2, 7, 9)),
    )
    P, y = np.float64(S), np.float64(x)
    lengths = np.stack([np.linalg.norm(y @ Q, axis=-1) for Q in P], axis=-1)
    expected = 25.0 * lengths / np.linalg.norm(y, axis=-1, keepdims=True)
    np.testing.assert_allclose(jax.jit(GrassmannHead.logits)(S, x), expected, rtol=1e-5)
    assert (
        optim.check_invariance(jax.random.key(2), lambda S: jnp.sum(GrassmannHead.logits(S, x)), S)
        < 1e-2
    )


def test_logits_have_finite_derivatives_at_features_that_have_none():
    """Pitfall 6: a feature of zeros, and one orthogonal to a class."""
    S = jnp.stack([jnp.eye(5)[:, :2], jnp.eye(5)[:, 2:4]])
    for x in (jnp.zeros(5), jnp.eye(5)[0], jnp.eye(5)[4]):
        for g in jax.grad(lambda S, x: jnp.sum(GrassmannHead.logits(S, x)), (0, 1))(S, x):
            assert jnp.all(jnp.isfinite(g))


@pytest.mark.usefixtures("unchecked")
def test_features_of_another_dimension_are_an_error():
    with pytest.raises(ValueError, match=r"\(3, 5, 2\) do not fit features \(4, 6\)"):
        GrassmannHead.logits(jnp.zeros((3, 5, 2)), jnp.zeros((4, 6)))
