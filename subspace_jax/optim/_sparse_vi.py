"""Variational inference over the weights of a network, few of which are other than zero."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.special import erf, log_ndtr

from subspace_jax import tree
from subspace_jax.typing import Array, Float, Integer, Key, PyTree

Criterion = Literal["mean", "snr", "mean_abs", "exp_mean_abs", "snr_exp_mean_abs"]


class SparseGaussian(NamedTuple):
    """Independent normal weights at some places of the parameters; all others are zero."""

    indices: Integer[Array, " s"]
    """Places in the parameters, flattened as by ``jax.flatten_util.ravel_pytree``."""
    mean: Float[Array, " s"]
    log_scale: Float[Array, " s"]
    """Logarithm of the standard deviation."""


class SparseVIState(NamedTuple):
    """State of `sparse_vi`: a few numbers for each active weight, none for the others."""

    posterior: SparseGaussian
    optimizer: Any
    num_steps: Array


class SparseVIInfo(NamedTuple):
    """What a step of `sparse_vi` saw."""

    loss: Float[Array, ""]
    """Of the sampled weights, before the step."""
    divergence: Float[Array, ""]
    """KL(posterior | prior) over the active weights, before the step, in nats."""
    num_swapped: Integer[Array, ""]
    """Weights that were made zero in this step, and as many others active."""


class SparseVI(NamedTuple):
    """Pure functions, in the manner of optax; see `sparse_vi`."""

    init: Callable[[Key, PyTree], SparseVIState]
    """(key, params): the active weights, drawn at random, start at their values in ``params``."""
    update: Callable[..., tuple[SparseVIState, SparseVIInfo]]
    """(key, state, *batch): one step of the optimizer, and every so often a swap."""
    draw: Callable[[Key, SparseGaussian], PyTree]
    """A sample of the posterior, as parameters."""
    center: Callable[[SparseGaussian], PyTree]
    """The posterior's mean, as parameters."""


def sparse_vi(
    loss: Callable[..., Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    num_active: int,
    num_examples: int,
    prior_scale: float = 1.0,
    initial_scale: float = 0.01,
    num_samples: int = 1,
    swap_every: int = 100,
    swap_fraction: float | Callable[[Array], Array] = 0.2,
    criterion: Criterion = "snr",
) -> SparseVI:
    """Sparse subspace variational inference: normal weights on a support that moves.

    The evidence bound is ascended over the means and deviations of the ``num_active`` weights that
    may differ from zero. Every ``swap_every`` steps the least important of them become zero, and
    those zeros whose loss has the largest derivatives become active. What is stored, and what the
    optimizer remembers, is of size ``num_active``; all parameters at once is the mean-field method.
    A program on dense arrays, such as a usual ``loss``, computes with the zeros all the same.

    What the optimizer remembers of a weight is as new when it becomes active, but not its count of
    steps: as that corrects a bias, Adam moves new weights a few times faster at first. Under
    ``vmap`` a swap is computed in every step, and taken every ``swap_every``.

    The criterion of importance is "mean", |mu|; "snr", |mu| / sigma; "mean_abs", E |w|;
    "exp_mean_abs", E exp |w|; or "snr_exp_mean_abs", the mean of exp |w| over its deviation. The
    paper's default, the signal to noise ratio of |w|, is an increasing function of |mu| / sigma, so
    it is "snr".

    Args:
        loss: (params, *batch) -> the mean negative log-likelihood of the batch's examples.
        params: real; for structure and shapes alone.
        optimizer: of a `SparseGaussian`'s mean and log_scale, as a pair.
        num_active: weights that may differ from zero.
        num_examples: in the data; weighs the likelihood against the prior.
        prior_scale: standard deviation of the normal prior, of mean 0.
        initial_scale: standard deviation of weights when they become active.
        num_samples: weights drawn for a step; its memory is one sample's.
        swap_every: steps between swaps.
        swap_fraction: share of the active weights that is swapped, rounded to a number of them, or
            a schedule step -> share.
        criterion: which of the active weights are the least important.

    Raises:
        ValueError: ``num_active`` outside 1..D, a count below 1, a scale that is not positive, a
            number ``swap_fraction`` outside [0, 1], an unknown criterion, complex parameters; from
            ``init``, parameters that do not fit.

    Reference: Li, Miao, Qiu & Zhang (2024), "Training Bayesian neural networks with sparse subspace
    variational inference", arXiv 2402.11025. Weights are drawn whole, one sample for a batch; the
    paper's local reparameterisation needs to know the layers.
    """
    zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)), params)
    flat, unravel = ravel_pytree(zeros)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(f"params must be real numbers, got {flat.dtype}")
    if not 1 <= num_active <= flat.size:
        raise ValueError(f"num_active must lie in 1..{flat.size}, got {num_active}")
    _check_counts(num_examples=num_examples, num_samples=num_samples, swap_every=swap_every)
    if not (prior_scale > 0 and initial_scale > 0):
        raise ValueError(f"scales must be positive, got {prior_scale} and {initial_scale}")
    if not callable(swap_fraction) and not 0 <= swap_fraction <= 1:
        raise ValueError(f"swap_fraction must lie in [0, 1], got {swap_fraction}")
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion must be one of {get_args(Criterion)}, got {criterion!r}")
    log_initial = math.log(initial_scale)

    def scattered(index, values):
        return unravel(flat.at[index].set(values, unique_indices=True))

    def init(key, params):
        tree.check_same_shapes("init's params", params, "sparse_vi's", zeros)
        start = ravel_pytree(params)[0]
        index = jax.random.permutation(key, flat.size)[:num_active].astype(jnp.int32)
        log_scale = jnp.full(num_active, log_initial, flat.dtype)
        posterior = SparseGaussian(index, start[index].astype(flat.dtype), log_scale)
        return SparseVIState(posterior, optimizer.init(posterior[1:]), jnp.int32(0))

    def draw(key, posterior):
        index, mean, log_scale = posterior
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return scattered(index, mean + jnp.exp(log_scale) * noise)

    def gradients(key, posterior, batch):
        """Of the loss with respect to all weights, and to the scales; the loss."""
        scale = jnp.exp(posterior.log_scale)

        def add(total, key):
            noise = jax.random.normal(key, scale.shape, scale.dtype)
            weights = scattered(posterior.indices, posterior.mean + scale * noise)
            value, gradient = jax.value_and_grad(loss)(weights, *batch)
            slopes = ravel_pytree(gradient)[0]
            found = slopes, slopes[posterior.indices] * noise * scale, value.astype(flat.dtype)
            return jax.tree.map(lambda a, b: a + b / num_samples, total, found), None

        nothing = jnp.zeros_like(flat), jnp.zeros_like(scale), jnp.zeros((), flat.dtype)
        return jax.lax.scan(add, nothing, jax.random.split(key, num_samples))[0]

    def update(key, state, *batch):
        posterior, memory, num_steps = state
        slopes, slopes_scale, value = gradients(key, posterior, batch)
        divergence, (pull, pull_scale) = jax.value_and_grad(_divergence)(posterior[1:], prior_scale)
        gradient = (
            slopes[posterior.indices] + pull / num_examples,
            slopes_scale + pull_scale / num_examples,
        )
        updates, memory = optimizer.update(gradient, memory, posterior[1:])
        moved: Any = optax.apply_updates(posterior[1:], updates)
        moved = SparseGaussian(posterior.indices, *moved)
        num_steps += 1
        state, num = jax.lax.cond(
            num_steps % swap_every == 0,
            swap,
            lambda state, slopes: (state, jnp.int32(0)),
            SparseVIState(moved, memory, num_steps),
            slopes,
        )
        return state, SparseVIInfo(value, divergence, num)

    def swap(state, slopes):
        posterior, memory, num_steps = state
        share = swap_fraction(num_steps) if callable(swap_fraction) else swap_fraction
        index, is_new = _swapped(posterior, slopes, share, criterion)
        mean = jnp.where(is_new, 0, posterior.mean)
        log_scale = jnp.where(is_new, log_initial, posterior.log_scale)

        def forget(old, new):
            return jnp.where(is_new, new, old) if old.shape == is_new.shape else old

        memory = jax.tree.map(forget, memory, optimizer.init((mean, log_scale)))
        posterior = SparseGaussian(index, mean, log_scale)
        return SparseVIState(posterior, memory, num_steps), jnp.sum(is_new, dtype=jnp.int32)

    return SparseVI(init, update, draw, lambda posterior: scattered(*posterior[:2]))


def _swapped(
    posterior: SparseGaussian, slopes: Array, share: Any, criterion: str
) -> tuple[Array, Array]:
    """The new places, and which of them are new: in place of the least important."""
    num_active = len(posterior.indices)
    most = min(num_active, len(slopes) - num_active)
    num = jnp.round(share * num_active)
    worst = jax.lax.top_k(-_importance(posterior, criterion), most)[1]
    dormant = jnp.abs(slopes).at[posterior.indices].set(-1)
    best = jax.lax.top_k(dormant, most)[1].astype(posterior.indices.dtype)
    is_new = jnp.zeros(num_active, bool).at[worst].set(jnp.arange(most) < num)
    return jnp.where(is_new, posterior.indices.at[worst].set(best), posterior.indices), is_new


def _importance(posterior: SparseGaussian, criterion: str) -> Array:
    """What the criterion says of each active weight."""
    mean, scale = jnp.abs(posterior.mean), jnp.exp(posterior.log_scale)
    ratio = mean / scale
    if criterion == "mean_abs":
        bump = jnp.sqrt(2 / jnp.pi) * jnp.exp(-(ratio**2) / 2)
        return scale * bump + mean * erf(ratio / jnp.sqrt(2))
    if criterion == "exp_mean_abs":
        return _log_mean_exp_abs(mean, scale, 1.0)
    if criterion == "snr_exp_mean_abs":  # increases with the mean's square over that of the square
        return 2 * _log_mean_exp_abs(mean, scale, 1.0) - _log_mean_exp_abs(mean, scale, 2.0)
    return mean if criterion == "mean" else ratio


def _log_mean_exp_abs(mean: Array, scale: Array, rate: float) -> Array:
    """The logarithm of E exp(rate |w|), w normal with ``mean`` at least 0."""
    sides = jnp.stack(
        [sign * rate * mean + log_ndtr(sign * mean / scale + rate * scale) for sign in (1, -1)]
    )
    return (rate * scale) ** 2 / 2 + jax.nn.logsumexp(sides, axis=0)


def _divergence(values: tuple[Array, Array], prior_scale: float) -> Array:
    """KL(N(mean, scale^2) | N(0, prior_scale^2)), summed."""
    mean, log_scale = values
    log_ratio = log_scale - jnp.log(prior_scale)
    return jnp.sum((jnp.exp(2 * log_ratio) + (mean / prior_scale) ** 2 - 1) / 2 - log_ratio)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
