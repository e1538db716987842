"""Noise levels: the arrays that a sampler walks down, and the clocks that networks were trained by.

Samplers know one variable, x = x_0 + sigma n. A network may want its input scaled and its noise
level as a time: x_t = s(t) (x_0 + sigma(t) n) is what a `Schedule` says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from subspace_jax.diffusion._checks import check_at_least
from subspace_jax.typing import Array, Float

__all__ = [
    "Schedule",
    "cosine_sigmas",
    "karras_sigmas",
    "ve",
    "ve_sigmas",
    "vp_cosine",
    "vp_linear",
    "vp_sigmas",
]


class Schedule(NamedTuple):
    """What a network's own time means: x_t = s(t) (x_0 + sigma(t) n)."""

    scale: Callable[[Array], Array]
    """t -> s(t)."""
    sigma: Callable[[Array], Array]
    """t -> sigma(t), ascending."""
    inverse: Callable[[Array], Array]
    """sigma -> t."""


def karras_sigmas(
    n: int,
    *,
    sigma_min: float | Float[Array, ""],
    sigma_max: float | Float[Array, ""],
    rho: float = 7.0,
    dtype: Any = None,
) -> Float[Array, " n_and_1"]:
    """Levels: n from ``sigma_max`` to ``sigma_min``, evenly spaced in sigma^(1/rho), and a zero.

    Raises:
        ValueError: fewer than one level, or bounds that are not positive and ordered.

    Reference: Karras et al. (2022), arXiv 2206.00364, equation (5).
    """
    _check_range(n, sigma_min, sigma_max)
    low, high = (jnp.asarray(s, jnp.zeros((), dtype).dtype) for s in (sigma_min, sigma_max))
    steps = jnp.linspace(0, 1, n, dtype=high.dtype)
    levels = (high ** (1 / rho) + steps * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    # Exact at the first: where a sampler starts should be what the caller named.
    return jnp.append(levels.at[0].set(high), jnp.zeros((), high.dtype))


def ve_sigmas(
    n: int,
    *,
    sigma_min: float | Float[Array, ""] = 0.01,
    sigma_max: float | Float[Array, ""] = 100.0,
    dtype: Any = None,
) -> Float[Array, " n_and_1"]:
    """Levels: n from ``sigma_max`` to ``sigma_min`` in geometric progression, and a zero.

    Raises:
        ValueError: fewer than one level, or bounds that are not positive and ordered.

    Reference: Song et al. (2021), arXiv 2011.13456, the variance exploding process.
    """
    _check_range(n, sigma_min, sigma_max)
    low, high = (jnp.asarray(s, jnp.zeros((), dtype).dtype) for s in (sigma_min, sigma_max))
    steps = jnp.linspace(0, 1, n, dtype=high.dtype)
    return jnp.append(high * (low / high) ** steps, jnp.zeros((), high.dtype))


def vp_sigmas(
    n: int,
    *,
    num_times: int = 1000,
    beta_min: float = 1e-4,
    beta_max: float = 0.02,
    dtype: Any = None,
) -> Float[Array, " n_and_1"]:
    """The levels of n times 0, k, 2 k ... of linear betas, k = num_times // n, and a zero.

    Raises:
        ValueError: n outside of 1 to ``num_times``.

    Reference: Ho et al. (2020), arXiv 2006.11239; the uniform skip is that of Song et al. (2021),
    arXiv 2010.02502.
    """
    return _skipped(n, _linear_table(num_times, beta_min, beta_max), dtype)


def cosine_sigmas(
    n: int, *, num_times: int = 1000, offset: float = 0.008, dtype: Any = None
) -> Float[Array, " n_and_1"]:
    """The levels of n times 0, k, 2 k ... of the cosine schedule, k = num_times // n, and a zero.

    Raises:
        ValueError: n outside of 1 to ``num_times``.

    Reference: Nichol & Dhariwal (2021), arXiv 2102.09672, equation (17), betas at most 0.999.
    """
    return _skipped(n, _cosine_table(num_times, offset), dtype)


def vp_linear(*, num_times: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Schedule:
    """The clock of a network trained with linear betas, times 0 to num_times - 1.

    Reference: Ho et al. (2020), arXiv 2006.11239.
    """
    return _clock(_linear_table(num_times, beta_min, beta_max))


def vp_cosine(*, num_times: int = 1000, offset: float = 0.008) -> Schedule:
    """The clock of a network trained with the cosine schedule, times 0 to num_times - 1.

    Reference: Nichol & Dhariwal (2021), arXiv 2102.09672.
    """
    return _clock(_cosine_table(num_times, offset))


def ve() -> Schedule:
    """The clock of a network that is told the noise level itself, its input not scaled."""
    return Schedule(jnp.ones_like, lambda t: t, lambda sigma: sigma)


def _linear_table(num_times: int, beta_min: float, beta_max: float) -> np.ndarray:
    return _levels(np.log1p(-np.linspace(beta_min, beta_max, num_times)))


def _cosine_table(num_times: int, offset: float) -> np.ndarray:
    t = np.arange(num_times + 1) / num_times
    log_alpha = 2 * np.log(np.cos((t + offset) / (1 + offset) * np.pi / 2))
    return _levels(np.maximum(np.diff(log_alpha), np.log(1 - 0.999)))


def _levels(logs: np.ndarray) -> np.ndarray:
    """The levels sqrt(1 / alpha - 1) of every time, from the logarithms of the factors of alpha."""
    return np.sqrt(np.expm1(-np.cumsum(logs)))


def _skipped(n: int, table: np.ndarray, dtype: Any) -> Array:
    if not 1 <= n <= len(table):
        raise ValueError(f"n must be in 1 to {len(table)}, got {n}")
    times = len(table) // n * np.arange(n)[::-1]
    return jnp.asarray(np.append(table[times], 0), jnp.zeros((), dtype).dtype)


def _clock(table: np.ndarray) -> Schedule:
    """Between the times of the table log sigma is linear."""
    logs, times = np.log(table), np.arange(len(table))

    def sigma(t: Array | float) -> Array:
        dtype = jnp.result_type(float, t)
        return jnp.exp(jnp.interp(t, times.astype(dtype), logs.astype(dtype)))

    def inverse(sigma: Array | float) -> Array:
        dtype = jnp.result_type(float, sigma)
        return jnp.interp(jnp.log(sigma), logs.astype(dtype), times.astype(dtype))

    return Schedule(lambda t: (1 + sigma(t) ** 2) ** -0.5, sigma, inverse)


def _check_range(n: int, sigma_min: Any, sigma_max: Any) -> None:
    check_at_least("n", n, 1)
    check_at_least("sigma_min", sigma_min, 0, strict=True)
    check_at_least("sigma_max - sigma_min", sigma_max - sigma_min, 0)
