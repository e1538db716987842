"""The intrinsic dimension: how few directions it takes to train as well as with all.

What a run is stays the caller's: ``train(key, dim) -> score`` may train a network in a random
subspace (`projections.restrict`), search a policy, or solve for the best z. The ``dim`` is traced,
so that one compiled program runs every dim and seed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from subspace_jax.typing import Array, Float, Integer, Key

__all__ = ["DimensionEstimate", "IntrinsicDimension", "intrinsic_dimension", "smallest_dimension"]


class DimensionEstimate(NamedTuple):
    """The smallest dim that is good enough, and what it is when the runs are drawn again.

    Infinite where no dim on the grid is good enough.
    """

    value: Float[Array, ""]
    interval: Float[Array, "2"]
    """Holds the middle 90 % of the resamples."""
    mean: Float[Array, ""]
    """Of the resamples; infinite if one of them is."""
    std: Float[Array, ""]
    """Likewise."""


class IntrinsicDimension(NamedTuple):
    """What a sweep measured, and both dimensions that follow."""

    dims: Integer[Array, " m"]
    """Ascending. A round of bisection with nothing left between repeats a dim and its scores."""
    scores: Float[Array, "m num_seeds"]
    direct_scores: Float[Array, " num_seeds"]
    individual: DimensionEstimate
    """Against direct training."""
    common: DimensionEstimate
    """Against ``common_score``, the paper's global baseline."""


def intrinsic_dimension(
    key: Key,
    train: Callable[[Key, Array], Array],
    direct: Callable[[Key], Array],
    dims: Sequence[int],
    *,
    num_seeds: int,
    fraction: float = 0.9,
    common_score: float = 1.0,
    average: Callable[..., Array] = jnp.mean,
    num_rounds: int = 0,
    batch_size: int | None = None,
    num_bootstrap: int = 1000,
) -> IntrinsicDimension:
    """The smallest dim whose score exceeds a fraction of direct training's, and of a common score.

    Runs differ by seed and dim alone. A seed's key is the same at every dim and in direct training:
    fold the dim in where draws are to differ.

    Args:
        key: PRNG key.
        train: ``(key, dim) -> score``, or its scores (num_examples,), with ``dim`` traced: a
            projection needs ``max_dim=max(dims)``. Scores are positive and larger is better, or a
            fraction of them means nothing.
        direct: ``key -> score``, or scores, with all parameters.
        dims: the grid, ascending.
        num_seeds: runs of each dim.
        fraction: of the baseline that is good enough.
        common_score: the baseline that does not depend on the problem.
        average: of the seeds, with ``axis``: the mean or the median.
        num_rounds: bisections, for each baseline, between the last dim before the first one that is
            good enough and that one. ``log2`` of the widest gap, rounded up, ends at neighbours.
        batch_size: runs trained at once, by ``vmap``; None for all of the grid's. Memory is what
            so many runs take, which only the caller's device and ``train`` can tell. On a CPU 1 is
            often the fastest.
        num_bootstrap: resamples for the interval.

    Raises:
        ValueError: dims that do not ascend from 1 on, or a count out of bounds.

    Reference: Li, Farkhoor, Liu & Yosinski (2018), "Measuring the intrinsic dimension of objective
    landscapes", section 2.
    """
    _check(
        dims,
        num_seeds=num_seeds,
        batch_size=batch_size,
        num_rounds=num_rounds,
        num_bootstrap=num_bootstrap,
    )
    run_key, *bootstrap_keys = jax.random.split(key, 3)
    keys = jax.random.split(run_key, num_seeds)
    batch_size = batch_size or len(dims) * num_seeds
    sweep = partial(_sweep, train, keys, batch_size=batch_size)
    grid = jnp.asarray(dims)
    scores = sweep(grid)
    individual = jax.lax.map(direct, keys, batch_size=min(batch_size, num_seeds))
    baselines = jnp.stack([individual, jnp.full_like(individual, common_score)])
    passes = partial(_passes, fraction, average)
    if num_rounds:
        bisect = partial(_bisect, sweep, passes, grid, scores, num_rounds)
        middles, found = jax.lax.map(bisect, baselines)
        grid = jnp.concatenate([grid, middles.ravel()])
        scores = jnp.concatenate([scores, found.reshape(-1, *scores.shape[1:])])
        order = jnp.argsort(grid)
        grid, scores = grid[order], scores[order]
    estimate = partial(
        smallest_dimension, fraction=fraction, average=average, num_bootstrap=num_bootstrap
    )
    estimates = [
        estimate(one, grid, scores, baseline)
        for one, baseline in zip(bootstrap_keys, baselines, strict=True)
    ]
    return IntrinsicDimension(grid, _means(scores, 2), _means(individual, 1), *estimates)


def smallest_dimension(
    key: Key,
    dims: Integer[Array, " m"],
    scores: Float[Array, "m num_seeds *examples"],
    baseline: Float[Array, "num_seeds *examples"],
    *,
    fraction: float = 0.9,
    average: Callable[..., Array] = jnp.mean,
    num_bootstrap: int = 1000,
) -> DimensionEstimate:
    """The smallest dim whose score exceeds a fraction of the baseline's, by a table of scores.

    A resample draws the seeds again, with replacement, and the examples if there are any; the same
    ones for all dims and the baseline.

    Args:
        key: PRNG key of the resamples.
        dims: ascending.
        scores: of every dim and seed; each one number, or one an example.
        baseline: what they are compared with.
        fraction: of the baseline that is good enough.
        average: of the seeds, with ``axis``: the mean or the median.
        num_bootstrap: resamples.

    Raises:
        ValueError: shapes that do not fit, no dims, seeds or examples, or no resamples.

    Reference: Li et al. (2018), section 2.
    """
    if scores.shape != (*dims.shape, *baseline.shape) or not scores.size:
        raise ValueError(
            f"need scores (dims, seeds, ...) of a baseline (seeds, ...), got {scores.shape} "
            f"of {dims.shape} and {baseline.shape}"
        )
    if num_bootstrap < 1:
        raise ValueError(f"num_bootstrap must be at least 1, got {num_bootstrap}")
    dtype = jnp.promote_types(scores.dtype, jnp.float32)  # or large dims were rounded
    scores, baseline = scores.astype(dtype), baseline.astype(dtype)
    choices = jnp.append(dims.astype(dtype), jnp.inf)

    def first(scores, baseline):
        passed = _passes(fraction, average, scores, baseline)
        return choices[jnp.argmax(jnp.append(passed, True))]

    def again(key):
        drawn, drawn_baseline = scores, baseline
        for axis, one in enumerate(jax.random.split(key, baseline.ndim)):
            size = baseline.shape[axis]
            chosen = jax.random.randint(one, (size,), 0, size)
            drawn = jnp.take(drawn, chosen, axis=axis + 1)
            drawn_baseline = jnp.take(drawn_baseline, chosen, axis=axis)
        return first(drawn, drawn_baseline)

    values = jax.lax.map(again, jax.random.split(key, num_bootstrap))
    interval = jnp.quantile(values, jnp.array([0.05, 0.95], dtype), method="nearest")
    finite = jnp.all(jnp.isfinite(values))
    known = jnp.where(finite, values, 0)  # the difference of infinities is no number
    mean, std = (jnp.where(finite, f(known), jnp.inf) for f in (jnp.mean, jnp.std))
    return DimensionEstimate(first(scores, baseline), interval, mean, std)


def _sweep(train, keys, dims, *, batch_size):
    """Scores (num_dims, num_seeds, ...), ``batch_size`` runs at once."""
    runs = jnp.tile(keys, len(dims)), jnp.repeat(dims, len(keys))
    size = min(batch_size, len(runs[1]))
    scores = jax.lax.map(lambda run: train(*run), runs, batch_size=size)
    return scores.reshape(len(dims), len(keys), *scores.shape[1:])


def _passes(fraction, average, scores, baseline):
    """Whether scores (..., num_seeds, *examples) are good enough."""
    axis = scores.ndim - baseline.ndim
    reached = average(_means(scores, axis + 1), axis=axis)
    return reached > fraction * average(_means(baseline, 1), axis=0)


def _bisect(sweep, passes, dims, scores, num_rounds, baseline):
    """The dims (num_rounds,) in the middle of what is left, and their scores.

    Nothing is left where the smallest dim passes or none does.
    """
    first = jnp.argmax(jnp.append(passes(scores, baseline), True))
    low, high = jnp.clip(jnp.stack([first - 1, first]), 0, len(dims) - 1)

    def one_round(bracket, _):
        low, high, known = bracket
        middle = (low + high) // 2  # low itself if nothing is left, which need not be trained again
        new = jax.lax.cond(high - low > 1, lambda: sweep(middle[None])[0], lambda: known)
        enough = passes(new, baseline)
        low, high = jnp.where(enough, low, middle), jnp.where(enough, middle, high)
        return (low, high, jnp.where(enough, known, new)), (middle, new)

    bracket = dims[low], dims[high], scores[low]
    return jax.lax.scan(one_round, bracket, length=num_rounds)[1]


def _means(scores, first):
    """Means over the examples, the axes from ``first`` on."""
    return scores.mean(tuple(range(first, scores.ndim)))


def _check(dims, *, num_seeds, batch_size, num_rounds, num_bootstrap):
    if not len(dims) or min(dims) < 1 or any(a >= b for a, b in pairwise(dims)):
        raise ValueError(f"dims must ascend and be at least 1, got {tuple(dims)}")
    least = {"num_seeds": (num_seeds, 1), "num_rounds": (num_rounds, 0)}
    least |= {"num_bootstrap": (num_bootstrap, 1)}
    least |= {} if batch_size is None else {"batch_size": (batch_size, 1)}
    for name, (count, bound) in least.items():
        if count < bound:
            raise ValueError(f"{name} must be at least {bound}, got {count}")
