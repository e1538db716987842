"""The transformer of the language experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import transformer

SHAPE = transformer.Shape(2, 16, 2, 24, vocab=50)
MODEL = transformer.Transformer(SHAPE)


@pytest.fixture(scope="module")
def params():
    return MODEL.init(jax.random.key(0), jnp.zeros((1, 4), int))


def test_later_tokens_change_no_earlier_logits(params):
    tokens = jax.random.randint(jax.random.key(1), (3, 9), 0, 50)
    changed = tokens.at[:, 5].set((tokens[:, 5] + 1) % 50)
    logits, other = (MODEL.apply(params, t) for t in (tokens, changed))
    np.testing.assert_array_equal(logits[:, :5], other[:, :5])
    assert jnp.all(jnp.any(logits[:, 5:] != other[:, 5:], axis=-1))


def test_a_uniform_model_has_the_loss_log_vocab(params):
    blind = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * ("head" not in jax.tree_util.keystr(path)), params
    )
    tokens = jax.random.randint(jax.random.key(1), (3, 9), 0, 50)
    loss = transformer.next_token_loss(MODEL.apply(blind, tokens[:, :-1]), tokens)
    np.testing.assert_allclose(loss, np.log(50), rtol=1e-6)


def test_the_loss_is_that_of_the_token_that_follows():
    tokens = jnp.array([[3, 1, 2, 0]])
    logits = 50 * jax.nn.one_hot(tokens[:, 1:], 4)
    assert transformer.next_token_loss(logits, tokens) < 1e-6
    assert transformer.next_token_loss(50 * jax.nn.one_hot(tokens[:, :-1], 4), tokens) > 10


def test_rotary_products_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 8))
    rows = (jnp.broadcast_to(v, (1, 12, 1, 8)) for v in (q, k))
    q, k = (transformer.rotary(row)[0, :, 0] for row in rows)
    products = np.asarray(q @ k.T)
    for distance in range(-5, 6):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=1), jnp.linalg.norm(q[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "millions"), [(transformer.LLAMA_60M, 58.1), (transformer.LLAMA_130M, 134.1)]
)
def test_the_llama_shapes_have_the_published_sizes(shape, millions):
    """As the released GaLore prints them; 60M and 130M are their names."""
    model = transformer.Transformer(shape)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), int))
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) / 1e6 == pytest.approx(millions, abs=0.05)
    assert {leaf.ndim for leaf in leaves} == {1, 2}
