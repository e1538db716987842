"""Weights that carry a concept, against sorting and counting by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.concepts import wanda

RNG = np.random.default_rng(0)
S, R = (jnp.asarray(RNG.random((10, 6)), jnp.float32) for _ in range(2))


def best(table, count):
    """The (row, column) pairs of the largest entries of each column."""
    return {(i, j) for j in range(table.shape[1]) for i in np.argsort(table[:, j])[-count:]}


def members(mask):
    return set(zip(*np.nonzero(np.asarray(mask)), strict=True))


def test_a_score_bounds_what_the_output_loses_with_the_weight():
    """By Cauchy-Schwarz it is exactly the norm, over examples, of what the weight adds."""
    W, X = RNG.normal(size=(10, 6)), RNG.normal(size=(7, 10))
    found = wanda.scores(jnp.asarray(W), wanda.norms(jnp.asarray(X)))
    for i, j in np.ndindex(W.shape):
        without = W.copy()
        without[i, j] = 0
        lost = np.linalg.norm((X @ W - X @ without)[:, j])
        assert float(found[i, j]) == pytest.approx(lost, rel=1e-5)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.3, 3), (1.0, 10)])
def test_the_best_are_those_that_sorting_puts_last(share, count):
    assert members(jax.jit(wanda.top, static_argnums=1)(S, share)) == best(S, count)


def test_one_neuron_is_the_best_of_itself():
    assert bool(wanda.top(S[:1], 0.1).all())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_located_is_the_difference_of_two_sets(share):
    count = round(share * 10)
    assert members(wanda.located(S, R, share)) == best(S, count) - best(R, count)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_nothing_is_located_against_itself(share):
    assert not members(wanda.located(S, S, share))


def test_shared_goes_from_the_union_to_the_intersection():
    masks = jnp.asarray(RNG.random((4, 10, 6)) < 0.6)
    sets = [members(mask) for mask in masks]
    assert members(wanda.shared(masks, 1)) == set.union(*sets)
    assert members(wanda.shared(masks, 4)) == set.intersection(*sets)
    twice = {p for p in np.ndindex(10, 6) if sum(p in s for s in sets) >= 2}
    assert members(wanda.shared(masks, 2)) == twice


def test_a_network_without_a_neuron_of_one_prompt_keeps_the_other():
    """Two prompts use a neuron each, and share a third: only what is the first one's own goes."""
    W = jnp.asarray([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]])
    one, other = jnp.asarray([[2.0, 0.0, 1.0]]), jnp.asarray([[0.0, 2.0, 1.0]])
    of_one, of_other = (wanda.scores(W, wanda.norms(x)) for x in (one, other))
    pruned = wanda.remove(W, wanda.located(of_one, of_other, 0.6))
    np.testing.assert_array_equal(other @ pruned, other @ W)
    np.testing.assert_array_equal(one @ pruned, W[2:])


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("norms of 10 neurons", lambda: wanda.scores(S, S[0])),
        ("share must be in", lambda: wanda.top(S, 0.0)),
        ("share must be in", lambda: wanda.located(S, R, 1.5)),
        ("have one shape", lambda: wanda.located(S, R[:, :3], 0.5)),
        ("min_count must be in 1 to 1", lambda: wanda.shared(S[None] > 0, 2)),
        ("like its kernel", lambda: wanda.remove(S, S[:2] > 0)),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(message, call):
    with pytest.raises(ValueError, match=message):
        call()
