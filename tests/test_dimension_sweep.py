"""The intrinsic dimension against loops over tables of scores, and on a problem that has 10."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from subspace_jax import landscape, projections

KEY = jax.random.key(3)
EXACT = {"fraction": 0.75, "num_bootstrap": 20}  # has no rounding, as the scores below


def looked_up(dims, scores, baseline, fraction, average=np.mean):
    """The definition, one dim after another."""
    for dim, of_dim in zip(dims, scores, strict=True):
        if average([np.mean(s) for s in of_dim]) > fraction * average(
            [np.mean(b) for b in baseline]
        ):
            return dim
    return np.inf


@pytest.mark.parametrize("examples", [(), (8,)])
@pytest.mark.parametrize("average", ["mean", "median"])
def test_the_dimension_is_the_first_that_exceeds_the_fraction(examples, average):
    rng, dims = np.random.default_rng(0), np.array([1, 4, 5, 30])
    levels, spread = rng.integers(0, 5, (20, 4, 1)), rng.integers(0, 5, (20, 4, 4))
    scores = (levels + spread)[(..., *[None] * len(examples))] + np.zeros(examples)
    scores += rng.integers(-1, 2, scores.shape)
    scores, baselines = scores / 8, rng.integers(4, 9, (20, 4, *examples)) / 8
    find = partial(landscape.smallest_dimension, average=getattr(jnp, average), **EXACT)
    estimates = jax.jit(jax.vmap(find, (None, None, 0, 0)))(KEY, dims, scores, baselines)
    expected = [
        looked_up(dims, table, baseline, 0.75, getattr(np, average))
        for table, baseline in zip(scores, baselines, strict=True)
    ]
    np.testing.assert_array_equal(estimates.value, expected)
    assert len(set(expected)) > 2  # the tables are not all alike


def test_a_score_that_only_equals_the_fraction_is_not_enough():
    scores = jnp.array([[0.75], [0.875]])
    estimate = landscape.smallest_dimension(KEY, jnp.array([3, 7]), scores, jnp.ones(1), **EXACT)
    assert estimate.value == 7


def test_where_all_scores_agree_so_do_all_resamples():
    scores = jnp.broadcast_to(jnp.array([0.0, 1, 1])[:, None, None], (3, 2, 50))
    estimate = landscape.smallest_dimension(KEY, jnp.array([1, 2, 3]), scores, jnp.ones((2, 50)))
    assert (estimate.value, estimate.mean, estimate.std) == (2, 2, 0)
    np.testing.assert_array_equal(estimate.interval, [2, 2])


def test_no_dim_that_is_good_enough_is_infinity():
    estimate = landscape.smallest_dimension(KEY, jnp.array([1, 2]), jnp.zeros((2, 3)), jnp.ones(3))
    assert np.isposinf(np.concatenate([np.ravel(value) for value in estimate])).all()


def test_resamples_are_as_frequent_as_the_binomial_distribution_says():
    """Two of four seeds pass at dim 1: it is enough where a resample holds at least three."""
    scores = jnp.array([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    estimate = landscape.smallest_dimension(
        KEY, jnp.array([1, 2]), scores, jnp.ones(4), fraction=0.7, num_bootstrap=4000
    )
    share = (4 + 1) / 16  # of four draws, three or four
    assert float(estimate.mean) == pytest.approx(2 - share, abs=0.03)
    assert float(estimate.std) == pytest.approx(np.sqrt(share * (1 - share)), abs=0.02)
    np.testing.assert_array_equal(estimate.interval, [1, 2])


def test_a_resample_draws_the_same_examples_for_the_baseline():
    """An example is as good with one as with the other: no resample tells them apart."""
    right = 1 + jnp.arange(9) % 2.0
    scores, baseline = jnp.tile(right, (2, 3, 1)), jnp.tile(right, (3, 1))
    estimate = landscape.smallest_dimension(KEY, jnp.array([1, 2]), scores, baseline)
    assert (estimate.value, estimate.mean, estimate.std) == (1, 1, 0)


def solve_ten_sums(key, dim):
    """exp(-loss) at the exact minimum over z of the toy problem, 1000 numbers in ten sums."""
    P = projections.hashed(key, jnp.zeros(1000), dim, max_dim=40)
    sums = projections.materialize(P).reshape(10, 100, 40).sum(1)
    targets = jnp.arange(1.0, 11)
    z = jnp.linalg.lstsq(sums, targets)[0]
    return jnp.exp(-jnp.mean((sums @ z - targets) ** 2))


@pytest.mark.usefixtures("x64")
def test_the_toy_problem_has_dimension_ten():
    found = jax.jit(
        lambda key: landscape.intrinsic_dimension(
            key, solve_ten_sums, lambda key: jnp.ones(()), (2, 40),
            num_seeds=7, average=jnp.median, num_rounds=6, num_bootstrap=50,
        )
    )(KEY)  # fmt: skip
    assert (found.individual.value, found.common.value) == (10, 10)
    np.testing.assert_array_less(np.median(found.scores, 1)[found.dims < 10], 0.9)
    np.testing.assert_array_less(0.999, np.median(found.scores, 1)[found.dims >= 10])


def saturating(key, dim):
    """Grows with the dim to one, a seed faster than the other."""
    return dim / (dim + 50 * jax.random.uniform(key))


@pytest.mark.parametrize("fraction", [0.3, 0.99])
def test_bisection_finds_what_the_grid_of_all_integers_finds(fraction):
    def sweep(dims, num_rounds):
        return landscape.intrinsic_dimension(
            KEY, saturating, lambda key: jnp.full((), 0.9), dims,
            num_seeds=3, fraction=fraction, num_rounds=num_rounds, num_bootstrap=1,
        )  # fmt: skip

    whole, bisected = sweep(range(1, 301), 0), sweep((1, 20, 140, 300), 8)
    assert bisected.individual.value == whole.individual.value
    assert bisected.common.value == whole.common.value
    np.testing.assert_array_equal(bisected.scores, whole.scores[bisected.dims - 1])
    assert np.all(np.diff(bisected.dims) >= 0)


def test_every_dim_is_a_seeds_own_and_none_is_trained_twice():
    trained = []

    def train(key, dim):
        jax.debug.callback(lambda dim: trained.append(int(dim)), dim)
        return saturating(key, dim)

    found = landscape.intrinsic_dimension(
        KEY, train, lambda key: jnp.ones(()), (4, 8, 700), num_seeds=2, fraction=0.55, num_rounds=9
    )
    jax.effects_barrier()
    assert sorted(set(trained)) == sorted({*found.dims.tolist()})
    brackets = 2 * 2 * 9  # a bracket of both baselines, at most
    assert len(trained) <= 3 * 2 + brackets
    assert found.dims.shape == (3 + 2 * 9,)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_chunks_of_the_sweep_change_nothing(batch_size):
    def sweep(batch_size):
        return landscape.intrinsic_dimension(
            KEY, saturating, lambda key: jax.random.uniform(key, (5,)).mean(), (3, 30, 200),
            num_seeds=3, num_rounds=2, batch_size=batch_size, num_bootstrap=10,
        )  # fmt: skip

    for one, other in zip(
        jax.tree.leaves(sweep(batch_size)), jax.tree.leaves(sweep(None)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_no_more_runs_than_the_batch_are_in_memory_at_once():
    """A run's scratch space, by the shapes in the traced program."""

    def train(key, dim):
        return jax.random.normal(key, (1234,)).sum() + dim

    def largest(batch_size):
        program = jax.make_jaxpr(
            lambda key: landscape.intrinsic_dimension(
                key, train, lambda key: jnp.ones(()), (1, 2, 3, 4), num_seeds=3,
                batch_size=batch_size, num_bootstrap=1,
            )
        )(KEY)  # fmt: skip
        return max(n for n in (1, 2, 5, 12) if f"f32[{n},1234]" in str(program))

    assert [largest(n) for n in (2, 5, None)] == [2, 5, 12]


def test_what_cannot_be_swept_is_named():
    def sweep(dims=(1, 2), **options):
        options = {"num_seeds": 2} | options
        landscape.intrinsic_dimension(KEY, saturating, lambda key: jnp.ones(()), dims, **options)

    with pytest.raises(ValueError, match=r"must ascend and be at least 1, got \(2, 1\)"):
        sweep((2, 1))
    with pytest.raises(ValueError, match=r"got \(0, 1\)"):
        sweep((0, 1))
    for name, value in (("num_seeds", 0), ("batch_size", 0), ("num_rounds", -1)):
        with pytest.raises(ValueError, match=f"{name} must be at least .*, got {value}"):
            sweep(**{name: value})
    with pytest.raises(ValueError, match="num_bootstrap must be at least 1, got 0"):
        sweep(num_bootstrap=0)


@pytest.mark.usefixtures("unchecked")
def test_scores_and_baseline_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"got \(2, 3\) of \(2,\) and \(4,\)"):
        landscape.smallest_dimension(KEY, jnp.arange(1, 3), jnp.ones((2, 3)), jnp.ones(4))
