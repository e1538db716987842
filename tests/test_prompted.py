"""Duplicates, prompts and known scores of the experiments on low-dimensional denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.memorized_subspace import get_config
from experiments import oracle, prompted, pruning

CONFIG = get_config("smoke")
COLLECTION = prompted.collect(CONFIG, 0)


@pytest.mark.parametrize("copies", [1, 10])
def test_a_duplicated_image_is_drawn_as_often_as_it_was_copied(copies):
    num, rest = CONFIG.num_duplicated, CONFIG.num_ordinary
    drawn = prompted.draw(COLLECTION, copies, 200_000, np.random.default_rng(0))
    expected = np.append(np.full(num, copies), np.ones(rest)) / (num * copies + rest)
    found = np.bincount(drawn, minlength=num + rest) / len(drawn)
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max() / len(drawn)))


def test_prompts_share_their_class_and_no_caption():
    prompts = prompted.captioned(CONFIG, np.random.default_rng(0), np.array([3, 3]))
    np.testing.assert_array_equal(prompts[:, :10], np.eye(10)[[3, 3]])
    assert not np.any(prompts[0, 10:] == prompts[1, 10:])


@pytest.mark.parametrize("method", sorted(set(pruning.METHODS) - {"located, prompt by prompt"}))
def test_a_method_takes_at_most_its_share_of_every_output(method):
    rng = np.random.default_rng(0)
    norms = (jnp.asarray(rng.random((num, 3, 2, 20)), jnp.float32) for num in (4, 5, 4, 1))
    Ws = [jnp.asarray(rng.normal(size=(20, 7)), jnp.float32) for _ in range(2)]
    masks = pruning.METHODS[method](CONFIG, pruning.Neurons(*norms), Ws, 0.25)
    assert all(int(jnp.max(jnp.sum(mask, 0))) <= 5 for mask in masks)
    assert any(bool(jnp.any(mask)) for mask in masks)


def test_one_prompt_at_one_level_locates_the_same_alone_and_together():
    rng = np.random.default_rng(0)
    norms, empty = (jnp.asarray(rng.random((1, 1, 2, 20)), jnp.float32) for _ in range(2))
    Ws = [jnp.asarray(rng.normal(size=(20, 7)), jnp.float32) for _ in range(2)]
    alone = pruning.one_by_one(Ws, norms, empty, 0.25)
    for one, together in zip(alone, pruning.between(Ws, norms, empty, 0.25), strict=True):
        np.testing.assert_array_equal(one, together)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_known_denoiser_is_the_mean_of_the_codes_that_noise_allows(sigma):
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)
    population = oracle.Population(jnp.eye(2), codes, 0.2)
    z = population.sample(jax.random.key(0), 400_000)
    seen = jnp.asarray([0.4, -0.3])
    weights = jax.nn.softmax(-jnp.sum((z - seen) ** 2, 1) / (2 * sigma**2))
    np.testing.assert_allclose(population.denoise(seen, sigma), weights @ z, atol=0.01)
