"""The one loop: from noise to a sample of the prior, or of the posterior given a measurement."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from subspace_jax.diffusion._checks import levels
from subspace_jax.diffusion._consistency import DataConsistency, linearized, none
from subspace_jax.diffusion.denoisers import Denoiser
from subspace_jax.diffusion.steps import (
    Guided,
    Normal,
    Step,
    balanced_normal,
    ddim,
    standard_normal,
)
from subspace_jax.typing import Array, Float, Inexact, Key

__all__ = ["MeanResult", "SampleResult", "sample", "sample_mean"]


class SampleResult(NamedTuple):
    """What a sampler returns."""

    x: Inexact[Array, "*shape"]
    """The sample."""
    estimates: Inexact[Array, "num *shape"] | None = None
    """The corrected x_0 after every ``save_every``-th step."""
    state: Any = ()
    """Of the data consistency, after the last step."""


def sample(
    key: Key,
    denoise: Denoiser,
    sigmas: Float[Array, " n_and_1"],
    shape: tuple[int, ...],
    *,
    data_consistency: DataConsistency | None = None,
    step: Step | None = None,
    dtype: Any = None,
    save_every: int = 0,
    normal: Normal = standard_normal,
    start: Inexact[Array, "*shape"] | None = None,
) -> SampleResult:
    """A sample: noise of level sigmas[0], taken down through all levels in one scan.

    For several samples or measurements use ``vmap``. Derivatives are those of the unrolled loop.

    Args:
        key: PRNG key.
        denoise: (x, sigma) -> the expected x_0 given x = x_0 + sigma n, for one example.
        sigmas: descending; the last is zero, unless the sample shall keep that much noise.
        shape: of the sample.
        data_consistency: corrects the estimate of x_0 in every step; None: a sample of the prior.
        step: from one level to the next; None: ``ddim()``.
        dtype: of the sample, real or complex (noise levels are per real component); None: that of
            ``sigmas``.
        save_every: steps between two estimates that are kept; 0: none is.
        normal: (key, shape, dtype) -> all noise, of variance one in every real component, or
            `no_noise`.
        start: an estimate of x_0 to which the first noise is added, so that levels may begin where
            they drown its error ("come closer, diffuse faster"); None: zero.

    Raises:
        ValueError: ``sigmas`` that do not descend to zero or above, a negative ``save_every``, a
            ``start`` of another shape, or complex for a real sample, or a denoiser that changes the
            shape, or real into complex.

    Reference: of ``start``, Chung, Sim & Ye (2022), "Come-closer-diffuse-faster", algorithm 1.
    """
    sigmas = levels("sigmas", sigmas)
    _check(sigmas, save_every)
    dtype = sigmas.dtype if dtype is None else jnp.zeros((), dtype).dtype
    sigmas = sigmas.astype(jnp.zeros((), dtype).real.dtype)
    step = ddim() if step is None else step
    consistency = DataConsistency(none) if data_consistency is None else data_consistency
    guided = guide(denoise, consistency)
    first, rest = jax.random.split(key)
    x = sigmas[0] * normal(first, tuple(shape), dtype)
    if start is not None:
        x = _started(start, x.shape, x.dtype) + x
    state = consistency.init(x)
    num_steps = len(sigmas) - 1
    num_saved = num_steps // save_every if save_every else 0
    saved = jnp.zeros((num_saved, *x.shape), x.dtype) if save_every else None

    def advance(carry, level):
        x, memory, state, saved = carry
        i, sigma, next_sigma = level
        key = jax.random.fold_in(rest, i)
        x, estimate, memory, state = step.update(
            lambda x: normal(key, x.shape, x.dtype), guided, x, sigma, next_sigma, memory, state
        )
        if num_saved:  # a buffer, since a scan's output would keep every step
            slot = jnp.where((i + 1) % save_every == 0, i // save_every, num_saved)
            saved = saved.at[slot].set(estimate, mode="drop")
        return (x, memory, state, saved), None

    steps = (jnp.arange(num_steps), sigmas[:-1], sigmas[1:])
    carry = (x, step.init(x), state, saved)
    (x, _, state, saved), _ = jax.lax.scan(advance, carry, steps)
    return SampleResult(x, saved, state)


class MeanResult(NamedTuple):
    """The mean of samples, and the samples."""

    x: Inexact[Array, "*shape"]
    """The mean."""
    samples: Inexact[Array, "num *shape"]
    """Each by itself is one of `sample`; together they spread more than independent ones."""


def sample_mean(
    key: Key,
    denoise: Denoiser,
    sigmas: Float[Array, " n_and_1"],
    shape: tuple[int, ...],
    num_samples: int,
    *,
    data_consistency: DataConsistency | None = None,
    step: Step | None = None,
    dtype: Any = None,
    start: Inexact[Array, "*shape"] | None = None,
) -> MeanResult:
    """The mean of samples whose noises cancel: nearer to that of all than independent ones' is.

    In every step the noise of all samples adds up to zero (`balanced_normal`), so that the mean is
    free of what a sampler makes of noise linearly: with a linear one it is exact with two samples.

    Args:
        key: PRNG key.
        denoise: as in `sample`.
        sigmas: as in `sample`.
        shape: of one sample.
        num_samples: at least two; they are mapped over by ``vmap``.
        data_consistency: as in `sample`.
        step: as in `sample`.
        dtype: as in `sample`.
        start: as in `sample`, of all samples.

    Raises:
        ValueError: ``num_samples`` below two, or what `sample` refuses.

    Reference: antithetic pairs, of the first noise, in Jia et al. (2025), "Antithetic noise in
    diffusion models".
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")

    def one(key: Key) -> Array:
        return sample(
            key,
            denoise,
            sigmas,
            shape,
            data_consistency=data_consistency,
            step=step,
            dtype=dtype,
            normal=balanced_normal("samples"),
            start=start,
        ).x

    samples = jax.vmap(one, axis_name="samples")(jax.random.split(key, num_samples))
    return MeanResult(jnp.mean(samples, 0), samples)


def guide(denoise: Denoiser, consistency: DataConsistency) -> Guided:
    """The denoiser and its correction, checked, as steps want them."""

    def predict(x: Array, sigma: Array, state: Any) -> tuple[Array, Array, Any]:
        def estimate(x: Array) -> Array:
            x0 = denoise(x, sigma)
            if x0.shape != x.shape:
                raise ValueError(f"denoise must keep the shape {x.shape}, got {x0.shape}")
            if jnp.iscomplexobj(x0) != jnp.iscomplexobj(x):
                raise ValueError(f"denoise must keep the dtype {x.dtype}, got {x0.dtype}")
            return x0.astype(x.dtype)  # a network may compute in less precision

        x0 = estimate(x)
        corrected, state = consistency.update(x0, linearized(estimate, x), sigma, state)
        return x0, corrected.astype(x.dtype), state

    return Guided(predict, consistency.direction)


def _started(start: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    start = jnp.asarray(start)
    if start.shape != shape:
        raise ValueError(f"start has shape {start.shape}, the sample {shape}")
    if jnp.iscomplexobj(start) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"start is {start.dtype}, the sample {dtype}")
    return start.astype(dtype)


def _check(sigmas: Array, save_every: int) -> None:
    if save_every < 0:
        raise ValueError(f"save_every must be >= 0, got {save_every}")
    if isinstance(sigmas, Tracer):
        return
    known = np.asarray(sigmas)
    if not (np.all(np.diff(known) < 0) and known[-1] >= 0):
        raise ValueError(f"sigmas must descend, to zero or above, got {known}")
