"""Experts that are reused: nothing old changes, nothing new stays that is not asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax.continual import igsp

RNG = np.random.default_rng(0)
E, N, M, R = 4, 6, 3, 2


def some(num):
    """``num`` experts that add something, and noise in the places behind them."""
    down, up = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((E, N, R), (E, R, M)))
    return igsp.Experts(down, up, jnp.array(num))


def vector(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_the_addition_is_the_weighted_sum_of_low_rank_kernels():
    experts, p, x = some(E), vector(E), vector(N)
    kernel = sum(p[e] * experts.down[e] @ experts.up[e] for e in range(E))
    np.testing.assert_allclose(igsp.apply(experts, p, x), x @ kernel, rtol=1e-5, atol=1e-5)


def test_candidates_add_nothing_yet_and_old_experts_are_as_before():
    experts, x = some(2), vector(N)
    grown = igsp.expand(jax.random.key(0), experts, 1)
    assert int(grown.num_experts) == 2
    for before, after in zip(experts[:2], grown[:2], strict=True):
        np.testing.assert_array_equal(before[:2], after[:2])
    assert jnp.all(grown.up[2] == 0)
    assert jnp.any(grown.down[2] != experts.down[2])
    np.testing.assert_array_equal(grown.down[3], experts.down[3])  # there is no candidate
    alone = igsp.apply(grown, jnp.array([0, 0, 1.0, 0]), x)
    np.testing.assert_array_equal(alone, 0)


def test_there_are_no_more_candidates_than_places():
    full = igsp.expand(jax.random.key(0), some(3), 5)
    assert jnp.all(full.up[3] == 0)
    everything = some(E)
    np.testing.assert_array_equal(
        igsp.expand(jax.random.key(0), everything, 1).down, everything.down
    )


def test_a_router_gives_a_softmax_over_the_first_experts():
    router, x = vector(N, E), vector(N)
    p = igsp.route(router, x, 3)
    np.testing.assert_allclose(p[:3], jax.nn.softmax((x @ router)[:3]), rtol=1e-5)
    assert p[3] == 0
    assert float(igsp.new_share(some(2), p)) == pytest.approx(float(p[2]), rel=1e-6)
    assert float(igsp.new_share(some(0), p)) == pytest.approx(1, rel=1e-6)


def test_only_new_experts_are_updated():
    experts = some(2)
    new = igsp.only_new(experts, experts[:2])
    for before, after in zip(experts[:2], new, strict=True):
        assert jnp.all(after[:2] == 0)
        np.testing.assert_array_equal(after[2:], before[2:])


@pytest.mark.parametrize(
    ("held", "usage", "kept"),
    [
        (2, [0.0, 0.5, 0.05, 0.45], [0, 1, 3]),  # old ones stay, used or not
        (2, [0.5, 0.5, 0.0, 0.0], [0, 1]),
        (0, [0.05, 0.08, 0.04, 0.03], [1]),  # the first task has one in any case
        (0, [0.4, 0.1, 0.5, 0.0], [0, 1, 2]),
        (4, [0.0, 0.0, 0.0, 1.0], [0, 1, 2, 3]),
    ],
)
def test_what_is_asked_for_stays_and_moves_up_with_its_router(held, usage, kept):
    experts, router = some(held), vector(N, E)
    prune = jax.jit(igsp.prune, static_argnames="threshold")
    found, columns = prune(experts, router, jnp.array(usage), threshold=0.1)
    assert int(found.num_experts) == len(kept)
    for before, after in zip(experts[:2], found[:2], strict=True):
        np.testing.assert_array_equal(after[: len(kept)], before[jnp.array(kept)])
        assert jnp.all(after[len(kept) :] == 0)
    np.testing.assert_array_equal(columns[:, : len(kept)], router[:, jnp.array(kept)])
    assert jnp.all(columns[:, len(kept) :] == 0)


def test_dropping_what_is_never_asked_for_changes_no_output():
    experts, x = some(2), vector(N)
    router = vector(N, E).at[:, 2].set(-1e3 * jnp.sign(x))  # never the third
    p = igsp.route(router, x, E)
    found, columns = igsp.prune(experts, router, p, threshold=0.0)
    assert int(found.num_experts) == 3
    again = igsp.route(columns, x, found.num_experts)
    np.testing.assert_allclose(
        igsp.apply(found, again, x), igsp.apply(experts, p, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="rank <= 3, got 4 and 5"):
        igsp.init(4, N, M, rank=5)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        igsp.expand(jax.random.key(0), some(1), 0)
    with pytest.raises(ValueError, match=r"\(6,\).*got \(5,\)"):
        igsp.apply(some(1), vector(E), vector(5))
    with pytest.raises(ValueError, match=r"\(4,\).*got \(3,\) and 0.1"):
        igsp.prune(some(1), vector(N, E), vector(3))
    with pytest.raises(ValueError, match="and 2"):
        igsp.prune(some(1), vector(N, E), vector(E), threshold=2)
